//! What a leader knows of its followers, and what follows from it: how far the log is replicated, and whether anything may be taken.
//!
//! Invariants:
//! 1. The replicated watermark is what [`Votes`] says of the members that are in sync; nothing else moves it.
//! 2. A follower is in sync while it is connected, its log is whole, durable close behind, and it has answered news that are young enough:
//!    a connection that is dead in one direction does not count.
//! 3. Whether a batch may be taken is one atomic load. It is decided anew whenever a follower speaks, and by [`Leader::tick`], so that
//!    silence is noticed.
//! 4. Members change by entries in the log. Until those are acknowledged, the members that were before have the votes: nobody's
//!    acknowledgement counts whom a promotion would not ask.
//! 5. What acknowledgements stand for changes in the same way: until what is new is acknowledged, all that held before holds as well.
//! 6. Who learns of a higher term leads no more: nothing is admitted, and nothing counts, from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anchorlog_engine::replica::{AckRule, Seed};
use anchorlog_engine::{AppendError, BatchError, Engine, Epoch, Lsn, ReadError};

use crate::fault::{Broken, Fault};
use crate::guarantee::{self, Changing, Guarantee};
use crate::leader_link::LeaderLink;
use crate::member::{self, Enrolled, Member, ReplicaId};
use crate::message::LogState;
use crate::policy::{InSync, OnMissing, Policy};
use crate::quorum::Votes;

/// What a leader is told.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// Its own name.
    pub id: ReplicaId,
    /// How many copies an acknowledgement stands for.
    pub policy: Policy,
    /// Who takes part. The leader writes into the log what is not there yet; itself may be among them.
    pub members: Vec<Member>,
    /// When a follower counts.
    pub in_sync: InSync,
    /// The longest that a link is silent. Default: 500 ms.
    pub heartbeat: Duration,
    /// Log bytes on the way to one follower, at most. Default: 16 MiB.
    pub window_bytes: u64,
    /// Bytes a second that a follower gets from the leader's disk, at least, while others append. Default: 64 MiB.
    pub catch_up_bytes: u64,
    /// Nothing is admitted while a follower that is in sync has less free space. Default: 256 MiB.
    pub free_bytes_min: u64,
    /// The log is kept for a follower until it is further behind than this. Default: 16 GiB.
    pub retain_lag_bytes: u64,
    /// For a member that has not been heard of since this leader began, the log is kept as a whole for so long: how far behind it is
    /// nobody knows. Zero: it is not kept for those. Default: 1 hour.
    pub retain_unheard: Duration,
    /// A promise to break on purpose (feature `sim`).
    #[cfg(feature = "sim")]
    pub fault: Option<Fault>,
}

impl LeaderConfig {
    /// The defaults.
    #[must_use]
    pub fn new(id: ReplicaId, policy: Policy, members: Vec<Member>) -> LeaderConfig {
        LeaderConfig {
            id,
            policy,
            members,
            in_sync: InSync::default(),
            heartbeat: Duration::from_millis(500),
            window_bytes: 16 << 20,
            catch_up_bytes: 64 << 20,
            free_bytes_min: 256 << 20,
            retain_lag_bytes: 16 << 30,
            retain_unheard: Duration::from_secs(3600),
            #[cfg(feature = "sim")]
            fault: None,
        }
    }

    #[cfg(feature = "sim")]
    fn broken(&self) -> Broken {
        Broken::only(self.fault)
    }

    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "the feature `sim` looks at it")]
    fn broken(&self) -> Broken {
        Broken::default()
    }
}

/// Why nothing may be appended. Nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAdmitted {
    /// Fewer followers are in sync than the policy needs.
    #[error("{in_sync} followers are in sync; {copies} copies need {need}", need = copies.saturating_sub(1))]
    Missing {
        /// Followers in sync.
        in_sync: u32,
        /// Copies that the policy asks for, the leader's included.
        copies: u32,
    },
    /// A follower that is in sync has no space left.
    #[error("a follower has less free space than it must keep")]
    NoSpace,
    /// The leader hands over, or stops.
    #[error("this leader hands over")]
    Stopping,
    /// Another node leads, in a higher term.
    #[error("another node leads in term {term}")]
    Superseded {
        /// That term.
        term: u32,
    },
}

