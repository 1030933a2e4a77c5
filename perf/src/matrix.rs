//! The four combinations: sync and async flush, by sync and async replication, by how many sends are in flight.
//!
//! Each row has a fresh pair of brokers (`pair.rs`), in the order in which what is compared lies side by side. At its end both are
//! **killed** (`SIGKILL`), unless the flush is asynchronous: then the leader is stopped, and the slave killed if its disk was waited for.
//! After that all that the leader acknowledged must be in both directories. Where nobody waits for the slave, it is given time to come into
//! step before.

use std::path::Path;

use anchorlog::wire::Encoding;
use anchorlog_engine::BackendChoice;
use anchorlog_engine::io::sys::BlockDevice;

use crate::broker_rows::{self, OVERHEAD_BYTES, Subject};
use crate::cli::{Mode, Role};
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::{self, DeviceUse};
use crate::open_loop::Load;
use crate::pair::{self, Pair, Plan, Stores};
use crate::payload::Payloads;
use crate::row::{PairUse, Producers, RowResult, RowSpec, Scale, combination};
use crate::served::Counts;

/// Connections, and sends in flight on each.
const IN_FLIGHT: [(usize, usize); 4] = [(1, 1), (64, 1), (8, 64), (8, 512)];
/// Flush, then replication: what the others are held against comes first.
const COMBINATIONS: [(Mode, Mode); 4] =
    [(Mode::Async, Mode::Async), (Mode::Async, Mode::Sync), (Mode::Sync, Mode::Async), (Mode::Sync, Mode::Sync)];

/// One step of a run.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A round of the disk probe.
    Probe,
    /// A row.
    Row(PairSpec),
}

/// A row, and what an ack of it waits for.
#[derive(Clone, Debug)]
pub(crate) struct PairSpec {
    /// The row; durable when an ack waits for any disk.
    pub(crate) row: RowSpec,
    /// Whether for the leader's.
    pub(crate) flush: Mode,
    /// Whether for the slave's.
    pub(crate) replication: Mode,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Seconds of a row.
    pub(crate) seconds: f64,
    /// Backend of both brokers.
    pub(crate) backend: BackendChoice,
    /// Closed or open loop.
    pub(crate) load: Load,
    /// Parts of names; only rows that have one of them run. None: all do.
    pub(crate) only: &'a [String],
    /// How large the stores are.
    pub(crate) scale: &'static Scale,
}

/// The steps of a run: the disk is probed before the first row, in the middle, and before the last rows.
pub(crate) fn steps(wish: &Wish<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (at, (count, each)) in IN_FLIGHT.into_iter().enumerate() {
        if at != 1 {
            steps.push(Step::Probe);
        }
        steps.extend(COMBINATIONS.into_iter().filter_map(|(flush, replication)| {
            let name = format!("matrix/{}/{}", combination(flush, replication), count * each);
            let wanted = wish.only.is_empty() || wish.only.iter().any(|part| name.contains(part.as_str()));
            let row = RowSpec {
                name,
                durable: flush == Mode::Sync || replication == Mode::Sync,
                producers: Producers::Connections { count, each },
                backend: wish.backend,
                seconds: wish.seconds,
                size: wish.size,
                load: wish.load,
                follow: false,
                scale: wish.scale,
            };
            wanted.then_some(Step::Row(PairSpec { row, flush, replication }))
        }));
    }
    steps
}

/// Names of the rows among these steps.
pub(crate) fn row_names(steps: &[Step]) -> Vec<String> {
    steps
        .iter()
        .filter_map(|step| if let Step::Row(spec) = step { Some(spec.row.name.clone()) } else { None })
        .collect()
}

/// What an ack of a combination means.
fn durability(flush: Mode, replication: Mode) -> String {
    let name = combination(flush, replication);
    let means = match (flush, replication) {
        (Mode::Sync, Mode::Sync) => "durable on the leader\u{2019}s disk and on the slave\u{2019}s",
        (Mode::Sync, Mode::Async) => "durable on the leader\u{2019}s disk; the slave follows",
        (Mode::Async, Mode::Sync) => "in the leader\u{2019}s memory, and durable on the slave\u{2019}s disk",
        (Mode::Async, Mode::Async) => {
            "in the leader\u{2019}s memory, flushed every 500 ms or 64 MiB; the slave follows, and flushes all the same"
        }
    };
    let ending = match (flush, replication) {
        (Mode::Sync, _) => "both brokers were killed",
        (Mode::Async, Mode::Sync) => "the leader was stopped and the slave killed",
        (Mode::Async, Mode::Async) => "both brokers were stopped",
    };
    format!("{name}: {means}; {ending}, then each store was read back by itself")
}

/// Measures one row on fresh stores below the two directories.
///
/// # Errors
/// When a broker fails, or the slave does not come into step; broken promises are not an error but a verdict.
pub(crate) fn measure(
    spec: &PairSpec,
    leader_dir: &Path,
    slave_dir: &Path,
    seed: u64,
    encoding: Encoding,
) -> Result<RowResult, PerfError> {
    let stores = Stores::make(leader_dir, slave_dir)?;
    let result = measure_in(spec, &stores, seed, encoding);
    stores.remove()?;
    result
}

