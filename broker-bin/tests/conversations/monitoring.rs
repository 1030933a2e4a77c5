//! What a monitor is told over HTTP while a broker works: numbers that are right, health and readiness that mean it, and dashboards that
//! ask for nothing that there is not.

#![expect(clippy::disallowed_methods, reason = "what a thread says at its next tick is waited for in real time")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anchorlog::Driver;
use serde_json::json;

use crate::over_every_driver;
use crate::peer::pull_fields;
use crate::stage::Stage;
use crate::transactions;

over_every_driver! {
    a_monitor_is_told_what_happened,
    a_monitor_is_told_what_waits,
    what_is_no_question_of_a_monitors_is_refused,
    dashboards_and_alerts_ask_for_what_there_is,
}

/// An answer over HTTP.
pub(crate) struct Told {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

fn exchange(at: SocketAddr, request: &str) -> Told {
    let mut stream = TcpStream::connect(at).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    Told { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(crate) fn get(at: SocketAddr, path: &str) -> Told {
    exchange(at, &format!("GET {path} HTTP/1.1\r\nhost: monitor\r\nconnection: close\r\n\r\n"))
}

/// The rows of a page.
pub(crate) fn rows(at: SocketAddr) -> BTreeMap<String, f64> {
    let page = get(at, "/metrics");
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{}",
        page.head
    );
    assert!(page.body.ends_with("# EOF\n"));
    let lines = page.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(row, value)| (row.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// The rows as soon as one of them is that.
fn rows_with(at: SocketAddr, row: &str, value: f64) -> BTreeMap<String, f64> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let rows = rows(at);
        if rows.get(row) == Some(&value) {
            return rows;
        }
        assert!(Instant::now() < end, "{row} is {:?}", rows.get(row));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stage(driver: Driver) -> (Stage, SocketAddr) {
    let listen = Some("127.0.0.1:0".parse().expect("an address"));
    let stage = Stage::with(driver, |options| anchorlog::BrokerOptions { metrics_listen: listen, ..options });
    let at = stage.broker.metrics_address().expect("it listens");
    (stage, at)
}

fn a_monitor_is_told_what_happened(driver: Driver) {
    let (stage, at) = stage(driver);
    let mut peer = stage.peer();
    for _ in 0..5 {
        peer.send_message("T1", 0, b"x", "").expect(0);
    }
    peer.ask(310, &crate::peer::send_fields("T1", 900, ""), b"to no queue").expect(29);
    assert_eq!(peer.pull("g", "T1", 0, 2).expect(0).records().len(), 3);
    let commit = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": "2"});
    peer.ask(15, &commit, &[]).expect(0);
    peer.ask(9999, &json!({}), &[]).expect(3);
    let mut stranger = stage.peer();
    stranger.raw(&[0xFF; 64]);
    assert!(stranger.sees_close());
    // Threads say what they have to do at their next tick.
    rows_with(at, "anchorlog_open_connections", 1.0);
    let rows = rows_with(at, "anchorlog_waiting_requests", 0.0);
    for (row, value) in [
        ("anchorlog_messages_acked_total", 5.0),
        ("anchorlog_messages_unconfirmed_total", 0.0),
        ("anchorlog_sends_refused_total", 1.0),
        ("anchorlog_messages_pulled_total", 3.0),
        ("anchorlog_unknown_codes_total", 1.0),
        ("anchorlog_bad_frames_total", 1.0),
        ("anchorlog_connections_total", 2.0),
        ("anchorlog_send_ack_seconds_count", 5.0),
        ("anchorlog_send_ack_seconds_bucket{le=\"+Inf\"}", 5.0),
        ("anchorlog_topic_messages_total{topic=\"T1\"}", 5.0),
        ("anchorlog_topic_kept_messages{topic=\"T1\"}", 5.0),
        ("anchorlog_group_lag_messages{group=\"g\",topic=\"T1\"}", 3.0),
        ("anchorlog_log_fenced", 0.0),
        ("anchorlog_log_refuses", 0.0),
        ("anchorlog_healthy", 1.0),
        ("anchorlog_ready", 1.0),
        ("anchorlog_takes_sends", 1.0),
        ("anchorlog_open_connections", 1.0),
    ] {
        assert_eq!(rows.get(row), Some(&value), "{row}");
    }
    let age = rows["anchorlog_group_lag_seconds{group=\"g\",topic=\"T1\"}"];
    assert!(age > 0.0 && age < 60.0, "{age}");
    assert!(rows["anchorlog_send_ack_seconds_sum"] > 0.0, "a durable write takes its time");
    // Every record became durable with some flush.
    let flushes = rows["anchorlog_log_flush_seconds_count"];
    assert_eq!(flushes, rows["anchorlog_log_flush_records_count"]);
    assert!(flushes >= 5.0 && rows["anchorlog_log_flush_seconds_sum"] > 0.0, "{flushes}");
    assert_eq!(rows["anchorlog_log_flush_records_sum"], rows["anchorlog_log_records_total"]);
    assert!(rows["anchorlog_disk_free_bytes"] > 0.0 && rows["anchorlog_log_space_bytes{class=\"any\"}"] > 0.0);
    let durable = rows["anchorlog_log_position_bytes{mark=\"durable\"}"];
    assert_eq!(rows["anchorlog_log_position_bytes{mark=\"acked\"}"], durable);
    // Counters are of this run; what topics hold is not.
    let (health, ready) = (get(at, "/health"), get(at, "/ready"));
    assert_eq!((health.status, health.body.as_str()), (200, "ok: alone\n"));
    assert_eq!((ready.status, ready.body.as_str()), (200, "ok: alone\n"));
    stage.broker.stop().expect("a clean stop, with nobody who holds the log");
    assert!(TcpStream::connect(at).is_err(), "it ends with the broker");
}

fn a_monitor_is_told_what_waits(driver: Driver) {
    let (stage, at) = stage(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"x", "").expect(0);
    peer.send_message("T1", 0, b"later", "DELAY\u{1}10\u{2}").expect(0);
    let half = transactions::half(&mut peer, b"half");
    let held = peer.send(11, &pull_fields("g", "T1", 0, 1, 2 | 4, "*"), &[]);
    let rows = rows_with(at, "anchorlog_held_pulls", 1.0);
    assert_eq!(rows["anchorlog_pending_deliveries"], 1.0);
    assert_eq!(rows["anchorlog_pending_transactions"], 1.0);
    assert_eq!(rows["anchorlog_transactions_begun_total"], 1.0);
    assert_eq!(rows["anchorlog_pulls_held_total"], 1.0);
    assert_eq!(rows["anchorlog_timer_late_seconds"], 0.0);
    stage.peer().send_message("T1", 0, b"y", "").expect(0);
    peer.answer(held).expect(0);
    // What is decided is not pending, although its producer's turn to be asked is still to come.
    peer.ask(37, &transactions::verdict_on(&half, 12), &[]).expect(0);
    let rows = rows_with(at, "anchorlog_held_pulls", 0.0);
    assert_eq!(rows["anchorlog_pending_transactions"], 0.0);
    assert_eq!(rows["anchorlog_transactions_rolled_back_total"], 1.0);
}

fn what_is_no_question_of_a_monitors_is_refused(driver: Driver) {
    let (stage, at) = stage(driver);
    assert_eq!(get(at, "/nothing").status, 404);
    assert!(get(at, "/").body.contains("/ready"));
    let told = exchange(at, "POST /metrics HTTP/1.1\r\nhost: m\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
    assert!(told.status == 405 && told.head.contains("allow: get, head"), "{}", told.head);
    let told = exchange(at, "HEAD /health HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n");
    assert_eq!((told.status, told.body.as_str()), (200, ""));
    assert_eq!(exchange(at, "what is this?\r\n\r\n").status, 400);
    // Whoever holds connections and says nothing is not in others' way.
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(at).expect("it listens")).collect();
    assert_eq!(get(at, "/health").status, 200);
    drop(silent);
    stage.broker.stop().expect("a clean stop");
}

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Every name of ours in a text.
fn asked_for(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("anchorlog_")).collect()
}

fn dashboards_and_alerts_ask_for_what_there_is(driver: Driver) {
    let (stage, at) = stage(driver);
    let page = get(at, "/metrics").body;
    let mut told = BTreeSet::new();
    for line in page.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else { continue };
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        told.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    for (name, least) in [("grafana/anchorlog.json", 40), ("prometheus/alerts.yml", 15)] {
        let text = std::fs::read_to_string(deployed(name)).expect("it lies there");
        let asked = asked_for(&text);
        assert!(asked.len() >= least, "{name} asks for {}", asked.len());
        let missing: Vec<_> = asked.iter().filter(|name| !told.contains(**name)).collect();
        assert!(missing.is_empty(), "{name} asks for {missing:?}");
    }
    let dashboard = std::fs::read_to_string(deployed("grafana/anchorlog.json")).expect("it lies there");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 20));
    stage.broker.stop().expect("a clean stop");
}

#[test]
fn prometheus_itself_reads_the_alerts_and_finds_that_they_ring() {
    if Command::new("promtool").arg("--version").output().is_err() {
        // Past what captures the words of tests: what was not done must not look as if it was.
        writeln!(std::io::stderr(), "SKIPPED promtool on deploy/prometheus: it is not installed").expect("stderr");
        return;
    }
    let rules = Command::new("promtool").args(["check", "rules"]).arg(deployed("prometheus/alerts.yml")).output();
    let rules = rules.expect("it runs");
    assert!(rules.status.success(), "{}", String::from_utf8_lossy(&rules.stderr));
    let tests = Command::new("promtool").args(["test", "rules"]).arg(deployed("prometheus/alerts.test.yml")).output();
    let tests = tests.expect("it runs");
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
}
