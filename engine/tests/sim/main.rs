//! The engine, whole, over the simulated disk and clock, driven by one seed: random batches and reads, power failures at any I/O, failing,
//! full and stalling disks, flipped bits and clocks that jump. A plain model is compared at every step and at the end.
//!
//! The seed decides everything: the options, what happens in which order, what fails and what survives. The same seed gives the same trace.
//! What is judged:
//! 1. What is acknowledged is there, in order, once; nothing is invented, and no batch is there in part.
//! 2. Watermarks keep their order and only grow; store time never runs back.
//! 3. Under synchronous flush a reader never saw what a crash took back.
//! 4. What is refused or rejected is not stored, and it is refused exactly when the model says so.
//! 5. Whatever fails, the reason is one that was planned; a failed I/O is never told as damage, nor damage as anything else.
//! 6. When the troubles are over, appends are acknowledged again.
//!
//! `plan` draws the shape of a run, `workload` its actions, `batches` what they append; `world` holds engine, disk and model together and
//! starts processes anew; `checkers` compare; `damage` flips bits. The program `examples/simulate.rs` runs the same body over any number of
//! seeds.

mod batches;
mod checkers;
mod damage;
#[cfg(test)]
mod failures;
mod model;
mod plan;
#[cfg(test)]
mod regressions;
#[cfg(test)]
mod teeth;
mod workload;
mod world;

use std::panic::AssertUnwindSafe;

use anchorlog_engine::io::sim::Survival;
use anchorlog_engine::options::Fault;

use self::model::{Outcome, Spec, demand};
use self::world::{End, World};

pub(crate) use self::world::Tally;

/// What a run left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// A hash of every action, answer and I/O.
    pub(crate) trace_hash: u64,
    pub(crate) tally: Tally,
}

/// Where and how a run failed.
#[derive(Debug)]
pub(crate) struct Failure {
    seed: u64,
    step: usize,
    what: String,
    history: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { seed, step, what, history } = self;
        write!(
            f,
            "seed {seed} failed at step {step}: {what}\nwhat went before:\n{history}run it again:\n  \
             cargo run --release -p anchorlog-engine --example simulate -- --seed {seed}"
        )
    }
}

/// Runs one seed, on an engine that breaks a promise or on a sound one.
pub(crate) fn run(seed: u64, fault: Option<Fault>) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, fault);
    let mut step = 0;
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| live(&mut world, &mut step)));
    let lived = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words")))
    });
    match lived {
        Ok(()) => Ok(Report { trace_hash: world.history.hash, tally: world.tally }),
        Err(what) => Err(Box::new(Failure { seed, step, what, history: world.history.lines() })),
    }
}

fn live(world: &mut World, step: &mut usize) -> Outcome {
    demand!(world.open()?, "an empty disk does not open");
    while *step < world.plan.steps {
        *step += 1;
        workload::act(world)?;
    }
    settle(world)?;
    world.finish();
    Ok(())
}

/// The troubles are over: everything is there, new appends are acknowledged, and the strictest of all power failures takes nothing.
fn settle(world: &mut World) -> Outcome {
    world.plan.troubles = plan::Troubles::NONE;
    world.disk.heal();
    world.disk.stay_up();
    world.lift_limits();
    // What was in flight may fail yet.
    for _ in 0..20 {
        world.step()?;
    }
    if !world.is_well() {
        let end = if world.disk.is_dead() { End::Crash(Survival::Seeded) } else { End::Kill };
        world.restart(end)?;
    }
    world.look()?;
    checkers::liveness(world)?;
    checkers::takes_again(world)?;
    checkers::everything(world)?;
    for queue in 0..world.plan.queue_count {
        let content = batches::content(world, 100);
        let spec = Spec { ops: vec![model::Op::Append { queue, content }], requires: Vec::new() };
        let taken = workload::send(world, spec)?;
        demand!(taken, "a small batch is refused although nothing waits");
    }
    checkers::liveness(world)?;
    world.engine().flush().map_err(|error| format!("flushing at the end: {error}"))?;
    world.look()?;
    world.lost.clear();
    world.restart(End::Crash(Survival::Nothing))?;
    demand!(world.lost.is_empty(), "{} flushed batches are lost", world.lost.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs some seeds; what they met must be everything that there is to meet.
    fn seeds(from: u64) {
        let mut met = Tally::default();
        for seed in from..from + 100 {
            match run(seed, None) {
                Ok(report) => met.add(&report.tally),
                Err(failure) => panic!("{failure}"),
            }
        }
        assert!(met.is_full(), "something was never met: {met}");
    }

    #[test]
    fn the_log_is_what_the_model_says_whatever_happens_seeds_0_to_99() {
        seeds(0);
    }

    #[test]
    fn the_log_is_what_the_model_says_whatever_happens_seeds_100_to_199() {
        seeds(100);
    }

    #[test]
    fn the_log_is_what_the_model_says_whatever_happens_seeds_200_to_299() {
        seeds(200);
    }

    #[test]
    fn the_log_is_what_the_model_says_whatever_happens_seeds_300_to_399() {
        seeds(300);
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_one_does_not() {
        let hash = |seed| run(seed, None).unwrap_or_else(|failure| panic!("{failure}")).trace_hash;
        let hashes: std::collections::BTreeSet<u64> = (0..20).map(hash).collect();
        assert_eq!(hashes.len(), 20);
        for seed in 0..20 {
            assert!(hashes.contains(&hash(seed)), "seed {seed} went another way the second time");
        }
    }
}
