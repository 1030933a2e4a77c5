//! What two brokers cost: the four combinations side by side, and how a slave came back.

use std::fmt::Write;

use super::svg::{self, Bar, Curve, Line, escape};
use super::{Run, or_dash, short, time};
use crate::cli::Mode;
use crate::row::{PairUse, RowResult, combination};

/// Colours of the combinations, in the order of [`COMBINATIONS`].
const CLASSES: [&str; 4] = ["c4", "c1", "c2", "c0"];
const COMBINATIONS: [(Mode, Mode); 4] =
    [(Mode::Async, Mode::Async), (Mode::Async, Mode::Sync), (Mode::Sync, Mode::Async), (Mode::Sync, Mode::Sync)];

fn pairs(run: &Run) -> impl Iterator<Item = (&RowResult, PairUse)> {
    run.rows.iter().filter(|row| row.chain.is_none()).filter_map(|row| Some((row, row.pair?)))
}

/// What one shared disk does to the figures, if it is one.
fn disks(run: &Run) -> Option<String> {
    let (_, pair) = pairs(run).next()?;
    Some(if pair.shared_disk {
        format!(
            "Both directories lie on one device ({}): its counters have the flushes of both brokers, which wait for one another there, and the limit is that of one disk. Two machines have a disk and processors each.",
            run.host.disk
        )
    } else {
        "Each broker has a disk of its own; both share the processors with the client.".to_owned()
    })
}

/// The columns of both tables behind the row's name.
const COLUMNS: [&str; 13] = [
    "acks/s",
    "of async",
    "p50",
    "p99",
    "p99.9",
    "of limit",
    "CPU/ack",
    "leader",
    "slave",
    "flush/ack",
    "leader\u{2019}s",
    "slave\u{2019}s",
    "behind",
];

fn cells(run: &Run, row: &RowResult, pair: &PairUse) -> [String; COLUMNS.len()] {
    let cpu = |seconds: Option<f64>| {
        seconds.and_then(|seconds| row.per_ack(seconds * 1e6)).map_or_else(|| "–".to_owned(), time)
    };
    let own = |count: u64| or_dash(row.per_ack(count as f64), 3);
    let devices = match (row.flushes_per_ack(), row.slave_flushes_per_ack()) {
        (leader, Some(slave)) => format!("{} {slave:.3}", or_dash(leader, 3)),
        (leader, None) => or_dash(leader, 3),
    };
    [
        short(row.acks_per_s()),
        or_dash(run.ratio_to_async(row), 2),
        time(row.quantile_us(0.5)),
        time(row.quantile_us(0.99)),
        time(row.quantile_us(0.999)),
        or_dash(run.limit_ratio(row), 2),
        cpu(row.cpu_s),
        cpu(pair.leader_cpu_s),
        cpu(pair.slave_cpu_s),
        devices,
        own(pair.leader.flushes),
        own(pair.slave.flushes),
        short(pair.behind as f64),
    ]
}

const LEGEND: &str = "of async: acks/s \u{f7} those of async+async with as many sends in flight; CPU/ack: both brokers, then each; flush/ack: of the device (of both, where there are two), then what each broker asked for; behind: messages that the slave did not show when the window closed";

/// The table for a terminal, and how a slave came back.
pub(crate) fn lines(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    let width = pairs(run).map(|(row, _)| row.spec.name.len()).max().unwrap_or(0);
    if width > 0 {
        let head: String = COLUMNS.iter().fold(String::new(), |head, column| format!("{head} {column:>9}"));
        lines.push(format!("{:<width$}{head}", "flush+replication"));
        lines.extend(pairs(run).map(|(row, pair)| {
            let cells = cells(run, row, &pair).iter().fold(String::new(), |cells, cell| format!("{cells} {cell:>9}"));
            format!("{:<width$}{cells}", row.spec.name)
        }));
        lines.push(LEGEND.to_owned());
        lines.extend(disks(run));
    }
    if let Some(sentences) = catch_up(run) {
        lines.push(String::new());
        lines.push("A slave that was far behind".to_owned());
        lines.extend(sentences.map(|sentence| format!("  {sentence}")));
    }
    lines
}