/// [`NotAdmitted`] in one word: the kind in the highest byte, two numbers below.
mod gate {
    use super::NotAdmitted;

    pub(super) const OPEN: u64 = 0;

    pub(super) fn encode(reason: Option<NotAdmitted>) -> u64 {
        let word = |kind: u64, high: u32, low: u32| kind << 56 | u64::from(high.min(0xff_ffff)) << 32 | u64::from(low);
        match reason {
            None => OPEN,
            Some(NotAdmitted::Missing { in_sync, copies }) => word(1, in_sync, copies),
            Some(NotAdmitted::NoSpace) => word(2, 0, 0),
            Some(NotAdmitted::Stopping) => word(3, 0, 0),
            Some(NotAdmitted::Superseded { term }) => word(4, 0, term),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    pub(super) fn decode(word: u64) -> Result<(), NotAdmitted> {
        let (high, low) = ((word >> 32) as u32 & 0xff_ffff, word as u32);
        match word >> 56 {
            0 => Ok(()),
            1 => Err(NotAdmitted::Missing { in_sync: high, copies: low }),
            2 => Err(NotAdmitted::NoSpace),
            3 => Err(NotAdmitted::Stopping),
            _ => Err(NotAdmitted::Superseded { term: low }),
        }
    }
}

/// A follower, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub replica: ReplicaId,
    /// Whether its acknowledgements can count at all.
    pub is_member: bool,
    /// Whether it is connected and follows.
    pub connected: bool,
    /// Whether it counts at the moment.
    pub in_sync: bool,
    /// How far its log is on its disk.
    pub durable: Lsn,
    /// By how much that is behind the end of the leader's log.
    pub lag_bytes: u64,
    /// How old the newest news are that it has answered.
    pub answered: Option<Duration>,
    /// Bytes free for its log, as it said last.
    pub free_bytes: u64,
    /// How often it has connected.
    pub connections: u64,
}

/// How replication stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderStatus {
    /// Who leads.
    pub leader: ReplicaId,
    /// In which epoch.
    pub epoch: Epoch,
    /// What is promised.
    pub policy: Policy,
    /// Whether less is promised at the moment, because that was asked for by name.
    pub degraded: bool,
    /// How often that began.
    pub degradations: u64,
    /// How far the log is replicated, once it is at all.
    pub replicated: Option<Lsn>,
    /// What is acknowledged.
    pub acked: Lsn,
    /// Why nothing is admitted, if nothing is.
    pub not_admitted: Option<NotAdmitted>,
    /// Everybody who is a member, and everybody who has connected.
    pub peers: Vec<PeerStatus>,
}

/// What the leader keeps of one follower.
#[derive(Clone, Debug, Default)]
struct Peer {
    /// The connection that speaks for it.
    session: Option<u64>,
    durable: Lsn,
    free_bytes: u64,
    /// When the newest news that it has answered were sent.
    answered: Option<Duration>,
    connections: u64,
    /// Whether what it said last was said under this leader's epoch.
    is_whole: bool,
    /// Where its pin was put last.
    pinned: Option<Lsn>,
    /// Whether it has said how far it is, or was told where to begin.
    was_heard: bool,
}

/// A change of members, or of what acknowledgements stand for, that stands in the log.
struct Change {
    /// Where it ends in the log. Nothing beyond is acknowledged before it is made.
    end: Lsn,
    voters: BTreeSet<ReplicaId>,
    /// What was guaranteed before, and holds until then.
    before: Vec<Guarantee>,
    /// When it was acknowledged.
    acked_at: Option<Duration>,
    /// A person wants it made as it is.
    is_insisted: bool,
}

struct Inner {
    votes: Votes,
    peers: BTreeMap<ReplicaId, Peer>,
    next_session: u64,
    /// Whose acknowledgements count.
    voters: BTreeSet<ReplicaId>,
    /// Who takes their place.
    change: Option<Change>,
    replicated: Option<Lsn>,
    superseded: Option<u32>,
    /// The first tick.
    began: Option<Duration>,
    stopping: bool,
    degraded: bool,
    degradations: u64,
    /// Which acknowledgements wait for followers: none are, until it is decided for the first time.
    ack_rule: AckRule,
    /// The last decision, for those that only ask.
    in_sync: BTreeSet<ReplicaId>,
    /// When it was made.
    decided: Duration,
}

