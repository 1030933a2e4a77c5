//! A page for people: one file, no scripts, nothing fetched, light or dark as the reader's system is.

use std::fmt::Write;

use super::svg::{self, Bar, Curve, Pair, escape};
use super::{Run, chains, grouped, or_dash, pairs, short, text, time};
use crate::catch_up::CatchUp;
use crate::row::RowResult;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn page(run: &Run) -> String {
    let mut page = String::new();
    let subject = escape(&run.subject);
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    put(
        &mut page,
        format_args!("<title>Anchorlog: {subject}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"),
    );
    put(&mut page, format_args!("<h1>Anchorlog <span>{subject}</span></h1>\n"));
    put(
        &mut page,
        format_args!(
            "<p class=\"lead\">{}, {:.0} s, random messages of {} bytes, {}.</p>\n",
            escape(&run.started),
            run.seconds,
            run.size,
            escape(&run.load.describe())
        ),
    );
    tiles(&mut page, run);
    facts(&mut page, run);
    sync_against_async(&mut page, run);
    pairs::sections(&mut page, run);
    chains::sections(&mut page, run);
    of_limit(&mut page, run);
    latencies(&mut page, run);
    throughput(&mut page, run);
    table(&mut page, run);
    disk(&mut page, run);
    accounts(&mut page, run);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes everything");
}

/// The promised ratios; without them, the rates.
fn tiles(page: &mut String, run: &Run) {
    let checks = run.checks();
    page.push_str("<section class=\"tiles\">\n");
    for check in &checks {
        let (class, mark) = if check.holds() { ("ok", "✓") } else { ("bad", "✗") };
        put(
            page,
            format_args!(
                "<div class=\"tile {class}\"><b>{:.2}</b><i>{mark} {}</i><span>{}</span></div>\n",
                check.value,
                check.want(),
                escape(check.name)
            ),
        );
    }
    if checks.is_empty() {
        for row in &run.rows {
            put(
                page,
                format_args!(
                    "<div class=\"tile\"><b>{}</b><i>acks/s, p99 {}</i><span>{}</span></div>\n",
                    short(row.acks_per_s()),
                    time(row.quantile_us(0.99)),
                    escape(&row.spec.name)
                ),
            );
        }
    }
    page.push_str("</section>\n");
    let verified = run.verified();
    let class = if verified.is_clean() { "ok" } else { "bad" };
    put(page, format_args!("<p class=\"verdict {class}\">Read back: {}</p>\n", escape(&text::verdict(&verified))));
}

fn facts(page: &mut String, run: &Run) {
    let mut facts: Vec<(&str, String)> = run.host.facts();
    let acks = run.rows.iter().map(|row| ("an ack means", row.durability.clone()));
    let backends = run.rows.iter().map(|row| ("backend", row.backend.clone()));
    for fact in acks.chain(backends) {
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }
    page.push_str("<section>\n<h2>Where and how</h2>\n<dl>\n");
    for (name, fact) in facts {
        put(page, format_args!("<dt>{name}</dt><dd>{}</dd>\n", escape(&fact)));
    }
    page.push_str("</dl>\n</section>\n");
}

/// `engine/sync/64` as `("engine", "64")`; nothing for other rows, nor for those of two brokers or of the chain.
fn parts(row: &RowResult) -> Option<(&str, &str)> {
    if row.pair.is_some() || row.chain.is_some() {
        return None;
    }
    let (side, rest) = row.spec.name.split_once('/')?;
    let (_, producers) = rest.split_once('/')?;
    (!producers.contains('@')).then_some((side, producers))
}

fn sync_against_async(page: &mut String, run: &Run) {
    let mut pairs: Vec<Pair> = Vec::new();
    for row in &run.rows {
        let Some((side, producers)) = parts(row) else { continue };
        let label = format!("{side}, {producers}");
        let at = pairs.iter().position(|pair| pair.label == label).unwrap_or_else(|| {
            pairs.push(Pair { label, sync: None, asynchronous: None });
            pairs.len() - 1
        });
        let value = Some(row.acks_per_s()).filter(|per_s| *per_s > 0.0);
        if row.spec.durable { pairs[at].sync = value } else { pairs[at].asynchronous = value }
    }
    pairs.retain(|pair| pair.sync.is_some() && pair.asynchronous.is_some());
    if pairs.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Sync against async</h2>\n<p>Acks per second by producers, on a logarithmic axis: the distance is the price of durability. <span class=\"key sync\"></span> sync: acknowledged once durable. <span class=\"key async\"></span> async: acknowledged once copied.</p>\n");
    page.push_str(&svg::dumbbells("Acks per second, sync against async", &pairs, short));
    page.push_str("</section>\n");
}

