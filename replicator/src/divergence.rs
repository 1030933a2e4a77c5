//! Whether a follower's log is a prefix of the leader's, and what to do where it is not: pure, judged alike on both sides.
//!
//! An epoch is written by one leader, in one run, and its first LSN was durable before its first byte. So the same epoch at the same LSN is
//! the same bytes, and so is everything before them: the newest epoch that both logs have decides how far they agree.
//!
//! ```text
//!  leader    |---- 1.1 ----|------- 1.3 -------|---- 2.1 ---->
//!  follower  |---- 1.1 ----|------- 1.3 -----------|            cut where the leader's 1.3 ends
//!  follower  |---- 1.1 ----|------- 1.3 ----|                   goes on
//!  follower  |---- 1.1 ----|-- 1.2 --|                          cut where 1.1 ends
//! ```
//!
//! Invariants:
//! 1. What a follower was told to be committed is never cut: the leader has lost it, and the follower's log is kept, as a whole.
//! 2. A leader of an older epoch than the follower has seen is refused.
//! 3. A follower that has released more than the leader's log says begins anew: what it lacks may be referred to again.
//! 4. Nothing is cut or replaced for a log of another identity, or for one that cannot be.

use anchorlog_engine::epoch::EpochHistory;
use anchorlog_engine::{Epoch, Lsn};

use crate::message::LogState;

/// What a follower does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its log is a prefix of the leader's, which goes on from its end.
    Continue {
        /// The follower's end.
        from: Lsn,
    },
    /// What it has from `at` on is not the leader's.
    Cut {
        /// Where both logs agree up to.
        at: Lsn,
    },
    /// Nothing of it can be gone on from.
    Bootstrap {
        /// Why, for people.
        why: &'static str,
        /// What would be gone with it.
        loses: Loses,
    },
    /// It must not follow this leader.
    Refuse(Reason),
}

/// What a follower's log has and its leader's has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loses {
    /// Nothing: the leader has, or had, all of it.
    Nothing,
    /// Bytes of which nobody here can tell whether they were acknowledged.
    Something,
    /// Bytes that were acknowledged: the leader should have them.
    Acknowledged,
}

/// Why a follower must not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The logs were created apart.
    OtherLog,
    /// The follower has seen a newer epoch than the leader's.
    Newer {
        /// The one that it has seen.
        epoch: Epoch,
    },
    /// Both have an epoch that does not begin at the same place: one of the two is damaged, or was copied by hand.
    Contradiction {
        /// That epoch.
        epoch: Epoch,
    },
}

/// Compares the two logs.
#[must_use]
pub fn judge(leader: &LogState, follower: &LogState) -> Verdict {
    if leader.identity != follower.identity {
        return Verdict::Refuse(Reason::OtherLog);
    }
    let newest = |history: &EpochHistory| history.last().map(|start| start.epoch);
    match newest(&follower.history) {
        Some(epoch) if newest(&leader.history).is_none_or(|leading| epoch > leading) => {
            return Verdict::Refuse(Reason::Newer { epoch });
        }
        _ => {}
    }
    let common = match common_end(leader, follower) {
        Ok(common) => common,
        Err(epoch) => return Verdict::Refuse(Reason::Contradiction { epoch }),
    };
    let Some(common) = common else {
        let why = "no part of the two logs was written in the same epoch";
        // Who wrote what it released long ago a leader knows no more.
        let is_known = leader.history.starts().first().is_none_or(|first| follower.end > first.first_lsn);
        let is_acknowledged = is_known && follower.committed > follower.start;
        return Verdict::Bootstrap { why, loses: if is_acknowledged { Loses::Acknowledged } else { Loses::Something } };
    };
    let loses = match common {
        _ if common >= follower.end => Loses::Nothing,
        _ if common < follower.committed => Loses::Acknowledged,
        _ => Loses::Something,
    };
    if common < leader.start {
        return Verdict::Bootstrap { why: "the leader has released what follows the follower's log", loses };
    }
    if follower.start > leader.start {
        return Verdict::Bootstrap { why: "the follower has released what the leader has not", loses };
    }
    if common == follower.end {
        return Verdict::Continue { from: common };
    }
    if common < follower.start {
        return Verdict::Bootstrap { why: "the logs part before the first LSN that the follower has", loses };
    }
    if loses == Loses::Acknowledged {
        return Verdict::Bootstrap { why: "the logs part before what the follower was told to be committed", loses };
    }
    Verdict::Cut { at: common }
}

