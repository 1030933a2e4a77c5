//! The simulator catches every engine that breaks a promise, within a stated number of seeds. That it accuses no sound one is what all
//! other tests ask.

use std::sync::atomic::{AtomicUsize, Ordering};

use anchorlog_engine::options::Fault;

use super::run;

/// The windows that each opens, and seeds within which it is caught, with room for the draws to change.
const BOUNDS: [(Fault, &str, u64); Fault::ALL.len()] = [
    (Fault::AckBeforeFlush, "K-1", 50),
    (Fault::FlushBesideWrites, "K-2", 50),
    (Fault::SkipFlush, "K-1", 50),
    (Fault::NoDirectorySync, "K-15", 50),
    (Fault::PositionUnchecked, "K-22", 1500),
    (Fault::ChecksumUnchecked, "K-20, K-21", 100),
    (Fault::NoNewEpoch, "K-22", 50),
    (Fault::RetryFailedFlush, "K-4", 800),
    (Fault::NoFence, "K-3", 100),
    (Fault::NoDenseCheck, "K-34", 1500),
    (Fault::NoDurableMark, "K-19", 100),
    (Fault::CheckpointBeforeLog, "K-23", 400),
];

/// K-1 to K-4, K-15, K-19 to K-23, K-34: caught by a look at the whole, not by one that knows the fault.
#[test]
fn every_broken_promise_is_caught() {
    assert!(Fault::ALL.iter().all(|fault| BOUNDS.iter().any(|(bound, ..)| bound == fault)));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((fault, windows, bound)) = BOUNDS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let caught = (0..*bound).find_map(|seed| run(seed, Some(*fault)).err());
                    let caught =
                        caught.unwrap_or_else(|| panic!("{fault:?} ({windows}) was not caught within {bound} seeds"));
                    println!("{fault:?} ({windows}): seed {}, {}", caught.seed, caught.what);
                }
            });
        }
    });
}
