//! What is told, by name.
//!
//! Names begin with `anchorlog_` and end with their unit; what only grows ends with `_total`, which its page adds. Every counter of the
//! broker is here under its own name, whoever added it.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::Engine;
use anchorlog_replicator::Leader;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::backlog::Backlog;
use super::judgement::{health, readiness, takes_sends};
use super::lag::Lags;
use super::page::{Labels, Page};
use crate::counters::Counts;
use crate::shared::Shared;
use crate::standing::Standing;

fn label(name: &'static str, value: impl ToString) -> Labels {
    vec![(name, value.to_string())]
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(clippy::cast_precision_loss, reason = "a number for people and graphs")]
fn number(value: u64) -> f64 {
    value as f64
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1000.0
}

/// What there is without a log, too.
pub(super) fn process(page: &mut Page, counts: &Counts, started_ms: u64) {
    page.gauge("anchorlog_start_time_seconds", "When the process began to serve, since 1970.", seconds(started_ms));
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let spent = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        page.counter_of_seconds("anchorlog_cpu_seconds", "Processor time of the process.", spent.as_secs_f64());
        let resident = u64::try_from(usage.max_rss()).unwrap_or(0).saturating_mul(1024);
        page.gauge("anchorlog_resident_max_bytes", "Most memory that the process has had at once.", number(resident));
    }
    for (name, help, value) in counts.each() {
        page.counter(format!("anchorlog_{name}"), help.trim(), value);
    }
}

/// Who it is, and whether it serves at all. `shared`: as long as it does; `failed`: it cannot.
pub(super) fn standing(page: &mut Page, names: [&str; 2], shared: Option<(&Shared, Duration)>, failed: bool) {
    let role = match shared.map(|(shared, _)| &shared.standing) {
        None => "none",
        Some(Standing::Alone) => "alone",
        Some(Standing::Leader { .. }) => "leader",
        Some(Standing::Slave { .. }) => "slave",
    };
    let mut labels = label("version", env!("CARGO_PKG_VERSION"));
    labels.extend([("cluster", names[0].to_owned()), ("broker", names[1].to_owned()), ("role", role.to_owned())]);
    page.gauges("anchorlog_broker_info", "Which broker this is, and what it is among its replicas.", [(labels, 1.0)]);
    let so = |judged: fn(&Shared, Duration) -> bool| flag(shared.is_some_and(|(shared, now)| judged(shared, now)));
    let healthy = !failed && shared.is_none_or(|(shared, now)| health(shared, now).holds);
    page.gauge("anchorlog_healthy", "1 while /health answers 200.", flag(healthy));
    let ready = so(|shared, now| readiness(shared, now).holds);
    page.gauge("anchorlog_ready", "1 while /ready answers 200.", ready);
    let takes = so(|shared, _| shared.engine.fenced().is_none() && takes_sends(shared).is_ok());
    page.gauge("anchorlog_takes_sends", "1 while a send would be taken; never of a slave.", takes);
}

/// What the network threads have to do.
pub(super) fn threads(page: &mut Page, shared: &Shared, now: Duration) {
    let load = shared.pulses.load(now);
    page.gauge("anchorlog_open_connections", "Connections of clients.", number(load.connections));
    page.gauge("anchorlog_held_pulls", "Pulls that wait for a message.", number(load.held));
    let help = "Requests that wait for a place in the log or for their acknowledgement.";
    page.gauge("anchorlog_waiting_requests", help, number(load.waiting));
    let help = "How long the oldest of these has waited.";
    page.gauge("anchorlog_oldest_wait_seconds", help, load.oldest.as_secs_f64());
    let help = "Time from the arrival of a send to its acknowledgement.";
    page.histogram("anchorlog_send_ack_seconds", help, shared.pulses.acks(), 1e6);
    let help = "How long the network thread has not moved that has not for the longest time.";
    page.gauge("anchorlog_thread_silence_seconds", help, shared.pulses.silent(now).as_secs_f64());
    let help = "Messages that would be recognised if they were sent again.";
    page.gauge("anchorlog_repeats_remembered", help, shared.repeats.count() as f64);
}