fn measure_in(spec: &PairSpec, stores: &Stores, seed: u64, encoding: Encoding) -> Result<RowResult, PerfError> {
    let PairSpec { row, flush, replication } = spec;
    let payloads = Payloads::new(row.size, seed);
    let plan = Plan {
        stores: stores.clone(),
        flush: *flush,
        replication: *replication,
        backend: row.backend,
        segment_bytes: row.scale.segment_bytes,
        spare_count: engine_rows::spare_count(row.producers.outstanding()),
        retain_bytes: Some(row.scale.broker_retain_bytes),
        ask_after_ms: None,
        reached: pair::free_addresses()?,
    };
    let disks = stores.disks();
    let mut pair = plan.start()?;
    let backend = pair.leader.backend.clone();
    let (topic, followed) = pair.meet()?;
    for role in [Role::Leader, Role::Slave] {
        engine_rows::wait_until_quiet(stores.of(role));
    }
    let subject = Subject { device: disks.leader.as_ref(), broker: Some(pair.leader.pid()) };
    let mut looks = Vec::new();
    let (window, mut sent) = broker_rows::send(row, &topic, &payloads, encoding, subject, || {
        looks.push(Look::at(&mut pair, disks.slave.as_ref())?);
        if looks.len() == 2 {
            looks[1].behind = pair::behind(&topic, &followed)?;
        }
        Ok(())
    })?;
    let [before, after] = looks[..] else {
        return Err(PerfError::Report("a window has a beginning and an end".to_owned()));
    };
    pair::wait_in_step(&topic, &followed)?;
    end(spec, pair)?;

    let verified = plan.read_back(Role::Leader, &topic, &payloads, &mut sent)?;
    let slave_verified = plan.read_back(Role::Slave, &topic, &payloads, &mut sent)?;
    let slave_cpu_s = before.slave_cpu_s.zip(after.slave_cpu_s).map(|(before, after)| (after - before).max(0.0));
    let pair = PairUse {
        flush: *flush,
        replication: *replication,
        leader_cpu_s: window.cpu_s,
        slave_cpu_s,
        leader: after.leader.since(before.leader),
        slave: after.slave.since(before.slave),
        slave_device: before
            .slave_device
            .zip(after.slave_device)
            .map(|(before, after)| DeviceUse::between(before, after)),
        shared_disk: disks.shared,
        behind: after.behind,
        slave_verified,
    };
    let mut notes = broker_rows::refusals(&sent);
    if pair.slave.flushes == 0 {
        notes.push("the slave flushed nothing while this row ran".to_owned());
    }
    Ok(RowResult {
        spec: row.clone(),
        backend,
        durability: durability(*flush, *replication),
        seconds: window.seconds,
        acks: window.acks,
        latencies: sent.latencies,
        series: window.series,
        device: window.device,
        cpu_s: window.cpu_s.zip(slave_cpu_s).map(|(leader, slave)| leader + slave),
        frame_bytes: row.size as f64 + f64::from(OVERHEAD_BYTES),
        verified,
        notes,
        pair: Some(pair),
        chain: None,
    })
}

/// Counters at one moment.
#[derive(Clone, Copy)]
struct Look {
    leader: Counts,
    slave: Counts,
    slave_cpu_s: Option<f64>,
    slave_device: Option<anchorlog_engine::io::sys::BlockStats>,
    behind: u64,
}

impl Look {
    fn at(pair: &mut Pair, slave_disk: Option<&BlockDevice>) -> Result<Look, PerfError> {
        Ok(Look {
            leader: pair.leader.counts()?,
            slave: pair.slave.counts()?,
            slave_cpu_s: meter::cpu_time(pair.slave.pid()),
            slave_device: slave_disk.and_then(BlockDevice::stats),
            behind: 0,
        })
    }
}

/// Ends both: without a chance to write anything more where an ack rested on what was written. The leader first: it might wait for the
/// other one.
fn end(spec: &PairSpec, pair: Pair) -> Result<(), PerfError> {
    let Pair { mut leader, mut slave } = pair;
    match spec.flush {
        Mode::Sync => leader.kill()?,
        Mode::Async => leader.stop()?,
    }
    if spec.row.durable { slave.kill() } else { slave.stop() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish<'_> = Wish {
        size: 1024,
        seconds: 2.0,
        backend: BackendChoice::Auto,
        load: Load::Closed,
        only: &[],
        scale: &crate::row::FULL,
    };

    fn names(wish: &Wish<'_>) -> Vec<String> {
        let name = |step| match step {
            Step::Probe => "probe".to_owned(),
            Step::Row(spec) => spec.row.name,
        };
        steps(wish).into_iter().map(name).collect()
    }

    #[test]
    fn every_combination_is_measured_at_every_load() {
        let names = names(&WISH);
        assert_eq!(names[..3], ["probe", "matrix/async+async/1", "matrix/async+sync/1"]);
        for in_flight in [1, 64, 512, 4096] {
            for combination in ["async+async", "async+sync", "sync+async", "sync+sync"] {
                let name = format!("matrix/{combination}/{in_flight}");
                assert_eq!(names.iter().filter(|found| **found == name).count(), 1, "{name}");
            }
        }
        assert_eq!(names.iter().filter(|name| *name == "probe").count(), 3);
        assert_eq!(names.len(), 3 + 16);
    }

    #[test]
    fn rows_can_be_picked() {
        let only = ["matrix/sync+sync/".to_owned()];
        let names = names(&Wish { only: &only, ..WISH });
        let rows: Vec<String> = names.into_iter().filter(|name| name != "probe").collect();
        assert_eq!(rows, [1, 64, 512, 4096].map(|in_flight| format!("matrix/sync+sync/{in_flight}")));
    }

    #[test]
    fn a_row_is_durable_when_an_ack_waits_for_any_disk() {
        for step in steps(&WISH) {
            let Step::Row(spec) = step else { continue };
            let waits = spec.flush == Mode::Sync || spec.replication == Mode::Sync;
            assert_eq!(spec.row.durable, waits, "{}", spec.row.name);
            assert!(durability(spec.flush, spec.replication).contains("slave"), "{}", spec.row.name);
        }
    }
}
