//! Messages that a consumer sends back and gets again: how many bytes of the log that takes, and how long.
//!
//! The log is looked at when all messages are in it, and again when all have come back: what grew meanwhile are the round trips, with all
//! that the broker writes of its own accord in that time. The message itself is stored once.

use std::collections::BTreeMap;
use std::time::Duration;

use anchorlog::wire::codes::request;
use anchorlog::wire::message::property;

use super::bench::{Bench, Found};
use super::consumer::heartbeat;
use super::drive::Drive;
use super::producer::Producing;
use super::rows::Kind;
use super::sending::{acked, wait_for};
use crate::broker_rows::{self, TOPIC};
use crate::clock::{self, SECOND_NS};
use crate::error::PerfError;
use crate::meter::{self, DeviceUse, Meter, Window};
use crate::payload::Payloads;
use crate::remoting::Caller;
use crate::row::{ChainUse, RowResult};
use crate::topic::Topic;
use crate::verify::{Verified, Verifier};

/// Messages that are sent back, for each second of a row.
const PER_SECOND: f64 = 8_000.0;
/// Messages on their way while they are sent.
const FILLING: (usize, usize) = (8, 64);
const GROUP: &str = "perf-retry";
/// One second, as a level.
const LEVEL: &str = "1";
const LEVEL_MS: u64 = 1000;
/// How late the last one may be until it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message that is to be sent back.
struct Back {
    stream: u32,
    sequence: u64,
    offset: String,
    id: String,
}

/// Measures the row.
///
/// # Errors
/// When the broker fails or refuses; broken promises are not an error but a verdict.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a row is neither long nor negative")]
pub(super) fn measure(bench: &Bench<'_>) -> Result<RowResult, PerfError> {
    let count = (bench.spec.seconds * PER_SECOND) as u64;
    let payloads = bench.payloads();
    let mut store = bench.broker()?;
    let backend = store.served().backend.clone();
    let topic = Topic::find_or_make(store.address(), TOPIC)?;
    let meter = Meter::new(2);
    let producing = Producing { connections: FILLING, most: Some(count), ..bench.producing(&topic, &payloads)? };
    let mut drive = Drive::connect(Some(&producing), None, &meter)?;
    drive.until(true, |drive| drive.producer.as_ref().is_none_or(|producer| producer.is_done()))?;
    let sent = drive.finish()?.sent;
    let backs = found(&topic, &payloads, acked(&sent))?;

    let mut caller = Caller::connect(store.address())?;
    caller.call(request::HEART_BEAT, &[], &heartbeat("c@perf", GROUP, TOPIC))?.ok("a heartbeat")?;
    let retries = Topic::of_one_queue(store.address(), &format!("%RETRY%{GROUP}"));
    let (before, device) = (store.counts()?, store.device.clone());
    let stats = |device: &Option<_>| device.as_ref().and_then(anchorlog_engine::io::sys::BlockDevice::stats);
    let (device_before, cpu_before) = (stats(&device), meter::cpu_time(store.pid()));
    let begun = clock::now_ns();
    let outstanding = bench.spec.producers.outstanding();
    let (latencies, asked_ms) = send_back(&mut caller, &backs, outstanding)?;
    let seconds = (clock::now_ns() - begun) as f64 / SECOND_NS as f64;
    let cpu_s = cpu_before.zip(meter::cpu_time(store.pid())).map(|(before, after)| (after - before).max(0.0));
    let device_use = device_before.zip(stats(&device)).map(|(before, after)| DeviceUse::between(before, after));
    let answered = store.counts()?.since(before);
    wait_for(&retries, backs.len() as u64, PATIENCE)?;
    let grown = store.counts()?.since(before).log_bytes;

    store.again(true)?;
    let mut verifier = Verifier::new(sent.ledgers.len());
    let (mut lateness, mut wrong) = (meter::latencies(), 0);
    retries.moved_to(store.address()).visit(backs.len() as u64, |record| {
        verifier.take(&payloads, record.body);
        let asked = payloads.judge(record.body).ok().and_then(|message| asked_ms.get(&message));
        let stored = u64::try_from(record.head.store_timestamp).unwrap_or(0);
        match asked.and_then(|asked| stored.checked_sub(asked + LEVEL_MS)) {
            Some(late) => lateness.saturating_record(late * 1_000_000),
            None => wrong += 1,
        }
        let comes_from = property(&record.properties, "RETRY_TOPIC");
        wrong += u64::from(record.head.reconsume_times != 1 || comes_from != Some(TOPIC));
    })?;
    store.finish()?;
    let again = verifier.finish(&sent.ledgers);
    let verified = Verified { unexpected: again.unexpected + wrong, out_of_order: 0, ..again };
    let each = grown as f64 / (backs.len().max(1)) as f64;
    let mut notes = broker_rows::refusals(&sent);
    notes.push(format!(
        "{} messages came back, each once and after its time; the log grew by {each:.0} bytes for each",
        again.read
    ));
    let window = Window { seconds, acks: backs.len() as u64, series: Vec::new(), device: device_use, cpu_s };
    let chain = ChainUse {
        counts: Kind::Retry.counts(),
        engine: answered,
        lateness: Some(lateness),
        log_bytes_each: Some(each),
        ..ChainUse::default()
    };
    let durability = "sync: that it comes again is durable; the message itself is stored once".to_owned();
    let found = Found { window, latencies, verified, notes, chain };
    Ok(bench.row(&bench.spec.name, backend, durability, found))
}

/// Everything in a topic, as a consumer knows it.
fn found(topic: &Topic, payloads: &Payloads, count: u64) -> Result<Vec<Back>, PerfError> {
    let mut backs = Vec::new();
    topic.visit(count, |record| {
        if let Ok((stream, sequence)) = payloads.judge(record.body) {
            let id = property(&record.properties, "UNIQ_KEY").unwrap_or_default().to_owned();
            backs.push(Back { stream, sequence, offset: record.head.physical_offset.to_string(), id });
        }
    })?;
    Ok(backs)
}

type Asked = BTreeMap<(u32, u64), u64>;

/// Sends all of them back, so many at a time; how long each took, and when it was asked for.
fn send_back(
    caller: &mut Caller,
    backs: &[Back],
    outstanding: usize,
) -> Result<(hdrhistogram::Histogram<u64>, Asked), PerfError> {
    let mut latencies = meter::latencies();
    let (mut asked_ms, mut on_the_way) = (Asked::new(), BTreeMap::new());
    let mut left = backs.iter();
    loop {
        while on_the_way.len() < outstanding {
            let Some(back) = left.next() else { break };
            let fields = [
                ("offset", back.offset.as_str()),
                ("group", GROUP),
                ("delayLevel", LEVEL),
                ("originMsgId", &back.id),
                ("originTopic", TOPIC),
                ("unitMode", "false"),
                ("maxReconsumeTimes", "16"),
            ];
            asked_ms.insert((back.stream, back.sequence), clock::wall_ms());
            let opaque = caller.ask(request::CONSUMER_SEND_MSG_BACK, &fields, b"")?;
            on_the_way.insert(opaque, clock::now_ns());
        }
        if on_the_way.is_empty() {
            return Ok((latencies, asked_ms));
        }
        for (opaque, answer) in caller.answers()? {
            if let Some(from_ns) = on_the_way.remove(&opaque) {
                answer.ok("sending a message back")?;
                latencies.saturating_record((clock::now_ns() - from_ns).max(1));
            }
        }
    }
}
