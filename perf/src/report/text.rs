//! Lines for people.

use super::{Run, chains, grouped, or_dash, pairs, short, time};
use crate::catch_up::CatchUp;
use crate::limit::DiskLimits;
use crate::row::RowResult;
use crate::verify::Verified;

/// One line a row, in the manner of kafka-producer-perf-test: records, rate, bandwidth, latencies.
pub(crate) fn summary(row: &RowResult) -> String {
    format!(
        "{:<32} {} records sent, {:.1} records/sec ({:.2} MB/sec), {} avg, {} p50, {} p95, {} p99, {} p99.9, {} max",
        row.spec.name,
        row.acks,
        row.acks_per_s(),
        row.mb_per_s(),
        time(row.mean_us()),
        time(row.quantile_us(0.5)),
        time(row.quantile_us(0.95)),
        time(row.quantile_us(0.99)),
        time(row.quantile_us(0.999)),
        time(row.max_us()),
    )
}

/// The accounts in one line.
pub(crate) fn verdict(verified: &Verified) -> String {
    let recycled = if verified.recycled > 0 {
        format!(" ({} recycled before reading back: stores are bounded)", grouped(verified.recycled))
    } else {
        String::new()
    };
    let rare = [(verified.damaged, "damaged"), (verified.unexpected, "unexpected")];
    let rare: String =
        rare.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {what} {count}")).collect();
    format!(
        "acked {}{recycled}, read {}, lost {}, duplicated {}, out of order {}{rare}",
        grouped(verified.acked),
        grouped(verified.read),
        verified.lost,
        verified.duplicated,
        verified.out_of_order,
    )
}

/// The disk's limit as a table.
pub(crate) fn disk(disk: &DiskLimits, deep_by: &str) -> Vec<String> {
    let mut lines = vec![
        format!("Disk limit (O_DIRECT; depth 8 by {deep_by}; median of the runs in brackets)"),
        format!("  {:<14} {:>10} {:>10} {:>10} {:>10} {:>10}", "setting", "writes/s", "MB/s", "p50", "p99", "p99.9"),
    ];
    for (name, setting) in disk.settings() {
        let runs: Vec<String> = setting.runs_per_s.iter().map(|per_s| short(*per_s)).collect();
        lines.push(format!(
            "  {name:<14} {:>10} {:>10.1} {:>10} {:>10} {:>10}   [{}]",
            short(setting.per_s),
            setting.mb_per_s,
            time(setting.p50_us),
            time(setting.p99_us),
            time(setting.p999_us),
            runs.join(" "),
        ));
    }
    lines
}

/// Everything after the last row.
pub(crate) fn closing(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(deep_by) = run.probe {
        lines.extend(disk(&run.disk, deep_by));
        lines.push(String::new());
    }
    lines.extend(table(run));
    lines.extend(pairs::lines(run));
    lines.extend(chains::lines(run));
    let noted: Vec<String> =
        run.rows.iter().flat_map(|row| row.notes.iter().map(|note| format!("  {}: {note}", row.spec.name))).collect();
    if !noted.is_empty() {
        lines.push("Notes".to_owned());
        lines.extend(noted);
    }
    let checks = run.checks();
    if !checks.is_empty() {
        lines.push(String::new());
        lines.push("Promised ratios, within this run".to_owned());
        for check in checks {
            let mark = if check.holds() { "ok " } else { "NOT" };
            lines.push(format!("  {mark} {:<66} {:>7.2}  ({})", check.name, check.value, check.want()));
        }
    }
    lines.push(String::new());
    lines.extend(durabilities(run));
    lines.push(run.load.describe());
    lines.push(format!("Read back: {}", verdict(&run.verified())));
    for row in run.rows.iter().filter(|row| !row.is_clean()) {
        lines.push(format!("  {}: {}", row.spec.name, verdict(&row.verified)));
        lines.extend(row.pair.map(|pair| format!("  {}, slave: {}", row.spec.name, verdict(&pair.slave_verified))));
    }
    for (name, verified) in run.catch_up.iter().flat_map(CatchUp::accounts).filter(|(_, verified)| !verified.is_clean())
    {
        lines.push(format!("  {name}: {}", verdict(&verified)));
    }
    lines
}

/// The rows that one broker or the engine served.
fn table(run: &Run) -> Vec<String> {
    let rows: Vec<&RowResult> = run.rows.iter().filter(|row| row.pair.is_none() && row.chain.is_none()).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let width = rows.iter().map(|row| row.spec.name.len()).max().unwrap_or(0).max(4);
    let mut lines = vec![format!(
        "{:<width$} {:>9} {:>9} {:>9} {:>8} {:>9} {:>11} {:>10} {:>9}",
        "row", "acks/s", "p50", "p99", "of limit", "flushes", "acks/flush", "dev bytes", "CPU/ack",
    )];
    for row in rows {
        let flushes = row.device.and_then(|device| device.flushes);
        lines.push(format!(
            "{:<width$} {:>9} {:>9} {:>9} {:>8} {:>9} {:>11} {:>10} {:>9}",
            row.spec.name,
            short(row.acks_per_s()),
            time(row.quantile_us(0.5)),
            time(row.quantile_us(0.99)),
            or_dash(run.limit_ratio(row), 2),
            flushes.map_or_else(|| "–".to_owned(), |flushes| flushes.to_string()),
            or_dash(row.acks_per_flush(), 1),
            row.device_bytes_per_payload_byte().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2} ×")),
            row.cpu_us_per_ack().map_or_else(|| "–".to_owned(), time),
        ));
    }
    lines.push(
        "of limit: acks/s ÷ what this disk allows with as many messages outstanding; dev bytes: device ÷ payload"
            .to_owned(),
    );
    lines
}

/// What an ack and which backend, once each.
fn durabilities(run: &Run) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for row in &run.rows {
        for line in [row.durability.clone(), format!("backend: {}", row.backend)] {
            if !seen.contains(&line) {
                seen.push(line);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{row, run};

    #[test]
    fn a_summary_has_the_facts_of_the_known_tool_in_its_order() {
        let line = summary(&row("engine/sync/1", true, 9_300));
        let order = ["records sent", "records/sec", "MB/sec", "avg", "p50", "p95", "p99", "p99.9", "max"];
        let places: Vec<usize> = order.iter().map(|word| line.find(word).expect(word)).collect();
        assert!(places.is_sorted(), "{line}");
        assert!(line.contains("18600 records sent, 9300.0 records/sec (9.30 MB/sec)"), "{line}");
    }

    #[test]
    fn the_closing_lines_say_disk_rows_promises_and_accounts() {
        let text = closing(&run()).join("\n");
        for word in [
            "dsync_4k_qd1",
            "engine/async/inflight-1024",
            "Promised ratios",
            "lost 0",
            "sync: acknowledged",
            "closed loop",
        ] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
    }

    #[test]
    fn a_broken_promise_is_said_by_row() {
        let mut run = run();
        run.rows[3].verified.lost = 2;
        let text = closing(&run).join("\n");
        assert!(text.contains("  engine/sync/inflight-1024: acked"), "{text}");
    }
}
