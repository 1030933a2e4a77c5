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
//! 4. While a change of members stands in the log, and nobody here knows whether it was made, both the members before and those after it
//!    must let the candidate lead: either may have acknowledged what the candidate lacks. It has a vote among those that it belongs to.
//! 5. What a leader acknowledged alone is waited for as long as that leader may have it: until it takes part again, and follows nobody of
//!    a lower term. What it had in memory alone (asynchronous flush) and lost is promised by nobody any more: a follower that got it in
//!    time brings it back if it is asked, and is not waited for.
//! 6. Who led last is known only while nobody who answers has promised a term to somebody above all that their logs name: that one may have
//!    led in it, and acknowledged alone.

use std::collections::{BTreeMap, BTreeSet};

use anchorlog_engine::{Epoch, Lsn};

use crate::member::ReplicaId;
use crate::message::LogState;
use crate::policy::{OnMissing, Policy};
use crate::quorum::promotion_quorum;

/// How far a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// Who wrote its last durable byte.
    pub epoch: Epoch,
    /// How far it is durable.
    pub durable: Lsn,
}

impl Standing {
    /// Of this log.
    #[must_use]
    pub fn of(log: &LogState) -> Standing {
        let (epoch, durable) = log.reach();
        Standing { epoch, durable }
    }
}

/// What one node knows of who leads.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The highest term that it has promised or seen, before it was asked for a new one.
    pub term: u32,
    /// Who leads in it, or may. Nobody does in one that a leader promised itself when it handed over.
    pub leader: Option<&'a ReplicaId>,
    /// The last term that its log names; none while that does not count.
    pub written: Option<u32>,
}

/// Who led last, if those who answer know that between them.
pub fn last_leader<'a>(known: impl Iterator<Item = Known<'a>> + Clone) -> Option<&'a ReplicaId> {
    let written = known.clone().filter_map(|known| known.written).max()?;
    let may_lead = |known: &Known<'_>| known.leader.is_some() || known.written.is_none();
    if known.clone().filter(may_lead).any(|known| known.term > written) {
        return None;
    }
    known.filter(|known| known.term == written).find_map(|known| known.leader)
}

/// What is known when a node is asked to lead.
#[derive(Debug)]
pub struct Case<'a> {
    /// Who.
    pub candidate: &'a ReplicaId,
    /// None while its own log does not count.
    pub standing: Option<Standing>,
    /// Every set of members that may have the votes: one, unless a change is under way.
    pub members: &'a [BTreeSet<ReplicaId>],
    /// What an acknowledgement stands for.
    pub policy: Policy,
    /// Who led last, where that is known.
    pub former: Option<&'a ReplicaId>,
    /// Whether that one still has all that it acknowledged: it flushes first, or has stepped down in order.
    pub former_is_whole: bool,
    /// What the others have; none for a member without a log.
    pub answers: &'a BTreeMap<ReplicaId, Option<Standing>>,
}

/// Why a node must not lead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It has no vote.
    #[error("{0} is no member of this log")]
    NoMember(ReplicaId),
    /// Its log does not count.
    #[error("{0} is not whole: it was seeded, and has not come to where its leader's log ended then")]
    NotWhole(ReplicaId),
    #[error(
        "{by} has more of the log (epoch {}, LSN {}; here: epoch {}, LSN {}): promote {by}",
        .theirs.epoch, .theirs.durable, .ours.epoch, .ours.durable
    )]
    /// Another one has more of the log.
    Behind {
        /// Whose log goes further.
        by: ReplicaId,
        /// How far.
        theirs: Standing,
        /// How far the candidate's goes.
        ours: Standing,
    },
    /// Not enough logs to hold everything among them.
    #[error("{counted} of the members count and {needed} must: something acknowledged may be on none of them")]
    TooFew {
        /// Members that count.
        counted: usize,
        /// That must.
        needed: usize,
    },
    /// Somebody else may have what nobody here has.
    #[error("the former leader {} has not answered, and may have acknowledged what no other node has: demote it first", name(.0.as_ref()))]
    FormerLeader(Option<ReplicaId>),
}

fn name(replica: Option<&ReplicaId>) -> String {
    replica.map_or_else(|| "(unknown)".to_owned(), ReplicaId::to_string)
}

/// Whether the candidate may lead.
///
/// # Errors
/// Why not.
pub fn judge(case: &Case<'_>) -> Result<(), Refused> {
    if !case.members.iter().any(|members| members.contains(case.candidate)) {
        return Err(Refused::NoMember(case.candidate.clone()));
    }
    case.members.iter().try_for_each(|members| judge_among(case, members))
}