/// The log's own numbers.
pub(super) fn log(page: &mut Page, engine: &Engine) {
    let (stats, flushes) = (engine.stats(), engine.flush_stats());
    let fenced = flag(engine.fenced().is_some());
    page.gauge("anchorlog_log_fenced", "1 once a write or flush has failed: nothing is acknowledged any more.", fenced);
    let help = "Time from handing a group of records to the device to its being durable.";
    page.histogram("anchorlog_log_flush_seconds", help, flushes.micros, 1e6);
    let help = "Records that became durable with one flush.";
    page.histogram("anchorlog_log_flush_records", help, flushes.records, 1.0);
    let counters = [
        ("anchorlog_log_batches", "Batches appended.", stats.batches),
        ("anchorlog_log_records", "Records appended: messages, links and entries of the table.", stats.records),
        ("anchorlog_log_appended_bytes", "Bytes appended, fillers and marks included.", stats.frame_bytes),
        ("anchorlog_log_groups", "Groups written.", stats.commits),
        ("anchorlog_log_written_bytes", "Bytes given to the device for them.", stats.commit_bytes),
        ("anchorlog_log_flushes", "Flushes asked of the device; a durable write counts one.", stats.flushes),
        ("anchorlog_log_buffer_full", "Appends that found the log buffer full.", stats.full),
        ("anchorlog_log_out_of_space", "Appends refused because the log could not grow.", stats.out_of_space),
        (
            "anchorlog_log_unwritten_segments",
            "Segments used without having been filled with zeros.",
            stats.unwritten_segments,
        ),
        ("anchorlog_log_recycled_segments", "Segments used again.", stats.recycled_segments),
        ("anchorlog_log_checkpoints", "Checkpoints written.", stats.checkpoints),
        ("anchorlog_log_damaged_records", "Damaged records met by readers, each time.", stats.damaged_records),
        ("anchorlog_log_scrubbed_bytes", "Bytes that the scrub has read.", stats.scrubbed_bytes),
        ("anchorlog_log_scrub_passes", "Passes of the scrub over the log.", stats.scrub_passes),
        (
            "anchorlog_log_scrub_damaged_places",
            "Damaged places that the scrub has found, each once a pass.",
            stats.scrub_damaged,
        ),
        ("anchorlog_log_mended_ranges", "Damaged ranges that were mended from a replica.", stats.mended_ranges),
        ("anchorlog_log_mended_bytes", "Bytes written for that.", stats.mended_bytes),
        ("anchorlog_log_cold_reads", "Reads that went to the disk.", stats.cold_reads),
        ("anchorlog_log_cold_read_bytes", "Bytes that they brought.", stats.cold_read_bytes),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value);
    }
    positions(page, engine);
    let help = "Bytes that the store of what is derived from the log takes.";
    page.gauge("anchorlog_derived_store_bytes", help, number(stats.derived_bytes));
    page.gauge(
        "anchorlog_key_index_runs",
        "Runs of the key index that a search may look into.",
        number(stats.key_runs),
    );
    let places = engine.damaged_places().len();
    page.gauge("anchorlog_log_damaged_places", "Places known to be damaged now.", places as f64);
    space(page, engine);
}

