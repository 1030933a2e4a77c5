//! A slave that is far behind, and how it comes back into step: while the leader does nothing else, and while it is busy.
//!
//! ```text
//!   idle:  in step -> slave killed -> leader takes the lag -> slave started again -> in step     log bytes / time, against the disk's read
//!   busy:  in step (rate) -> slave killed, load goes on (rate) -> slave started again (rate, lag) -> in step
//! ```
//! 1. Flush is sync, replication async: a leader that waits for its slave would take nothing while that is away.
//! 2. The time counts from the last look at which the slave had nothing new: its start is not catching up.
//! 3. Both logs are read back in the end, as those of any other row.

use std::path::Path;
use std::time::Duration;

use anchorlog::wire::Encoding;
use anchorlog_engine::BackendChoice;
use serde::Serialize;

use crate::broker_rows::OVERHEAD_BYTES;
use crate::cli::{Mode, Role};
use crate::clock::{self, SECOND_NS};
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::Meter;
use crate::open_loop::Load;
use crate::opening;
use crate::pair::{self, Pair, Plan, Stores};
use crate::payload::Payloads;
use crate::row::Scale;
use crate::sender::{Sender, Sent};
use crate::topic::{Topic, in_time};
use crate::verify::Verified;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// Time between two looks at a slave that comes up.
const STEP: Duration = Duration::from_millis(5);
/// Connections and sends in flight while the lag is made, and of the busy leader.
const FILLING: (usize, usize) = (8, 64);
const BUSY: (usize, usize) = (64, 1);
/// A slave that is no more messages behind than this is in step with a busy leader: those are on their way.
const ON_THE_WAY: u64 = 512;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// Where the stores go.
    pub(crate) leader_dir: &'a Path,
    /// The slave's.
    pub(crate) slave_dir: &'a Path,
    /// Log bytes that the slave is behind.
    pub(crate) lag_bytes: u64,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Seconds for which a rate is measured.
    pub(crate) seconds: f64,
    /// Time between two looks at the lag.
    pub(crate) interval: Duration,
    /// Backend of both brokers.
    pub(crate) backend: BackendChoice,
    /// How the client writes.
    pub(crate) encoding: Encoding,
    /// How large segments are.
    pub(crate) scale: &'static Scale,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CatchUp {
    /// With an idle leader.
    pub(crate) idle: Idle,
    /// With a busy one.
    pub(crate) busy: Busy,
    /// The accounts of both stores after the one.
    pub(crate) idle_verify: Accounts,
    /// After the other.
    pub(crate) busy_verify: Accounts,
}

/// What both stores gave back.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Accounts {
    /// The leader's.
    pub(crate) leader: Verified,
    /// The slave's.
    pub(crate) slave: Verified,
}

impl CatchUp {
    /// All accounts, with what they are of.
    pub(crate) fn accounts(&self) -> [(&'static str, Verified); 4] {
        [
            ("idle leader", self.idle_verify.leader),
            ("slave of an idle leader, after catching up", self.idle_verify.slave),
            ("busy leader", self.busy_verify.leader),
            ("slave of a busy leader, after catching up", self.busy_verify.slave),
        ]
    }
}

/// With an idle leader.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Idle {
    /// Log bytes that the slave was behind.
    pub(crate) log_bytes: u64,
    /// How long it took to bring it up.
    pub(crate) seconds: f64,
    /// 10^6 log bytes a second.
    pub(crate) mb_per_s: f64,
    /// What the leader's disk gives, read from front to back.
    pub(crate) disk_read_mb_per_s: f64,
    /// The one divided by the other.
    pub(crate) ratio: f64,
}

/// With a busy leader.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Busy {
    /// Acks a second while the slave was in step.
    pub(crate) in_step_per_s: f64,
    /// While it was away.
    pub(crate) alone_per_s: f64,
    /// While it caught up.
    pub(crate) catching_up_per_s: f64,
    /// The last divided by the first.
    pub(crate) ratio: f64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Whether the slave came into step at all.
    pub(crate) caught_up: bool,
    /// How far it was behind, from look to look.
    pub(crate) lag: Vec<Lag>,
}

/// How far a slave was behind at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Lag {
    /// From the moment at which it had something new for the first time.
    pub(crate) at_s: f64,
    /// Messages that it did not show.
    pub(crate) messages: u64,
}

impl Busy {
    /// Looks at which the slave was no closer than at the one before; one more if it never came into step.
    pub(crate) fn steps_without_gain(&self) -> usize {
        let stuck = self.lag.windows(2).filter(|pair| pair[1].messages >= pair[0].messages).count();
        stuck + usize::from(!self.caught_up)
    }
}

