//! Plain sends, transactions, and sends that are delivered later: one load, in three manners.
//!
//! A delayed message of these rows falls due when its row is over: what its delivery costs beside live sends is `pending.rs`'s question.
//! Before its row is read back everything has been delivered, and nothing before its time.

use std::time::Duration;

use anchorlog::wire::message::{Record, property};
use hdrhistogram::Histogram;

use super::bench::{Bench, Found, between};
use super::drive::Drive;
use super::producer::{Producing, Times};
use super::rows::Kind;
use crate::broker_rows::{self, Subject, TOPIC};
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::{self, Meter};
use crate::payload::Payloads;
use crate::prepared::Manner;
use crate::row::{ChainUse, RowResult};
use crate::sender::Sent;
use crate::topic::{Topic, in_time};
use crate::verify::{Verified, Verifier};

/// From the end of a window to the first delivery.
const AFTER: Duration = Duration::from_millis(1000);
/// How late the last delivery may be until it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures one row.
///
/// # Errors
/// When the broker fails; broken promises are not an error but a verdict.
pub(super) fn measure(kind: Kind, bench: &Bench<'_>) -> Result<RowResult, PerfError> {
    let payloads = bench.payloads();
    let mut store = bench.broker()?;
    let topic = Topic::find_or_make(store.address(), TOPIC)?;
    let ahead = bench.spec.scale.warm_up + Duration::from_secs_f64(bench.spec.seconds) + AFTER;
    let ahead_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
    let (manner, times) = match kind {
        Kind::Transaction => (Manner::Half, None),
        Kind::Delay => (Manner::Timed, Some(Times::Ahead { ms: ahead_ms })),
        _ => (Manner::Plain, None),
    };
    let meter = Meter::new(2);
    let producing = Producing { manner, times, ..bench.producing(&topic, &payloads)? };
    let drive = Drive::connect(Some(&producing), None, &meter)?;
    let (device, pid) = (store.device.clone(), store.pid());
    let mut looks = Vec::new();
    let (window, left) = bench.watch(&meter, drive, Subject { device: device.as_ref(), broker: Some(pid) }, || {
        looks.push(store.counts()?);
        Ok(())
    })?;
    let mut sent = left.sent;
    let mut notes = broker_rows::refusals(&sent);
    let backend = store.served().backend.clone();
    let (verified, lateness) = if kind == Kind::Delay {
        wait_for(&topic, acked(&sent), ahead + PATIENCE)?;
        store.again(true)?;
        let found = delivered(&topic.moved_to(store.address()), &payloads, &mut sent)?;
        notes.extend(found.note());
        (found.verified, Some(found.lateness))
    } else {
        (store.read_back(&topic, &payloads, &mut sent)?, None)
    };
    store.finish()?;
    let chain = ChainUse {
        counts: kind.counts(),
        is_bounded: kind.is_bounded(),
        engine: between(&looks),
        lateness,
        ..ChainUse::default()
    };
    let durability = match kind {
        Kind::Transaction => "sync: half message and verdict are durable, and the message can be read".to_owned(),
        Kind::Delay => "sync: the message is durable, with the entry that delivers it".to_owned(),
        _ => engine_rows::durability(true),
    };
    let found = Found { window, latencies: sent.latencies, verified, notes, chain };
    Ok(bench.row(&bench.spec.name, backend, durability, found))
}

/// Messages that were acknowledged.
pub(super) fn acked(sent: &Sent) -> u64 {
    sent.ledgers.iter().map(|ledger| ledger.sent - ledger.unacked.len() as u64).sum()
}

/// Waits until so many messages can be read, if it comes to that: what is missing is found out later.
pub(super) fn wait_for(topic: &Topic, count: u64, patience: Duration) -> Result<(), PerfError> {
    let from: u64 = topic.queues.iter().map(|queue| queue.from).sum();
    let missing = |shown| PerfError::Broker(format!("{shown} of {count} messages can be read"));
    let waited = in_time(patience, || {
        let shown = topic.ends()?.iter().sum::<u64>() - from;
        if shown >= count { Ok(()) } else { Err(missing(shown)) }
    });
    match waited {
        // How many are missing says the verdict.
        Err(PerfError::Broker(_)) => topic.ends().map(drop),
        other => other,
    }
}

/// What was delivered.
pub(super) struct Delivered {
    /// The accounts. Deliveries have no order among one another but that of their times.
    pub(super) verified: Verified,
    /// How late they were, by the broker's word.
    pub(super) lateness: Histogram<u64>,
    /// Deliveries before their time.
    pub(super) early: u64,
}

impl Delivered {
    /// What is to be said of it.
    pub(super) fn note(&self) -> Option<String> {
        (self.early > 0).then(|| format!("{} messages were delivered before their time", self.early))
    }
}

/// Reads back what was delivered.
pub(super) fn delivered(topic: &Topic, payloads: &Payloads, sent: &mut Sent) -> Result<Delivered, PerfError> {
    let (mut lateness, mut early) = (meter::latencies(), 0);
    let mut verifier = Verifier::new(sent.ledgers.len());
    let whole = topic.visit(acked(sent), |record| {
        verifier.take(payloads, record.body);
        match late_ms(record) {
            Some(late) => lateness.saturating_record(late * 1_000_000),
            None => early += 1,
        }
    })?;
    if whole.is_none_or(|recycled| recycled.contains(&true)) {
        return Err(PerfError::Broker("its log was recycled while it was read back".to_owned()));
    }
    let verified = verifier.finish(&sent.ledgers);
    let verified = Verified { unexpected: verified.unexpected + early, out_of_order: 0, ..verified };
    Ok(Delivered { verified, lateness, early })
}

/// How long after its time a message was delivered, in milliseconds; none when it was not due yet, or had no time.
fn late_ms(record: &Record<'_>) -> Option<u64> {
    let due: i64 = property(&record.properties, "TIMER_OUT_MS")?.parse().ok()?;
    u64::try_from(record.head.store_timestamp - due).ok()
}
