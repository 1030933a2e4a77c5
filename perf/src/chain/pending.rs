//! Very many delayed messages: how exactly others are delivered meanwhile, and what live sends notice when they fall due.
//!
//! ```text
//!  fill: a tenth far away, the rest due within one second --> probes, each due soon --> live sends ... second ... until all is delivered
//! ```
//! 1. Probes are delivered while everything else is pending: their lateness counts from the due time to the arrival at a consumer.
//! 2. The rate of live sends while the others fall due, and until the last of them is delivered, is held against their rate just before.
//! 3. What is far away is never delivered in the run.

use std::time::Duration;

use anchorlog_engine::io::sys::BlockDevice;
use hdrhistogram::Histogram;

use super::bench::{Bench, Found, OnStore, between, with_faults};
use super::consumer::{Consuming, PULL_MESSAGES};
use super::drive::Drive;
use super::producer::{Followed, Producing, Times};
use super::rows::Kind;
use super::sending::{acked, delivered};
use crate::broker_rows::{self, TOPIC};
use crate::clock::{self, SECOND_NS};
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::{self, Meter};
use crate::open_loop::Load;
use crate::payload::Payloads;
use crate::prepared::Manner;
use crate::row::{ChainUse, RowResult};
use crate::sender::Sent;
use crate::topic::Topic;
use crate::verify::Verified;

/// Bytes of a pending message.
const SIZE: usize = 128;
/// Messages on their way while the store is filled.
const FILLING: (usize, usize) = (8, 64);
/// One in so many is far away.
const FAR_SHARE: u64 = 10;
/// How far.
const FAR_MS: u64 = 3_600_000;
/// How far ahead probes are sent, and how many a second.
const PROBE_AHEAD_MS: u64 = 300;
const PROBES_PER_S: f64 = 100.0;
/// Between the last probe and what falls due: live sends begin, and are counted.
const BEFORE: Duration = Duration::from_millis(1700);
const WARM_UP: Duration = Duration::from_millis(300);
/// All that is not far away falls due within this time.
const SPAN_MS: f64 = 1000.0;
/// Longest time until the last one is delivered.
const PATIENCE_S: f64 = 120.0;

/// Measures the row.
///
/// # Errors
/// When the broker fails, or the store is filled too slowly; broken promises are not an error but a verdict.
pub(super) fn measure(count: u64, bench: &Bench<'_>) -> Result<RowResult, PerfError> {
    let mut store = bench.broker()?;
    let backend = store.served().backend.clone();
    let timed = Topic::create(store.address(), "PerfTimed", 8)?;
    let small = Payloads::new(SIZE, bench.seed + 1);
    let far = Payloads::new(SIZE, bench.seed + 2);
    let probing = Duration::from_secs_f64(bench.spec.seconds);
    let filled = fill(bench, &timed, &far, &small, count, probing)?;
    let probes = probe(bench, store.address(), probing)?;
    let live = live(bench, &mut store, &timed, &filled)?;

    let Filled { mut sent, .. } = filled;
    store.again(true)?;
    let deliveries = delivered(&timed.moved_to(store.address()), &small, &mut sent)?;
    let Live { mut sent, .. } = live;
    let kept = broker_rows::read_back(&live.topic.moved_to(store.address()), &live.payloads, &mut sent)?;
    store.finish()?;

    let verified = with_faults(deliveries.verified.plus(kept), probes.verified);
    let mut notes: Vec<String> = deliveries.note().into_iter().collect();
    notes.push(format!(
        "{count} messages of {SIZE} bytes were pending, {} of them fell due within a second; all were delivered {:.2} s after it began",
        count - count / FAR_SHARE,
        live.delivered_s
    ));
    let of = |quantile: f64| deliveries.lateness.value_at_quantile(quantile) as f64 / 1e6;
    notes.push(format!(
        "those that fell due together were late by {:.0} ms (p50) and {:.0} ms at most: they take turns with live sends",
        of(0.5),
        of(1.0)
    ));
    notes.push(format!("{} probes were delivered while all of them were pending", probes.lateness.len()));
    notes.extend(broker_rows::refusals(&sent));
    let chain = ChainUse {
        counts: Kind::Pending { count }.counts(),
        engine: between(&live.looks),
        lateness: Some(probes.lateness),
        without_per_s: Some(live.before_per_s),
        pending: Some(count),
        ..ChainUse::default()
    };
    let found = Found { window: live.window, latencies: sent.latencies, verified, notes, chain };
    Ok(bench.row(&bench.spec.name, backend, engine_rows::durability(true), found))
}

/// What is pending.
struct Filled {
    /// When the first of those that are not far away is due, in milliseconds since 1970.
    from_ms: u64,
    sent: Sent,
}

