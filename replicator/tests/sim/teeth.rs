//! The simulator catches a cluster that breaks a promise, within a stated number of seeds.

use anchorlog_engine::options;
use anchorlog_replicator::Fault;

use crate::run;
use crate::world::Tooth;

/// Seeds within which each is caught, with room for the draws to change. [`Fault::EpochUnchecked`] needs a connection that ends between two
/// certain frames: `links/counting.rs` has that.
const BOUNDS: [(Tooth, u64); 11] = [
    (Tooth::Replicator(Fault::AckOnReceive), 20),
    (Tooth::Replicator(Fault::CountTwice), 40),
    (Tooth::Replicator(Fault::HistoryUnchecked), 60),
    (Tooth::Replicator(Fault::DegradeSilently), 20),
    (Tooth::Followers(options::Fault::SkipFlush), 40),
    (Tooth::Leaders(options::Fault::NoNewEpoch), 60),
    (Tooth::Followers(options::Fault::ChecksumUnchecked), 20),
    (Tooth::Replicator(Fault::SpaceUnheeded), 20),
    (Tooth::Replicator(Fault::MembersAtOnce), 60),
    (Tooth::FormerCounts, 40),
    (Tooth::UnsafeUnsaid, 20),
];

/// Each of K-39 to K-49 is such a broken promise.
#[test]
fn every_broken_promise_is_caught() {
    for (tooth, bound) in BOUNDS {
        let caught = (0..bound).find_map(|seed| run(seed, Some(tooth)).err());
        let caught = caught.unwrap_or_else(|| panic!("{tooth:?} was not caught within {bound} seeds"));
        println!("{tooth:?}: seed {}, {}", caught.seed, caught.what);
    }
}
