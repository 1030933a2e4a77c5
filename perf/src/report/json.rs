//! Numbers for programs; the schema stands in `perf/README.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use serde::Serialize;

use super::Run;
use crate::catch_up::CatchUp;
use crate::chain;
use crate::checks::Check;
use crate::cli::Mode;
use crate::error::PerfError;
use crate::host::Host;
use crate::limit::DiskLimits;
use crate::meter::Sample;
use crate::row::{ChainUse, PairUse, RowResult};
use crate::served::Counts;
use crate::verify::Verified;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    tool: Tool,
    subject: &'a str,
    started: &'a str,
    seconds: f64,
    size_bytes: usize,
    load: String,
    host: &'a Host,
    disk: Option<&'a DiskLimits>,
    rows: Vec<Row<'a>>,
    catch_up: Option<&'a CatchUp>,
    checks: Vec<CheckLine>,
    verify: Verified,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct CheckLine {
    #[serde(flatten)]
    check: Check,
    holds: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    producers: String,
    outstanding: usize,
    backend: &'a str,
    durability: &'a str,
    seconds: f64,
    acks: u64,
    acks_per_s: f64,
    mb_per_s: f64,
    avg_us: f64,
    p50_us: f64,
    p95_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    limit_per_s: Option<f64>,
    limit_ratio: Option<f64>,
    flushes: Option<u64>,
    acks_per_flush: Option<f64>,
    device_writes: Option<u64>,
    device_bytes: Option<u64>,
    device_bytes_per_payload_byte: Option<f64>,
    cpu_us_per_ack: Option<f64>,
    notes: &'a [String],
    series: &'a [Sample],
    verify: Verified,
    pair: Option<Pair>,
    chain: Option<Chain>,
    hdr: String,
}

#[derive(Serialize)]
struct Pair {
    flush: Mode,
    replication: Mode,
    ratio_to_async: Option<f64>,
    leader: Half,
    slave: Half,
    shared_disk: bool,
    behind: u64,
    slave_verify: Verified,
}

#[derive(Serialize)]
struct Chain {
    counts: &'static str,
    ratio_to_base: Option<f64>,
    base: Option<String>,
    without_per_s: Option<f64>,
    flushes_each: Option<f64>,
    log_bytes_each: Option<f64>,
    round_trip_log_bytes: Option<f64>,
    pending: Option<u64>,
    sends: Option<Times>,
    lateness: Option<Times>,
}

#[derive(Serialize)]
struct Times {
    count: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

#[derive(Serialize)]
struct Half {
    cpu_us_per_ack: Option<f64>,
    device_flushes_per_ack: Option<f64>,
    flushes: u64,
    flushes_per_ack: Option<f64>,
    commit_bytes: u64,
}

/// The whole run as one JSON object.
///
/// # Errors
/// When a histogram cannot be written.
pub(crate) fn document(run: &Run) -> Result<String, PerfError> {
    let rows = run.rows.iter().map(|row| of_row(run, row)).collect::<Result<_, _>>()?;
    let document = Document {
        schema: 1,
        tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
        subject: &run.subject,
        started: &run.started,
        seconds: run.seconds,
        size_bytes: run.size,
        load: run.load.describe(),
        host: &run.host,
        disk: run.probe.map(|_| &run.disk),
        rows,
        catch_up: run.catch_up.as_ref(),
        checks: run.checks().into_iter().map(|check| CheckLine { holds: check.holds(), check }).collect(),
        verify: run.verified(),
    };
    serde_json::to_string_pretty(&document).map_err(|error| PerfError::Report(error.to_string()))
}

fn of_row<'a>(run: &Run, row: &'a RowResult) -> Result<Row<'a>, PerfError> {
    let mut hdr = Vec::new();
    V2Serializer::new().serialize(&row.latencies, &mut hdr).map_err(|error| PerfError::Report(error.to_string()))?;
    Ok(Row {
        name: &row.spec.name,
        producers: row.spec.producers.describe(),
        outstanding: row.spec.producers.outstanding(),
        backend: &row.backend,
        durability: &row.durability,
        seconds: row.seconds,
        acks: row.acks,
        acks_per_s: row.acks_per_s(),
        mb_per_s: row.mb_per_s(),
        avg_us: row.mean_us(),
        p50_us: row.quantile_us(0.5),
        p95_us: row.quantile_us(0.95),
        p99_us: row.quantile_us(0.99),
        p999_us: row.quantile_us(0.999),
        max_us: row.max_us(),
        limit_per_s: run.probe.map(|_| row.limit_per_s(&run.disk)),
        limit_ratio: run.limit_ratio(row),
        flushes: row.device.and_then(|device| device.flushes),
        acks_per_flush: row.acks_per_flush(),
        device_writes: row.device.map(|device| device.writes),
        device_bytes: row.device.map(|device| device.bytes),
        device_bytes_per_payload_byte: row.device_bytes_per_payload_byte(),
        cpu_us_per_ack: row.cpu_us_per_ack(),
        notes: &row.notes,
        series: &row.series,
        verify: row.verified,
        pair: row.pair.map(|pair| of_pair(run, row, pair)),
        chain: row.chain.as_ref().map(|chain| of_chain(run, row, chain)),
        hdr: STANDARD.encode(hdr),
    })
}

