//! What it costs to find one message among very many by its key, as clients ask for it (request 12).
//!
//! 1. Messages come to the broker in batches, each with a key and a producer's id of its own; the broker is started anew, so that what
//!    is asked of the index is asked of its runs in the store.
//! 2. Keys are asked for one after the other, over one connection, in an order that has nothing to do with theirs. The first ones are not
//!    counted: from then on the broker's caches hold what they hold.
//! 3. Each answer must be that one message, byte for byte, with that key and that id; and none for a key that nobody sent.

use std::collections::BTreeSet;
use std::path::Path;

use anchorlog::wire::batch::BatchEntry;
use anchorlog::wire::codes::{request, response};
use anchorlog::wire::message;
use anchorlog_engine::BackendChoice;
use bytes::BytesMut;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::cli::{Mode, Opening};
use crate::clock;
use crate::error::PerfError;
use crate::long_log::seconds_since;
use crate::meter::{cpu_time, latencies};
use crate::out;
use crate::payload::Payloads;
use crate::remoting::{Answer, Caller};
use crate::row;
use crate::served::{Order, Served};
use crate::topic::{Send, Topic};

const TOPIC: &str = "keys";
const QUEUES: u32 = 8;
/// Messages of one batch.
const BATCH: u64 = 64;
/// Batches on their way.
const IN_FLIGHT: usize = 16;
/// Queries that are not counted, and those of each kind that are.
const WARM_UP: u64 = 5_000;
const QUERIES: u64 = 10_000;
/// The promise, in milliseconds.
const P99_MS: f64 = 5.0;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A key that one message has.
    Key,
    /// A producer's id.
    Unique,
    /// A key that no message has.
    Nobodys,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Key, Kind::Unique, Kind::Nobodys];

    fn describe(self) -> &'static str {
        match self {
            Kind::Key => "by key",
            Kind::Unique => "by producer's id",
            Kind::Nobodys => "by nobody's key",
        }
    }

    fn key(self, number: u64) -> String {
        match self {
            Kind::Key => key_of(number),
            Kind::Unique => id_of(number),
            Kind::Nobodys => format!("nobody-{number}"),
        }
    }
}

fn key_of(number: u64) -> String {
    format!("order-{number}")
}

/// As long as the ids that clients make.
fn id_of(number: u64) -> String {
    format!("7F0000012A9F{number:020X}")
}

/// Measures and prints.
///
/// # Errors
/// Whatever ends it early, an answer that is not the right one too.
pub(crate) fn measure(wished: &Opening, dir: &Path) -> Result<(), PerfError> {
    drop(std::fs::remove_dir_all(dir));
    std::fs::create_dir_all(dir).map_err(|source| PerfError::Io { what: "making", path: dir.to_owned(), source })?;
    let order = Order {
        store: dir,
        flush: Mode::Async,
        backend: BackendChoice::Auto,
        segment_bytes: row::FULL.segment_bytes,
        spare_count: 2,
        retain_bytes: None,
        ask_after_ms: None,
        part: None,
    };
    let payloads = Payloads::new(wished.size, 1);
    let messages = wished.messages.next_multiple_of(BATCH);
    let broker = Served::start(&order)?;
    let begun = clock::now_ns();
    write(&Topic::create(&broker.address, TOPIC, QUEUES)?, &payloads, messages)?;
    out::line(format_args!(
        "keys: {messages} messages of {} bytes with a key and a producer's id each, written in {:.1} s",
        wished.size,
        seconds_since(begun)
    ));
    broker.stop()?;
    let broker = Served::start(&order)?;
    let mut asker = Asker {
        caller: Caller::connect(&broker.address)?,
        payloads: &payloads,
        messages,
        random: SmallRng::seed_from_u64(7),
    };
    for number in 0..WARM_UP {
        asker.ask(Kind::ALL[usize::from(number % 2 == 1)])?;
    }
    for kind in Kind::ALL {
        let mut took = latencies();
        let (read_before, cpu_before) = (read_bytes(broker.pid()), cpu_time(broker.pid()));
        for _ in 0..QUERIES {
            took.saturating_record(asker.ask(kind)?);
        }
        let per_query = |before: Option<f64>, after: Option<f64>| {
            before.zip(after).map_or(f64::NAN, |(before, after)| (after - before) / QUERIES as f64)
        };
        let read = per_query(read_before, read_bytes(broker.pid()));
        let cpu_s = per_query(cpu_before, cpu_time(broker.pid()));
        let ms = |quantile| took.value_at_quantile(quantile) as f64 / 1e6;
        let kept = if ms(0.99) <= P99_MS { "kept" } else { "NOT KEPT" };
        out::line(format_args!(
            "find {:<17} p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms ({P99_MS} ms {kept}); {:.1} KiB read and {:.0} us of CPU time a query; \
             {QUERIES} of {QUERIES} answers are right, byte for byte",
            kind.describe(),
            ms(0.5),
            ms(0.99),
            took.max() as f64 / 1e6,
            read / 1024.0,
            cpu_s * 1e6,
        ));
    }
    broker.stop()
}

