//! The broker's rows, over TCP.
//!
//! Our own broker runs as a child process of this program, so client and broker share nothing but the machine; each row has a
//! broker and a store of its own. Before reading back, the broker of a sync row is **killed** (`SIGKILL`) and that of an async row
//! is stopped, and another one is started on the same store: what was acknowledged must be there. Any other broker is measured as
//! it stands.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anchorlog::wire::Encoding;
use anchorlog_engine::BackendChoice;
use anchorlog_engine::io::sys::BlockDevice;

use crate::clock;
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::{Meter, Window};
use crate::payload::Payloads;
use crate::row::{Producers, RowResult, RowSpec};
use crate::sender::{Sender, Sent};
use crate::topic::Topic;
use crate::verify::{Verified, Verifier};

/// What a message takes in the log besides its body: frame, record, topic, key and properties. For the limit only.
const OVERHEAD_BYTES: f64 = 280.0;
const TOPIC: &str = "PerfTest";

/// The hidden subcommand that serves.
pub(crate) const SERVE: &str = "serve";

/// Our own broker as a process.
struct Served {
    child: Child,
    address: String,
    backend: String,
}

impl Served {
    fn start(store: &Path, spec: &RowSpec, retain: Option<u64>) -> Result<Served, PerfError> {
        // A broker that is only read from needs no segments.
        let spare_count = retain.map_or(0, |_| engine_rows::spare_count(spec.producers.outstanding()));
        let program = std::env::current_exe().map_err(|source| PerfError::Io {
            what: "finding this program",
            path: "/proc/self/exe".into(),
            source,
        })?;
        let mut child = Command::new(&program)
            .arg(SERVE)
            .arg("--dir")
            .arg(store)
            .args(["--flush", if spec.durable { "sync" } else { "async" }, "--backend", backend_name(spec.backend)])
            .args(["--spare-count", &spare_count.to_string()])
            .args(["--segment-bytes", &spec.scale.segment_bytes.to_string()])
            .args(retain.map(|bytes| format!("--retain-bytes={bytes}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| PerfError::Io { what: "starting", path: program, source })?;
        let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let mut said = |what: &str| match lines.next() {
            Some(Ok(line)) if !line.is_empty() => Ok(line),
            _ => Err(PerfError::Broker(format!("it ended before it said its {what}"))),
        };
        let heard = said("address").and_then(|address| Ok((address, said("backend")?)));
        match heard {
            Ok((address, backend)) => Ok(Served { child, address, backend }),
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                Err(error)
            }
        }
    }

    /// Without a chance to write anything more.
    fn kill(mut self) -> Result<(), PerfError> {
        self.child.kill().and_then(|()| self.child.wait().map(drop)).map_err(ended)
    }

    /// It ends when nobody talks to it any more.
    fn stop(mut self) -> Result<(), PerfError> {
        drop(self.child.stdin.take());
        let status = self.child.wait().map_err(ended)?;
        if status.success() { Ok(()) } else { Err(PerfError::Broker(format!("it stopped with {status}"))) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn ended(source: std::io::Error) -> PerfError {
    PerfError::Io { what: "ending", path: "the broker".into(), source }
}

/// As the command line takes it.
pub(crate) fn backend_name(backend: BackendChoice) -> &'static str {
    match backend {
        BackendChoice::Auto => "auto",
        BackendChoice::Uring => "uring",
        BackendChoice::Threads => "threads",
    }
}

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
    let broker = Served::start(store, spec, Some(spec.scale.broker_retain_bytes))?;
    let device = BlockDevice::below(store);
    engine_rows::wait_until_quiet(store);
    let topic = Topic::find_or_make(&broker.address, TOPIC)?;
    let (window, mut sent) = send(spec, &topic, &payloads, encoding, device.as_ref(), Some(broker.child.id()))?;
    let backend = broker.backend.clone();
    let ending = if spec.durable {
        broker.kill()?;
        "the broker was killed, then started again, before reading back"
    } else {
        broker.stop()?;
        "the broker was stopped and started again before reading back"
    };
    // Without retention, which would go on recycling what is being read.
    let broker = Served::start(store, spec, None)?;
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
    let (window, mut sent) = send(spec, &topic, &payloads, encoding, device, None)?;
    let verified = read_back(&topic, &payloads, &mut sent)?;
    let notes = refusals(&sent);
    let durability = "as the broker is configured; an ack is its answer 0".to_owned();
    Ok(result(spec, "the broker's".to_owned(), durability, window, sent, verified, notes))
}

fn send(
    spec: &RowSpec,
    topic: &Topic,
    payloads: &Payloads,
    encoding: Encoding,
    device: Option<&BlockDevice>,
    broker: Option<u32>,
) -> Result<(Window, Sent), PerfError> {
    let Producers::Connections { count, each } = spec.producers else {
        return Err(PerfError::Usage(format!("row {} has no connections", spec.name)));
    };
    let meter = Meter::new(1);
    std::thread::scope(|scope| {
        let handle = scope.spawn(|| {
            let sent = Sender::connect(topic, (count, each), encoding, payloads, &meter)
                .and_then(|sender| sender.run(spec.load));
            meter.stop();
            sent
        });
        clock::sleep(spec.scale.warm_up);
        let window = meter.watch(spec.seconds, device, broker);
        Ok((window, engine_rows::join(handle)?))
    })
}

fn read_back(topic: &Topic, payloads: &Payloads, sent: &mut Sent) -> Result<Verified, PerfError> {
    let acked = sent.ledgers.iter().map(|ledger| ledger.sent - ledger.unacked.len() as u64).sum();
    let mut verifier = Verifier::new(sent.ledgers.len());
    let recycled = topic.read_back(payloads, acked, &mut verifier)?;
    for (stream, ledger) in sent.ledgers.iter_mut().enumerate() {
        if recycled[sent.queues[stream]] {
            // Retention took the queue's beginning; where each of its streams goes on is where the first message was found.
            ledger.recycled = verifier.first_found(stream).unwrap_or(ledger.sent);
        }
    }
    Ok(verifier.finish(&sent.ledgers))
}

fn refusals(sent: &Sent) -> Vec<String> {
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
        frame_bytes: spec.size as f64 + OVERHEAD_BYTES,
        verified,
        notes,
    }
}
