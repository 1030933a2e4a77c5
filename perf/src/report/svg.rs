//! Drawings, as inline SVG. Colours and type come from the page's style sheet by class, so a drawing follows the reader's scheme.

use std::fmt::Write;

/// Escapes text for HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Canvas {
    width: f64,
    height: f64,
    body: String,
}

impl Canvas {
    fn new(width: f64, height: f64) -> Canvas {
        Canvas { width, height, body: String::new() }
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        self.body.write_fmt(element).expect("a string takes everything");
        self.body.push('\n');
    }

    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.put(format_args!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escape(text);
        self.put(format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#));
    }

    fn dot(&mut self, class: &str, x: f64, y: f64, tip: &str) {
        let tip = escape(tip);
        self.put(format_args!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="5"><title>{tip}</title></circle>"#
        ));
    }

    fn path(&mut self, class: &str, points: &[(f64, f64)], tip: &str) {
        let mut d = String::new();
        for (at, (x, y)) in points.iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            write!(d, "{command}{x:.1} {y:.1}").expect("a string takes everything");
        }
        let tip = escape(tip);
        self.put(format_args!(r#"<path class="{class}" d="{d}"><title>{tip}</title></path>"#));
    }

    fn finish(self, label: &str) -> String {
        let Canvas { width, height, body } = self;
        let label = escape(label);
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\">\n<title>{label}</title>\n{body}</svg>\n"
        )
    }
}

/// Powers of ten from below the smallest to above the largest value, and where a value lies between them (0 to 1).
struct LogScale {
    first: i32,
    last: i32,
}

