//! What counts as replicated: pure arithmetic over what followers acknowledge.
//!
//! Invariants:
//! 1. An acknowledgement counts under the leader's own epoch only: what was said to another leader, or to this one before it was opened
//!    again, is about a log that may have gone another way.
//! 2. It counts only when it covers the first frame of that epoch: everything below belongs to older epochs, and whether *they* can
//!    still be overruled is decided by that frame alone.
//! 3. One id, one vote.
//! 4. With `n` copies, what is replicated is durable on the `n - 1` best followers that count, at least.

use std::collections::BTreeMap;

use anchorlog_engine::{Epoch, Lsn};

use crate::fault::{Broken, Fault};
use crate::member::ReplicaId;

/// What followers have acknowledged to the leader of one epoch.
#[derive(Clone, Debug)]
pub struct Votes {
    epoch: Epoch,
    begun: Lsn,
    durable: BTreeMap<ReplicaId, Lsn>,
    broken: Broken,
}

impl Votes {
    /// No votes yet, for an epoch whose first frame ends at `begun`.
    #[must_use]
    pub fn new(epoch: Epoch, begun: Lsn) -> Votes {
        Votes { epoch, begun, durable: BTreeMap::new(), broken: Broken::default() }
    }

    pub(crate) fn broken(self, broken: Broken) -> Votes {
        Votes { broken, ..self }
    }

    /// A follower says, under `epoch`, that its log is durable up to `durable`. What it said before is forgotten. False when it does not
    /// count (yet).
    pub fn ack(&mut self, replica: &ReplicaId, epoch: Epoch, durable: Lsn) -> bool {
        let ours = epoch == self.epoch || self.broken.is(Fault::EpochUnchecked);
        let covers = durable >= self.begun || self.broken.is(Fault::EpochUnchecked);
        if ours && covers {
            self.durable.insert(replica.clone(), durable);
        } else {
            self.durable.remove(replica);
        }
        ours && covers
    }

    /// A follower's word counts no more.
    pub fn withdraw(&mut self, replica: &ReplicaId) {
        self.durable.remove(replica);
    }

    /// How far the log is durable on at least `followers` of those that count; `None` when there are not as many, or none is needed.
    #[must_use]
    pub fn replicated(&self, followers: u32, counts: impl Fn(&ReplicaId) -> bool) -> Option<Lsn> {
        let mut found: Vec<Lsn> =
            self.durable.iter().filter(|(replica, _)| counts(replica)).map(|(_, lsn)| *lsn).collect();
        if self.broken.is(Fault::CountTwice) {
            found.extend_from_within(..);
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        let last = usize::try_from(followers).ok()?.checked_sub(1)?;
        found.get(last).copied()
    }
}

/// How many answers a promotion needs so that one of them must hold everything that was acknowledged: of `followers` members, the leader
/// not among them, with `copies` copies of what is acknowledged, the leader's included.
///
/// `None` when no number of them is enough: with one copy only the leader has it.
#[must_use]
pub const fn promotion_quorum(followers: u32, copies: u32) -> Option<u32> {
    match copies {
        0 | 1 => None,
        _ if copies - 1 > followers => None,
        _ => Some(followers - (copies - 1) + 1),
    }
}

/// Terms are shared out among so many names. A promotion raises the term by this at most: there are more than a million of them.
pub const TERM_SLOTS: u32 = 4096;

const _: () = assert!(TERM_SLOTS.is_power_of_two() && u32::MAX / TERM_SLOTS > 1_000_000);

/// Which terms are a replica's own: those that leave this when they are divided by [`TERM_SLOTS`].
///
/// It follows from the name alone. Who is a member is seen by each node as far as it has the log: were it the place among them, then two
/// that see different members could have the same.
#[must_use]
pub fn term_slot(replica: &ReplicaId) -> u32 {
    crc32fast::hash(replica.as_str().as_bytes()) % TERM_SLOTS
}

/// Two of `replicas` that would lead in the same terms, if there are any.
pub fn same_terms<'a>(replicas: impl IntoIterator<Item = &'a ReplicaId>) -> Option<(&'a ReplicaId, &'a ReplicaId)> {
    let mut owners: BTreeMap<u32, &ReplicaId> = BTreeMap::new();
    replicas.into_iter().find_map(|replica| {
        let owner = *owners.entry(term_slot(replica)).or_insert(replica);
        (owner != replica).then_some((owner, replica))
    })
}

