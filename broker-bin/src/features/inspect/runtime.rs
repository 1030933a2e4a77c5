//! 28: what the broker is doing.

use std::time::Duration;

use anchorlog_engine::Queue;
use bytes::BytesMut;

use crate::features::{Outcome, Reply, Task};
use crate::shared::Shared;
use crate::wire::body::put_text_table;

/// 28: the broker's state as names and values. Names that the original has mean what they mean there.
pub fn runtime_info() -> Outcome {
    // It asks the file system, which may take its time.
    Outcome::Read(Task::new(|shared, _| {
        let pairs = pairs(shared);
        let mut body = BytesMut::new();
        put_text_table(&mut body, pairs.iter().map(|(name, value)| (*name, value.as_str())));
        Reply::body(body).into()
    }))
}

fn pairs(shared: &Shared) -> Vec<(&'static str, String)> {
    let engine = &shared.engine;
    let (counts, stats, space, marks) = (shared.counters.read(), engine.stats(), engine.space(), engine.watermarks());
    let clock = engine.clock();
    let (now_ms, started_ms) = (clock.wall_ms(), shared.started_ms);
    let rates = [10, 60, 600].map(|seconds| shared.rates.per_second(Duration::from_secs(seconds)));
    let three = |rate: fn(&(f64, f64)) -> f64| {
        let texts: Vec<_> = rates.iter().map(|both| format!("{:?}", rate(both))).collect();
        texts.join(" ")
    };
    let (put, got) = (three(|both| both.0), three(|both| both.1));
    let (put_off, delivered) = shared.rates.timers_per_second(Duration::from_secs(60));
    let late_ms = shared.due.first_ms().map_or(0, |first_ms| now_ms.saturating_sub(first_ms));
    let [today, yesterday] = shared.rates.mornings();
    let log_bytes = marks.assigned.since(marks.start);
    let used = space.free_bytes.map(|free| ratio(log_bytes, log_bytes.saturating_add(free))).unwrap_or_default();
    // There are no pools of threads with queues: a request is answered, or read for, or refused.
    let idle = || "0".to_owned();
    let unbounded = || "100000".to_owned();
    vec![
        ("EndTransactionQueueSize", idle()),
        ("EndTransactionThreadPoolQueueCapacity", unbounded()),
        ("ackThreadPoolQueueCapacity", unbounded()),
        ("ackThreadPoolQueueHeadWaitTimeMills", idle()),
        ("ackThreadPoolQueueSize", idle()),
        ("bootTimestamp", started_ms.to_string()),
        ("brokerActive", shared.admission().is_ok().to_string()),
        ("brokerVersion", crate::wire::header::VERSION.to_string()),
        ("brokerVersionDesc", format!("Anchorlog_{}", env!("CARGO_PKG_VERSION"))),
        ("commitLogDirCapacity", capacity(log_bytes, space.free_bytes)),
        ("commitLogDiskRatio", used.clone()),
        ("commitLogMaxOffset", marks.acked.to_string()),
        ("commitLogMinOffset", marks.start.to_string()),
        ("consumeQueueDiskRatio", used),
        ("dispatchBehindBytes", marks.acked.since(marks.dispatched).to_string()),
        ("earliestMessageTimeStamp", earliest_ms(shared).map_or_else(|| "-1".to_owned(), |time| time.to_string())),
        ("getFoundTps", got.clone()),
        ("getMissTps", "0.0 0.0 0.0".to_owned()),
        ("getTotalTps", got.clone()),
        ("getTransferredTps", got.clone()),
        ("getTransferedTps", got),
        ("litePullThreadPoolQueueCapacity", unbounded()),
        ("litePullThreadPoolQueueHeadWaitTimeMills", idle()),
        ("litePullThreadPoolQueueSize", idle()),
        ("msgGetTotalTodayMorning", today.got.to_string()),
        ("msgGetTotalTodayNow", counts.messages_pulled.to_string()),
        ("msgGetTotalYesterdayMorning", yesterday.got.to_string()),
        ("msgPutTotalTodayMorning", today.put.to_string()),
        ("msgPutTotalTodayNow", counts.messages_acked.to_string()),
        ("msgPutTotalYesterdayMorning", yesterday.put.to_string()),
        ("pageCacheLockTimeMills", idle()),
        ("pullThreadPoolQueueCapacity", unbounded()),
        ("pullThreadPoolQueueHeadWaitTimeMills", idle()),
        ("pullThreadPoolQueueSize", idle()),
        ("putMessageAverageSize", average(stats.frame_bytes, stats.records)),
        ("putMessageFailedTimes", counts.sends_refused.to_string()),
        ("putMessageSizeTotal", stats.frame_bytes.to_string()),
        ("putMessageTimesTotal", stats.records.to_string()),
        ("putTps", put),
        ("queryThreadPoolQueueCapacity", unbounded()),
        ("queryThreadPoolQueueHeadWaitTimeMills", idle()),
        ("queryThreadPoolQueueSize", idle()),
        ("remainHowManyDataToCommit", format!("{} B", marks.assigned.since(marks.written))),
        ("remainHowManyDataToFlush", format!("{} B", marks.written.since(marks.durable))),
        ("remainTransientStoreBufferNumbs", idle()),
        ("runtime", duration(now_ms.saturating_sub(started_ms))),
        ("sendThreadPoolQueueCapacity", unbounded()),
        ("sendThreadPoolQueueHeadWaitTimeMills", idle()),
        ("sendThreadPoolQueueSize", idle()),
        ("startAcceptSendRequestTimeStamp", idle()),
        ("timerCongestNum", shared.due.overdue(now_ms).to_string()),
        ("timerDequeueTps", format!("{delivered:?}")),
        ("timerEnqueueTps", format!("{put_off:?}")),
        // What is put off is in the table by the batch that stores it.
        ("timerOffsetBehind", idle()),
        ("timerReadBehind", (late_ms / 1000).to_string()),
        // What only this broker has.
        ("anchorlog.backend", engine.info().backend.clone()),
        ("anchorlog.commits", stats.commits.to_string()),
        ("anchorlog.deadLetters", counts.dead_letters.to_string()),
        ("anchorlog.epoch", engine.info().epoch.to_string()),
        ("anchorlog.fenced", engine.fenced().map_or_else(|| "no".to_owned(), |fenced| fenced.to_string())),
        ("anchorlog.flushes", stats.flushes.to_string()),
        ("anchorlog.parked", (counts.entries_parked + counts.transactions_parked).to_string()),
        ("anchorlog.standing", shared.standing.to_string()),
        ("anchorlog.unconfirmed", counts.messages_unconfirmed.to_string()),
    ]
}

/// When the first message was stored that a queue still shows.
fn earliest_ms(shared: &Shared) -> Option<u64> {
    let first = |queue: &Queue| shared.engine.store_time(queue, shared.engine.range(queue).min).ok().flatten();
    shared.engine.queues().iter().filter_map(first).min()
}

fn average(sum: u64, count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "an average for people")]
    let average = sum as f64 / count.max(1) as f64;
    format!("{average:?}")
}

fn ratio(part: u64, whole: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let ratio = part as f64 / whole.max(1) as f64;
    format!("{ratio:.2}")
}

fn capacity(log_bytes: u64, free_bytes: Option<u64>) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match free_bytes {
        Some(free) => format!("Total : {} MiB, Free : {} MiB.", mib(log_bytes.saturating_add(free)), mib(free)),
        None => format!("Total : {} MiB used", mib(log_bytes)),
    }
}

/// As the original writes it.
fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    format!("[ {days} days, {hours} hours, {minutes} minutes, {} seconds ]", seconds % 60)
}