fn positions(page: &mut Page, engine: &Engine) {
    let marks = engine.watermarks();
    let mut rows = vec![
        (label("mark", "start"), number(marks.start.0)),
        (label("mark", "assigned"), number(marks.assigned.0)),
        (label("mark", "written"), number(marks.written.0)),
        (label("mark", "durable"), number(marks.durable.0)),
        (label("mark", "acked"), number(marks.acked.0)),
        (label("mark", "dispatched"), number(marks.dispatched.0)),
    ];
    rows.extend(engine.replicated().map(|lsn| (label("mark", "replicated"), number(lsn.0))));
    page.gauges("anchorlog_log_position_bytes", "How far the log is, as LSNs.", rows);
    let behind = number(marks.assigned.since(marks.durable));
    page.gauge("anchorlog_log_undurable_bytes", "Bytes that have a place in the log and are not durable.", behind);
    let behind = number(marks.assigned.since(marks.acked));
    page.gauge("anchorlog_log_unacked_bytes", "Bytes that have a place in the log and are not acknowledged.", behind);
}

fn space(page: &mut Page, engine: &Engine) {
    let (space, retention, marks) = (engine.space(), engine.retention(), engine.watermarks());
    page.gauge("anchorlog_log_bytes", "Length of the log that is kept.", number(marks.assigned.since(marks.start)));
    let rows = [
        (label("class", "any"), number(space.ordinary_bytes)),
        (label("class", "essential"), number(space.essential_bytes)),
    ];
    let help = "Bytes of log that stand ready, for sends and for what must go on when the disk is full; more are made while there is room.";
    page.gauges("anchorlog_log_space_bytes", help, rows);
    page.gauges(
        "anchorlog_disk_free_bytes",
        "Bytes free on the log's disk.",
        space.free_bytes.map(|free| (Labels::new(), number(free))),
    );
    page.gauge("anchorlog_log_full", "1 while the log cannot grow.", flag(space.full.is_some()));
    page.gauge("anchorlog_log_refuses", "1 while sends are refused for that.", flag(space.refuses));
    let help = "Bytes that would be released if nothing held them.";
    page.gauge("anchorlog_log_held_bytes", help, number(retention.wanted.0.saturating_sub(retention.start.0)));
    let help =
        "Messages kept beyond the log's start because groups have not consumed them, or something refers to them.";
    page.gauge("anchorlog_log_survivors", help, retention.survivors as f64);
    let help = "Segments kept for them.";
    page.gauge("anchorlog_log_sparse_segments", help, retention.sparse_segments as f64);
}

/// Replicas: of a leader its slaves, of a slave whether it has a leader.
pub(super) fn replicas(page: &mut Page, standing: &Standing) {
    let status = match standing {
        Standing::Leader { leader, .. } => Some(Leader::last_status(leader)),
        _ => None,
    };
    let peers = || status.iter().flat_map(|status| &status.peers);
    let by = |value: fn(&anchorlog_replicator::PeerStatus) -> f64| {
        peers().map(|peer| (label("replica", &peer.replica), value(peer))).collect::<Vec<_>>()
    };
    let help = "1 while the replica is connected and follows.";
    page.gauges("anchorlog_replica_connected", help, by(|peer| flag(peer.connected)));
    page.gauges("anchorlog_replica_in_sync", "1 while its acknowledgements count.", by(|peer| flag(peer.in_sync)));
    let help = "Bytes of the leader's log that are not on its disk.";
    page.gauges("anchorlog_replica_lag_bytes", help, by(|peer| number(peer.lag_bytes)));
    let help = "Bytes free for its log, as it said last.";
    page.gauges("anchorlog_replica_free_bytes", help, by(|peer| number(peer.free_bytes)));
    let answered =
        peers().filter_map(|peer| peer.answered.map(|age| (label("replica", &peer.replica), age.as_secs_f64())));
    let answered: Vec<_> = answered.collect();
    page.gauges("anchorlog_replica_answered_seconds", "How old the newest news are that it has answered.", answered);
    let degraded = status.as_ref().map(|status| (Labels::new(), flag(status.degraded)));
    let help = "1 while acknowledgements are the leader's alone, as asked for by name.";
    page.gauges("anchorlog_replication_degraded", help, degraded);
    let degradations = status.as_ref().map(|status| (Labels::new(), status.degradations));
    page.counters("anchorlog_replication_degradations", "How often that began.", degradations);
    let connected = match standing {
        Standing::Slave { leader } => Some((Labels::new(), flag(leader.is_connected()))),
        _ => None,
    };
    page.gauges("anchorlog_slave_connected", "Of a slave: 1 while it is connected to a leader.", connected);
}

