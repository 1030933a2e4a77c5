//! The broker's rows, over TCP.
//!
//! Our own broker runs as a child process of this program, so client and broker share nothing but the machine; each row has a
//! broker and a store of its own. Before reading back, the broker of a sync row is **killed** (`SIGKILL`) and that of an async row
//! is stopped, and another one is started on the same store: what was acknowledged must be there. Any other broker is measured as
//! it stands.

use std::path::Path;

use anchorlog::wire::Encoding;
use anchorlog_engine::io::sys::BlockDevice;

use crate::clock;
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::{Meter, Window};
use crate::payload::Payloads;
use crate::row::{RowResult, RowSpec};
use crate::sender::{Sender, Sent};
use crate::served::{Order, Served};
use crate::topic::Topic;
use crate::verify::{Verified, Verifier};

/// What a message takes in the log besides its body: frame, record, topic, key and properties. For the limit only.
pub(crate) const OVERHEAD_BYTES: u32 = 280;
/// Times that everything is read, if it is recycled meanwhile.
const READ_ROUNDS: u32 = 5;
pub(crate) const TOPIC: &str = "PerfTest";

/// Measures our own broker in a store below `dir`.
///
/// # Errors
/// When the broker fails; broken promises are not an error but a verdict.
pub(crate) fn measure(spec: &RowSpec, dir: &Path, seed: u64, encoding: Encoding) -> Result<RowResult, PerfError> {
    let store = dir.join("store");
    engine_rows::remove_store(&store)?;
    std::fs::create_dir_all(&store).map_err(|source| PerfError::Io { what: "making", path: store.clone(), source })?;
    let result = measure_own(spec, &store, seed, encoding);
    engine_rows::remove_store(&store)?;
    result
}

fn measure_own(spec: &RowSpec, store: &Path, seed: u64, encoding: Encoding) -> Result<RowResult, PerfError> {
    let payloads = Payloads::new(spec.size, seed);
    let mut broker = Served::start(&Order::of(spec, store, Some(spec.scale.broker_retain_bytes)))?;
    let device = BlockDevice::below(store);
    engine_rows::wait_until_quiet(store);
    let topic = Topic::find_or_make(&broker.address, TOPIC)?;
    let subject = Subject { device: device.as_ref(), broker: Some(broker.pid()) };
    let (window, mut sent) = send(spec, &topic, &payloads, encoding, subject, || Ok(()))?;
    let backend = broker.backend.clone();
    let ending = if spec.durable {
        broker.kill()?;
        "the broker was killed, then started again, before reading back"
    } else {
        broker.stop()?;
        "the broker was stopped and started again before reading back"
    };
    // Without retention, which would go on recycling what is being read.
    let broker = Served::start(&Order::of(spec, store, None))?;
    let verified = read_back(&topic.moved_to(&broker.address), &payloads, &mut sent)?;
    broker.stop()?;
    let mut notes = vec![ending.to_owned()];
    notes.extend(refusals(&sent));
    Ok(result(spec, backend, engine_rows::durability(spec.durable), window, sent, verified, notes))
}

/// Measures any broker that speaks the protocol.
///
/// # Errors
/// When it does not answer.
pub(crate) fn measure_foreign(
    spec: &RowSpec,
    namesrv: &str,
    topic: &str,
    seed: u64,
    encoding: Encoding,
    device: Option<&BlockDevice>,
) -> Result<RowResult, PerfError> {
    let payloads = Payloads::new(spec.size, seed);
    let topic = Topic::find_or_make(namesrv, topic)?;
    let subject = Subject { device, broker: None };
    let (window, mut sent) = send(spec, &topic, &payloads, encoding, subject, || Ok(()))?;
    let verified = read_back(&topic, &payloads, &mut sent)?;
    let notes = refusals(&sent);
    let durability = "as the broker is configured; an ack is its answer 0".to_owned();
    Ok(result(spec, "the broker's".to_owned(), durability, window, sent, verified, notes))
}

/// Whose work is counted while a row runs, where it can be.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The disk below it.
    pub(crate) device: Option<&'a BlockDevice>,
    /// Its process.
    pub(crate) broker: Option<u32>,
}

/// Sends for the length of the row; `look` is called when the window opens, and again when it closes.
///
/// # Errors
/// When the broker goes away, or `look` fails.
pub(crate) fn send(
    spec: &RowSpec,
    topic: &Topic,
    payloads: &Payloads,
    encoding: Encoding,
    subject: Subject<'_>,
    mut look: impl FnMut() -> Result<(), PerfError>,
) -> Result<(Window, Sent), PerfError> {
    let (count, each) = spec.connections()?;
    let meter = Meter::new(1);
    std::thread::scope(|scope| {
        let handle = scope.spawn(|| {
            let sent = Sender::connect(topic, (count, each), encoding, payloads, &meter)
                .and_then(|sender| sender.run(spec.load));
            meter.stop();
            sent
        });
        clock::sleep(spec.scale.warm_up);
        let opened = look();
        let window = meter.watch(spec.seconds, subject.device, subject.broker);
        let closed = look();
        let sent = engine_rows::join(handle)?;
        opened.and(closed).map(|()| (window, sent))
    })
}

/// Reads what a topic retains and holds it against what was sent.
///
/// # Errors
/// When the broker does not answer.
pub(crate) fn read_back(topic: &Topic, payloads: &Payloads, sent: &mut Sent) -> Result<Verified, PerfError> {
    let acked = sent.ledgers.iter().map(|ledger| ledger.sent - ledger.unacked.len() as u64).sum();
    let mut rounds = 0;
    let (verifier, recycled) = loop {
        let mut verifier = Verifier::new(sent.ledgers.len());
        if let Some(recycled) = topic.read_back(payloads, acked, &mut verifier)? {
            break (verifier, recycled);
        }
        rounds += 1;
        if rounds == READ_ROUNDS {
            return Err(PerfError::Broker("its log goes on being recycled while it is read back".to_owned()));
        }
    };
    for (stream, ledger) in sent.ledgers.iter_mut().enumerate() {
        // Where retention took the queue's beginning, each of its streams goes on where the first message was found.
        let first = recycled[sent.queues[stream]].then(|| verifier.first_found(stream).unwrap_or(ledger.sent));
        ledger.recycled = first.unwrap_or(0);
    }
    Ok(verifier.finish(&sent.ledgers))
}

/// What was not acknowledged, in words.
pub(crate) fn refusals(sent: &Sent) -> Vec<String> {
    sent.refused
        .iter()
        .map(|(code, count)| format!("{count} sends were answered with code {code}, not counted as acks"))
        .collect()
}

fn result(
    spec: &RowSpec,
    backend: String,
    durability: String,
    window: Window,
    sent: Sent,
    verified: Verified,
    notes: Vec<String>,
) -> RowResult {
    let Window { seconds, acks, series, device, cpu_s } = window;
    RowResult {
        spec: spec.clone(),
        backend,
        durability,
        seconds,
        acks,
        latencies: sent.latencies,
        series,
        device,
        cpu_s,
        frame_bytes: spec.size as f64 + f64::from(OVERHEAD_BYTES),
        verified,
        notes,
        pair: None,
        chain: None,
    }
}