/// Measures both.
///
/// # Errors
/// When a broker fails; broken promises are not an error but a verdict.
pub(crate) fn measure(wish: &Wish<'_>, seed: u64) -> Result<CatchUp, PerfError> {
    let (idle, idle_verify) = on_fresh_stores(wish, seed, None, idle)?;
    let (busy, busy_verify) = on_fresh_stores(wish, seed + 1, Some(wish.lag_bytes * 2), busy)?;
    Ok(CatchUp { idle, busy, idle_verify, busy_verify })
}

/// What a measurement is done with.
struct Stage<'a> {
    wish: &'a Wish<'a>,
    plan: Plan,
    topic: Topic,
    followed: Topic,
    payloads: Payloads,
}

fn on_fresh_stores<T>(
    wish: &Wish<'_>,
    seed: u64,
    retain_bytes: Option<u64>,
    measure: impl FnOnce(&Stage<'_>, &mut Pair) -> Result<(T, Sent), PerfError>,
) -> Result<(T, Accounts), PerfError> {
    let stores = Stores::make(wish.leader_dir, wish.slave_dir)?;
    let run = || {
        let plan = Plan {
            stores: stores.clone(),
            flush: Mode::Sync,
            replication: Mode::Async,
            backend: wish.backend,
            segment_bytes: wish.scale.segment_bytes,
            spare_count: engine_rows::spare_count(FILLING.0 * FILLING.1),
            retain_bytes,
            ask_after_ms: None,
            reached: pair::free_addresses()?,
        };
        let mut pair = plan.start()?;
        let (topic, followed) = pair.meet()?;
        let stage = Stage { wish, plan, topic, followed, payloads: Payloads::new(wish.size, seed) };
        let (measured, mut sent) = measure(&stage, &mut pair)?;
        pair::wait_in_step(&stage.topic, &stage.followed)?;
        let Pair { mut leader, mut slave } = pair;
        leader.kill()?;
        slave.kill()?;
        let mut read = |role| stage.plan.read_back(role, &stage.topic, &stage.payloads, &mut sent);
        let accounts = Accounts { leader: read(Role::Leader)?, slave: read(Role::Slave)? };
        Ok((measured, accounts))
    };
    let result = run();
    stores.remove()?;
    result
}

impl Stage<'_> {
    /// Messages whose frames are as many bytes as the lag is to be, roughly.
    fn lag_messages(&self) -> u64 {
        self.wish.lag_bytes / (self.payloads.size() as u64 + u64::from(OVERHEAD_BYTES))
    }

    /// Sends from before `watch` until it ends.
    fn under_load<T>(
        &self,
        connections: (usize, usize),
        watch: impl FnOnce(&Meter) -> Result<T, PerfError>,
    ) -> Result<(T, Sent), PerfError> {
        let meter = Meter::new(1);
        std::thread::scope(|scope| {
            let handle = scope.spawn(|| {
                let sent = Sender::connect(&self.topic, connections, self.wish.encoding, &self.payloads, &meter)
                    .and_then(|sender| sender.run(Load::Closed));
                meter.stop();
                sent
            });
            let watched = watch(&meter);
            meter.stop();
            let sent = engine_rows::join(handle)?;
            Ok((watched?, sent))
        })
    }

    /// Messages that the slave shows.
    fn shown(&self) -> Result<u64, PerfError> {
        Ok(self.followed.ends()?.iter().sum())
    }
}

fn seconds_since(begun_ns: u64) -> f64 {
    (clock::now_ns() - begun_ns) as f64 / SECOND_NS as f64
}

/// Waits until so many more acks have come; their rate.
fn await_acks(meter: &Meter, more: u64) -> Result<f64, PerfError> {
    let (begun, first) = (clock::now_ns(), meter.acks());
    while meter.acks() < first + more {
        if meter.stopped() || seconds_since(begun) > PATIENCE.as_secs_f64() {
            return Err(PerfError::Broker(format!("{} of {more} sends were acknowledged", meter.acks() - first)));
        }
        clock::sleep(STEP);
    }
    Ok((meter.acks() - first) as f64 / seconds_since(begun))
}

