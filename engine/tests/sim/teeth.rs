//! The simulator catches every engine that breaks a promise, within a stated number of seeds. That it accuses no sound one is what all
//! other tests ask.

use std::sync::atomic::{AtomicUsize, Ordering};

use anchorlog_engine::options::Fault;

use super::run;

/// Seeds within which each is caught, with room for the draws to change.
const BOUNDS: [(Fault, u64); Fault::ALL.len()] = [
    (Fault::AckBeforeFlush, 50),
    (Fault::FlushBesideWrites, 50),
    (Fault::SkipFlush, 50),
    (Fault::NoDirectorySync, 50),
    (Fault::PositionUnchecked, 1500),
    (Fault::ChecksumUnchecked, 100),
    (Fault::NoNewEpoch, 50),
    (Fault::RetryFailedFlush, 800),
    (Fault::NoFence, 100),
    (Fault::NoDenseCheck, 1500),
    (Fault::NoDurableMark, 100),
    (Fault::CheckpointBeforeLog, 400),
];

/// Caught by a look at the whole, not by one that knows the fault: each of K-3, K-4, K-15, K-19 to K-22 and K-34 is such a broken promise.
#[test]
fn every_broken_promise_is_caught() {
    assert!(Fault::ALL.iter().all(|fault| BOUNDS.iter().any(|(bound, _)| bound == fault)));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((fault, bound)) = BOUNDS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let caught = (0..*bound).find_map(|seed| run(seed, Some(*fault)).err());
                    let caught = caught.unwrap_or_else(|| panic!("{fault:?} was not caught within {bound} seeds"));
                    println!("{fault:?}: seed {}, {}", caught.seed, caught.what);
                }
            });
        }
    });
}
