//! A backlog that lies in the broker's memory, consumed again and again: plainly, and in order with locked queues and answered commits.
//!
//! Passes alternate, each by a group of its own that takes all of it; a row is the sum of its passes. Every pass finds every message once,
//! in order. In the end the broker is killed: what the last group in order has committed is there.

use hdrhistogram::Histogram;

use super::bench::{Bench, Found, OnStore, committed, with_faults};
use super::consumer::{Consuming, PULL_MESSAGES};
use super::drive::Drive;
use super::producer::Producing;
use super::rows::{Kind, MANY_QUEUES};
use crate::broker_rows::{self, TOPIC};
use crate::clock::{self, SECOND_NS};
use crate::error::PerfError;
use crate::meter::{self, DeviceUse, Meter, Window};
use crate::payload::Payloads;
use crate::row::{ChainUse, RowResult};
use crate::sender::Sent;
use crate::served::Counts;
use crate::topic::Topic;
use crate::verify::Verified;

/// Bytes of the backlog's bodies: what the broker keeps of its log in memory is more.
const BACKLOG_BYTES: usize = 48 << 20;
/// Messages of the backlog at most.
const BACKLOG_MESSAGES: usize = 48 << 10;
/// Messages of a backlog for each second of a row, so that a short row is one of few messages.
const PER_SECOND: f64 = 40_000.0;
/// Members of each group; they share the queues.
const MEMBERS: usize = 8;
/// Passes of each kind at least, and at most.
const PASSES: std::ops::RangeInclusive<usize> = 2..=100;

/// What the passes of one kind add up to.
struct Sum {
    orderly: bool,
    seconds: f64,
    messages: u64,
    passes: usize,
    latencies: Histogram<u64>,
    cpu_s: f64,
    device: DeviceUse,
    engine: Counts,
    verified: Verified,
}

/// Measures both rows.
///
/// # Errors
/// When the broker fails; broken promises are not an error but a verdict.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Vec<RowResult>, PerfError> {
    let payloads = bench.payloads();
    let mut store = bench.broker()?;
    let backend = store.served().backend.clone();
    let topic = Topic::create(store.address(), TOPIC, MANY_QUEUES)?;
    let mut sent = fill(bench, &topic, &payloads)?;
    let ends = topic.ends()?;
    let mut sums = [Sum::new(false), Sum::new(true)];
    let mut last = String::new();
    for pass in 0..*PASSES.end() {
        let enough = |sum: &Sum| sum.passes >= *PASSES.start() && sum.seconds >= bench.spec.seconds;
        if sums.iter().all(enough) {
            break;
        }
        // The one that comes second in one round comes first in the next.
        let order = if pass % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let group = format!("perf-{}-{pass}", if sums[at].orderly { "orderly" } else { "plain" });
            sums[at].pass(bench, &mut store, (&topic, &payloads), (&group, &ends), &sent)?;
            if sums[at].orderly {
                last = group;
            }
        }
    }
    let kept = store.read_back(&topic, &payloads, &mut sent)?;
    let found = committed(&topic.moved_to(store.address()), &last)?;
    let forgotten = found.iter().zip(&ends).filter(|(found, end)| **found != Some(**end)).count() as u64;
    store.finish()?;
    let refusals = broker_rows::refusals(&sent);
    let row = |sum: Sum| {
        let Sum { orderly, seconds, messages, passes, latencies, cpu_s, device, engine, verified } = sum;
        let mut notes = vec![format!("{passes} passes over {} messages", messages / passes.max(1) as u64)];
        notes.extend(refusals.iter().cloned());
        let mut verified = with_faults(kept, verified);
        let (name, durability) = if orderly {
            if forgotten > 0 {
                notes.push(format!("{forgotten} offsets whose commit was answered are not there after the kill"));
            }
            verified.lost += forgotten;
            (
                "broker/orderly",
                "locked queues; a message is counted when the commit that covers it was answered as durable",
            )
        } else {
            ("broker/consume", "oneway commits, which nobody waits for")
        };
        let window = Window { seconds, acks: messages, series: Vec::new(), device: Some(device), cpu_s: Some(cpu_s) };
        let chain = ChainUse { counts: Kind::Backlog.counts(), engine, ..ChainUse::default() };
        let found = Found { window, latencies, verified, notes, chain };
        bench.row(name, backend.clone(), durability.to_owned(), found)
    };
    Ok(sums.into_iter().map(row).collect())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a row is neither long nor negative")]
fn fill(bench: &Bench<'_>, topic: &Topic, payloads: &Payloads) -> Result<Sent, PerfError> {
    let by_time = (bench.spec.seconds * PER_SECOND) as usize;
    let count = (BACKLOG_BYTES / bench.spec.size).min(BACKLOG_MESSAGES).min(by_time) as u64;
    let meter = Meter::new(2);
    let producing = Producing { most: Some(count), ..bench.producing(topic, payloads)? };
    let mut drive = Drive::connect(Some(&producing), None, &meter)?;
    drive.until(true, |drive| drive.producer.as_ref().is_none_or(|producer| producer.is_done()))?;
    Ok(drive.finish()?.sent)
}

impl Sum {
    fn new(orderly: bool) -> Sum {
        Sum {
            orderly,
            seconds: 0.0,
            messages: 0,
            passes: 0,
            latencies: meter::latencies(),
            cpu_s: 0.0,
            device: DeviceUse::default(),
            engine: Counts::default(),
            verified: Verified::default(),
        }
    }

    /// One group more takes everything.
    fn pass(
        &mut self,
        bench: &Bench<'_>,
        store: &mut OnStore<'_>,
        (topic, payloads): (&Topic, &Payloads),
        (group, ends): (&str, &[u64]),
        sent: &Sent,
    ) -> Result<(), PerfError> {
        let streams = sent.ledgers.len();
        let (orderly, encoding) = (self.orderly, bench.encoding);
        let consuming = Consuming {
            topic,
            group,
            members: MEMBERS,
            orderly,
            pull_messages: PULL_MESSAGES,
            ends: Some(ends),
            streams,
            encoding,
            payloads,
        };
        let meter = Meter::new(2);
        meter.open();
        let stats = |store: &OnStore<'_>| store.device.as_ref().and_then(anchorlog_engine::io::sys::BlockDevice::stats);
        let (counts, device, cpu) = (store.counts()?, stats(store), meter::cpu_time(store.pid()));
        let begun = clock::now_ns();
        let mut drive = Drive::connect(None, Some(&consuming), &meter)?;
        drive.until(false, |drive| drive.consumer.as_ref().is_none_or(|consumer| consumer.is_done()))?;
        self.seconds += (clock::now_ns() - begun) as f64 / SECOND_NS as f64;
        self.passes += 1;
        let both = cpu.zip(meter::cpu_time(store.pid()));
        self.cpu_s += both.map_or(0.0, |(before, after)| (after - before).max(0.0));
        if let Some((before, after)) = device.zip(stats(store)) {
            self.device = self.device.plus(DeviceUse::between(before, after));
        }
        self.engine = self.engine.plus(store.counts()?.since(counts));
        let Some(consumer) = drive.consumer else { return Ok(()) };
        let (verifier, recorder) = consumer.into_parts();
        self.messages += verifier.read();
        self.verified = self.verified.plus(verifier.finish(&sent.ledgers));
        self.latencies.add(recorder.into_latencies()).map_err(|error| PerfError::Report(error.to_string()))
    }
}