fn idle(stage: &Stage<'_>, pair: &mut Pair) -> Result<(Idle, Sent), PerfError> {
    let before = pair.leader.counts()?;
    pair.slave.kill()?;
    let (_, sent) = stage.under_load(FILLING, |meter| await_acks(meter, stage.lag_messages()))?;
    let log_bytes = pair.leader.counts()?.since(before).log_bytes;
    let end: u64 = stage.topic.ends()?.iter().sum();
    let disk_read = opening::read_rate(stage.plan.stores.of(Role::Leader), log_bytes)?;

    pair.slave = stage.plan.start_slave()?;
    let (looked, begin) = (clock::now_ns(), in_time(PATIENCE, || stage.shown())?);
    let (mut begun, mut shown) = (looked, begin);
    while shown < end {
        if seconds_since(looked) > PATIENCE.as_secs_f64() {
            return Err(PerfError::Broker(format!("the slave has {shown} of {end} messages, and does not catch up")));
        }
        clock::sleep(STEP);
        let now = clock::now_ns();
        shown = stage.shown()?;
        if shown <= begin {
            begun = now;
        }
    }
    let seconds = seconds_since(begun);
    let bytes_per_s = log_bytes as f64 / seconds;
    let measured = Idle {
        log_bytes,
        seconds,
        mb_per_s: bytes_per_s / 1e6,
        disk_read_mb_per_s: disk_read / 1e6,
        ratio: bytes_per_s / disk_read,
    };
    Ok((measured, sent))
}

fn busy(stage: &Stage<'_>, pair: &mut Pair) -> Result<(Busy, Sent), PerfError> {
    stage.under_load(BUSY, |meter| {
        clock::sleep(stage.wish.scale.warm_up);
        let (begun, first) = (clock::now_ns(), meter.acks());
        clock::sleep(Duration::from_secs_f64(stage.wish.seconds));
        let in_step_per_s = (meter.acks() - first) as f64 / seconds_since(begun);

        pair.slave.kill()?;
        let alone_per_s = await_acks(meter, stage.lag_messages())?;
        pair.slave = stage.plan.start_slave()?;
        let before = in_time(PATIENCE, || stage.shown())?;
        in_time(PATIENCE, || match stage.shown()? {
            shown if shown > before => Ok(()),
            shown => Err(PerfError::Broker(format!("the slave stays at {shown} messages"))),
        })?;
        let (begun, first) = (clock::now_ns(), meter.acks());
        let mut lag = Vec::new();
        let caught_up = loop {
            lag.push(Lag { at_s: seconds_since(begun), messages: pair::behind(&stage.topic, &stage.followed)? });
            if lag.last().is_some_and(|lag| lag.messages <= ON_THE_WAY) {
                break true;
            }
            if meter.stopped() || seconds_since(begun) > PATIENCE.as_secs_f64() {
                break false;
            }
            clock::sleep(stage.wish.interval);
        };
        let seconds = seconds_since(begun);
        let catching_up_per_s = (meter.acks() - first) as f64 / seconds;
        let ratio = catching_up_per_s / in_step_per_s;
        Ok(Busy { in_step_per_s, alone_per_s, catching_up_per_s, ratio, seconds, caught_up, lag })
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a run of a good pair looks like.
    pub(crate) fn catch_up() -> CatchUp {
        let lag = [900_000, 500_000, 100].into_iter().zip([0.0, 0.5, 1.0]);
        CatchUp {
            idle: Idle { log_bytes: 1 << 30, seconds: 1.0, mb_per_s: 1073.7, disk_read_mb_per_s: 1500.0, ratio: 0.72 },
            busy: Busy {
                in_step_per_s: 50_000.0,
                alone_per_s: 80_000.0,
                catching_up_per_s: 40_000.0,
                ratio: 0.8,
                seconds: 1.0,
                caught_up: true,
                lag: lag.map(|(messages, at_s)| Lag { at_s, messages }).collect(),
            },
            idle_verify: Accounts::default(),
            busy_verify: Accounts::default(),
        }
    }

    #[test]
    fn a_lag_that_does_not_shrink_is_counted() {
        let mut busy = catch_up().busy;
        assert_eq!(busy.steps_without_gain(), 0);
        busy.lag[1].messages = 900_000;
        assert_eq!(busy.steps_without_gain(), 1, "it stood still");
        busy.caught_up = false;
        assert_eq!(busy.steps_without_gain(), 2, "and it never came into step");
    }

    #[test]
    fn acks_are_waited_for_and_timed() {
        let meter = Meter::new(1);
        let rate = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut recorder = meter.recorder(0);
                for _ in 0..100 {
                    clock::sleep(Duration::from_millis(1));
                    recorder.acked(1, 0, 1);
                }
            });
            await_acks(&meter, 20)
        });
        assert!(rate.expect("they come") > 0.0);
        meter.stop();
        assert!(await_acks(&meter, 1).is_err(), "nobody sends any more");
    }
}
