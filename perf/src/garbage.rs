//! What strangers cost those who work: a broker's sends with and without a thousand connections that send garbage, half a frame, or
//! nothing.
//!
//! ```text
//!   turn:  the row alone ── the same row beside the strangers          three turns of each kind, the median of their ratios counts
//! ```
//! Strangers are driven by one thread of this program, at a stated pace: each comes again one second after it was turned away. Every
//! message of every turn is read back.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde::Serialize;

use crate::broker_rows::{self, Subject};
use crate::cli::{Garbage, Mode, Stranger};
use crate::clock::{self, SECOND_NS};
use crate::engine_rows;
use crate::error::PerfError;
use crate::out;
use crate::payload::Payloads;
use crate::row::{self, Producers, RowSpec};
use crate::served::{Order, Served};
use crate::topic::Topic;
use crate::verify::Verified;

/// Turns of each kind.
const ROUNDS: usize = 3;
/// The share of its rate that a row must keep.
pub(crate) const SHARE: f64 = 0.9;
/// How often strangers are looked at.
const STEP: Duration = Duration::from_millis(5);
/// From being turned away to coming again, and from one byte of a dripping frame to the next.
const PACE_NS: u64 = SECOND_NS;
/// Files that a run needs besides the strangers' connections.
const FILES: u64 = 256;

/// What became of one kind.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// What the strangers did.
    kind: &'static str,
    connections: usize,
    /// Acks a second of each turn, alone and beside them.
    alone: Vec<f64>,
    beside: Vec<f64>,
    /// The median of the turns' ratios.
    ratio: f64,
    /// 99th percentiles of the last turn, in microseconds.
    p99_alone_us: f64,
    p99_beside_us: f64,
    /// How often strangers connected, and were turned away.
    connected: u64,
    turned_away: u64,
}

/// Measures and prints; whether all promises about messages were kept.
///
/// # Errors
/// Whatever ends it early.
pub(crate) fn measure(wished: &Garbage, dir: &std::path::Path) -> Result<bool, PerfError> {
    let (count, seconds, scale) = if wished.smoke {
        (wished.connections.min(60), 0.2, &row::SMOKE)
    } else {
        (wished.connections, wished.seconds, &row::FULL)
    };
    raise_file_limit(count)?;
    let spec = RowSpec {
        name: "garbage".to_owned(),
        durable: wished.flush == Mode::Sync,
        producers: Producers::Connections { count: 8, each: 8 },
        backend: wished.backend.into(),
        seconds,
        size: wished.size,
        load: crate::open_loop::Load::Closed,
        follow: false,
        scale,
    };
    let store = dir.join("store");
    engine_rows::remove_store(&store)?;
    std::fs::create_dir_all(&store).map_err(|source| PerfError::Io { what: "making", path: store.clone(), source })?;
    let outcome = measure_on(&spec, &store, wished, count);
    engine_rows::remove_store(&store)?;
    let (outcomes, verified) = outcome?;
    for outcome in &outcomes {
        let kept = match outcome.ratio >= SHARE {
            _ if wished.smoke => "means nothing in a smoke run",
            true => "kept",
            false => "NOT KEPT",
        };
        let (alone, beside) = (median(outcome.alone.clone()), median(outcome.beside.clone()));
        out::line(format_args!(
            "{:<8} {} connections: {alone:.0}/s alone (p99 {:.0} us), {beside:.0}/s beside them (p99 {:.0} us): {:.3} of it, {SHARE} {kept}; \
             they connected {} times and were turned away {} times",
            outcome.kind,
            outcome.connections,
            outcome.p99_alone_us,
            outcome.p99_beside_us,
            outcome.ratio,
            outcome.connected,
            outcome.turned_away,
        ));
    }
    out::line(format_args!("{} messages acknowledged, {} read back", verified.acked, verified.read));
    if !verified.is_clean() {
        out::complain(format_args!("promises were broken: {verified:?}"));
    }
    if let Some(path) = &wished.json {
        let text = serde_json::to_string_pretty(&outcomes).map_err(|error| PerfError::Report(error.to_string()))?;
        out::save(path, &text).map_err(|source| PerfError::Io { what: "writing", path: path.clone(), source })?;
    }
    Ok(verified.is_clean())
}

fn measure_on(
    spec: &RowSpec,
    store: &std::path::Path,
    wished: &Garbage,
    count: usize,
) -> Result<(Vec<Outcome>, Verified), PerfError> {
    let broker = Served::start(&Order::of(spec, store, Some(spec.scale.broker_retain_bytes)))?;
    let (mut outcomes, mut verified) = (Vec::new(), Verified::default());
    let mut seed = clock::wall_ms();
    for kind in &wished.kinds {
        let mut outcome = Outcome {
            kind: kind.name(),
            connections: count,
            alone: Vec::new(),
            beside: Vec::new(),
            ratio: 0.0,
            p99_alone_us: 0.0,
            p99_beside_us: 0.0,
            connected: 0,
            turned_away: 0,
        };
        let rounds = if wished.smoke { 1 } else { ROUNDS };
        for _ in 0..rounds {
            seed += 2;
            let turn = |seed| turn(spec, &broker, store, seed);
            let (per_s, p99_us, found) = turn(seed)?;
            outcome.alone.push(per_s);
            outcome.p99_alone_us = p99_us;
            verified = verified.plus(found);
            let strangers = Strangers::new(&broker.address, *kind, count, seed);
            let stop = AtomicBool::new(false);
            let (per_s, p99_us, found) = std::thread::scope(|scope| {
                let handle = scope.spawn(|| strangers.bother(&stop));
                let settled = strangers.wait_until_there(&stop);
                let turn = settled.and_then(|()| turn(seed + 1));
                stop.store(true, Ordering::Relaxed);
                let bothered = engine_rows::join(handle);
                turn.and_then(|turn| bothered.map(|()| turn))
            })?;
            outcome.beside.push(per_s);
            outcome.p99_beside_us = p99_us;
            outcome.connected += strangers.connected.load(Ordering::Relaxed);
            outcome.turned_away += strangers.turned_away.load(Ordering::Relaxed);
            verified = verified.plus(found);
        }
        let ratios = outcome.alone.iter().zip(&outcome.beside).map(|(alone, beside)| beside / alone.max(1.0));
        outcome.ratio = median(ratios.collect());
        outcomes.push(outcome);
    }
    broker.stop()?;
    Ok((outcomes, verified))
}

