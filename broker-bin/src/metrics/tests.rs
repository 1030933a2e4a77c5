use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::Clock;
use anchorlog_engine::io::sim::{IoClass, SimDisk, Times};
use serde_json::json;

use super::{Source, gather, page::Page};
use crate::counters::Counters;
use crate::limits;
use crate::scene::{Scene, send_fields};
use crate::standing::{KnownLeader, Standing};

fn source(scene: &Scene) -> Source {
    let clock: Arc<dyn Clock> = scene.clock.clone();
    let source = Source::new(clock, Arc::clone(&scene.shared.counters), "c", "b");
    source.begin(&scene.shared);
    source
}

/// The value of a row; panics when there is none.
fn value(page: &str, row: &str) -> f64 {
    let found = page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {row} in {page}")).parse().expect("a number")
}

fn has(page: &str, row: &str) -> bool {
    page.lines().any(|line| line.starts_with(row))
}

#[test]
fn names_are_those_that_monitors_expect() {
    let scene = Scene::new();
    let mut page = Page::default();
    let now = scene.clock.monotonic();
    gather::process(&mut page, &Counters::default().read(), 1);
    gather::standing(&mut page, ["c", "b"], Some((&scene.shared, now)), false);
    gather::threads(&mut page, &scene.shared, now);
    gather::log(&mut page, &scene.shared.engine);
    gather::replicas(&mut page, &scene.shared.standing);
    gather::backlog(&mut page, &scene.shared, None);
    gather::lags(&mut page, &scene.shared, &super::lag::look(&scene.shared));
    let mut names = page.names();
    assert!(names.len() > 90, "{}", names.len());
    for (name, is_counter) in &names {
        assert!(name.starts_with("anchorlog_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_count") && !name.ends_with("_sum"), "{name}");
        assert!(!(*is_counter && name.ends_with("_info")), "{name}");
    }
    let count = names.len();
    names.sort();
    names.dedup_by(|one, other| one.0 == other.0);
    assert_eq!(names.len(), count, "each name once");
    assert!(page.text().lines().all(|line| !line.starts_with("# HELP") || line.ends_with('.')), "each says what it is");
}

#[test]
fn every_counter_is_told_under_its_own_name() {
    let counters = Counters::default();
    counters.verdicts_refused.add(7);
    let mut page = Page::default();
    gather::process(&mut page, &counters.read(), 1_700_000_000_500);
    let page = page.text();
    assert_eq!(value(&page, "anchorlog_verdicts_refused_total"), 7.0);
    assert_eq!(value(&page, "anchorlog_start_time_seconds"), 1_700_000_000.5);
    for (name, help, _) in counters.read().each() {
        assert!(page.contains(&format!("# HELP anchorlog_{name} {}\n", help.trim())), "{name}");
    }
}

#[test]
fn a_groups_lag_is_told_in_messages_and_in_the_age_of_the_oldest() {
    let mut scene = Scene::new();
    let id = scene.connect();
    for _ in 0..3 {
        assert_eq!(scene.send(id, "T1", 0, "", b"x").code(), 0);
        scene.clock.advance(Duration::from_secs(10));
    }
    let offset = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": "1"});
    assert_eq!(scene.ask(id, 15, &offset, b"").code(), 0);
    let source = source(&scene);
    let page = source.page();
    let of = "{group=\"g\",topic=\"T1\"}";
    assert_eq!(value(&page, &format!("anchorlog_group_lag_messages{of}")), 2.0);
    let age = value(&page, &format!("anchorlog_group_lag_seconds{of}"));
    assert!((20.0..20.5).contains(&age), "the second message is that old: {age}");
    assert_eq!(value(&page, "anchorlog_topic_messages_total{topic=\"T1\"}"), 3.0);
    assert_eq!(value(&page, "anchorlog_topic_kept_messages{topic=\"T1\"}"), 3.0);
    // With all of it consumed there is nothing that could be old.
    let offset = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": "3"});
    assert_eq!(scene.ask(id, 15, &offset, b"").code(), 0);
    let page = source.page();
    assert_eq!(value(&page, &format!("anchorlog_group_lag_messages{of}")), 0.0);
    assert_eq!(value(&page, &format!("anchorlog_group_lag_seconds{of}")), 0.0);
    source.end();
}