fn of_chain(run: &Run, row: &RowResult, chain: &ChainUse) -> Chain {
    let times = |found: &Histogram<u64>| Times {
        count: found.len(),
        p50_us: found.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: found.value_at_quantile(0.99) as f64 / 1e3,
        max_us: found.max() as f64 / 1e3,
    };
    Chain {
        counts: chain.counts,
        ratio_to_base: run.ratio_to_base(row),
        base: chain::base_of(&row.spec.name),
        without_per_s: chain.without_per_s,
        flushes_each: row.per_ack(chain.engine.flushes as f64),
        log_bytes_each: row.per_ack(chain.engine.log_bytes as f64),
        round_trip_log_bytes: chain.log_bytes_each,
        pending: chain.pending,
        sends: chain.sends.as_ref().map(times),
        lateness: chain.lateness.as_ref().map(times),
    }
}

fn of_pair(run: &Run, row: &RowResult, pair: PairUse) -> Pair {
    let half = |counts: Counts, cpu_s: Option<f64>, device_flushes_per_ack| Half {
        cpu_us_per_ack: cpu_s.and_then(|seconds| row.per_ack(seconds * 1e6)),
        device_flushes_per_ack,
        flushes: counts.flushes,
        flushes_per_ack: row.per_ack(counts.flushes as f64),
        commit_bytes: counts.bytes,
    };
    Pair {
        flush: pair.flush,
        replication: pair.replication,
        ratio_to_async: run.ratio_to_async(row),
        leader: half(pair.leader, pair.leader_cpu_s, row.flushes_per_ack()),
        slave: half(pair.slave, pair.slave_cpu_s, row.slave_flushes_per_ack()),
        shared_disk: pair.shared_disk,
        behind: pair.behind,
        slave_verify: pair.slave_verified,
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use serde_json::Value;

    use super::*;
    use crate::report::tests::run;

    fn parsed() -> Value {
        serde_json::from_str(&document(&run()).expect("it can be written")).expect("it is JSON")
    }

    #[test]
    fn the_documented_keys_are_there() {
        let document = parsed();
        for key in
            ["schema", "tool", "subject", "started", "size_bytes", "load", "host", "disk", "rows", "checks", "verify"]
        {
            assert!(!document[key].is_null(), "{key}");
        }
        for key in ["kernel", "disk", "disk_model", "write_cache", "file_system", "io_uring"] {
            assert!(document["host"][key].is_string(), "{key}");
        }
        for (setting, _) in crate::limit::tests::disk().settings() {
            assert!(
                document["disk"][setting]["per_s"].is_f64() && document["disk"][setting]["p50_us"].is_f64(),
                "{setting}"
            );
        }
        let row = &document["rows"][0];
        assert_eq!(row["name"], "engine/sync/1");
        for key in
            ["acks_per_s", "p50_us", "p99_us", "p999_us", "limit_ratio", "device_bytes_per_payload_byte", "mb_per_s"]
        {
            assert!(row[key].is_f64(), "{key}");
        }
        assert!(row["flushes"].is_u64());
        for key in ["acked", "read", "lost", "duplicated", "out_of_order"] {
            assert!(document["verify"][key].is_u64(), "{key}");
        }
        assert_eq!(document["verify"]["lost"], 0);
    }

    #[test]
    fn the_histogram_comes_back_whole() {
        let run = run();
        let text = parsed()["rows"][0]["hdr"].as_str().expect("text").to_owned();
        let bytes = STANDARD.decode(text).expect("base64");
        let back: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a V2 histogram");
        assert_eq!(back, run.rows[0].latencies);
    }

    #[test]
    fn a_pair_says_what_each_broker_did() {
        let text = document(&crate::report::tests::matrix()).expect("it can be written");
        let document: Value = serde_json::from_str(&text).expect("it is JSON");
        let row = &document["rows"][3];
        assert_eq!(row["name"], "matrix/sync+sync/1");
        assert_eq!((&row["pair"]["flush"], &row["pair"]["replication"]), (&"sync".into(), &"sync".into()));
        assert_eq!(row["pair"]["ratio_to_async"], 0.25);
        for half in ["leader", "slave"] {
            for key in ["cpu_us_per_ack", "flushes_per_ack"] {
                assert!(row["pair"][half][key].is_f64(), "{half}, {key}");
            }
        }
        assert!(row["pair"]["leader"]["device_flushes_per_ack"].is_f64());
        assert!(row["pair"]["slave"]["device_flushes_per_ack"].is_null(), "one disk has one count");
        assert_eq!(document["catch_up"]["busy"]["lag"][0]["messages"], 900_000);
        assert!(parsed()["rows"][0]["pair"].is_null() && parsed()["catch_up"].is_null());
    }

    #[test]
    fn a_row_of_the_chain_says_what_it_is_held_against() {
        let text = document(&crate::report::tests::chain()).expect("it can be written");
        let document: Value = serde_json::from_str(&text).expect("it is JSON");
        let of = |name: &str| {
            let rows = document["rows"].as_array().expect("rows");
            rows.iter().find(|row| row["name"] == name).expect("it is there")["chain"].clone()
        };
        let transaction = of("broker/transaction/64");
        assert_eq!((&transaction["ratio_to_base"], &transaction["base"]), (&0.5.into(), &"broker/send/64".into()));
        assert_eq!(of("broker/retry")["round_trip_log_bytes"], 395.0);
        let pending = of("broker/delay/pending");
        assert_eq!((&pending["pending"], &pending["without_per_s"]), (&100_000.into(), &50_000.0.into()));
        assert!(pending["lateness"]["p99_us"].is_f64() && pending["sends"].is_null());
        assert!(of("chain/safe/64")["sends"]["p50_us"].is_f64());
        assert!(parsed()["rows"][0]["chain"].is_null());
    }

    #[test]
    fn a_run_without_disk_probe_says_null() {
        let document: Value =
            serde_json::from_str(&document(&Run { probe: None, ..run() }).expect("it can be written"))
                .expect("it is JSON");
        assert!(document["disk"].is_null() && document["rows"][0]["limit_ratio"].is_null());
    }
}
