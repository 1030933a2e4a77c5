//! The broker's features under a seed: sends, halves and verdicts, delays, send-backs, offsets and locks, with the power failing at any
//! I/O, compared with a plain model.
//!
//! 1. What was answered 0 is there from then on, once, in its place, across every crash; what was refused never is; what was not answered
//!    is there once or not at all.
//! 2. Nobody sees a half message that is not committed, a message before its time, or one that was taken back.
//! 3. What falls due is done by the end of the pass of time in which it does, once: deliveries, retries, dead letters, parked halves.
//! 4. An answered commit of an offset outlives the crash; no two clients count on one lock at a time.
//! 5. What is sent again because its answer was lost, with the broker or with the connection, is there once, and answered alike.
//! 6. The same seed does the same, I/O for I/O.
//!
//! ```text
//!  draws --> Run --requests, I/O by I/O--> Scene (router, timer, engine, simulated disk and clock)
//!             |  <------- answers, questions, queues as a consumer reads them -----'
//!             '--> Messages, Progress, Leases (the model): told all of it, and fail where it cannot be
//! ```
//! `ANCHORLOG_CHAIN_SEEDS=1000..2000 cargo test -p anchorlog --lib simulation` runs other seeds; a failure names its own.

mod leases;
mod messages;
mod progress;
mod run;

use run::{Memory, Outcome, run};

/// Seeds of the ordinary run.
const SEEDS: std::ops::Range<u64> = 0..100;
/// Seeds that are run twice.
const TWICE: std::ops::Range<u64> = 0..5;

/// The seeds that somebody asked for, or the ordinary ones.
fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("ANCHORLOG_CHAIN_SEEDS") else { return SEEDS };
    let number = |text: &str| text.trim().parse::<u64>().expect("ANCHORLOG_CHAIN_SEEDS is FROM..TO, or one seed");
    match asked.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&asked)..number(&asked) + 1,
    }
}

/// Ends the test at the first seed that fails, with its trace.
#[track_caller]
fn passes(seed: u64) -> Outcome {
    let outcome = run(seed, Memory::Whole);
    if let Some(violation) = &outcome.violation {
        let tail: Vec<_> = outcome.trace.iter().rev().take(60).rev().map(String::as_str).collect();
        panic!(
            "seed {seed}: {violation}\n{}\nagain: ANCHORLOG_CHAIN_SEEDS={seed} cargo test -p anchorlog --lib simulation",
            tail.join("\n")
        );
    }
    outcome
}

/// K-6 to K-8, K-70, K-80, K-81, K-83, K-84, K-86 and K-88 to K-93, all at once and with any number of crashes.
#[test]
fn no_seed_finds_a_message_lost_doubled_or_shown_that_must_not_be() {
    let asked = seeds();
    let mut total = run::Tally::default();
    for seed in asked.clone() {
        total.add(&passes(seed).tally);
    }
    println!("{} seeds passed: {total:?}", asked.count());
    if seeds() == SEEDS {
        // Seeds that meet nothing prove nothing.
        assert!(total.crashes > 100 && total.crashes_in_recovery > 10 && total.unanswered > 100, "{total:?}");
        assert!(
            total.committed > 50 && total.rolled_back > 50 && total.questions > 50 && total.parked > 10,
            "{total:?}"
        );
        assert!(total.delayed > 100 && total.recalled > 10 && total.retried > 100 && total.dead > 20, "{total:?}");
        assert!(total.commits > 100 && total.locks > 100, "{total:?}");
        assert!(total.resent > 200 && total.repeats > 50, "{total:?}");
    }
}

/// K-6 to K-8: what a broker does that forgets what was sent to it.
#[test]
fn a_broker_that_forgets_what_was_sent_is_caught() {
    for memory in [Memory::OfOneLife, Memory::None] {
        let caught = (0..30).find_map(|seed| run(seed, memory).violation.map(|violation| (seed, violation)));
        let (seed, violation) = caught.unwrap_or_else(|| panic!("{memory:?} was not caught"));
        println!("{memory:?}: seed {seed}, {violation}");
    }
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in TWICE {
        let (first, second) = (passes(seed), passes(seed));
        let differs = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed} differs from {:?} on", differs.map(|at| &first.trace[at..=at]));
        assert_eq!((first.trace.len(), first.disk_hash), (second.trace.len(), second.disk_hash), "seed {seed}");
    }
}