impl LogScale {
    #[expect(clippy::cast_possible_truncation, reason = "the logarithm of a finite float is small")]
    fn around(values: impl Iterator<Item = f64>) -> LogScale {
        let (low, high) = values
            .filter(|value| value.is_finite() && *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if high == 0.0 {
            return LogScale { first: 0, last: 1 };
        }
        let first = low.log10().floor() as i32;
        LogScale { first, last: (high.log10().ceil() as i32).max(first + 1) }
    }

    fn place(&self, value: f64) -> f64 {
        let span = f64::from(self.last - self.first);
        ((value.max(1e-12).log10() - f64::from(self.first)) / span).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        (self.first..=self.last).map(|power| 10.0_f64.powi(power))
    }
}

/// A pair of values in one line of [`dumbbells`].
pub(crate) struct Pair {
    /// What the line is about.
    pub(crate) label: String,
    /// Under sync, if measured.
    pub(crate) sync: Option<f64>,
    /// Under async, if measured.
    pub(crate) asynchronous: Option<f64>,
}

/// Two values a line on a logarithmic axis: how far apart they are is their ratio.
pub(crate) fn dumbbells(title: &str, pairs: &[Pair], show: fn(f64) -> String) -> String {
    const LEFT: f64 = 190.0;
    const RIGHT: f64 = 1010.0;
    const STEP: f64 = 36.0;
    const TOP: f64 = 34.0;
    let height = TOP + STEP * pairs.len() as f64 + 14.0;
    let mut canvas = Canvas::new(1080.0, height);
    let scale = LogScale::around(pairs.iter().flat_map(|pair| [pair.sync, pair.asynchronous]).flatten());
    let x = |value: f64| LEFT + (RIGHT - LEFT) * scale.place(value);
    for tick in scale.ticks() {
        canvas.line("grid", (x(tick), TOP - 8.0), (x(tick), height - 14.0));
        canvas.text("tick mid", x(tick), TOP - 16.0, &tick_rate(tick));
    }
    for (at, pair) in pairs.iter().enumerate() {
        let y = TOP + STEP * (at as f64 + 0.5);
        canvas.text("label end", LEFT - 14.0, y + 4.0, &pair.label);
        if let (Some(sync), Some(asynchronous)) = (pair.sync, pair.asynchronous) {
            canvas.line("bond", (x(sync), y), (x(asynchronous), y));
            let ratio = asynchronous / sync;
            if (x(asynchronous) - x(sync)).abs() > 70.0 {
                let middle = f64::midpoint(x(sync), x(asynchronous));
                canvas.text("ratio mid", middle, y - 6.0, &format!("× {ratio:.1}"));
            }
        }
        let sync_first = pair.sync.unwrap_or(0.0) <= pair.asynchronous.unwrap_or(f64::INFINITY);
        for (class, name, value, first) in
            [("sync", "sync", pair.sync, sync_first), ("async", "async", pair.asynchronous, !sync_first)]
        {
            let Some(value) = value else { continue };
            canvas.dot(&format!("dot {class}"), x(value), y, &format!("{} {name}: {}", pair.label, show(value)));
            let (anchor, shift) = if first { ("value end", -11.0) } else { ("value", 11.0) };
            canvas.text(anchor, x(value) + shift, y + 4.0, &show(value));
        }
    }
    canvas.finish(title)
}

/// A line of [`dots`].
pub(crate) struct Line {
    /// What the line is about.
    pub(crate) label: String,
    /// Class, name and value of each dot.
    pub(crate) dots: Vec<(&'static str, String, f64)>,
}

/// Several values a line on a logarithmic axis.
pub(crate) fn dots(title: &str, lines: &[Line], show: fn(f64) -> String) -> String {
    const LEFT: f64 = 190.0;
    const RIGHT: f64 = 1040.0;
    const STEP: f64 = 44.0;
    const TOP: f64 = 34.0;
    let height = TOP + STEP * lines.len() as f64 + 6.0;
    let mut canvas = Canvas::new(1080.0, height);
    let scale = LogScale::around(lines.iter().flat_map(|line| line.dots.iter().map(|dot| dot.2)));
    let x = |value: f64| LEFT + (RIGHT - LEFT) * scale.place(value);
    for tick in scale.ticks() {
        canvas.line("grid", (x(tick), TOP - 6.0), (x(tick), height - 6.0));
        canvas.text("tick mid", x(tick), TOP - 13.0, &tick_rate(tick));
    }
    for (at, line) in lines.iter().enumerate() {
        let y = TOP + STEP * (at as f64 + 0.5);
        canvas.text("label end", LEFT - 16.0, y + 5.0, &line.label);
        canvas.line("grid", (LEFT, y), (RIGHT, y));
        let mut dots: Vec<_> = line.dots.iter().filter(|dot| dot.2 > 0.0).collect();
        dots.sort_by(|left, right| left.2.total_cmp(&right.2));
        // Neighbours lie close to each other: every other value stands below its dot.
        for (place, (class, name, value)) in dots.into_iter().enumerate() {
            canvas.dot(&format!("fill {class}"), x(*value), y, &format!("{name}: {}", show(*value)));
            canvas.text("small mid", x(*value), if place % 2 == 0 { y - 9.0 } else { y + 19.0 }, &show(*value));
        }
    }
    canvas.finish(title)
}

/// One bar of [`bars`].
pub(crate) struct Bar {
    /// What it is about.
    pub(crate) label: String,
    /// Its length.
    pub(crate) value: f64,
    /// Class of its colour: `sync`, `async`, `c0` to `c5`.
    pub(crate) class: &'static str,
    /// What is said when pointed at.
    pub(crate) tip: String,
}

/// Bars from zero, with a mark at one that says what one is.
pub(crate) fn bars(title: &str, bars: &[Bar], one: &str) -> String {
    const LEFT: f64 = 240.0;
    const RIGHT: f64 = 1000.0;
    const STEP: f64 = 24.0;
    const TOP: f64 = 30.0;
    let height = TOP + STEP * bars.len() as f64 + 10.0;
    let mut canvas = Canvas::new(1080.0, height);
    // A ratio far above one says that the disk changed between probe and row; it must not squeeze the others.
    let most = bars.iter().map(|bar| bar.value).filter(|value| value.is_finite()).fold(1.0, f64::max).min(1.5) * 1.02;
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value / most).clamp(0.0, 1.0);
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let class = if tick == 1.0 { "one" } else { "grid" };
        canvas.line(class, (x(tick), TOP - 6.0), (x(tick), height - 6.0));
        canvas.text("tick mid", x(tick), TOP - 13.0, &if tick == 1.0 { one.to_owned() } else { format!("{tick}") });
    }
    for (at, bar) in bars.iter().enumerate() {
        let y = TOP + STEP * at as f64;
        canvas.text("label end", LEFT - 12.0, y + 15.0, &bar.label);
        let (width, tip) = ((x(bar.value) - LEFT).max(1.0), escape(&bar.tip));
        canvas.put(format_args!(
            r#"<rect class="fill {}" x="{LEFT}" y="{:.1}" width="{width:.1}" height="15" rx="2"><title>{tip}</title></rect>"#,
            bar.class,
            y + 3.0
        ));
        canvas.text("value", x(bar.value) + 8.0, y + 15.0, &format!("{:.2}", bar.value));
    }
    canvas.finish(title)
}