fn catch_up(run: &Run) -> Option<[String; 2]> {
    let catch_up = run.catch_up.as_ref()?;
    let (idle, busy) = (&catch_up.idle, &catch_up.busy);
    let first = busy.lag.first().map_or(0, |lag| lag.messages);
    Some([
        format!(
            "idle leader: {:.0} MB of log in {:.2} s, {:.0} MB/s; its disk reads {:.0} MB/s from front to back: {:.2} of that",
            idle.log_bytes as f64 / 1e6,
            idle.seconds,
            idle.mb_per_s,
            idle.disk_read_mb_per_s,
            idle.ratio,
        ),
        format!(
            "busy leader: {}/s with the slave in step, {}/s without it, {}/s while it caught up ({:.2} of in step); {} messages in {:.2} s, {} looks in {} found it no closer{}",
            short(busy.in_step_per_s),
            short(busy.alone_per_s),
            short(busy.catching_up_per_s),
            busy.ratio,
            short(first as f64),
            busy.seconds,
            busy.steps_without_gain(),
            busy.lag.len(),
            if busy.caught_up { "" } else { "; it never came into step" },
        ),
    ])
}

/// The sections of the page.
pub(crate) fn sections(page: &mut String, run: &Run) {
    if pairs(run).next().is_some() {
        rates(page, run);
        ratios(page, run);
        table(page, run);
    }
    came_back(page, run);
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes everything");
}

/// Rows of one load, as `(in flight, row by combination)`.
fn loads(run: &Run) -> Vec<(usize, [Option<&RowResult>; 4])> {
    let mut loads: Vec<(usize, [Option<&RowResult>; 4])> = Vec::new();
    for (row, pair) in pairs(run) {
        let in_flight = row.spec.producers.outstanding();
        let Some(combination) = COMBINATIONS.iter().position(|modes| *modes == (pair.flush, pair.replication)) else {
            continue;
        };
        let at = loads.iter().position(|(load, _)| *load == in_flight).unwrap_or_else(|| {
            loads.push((in_flight, [None; 4]));
            loads.len() - 1
        });
        loads[at].1[combination] = Some(row);
    }
    loads
}

fn rates(page: &mut String, run: &Run) {
    page.push_str("<section>\n<h2>Four combinations</h2>\n<p>Flush + replication: whether an ack waits for the leader’s disk, and whether for the slave’s. Acks per second by sends in flight, on a logarithmic axis.");
    for ((flush, replication), class) in COMBINATIONS.iter().zip(CLASSES) {
        put(page, format_args!(" <span class=\"key {class}\"></span> {}", combination(*flush, *replication)));
    }
    page.push_str("</p>\n");
    let lines: Vec<Line> = loads(run)
        .into_iter()
        .map(|(in_flight, rows)| Line {
            label: format!("{in_flight} in flight"),
            dots: rows
                .into_iter()
                .zip(CLASSES)
                .filter_map(|(row, class)| Some((class, row?.spec.name.clone(), row?.acks_per_s())))
                .collect(),
        })
        .collect();
    page.push_str(&svg::dots("Acks per second of the four combinations", &lines, short));
    page.push_str("<div class=\"panels\">\n");
    for (at, (flush, replication)) in COMBINATIONS.into_iter().enumerate() {
        let curves: Vec<Curve> = loads(run)
            .into_iter()
            .filter_map(|(in_flight, rows)| Some((in_flight, rows[at].filter(|row| !row.latencies.is_empty())?)))
            .enumerate()
            .map(|(colour, (in_flight, row))| Curve {
                label: in_flight.to_string(),
                class: format!("c{colour}"),
                points: svg::QUANTILES.iter().map(|quantile| (*quantile, row.quantile_us(*quantile))).collect(),
            })
            .collect();
        if !curves.is_empty() {
            page.push_str(&svg::percentiles(
                &format!("{}, by sends in flight", combination(flush, replication)),
                &curves,
                time,
            ));
        }
    }
    page.push_str("</div>\n</section>\n");
}