/// How far both logs were written by the same epochs.
fn common_end(leader: &LogState, follower: &LogState) -> Result<Option<Lsn>, Epoch> {
    let (ours, theirs) = (leader.history.starts(), follower.history.starts());
    if theirs.is_empty() && follower.start == follower.end {
        return Ok(Some(follower.end));
    }
    for (number, start) in theirs.iter().enumerate().rev() {
        let Ok(at) = ours.binary_search_by_key(&start.epoch, |start| start.epoch) else { continue };
        if ours[at].first_lsn != start.first_lsn {
            return Err(start.epoch);
        }
        let end_of = |starts: &[anchorlog_engine::epoch::EpochStart], number: usize, end: Lsn| {
            starts.get(number + 1).map_or(end, |next| next.first_lsn)
        };
        let (ours, theirs) = (end_of(ours, at, leader.end), end_of(theirs, number, follower.end));
        return Ok(Some(ours.min(theirs)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use anchorlog_engine::Tail;
    use anchorlog_engine::epoch::EpochStart;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Identity;

    const IDENTITY: Identity = Identity { store_id: 7, segment_bytes: 1 << 20, tail: Tail::Rewrite };

    fn log(epochs: &[(u32, u32, u64)], end: u64) -> LogState {
        let mut history = EpochHistory::default();
        for (term, run, lsn) in epochs {
            history.push(EpochStart { epoch: Epoch { term: *term, run: *run }, first_lsn: Lsn(*lsn) });
        }
        let (end, start) = (Lsn(end), Lsn::ZERO);
        LogState { identity: IDENTITY, history, start, end, durable: end, committed: start }
    }

    #[track_caller]
    fn check(leader: &LogState, follower: &LogState, expected: Verdict) {
        assert_eq!(judge(leader, follower), expected);
    }

    #[test]
    fn a_log_that_is_a_prefix_goes_on_from_its_end() {
        let leader = log(&[(1, 1, 0), (1, 3, 200), (2, 1, 500)], 900);
        for follower in [
            log(&[(1, 1, 0)], 100),
            log(&[(1, 1, 0)], 200),
            log(&[(1, 1, 0), (1, 3, 200)], 400),
            log(&[(1, 1, 0), (1, 3, 200)], 500),
            log(&[(1, 1, 0), (1, 3, 200), (2, 1, 500)], 900),
            // An epoch that stands in the history and never wrote anything.
            log(&[(1, 1, 0), (1, 2, 200)], 200),
            log(&[], 0),
        ] {
            check(&leader, &follower, Verdict::Continue { from: follower.end });
        }
    }

    // K-44, K-45.
    #[test]
    fn a_tail_that_the_leader_does_not_have_is_cut_where_the_two_part() {
        let leader = log(&[(1, 1, 0), (1, 3, 200), (2, 1, 500)], 900);
        for (follower, at) in [
            (log(&[(1, 1, 0), (1, 3, 200)], 700), 500),
            (log(&[(1, 1, 0), (1, 2, 150)], 300), 150),
            (log(&[(1, 1, 0), (1, 3, 200), (1, 4, 450)], 600), 450),
            (log(&[(1, 1, 0), (1, 2, 200)], 300), 200),
            (log(&[(1, 1, 0)], 300), 200),
            (log(&[(1, 1, 0), (1, 3, 200), (2, 1, 500)], 950), 900),
        ] {
            check(&leader, &follower, Verdict::Cut { at: Lsn(at) });
        }
    }

    // K-44, K-46.
    #[test]
    fn a_log_that_begins_anew_says_what_would_be_gone_with_it() {
        let loses = |leader: &LogState, follower: &LogState| match judge(leader, follower) {
            Verdict::Bootstrap { loses, .. } => loses,
            other => panic!("{other:?}"),
        };
        let mut leader = log(&[(1, 1, 0), (2, 1, 500)], 900);
        let mut follower = log(&[(1, 1, 0)], 700);
        follower.committed = Lsn(600);
        assert_eq!(loses(&leader, &follower), Loses::Acknowledged);
        let mut apart = log(&[(1, 2, 0)], 700);
        assert_eq!(loses(&leader, &apart), Loses::Something);
        apart.committed = Lsn(1);
        assert_eq!(loses(&leader, &apart), Loses::Acknowledged);
        leader.start = Lsn(600);
        assert_eq!(loses(&leader, &log(&[(1, 1, 0)], 400)), Loses::Nothing, "it was released");
        assert_eq!(loses(&leader, &log(&[(1, 1, 0)], 550)), Loses::Something);
        let forgetful = LogState { history: log(&[(2, 1, 500)], 900).history, ..leader };
        apart.end = Lsn(500);
        assert_eq!(loses(&forgetful, &apart), Loses::Something, "nobody knows any more who wrote what was released");
    }

    // K-46.
    #[test]
    fn a_log_that_nothing_leads_on_from_begins_anew() {
        let mut leader = log(&[(1, 1, 0), (2, 1, 500)], 900);
        leader.start = Lsn(600);
        assert!(matches!(judge(&leader, &log(&[(1, 1, 0)], 400)), Verdict::Bootstrap { .. }), "it was released");
        leader.history.trim(Lsn(600));
        assert!(matches!(judge(&leader, &log(&[(1, 1, 0)], 400)), Verdict::Bootstrap { .. }), "no common epoch");
        leader.start = Lsn(500);
        let mut follower = log(&[(1, 1, 0), (2, 1, 500)], 950);
        follower.start = Lsn(920);
        assert!(matches!(judge(&leader, &follower), Verdict::Bootstrap { .. }), "its start lies beyond");
    }

    #[test]
    fn what_was_committed_is_never_cut() {
        let leader = log(&[(1, 1, 0), (2, 1, 500)], 900);
        let mut follower = log(&[(1, 1, 0)], 700);
        follower.committed = Lsn(500);
        check(&leader, &follower, Verdict::Cut { at: Lsn(500) });
        follower.committed = Lsn(508);
        assert!(matches!(judge(&leader, &follower), Verdict::Bootstrap { .. }));
    }

    // K-49.
    #[test]
    fn a_leader_of_an_older_epoch_another_log_or_an_impossible_one_is_refused() {
        let leader = log(&[(1, 1, 0), (2, 1, 500)], 900);
        let newer = Epoch { term: 2, run: 2 };
        check(&leader, &log(&[(1, 1, 0), (2, 2, 500)], 600), Verdict::Refuse(Reason::Newer { epoch: newer }));
        check(&leader, &log(&[(1, 1, 0), (2, 2, 500)], 500), Verdict::Refuse(Reason::Newer { epoch: newer }));
        let mut other = log(&[(1, 1, 0)], 100);
        other.identity.store_id = 8;
        check(&leader, &other, Verdict::Refuse(Reason::OtherLog));
        let epoch = Epoch { term: 2, run: 1 };
        check(&leader, &log(&[(1, 1, 0), (2, 1, 400)], 600), Verdict::Refuse(Reason::Contradiction { epoch }));
    }

    /// What leaders write: each takes the log of another as far as that goes, cut somewhere, and writes on in a newer epoch. A log is the
    /// epoch of each of its bytes.
    fn grown(steps: &[(usize, usize, usize)]) -> Vec<(Vec<u32>, LogState)> {
        let mut logs: Vec<Vec<u32>> = vec![Vec::new()];
        for (term, (from, cut, len)) in (1_u32..).zip(steps) {
            let mut log = logs[from % logs.len()].clone();
            log.truncate(log.len().saturating_sub(*cut));
            log.resize(log.len() + len, term);
            logs.push(log);
        }
        let described = logs.into_iter().map(|bytes| {
            let mut epochs = Vec::new();
            for (at, term) in (0_u64..).zip(&bytes) {
                if epochs.last().is_none_or(|(last, _, _)| last != term) {
                    epochs.push((*term, 1, at));
                }
            }
            let state = log(&epochs, bytes.len() as u64);
            (bytes, state)
        });
        described.collect()
    }

    proptest! {
        #[test]
        fn the_verdict_is_what_comparing_every_byte_says(
            steps in proptest::collection::vec((0_usize..8, 0_usize..12, 1_usize..10), 1..8),
            from in 0_usize..8, shorter in 0_usize..10,
        ) {
            let logs = grown(&steps);
            let (leader_bytes, leader) = logs.last().unwrap();
            let (follower_bytes, _) = &logs[from % logs.len()];
            let end = follower_bytes.len().saturating_sub(shorter);
            let mut follower = logs[from % logs.len()].1.clone();
            let kept: Vec<_> =
                follower.history.starts().iter().filter(|start| start.first_lsn.0 < end as u64).copied().collect();
            follower.history = EpochHistory::default();
            kept.into_iter().for_each(|start| follower.history.push(start));
            follower.end = Lsn(end as u64);
            follower.durable = follower.end;
            let same = leader_bytes.iter().zip(&follower_bytes[..end]).take_while(|(one, other)| one == other).count();
            let expected = match same as u64 {
                common if common == follower.end.0 => Verdict::Continue { from: follower.end },
                0 => Verdict::Bootstrap {
                    why: "no part of the two logs was written in the same epoch",
                    loses: Loses::Something,
                },
                common => Verdict::Cut { at: Lsn(common) },
            };
            prop_assert_eq!(judge(leader, &follower), expected);
        }
    }
}
