//! Whether a node may lead: pure.
//!
//! Each acknowledged byte is on `copies` members' disks. So of any `members - copies + 1` of them one holds it, and the one with the
//! highest (last epoch, LSN) among them holds all. What was acknowledged by the leader alone, by policy or by a policy that degrades, only
//! that leader holds.
//!
//! Invariants:
//! 1. Only members of the log count, each once; whoever answers has promised to follow nobody of a lower term. Who has no log holds
//!    nothing, and does not count; nor does who was seeded and is not back at where its leader's log ended then.
//! 2. A former leader that may have lost what it acknowledged does not count as one of those who hold it.
//! 3. Logs are compared by (last epoch, LSN), never by LSN alone.

use std::collections::{BTreeMap, BTreeSet};

use anchorlog_engine::{Epoch, Lsn};

use crate::member::ReplicaId;
use crate::message::LogState;
use crate::policy::{OnMissing, Policy};
use crate::quorum::promotion_quorum;

/// How far a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    /// Who wrote its last durable byte.
    pub(crate) epoch: Epoch,
    /// How far it is durable.
    pub(crate) durable: Lsn,
}

impl Standing {
    pub(crate) fn of(log: &LogState) -> Standing {
        let (epoch, durable) = log.reach();
        Standing { epoch, durable }
    }
}

/// What is known when a node is asked to lead.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) candidate: &'a ReplicaId,
    /// None while its own log does not count.
    pub(crate) standing: Option<Standing>,
    /// All of them, the candidate among them.
    pub(crate) members: &'a BTreeSet<ReplicaId>,
    pub(crate) policy: Policy,
    /// Who led last, where that is known.
    pub(crate) former: Option<&'a ReplicaId>,
    /// Whether that one still has all that it acknowledged: it flushes first, or has stepped down in order.
    pub(crate) former_is_whole: bool,
    /// What the others have; none for a member without a log.
    pub(crate) answers: &'a BTreeMap<ReplicaId, Option<Standing>>,
}

/// Why a node must not lead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0} is no member of this log")]
    NoMember(ReplicaId),
    #[error("{0} is not whole: it was seeded, and has not come to where its leader's log ended then")]
    NotWhole(ReplicaId),
    #[error(
        "{by} has more of the log (epoch {}, LSN {}; here: epoch {}, LSN {}): promote {by}",
        .theirs.epoch, .theirs.durable, .ours.epoch, .ours.durable
    )]
    Behind { by: ReplicaId, theirs: Standing, ours: Standing },
    #[error("{counted} of the members count and {needed} must: something acknowledged may be on none of them")]
    TooFew { counted: usize, needed: usize },
    #[error("the former leader {} has not answered, and may have acknowledged what no other node has: demote it first", name(.0.as_ref()))]
    FormerLeader(Option<ReplicaId>),
}

fn name(replica: Option<&ReplicaId>) -> String {
    replica.map_or_else(|| "(unknown)".to_owned(), ReplicaId::to_string)
}

