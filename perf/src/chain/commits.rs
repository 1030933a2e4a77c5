//! Offset commits of very many groups beside sends: what they cost the sends.
//!
//! Windows with and without commits alternate (`- + + - - +`); commits are oneway, spread evenly, each group's of all queues together, as
//! clients send them every five seconds. In the end the broker is stopped, and what every group committed last is there.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anchorlog::wire::codes::request;
use anchorlog::wire::header::Head;

use super::bench::{Bench, Found, committed};
use super::drive::Drive;
use super::rows::Kind;
use crate::broker_rows::{self, TOPIC};
use crate::clock::{self, SECOND_NS};
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::{self, DeviceUse, Meter, Sample, Window};
use crate::prepared::{NUMBER, Place, Prepared};
use crate::remoting::{Caller, connect, failed};
use crate::row::{ChainUse, RowResult};
use crate::served::Counts;
use crate::topic::Topic;
use crate::verify::Verified;

/// Groups that commit.
const GROUPS: usize = 1000;
/// How often each does.
const PERIOD: Duration = Duration::from_secs(5);
/// Windows, in which of them there are commits.
const WINDOWS: [bool; 6] = [false, true, true, false, false, true];

/// Measures the row.
///
/// # Errors
/// When the broker fails; broken promises are not an error but a verdict.
pub(super) fn measure(bench: &Bench<'_>) -> Result<RowResult, PerfError> {
    let payloads = bench.payloads();
    let mut store = bench.broker()?;
    let backend = store.served().backend.clone();
    let topic = Topic::create(store.address(), TOPIC, 8)?;
    let (device, pid) = (store.device.clone(), store.pid());
    let meter = Meter::new(2);
    meter.open();
    let mut committer = Committer::connect(bench, &topic)?;
    // Groups are made when they commit first: that is not what is asked here.
    committer.all(0)?;
    let drive = Drive::connect(Some(&bench.producing(&topic, &payloads)?), None, &meter)?;
    let commits = AtomicBool::new(false);
    let stats = || device.as_ref().and_then(anchorlog_engine::io::sys::BlockDevice::stats);
    let (sums, left, committer) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let left = drive.run(&meter);
            meter.stop();
            left
        });
        let committing = scope.spawn(|| committer.run(&meter, &commits));
        clock::sleep(bench.spec.scale.warm_up);
        let mut sums = [Sum::default(), Sum::default()];
        let begun = clock::now_ns();
        for with in WINDOWS {
            commits.store(with, Ordering::Relaxed);
            if meter.stopped() {
                break;
            }
            let sum = &mut sums[usize::from(with)];
            let (counts, device, cpu) = (store.counts()?, stats(), meter::cpu_time(pid));
            let (from, acks) = (clock::now_ns(), meter.acks());
            clock::sleep(Duration::from_secs_f64(bench.spec.seconds));
            let (until, acked) = (clock::now_ns(), meter.acks() - acks);
            let seconds = (until - from) as f64 / SECOND_NS as f64;
            sum.window.seconds += seconds;
            sum.window.acks += acked;
            let at_s = (until - begun) as f64 / SECOND_NS as f64;
            sum.window.series.push(Sample { at_s, per_s: acked as f64 / seconds });
            let cpu_s = cpu.zip(meter::cpu_time(pid)).map_or(0.0, |(before, after)| (after - before).max(0.0));
            sum.window.cpu_s = Some(sum.window.cpu_s.unwrap_or(0.0) + cpu_s);
            if let Some((before, after)) = device.zip(stats()) {
                let all = sum.window.device.unwrap_or_default();
                sum.window.device = Some(all.plus(DeviceUse::between(before, after)));
            }
            sum.engine = sum.engine.plus(store.counts()?.since(counts));
        }
        meter.stop();
        let (left, committer) = (engine_rows::join(sending), engine_rows::join(committing));
        Ok::<_, PerfError>((sums, left?, committer?))
    })?;
    let mut sent = left.sent;
    let [without, with] = sums;
    // It ends well: oneway commits are not promised to survive a kill.
    store.again(false)?;
    let moved = topic.moved_to(store.address());
    let forgotten = committer.forgotten(&moved)?;
    let kept = broker_rows::read_back(&moved, &payloads, &mut sent)?;
    store.finish()?;
    let mut notes = broker_rows::refusals(&sent);
    notes.push(format!(
        "{} oneway commits in {:.1} s; the broker was stopped and started again before reading back",
        committer.count, with.window.seconds
    ));
    if forgotten > 0 {
        notes.push(format!("{forgotten} offsets are not what their group committed last"));
    }
    let chain = ChainUse {
        counts: Kind::Commits.counts(),
        is_bounded: Kind::Commits.is_bounded(),
        engine: with.engine,
        without_per_s: Some(without.window.acks as f64 / without.window.seconds.max(1e-6)),
        ..ChainUse::default()
    };
    let verified = Verified { lost: kept.lost + forgotten, ..kept };
    let found = Found { window: with.window, latencies: sent.latencies, verified, notes, chain };
    Ok(bench.row(&bench.spec.name, backend, engine_rows::durability(true), found))
}