fn judge_among(case: &Case<'_>, members: &BTreeSet<ReplicaId>) -> Result<(), Refused> {
    let ours = case.standing.ok_or_else(|| Refused::NotWhole(case.candidate.clone()))?;
    let others = case.answers.iter().filter(|(replica, _)| members.contains(*replica) && *replica != case.candidate);
    let best = others.clone().filter_map(|(replica, standing)| standing.map(|standing| (standing, replica))).max();
    if let Some((theirs, by)) = best
        && theirs > ours
    {
        return Err(Refused::Behind { by: by.clone(), theirs, ours });
    }
    let holders = others.filter(|(_, standing)| standing.is_some()).map(|(replica, _)| replica);
    let own = members.contains(case.candidate).then_some(case.candidate);
    let present: BTreeSet<&ReplicaId> = holders.chain(own).collect();
    let (copies, asks_former) = match case.policy {
        Policy::Async => (1, true),
        Policy::Sync { copies, on_missing } => (copies, on_missing == OnMissing::Degrade),
    };
    // Of a promise beyond that, all of them have it, or nobody was told.
    let copies = copies.min(u32::try_from(members.len()).unwrap_or(u32::MAX));
    let everybody = present.len() == members.len();
    if asks_former {
        let has_log = |replica: &ReplicaId| case.answers.get(replica).is_some_and(Option::is_some);
        let is_there = |former: &ReplicaId| former == case.candidate || has_log(former);
        if !case.former.map_or(everybody, is_there) {
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
    let followers = u32::try_from(members.len() - 1).unwrap_or(u32::MAX);
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

    fn set(members: &str) -> BTreeSet<ReplicaId> {
        members.chars().map(|name| id(&name.to_string())).collect()
    }

    fn at(term: u32, run: u32, lsn: u64) -> Standing {
        Standing { epoch: Epoch { term, run }, durable: Lsn(lsn) }
    }

    /// Asks `b` of the members `a`, `b`, `c` …, whose leader was `a`, to lead with a log of epoch 1.1 up to 100.
    fn ask(members: &str, policy: Policy, answers: &[(&str, Option<Standing>)], is_whole: bool) -> Result<(), Refused> {
        let members = set(members);
        let answers = answers.iter().map(|(name, standing)| (id(name), *standing)).collect();
        judge(&Case {
            candidate: &id("b"),
            standing: Some(at(1, 1, 100)),
            members: &[members],
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
            assert_eq!(ask("abc", policy, &[("a", None)], true), missing, "it was wiped");
            assert_eq!(ask("abc", policy, &[("a", here)], true), Ok(()));
            let ahead = at(1, 1, 101);
            let behind = Err(Refused::Behind { by: id("a"), theirs: ahead, ours: at(1, 1, 100) });
            assert_eq!(ask("abc", policy, &[("a", Some(ahead))], true), behind);
        }
        // What it had in memory is gone: waiting for it would bring nothing back.
        assert_eq!(ask("abc", Policy::Async, &[("a", here)], false), Ok(()));
        let few = Err(Refused::TooFew { counted: 1, needed: 2 });
        assert_eq!(ask("abc", degrading, &[("a", here)], false), few, "copies of the rest may be elsewhere");
        assert_eq!(ask("abc", degrading, &[("a", here), ("c", here)], false), Ok(()));
        let text = ask("abc", Policy::Async, &[], true).unwrap_err().to_string();
        assert!(text.contains("former leader a has not answered"), "{text}");
    }

    #[test]
    fn who_led_last_is_known_unless_a_higher_term_was_promised_to_somebody() {
        let ids = [id("a"), id("b"), id("c")];
        let ask = |known: &[(u32, Option<usize>, Option<u32>)]| {
            let known = known.iter().map(|(term, leader, written)| Known {
                term: *term,
                leader: leader.map(|leader| &ids[leader]),
                written: *written,
            });
            last_leader(known).cloned()
        };
        let [a, b] = [Some(ids[0].clone()), Some(ids[1].clone())];
        assert_eq!(ask(&[(4, Some(0), Some(4))]), a);
        assert_eq!(ask(&[(4, Some(0), Some(4)), (2, Some(1), Some(2))]), a);
        assert_eq!(ask(&[(4, Some(0), Some(4)), (4, Some(0), Some(2))]), a, "it has promised, and lacks the rest");
        assert_eq!(ask(&[(4, Some(0), Some(4)), (7, Some(1), Some(4))]), None, "b may have led, and has not answered");
        assert_eq!(ask(&[(4, Some(0), Some(4)), (7, Some(1), Some(4)), (7, Some(1), Some(7))]), b, "it has, and did");
        assert_eq!(ask(&[(4, Some(0), Some(4)), (5, None, Some(4))]), a, "it has handed over");
        assert_eq!(ask(&[(4, Some(0), Some(4)), (7, None, None)]), None, "what was wiped says nothing");
        assert_eq!(ask(&[(4, None, Some(4))]), None);
        assert_eq!(ask(&[]), None);
    }

    // K-29.
    #[test]
    fn who_was_seeded_and_is_not_whole_does_not_lead() {
        let (candidate, answers) = (id("b"), BTreeMap::new());
        let members = [set("ab")];
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
        let members = [set("abc")];
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

    #[test]
    fn while_members_change_those_before_and_those_after_must_both_agree() {
        let candidate = id("b");
        let judge = |members: &[&str], answers: &[&str]| {
            let members: Vec<_> = members.iter().map(|names| set(names)).collect();
            judge(&Case {
                candidate: &candidate,
                standing: Some(at(1, 1, 100)),
                members: &members,
                policy: sync(2),
                former: Some(&id("a")),
                former_is_whole: true,
                answers: &answers.iter().map(|name| (id(name), Some(at(1, 1, 90)))).collect(),
            })
        };
        assert_eq!(judge(&["ab"], &[]), Ok(()));
        let few = Err(Refused::TooFew { counted: 1, needed: 2 });
        assert_eq!(judge(&["ab", "abc"], &[]), few, "a and c may go on without it");
        assert_eq!(judge(&["ab", "abc"], &["c"]), Ok(()));
        assert_eq!(judge(&["abc", "ab"], &[]), few, "c may have what a acknowledged before");
        assert_eq!(judge(&["ab", "ac"], &[]), Err(Refused::TooFew { counted: 0, needed: 1 }), "b is to go");
        assert_eq!(judge(&["ab", "ac"], &["a"]), Ok(()));
        assert_eq!(judge(&["ac", "acd"], &["a", "c", "d"]), Err(Refused::NoMember(id("b"))));
    }
}