/// The leader's side of replication, shared by all of its links.
pub struct Leader {
    engine: Arc<Engine>,
    config: LeaderConfig,
    broken: Broken,
    epoch: Epoch,
    gate: AtomicU64,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").field("config", &self.config).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Why an engine cannot lead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeadError {
    /// The members in its log cannot be read.
    #[error("the members in the log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The members cannot be written into its log.
    #[error("the members cannot be written into the log: {0}")]
    Append(#[from] AppendError),
    /// The members have no place in a batch.
    #[error("the members cannot be written into the log: {0}")]
    Batch(#[from] BatchError),
    /// There are too many members, or an address is too long, or has blanks.
    #[error("at most {max} members, with addresses of at most {len} bytes without blanks", max = member::MEMBERS_MAX, len = Member::ADDRESS_LEN_MAX)]
    Members,
    /// It was not opened as a leader, with replicated acks.
    #[error("the engine was not opened as a leader with replicated acks")]
    NotLeader,
}

impl Leader {
    /// Begins to lead with an engine that was opened as a leader with replicated acks. What the log does not say of the members yet is
    /// appended.
    ///
    /// # Errors
    /// When the log cannot be read or written, or belongs to a replica.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn new(engine: Arc<Engine>, config: LeaderConfig) -> Result<Arc<Leader>, LeadError> {
        let epoch = engine.info().epoch;
        let own = engine.history().last().filter(|last| last.epoch == epoch && engine.replicated().is_some());
        own.ok_or(LeadError::NotLeader)?;
        // Nothing of this epoch was appended before its first frame, which opening wrote.
        let begun = engine.watermarks().assigned;
        let broken = config.broken();
        let own = Guarantee::new(config.policy, engine.info().options.flush());
        let ids = |members: Vec<Member>| members.into_iter().map(|member| member.id).collect::<BTreeSet<_>>();
        let Enrolled { voters, next } = member::enroll(&engine, &config.members, own)?;
        let changing = guarantee::enroll(&engine, own)?;
        let (mut voters, mut next) = (ids(voters), next.map(|(end, next)| (end, ids(next))));
        if broken.is(Fault::MembersAtOnce)
            && let Some((_, next)) = next.take()
        {
            voters = next;
        }
        let ends = [next.as_ref().map(|(end, _)| *end), changing.as_ref().map(|changing| changing.end)];
        let change = ends.into_iter().flatten().max().map(|end| Change {
            end,
            voters: next.map_or_else(|| voters.clone(), |(_, next)| next),
            before: changing.map_or_else(Vec::new, |Changing { before, .. }| before),
            acked_at: None,
            is_insisted: false,
        });
        if let Some(Change { before, .. }) = change.as_ref().filter(|change| !change.before.is_empty()) {
            let before: Vec<String> = before.iter().map(Guarantee::to_string).collect();
            tracing::warn!(?before, %own, "what acknowledgements stand for changes once all that was promised before is kept for it");
        }
        let leader = Leader {
            epoch,
            gate: AtomicU64::new(gate::OPEN),
            inner: Mutex::new(Inner {
                votes: Votes::new(epoch, begun).broken(broken),
                peers: BTreeMap::new(),
                next_session: 0,
                voters,
                change,
                replicated: None,
                superseded: None,
                began: None,
                stopping: false,
                degraded: false,
                degradations: 0,
                ack_rule: AckRule::Replicated,
                in_sync: BTreeSet::new(),
                decided: Duration::ZERO,
            }),
            broken,
            engine,
            config,
        };
        {
            let mut inner = leader.inner();
            leader.pin_members(&mut inner);
            leader.decide(&mut inner, Duration::ZERO);
        }
        Ok(Arc::new(leader))
    }

    /// Keeps the whole log for the members of which nothing is known yet.
    fn pin_members(&self, inner: &mut Inner) {
        if self.config.retain_unheard.is_zero() {
            return;
        }
        let start = self.engine.watermarks().start;
        let coming = inner.change.iter().flat_map(|change| &change.voters);
        let members: BTreeSet<ReplicaId> = inner.voters.iter().chain(coming).cloned().collect();
        for replica in members.into_iter().filter(|replica| *replica != self.config.id) {
            self.engine.pin(&pin_name(&replica), Some(start));
            inner.peers.insert(replica, Peer { durable: start, pinned: Some(start), ..Peer::default() });
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// The engine that it leads with.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What it was told.
    #[must_use]
    pub fn config(&self) -> &LeaderConfig {
        &self.config
    }

    /// The epoch that it leads in.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A link for a connection that somebody has opened to this leader.
    #[must_use]
    pub fn link(self: &Arc<Self>, now: Duration) -> LeaderLink {
        LeaderLink::new(Arc::clone(self), now)
    }

    /// Whether a batch may be appended now: one atomic load.
    ///
    /// # Errors
    /// Why not. Nothing must be appended then.
    pub fn admission(&self) -> Result<(), NotAdmitted> {
        gate::decode(self.gate.load(Ordering::SeqCst))
    }

    /// Decides anew who is in sync and what follows; to be called every [`LeaderConfig::heartbeat`], or more often.
    pub fn tick(&self, now: Duration) {
        let mut inner = self.inner();
        self.decide(&mut inner, now);
        self.move_pins(&mut inner, now);
    }

    /// Admits nothing from now on: the first step of handing over.
    pub fn stop(&self, now: Duration) {
        let mut inner = self.inner();
        inner.stopping = true;
        self.decide(&mut inner, now);
    }

    /// Has a change hold at once that waits for followers; false where there is none. Those that are away do not know of it: if one of them
    /// is promoted, what was acknowledged since may be lost.
    pub fn insist(&self, now: Duration) -> bool {
        let mut inner = self.inner();
        let Some(change) = &mut inner.change else { return false };
        change.is_insisted = true;
        tracing::error!("the members, or what is promised, change at once: whoever is away does not know it");
        self.decide(&mut inner, now);
        true
    }

    /// Whether as many followers as an acknowledgement needs are in sync, one at least, and each of them has everything on its disk.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let end = self.engine.watermarks().assigned;
        let inner = self.inner();
        let has_all = |replica: &&ReplicaId| inner.peers.get(*replica).is_some_and(|peer| peer.durable >= end);
        let whole = inner.in_sync.iter().filter(has_all).count();
        whole == inner.in_sync.len() && u32::try_from(whole).unwrap_or(u32::MAX) >= self.followers(&inner).max(1)
    }

    /// The highest term above its own that it has heard of: it leads no more.
    #[must_use]
    pub fn superseded(&self) -> Option<u32> {
        self.inner().superseded
    }

    /// Somebody has promised, or leads, a higher term.
    pub fn supersede(&self, term: u32, now: Duration) {
        let mut inner = self.inner();
        if inner.superseded.is_none_or(|known| known < term) {
            tracing::warn!(own = %self.epoch, term, "another node leads in a higher term: this one admits nothing any more");
            inner.superseded = Some(term);
        }
        self.decide(&mut inner, now);
    }

    /// How replication stands.
    #[must_use]
    pub fn status(&self, now: Duration) -> LeaderStatus {
        let mut inner = self.inner();
        self.decide(&mut inner, now);
        self.status_at(&inner, now)
    }

    /// How replication stood when it was last decided who is in sync: for those that only look, whatever clock they have.
    #[must_use]
    pub fn last_status(&self) -> LeaderStatus {
        let inner = self.inner();
        self.status_at(&inner, inner.decided)
    }

    fn status_at(&self, inner: &Inner, now: Duration) -> LeaderStatus {
        let marks = self.engine.watermarks();
        let mut names: BTreeSet<&ReplicaId> = inner.peers.keys().chain(&inner.voters).collect();
        names.remove(&self.config.id);
        let peer = |replica: &ReplicaId| {
            let peer = inner.peers.get(replica).cloned().unwrap_or_default();
            PeerStatus {
                is_member: inner.voters.contains(replica),
                connected: peer.session.is_some(),
                in_sync: inner.in_sync.contains(replica),
                durable: peer.durable,
                lag_bytes: marks.assigned.since(peer.durable),
                answered: peer.answered.map(|sent| now.saturating_sub(sent)),
                free_bytes: peer.free_bytes,
                connections: peer.connections,
                replica: replica.clone(),
            }
        };
        LeaderStatus {
            leader: self.config.id.clone(),
            epoch: self.epoch,
            policy: self.policy(inner),
            degraded: inner.degraded,
            degradations: inner.degradations,
            replicated: inner.replicated,
            acked: marks.acked,
            not_admitted: self.admission().err(),
            peers: names.into_iter().map(peer).collect(),
        }
    }

    /// Replicas that are connected and follow.
    #[must_use]
    pub fn connected(&self) -> BTreeSet<ReplicaId> {
        let inner = self.inner();
        let connected = inner.peers.iter().filter(|(_, peer)| peer.session.is_some());
        connected.map(|(replica, _)| replica.clone()).collect()
    }

    // ---- what links tell

    /// Its log, as a peer must know it.
    pub(crate) fn log_state(&self) -> LogState {
        LogState::of(&self.engine)
    }

    /// Log bytes that may be on the way: one frame fits always, or it would never be whole.
    pub(crate) fn window_bytes(&self) -> u64 {
        self.config.window_bytes.max(2 * self.engine.info().options.frame_bytes_max())
    }

    /// Whether the loss of one machine never loses what is acknowledged: a log that lacks some of that is no reason to give up another one.
    pub(crate) fn keeps_all_that_it_acknowledges(&self) -> bool {
        matches!(self.config.policy, Policy::Sync { on_missing: OnMissing::Refuse, .. })
    }

    /// Whether a replica may follow.
    pub(crate) fn may_follow(&self, replica: &ReplicaId) -> bool {
        let inner = self.inner();
        let coming = inner.change.iter().any(|change| change.voters.contains(replica));
        *replica != self.config.id && (inner.voters.contains(replica) || coming)
    }

    /// Whether it stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.inner().stopping
    }

    /// A replica begins to follow, on a connection of its own; another one that it has is replaced.
    pub(crate) fn join(&self, replica: &ReplicaId, durable: Lsn, free_bytes: u64, now: Duration) -> u64 {
        let mut inner = self.inner();
        inner.next_session += 1;
        let session = inner.next_session;
        let peer = inner.peers.entry(replica.clone()).or_default();
        if peer.session.replace(session).is_some() {
            tracing::warn!(%replica, "a second connection of this replica replaces the first");
        }
        peer.connections += 1;
        peer.was_heard = true;
        (peer.durable, peer.free_bytes, peer.answered, peer.is_whole) = (durable, free_bytes, None, false);
        inner.votes.withdraw(replica);
        self.decide(&mut inner, now);
        session
    }

    /// Whether a connection still speaks for its replica.
    pub(crate) fn is_current(&self, replica: &ReplicaId, session: u64) -> bool {
        self.inner().peers.get(replica).is_some_and(|peer| peer.session == Some(session))
    }

    /// A follower's word. False when another connection speaks for it by now.
    pub(crate) fn ack(&self, replica: &ReplicaId, session: u64, ack: &crate::message::Ack, now: Duration) -> bool {
        let mut inner = self.inner();
        let Some(peer) = inner.peers.get_mut(replica).filter(|peer| peer.session == Some(session)) else {
            return false;
        };
        (peer.durable, peer.free_bytes, peer.is_whole) = (ack.durable, ack.free_bytes, ack.epoch == self.epoch);
        let sent = Duration::from_micros(ack.beat.saturating_sub(1)).min(now);
        if ack.beat > 0 && peer.answered.is_none_or(|answered| answered < sent) {
            peer.answered = Some(sent);
        }
        inner.votes.ack(replica, ack.epoch, ack.durable);
        self.decide(&mut inner, now);
        true
    }

    /// A replica's log turns out not to be a part of this one: what it said before is about another one.
    pub(crate) fn part(&self, replica: &ReplicaId, now: Duration) {
        let mut inner = self.inner();
        inner.votes.withdraw(replica);
        if let Some(peer) = inner.peers.get_mut(replica)
            && peer.session.take().is_some()
        {
            tracing::warn!(%replica, "its log goes on here no more: an older connection of it counts no more");
        }
        self.decide(&mut inner, now);
    }

    /// A connection is closed.
    pub(crate) fn leave(&self, replica: &ReplicaId, session: u64) {
        let mut inner = self.inner();
        let Some(peer) = inner.peers.get_mut(replica).filter(|peer| peer.session == Some(session)) else { return };
        peer.session = None;
        inner.votes.withdraw(replica);
        let now = inner.decided;
        self.decide(&mut inner, now);
    }

    /// What a replica begins with; the log is kept for it from there on.
    pub(crate) fn keep_for(&self, replica: &ReplicaId) -> Result<Seed, ReadError> {
        let start = self.engine.watermarks().start;
        // What is on its way out goes all the same. It may wait for this very replica's acknowledgement, so the replica must not wait for
        // it: one that finds its next bytes gone begins anew, further on.
        {
            let mut inner = self.inner();
            let _kept_from = self.engine.pin(&pin_name(replica), Some(start));
            inner.votes.withdraw(replica);
            let peer = inner.peers.entry(replica.clone()).or_default();
            peer.session = None;
            (peer.durable, peer.pinned, peer.was_heard) = (start, Some(start), true);
        }
        // The disk is read: nobody waits for that with the lock.
        self.engine.seed()
    }

    // ---- decisions

    /// What holds: all that was promised before, too, while that changes.
    fn policy(&self, inner: &Inner) -> Policy {
        let before = inner.change.iter().flat_map(|change| &change.before);
        before.fold(self.config.policy, |policy, before| policy.and(before.policy))
    }

    /// Followers that must be in sync. The copy of a leader that is to go is none of those that a promotion asks for.
    fn followers_wanted(&self, inner: &Inner) -> u32 {
        match self.policy(inner).followers() {
            0 => 0,
            followers => followers + u32::from(!inner.voters.contains(&self.config.id)),
        }
    }

    /// Followers that must have what is acknowledged: all that there are, where more are to come with more copies.
    fn followers(&self, inner: &Inner) -> u32 {
        let wanted = self.followers_wanted(inner);
        if inner.change.is_none() {
            return wanted;
        }
        let others = inner.voters.iter().filter(|replica| **replica != self.config.id).count();
        wanted.min(u32::try_from(others).unwrap_or(u32::MAX))
    }

    fn is_in_sync(&self, peer: &Peer, end: Lsn, now: Duration) -> bool {
        let InSync { lag_bytes, silence } = self.config.in_sync;
        let answers = peer.answered.is_some_and(|sent| now.saturating_sub(sent) <= silence);
        peer.session.is_some() && answers && peer.is_whole && end.since(peer.durable) <= lag_bytes
    }

    fn decide(&self, inner: &mut Inner, now: Duration) {
        inner.decided = inner.decided.max(now);
        let marks = self.engine.watermarks();
        let voters = &inner.voters;
        let counts = |replica: &ReplicaId, peer: &Peer| {
            *replica != self.config.id && voters.contains(replica) && self.is_in_sync(peer, marks.assigned, now)
        };
        let found = inner.peers.iter().filter(|(replica, peer)| counts(replica, peer));
        let in_sync: BTreeSet<ReplicaId> = found.map(|(replica, _)| replica.clone()).collect();
        for replica in in_sync.symmetric_difference(&inner.in_sync) {
            let lag_bytes = inner.peers.get(replica).map_or(0, |peer| marks.assigned.since(peer.durable));
            match in_sync.contains(replica) {
                true => tracing::info!(%replica, lag_bytes, "in sync"),
                false => tracing::warn!(%replica, lag_bytes, "not in sync any more"),
            }
        }
        inner.in_sync = in_sync;
        let followers = self.followers(inner);
        if inner.superseded.is_none() {
            let in_sync = &inner.in_sync;
            if let Some(replicated) = inner.votes.replicated(followers, |replica| in_sync.contains(replica)) {
                let replicated = inner.change.as_ref().map_or(replicated, |change| replicated.min(change.end));
                inner.replicated = inner.replicated.max(Some(replicated));
                self.engine.set_replicated(replicated);
            }
        }
        self.change_members(inner, now);
        self.gate.store(gate::encode(self.refusal(inner)), Ordering::SeqCst);
    }

    /// Lets a change of members take effect: once it is acknowledged by those before it, and as many of them as an acknowledgement needs
    /// know that it is. A promotion under the members before, or by what was guaranteed before, meets one of these.
    fn change_members(&self, inner: &mut Inner, now: Duration) {
        let followers = self.followers(inner);
        let Some(change) = &mut inner.change else { return };
        // A leader that flushed first counts as one of those that have it.
        let marks = self.engine.watermarks();
        if marks.acked.min(marks.durable) < change.end && !change.is_insisted {
            return;
        }
        let since = *change.acked_at.get_or_insert(now);
        let knows = |replica: &&ReplicaId| {
            let peer = inner.peers.get(*replica);
            peer.is_some_and(|peer| peer.answered.is_some_and(|sent| sent > since))
        };
        let known = inner.in_sync.iter().filter(knows).count();
        if (known >= usize::try_from(followers).unwrap_or(usize::MAX) || change.is_insisted)
            && let Some(change) = inner.change.take()
        {
            tracing::info!(members = ?change.voters, policy = ?self.config.policy, "the members, or what is promised, changed");
            inner.voters = change.voters;
            let Inner { peers, voters, .. } = inner;
            peers.retain(|replica, peer| {
                let stays = peer.was_heard || voters.contains(replica);
                if !stays {
                    self.engine.pin(&pin_name(replica), None);
                }
                stays
            });
        }
    }

    /// Why nothing may be taken; a policy that degrades does it here.
    fn refusal(&self, inner: &mut Inner) -> Option<NotAdmitted> {
        if let Some(term) = inner.superseded {
            return Some(NotAdmitted::Superseded { term });
        }
        if inner.stopping {
            return Some(NotAdmitted::Stopping);
        }
        let policy = self.policy(inner);
        let (copies, degrades) = match policy {
            Policy::Async => (1, false),
            Policy::Sync { copies, on_missing } => (copies, on_missing == OnMissing::Degrade),
        };
        let in_sync = u32::try_from(inner.in_sync.len()).unwrap_or(u32::MAX);
        let followers = self.followers(inner);
        let is_missing = in_sync < followers;
        if self.broken.is(Fault::DegradeSilently) {
            self.engine.set_ack_rule(if is_missing { AckRule::Local } else { AckRule::Replicated });
            return None;
        }
        let is_short = in_sync < self.followers_wanted(inner) && !degrades;
        let degrades = is_missing && degrades;
        if degrades != inner.degraded {
            inner.degraded = degrades;
            if degrades {
                inner.degradations += 1;
                tracing::error!(in_sync, copies, "DEGRADED: what is acknowledged now is on this machine alone");
            } else {
                tracing::warn!(in_sync, copies, "no longer degraded: what is acknowledged is on all copies again");
            }
        }
        let rule = if degrades || followers == 0 { AckRule::Local } else { AckRule::Replicated };
        if inner.ack_rule != rule {
            inner.ack_rule = rule;
            self.engine.set_ack_rule(rule);
        }
        if is_short {
            return Some(NotAdmitted::Missing { in_sync, copies });
        }
        self.no_space(inner)
    }

    fn no_space(&self, inner: &Inner) -> Option<NotAdmitted> {
        let mut free = inner.in_sync.iter().filter_map(|replica| inner.peers.get(replica)).map(|peer| peer.free_bytes);
        let is_heeded = !self.broken.is(Fault::SpaceUnheeded);
        free.any(|bytes| is_heeded && bytes < self.config.free_bytes_min).then_some(NotAdmitted::NoSpace)
    }

    /// Keeps the log from where each follower is, as long as it is not too far behind.
    fn move_pins(&self, inner: &mut Inner, now: Duration) {
        let end = self.engine.watermarks().assigned;
        let waits = now.saturating_sub(*inner.began.get_or_insert(now)) < self.config.retain_unheard;
        for (replica, peer) in &mut inner.peers {
            if waits && !peer.was_heard {
                continue;
            }
            let wanted = Some(peer.durable).filter(|durable| end.since(*durable) <= self.config.retain_lag_bytes);
            if wanted == peer.pinned {
                continue;
            }
            if wanted.is_none() {
                let lag_bytes = end.since(peer.durable);
                tracing::error!(%replica, lag_bytes, "too far behind: the log is not kept for it any more");
            }
            self.engine.pin(&pin_name(replica), wanted);
            peer.pinned = wanted;
        }
    }
}

fn pin_name(replica: &ReplicaId) -> String {
    format!("replica {replica}")
}
