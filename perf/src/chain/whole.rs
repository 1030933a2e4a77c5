//! The whole chain on two brokers, from the send to the processed message: with every promise, and with none.
//!
//! | | `safe` | `fast` |
//! |---|---|---|
//! | a send | half message and commit, both answered | oneway |
//! | the leader's flush, the slave's disk | waited for | not waited for |
//! | consumption | locked queues, in order | as it comes |
//! | commits | answered as durable on both disks, one after the other for each queue | oneway, after every pull |
//!
//! In both, a message is on its way from its send until it is processed, and so many are on their way at once: a sender whose sends are not
//! answered has no other bound.

use super::bench::{ASK_AFTER_MS, Bench, Found, between, with_faults};
use super::consumer::{Consuming, PULL_MESSAGES};
use super::drive::Drive;
use super::producer::{Followed, Producing};
use super::rows::Kind;
use crate::broker_rows::{self, Subject};
use crate::cli::{Mode, Role};
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::{self, Meter};
use crate::pair::{self, Pair, Plan, Stores};
use crate::prepared::Manner;
use crate::row::{ChainUse, PairUse, RowResult};
use crate::served::Counts;

/// Members of the group; they share the topic's queues.
const MEMBERS: usize = 2;

/// Measures one row.
///
/// # Errors
/// When a broker fails, or the slave does not come into step; broken promises are not an error but a verdict.
pub(super) fn measure(safe: bool, bench: &Bench<'_>) -> Result<RowResult, PerfError> {
    let stores = Stores::make(bench.dir, bench.dir)?;
    let result = measure_in(safe, bench, &stores);
    stores.remove()?;
    result
}

fn measure_in(safe: bool, bench: &Bench<'_>, stores: &Stores) -> Result<RowResult, PerfError> {
    let row = bench.spec;
    let payloads = bench.payloads();
    let plan = Plan {
        stores: stores.clone(),
        flush: Mode::of(safe),
        replication: Mode::of(safe),
        backend: row.backend,
        segment_bytes: row.scale.segment_bytes,
        spare_count: engine_rows::spare_count(row.producers.outstanding()),
        retain_bytes: Some(row.scale.broker_retain_bytes),
        ask_after_ms: Some(ASK_AFTER_MS),
        reached: pair::free_addresses()?,
    };
    let disks = stores.disks();
    let mut pair = plan.start()?;
    let backend = pair.leader.backend.clone();
    let (topic, followed) = pair.meet()?;
    for role in [Role::Leader, Role::Slave] {
        engine_rows::wait_until_quiet(stores.of(role));
    }
    let producing = Producing {
        manner: if safe { Manner::Half } else { Manner::Oneway },
        followed: Followed::ByWhoCountsAndFrees,
        ..bench.producing(&topic, &payloads)?
    };
    let consuming = Consuming {
        topic: &topic,
        group: "perf-chain",
        members: MEMBERS,
        orderly: safe,
        pull_messages: PULL_MESSAGES,
        ends: None,
        streams: row.producers.outstanding(),
        encoding: bench.encoding,
        payloads: &payloads,
    };
    let meter = Meter::new(2);
    let drive = Drive::connect(Some(&producing), Some(&consuming), &meter)?;
    let subject = Subject { device: disks.leader.as_ref(), broker: Some(pair.leader.pid()) };
    let (mut looks, mut slave_looks, mut behind) = (Vec::new(), Vec::new(), 0);
    let (window, mut left) = bench.watch(&meter, drive, subject, || {
        looks.push(pair.leader.counts()?);
        slave_looks.push((pair.slave.counts()?, meter::cpu_time(pair.slave.pid())));
        if looks.len() == 2 {
            behind = pair::behind(&topic, &followed)?;
        }
        Ok(())
    })?;
    let live = left.verified().unwrap_or_default();
    pair::wait_in_step(&topic, &followed)?;
    end(safe, pair)?;
    let leader = plan.read_back(Role::Leader, &topic, &payloads, &mut left.sent)?;
    let slave_verified = plan.read_back(Role::Slave, &topic, &payloads, &mut left.sent)?;

    let counts: Vec<Counts> = slave_looks.iter().map(|(counts, _)| *counts).collect();
    let slave_cpu_s = match slave_looks[..] {
        [(_, Some(before)), (_, Some(after))] => Some((after - before).max(0.0)),
        _ => None,
    };
    let chain = ChainUse {
        counts: Kind::Whole { safe }.counts(),
        engine: between(&looks),
        sends: Some(left.sent.latencies.clone()),
        ..ChainUse::default()
    };
    let pair_use = PairUse {
        flush: Mode::of(safe),
        replication: Mode::of(safe),
        leader_cpu_s: window.cpu_s,
        slave_cpu_s,
        leader: chain.engine,
        slave: between(&counts),
        slave_device: None,
        shared_disk: disks.shared,
        behind,
        slave_verified,
    };
    let found = Found {
        latencies: left.processed.take().unwrap_or_else(meter::latencies),
        verified: with_faults(leader, live),
        notes: broker_rows::refusals(&left.sent),
        chain,
        window: meter::Window { cpu_s: window.cpu_s.zip(slave_cpu_s).map(|(leader, slave)| leader + slave), ..window },
    };
    Ok(RowResult { pair: Some(pair_use), ..bench.row(&row.name, backend, durability(safe), found) })
}

/// What is promised of a message of such a row.
fn durability(safe: bool) -> String {
    if safe {
        "safe: transaction, durable on both disks, processed once in order, its commit durable on both disks; both brokers were killed, then each store was read back by itself"
    } else {
        "fast: oneway, in the leader\u{2019}s memory, the slave follows, commits oneway; both brokers were stopped, then each store was read back by itself"
    }
    .to_owned()
}

/// Ends both; the leader first: it might wait for the other one.
fn end(safe: bool, pair: Pair) -> Result<(), PerfError> {
    let Pair { mut leader, mut slave } = pair;
    if safe {
        leader.kill()?;
        slave.kill()
    } else {
        leader.stop()?;
        slave.stop()
    }
}
