//! How a node comes to lead: by promises, by a hand-over, or again. Who may is judged by the replicator's own rules.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_replicator::message::LogState;
use anchorlog_replicator::promotion::{self, Case, Known, Refused, Standing};
use anchorlog_replicator::quorum::next_term;
use anchorlog_replicator::{Member, Policy, ReplicaId, member};

use crate::model::Outcome;
use crate::network::NODES;
use crate::world::{Claim, Life, Tooth, World, name};

/// What came of asking whoever leads to hand over.
enum Relieved {
    Nobody,
    /// It led in this term.
    Done(u32, usize),
    Refused,
}

impl World {
    pub(crate) fn restart_as_follower(&mut self, node: usize) -> Outcome {
        self.kill(node);
        self.follow(node)
    }

    fn hears(&self, one: usize, other: usize) -> bool {
        one == other || self.blocks.is_open(one, other) && self.blocks.is_open(other, one)
    }

    /// Whoever has a log and answers a node.
    fn answering(&self, asker: usize) -> Vec<usize> {
        let now = self.now();
        let answers = |node: &usize| {
            self.hears(asker, *node) && self.nodes[*node].engine().is_some() && self.nodes[*node].paused <= now
        };
        (0..NODES).filter(answers).collect()
    }

    /// Whether nobody with a log is missing.
    fn has_heard_all(&self, answers: &[usize]) -> bool {
        (0..NODES).all(|node| answers.contains(&node) || matches!(self.nodes[node].life, Life::Empty))
    }

    fn seen_term(&self, node: usize) -> u32 {
        let last = self.nodes[node].engine().and_then(|engine| engine.history().last());
        last.map_or(0, |last| last.epoch.term)
    }

    /// Who led last, as those who answer know it before they promise anything; `led`: who is known to have, in which term.
    fn last_leader(&self, answers: &[usize], led: Option<(u32, usize)>) -> Option<usize> {
        let names: Vec<ReplicaId> = (0..NODES).map(name).collect();
        let states = answers.iter().map(|node| {
            let Claim { term, leader } = self.nodes[*node].claim;
            let is_whole = self.nodes[*node].engine().is_some_and(|engine| engine.is_whole());
            let seen = self.seen_term(*node);
            // A leader that was superseded knows the term, and not whose it is.
            let is_unknown = term > seen && leader.is_none() && self.nodes[*node].handed_over != term;
            Known {
                term: term.max(seen),
                leader: leader.filter(|_| term >= seen).map(|leader| &names[leader]),
                written: (is_whole && !is_unknown).then_some(seen),
            }
        });
        let led = led.map(|(term, node)| Known { term, leader: Some(&names[node]), written: Some(term) });
        let former = promotion::last_leader(states.chain(led));
        former.and_then(|former| names.iter().position(|name| name == former))
    }

    /// The sets of members that may have the votes, as a node knows them.
    fn voters(&self, node: usize) -> Vec<Vec<Member>> {
        let logged = self.nodes[node].engine().map(|engine| member::possible(engine).unwrap());
        logged.filter(|sets| !sets.is_empty()).unwrap_or_else(|| vec![self.members()])
    }

    fn judge(
        &self,
        candidate: usize,
        policy: Policy,
        former: Option<usize>,
        former_is_whole: bool,
        answers: &[usize],
    ) -> Result<(), Refused> {
        let standing = |node: usize| {
            let engine = self.nodes[node].engine().filter(|engine| engine.is_whole());
            engine.map(|engine| Standing::of(&LogState::of(engine)))
        };
        let ids = |set: Vec<Member>| set.into_iter().map(|member| member.id).collect::<BTreeSet<ReplicaId>>();
        let members: Vec<_> = self.voters(candidate).into_iter().map(ids).collect();
        promotion::judge(&Case {
            candidate: &name(candidate),
            standing: standing(candidate),
            members: &members,
            policy,
            former: former.map(name).as_ref(),
            former_is_whole: former_is_whole || self.tooth == Some(Tooth::FormerCounts),
            answers: &answers
                .iter()
                .filter(|node| **node != candidate)
                .map(|node| (name(*node), standing(*node)))
                .collect(),
        })
    }

