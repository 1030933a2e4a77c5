//! Sends and ordered consumption at once, by many queues and by one: what global order costs.
//!
//! As many messages as the row says are on their way from the send to the consumer, which takes everything in order as it comes. What is
//! counted is what was processed. Senders that did not wait for that would only show how a backlog grows.
//!
//! A queue has one pull on its way. Who wants one queue to be as fast as many lets its consumers ask for as many messages at once as they
//! can (`pullBatchSize`), so these do, by one queue and by many: with the 32 of the default, one queue's rate is 32 for each round trip.

use super::bench::{Bench, Found, between, with_faults};
use super::consumer::{Consuming, PULL_MESSAGES_MOST};
use super::drive::Drive;
use super::producer::{Followed, Producing};
use super::rows::Kind;
use crate::broker_rows::{self, Subject, TOPIC};
use crate::error::PerfError;
use crate::meter::{self, Meter};
use crate::row::{ChainUse, RowResult};
use crate::topic::Topic;

/// Members of the group, where there are queues for all of them.
const MEMBERS: u32 = 8;

/// Measures one row.
///
/// # Errors
/// When the broker fails; broken promises are not an error but a verdict.
pub(super) fn measure(queues: u32, bench: &Bench<'_>) -> Result<RowResult, PerfError> {
    let payloads = bench.payloads();
    let mut store = bench.broker()?;
    let backend = store.served().backend.clone();
    let topic = Topic::create(store.address(), TOPIC, queues)?;
    let producing = Producing { followed: Followed::ByWhoCountsAndFrees, ..bench.producing(&topic, &payloads)? };
    let consuming = Consuming {
        topic: &topic,
        group: "perf-orderly",
        members: queues.min(MEMBERS) as usize,
        orderly: true,
        pull_messages: PULL_MESSAGES_MOST,
        ends: None,
        streams: bench.spec.producers.outstanding(),
        encoding: bench.encoding,
        payloads: &payloads,
    };
    let meter = Meter::new(2);
    let drive = Drive::connect(Some(&producing), Some(&consuming), &meter)?;
    let (device, pid) = (store.device.clone(), store.pid());
    let mut looks = Vec::new();
    let (window, mut left) =
        bench.watch(&meter, drive, Subject { device: device.as_ref(), broker: Some(pid) }, || {
            looks.push(store.counts()?);
            Ok(())
        })?;
    let live = left.verified().unwrap_or_default();
    let kept = store.read_back(&topic, &payloads, &mut left.sent)?;
    store.finish()?;
    let chain = ChainUse {
        counts: Kind::Queues { count: queues }.counts(),
        engine: between(&looks),
        sends: Some(left.sent.latencies.clone()),
        ..ChainUse::default()
    };
    let found = Found {
        window,
        latencies: left.processed.unwrap_or_else(meter::latencies),
        verified: with_faults(kept, live),
        notes: broker_rows::refusals(&left.sent),
        chain,
    };
    let durability = "sync: durable, and processed in the order of its queue; commits are answered, one after the other for each queue";
    Ok(bench.row(&bench.spec.name, backend, durability.to_owned(), found))
}