/// One turn: acks a second, the 99th percentile in microseconds, and what the read-back found.
fn turn(
    spec: &RowSpec,
    broker: &Served,
    store: &std::path::Path,
    seed: u64,
) -> Result<(f64, f64, Verified), PerfError> {
    let payloads = Payloads::new(spec.size, seed);
    engine_rows::wait_until_quiet(store);
    let topic = Topic::find_or_make(&broker.address, broker_rows::TOPIC)?;
    let subject = Subject { device: None, broker: Some(broker.pid()) };
    let encoding = anchorlog::wire::Encoding::Json;
    let (window, mut sent) = broker_rows::send(spec, &topic, &payloads, encoding, subject, || Ok(()))?;
    let verified = broker_rows::read_back(&topic, &payloads, &mut sent)?;
    let per_s = if window.seconds > 0.0 { window.acks as f64 / window.seconds } else { 0.0 };
    Ok((per_s, sent.latencies.value_at_quantile(0.99) as f64 / 1e3, verified))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Both ends of the connections are files; the broker inherits the limit.
fn raise_file_limit(connections: usize) -> Result<(), PerfError> {
    let needed = connections as u64 + FILES;
    let failed = |error: nix::Error| PerfError::Usage(format!("the limit of open files: {error}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if hard < needed {
        return Err(PerfError::Usage(format!("{needed} files are needed, and {hard} may be open")));
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(needed), hard).map_err(failed)
}

/// Connections of people who have no business here.
struct Strangers<'a> {
    address: &'a str,
    kind: Stranger,
    count: usize,
    seed: u64,
    connected: AtomicU64,
    turned_away: AtomicU64,
}

/// One of them.
struct Guest {
    stream: Option<TcpStream>,
    /// What it does.
    kind: Stranger,
    /// Bytes that it has left of its frame, to be dripped.
    left: usize,
    /// When it is looked at next.
    due_ns: u64,
}

impl Strangers<'_> {
    fn new(address: &str, kind: Stranger, count: usize, seed: u64) -> Strangers<'_> {
        let (connected, turned_away) = (AtomicU64::new(0), AtomicU64::new(0));
        Strangers { address, kind, count, seed, connected, turned_away }
    }

    /// Waits until all of them have come once.
    fn wait_until_there(&self, stop: &AtomicBool) -> Result<(), PerfError> {
        let deadline = clock::now_ns() + 30 * SECOND_NS;
        while self.connected.load(Ordering::Relaxed) < self.count as u64 {
            if clock::now_ns() > deadline || stop.load(Ordering::Relaxed) {
                return Err(PerfError::Broker("it does not take the strangers' connections".to_owned()));
            }
            clock::sleep(STEP);
        }
        Ok(())
    }

    /// Comes, does what it does, and comes again, until it is told to stop.
    fn bother(&self, stop: &AtomicBool) -> Result<(), PerfError> {
        let mut random = SmallRng::seed_from_u64(self.seed);
        let begun = clock::now_ns();
        let mut guests: Vec<Guest> = (0..self.count)
            .map(|number| Guest {
                stream: None,
                kind: self.kind.of(number),
                left: 0,
                // Spread over the pace, as they are from then on.
                due_ns: begun + PACE_NS / 2 * number as u64 / self.count as u64,
            })
            .collect();
        while !stop.load(Ordering::Relaxed) {
            let now = clock::now_ns();
            for guest in guests.iter_mut().filter(|guest| guest.due_ns <= now) {
                self.look(guest, &mut random)?;
                guest.due_ns = now + PACE_NS;
            }
            clock::sleep(STEP);
        }
        Ok(())
    }

    fn look(&self, guest: &mut Guest, random: &mut SmallRng) -> Result<(), PerfError> {
        let Some(stream) = &mut guest.stream else {
            let mut connected = TcpStream::connect(self.address)
                .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
                .map_err(crate::remoting::failed(self.address, "connecting as a stranger"))?;
            self.connected.fetch_add(1, Ordering::Relaxed);
            match guest.kind {
                Stranger::Garbage => {
                    let mut bytes = vec![0; random.random_range(1..4096)];
                    random.fill_bytes(&mut bytes);
                    // A length that no frame has: chance could make one that is awaited.
                    bytes[0] = bytes[0].max(2);
                    drop(connected.write(&bytes));
                }
                Stranger::Half => {
                    guest.left = 64 << 10;
                    drop(connected.write(&(64u32 << 10).to_be_bytes()));
                }
                Stranger::Silent | Stranger::Mixed => {}
            }
            guest.stream = Some(connected);
            return Ok(());
        };
        if guest.kind == Stranger::Half && guest.left > 1 {
            guest.left -= 1;
            drop(stream.write(&[0]));
        }
        let mut piece = [0; 512];
        let is_gone = match stream.read(&mut piece) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        if is_gone {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            guest.stream = None;
            // At once: it was away for the pace already.
            return self.look(guest, random);
        }
        Ok(())
    }
}
