//! A cluster of three, whole, over simulated disks, a simulated network and one simulated clock, driven by one seed: appends, power
//! failures of one node and of all, killed and paused processes, partitions in one direction and in both, delays, lost connections that
//! one side does not notice, damaged bytes, full, stalling and lost disks, promotions in the middle of all of it. A plain model is asked
//! at every step.
//!
//! The seed decides everything. What is judged:
//! 1. What is acknowledged, and what a reader of any node was shown, is durable on as many nodes as the policy says, and stays in the
//!    log of every later leader.
//! 2. No two nodes lead in one term, or ask to; none acknowledges in another one's epoch.
//! 3. Logs are the same bytes as far as both know them to be committed; nothing committed is ever cut.
//! 4. What a node called durable is there after its power failed.
//! 5. When the troubles are over, every node follows, appends are acknowledged, and all logs are equal to the last byte.
//!
//! `ANCHORLOG_CLUSTER_SEEDS=1000..2000 cargo test -p anchorlog-replicator --test sim what_is` runs other seeds.
//!
//! `world` holds the nodes and does what they decide; `network` carries bytes; `model` judges; `actions` are what happens, and how often.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

mod actions;
mod leading;
mod model;
mod network;
mod plan;
mod settling;
mod tally;
mod teeth;
mod world;

use std::panic::AssertUnwindSafe;

use self::model::Outcome;
use self::plan::Plan;
use self::tally::Tally;
use self::world::{Tooth, World};

/// Where and how a run failed.
#[derive(Debug)]
pub(crate) struct Failure {
    seed: u64,
    step: usize,
    what: String,
    plan: Plan,
    history: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { seed, step, what, plan, history } = self;
        write!(f, "seed {seed} failed at step {step}: {what}\n{plan:?}\nwhat went before:\n{history}")
    }
}

/// Runs one seed, on nodes that break a promise or on sound ones; a hash of everything that happened, and how much of each.
pub(crate) fn run(seed: u64, tooth: Option<Tooth>) -> Result<(u64, Tally), Box<Failure>> {
    let mut world = World::new(seed, tooth);
    let mut step = 0;
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| live(&mut world, &mut step)));
    let lived = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words")))
    });
    match lived {
        Ok(()) => Ok((world.trace_hash(), world.tally)),
        Err(what) => Err(Box::new(Failure { seed, step, what, plan: world.plan, history: world.history.lines() })),
    }
}

fn live(world: &mut World, step: &mut usize) -> Outcome {
    world.found()?;
    for _ in 0..world.plan.steps {
        *step += 1;
        actions::act(world)?;
        world.step()?;
        world.mourn();
    }
    world.settle()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// The seeds that somebody asked for, once; or fifty.
    fn range(from: u64) -> Range<u64> {
        let Ok(asked) = std::env::var("ANCHORLOG_CLUSTER_SEEDS") else { return from..from + 50 };
        let number = |text: &str| text.parse().expect("ANCHORLOG_CLUSTER_SEEDS is FROM..TO, or one seed");
        match asked.split_once("..") {
            _ if from > 0 => 0..0,
            Some((from, to)) => number(from)..number(to),
            None => number(&asked)..number(&asked) + 1,
        }
    }

    fn seeds(from: u64) {
        let mut met = Tally::default();
        for seed in range(from) {
            match run(seed, None) {
                Ok((_, tally)) => met.add(&tally),
                Err(failure) => panic!("{failure}"),
            }
        }
        println!("{met}");
        assert!(range(from) != (from..from + 50) || met.is_full(), "something was never met: {met}");
    }

    #[test]
    fn what_is_acknowledged_survives_whatever_happens_seeds_0_to_49() {
        seeds(0);
    }

    #[test]
    fn what_is_acknowledged_survives_whatever_happens_seeds_50_to_99() {
        seeds(50);
    }

    #[test]
    fn what_is_acknowledged_survives_whatever_happens_seeds_100_to_149() {
        seeds(100);
    }

    #[test]
    fn what_is_acknowledged_survives_whatever_happens_seeds_150_to_199() {
        seeds(150);
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_one_does_not() {
        let hash = |seed| run(seed, None).unwrap_or_else(|failure| panic!("{failure}")).0;
        let hashes: Vec<u64> = (0..5).map(hash).collect();
        let different: std::collections::BTreeSet<u64> = hashes.iter().copied().collect();
        assert_eq!(different.len(), 5);
        assert_eq!((0..5).map(hash).collect::<Vec<u64>>(), hashes);
    }
}