/// One line of [`percentiles`].
pub(crate) struct Curve {
    /// Its name in the legend.
    pub(crate) label: String,
    /// Class of its colour: `c0` to `c5`.
    pub(crate) class: String,
    /// Quantile and microseconds.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Quantiles that latency curves are drawn through.
pub(crate) const QUANTILES: [f64; 17] =
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999];

/// Latency over percentile; each nine gets as much room as the one before it, the axis of time is logarithmic.
pub(crate) fn percentiles(title: &str, curves: &[Curve], show: fn(f64) -> String) -> String {
    const LEFT: f64 = 66.0;
    const RIGHT: f64 = 512.0;
    const TOP: f64 = 46.0;
    const BOTTOM: f64 = 270.0;
    const NINES: f64 = 4.0;
    let mut canvas = Canvas::new(530.0, 306.0);
    canvas.text("panel", 2.0, 16.0, title);
    let scale = LogScale::around(curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1)));
    let x = |quantile: f64| LEFT + (RIGHT - LEFT) * (-(1.0 - quantile).log10() / NINES).clamp(0.0, 1.0);
    let y = |us: f64| BOTTOM - (BOTTOM - TOP) * scale.place(us);
    for tick in scale.ticks() {
        canvas.line("grid", (LEFT, y(tick)), (RIGHT, y(tick)));
        canvas.text("tick end", LEFT - 8.0, y(tick) + 4.0, &tick_time(tick));
    }
    for (quantile, name) in [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99 %")] {
        canvas.line("grid", (x(quantile), TOP), (x(quantile), BOTTOM));
        let class = if quantile > 0.999 { "tick end" } else { "tick mid" };
        canvas.text(class, x(quantile), BOTTOM + 18.0, name);
    }
    for (at, curve) in curves.iter().enumerate() {
        let points: Vec<(f64, f64)> = curve.points.iter().map(|(quantile, us)| (x(*quantile), y(*us))).collect();
        let tip: Vec<String> = curve
            .points
            .iter()
            .filter(|(quantile, _)| [0.5, 0.99, 0.999].contains(quantile))
            .map(|(quantile, us)| format!("p{} {}", quantile * 100.0, show(*us)))
            .collect();
        canvas.path(&format!("curve {}", curve.class), &points, &format!("{}: {}", curve.label, tip.join(", ")));
        let place = LEFT + (RIGHT - LEFT) / curves.len() as f64 * at as f64;
        canvas.put(format_args!(
            r#"<rect class="fill {}" x="{place:.1}" y="24" width="12" height="4" rx="2"/>"#,
            curve.class
        ));
        canvas.text("tick", place + 17.0, 30.0, &curve.label);
    }
    canvas.finish(&format!("Latency percentiles: {title}"))
}