fn of_limit(page: &mut String, run: &Run) {
    let bars: Vec<Bar> = run
        .rows
        .iter()
        .filter_map(|row| {
            let value = run.limit_ratio(row)?;
            let tip = format!("{} of {} acks/s", short(row.acks_per_s()), short(row.limit_per_s(&run.disk)));
            Some(Bar {
                label: row.spec.name.clone(),
                value,
                class: if row.spec.durable { "sync" } else { "async" },
                tip,
            })
        })
        .collect();
    if bars.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>How much of the disk’s limit</h2>\n<p>Acks per second ÷ what this disk, measured in the same run, allows with as many messages outstanding: durable writes that carry them all, one after the other; for async, unsynced bandwidth.</p>\n");
    page.push_str(&svg::bars("Ratio of each row to the limit of the disk", &bars, "the disk’s limit"));
    page.push_str("</section>\n");
}

fn latencies(page: &mut String, run: &Run) {
    if run.rows.iter().all(|row| parts(row).is_none()) {
        return;
    }
    page.push_str("<section>\n<h2>Latency percentiles</h2>\n<p>Every step to the right is one nine more; time is logarithmic.</p>\n<div class=\"panels\">\n");
    for (title, side, durable) in [
        ("engine, sync", "engine", true),
        ("engine, async", "engine", false),
        ("broker, sync", "broker", true),
        ("broker, async", "broker", false),
    ] {
        let rows = run.rows.iter().filter(|row| row.spec.durable == durable);
        let curves: Vec<Curve> = rows
            .filter_map(|row| Some((row, parts(row)?)))
            .filter(|(row, (of, _))| *of == side && !row.latencies.is_empty())
            .enumerate()
            .map(|(at, (row, (_, producers)))| Curve {
                label: producers.to_owned(),
                class: format!("c{at}"),
                points: svg::QUANTILES.iter().map(|quantile| (*quantile, row.quantile_us(*quantile))).collect(),
            })
            .collect();
        if !curves.is_empty() {
            page.push_str(&svg::percentiles(title, &curves, time));
        }
    }
    page.push_str("</div>\n</section>\n");
}

fn throughput(page: &mut String, run: &Run) {
    page.push_str("<section>\n<h2>Throughput over time</h2>\n<p>Acks per second every 100 ms; each drawing from zero to its own top.</p>\n<div class=\"sparks\">\n");
    for row in &run.rows {
        let points: Vec<(f64, f64)> = row.series.iter().map(|sample| (sample.at_s, sample.per_s)).collect();
        let class = if row.spec.durable { "sync" } else { "async" };
        page.push_str(&svg::spark(&row.spec.name, &points, class, |per_s| format!("{}/s", short(per_s))));
    }
    page.push_str("</div>\n</section>\n");
}