    /// Somebody asks for a promotion: whoever leads hands over, a quorum promises a new term, and whoever has the best log of those who
    /// answer leads in it. `unsafely`: although what leaders acknowledged alone may be lost; who insists
    /// has looked for the rest on all disks that there are.
    pub(crate) fn promote(&mut self, candidate: usize, unsafely: bool) -> Outcome {
        if candidate >= self.members().len() {
            // It would not start with a configuration that does not name it.
            return Ok(());
        }
        let (mut led, mut is_whole) = (None, self.plan.is_sync());
        // A leader that flushed all that it acknowledged, with copies of it, need not be asked.
        if self.plan.may_be_alone() || !is_whole {
            match self.relieve(candidate)? {
                Relieved::Nobody => {}
                Relieved::Done(term, node) => (led, is_whole) = (Some((term, node)), true),
                Relieved::Refused if unsafely => {}
                Relieved::Refused => {
                    self.tally.no_quorum += 1;
                    return Ok(());
                }
            }
        }
        let answers = self.answering(candidate);
        let former = self.last_leader(&answers, led);
        let is_unsaid = self.tooth == Some(Tooth::UnsafeUnsaid);
        let policy = if unsafely || is_unsaid { self.plan.refusing() } else { self.plan.policy };
        let judge = |world: &World| match world.judge(candidate, policy, former, is_whole, &answers) {
            // Nothing else was ever promised.
            Err(refused) if unsafely && policy == Policy::Async && !matches!(refused, Refused::NotWhole(_)) => Ok(()),
            Err(Refused::TooFew { .. } | Refused::FormerLeader(_)) if unsafely && world.has_heard_all(&answers) => {
                Ok(())
            }
            judged => judged,
        };
        match judge(self) {
            _ if !answers.contains(&candidate) => return Ok(()),
            // Some promise all the same: a node that asks knows only later who has the best log.
            Ok(()) | Err(Refused::Behind { .. }) => {}
            Err(refused) => {
                self.tally.no_quorum += 1;
                self.note(format!("node {candidate} is not promoted: {refused:?}"));
                return Ok(());
            }
        }
        let known = answers.iter().map(|node| self.nodes[*node].claim.term.max(self.seen_term(*node)));
        let sets = self.voters(candidate);
        if !sets.iter().flatten().any(|member| member.id == name(candidate)) {
            return Ok(());
        }
        let term = next_term(known.max().unwrap_or(0), &name(candidate)).unwrap();
        self.model.claims(candidate, term)?;
        let now = self.now();
        for node in answers.iter().copied() {
            // Whoever promises follows nobody of a lower term from then on, and leads in none.
            self.nodes[node].claim = Claim { term, leader: Some(candidate) };
            if self.nodes[node].leader().is_some() {
                self.restart_as_follower(node)?;
            }
            for connection in self.connections.iter_mut().filter(|connection| connection.follower == node) {
                if connection.at_follower.take().is_some() {
                    connection.to_leader.close(now);
                }
            }
        }
        let judged = judge(self);
        self.note(format!("node {candidate} asks for term {term}: {judged:?}"));
        if judged.is_err() || self.nodes[candidate].engine().is_none() {
            return Ok(());
        }
        self.tally.promotions += 1;
        self.tally.unsafely += u64::from(unsafely);
        self.tally.unsure += u64::from(sets.len() > 1);
        self.kill(candidate);
        self.lead(candidate, Some(term), unsafely)
    }

    fn relieve(&mut self, candidate: usize) -> Outcome<Relieved> {
        let answers = self.answering(candidate);
        let leading = answers.into_iter().filter_map(|node| Some((self.nodes[node].leader()?.epoch().term, node)));
        match leading.max() {
            None => Ok(Relieved::Nobody),
            // It leads already.
            Some((_, node)) if node == candidate => Ok(Relieved::Refused),
            Some((term, node)) => {
                Ok(if self.hand_over(node)? { Relieved::Done(term, node) } else { Relieved::Refused })
            }
        }
    }