#[test]
fn with_too_many_groups_those_that_are_furthest_behind_are_told() {
    let mut scene = Scene::new();
    let id = scene.connect();
    assert_eq!(scene.send(id, "T1", 0, "", b"x").code(), 0);
    scene.clock.advance(Duration::from_secs(5));
    assert_eq!(scene.send(id, "T1", 0, "", b"y").code(), 0);
    let shared = &scene.shared;
    for number in 0..limits::METRICS_LAGS_MAX + 20 {
        let key =
            |group: String| crate::features::offsets::OffsetKey { group: group.into(), topic: "T1".into(), queue: 0 };
        // The last ten have everything before them, and are told first.
        let offset = if number >= limits::METRICS_LAGS_MAX + 10 { 0 } else { 1 };
        let _noted = shared.state.offsets.commit(&key(format!("g{number:05}")), offset);
    }
    let source = source(&scene);
    let page = source.page();
    assert_eq!(value(&page, "anchorlog_series_left_out{of=\"lags\"}"), 20.0);
    let told = page.lines().filter(|line| line.starts_with("anchorlog_group_lag_messages{")).count();
    assert_eq!(told, limits::METRICS_LAGS_MAX);
    let last = limits::METRICS_LAGS_MAX + 19;
    assert_eq!(value(&page, &format!("anchorlog_group_lag_messages{{group=\"g{last:05}\",topic=\"T1\"}}")), 2.0);
    source.end();
}

#[test]
fn what_is_to_be_delivered_and_to_be_decided_is_counted() {
    let mut scene = Scene::new();
    let id = scene.connect();
    assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}5\u{2}", b"later").code(), 0);
    assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}5\u{2}", b"later").code(), 0);
    let source = source(&scene);
    let page = source.page();
    assert_eq!(value(&page, "anchorlog_pending_deliveries"), 2.0);
    assert_eq!(value(&page, "anchorlog_pending_transactions"), 0.0);
    assert_eq!(value(&page, "anchorlog_messages_delayed_total"), 2.0);
    source.end();
}

#[test]
fn a_fenced_log_is_neither_healthy_nor_ready() {
    let mut scene = Scene::new();
    let id = scene.connect();
    assert_eq!(scene.send(id, "T1", 0, "", b"x").code(), 0);
    let source = source(&scene);
    assert_eq!((source.health().holds, source.readiness().holds), (true, true));
    scene.disk.fail(IoClass::Write, scene.disk.count(IoClass::Write) + 1, 5, Times::Forever);
    scene.give(id, 310, &send_fields("T1", 0, ""), b"unlucky");
    scene.settle();
    let health = source.health();
    assert!(!health.holds && health.text.contains("fenced"), "{health:?}");
    assert_eq!(source.readiness(), health);
    let page = source.page();
    assert_eq!(value(&page, "anchorlog_log_fenced"), 1.0);
    assert_eq!(value(&page, "anchorlog_healthy"), 0.0);
    assert_eq!(value(&page, "anchorlog_takes_sends"), 0.0);
    source.end();
}

#[test]
fn a_thread_that_stands_still_is_told_not_to_work() {
    let mut scene = Scene::new();
    scene.worker.tick();
    let source = source(&scene);
    scene.clock.advance(limits::STALLED);
    assert!(source.health().holds);
    scene.clock.advance(Duration::from_secs(1));
    let health = source.health();
    assert!(!health.holds && health.text.contains("31 s"), "{health:?}");
    scene.worker.set_time(scene.clock.monotonic());
    scene.worker.tick();
    assert!(source.health().holds);
    source.end();
}

#[test]
fn a_slave_is_ready_while_it_is_connected_to_its_leader_and_takes_no_sends() {
    let leader = Arc::new(KnownLeader::default());
    let standing = Standing::Slave { leader: Arc::clone(&leader) };
    let scene = Scene::on(SimDisk::new(7), Arc::default(), standing, |_| {});
    let source = source(&scene);
    let ready = source.readiness();
    assert!(source.health().holds && !ready.holds && ready.text.contains("not connected"), "{ready:?}");
    leader.set_connected(true);
    let ready = source.readiness();
    assert!(ready.holds && ready.text.contains("takes no sends"), "{ready:?}");
    let page = source.page();
    assert_eq!((value(&page, "anchorlog_ready"), value(&page, "anchorlog_takes_sends")), (1.0, 0.0));
    assert_eq!(value(&page, "anchorlog_slave_connected"), 1.0);
    source.end();
}

#[test]
fn between_two_parts_a_broker_is_healthy_and_not_ready() {
    let scene = Scene::new();
    let holders = Arc::strong_count(&scene.shared);
    let clock: Arc<dyn Clock> = scene.clock.clone();
    let source = Source::new(clock, Arc::default(), "c", "b");
    let both = || (source.health().holds, source.readiness().holds);
    assert_eq!(both(), (true, false), "a log that is being opened is not to be killed");
    assert_eq!(value(&source.page(), "anchorlog_ready"), 0.0);
    source.begin(&scene.shared);
    assert_eq!(both(), (true, true));
    source.end();
    assert_eq!(both(), (true, false));
    assert!(!has(&source.page(), "anchorlog_log_fenced"), "there is no log to tell of");
    source.fail("the disk is gone");
    assert_eq!(both(), (false, false));
    assert_eq!(value(&source.page(), "anchorlog_healthy"), 0.0);
    assert_eq!(Arc::strong_count(&scene.shared), holders, "who closes the log has it alone");
}