/// Sends what is far away, which says how fast that goes, and then the rest, due within one second when there was time for all of it.
fn fill(
    bench: &Bench<'_>,
    topic: &Topic,
    far: &Payloads,
    small: &Payloads,
    count: u64,
    probing: Duration,
) -> Result<Filled, PerfError> {
    let meter = Meter::new(2);
    let producing = |payloads, times, most| -> Result<Producing<'_>, PerfError> {
        let plain = bench.producing(topic, payloads)?;
        Ok(Producing { connections: FILLING, manner: Manner::Timed, times: Some(times), most: Some(most), ..plain })
    };
    let all = |drive: &Drive<'_>| drive.producer.as_ref().is_none_or(|producer| producer.is_done());
    let far_count = count / FAR_SHARE;
    let begun = clock::now_ns();
    let mut drive = Drive::connect(Some(&producing(far, Times::Ahead { ms: FAR_MS }, far_count)?), None, &meter)?;
    drive.until(true, all)?;
    drop(drive.finish()?);
    let near = count - far_count;
    let took_ns = (clock::now_ns() - begun) as f64 * near as f64 / far_count.max(1) as f64;
    let ahead = Duration::from_secs_f64(took_ns * 1.4 / SECOND_NS as f64) + Duration::from_millis(500);
    let ahead = ahead + probing + Duration::from_millis(PROBE_AHEAD_MS) + BEFORE;
    let from_ms = clock::wall_ms() + u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
    let times = Times::From { ms: from_ms, per_ms: near as f64 / SPAN_MS };
    let mut drive = Drive::connect(Some(&producing(small, times, near)?), None, &meter)?;
    drive.until(true, all)?;
    let left = drive.finish()?;
    let needed = probing + Duration::from_millis(PROBE_AHEAD_MS) + BEFORE;
    if clock::wall_ms() + u64::try_from(needed.as_millis()).unwrap_or(u64::MAX) > from_ms {
        return Err(PerfError::Broker(format!("filling it with {count} messages took longer and longer")));
    }
    Ok(Filled { from_ms, sent: left.sent })
}

/// How late messages come while very many others are pending.
struct Probes {
    lateness: Histogram<u64>,
    verified: Verified,
}

fn probe(bench: &Bench<'_>, broker: &str, probing: Duration) -> Result<Probes, PerfError> {
    let topic = Topic::create(broker, "PerfProbes", 1)?;
    let payloads = Payloads::new(SIZE, bench.seed + 3);
    let meter = Meter::new(2);
    let producing = Producing {
        connections: (1, 1),
        manner: Manner::Timed,
        times: Some(Times::Ahead { ms: PROBE_AHEAD_MS }),
        load: Load::Open { per_s: PROBES_PER_S },
        followed: Followed::ByWhoCounts,
        ..bench.producing(&topic, &payloads)?
    };
    let consuming = Consuming {
        topic: &topic,
        group: "probes",
        members: 1,
        orderly: false,
        pull_messages: PULL_MESSAGES,
        ends: None,
        streams: 1,
        encoding: bench.encoding,
        payloads: &payloads,
    };
    meter.open();
    let drive = Drive::connect(Some(&producing), Some(&consuming), &meter)?;
    let mut left = std::thread::scope(|scope| {
        let handle = scope.spawn(|| drive.run(&meter));
        clock::sleep(probing);
        meter.stop();
        engine_rows::join(handle)
    })?;
    let mut lateness = meter::latencies();
    let ahead_ns = PROBE_AHEAD_MS * 1_000_000;
    let (mut early, taken) = (0, left.processed.take().unwrap_or_else(meter::latencies));
    for took in taken.iter_recorded() {
        // The histogram's own steps are not early: they are a third of a millisecond wide here.
        match took.value_iterated_to().checked_sub(ahead_ns) {
            Some(late) => lateness.saturating_record_n(late, took.count_at_value()),
            None => early += took.count_at_value(),
        }
    }
    let verified = left.verified().unwrap_or_default();
    Ok(Probes { lateness, verified: Verified { unexpected: verified.unexpected + early, ..verified } })
}

/// Live sends while others fall due.
struct Live {
    topic: Topic,
    payloads: Payloads,
    sent: Sent,
    window: meter::Window,
    looks: Vec<crate::served::Counts>,
    before_per_s: f64,
    delivered_s: f64,
}

fn live(bench: &Bench<'_>, store: &mut OnStore<'_>, timed: &Topic, filled: &Filled) -> Result<Live, PerfError> {
    let topic = Topic::create(store.address(), TOPIC, 8)?;
    let payloads = bench.payloads();
    let (device, pid): (Option<BlockDevice>, u32) = (store.device.clone(), store.pid());
    let until = |wall_ms: u64| clock::sleep(Duration::from_millis(wall_ms.saturating_sub(clock::wall_ms())));
    let before_ms = |duration: Duration| filled.from_ms - u64::try_from(duration.as_millis()).unwrap_or(0);
    until(before_ms(BEFORE));
    let meter = Meter::new(2);
    let drive = Drive::connect(Some(&bench.producing(&topic, &payloads)?), None, &meter)?;
    let wanted = acked(&filled.sent);
    let (before_per_s, window, looks, delivered_s, left) = std::thread::scope(|scope| {
        let handle = scope.spawn(|| {
            let left = drive.run(&meter);
            meter.stop();
            left
        });
        clock::sleep(WARM_UP);
        let (begun, acks) = (clock::now_ns(), meter.acks());
        until(filled.from_ms);
        let (began_ns, before) = (clock::now_ns(), meter.acks() - acks);
        let before_per_s = before as f64 * SECOND_NS as f64 / (began_ns - begun).max(1) as f64;
        let mut failed = None;
        let first = store.counts();
        let window = meter.watch_while(PATIENCE_S, device.as_ref(), Some(pid), || match timed.ends() {
            Ok(ends) => ends.iter().sum::<u64>() < wanted,
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        let delivered_s = (clock::now_ns() - began_ns) as f64 / SECOND_NS as f64;
        let looks = vec![first?, store.counts()?];
        let left = engine_rows::join(handle)?;
        match failed {
            Some(error) => Err(error),
            None => Ok((before_per_s, window, looks, delivered_s, left)),
        }
    })?;
    Ok(Live { topic, payloads, sent: left.sent, window, looks, before_per_s, delivered_s })
}
