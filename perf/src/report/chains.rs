//! What the chain above the log costs: each row beside what it is held against, and the whole chain with every promise beside none.

use std::fmt::Write;

use super::svg::{self, Bar, Curve, Line, escape};
use super::{Run, or_dash, short, time};
use crate::chain;
use crate::row::{ChainUse, RowResult};

fn rows(run: &Run) -> impl Iterator<Item = (&RowResult, &ChainUse)> {
    run.rows.iter().filter_map(|row| Some((row, row.chain.as_ref()?)))
}

/// The columns of both tables behind the row's name.
const COLUMNS: [&str; 12] = [
    "per s",
    "of base",
    "p50",
    "p99",
    "send p50",
    "send p99",
    "late p50",
    "late p99",
    "late max",
    "flushes",
    "log bytes",
    "CPU",
];

fn cells(run: &Run, row: &RowResult, chain: &ChainUse) -> [String; COLUMNS.len()] {
    let dash = || "–".to_owned();
    let of = |found: Option<&hdrhistogram::Histogram<u64>>, quantile: f64| {
        let found = found.filter(|found| !found.is_empty());
        found.map_or_else(dash, |found| time(found.value_at_quantile(quantile) as f64 / 1e3))
    };
    let (sends, late) = (chain.sends.as_ref(), chain.lateness.as_ref());
    let each = chain.log_bytes_each.or_else(|| row.per_ack(chain.engine.log_bytes as f64));
    [
        short(row.acks_per_s()),
        or_dash(run.ratio_to_base(row), 2),
        time(row.quantile_us(0.5)),
        time(row.quantile_us(0.99)),
        of(sends, 0.5),
        of(sends, 0.99),
        of(late, 0.5),
        of(late, 0.99),
        of(late, 1.0),
        or_dash(row.per_ack(chain.engine.flushes as f64), 3),
        each.map_or_else(dash, |each| format!("{each:.0}")),
        row.cpu_us_per_ack().map_or_else(dash, time),
    ]
}

const LEGEND: &str = "of base: the rate \u{f7} that of the same load without what the row adds (send, consume, many-queues, fast; windows without commits; before others fell due); send: of one send, where a count is more; late: deliveries after their time; flushes, log bytes, CPU: of the broker for each count, of broker/retry the whole round trip\u{2019}s log bytes beyond the message (flushes: the leader\u{2019}s, CPU: both, of two brokers)";

/// What is counted in each row, once.
fn counted(run: &Run) -> Vec<String> {
    let mut told: Vec<(&str, Vec<&str>)> = Vec::new();
    for (row, chain) in rows(run) {
        match told.iter_mut().find(|(counts, _)| *counts == chain.counts) {
            Some((_, names)) => names.push(&row.spec.name),
            None => told.push((chain.counts, vec![&row.spec.name])),
        }
    }
    told.into_iter().map(|(counts, names)| format!("{}: {counts}", names.join(", "))).collect()
}

/// The whole chain, safe beside fast, with as many messages on their way.
fn headlines(run: &Run) -> Vec<String> {
    let safe = rows(run).filter(|(row, _)| row.spec.name.starts_with("chain/safe/"));
    safe.filter_map(|(safe, _)| {
        let base = chain::base_of(&safe.spec.name)?;
        let fast = run.rows.iter().find(|row| row.spec.name == base)?;
        let ratio = run.ratio_to_base(safe)?;
        Some(format!(
            "{} messages on their way: {}/s with every promise, {}/s with none: {ratio:.2} of it; from the send to the processed message {} against {} (p50), {} against {} (p99)",
            safe.spec.producers.outstanding(),
            short(safe.acks_per_s()),
            short(fast.acks_per_s()),
            time(safe.quantile_us(0.5)),
            time(fast.quantile_us(0.5)),
            time(safe.quantile_us(0.99)),
            time(fast.quantile_us(0.99)),
        ))
    })
    .collect()
}

/// What one shared disk does to the whole chain, if it is one.
fn disks(run: &Run) -> Option<&'static str> {
    let pair = rows(run).find_map(|(row, _)| row.pair)?;
    pair.shared_disk.then_some(
        "The two brokers of the whole chain share one disk, where each flush waits for the other broker\u{2019}s, and the processors with the client. Two machines have a disk and processors each.",
    )
}

/// The table for a terminal.
pub(crate) fn lines(run: &Run) -> Vec<String> {
    let width = rows(run).map(|(row, _)| row.spec.name.len()).max().unwrap_or(0);
    if width == 0 {
        return Vec::new();
    }
    let head: String = COLUMNS.iter().fold(String::new(), |head, column| format!("{head} {column:>9}"));
    let mut lines = vec![format!("{:<width$}{head}", "row")];
    lines.extend(rows(run).map(|(row, chain)| {
        let cells = cells(run, row, chain).iter().fold(String::new(), |cells, cell| format!("{cells} {cell:>9}"));
        format!("{:<width$}{cells}", row.spec.name)
    }));
    lines.push(LEGEND.to_owned());
    lines.extend(counted(run));
    lines.extend(disks(run).map(str::to_owned));
    lines.extend(headlines(run));
    lines
}