    /// Has a leader take nothing more, and wait until the followers have everything; it leads on where that does not come to pass.
    fn hand_over(&mut self, node: usize) -> Outcome<bool> {
        let Some(leader) = self.nodes[node].leader().map(Arc::clone) else { return Ok(false) };
        let now = self.now();
        if !leader.status(now).peers.iter().any(|peer| peer.in_sync && peer.is_member) {
            return Ok(false);
        }
        leader.stop(now);
        let (mut quiet, mut end) = (0, None);
        for _ in 0..300 {
            self.step()?;
            if !self.nodes[node].leader().is_some_and(|now| Arc::ptr_eq(now, &leader)) {
                return Ok(false);
            }
            let marks = leader.engine().watermarks();
            let is_quiet = end == Some(marks.assigned) && marks.durable == marks.assigned && leader.is_drained();
            (quiet, end) = (if is_quiet { quiet + 1 } else { 0 }, Some(marks.assigned));
            if quiet > 8 {
                break;
            }
        }
        let term = leader.epoch().term;
        drop(leader);
        if quiet <= 8 {
            self.tally.led_on += 1;
            self.note(format!("node {node} does not hand over, and leads on"));
            self.kill(node);
            self.lead_again(node)?;
            return Ok(false);
        }
        self.tally.handed_over += 1;
        self.note(format!("node {node} hands over at {end:?}"));
        let term = next_term(term, &name(node)).unwrap();
        self.model.claims(node, term)?;
        self.nodes[node].claim = Claim { term, leader: None };
        self.nodes[node].handed_over = term;
        self.restart_as_follower(node)?;
        Ok(true)
    }

    /// A node that led comes back to lead: after asynchronous flush only where nobody has more of its log, and who might is there.
    pub(crate) fn lead_again(&mut self, node: usize) -> Outcome {
        if self.plan.is_sync() || self.tooth == Some(Tooth::FormerCounts) {
            return self.lead(node, None, false);
        }
        self.follow(node)?;
        let Some(engine) = self.nodes[node].engine() else { return Ok(()) };
        let durable = engine.watermarks().durable;
        let answers = self.answering(node);
        let own = self.nodes[node].claim.term;
        if answers.iter().any(|other| self.nodes[*other].claim.term > own) {
            return Ok(());
        }
        if self.plan.policy == Policy::Async {
            let committed = |other: &usize| self.nodes[*other].engine().map(|engine| engine.watermarks().acked);
            let told = answers.iter().copied().filter(|other| *other != node).max_by_key(committed);
            if let Some(peer) = told.filter(|peer| committed(peer) > Some(durable)) {
                self.tally.gave_way += 1;
                return self.promote(peer, false);
            }
        } else {
            match self.judge(node, self.plan.refusing(), Some(node), false, &answers) {
                Ok(()) => {}
                Err(Refused::Behind { by, .. }) => {
                    self.tally.gave_way += 1;
                    let by = (0..NODES).find(|node| name(*node) == by).unwrap();
                    return self.promote(by, false);
                }
                Err(_) => {
                    self.tally.waited += 1;
                    self.kill(node);
                    self.nodes[node].life = Life::Down { until: self.now() + Duration::from_millis(300) };
                    return Ok(());
                }
            }
        }
        self.kill(node);
        self.lead(node, None, false)
    }

    /// Starts whoever leads again where its log does not name all that the configuration does: an earlier change was not through.
    pub(crate) fn complete_members(&mut self, node: usize) -> Outcome {
        let status = self.nodes[node].leader().map(|leader| leader.status(self.now()));
        let members = status.map_or(0, |status| status.peers.iter().filter(|peer| peer.is_member).count());
        if members + 1 == self.members().len() {
            return Ok(());
        }
        self.kill(node);
        self.lead_again(node)
    }

    /// The configuration names other members; who leads may be started again with it.
    pub(crate) fn change_members(&mut self) -> Outcome {
        if !self.plan.changes_members {
            return Ok(());
        }
        self.has_all = !self.has_all;
        self.note(format!("members are {:?}", self.members()));
        let leads = (0..NODES).filter_map(|node| Some((self.nodes[node].leader()?.epoch().term, node)));
        match leads.max() {
            Some((_, node)) if self.members().iter().any(|member| member.id == name(node)) => {
                self.kill(node);
                self.lead_again(node)
            }
            _ => Ok(()),
        }
    }
}