fn ratios(page: &mut String, run: &Run) {
    let bars: Vec<Bar> = pairs(run)
        .filter(|(_, pair)| pair.flush == Mode::Sync || pair.replication == Mode::Sync)
        .filter_map(|(row, pair)| {
            let combination = COMBINATIONS.iter().position(|modes| *modes == (pair.flush, pair.replication))?;
            Some(Bar {
                label: row.spec.name.clone(),
                value: run.ratio_to_async(row)?,
                class: CLASSES[combination],
                tip: format!("{} acks/s, p99 {}", short(row.acks_per_s()), time(row.quantile_us(0.99))),
            })
        })
        .collect();
    if bars.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>What each promise costs</h2>\n<p>Acks per second ÷ those of async+async with as many sends in flight.</p>\n");
    page.push_str(&svg::bars("Ratio of each combination to async+async", &bars, "async+async"));
    page.push_str("</section>\n");
}

fn table(page: &mut String, run: &Run) {
    page.push_str("<section>\n<h2>Both brokers</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>row</th>");
    for column in COLUMNS {
        put(page, format_args!("<th>{column}</th>"));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (row, pair) in pairs(run) {
        put(page, format_args!("<tr><th>{}</th>", escape(&row.spec.name)));
        for cell in cells(run, row, &pair) {
            put(page, format_args!("<td>{cell}</td>"));
        }
        page.push_str("</tr>\n");
    }
    put(page, format_args!("</tbody>\n</table></div>\n<p class=\"note\">{LEGEND}.</p>\n"));
    if let Some(disks) = disks(run) {
        put(page, format_args!("<p class=\"note\">{}</p>\n", escape(&disks)));
    }
    page.push_str("</section>\n");
}

fn came_back(page: &mut String, run: &Run) {
    let (Some(sentences), Some(catch_up)) = (catch_up(run), &run.catch_up) else { return };
    page.push_str("<section>\n<h2>A slave that was far behind</h2>\n<ul>\n");
    for sentence in sentences {
        put(page, format_args!("<li>{}</li>\n", escape(&sentence)));
    }
    page.push_str("</ul>\n<div class=\"sparks\">\n");
    let points: Vec<(f64, f64)> = catch_up.busy.lag.iter().map(|lag| (lag.at_s, lag.messages as f64)).collect();
    page.push_str(&svg::spark("behind a busy leader", &points, "sync", |messages| {
        format!("{} messages", short(messages))
    }));
    page.push_str("</div>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{matrix, run};

    #[test]
    fn every_combination_has_its_line_with_its_ratio() {
        let run = matrix();
        let lines = lines(&run);
        for row in &run.rows {
            assert_eq!(
                lines.iter().filter(|line| line.starts_with(&format!("{} ", row.spec.name))).count(),
                1,
                "{}",
                row.spec.name
            );
        }
        let sync = lines.iter().find(|line| line.starts_with("matrix/sync+sync/512 ")).expect("it is there");
        assert_eq!(sync.split_whitespace().nth(2), Some("0.25"), "{sync}");
        let words = sync.split_whitespace().collect::<Vec<_>>();
        assert_eq!(words.len(), 1 + COLUMNS.len() + 6, "six times with their units: {sync}");
    }

    #[test]
    fn one_disk_is_said_to_be_one() {
        let mut run = matrix();
        assert!(lines(&run).iter().any(|line| line.contains("one device")));
        for row in &mut run.rows {
            row.pair.as_mut().expect("it is one of two brokers").shared_disk = false;
        }
        assert!(!lines(&run).iter().any(|line| line.contains("one device")));
    }

    #[test]
    fn a_slave_that_came_back_is_told_of() {
        let lines = lines(&matrix()).join("\n");
        for words in ["1074 MB/s", "0.72 of that", "50.0k/s with the slave in step", "0 looks in 3"] {
            assert!(lines.contains(words), "{words} is missing:\n{lines}");
        }
    }

    #[test]
    fn a_run_without_pairs_says_nothing_of_them() {
        assert!(lines(&run()).is_empty());
        let mut page = String::new();
        sections(&mut page, &run());
        assert!(page.is_empty());
    }
}