/// What is to be done.
pub(super) fn backlog(page: &mut Page, shared: &Shared, backlog: Option<Arc<Backlog>>) {
    let one = |value: fn(&Backlog) -> u64| {
        backlog.iter().map(|backlog| (Labels::new(), number(value(backlog)))).collect::<Vec<_>>()
    };
    let help = "Messages to be delivered later, those that groups are to get again included.";
    page.gauges("anchorlog_pending_deliveries", help, one(|backlog| backlog.deliveries));
    let help = "Half messages of which nobody has said what became of them.";
    page.gauges("anchorlog_pending_transactions", help, one(|backlog| backlog.transactions));
    let help = "Half messages that nobody decided, and nobody is asked about any more; they wait for an operator.";
    page.gauges("anchorlog_parked_transactions", help, one(|backlog| backlog.parked_transactions));
    page.gauges(
        "anchorlog_parked_entries",
        "Entries that can never be done; they wait for an operator.",
        one(|backlog| backlog.parked),
    );
    let late = shared.due.first_ms().map_or(0, |first| shared.engine.clock().wall_ms().saturating_sub(first));
    page.gauge("anchorlog_timer_late_seconds", "How late the first of what is due is.", seconds(late));
}

/// Topics and groups.
pub(super) fn lags(page: &mut Page, shared: &Shared, lags: &Lags) {
    page.gauge(
        "anchorlog_topics",
        "Topics, those of retries and dead letters included.",
        shared.state.topics.count() as f64,
    );
    page.gauge("anchorlog_groups", "Consumer groups.", shared.state.groups.count() as f64);
    page.gauge(
        "anchorlog_committed_offsets",
        "Offsets that groups have committed.",
        shared.state.offsets.count() as f64,
    );
    let by_topic = |topic: &str| label("topic", topic);
    let help = "Messages ever stored in a topic.";
    page.counters(
        "anchorlog_topic_messages",
        help,
        lags.topics.iter().map(|held| (by_topic(&held.topic), held.stored)),
    );
    let help = "Messages of a topic that consumers still see.";
    let kept = lags.topics.iter().map(|held| (by_topic(&held.topic), number(held.kept)));
    page.gauges("anchorlog_topic_kept_messages", help, kept);
    let key = |group: &str, topic: &str| vec![("group", group.to_owned()), ("topic", topic.to_owned())];
    let messages = lags.behind.iter().map(|one| (key(&one.group, &one.topic), number(one.messages)));
    page.gauges("anchorlog_group_lag_messages", "Messages of a topic that a group has before it.", messages);
    let now_ms = shared.engine.clock().wall_ms();
    let age = |since_ms: Option<u64>| seconds(since_ms.map_or(0, |since| now_ms.saturating_sub(since)));
    let known = lags.behind.iter().filter(|one| one.messages == 0 || one.since_ms.is_some());
    let ages = known.map(|one| (key(&one.group, &one.topic), age(one.since_ms)));
    page.gauges(
        "anchorlog_group_lag_seconds",
        "Age of the oldest message of a topic that a group has before it.",
        ages,
    );
    let dead = lags.dead_letters.iter().map(|(group, count)| (label("group", group), number(*count)));
    page.gauges("anchorlog_group_dead_letters", "Dead letters of a group that lie in its topic.", dead);
    let rows =
        [(label("of", "lags"), lags.behind_left_out as f64), (label("of", "topics"), lags.topics_left_out as f64)];
    let help = "Pairs of group and topic, and topics, that are not told one by one because there are too many.";
    page.gauges("anchorlog_series_left_out", help, rows);
}
