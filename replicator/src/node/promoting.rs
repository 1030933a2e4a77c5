//! How a follower comes to lead: it asks, collects promises, and judges.
//!
//! ```text
//!  who leads is asked to hand over; the rest of its log comes in   (nobody has promised anything so far: a refusal changes nothing)
//!  -> would the promises be enough, and is this log the best? -> own promise -> everybody's -> enough, and still the best? -> leads
//! ```

use std::collections::BTreeMap;

use super::leadership::Claim;
use super::limits;
use super::shared::{Shared, leading_term};
use crate::member::{Member, ReplicaId};
use crate::message::{Message, NodeState, PromiseRequest, Promote};
use crate::policy::{OnMissing, Policy};
use crate::promotion::{Case, Known, Refused, Standing, judge, last_leader};
use crate::quorum::next_term;

/// What must hold for a promotion, and what it rests on.
pub(super) struct Candidacy<'a> {
    pub(super) shared: &'a Shared,
    pub(super) unsafely: bool,
    /// Who is known to have led, in which term.
    led: Option<Claim>,
    /// Whether that one is known to have all that it acknowledged, whatever it guaranteed.
    former_is_whole: bool,
    /// Whether that was this node, and what it had in memory is gone.
    has_lost: bool,
}

impl<'a> Candidacy<'a> {
    pub(super) fn new(shared: &'a Shared, unsafely: bool) -> Candidacy<'a> {
        Candidacy { shared, unsafely, led: None, former_is_whole: false, has_lost: false }
    }

    /// A leader whose log was just closed.
    pub(super) fn of_leader(shared: &'a Shared) -> Candidacy<'a> {
        Candidacy { shared, unsafely: false, led: own_lead(shared), former_is_whole: true, has_lost: false }
    }

    /// A leader that starts again after what it had in memory may be gone.
    pub(super) fn of_former_leader(shared: &'a Shared) -> Candidacy<'a> {
        Candidacy { shared, unsafely: false, led: own_lead(shared), former_is_whole: false, has_lost: true }
    }

    /// Asks whoever leads to hand over, which it does once its followers have everything; before anything is promised. Who that was, if
    /// anybody, and what all say of themselves then.
    pub(super) fn relieve(&mut self) -> Result<(Option<ReplicaId>, BTreeMap<ReplicaId, NodeState>), String> {
        let shared = self.shared;
        let states = shared.ask_states();
        let leading = states.iter().filter_map(|(id, state)| leading_term(state).map(|term| (term, id)));
        // Whoever is away keeps those waiting that ask: not asked once more for nothing.
        let Some((term, id)) = leading.max() else { return Ok((None, states)) };
        let leader = id.clone();
        tracing::warn!(%leader, "asked to hand over");
        match self.tell(&leader, &Message::Demote) {
            Ok(()) => {}
            Err(why) if self.unsafely => {
                tracing::error!(%leader, why, "it does not hand over; promoted all the same");
                return Ok((None, states));
            }
            Err(why) => return Err(format!("{leader} leads and does not hand over: {why}")),
        }
        self.led = Some(Claim { term, leader: Some(leader.clone()) });
        self.former_is_whole = true;
        Ok((Some(leader), shared.ask_states()))
    }

    fn tell(&self, member: &ReplicaId, message: &Message) -> Result<(), String> {
        let to: Vec<Member> = self.shared.peers().into_iter().filter(|peer| peer.id == *member).collect();
        let heard = self.shared.ask(to, message, 2 * limits::HAND_OVER_TIME_MAX);
        match heard.recv().map(|heard| heard.answer) {
            Ok(Ok(Message::Outcome(outcome))) if outcome.done => Ok(()),
            Ok(Ok(Message::Outcome(outcome))) => Err(outcome.text),
            Ok(Ok(other)) => Err(format!("it answers with {:?}", other.name())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it cannot be asked".to_owned()),
        }
    }

    /// Asks `member` to lead.
    pub(super) fn prefer(&self, member: &ReplicaId) -> Result<(), String> {
        self.tell(member, &Message::Promote(Promote { unsafely: false }))
    }

    /// Whether this node may lead, by what those say who have answered.
    pub(super) fn judge(&self, states: &BTreeMap<ReplicaId, NodeState>) -> Result<(), Refused> {
        let own = self.shared.node_state();
        self.judge_by(states, self.former([&own].into_iter().chain(states.values())))
    }

    /// Who led last, as far as these know.
    fn former<'b>(&'b self, states: impl Iterator<Item = &'b NodeState> + Clone) -> Option<&'b ReplicaId> {
        let known = |state: &'b NodeState| Known {
            term: state.promised_term,
            leader: state.leader.as_ref(),
            written: state.log.as_ref().and_then(|log| log.history.last()).map(|last| last.epoch.term),
        };
        let led = self.led.iter().map(|claim| Known {
            term: claim.term,
            leader: claim.leader.as_ref(),
            written: Some(claim.term),
        });
        last_leader(states.map(known).chain(led))
    }

    fn judge_by(&self, states: &BTreeMap<ReplicaId, NodeState>, former: Option<&ReplicaId>) -> Result<(), Refused> {
        if self.unsafely {
            return Ok(());
        }
        let standing = self.shared.whole_log_state().map(|log| Standing::of(&log));
        let answers = states.iter().map(|(id, state)| (id.clone(), state.log.as_ref().map(Standing::of))).collect();
        let members = self.shared.possible_voters();
        // Neither is the weakest by itself: where only the leader has something, copies are of no use, and the other way round.
        self.shared.guarantees().into_iter().try_for_each(|guarantee| {
            let policy = match guarantee.policy {
                // What it acknowledged alone, degraded, and lost, nobody else has: that was asked for by name.
                Policy::Sync { copies, .. } if self.has_lost => Policy::Sync { copies, on_missing: OnMissing::Refuse },
                policy => policy,
            };
            let judged = judge(&Case {
                candidate: &self.shared.config.id,
                standing,
                members: &members,
                policy,
                former,
                former_is_whole: self.former_is_whole || guarantee.is_flushed && !self.has_lost,
                answers: &answers,
            });
            judged.inspect_err(
                |refused| tracing::warn!(%guarantee, %refused, "must not lead by what may have been acknowledged"),
            )
        })
    }

    /// Promises itself a term of its own above all that are known, and asks everybody to do the same.
    pub(super) fn collect(&self, states: &BTreeMap<ReplicaId, NodeState>) -> Result<u32, String> {
        let shared = self.shared;
        // What the others say of their logs is from after they have flushed.
        shared.flush_log();
        let own = shared.promised_term(shared.log_state().as_ref());
        let known = states.values().map(|state| state.promised_term).chain([own]).max().unwrap_or(own);
        let candidate = shared.config.id.clone();
        if !shared.voters().iter().any(|member| member.id == candidate) {
            return Err(Refused::NoMember(candidate).to_string());
        }
        let term = next_term(known, &candidate).ok_or("there is no higher term for this node")?;
        let claim = Claim { term, leader: Some(candidate.clone()) };
        let before = shared.promise(&claim).map_err(|error| error.to_string())?;
        let own = shared.node_state_by(before);
        let request = Message::PromiseRequest(PromiseRequest { term, candidate });
        let heard = shared.ask(shared.peers(), &request, limits::PROMISE_TIME_MAX);
        let mut promised = BTreeMap::new();
        for heard in heard.iter() {
            match heard.answer {
                Ok(Message::PromiseAnswer(answer)) if answer.state.replica != heard.peer.id => {
                    tracing::error!(peer = %heard.peer.id, found = %answer.state.replica, "another node at this address");
                }
                Ok(Message::PromiseAnswer(answer)) if answer.granted => {
                    promised.insert(heard.peer.id, answer.state);
                }
                Ok(_) => tracing::warn!(peer = %heard.peer.id, term, "a member does not promise"),
                Err(error) => tracing::warn!(peer = %heard.peer.id, %error, "a member does not answer"),
            }
        }
        // Whoever has promised in between, and lost that to this promise, says so in its answer.
        let former = self.former([&own].into_iter().chain(states.values()).chain(promised.values()));
        self.judge_by(&promised, former)
            .map_err(|refused| format!("term {term} was promised, and still: {refused}"))?;
        Ok(term)
    }
}

/// What a leader claims, where nobody else was promised anything since.
fn own_lead(shared: &Shared) -> Option<Claim> {
    shared.leadership.current().filter(|claim| claim.leader.as_ref() == Some(&shared.config.id))
}