fn table(page: &mut String, run: &Run) {
    page.push_str("<section>\n<h2>Rows</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>row</th><th>acks/s</th><th>MB/s</th><th>mean</th><th>p50</th><th>p95</th><th>p99</th><th>p99.9</th><th>max</th><th>of limit</th><th>flushes</th><th>acks per flush</th><th>device ÷ payload</th><th>CPU per ack</th></tr></thead>\n<tbody>\n");
    for row in &run.rows {
        let flushes = row.device.and_then(|device| device.flushes);
        put(
            page,
            format_args!(
                "<tr><th title=\"{}\">{}</th>",
                escape(&row.spec.producers.describe()),
                escape(&row.spec.name)
            ),
        );
        let cells = [
            short(row.acks_per_s()),
            format!("{:.1}", row.mb_per_s()),
            time(row.mean_us()),
            time(row.quantile_us(0.5)),
            time(row.quantile_us(0.95)),
            time(row.quantile_us(0.99)),
            time(row.quantile_us(0.999)),
            time(row.max_us()),
            or_dash(run.limit_ratio(row), 2),
            flushes.map_or_else(|| "–".to_owned(), grouped),
            or_dash(row.acks_per_flush(), 1),
            or_dash(row.device_bytes_per_payload_byte(), 2),
            row.cpu_us_per_ack().map_or_else(|| "–".to_owned(), time),
        ];
        for cell in cells {
            put(page, format_args!("<td>{cell}</td>"));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n<p class=\"note\">Flushes and bytes are the block device’s own counters, whoever caused them. CPU is that of the measured process; in an engine row the producers are in it.</p>\n");
    let notes: Vec<(&str, &String)> =
        run.rows.iter().flat_map(|row| row.notes.iter().map(|note| (row.spec.name.as_str(), note))).collect();
    if !notes.is_empty() {
        page.push_str("<ul class=\"note\">\n");
        for (name, note) in notes {
            put(page, format_args!("<li>{}: {}</li>\n", escape(name), escape(note)));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</section>\n");
}

fn disk(page: &mut String, run: &Run) {
    let Some(deep_by) = run.probe else { return };
    put(
        page,
        format_args!(
            "<section>\n<h2>The disk’s own limit</h2>\n<p>Direct writes into a file written before, one at a time or eight in flight (by {deep_by}); <code>dsync</code>: each durable when it returns. Median of the runs, which lie before, between and after the rows.</p>\n<div class=\"wide\"><table>\n<thead><tr><th>setting</th><th>writes/s</th><th>MB/s</th><th>p50</th><th>p99</th><th>p99.9</th><th>runs</th></tr></thead>\n<tbody>\n"
        ),
    );
    for (name, setting) in run.disk.settings() {
        let runs: Vec<String> = setting.runs_per_s.iter().map(|per_s| short(*per_s)).collect();
        put(
            page,
            format_args!(
                "<tr><th>{name}</th><td>{}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                short(setting.per_s),
                setting.mb_per_s,
                time(setting.p50_us),
                time(setting.p99_us),
                time(setting.p999_us),
                runs.join(" · ")
            ),
        );
    }
    page.push_str("</tbody>\n</table></div>\n</section>\n");
}

fn accounts(page: &mut String, run: &Run) {
    page.push_str("<section>\n<h2>Read back</h2>\n<p>Every message carries its stream, its sequence number and a checksum of its bytes. After its row each store was opened again and everything retained was read and compared.</p>\n<div class=\"wide\"><table>\n<thead><tr><th>row</th><th>acked</th><th>recycled</th><th>read</th><th>lost</th><th>duplicated</th><th>out of order</th><th>damaged</th><th>unexpected</th></tr></thead>\n<tbody>\n");
    let of_slaves = |row: &RowResult| Some((format!("{}, slave", row.spec.name), row.pair?.slave_verified));
    let of_rows = |row: &RowResult| [Some((row.spec.name.clone(), row.verified)), of_slaves(row)];
    let caught_up = run.catch_up.iter().flat_map(CatchUp::accounts).map(|(name, verified)| (name.to_owned(), verified));
    for (name, verified) in run.rows.iter().flat_map(of_rows).flatten().chain(caught_up) {
        let class = if verified.is_clean() { "" } else { " class=\"bad\"" };
        put(page, format_args!("<tr{class}><th>{}</th>", escape(&name)));
        for count in [
            verified.acked,
            verified.recycled,
            verified.read,
            verified.lost,
            verified.duplicated,
            verified.out_of_order,
            verified.damaged,
            verified.unexpected,
        ] {
            put(page, format_args!("<td>{}</td>", grouped(count)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{chain, matrix, run};

    #[test]
    fn the_page_stands_alone() {
        let page = page(&run());
        for word in ["src=", "href=", "http", "@import", "url(", "<script"] {
            assert!(!page.contains(word), "{word} would need something from outside");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
        assert!(page.ends_with("</html>\n"));
    }

    #[test]
    fn every_row_is_on_the_page() {
        let run = run();
        let page = page(&run);
        for row in &run.rows {
            assert!(page.contains(&format!(">{}</th>", row.spec.name)), "{}", row.spec.name);
        }
        for tag in ["section", "table", "svg", "tr", "div", "p", "dl"] {
            assert_eq!(
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count(),
                page.matches(&format!("</{tag}>")).count(),
                "{tag}"
            );
        }
    }

    #[test]
    fn a_page_of_two_brokers_is_whole_and_has_both_accounts() {
        let page = page(&matrix());
        for words in
            ["Four combinations", "What each promise costs", "one device", "matrix/sync+sync/64, slave", "far behind"]
        {
            assert!(page.contains(words), "{words} is missing");
        }
        for tag in ["section", "table", "svg", "tr", "div", "p", "ul", "li", "span"] {
            assert_eq!(
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count(),
                page.matches(&format!("</{tag}>")).count(),
                "{tag}"
            );
        }
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn a_page_of_the_chain_is_whole() {
        let page = page(&chain());
        for words in
            ["The whole chain", "What each step of the chain costs", "broker/one-queue", "chain/safe/64, slave"]
        {
            assert!(page.contains(words), "{words} is missing");
        }
        assert!(!page.contains("Four combinations"), "it is no matrix");
        for tag in ["section", "table", "svg", "tr", "div", "p", "ul", "li", "span"] {
            assert_eq!(
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count(),
                page.matches(&format!("</{tag}>")).count(),
                "{tag}"
            );
        }
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn a_page_can_be_written_for_looking_at_it() {
        if let Some(path) = std::env::var_os("ANCHORLOG_PERF_SAMPLE_PAGE") {
            let asked = |name: &str| std::env::var_os(name).is_some();
            let sample = match (asked("ANCHORLOG_PERF_SAMPLE_MATRIX"), asked("ANCHORLOG_PERF_SAMPLE_CHAIN")) {
                (true, _) => matrix(),
                (_, true) => chain(),
                _ => run(),
            };
            crate::out::save(std::path::Path::new(&path), &page(&sample)).expect("the page is written");
        }
    }
}