/// The sections of the page.
pub(crate) fn sections(page: &mut String, run: &Run) {
    if rows(run).next().is_none() {
        return;
    }
    whole(page, run);
    ratios(page, run);
    table(page, run);
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes everything");
}

/// The two chains: how they are drawn.
const WHOLE: [(&str, &str); 2] = [("chain/fast/", "async"), ("chain/safe/", "sync")];

fn whole(page: &mut String, run: &Run) {
    let mut lines: Vec<Line> = Vec::new();
    let mut curves: Vec<Curve> = Vec::new();
    for (row, _) in rows(run).filter(|(row, _)| !row.latencies.is_empty()) {
        let Some((_, class)) = WHOLE.iter().find(|(name, _)| row.spec.name.starts_with(name)) else { continue };
        let label = format!("{} on their way", row.spec.producers.outstanding());
        let dot = (*class, row.spec.name.clone(), row.acks_per_s());
        match lines.iter_mut().find(|line| line.label == label) {
            Some(line) => line.dots.push(dot),
            None => lines.push(Line { label, dots: vec![dot] }),
        }
        curves.push(Curve {
            label: row.spec.name.trim_start_matches("chain/").to_owned(),
            class: format!("c{}", curves.len()),
            points: svg::QUANTILES.iter().map(|quantile| (*quantile, row.quantile_us(*quantile))).collect(),
        });
    }
    if lines.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>The whole chain, with every promise and with none</h2>\n<p>Messages per second from the send to the processed message, on a logarithmic axis. <span class=\"key sync\"></span> safe: transaction, flushed, on the slave’s disk, processed in order, commits answered. <span class=\"key async\"></span> fast: oneway, unflushed, commits oneway.</p>\n");
    page.push_str(&svg::dots("Messages per second of the whole chain", &lines, short));
    page.push_str("<div class=\"panels\">\n");
    page.push_str(&svg::percentiles("from the send to the processed message", &curves, time));
    page.push_str("</div>\n");
    let sentences = headlines(run);
    if !sentences.is_empty() {
        page.push_str("<ul>\n");
        for sentence in sentences {
            put(page, format_args!("<li>{}</li>\n", escape(&sentence)));
        }
        page.push_str("</ul>\n");
    }
    if let Some(disks) = disks(run) {
        put(page, format_args!("<p class=\"note\">{disks}</p>\n"));
    }
    page.push_str("</section>\n");
}

fn ratios(page: &mut String, run: &Run) {
    let bars: Vec<Bar> = rows(run)
        .filter_map(|(row, _)| {
            Some(Bar {
                label: row.spec.name.clone(),
                value: run.ratio_to_base(row)?,
                class: if row.spec.durable { "sync" } else { "async" },
                tip: format!("{}/s, p99 {}", short(row.acks_per_s()), time(row.quantile_us(0.99))),
            })
        })
        .collect();
    if bars.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>What each step of the chain costs</h2>\n<p>The rate of each row ÷ that of the same load without what the row adds.</p>\n");
    page.push_str(&svg::bars("Ratio of each row to the same load without it", &bars, "without it"));
    page.push_str("</section>\n");
}

fn table(page: &mut String, run: &Run) {
    page.push_str("<section>\n<h2>Rows of the chain</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>row</th>");
    for column in COLUMNS {
        put(page, format_args!("<th>{column}</th>"));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (row, chain) in rows(run) {
        put(page, format_args!("<tr><th title=\"{}\">{}</th>", escape(chain.counts), escape(&row.spec.name)));
        for cell in cells(run, row, chain) {
            put(page, format_args!("<td>{cell}</td>"));
        }
        page.push_str("</tr>\n");
    }
    put(page, format_args!("</tbody>\n</table></div>\n<p class=\"note\">{LEGEND}.</p>\n<ul class=\"note\">\n"));
    for line in counted(run) {
        put(page, format_args!("<li>{}</li>\n", escape(&line)));
    }
    page.push_str("</ul>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{chain, matrix, run};

    #[test]
    fn every_row_has_its_line_with_its_ratio() {
        let run = chain();
        let lines = lines(&run);
        for row in &run.rows {
            let found = lines.iter().filter(|line| line.starts_with(&format!("{} ", row.spec.name)));
            assert_eq!(found.count(), 1, "{}", row.spec.name);
        }
        let of = |name: &str| {
            let line = lines.iter().find(|line| line.starts_with(name)).expect("it is there");
            line.split_whitespace().nth(2).map(str::to_owned)
        };
        assert_eq!(of("broker/transaction/64 ").as_deref(), Some("0.50"));
        assert_eq!(of("broker/commits ").as_deref(), Some("0.98"));
        assert_eq!(of("broker/send/64 ").as_deref(), Some("–"));
    }

    #[test]
    fn the_whole_chain_is_told_in_a_sentence() {
        let text = lines(&chain()).join("\n");
        assert!(
            text.contains("64 messages on their way: 10.0k/s with every promise, 40.0k/s with none: 0.25 of it"),
            "{text}"
        );
        assert!(text.contains("share one disk"), "{text}");
    }

    #[test]
    fn a_run_without_such_rows_says_nothing_of_them() {
        for run in [run(), matrix()] {
            assert!(lines(&run).is_empty());
            let mut page = String::new();
            sections(&mut page, &run);
            assert!(page.is_empty());
        }
    }
}