/// Sends all messages, many batches at once, queue by queue in turn.
fn write(topic: &Topic, payloads: &Payloads, messages: u64) -> Result<(), PerfError> {
    let broker = topic.queues.first().map(|queue| queue.broker.clone()).unwrap_or_default();
    let mut caller = Caller::connect(&broker)?;
    let (mut next, mut asked, mut body) = (0, BTreeSet::new(), BytesMut::new());
    while next < messages || !asked.is_empty() {
        while next < messages && asked.len() < IN_FLIGHT {
            body.clear();
            (next..next + BATCH).try_for_each(|number| put(&mut body, payloads, number))?;
            let (queue, born) = ((next / BATCH % u64::from(QUEUES)).to_string(), clock::wall_ms().to_string());
            let send = Send { topic: TOPIC, queue: &queue, sys_flag: "0", born: &born, properties: "" };
            asked.insert(caller.ask(request::SEND_BATCH_MESSAGE, &send.fields(), &body)?);
            next += BATCH;
        }
        for (opaque, answer) in caller.answers()? {
            asked.remove(&opaque);
            answer.ok("a batch")?;
        }
    }
    Ok(())
}

/// Adds a message to a batch.
fn put(batch: &mut BytesMut, payloads: &Payloads, number: u64) -> Result<(), PerfError> {
    let mut properties = String::new();
    message::append_property(&mut properties, "KEYS", &key_of(number));
    message::append_property(&mut properties, "UNIQ_KEY", &id_of(number));
    let body = [&payloads.head(0, number)[..], payloads.body(0, number)].concat();
    let entry = BatchEntry { flag: 0, body: &body, properties: properties.into() };
    entry.encode(batch).map_err(|error| PerfError::Report(error.to_string()))
}

/// Bytes that a process read from its disk (proc_pid_io(5)).
fn read_bytes(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.trim().parse().ok()
}

/// Whoever looks for messages.
struct Asker<'a> {
    caller: Caller,
    payloads: &'a Payloads,
    messages: u64,
    random: SmallRng,
}

impl Asker<'_> {
    /// Asks for any; nanoseconds until the answer was there.
    fn ask(&mut self, kind: Kind) -> Result<u64, PerfError> {
        let number = self.random.random_range(0..self.messages);
        let (key, end) = (kind.key(number), i64::MAX.to_string());
        let fields = [
            ("topic", TOPIC),
            ("key", &key),
            ("maxNum", "32"),
            ("beginTimestamp", "0"),
            ("endTimestamp", &end),
            ("_UNIQUE_KEY_QUERY", if kind == Kind::Unique { "true" } else { "false" }),
        ];
        let begun = clock::now_ns();
        let answer = self.caller.call(request::QUERY_MESSAGE, &fields, b"")?;
        let took = clock::now_ns() - begun;
        self.judge(kind, number, answer)?;
        Ok(took)
    }

    fn judge(&self, kind: Kind, number: u64, answer: Answer) -> Result<(), PerfError> {
        let wrong = |what: &str| PerfError::Broker(format!("asked for {}, it answered {what}", kind.key(number)));
        if kind == Kind::Nobodys {
            let is_none = answer.code == response::QUERY_NOT_FOUND && answer.body.is_empty();
            return if is_none { Ok(()) } else { Err(wrong("with something")) };
        }
        let answer = answer.ok("a query")?;
        let mut records = message::records(&answer.body);
        let Some(Ok(record)) = records.next() else { return Err(wrong("with nothing that can be read")) };
        let has = |name, value: &str| message::property(&record.properties, name) == Some(value);
        if !has("KEYS", &key_of(number)) || !has("UNIQ_KEY", &id_of(number)) {
            return Err(wrong("with a message that has not these keys"));
        }
        if self.payloads.judge(record.body) != Ok((0, number)) {
            return Err(wrong("with other bytes than were sent"));
        }
        if records.next().is_some() { Err(wrong("with more than that one")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use anchorlog::wire::batch;

    use super::*;

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        let (payloads, mut bytes) = (Payloads::new(100, 3), BytesMut::new());
        (5..9).try_for_each(|number| put(&mut bytes, &payloads, number)).expect("it fits");
        let entries: Vec<_> = batch::entries(&bytes).collect::<Result<_, _>>().expect("it can be read");
        assert_eq!(entries.len(), 4);
        for (number, entry) in (5..).zip(&entries) {
            assert_eq!(payloads.judge(entry.body), Ok((0, number)));
            assert_eq!(message::property(&entry.properties, "KEYS"), Some(&*key_of(number)));
            assert_eq!(message::property(&entry.properties, "UNIQ_KEY").map(str::len), Some(32));
        }
    }
}