/// What the windows of one kind add up to.
struct Sum {
    window: Window,
    engine: Counts,
}

impl Default for Sum {
    fn default() -> Sum {
        let window = Window { seconds: 0.0, acks: 0, series: Vec::new(), device: None, cpu_s: None };
        Sum { window, engine: Counts::default() }
    }
}

/// All groups, on one connection.
struct Committer {
    broker: String,
    stream: std::net::TcpStream,
    /// By group, then by queue.
    commits: Vec<Vec<(Prepared, Place)>>,
    /// What each group committed last.
    last: Vec<u64>,
    count: u64,
}

fn group(number: usize) -> String {
    format!("perf-group-{number:04}")
}

impl Committer {
    fn connect(bench: &Bench<'_>, topic: &Topic) -> Result<Committer, PerfError> {
        let prepared = |group: &str, queue: u32| {
            let fields = [
                ("consumerGroup", group),
                ("topic", topic.name.as_str()),
                ("queueId", &queue.to_string()),
                ("commitOffset", NUMBER),
            ];
            let head = Head::request(bench.encoding, request::UPDATE_CONSUMER_OFFSET, 0).oneway();
            let prepared = Prepared::new(head, &fields, b"")?;
            let place = prepared.place(NUMBER.as_bytes())?;
            Ok((prepared, place))
        };
        let of_group = |number: usize| {
            let group = group(number);
            topic.queues.iter().map(|queue| prepared(&group, queue.id)).collect()
        };
        let broker = topic.queues[0].broker.clone();
        Ok(Committer {
            stream: connect(&broker)?,
            broker,
            commits: (0..GROUPS).map(of_group).collect::<Result<_, PerfError>>()?,
            last: vec![0; GROUPS],
            count: 0,
        })
    }

    /// One group commits all its queues.
    fn commit(&mut self, group: usize, offset: u64) -> Result<(), PerfError> {
        let mut out = Vec::new();
        for (prepared, place) in &mut self.commits[group] {
            prepared.set_number(place, offset);
            out.extend_from_slice(prepared.bytes());
        }
        self.last[group] = offset;
        self.count += self.commits[group].len() as u64;
        self.stream.write_all(&out).map_err(failed(&self.broker, "committing"))
    }

    /// Every group commits once.
    fn all(&mut self, offset: u64) -> Result<(), PerfError> {
        (0..GROUPS).try_for_each(|group| self.commit(group, offset))?;
        self.count = 0;
        self.settle()
    }

    /// Waits until the broker has taken what went before on its connection.
    fn settle(&self) -> Result<(), PerfError> {
        let stream = self.stream.try_clone().map_err(failed(&self.broker, "sharing a connection"))?;
        let mut caller = Caller::on(stream, &self.broker)?;
        let fields = [("topic", TOPIC), ("queueId", "0")];
        caller.call(request::GET_MAX_OFFSET, &fields, b"")?.ok("asking behind commits").map(drop)
    }

    /// Commits while it is told to, one group after the other, so that each comes around once in a period.
    fn run(mut self, meter: &Meter, commits: &AtomicBool) -> Result<Committer, PerfError> {
        let step_ns = u64::try_from(PERIOD.as_nanos()).unwrap_or(u64::MAX) / GROUPS as u64;
        let queues = self.commits[0].len() as u64;
        let (mut due_ns, mut next) = (clock::now_ns(), 0);
        while !meter.stopped() {
            due_ns += step_ns;
            clock::sleep_until(due_ns);
            if commits.load(Ordering::Relaxed) {
                // About where a group is that keeps up: every time further on.
                self.commit(next, meter.acks() / queues * 9 / 10)?;
                next = (next + 1) % GROUPS;
            }
        }
        self.settle()?;
        Ok(self)
    }

    /// Offsets that are not what was committed last.
    fn forgotten(&self, topic: &Topic) -> Result<u64, PerfError> {
        let mut forgotten = 0;
        for (number, last) in self.last.iter().enumerate() {
            let found = committed(topic, &group(number))?;
            forgotten += found.iter().filter(|found| **found != Some(*last)).count() as u64;
        }
        Ok(forgotten)
    }
}
