//! The engine's rows: producers in this process, a store of their own each.
//!
//! ```text
//!  open a fresh store -> wait until the disk is quiet -> warm up (at full speed: until segments recycle) -> window -> drain
//!       -> close -> open again (recovery runs) -> read everything retained, compare -> delete the store
//! ```
//! Every producer has a stream and a queue of its own, so a message's place in its queue is its sequence number.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anchorlog_engine::io::sys::BlockDevice;
use anchorlog_engine::{
    Append, AppendOutcome, Engine, EngineInfo, EngineOptions, Fetch, FetchStatus, Flush, Lsn, Queue, QueueOffset,
    Watermark, WriteBatch,
};
use hdrhistogram::Histogram;

use crate::clock;
use crate::error::PerfError;
use crate::meter::{Meter, Recorder, Window};
use crate::open_loop::Schedule;
use crate::payload::Payloads;
use crate::row::{Producers, RowResult, RowSpec};
use crate::verify::{StreamLedger, Verified, Verifier};

const WARM_UP_MAX: Duration = Duration::from_secs(4);
const QUIET_MAX: Duration = Duration::from_secs(5);
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a producer waits for room before it tries again.
const ROOM_RETRY: Duration = Duration::from_millis(2);
/// How far the reader of a following row may fall behind before the producer waits for it.
const FOLLOW_LAG_BYTES: u64 = 64 << 20;
/// Name of the pin that holds what the follower has not read.
const FOLLOWER_PIN: &str = "follower";
/// What one commit takes at most.
const COMMIT_BYTES: usize = 4 << 20;
const FETCH_MESSAGES: usize = 4096;
const FETCH_BYTES: usize = 2 << 20;

/// Measures one row in a store below `dir`.
///
/// # Errors
/// When the engine fails; a log that breaks its promises is not an error but a verdict.
pub(crate) fn measure(spec: &RowSpec, dir: &Path, seed: u64) -> Result<RowResult, PerfError> {
    let store = dir.join("store");
    remove_store(&store)?;
    let result = measure_in(spec, &store, seed);
    remove_store(&store)?;
    result
}