/// The lowest term above `known` that is `candidate`'s own: no other member ever leads in it, whatever members either knows of. `None`
/// when terms have come to an end.
///
/// With as many copies as nodes one answer is enough for a promotion, so two nodes that cannot reach each other may both be promoted.
/// That is harmless, nothing is acknowledged without all of them, as long as their epochs differ: the same epoch at the same LSN must be
/// the same bytes.
#[must_use]
pub fn next_term(known: u32, candidate: &ReplicaId) -> Option<u32> {
    let step = (term_slot(candidate) + TERM_SLOTS - known % TERM_SLOTS) % TERM_SLOTS;
    known.checked_add(if step == 0 { TERM_SLOTS } else { step })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Epoch = Epoch { term: 3, run: 2 };

    fn id(number: usize) -> ReplicaId {
        format!("r{number}").parse().unwrap()
    }

    fn votes(durable: &[u64]) -> Votes {
        let mut votes = Votes::new(EPOCH, Lsn(100));
        for (number, lsn) in durable.iter().enumerate() {
            votes.ack(&id(number), EPOCH, Lsn(*lsn));
        }
        votes
    }

    #[test]
    fn what_is_replicated_is_on_as_many_disks_as_the_policy_says() {
        let votes = votes(&[500, 300, 400]);
        let all = |_: &ReplicaId| true;
        assert_eq!(votes.replicated(0, all), None);
        assert_eq!(votes.replicated(1, all), Some(Lsn(500)));
        assert_eq!(votes.replicated(2, all), Some(Lsn(400)));
        assert_eq!(votes.replicated(3, all), Some(Lsn(300)));
        assert_eq!(votes.replicated(4, all), None);
        assert_eq!(
            votes.replicated(2, |replica| *replica != id(0)),
            Some(Lsn(300)),
            "who is not in sync does not count"
        );
    }

    // K-47: two connections, or two machines, with one id.
    #[test]
    fn one_id_has_one_vote_however_often_it_speaks() {
        let mut votes = votes(&[500]);
        assert!(votes.ack(&id(0), EPOCH, Lsn(600)));
        assert_eq!(votes.replicated(2, |_| true), None);
        assert_eq!(votes.replicated(1, |_| true), Some(Lsn(600)));
        assert!(votes.ack(&id(0), EPOCH, Lsn(200)), "it began anew, and has less");
        assert_eq!(votes.replicated(1, |_| true), Some(Lsn(200)));
        votes.withdraw(&id(0));
        assert_eq!(votes.replicated(1, |_| true), None);
    }

    // K-49, K-42: what was said to another leader is about another log.
    #[test]
    fn an_ack_counts_under_the_leaders_epoch_only_and_not_below_its_first_frame() {
        for epoch in [Epoch { term: 2, run: 9 }, Epoch { term: 3, run: 1 }, Epoch { term: 4, run: 1 }] {
            let mut votes = votes(&[]);
            assert!(!votes.ack(&id(0), epoch, Lsn(500)));
            assert_eq!(votes.replicated(1, |_| true), None);
        }
        let mut votes = votes(&[500]);
        assert!(!votes.ack(&id(0), EPOCH, Lsn(99)), "the epoch's first frame is not covered");
        assert_eq!(votes.replicated(1, |_| true), None);
        assert!(votes.ack(&id(0), EPOCH, Lsn(100)));
    }

    #[test]
    fn a_promotion_asks_so_many_that_one_must_hold_what_is_acknowledged() {
        assert_eq!(promotion_quorum(2, 2), Some(2), "either of two may hold it");
        assert_eq!(promotion_quorum(2, 3), Some(1), "both hold it");
        assert_eq!(promotion_quorum(1, 2), Some(1));
        assert_eq!(promotion_quorum(4, 3), Some(3));
        assert_eq!(promotion_quorum(2, 1), None);
        assert_eq!(promotion_quorum(1, 3), None);
    }

    #[test]
    fn no_two_members_ever_choose_the_same_term_whatever_members_they_know_of() {
        let members: Vec<ReplicaId> = (0..32).map(id).collect();
        assert_eq!(same_terms(&members), None);
        for known in [1, 2, 31, 32, 33, 1000, 5000] {
            let terms: Vec<u32> = members.iter().map(|id| next_term(known, id).unwrap()).collect();
            let different: std::collections::BTreeSet<u32> = terms.iter().copied().collect();
            assert_eq!(different.len(), 32, "{terms:?}");
            assert!(terms.iter().all(|term| *term > known && *term <= known + TERM_SLOTS), "{terms:?} above {known}");
            // Of different beginnings, too: what one has heard of need not be what the other has.
            let later = next_term(known + 7, &members[1]).unwrap();
            assert!(terms.iter().enumerate().all(|(place, term)| place == 1 || *term != later), "{later} of {terms:?}");
        }
        assert_eq!(next_term(u32::MAX - 1, &id(0)), None);
    }

    // The terms of a name are as durable as the log: another version of this program must know them as well.
    #[test]
    fn the_terms_of_a_name_stay_what_they_are() {
        let slots: Vec<u32> = ["a", "b", "c"].map(|name| term_slot(&name.parse().unwrap())).to_vec();
        assert_eq!(slots, [3651, 4089, 3951]);
    }

    #[test]
    fn names_that_would_lead_in_the_same_terms_are_found() {
        let ids: Vec<ReplicaId> = (0..5000).map(id).collect();
        let (one, other) = same_terms(&ids).expect("so many names do not fit without");
        assert!(one != other && term_slot(one) == term_slot(other), "{one} and {other}");
        assert_eq!(same_terms([one, one]), None, "one name is no two");
    }

    proptest! {
        #[test]
        fn enough_disks_hold_what_is_called_replicated(
            durable in proptest::collection::vec(1_u64..50, 0..6), followers in 1_u32..5, silent in 0_usize..6,
        ) {
            let durable: Vec<u64> = durable.iter().map(|lsn| 100 + lsn).collect();
            let counts = |replica: &ReplicaId| *replica != id(silent);
            let found = votes(&durable).replicated(followers, counts);
            let holders = |lsn: u64| {
                let of = durable.iter().enumerate().filter(|(number, _)| *number != silent);
                of.filter(|(_, durable)| **durable >= lsn).count()
            };
            let followers = usize::try_from(followers).unwrap();
            match found {
                Some(lsn) => {
                    prop_assert!(holders(lsn.0) >= followers);
                    prop_assert!(holders(lsn.0 + 1) < followers, "more could be promised");
                }
                None => prop_assert!(holders(0) < followers),
            }
        }

        #[test]
        fn a_promotion_quorum_meets_every_set_that_could_hold_an_acknowledgement(followers in 1_u32..8, copies in 2_u32..8) {
            match promotion_quorum(followers, copies) {
                // Those who are not asked are too few to be all of its holders.
                Some(quorum) => prop_assert!(quorum >= 1 && quorum <= followers && followers - quorum < copies - 1),
                None => prop_assert!(copies - 1 > followers),
            }
        }
    }
}