fn tick_rate(per_s: f64) -> String {
    match per_s {
        per_s if per_s >= 1e6 => format!("{:.0}M/s", per_s / 1e6),
        per_s if per_s >= 1e3 => format!("{:.0}k/s", per_s / 1e3),
        per_s => format!("{per_s:.0}/s"),
    }
}

fn tick_time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.0} s", us / 1e6),
        us if us >= 1e3 => format!("{:.0} ms", us / 1e3),
        us if us >= 1.0 => format!("{us:.0} µs"),
        us => format!("{:.0} ns", us * 1e3),
    }
}

/// A small curve of a value over time, from zero to its highest point.
pub(crate) fn spark(title: &str, points: &[(f64, f64)], class: &str, show: fn(f64) -> String) -> String {
    const LEFT: f64 = 4.0;
    const RIGHT: f64 = 246.0;
    const TOP: f64 = 26.0;
    const BOTTOM: f64 = 86.0;
    let mut canvas = Canvas::new(250.0, 106.0);
    canvas.text("small", LEFT, 14.0, title);
    let (mut high, mut end) = (f64::MIN_POSITIVE, f64::MIN_POSITIVE);
    for (at_s, per_s) in points {
        (high, end) = (high.max(*per_s), end.max(*at_s));
    }
    let place = |at_s: f64, per_s: f64| {
        (LEFT + (RIGHT - LEFT) * at_s / end, BOTTOM - (BOTTOM - TOP) * (per_s / high).clamp(0.0, 1.0))
    };
    canvas.line("grid", (LEFT, TOP), (RIGHT, TOP));
    canvas.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    let drawn: Vec<(f64, f64)> = points.iter().map(|(at_s, per_s)| place(*at_s, *per_s)).collect();
    canvas.path(&format!("curve {class}"), &drawn, title);
    canvas.text("tick", LEFT, BOTTOM + 15.0, "0 s");
    canvas.text("tick end", RIGHT, BOTTOM + 15.0, &format!("{end:.1} s"));
    canvas.text("tick mid", f64::midpoint(LEFT, RIGHT), BOTTOM + 15.0, &format!("top {}", show(high)));
    canvas.finish(&format!("Over time: {title}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_spans_its_values() {
        let scale = LogScale::around([9_000.0, 1_400_000.0].into_iter());
        assert_eq!((scale.first, scale.last), (3, 7));
        assert!((scale.place(1e5) - 0.5).abs() < 1e-9);
        assert_eq!(LogScale::around([10.0].into_iter()).last, 2);
        assert_eq!(LogScale::around(std::iter::empty()).ticks().count(), 2);
    }

    #[test]
    fn names_cannot_break_out_of_a_drawing() {
        let bar = Bar { label: "<b>&\"".to_owned(), value: f64::NAN, class: "sync", tip: "</title>".to_owned() };
        let drawing = bars("x", &[bar], "one");
        assert!(drawing.contains("&lt;b&gt;&amp;&quot;") && !drawing.contains("<b>"), "{drawing}");
    }

    #[test]
    fn every_drawing_is_closed() {
        let pair = Pair { label: "1".to_owned(), sync: Some(9e3), asynchronous: None };
        let curve = Curve { label: "1".to_owned(), class: "c0".to_owned(), points: vec![(0.0, 10.0), (0.5, 20.0)] };
        let show: fn(f64) -> String = |value| value.to_string();
        for drawing in [
            dumbbells("a", &[pair], show),
            percentiles("b", &[curve], show),
            spark("c", &[], "sync", show),
            bars("d", &[], "one"),
            dots(
                "e",
                &[Line { label: "1".to_owned(), dots: vec![("c0", "a".to_owned(), 9e3), ("c1", "b".to_owned(), 0.0)] }],
                show,
            ),
        ] {
            assert_eq!(drawing.matches("<svg").count(), drawing.matches("</svg>").count());
            assert!(!drawing.contains("NaN"), "{drawing}");
        }
    }
}