/// Deletes a store, if it is there.
///
/// # Errors
/// The kernel's.
pub(crate) fn remove_store(store: &Path) -> Result<(), PerfError> {
    match std::fs::remove_dir_all(store) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PerfError::Io { what: "removing", path: store.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn options(spec: &RowSpec) -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(spec.scale.segment_bytes)
        .with_retain_bytes(Some(spec.scale.retain_bytes))
        .with_spare_count(spare_count(spec.producers.outstanding()))
        .with_backend(spec.backend)
        .with_flush(if spec.durable { Flush::Sync } else { Flush::async_default() })
}

/// Segments to be filled before a row begins: enough for a row that will not fill its store, and no more, since filling takes time.
pub(crate) fn spare_count(outstanding: usize) -> usize {
    match outstanding {
        0..=4 => 1,
        5..=16 => 2,
        _ => 4,
    }
}

/// What an ack means.
pub(crate) fn durability(durable: bool) -> String {
    if durable {
        "sync: acknowledged once durable (O_DIRECT, RWF_DSYNC)".to_owned()
    } else {
        "async: acknowledged once copied; flushed every 500 ms or 64 MiB".to_owned()
    }
}

fn measure_in(spec: &RowSpec, store: &Path, seed: u64) -> Result<RowResult, PerfError> {
    let payloads = Payloads::new(spec.size, seed);
    let engine = Engine::open(store, options(spec))?;
    let device = BlockDevice::below(store);
    wait_until_quiet(store);

    let streams = match spec.producers {
        Producers::Blocking(count) => count,
        Producers::InFlight(_) | Producers::Connections { .. } => 1,
    };
    let queues = (0..streams).map(|stream| engine.queue(&queue_name(stream))).collect::<Result<Vec<_>, _>>()?;
    let meter = Meter::new(streams);
    let follower = Follower { consumed: AtomicU64::new(0), produced: AtomicU64::new(u64::MAX) };
    let start_ns = clock::now_ns();
    let row = Row { spec, engine: &engine, payloads: &payloads, meter: &meter, follower: &follower };

    let (window, drivers, followed) = std::thread::scope(|scope| {
        let handles: Vec<_> = queues
            .iter()
            .enumerate()
            .map(|(stream, queue)| {
                let schedule = spec.load.schedule(stream, streams, start_ns);
                let row = &row;
                scope.spawn(move || {
                    let recorder = row.meter.recorder(stream);
                    let driver = match spec.producers {
                        Producers::InFlight(most) => row.keep_in_flight(queue, most, schedule, recorder),
                        _ => row.one_at_a_time(queue, stream, schedule, recorder),
                    };
                    if driver.error.is_some() {
                        row.meter.stop();
                    }
                    driver
                })
            })
            .collect();
        let reader = spec.follow.then(|| scope.spawn(|| row.read_behind(&queues[0])));
        warm_up(spec, &engine, &meter);
        let window = meter.watch(spec.seconds, device.as_ref(), Some(std::process::id()));
        let drivers: Vec<Driver> = handles.into_iter().map(join).collect();
        follower.produced.store(drivers.iter().map(|driver| driver.ledger.sent).sum(), Ordering::Release);
        let followed = reader.map(join).transpose();
        (window, drivers, followed)
    });
    let mut followed = followed?;

    let mut ledgers = Vec::new();
    let mut latencies: Option<Histogram<u64>> = None;
    for driver in drivers {
        if let Some(error) = driver.error {
            return Err(error);
        }
        ledgers.push(driver.ledger);
        match &mut latencies {
            None => latencies = Some(driver.latencies),
            Some(all) => all.add(&driver.latencies).map_err(|error| PerfError::Report(error.to_string()))?,
        }
    }
    let stats = engine.stats();
    let backend = backend_line(engine.info());
    let marks = engine.watermarks();
    engine.close()?;

    let mut notes = Vec::new();
    if stats.unwritten_segments > 0 {
        notes.push(format!("{} segments were used before they could be zero-filled", stats.unwritten_segments));
    }
    if stats.recycled_segments > 0 {
        notes.push(format!("{} segments recycled", stats.recycled_segments));
    }
    let retained = marks.assigned.since(marks.start);
    if retained > spec.scale.retain_bytes + 4 * spec.scale.segment_bytes {
        notes.push(format!(
            "recycling fell behind: the log was {} MiB long, {} were asked for",
            retained >> 20,
            spec.scale.retain_bytes >> 20
        ));
    }
    if let Some(verifier) = &followed {
        notes.push(format!("a reader followed and compared {} messages", verifier.read()));
    }
    let verified = match followed.take() {
        Some(verifier) => verifier.finish(&ledgers),
        None => read_back(spec, store, &payloads, &mut ledgers)?,
    };
    let frame_bytes = stats.frame_bytes as f64 / (stats.records.max(1)) as f64;
    let Window { seconds, acks, series, device, cpu_s } = window;
    Ok(RowResult {
        spec: spec.clone(),
        backend,
        durability: durability(spec.durable),
        seconds,
        acks,
        latencies: latencies.unwrap_or_else(crate::meter::latencies),
        series,
        device,
        cpu_s,
        frame_bytes,
        verified,
        notes,
        pair: None,
        chain: None,
    })
}

/// Waits for a thread; its panic is ours.
pub(crate) fn join<T>(handle: std::thread::ScopedJoinHandle<'_, T>) -> T {
    match handle.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn queue_name(stream: usize) -> Vec<u8> {
    format!("perf/{stream}").into_bytes()
}

/// Waits until nothing in the store has been written for a while: the fill of the first segments would otherwise be charged to the row.
pub(crate) fn wait_until_quiet(store: &Path) {
    const STEP: Duration = Duration::from_millis(25);
    const QUIET_STEPS: u32 = 4;
    let newest = || {
        let files = std::fs::read_dir(store).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
    };
    let (start, mut before, mut quiet) = (clock::now_ns(), newest(), 0);
    while quiet < QUIET_STEPS && u128::from(clock::now_ns() - start) < QUIET_MAX.as_nanos() {
        clock::sleep(STEP);
        let now = newest();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
}

/// Lets the producers run: shortly, or, when the row is so fast that it will fill its store, until segments are recycled: the window
/// should see one steady state only.
fn warm_up(spec: &RowSpec, engine: &Engine, meter: &Meter) {
    let start = clock::now_ns();
    clock::sleep(spec.scale.warm_up);
    let consumed = engine.watermarks().assigned.0 as f64;
    let expected = consumed * (1.0 + spec.seconds / spec.scale.warm_up.as_secs_f64());
    if expected < spec.scale.retain_bytes as f64 {
        return;
    }
    while engine.stats().recycled_segments < 2
        && !meter.stopped()
        && u128::from(clock::now_ns() - start) < WARM_UP_MAX.as_nanos()
    {
        clock::sleep(Duration::from_millis(10));
    }
}

/// The backend in force, and why.
pub(crate) fn backend_line(info: &EngineInfo) -> String {
    info.probe.as_ref().map_or_else(|| info.backend.clone(), |probe| format!("{}: {}", probe.kind, probe.reason))
}

/// What a driver leaves behind.
struct Driver {
    ledger: StreamLedger,
    latencies: Histogram<u64>,
    error: Option<PerfError>,
}

/// How far the reader of a following row is.
struct Follower {
    consumed: AtomicU64,
    produced: AtomicU64,
}

struct Row<'a> {
    spec: &'a RowSpec,
    engine: &'a Engine,
    payloads: &'a Payloads,
    meter: &'a Meter,
    follower: &'a Follower,
}

impl Row<'_> {
    fn fill(&self, batch: &mut WriteBatch, queue: &Queue, stream: u32, sequence: u64) -> Result<(), PerfError> {
        let head = self.payloads.head(stream, sequence);
        let payload: [&[u8]; 2] = [&head, self.payloads.body(stream, sequence)];
        batch
            .append(&Append { queue, tag: 0, keys: &[], attributes: &[], payload: &payload })
            .map(drop)
            .map_err(|error| PerfError::Append(error.into()))
    }

    fn one_at_a_time(
        &self,
        queue: &Queue,
        stream: usize,
        mut schedule: Schedule,
        mut recorder: Recorder<'_>,
    ) -> Driver {
        let stream = u32::try_from(stream).expect("there are few streams");
        let (mut ledger, mut error) = (StreamLedger::default(), None);
        while !self.meter.stopped() {
            if let Some(due) = schedule.due_ns() {
                clock::sleep_until(due);
            }
            let from = schedule.take(clock::now_ns());
            let mut batch = WriteBatch::new();
            let sequence = ledger.sent;
            let outcome = self.fill(&mut batch, queue, stream, sequence).and_then(|()| {
                ledger.sent += 1;
                self.engine.append_and_wait(batch).map_err(PerfError::from)
            });
            match outcome {
                Ok(_) => recorder.acked(1, from, clock::now_ns()),
                Err(failure) => {
                    ledger.unacked.insert(sequence);
                    error = Some(failure);
                    break;
                }
            }
        }
        Driver { ledger, latencies: recorder.into_latencies(), error }
    }

    fn keep_in_flight(&self, queue: &Queue, most: usize, mut schedule: Schedule, mut recorder: Recorder<'_>) -> Driver {
        let mut ledger = StreamLedger::default();
        let mut flight = Flight { waiting: VecDeque::new(), in_flight: 0 };
        let error = self.fly(queue, most, &mut schedule, &mut recorder, &mut ledger, &mut flight).err();
        if error.is_some() {
            ledger.unacked = (ledger.sent - flight.in_flight as u64..ledger.sent).collect::<BTreeSet<_>>();
        }
        Driver { ledger, latencies: recorder.into_latencies(), error }
    }

    /// One thread: appends what may be sent, sleeps until the oldest is acknowledged, takes all that are.
    fn fly(
        &self,
        queue: &Queue,
        most: usize,
        schedule: &mut Schedule,
        recorder: &mut Recorder<'_>,
        ledger: &mut StreamLedger,
        flight: &mut Flight,
    ) -> Result<(), PerfError> {
        // Appended at once: half of what may be in flight, as long as it is not more than one commit takes, so that one half is written
        // while the other is taken. Built before, while others are in flight.
        let together = (COMMIT_BYTES / self.spec.size).clamp(1, most.div_ceil(2));
        let mut batches: Vec<WriteBatch> = (0..together).map(|_| WriteBatch::new()).collect();
        let mut outcomes: Vec<AppendOutcome> = Vec::with_capacity(together);
        let mut used = together;
        loop {
            if used > 0 {
                batches.rotate_left(used);
                for (at, batch) in batches.iter_mut().enumerate().skip(together - used) {
                    batch.clear();
                    self.fill(batch, queue, 0, ledger.sent + at as u64)?;
                }
                used = 0;
            }
            flight.land(self.engine.watermarks().acked, recorder);
            let stopping = self.meter.stopped();
            let room =
                if stopping || self.reader_lags(ledger.sent) { 0 } else { (most - flight.in_flight).min(together) };
            let sends = schedule.allowed(clock::now_ns(), room);
            if sends > 0 {
                outcomes.clear();
                let sent_ns = clock::now_ns();
                used = self.engine.append_all(&mut batches[..sends], &mut outcomes)?;
                for outcome in &outcomes {
                    flight.push(outcome.end_lsn, schedule.take(sent_ns));
                }
                ledger.sent += used as u64;
                if used < sends {
                    // The buffer is full, or a release is waited for: nothing is dropped, the producer tries again when more is written.
                    let written = self.engine.watermarks().written;
                    match self.engine.wait(Watermark::Written, written.plus(1), Some(ROOM_RETRY)) {
                        Ok(()) | Err(anchorlog_engine::WaitError::TimedOut) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                continue;
            }
            match flight.waiting.front() {
                Some(oldest) => {
                    let until_due = schedule
                        .due_ns()
                        .filter(|_| flight.in_flight < most && !stopping)
                        .map(|due| Duration::from_nanos(due.saturating_sub(clock::now_ns())));
                    match self.engine.wait(Watermark::Acked, oldest.0, Some(until_due.unwrap_or(ACK_TIMEOUT))) {
                        Err(anchorlog_engine::WaitError::TimedOut) if until_due.is_some() => {}
                        outcome => outcome?,
                    }
                }
                None if stopping => return Ok(()),
                None => match schedule.due_ns() {
                    Some(due) => clock::sleep_until(due),
                    None => clock::sleep(Duration::from_micros(50)),
                },
            }
        }
    }

    fn reader_lags(&self, sent: u64) -> bool {
        self.spec.follow
            && (sent - self.follower.consumed.load(Ordering::Relaxed).min(sent)) * self.spec.size as u64
                > FOLLOW_LAG_BYTES
    }

    /// Reads behind the producer until it has read all that was produced.
    fn read_behind(&self, queue: &Queue) -> Result<Verifier, PerfError> {
        let mut verifier = Verifier::new(1);
        let mut from = QueueOffset::default();
        // What it has not read is not recycled, however small the store.
        self.engine.pin(FOLLOWER_PIN, Some(Lsn::ZERO));
        loop {
            let produced = self.follower.produced.load(Ordering::Acquire);
            if verifier.read() >= produced {
                self.engine.pin(FOLLOWER_PIN, None);
                return Ok(verifier);
            }
            let more = fetch(self.engine, queue, from)?;
            for message in &more.messages {
                verifier.take(self.payloads, message.payload());
            }
            if let Some(last) = more.messages.last() {
                self.engine.pin(FOLLOWER_PIN, Some(last.lsn));
            }
            from = more.next;
            self.follower.consumed.store(verifier.read(), Ordering::Relaxed);
            if more.status != FetchStatus::Found {
                let ended = produced != u64::MAX && from >= self.engine.range(queue).max;
                if ended || (self.meter.stopped() && more.status != FetchStatus::AtEnd) {
                    self.engine.pin(FOLLOWER_PIN, None);
                    return Ok(verifier);
                }
                clock::sleep(Duration::from_micros(200));
            }
        }
    }
}

/// Messages in flight, oldest first: the end that must be acknowledged, and the time from which the latency counts.
struct Flight {
    waiting: VecDeque<(Lsn, u64)>,
    in_flight: usize,
}

impl Flight {
    fn push(&mut self, end: Lsn, from_ns: u64) {
        self.in_flight += 1;
        self.waiting.push_back((end, from_ns));
    }

    fn land(&mut self, acked: Lsn, recorder: &mut Recorder<'_>) {
        let now = clock::now_ns();
        let mut run: Option<(u64, u64)> = None;
        while let Some((_, from_ns)) = self.waiting.front().copied().filter(|oldest| oldest.0 <= acked) {
            self.waiting.pop_front();
            self.in_flight -= 1;
            run = match run {
                Some((same, sum)) if same == from_ns => Some((same, sum + 1)),
                Some((other, sum)) => {
                    recorder.acked(sum, other, now);
                    Some((from_ns, 1))
                }
                None => Some((from_ns, 1)),
            };
        }
        if let Some((from_ns, sum)) = run {
            recorder.acked(sum, from_ns, now);
        }
    }
}

fn fetch(engine: &Engine, queue: &Queue, from: QueueOffset) -> Result<anchorlog_engine::FetchOutcome, PerfError> {
    Ok(engine.fetch(&Fetch {
        queue,
        from,
        messages_max: FETCH_MESSAGES,
        bytes_max: FETCH_BYTES,
        scan_max: FETCH_MESSAGES,
        from_disk: true,
        matches: &|_| true,
    })?)
}

/// Opens the store again and compares all that is retained with what was sent.
fn read_back(
    spec: &RowSpec,
    store: &Path,
    payloads: &Payloads,
    ledgers: &mut [StreamLedger],
) -> Result<Verified, PerfError> {
    // Without retention, which would go on recycling what is being read, and without filling segments that nobody will use.
    let engine = Engine::open(store, options(spec).with_retain_bytes(None).with_spare_count(0))?;
    let verifier = loop {
        let start = engine.watermarks().start;
        let mut verifier = Verifier::new(ledgers.len());
        for (stream, ledger) in ledgers.iter_mut().enumerate() {
            let queue = engine.queue(&queue_name(stream))?;
            let range = engine.range(&queue);
            // Queue offsets are sequence numbers: what lies below the first readable offset was recycled. An empty queue recycled nothing.
            ledger.recycled = range.min.0;
            let mut from = range.min;
            while from < range.max {
                let more = fetch(&engine, &queue, from)?;
                for message in &more.messages {
                    verifier.take(payloads, message.payload());
                }
                if more.next <= from {
                    break;
                }
                from = more.next;
            }
        }
        // A release that was recorded before the store was closed comes to its end now; what it took is to be counted as recycled.
        if engine.watermarks().start == start {
            break verifier;
        }
    };
    engine.close()?;
    Ok(verifier.finish(ledgers))
}