/// Whether the candidate may lead.
pub(crate) fn judge(case: &Case<'_>) -> Result<(), Refused> {
    if !case.members.contains(case.candidate) {
        return Err(Refused::NoMember(case.candidate.clone()));
    }
    let ours = case.standing.ok_or_else(|| Refused::NotWhole(case.candidate.clone()))?;
    let others =
        case.answers.iter().filter(|(replica, _)| case.members.contains(*replica) && *replica != case.candidate);
    let best = others.clone().filter_map(|(replica, standing)| standing.map(|standing| (standing, replica))).max();
    if let Some((theirs, by)) = best
        && theirs > ours
    {
        return Err(Refused::Behind { by: by.clone(), theirs, ours });
    }
    let holders = others.filter(|(_, standing)| standing.is_some()).map(|(replica, _)| replica);
    let present: BTreeSet<&ReplicaId> = holders.chain(std::iter::once(case.candidate)).collect();
    let (copies, asks_former) = match case.policy {
        Policy::Async => (1, true),
        Policy::Sync { copies, on_missing } => (copies, on_missing == OnMissing::Degrade),
    };
    let everybody = present.len() == case.members.len();
    if asks_former {
        let is_there = case.former.map_or(everybody, |former| present.contains(former));
        if !is_there || !case.former_is_whole {
            return Err(Refused::FormerLeader(case.former.cloned()));
        }
    }
    if copies <= 1 {
        return Ok(());
    }
    let lost = match case.former {
        _ if case.former_is_whole => 0,
        // It may be any of them.
        None => 1,
        Some(former) => usize::from(present.contains(former)),
    };
    let counted = present.len() - lost;
    let followers = u32::try_from(case.members.len() - 1).unwrap_or(u32::MAX);
    let needed =
        promotion_quorum(followers, copies).map_or(usize::MAX, |needed| usize::try_from(needed).unwrap_or(usize::MAX));
    if counted < needed { Err(Refused::TooFew { counted, needed }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSING: OnMissing = OnMissing::Refuse;

    fn id(name: &str) -> ReplicaId {
        name.parse().unwrap()
    }

    fn at(term: u32, run: u32, lsn: u64) -> Standing {
        Standing { epoch: Epoch { term, run }, durable: Lsn(lsn) }
    }

    /// Asks `b` of the members `a`, `b`, `c` …, whose leader was `a`, to lead with a log of epoch 1.1 up to 100.
    fn ask(members: &str, policy: Policy, answers: &[(&str, Option<Standing>)], is_whole: bool) -> Result<(), Refused> {
        let members = members.chars().map(|name| id(&name.to_string())).collect();
        let answers = answers.iter().map(|(name, standing)| (id(name), *standing)).collect();
        judge(&Case {
            candidate: &id("b"),
            standing: Some(at(1, 1, 100)),
            members: &members,
            policy,
            former: Some(&id("a")),
            former_is_whole: is_whole,
            answers: &answers,
        })
    }

    const fn sync(copies: u32) -> Policy {
        Policy::Sync { copies, on_missing: REFUSING }
    }

    #[test]
    fn as_many_must_answer_that_one_of_them_holds_what_was_acknowledged() {
        let here = Some(at(1, 1, 90));
        let few = |counted, needed| Err(Refused::TooFew { counted, needed });
        assert_eq!(ask("ab", sync(2), &[], true), Ok(()), "of two, each holds everything");
        assert_eq!(ask("abc", sync(2), &[], true), few(1, 2));
        assert_eq!(ask("abc", sync(2), &[("c", here)], true), Ok(()));
        assert_eq!(ask("abc", sync(3), &[], true), Ok(()));
        assert_eq!(ask("abcde", sync(2), &[("c", here), ("d", here)], true), few(3, 4));
        assert_eq!(ask("abcde", sync(3), &[("c", here), ("d", here)], true), Ok(()));
        assert_eq!(ask("abc", sync(2), &[("x", here)], true), few(1, 2), "a stranger");
        assert_eq!(ask("acd", sync(2), &[("c", here)], true), Err(Refused::NoMember(id("b"))));
        assert_eq!(ask("abc", sync(2), &[("c", None)], true), few(1, 2), "it was wiped, or has never had anything");
    }

    #[test]
    fn a_former_leader_counts_only_while_it_has_all_that_it_acknowledged() {
        let here = Some(at(1, 1, 90));
        assert_eq!(ask("abc", sync(2), &[("a", here)], true), Ok(()));
        let refused = ask("abc", sync(2), &[("a", here)], false);
        assert_eq!(refused, Err(Refused::TooFew { counted: 1, needed: 2 }));
        assert_eq!(ask("abc", sync(2), &[("a", here), ("c", here)], false), Ok(()));
    }

    #[test]
    fn the_highest_last_epoch_comes_before_the_highest_lsn() {
        for (theirs, is_ahead) in
            [(at(1, 1, 100), false), (at(1, 1, 101), true), (at(1, 2, 50), true), (at(0, 9, 900), false)]
        {
            let outcome = ask("abc", sync(2), &[("c", Some(theirs))], true);
            let expected =
                if is_ahead { Err(Refused::Behind { by: id("c"), theirs, ours: at(1, 1, 100) }) } else { Ok(()) };
            assert_eq!(outcome, expected, "{theirs:?}");
        }
    }

    #[test]
    fn what_a_leader_acknowledged_alone_needs_that_leader() {
        let here = Some(at(1, 1, 100));
        let degrading = Policy::Sync { copies: 2, on_missing: OnMissing::Degrade };
        for policy in [Policy::Async, degrading] {
            let missing = Err(Refused::FormerLeader(Some(id("a"))));
            assert_eq!(ask("abc", policy, &[("c", here)], true), missing);
            assert_eq!(ask("abc", policy, &[("a", here)], false), missing);
            assert_eq!(ask("abc", policy, &[("a", here)], true), Ok(()));
        }
        let text = ask("abc", Policy::Async, &[], true).unwrap_err().to_string();
        assert!(text.contains("former leader a has not answered"), "{text}");
    }

    // K-29.
    #[test]
    fn who_was_seeded_and_is_not_whole_does_not_lead() {
        let (candidate, answers) = (id("b"), BTreeMap::new());
        let members = ["a", "b"].into_iter().map(id).collect();
        let case = |standing| Case {
            candidate: &candidate,
            standing,
            members: &members,
            policy: sync(2),
            former: None,
            former_is_whole: true,
            answers: &answers,
        };
        assert_eq!(judge(&case(Some(at(1, 1, 100)))), Ok(()));
        assert_eq!(judge(&case(None)), Err(Refused::NotWhole(candidate.clone())));
    }

    #[test]
    fn where_nobody_knows_who_led_one_of_those_who_answer_does_not_count() {
        let (candidate, answers) = (id("b"), BTreeMap::from([(id("c"), Some(at(1, 1, 1)))]));
        let members = ["a", "b", "c"].into_iter().map(id).collect();
        let case = |policy, former_is_whole| Case {
            candidate: &candidate,
            standing: Some(at(1, 1, 100)),
            members: &members,
            policy,
            former: None,
            former_is_whole,
            answers: &answers,
        };
        assert_eq!(judge(&case(sync(2), true)), Ok(()));
        assert_eq!(judge(&case(sync(2), false)), Err(Refused::TooFew { counted: 1, needed: 2 }));
        assert_eq!(judge(&case(Policy::Async, true)), Err(Refused::FormerLeader(None)));
    }
}
