//! The node's own thread: the parts that it plays, one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anchorlog_engine::error::Advice;
use anchorlog_engine::io::IoBackend;
use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::replica::{self, CutError, PromiseError, Role};
use anchorlog_engine::{Clock, Engine, Lsn, OpenError, SystemClock};

use super::answering;
use super::config::{FirstRole, NodeConfig};
use super::following::{Errand, Followed, Following};
use super::leadership::{Claim, Leadership, PromisedLeadership};
use super::limits;
use super::mending::Mending;
use super::owner::{Event, Owner, Serving};
use super::promoting::Candidacy;
use super::shared::{Command, Heard, Part, Reply, Shared, answer, leading_term};
use crate::leader::{LeadError, Leader};
use crate::member::{Member, ReplicaId};
use crate::message::{LogState, Message, NodeRole, NodeState, Outcome, Status};
use crate::policy::Policy;
use crate::promotion::Refused;
use crate::quorum::next_term;
use crate::seed_link::Replaces;
use crate::transport::ListenError;
use crate::transport::channel::Hangup;
use crate::transport::listener::Listener;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Its configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// Nobody could connect to it.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What was promised here cannot be read or kept.
    #[error(transparent)]
    Promise(#[from] PromiseError),
    /// Its log does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot lead.
    #[error(transparent)]
    Lead(#[from] LeadError),
    /// The kernel refuses a thread or a descriptor.
    #[error("starting a node: {0}")]
    Io(#[from] std::io::Error),
}

/// A node that runs.
pub struct Node {
    shared: Arc<Shared>,
    listener: Listener,
    thread: Option<JoinHandle<()>>,
    mending: Mending,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.shared.config.id).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts a node. When this returns, its log is open and served, or it has none and looks for a leader to get it from. One that is to
    /// lead asks its members first: some seconds, where they do not answer.
    ///
    /// # Errors
    /// When the configuration is wrong, the port is taken, or the log does not open.
    pub fn start(config: NodeConfig, owner: Arc<dyn Owner>) -> Result<Node, NodeError> {
        let backend: Arc<dyn IoBackend> = Arc::new(ThreadsBackend::new());
        backend.create_dir_all(&config.dir)?;
        let leadership = PromisedLeadership::load(Arc::clone(&backend), &config.dir)?;
        Node::start_with(config, owner, backend, Box::new(leadership))
    }

    /// [`Node::start`], where something else than promises in the directory says who leads. With `backend` the log is cut and seeded.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_with(
        config: NodeConfig,
        owner: Arc<dyn Owner>,
        backend: Arc<dyn IoBackend>,
        leadership: Box<dyn Leadership>,
    ) -> Result<Node, NodeError> {
        check(&config)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (listen, security) = (config.listen.clone(), config.security.clone());
        let shared = Arc::new(Shared::new(config, owner, Arc::clone(&clock), backend, leadership)?);
        let listener = {
            let shared = Arc::clone(&shared);
            Listener::start(&listen, security, clock, move |channel| answering::serve(&shared, channel))?
        };
        let (started, outcome) = mpsc::channel();
        let mut parts = Parts { shared: Arc::clone(&shared), started: Some(started) };
        let thread = std::thread::Builder::new().name("replica-node".to_owned()).spawn(move || parts.run())?;
        let mending = Mending::start(&shared)?;
        let node = Node { shared, listener, thread: Some(thread), mending };
        match outcome.recv() {
            Ok(Ok(())) => Ok(node),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(NodeError::Config("the node's thread ended".to_owned())),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &ReplicaId {
        &self.shared.config.id
    }

    /// Where it listens for its peers.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.listener.address()
    }

    /// What it knows of itself.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.shared.node_state()
    }

    /// How replication stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Has it lead. `unsafely`: although something that was acknowledged may be lost.
    #[must_use]
    pub fn promote(&self, unsafely: bool) -> Outcome {
        answering::tell(&self.shared, |reply| Command::Promote { unsafely, reply })
    }

    /// Has it hand over and follow.
    #[must_use]
    pub fn demote(&self) -> Outcome {
        answering::tell(&self.shared, |reply| Command::Demote { reply })
    }

    /// Ends it: its owner stops serving, and its log is closed.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.mending.stop();
            self.shared.tell(Command::Stop);
            if thread.join().is_err() {
                tracing::error!("the node's thread panicked");
            }
            self.listener.stop();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

fn check(config: &NodeConfig) -> Result<(), NodeError> {
    let wrong = |text: String| Err(NodeError::Config(text));
    let NodeConfig { id, members, leading, .. } = config;
    if !members.iter().any(|member| member.id == *id) {
        return wrong(format!("{id} is not among the members"));
    }
    if let Some(twice) =
        members.iter().enumerate().find(|(at, one)| members[..*at].iter().any(|other| other.id == one.id))
    {
        return wrong(format!("{} is a member twice", twice.1.id));
    }
    if let Policy::Sync { copies, .. } = leading.policy
        && !(2..=members.len()).contains(&usize::try_from(copies).unwrap_or(usize::MAX))
    {
        return wrong(format!("{copies} copies on {} members: at least 2, at most one for each", members.len()));
    }
    if leading.id != *id || leading.members != *members {
        return wrong("how the node leads is for another one, or for other members".to_owned());
    }
    Ok(())
}

/// What the thread does next.
enum Next {
    /// `term`: a new one; the log's own goes on otherwise.
    Lead {
        term: Option<u32>,
        reply: Option<Reply>,
    },
    /// Lead again in a higher term, because members have promised one.
    Renew {
        reply: Reply,
    },
    Follow,
    Stop,
}

struct Parts {
    shared: Arc<Shared>,
    /// Where the first opening is told.
    started: Option<mpsc::Sender<Result<(), NodeError>>>,
}

impl Parts {
    fn run(&mut self) {
        let mut next = self.begin();
        loop {
            next = match next {
                Next::Lead { term, reply } => self.lead(term, reply),
                Next::Renew { reply } => self.renew(reply),
                Next::Follow => self.follow(),
                Next::Stop => break,
            };
        }
        // Who still waits for an answer gets none.
        while let Some(command) = self.shared.next_command(Duration::ZERO) {
            if let Command::Promote { reply, .. } | Command::Demote { reply } = command {
                answer(&reply, false, "the node stops".to_owned());
            }
        }
    }

    fn has_started(&mut self) {
        if let Some(started) = self.started.take() {
            // Nobody waits when starting was given up.
            let _unheard = started.send(Ok(())).is_err();
        }
    }

    /// Says what failed: to whoever starts the node, and it ends; or as an event, and it is tried again.
    fn has_failed(&mut self, what: &str, error: NodeError) -> Option<Next> {
        if let Some(started) = self.started.take() {
            let _unheard = started.send(Err(error)).is_err();
            return Some(Next::Stop);
        }
        self.shared.failed(what, &error);
        self.shared.pause(limits::RETRY_PAUSE).then_some(Next::Stop)
    }

    /// Who leads, at the start: what was promised, then what the members say.
    fn begin(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let (claim, id) = (shared.leadership.current(), &shared.config.id);
        let leads = match &claim {
            Some(claim) => claim.leader.as_ref() == Some(id),
            None => shared.config.first_role == FirstRole::Leader,
        };
        if !leads {
            return Next::Follow;
        }
        let states = shared.ask_states();
        let own = claim.as_ref().map_or(0, |claim| claim.term);
        if let Some(higher) = states.values().map(|state| state.promised_term).filter(|term| *term > own).max()
            && claim.is_some()
        {
            tracing::warn!(own, higher, "a member has promised a higher term: this node gives way");
            return Next::Follow;
        }
        if claim.is_none() {
            // A directory without a past is no reason to begin a second log.
            let other = states.iter().find(|(_, state)| state.role != NodeRole::Empty && state.promised_term > 0);
            if let Some((peer, _)) = other {
                tracing::warn!(%peer, "a member has a log already: this node does not begin one");
                return Next::Follow;
            }
        } else {
            // What it guaranteed when it led stands there.
            if let Err(next) = self.look_into_log() {
                return next;
            }
            return if self.may_have_lost() { self.begin_after_loss() } else { self.begin_among(&states) };
        }
        Next::Lead { term: None, reply: None }
    }

    /// A leader that flushed before it acknowledged: who has been told of more than it has got it from here, and it is gone.
    fn begin_among(&mut self, states: &BTreeMap<ReplicaId, NodeState>) -> Next {
        let durable = self.shared.log_state().map_or(Lsn::ZERO, |log| log.durable);
        let told = states.iter().filter_map(|(peer, state)| Some((state.log.as_ref()?.committed, peer)));
        match told.max() {
            Some((committed, peer)) if committed > durable => {
                tracing::error!(%peer, %committed, %durable, "this node led, and has lost what it acknowledged: another one is to lead");
                let what = format!(
                    "{peer} has what was acknowledged up to LSN {committed}, and this node only up to {durable}"
                );
                self.shared.failed("leading again", &what);
                if let Err(why) = Candidacy::of_former_leader(&self.shared).prefer(peer) {
                    self.shared.failed("handing over", &why);
                }
                Next::Follow
            }
            _ => Next::Lead { term: None, reply: None },
        }
    }

    /// Opens the log and closes it again: how far it goes stays known. It may never have been begun.
    fn look_into_log(&mut self) -> Result<(), Next> {
        loop {
            match self.open(Role::Replica) {
                Ok(engine) => {
                    self.put_away(engine, false);
                    return Ok(());
                }
                Err(OpenError::NoReplica { .. }) => return Ok(()),
                Err(error) => {
                    if let Some(next) = self.has_failed("opening the log", error.into()) {
                        return Err(next);
                    }
                }
            }
        }
    }

    /// Whether followers may have acknowledged what this node, which led, has lost.
    fn may_have_lost(&self) -> bool {
        let guarantees = self.shared.guarantees();
        guarantees.iter().any(|guarantee| guarantee.policy.followers() > 0 && !guarantee.is_flushed)
    }

    /// A leader that acknowledged before it flushed: whoever has the most of the log leads.
    fn begin_after_loss(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        if shared.log_state().is_none() {
            // It never wrote anything.
            return Next::Lead { term: None, reply: None };
        }
        let candidacy = Candidacy::of_former_leader(&shared);
        let mut has_complained = false;
        loop {
            let states = shared.ask_states();
            let own = shared.claim_term();
            if states.values().any(|state| state.promised_term > own) {
                return Next::Follow;
            }
            match candidacy.judge(&states) {
                Ok(()) => return Next::Lead { term: None, reply: None },
                Err(Refused::Behind { by, .. }) => {
                    tracing::warn!(%by, "has more of the log than this node, which led: it is asked to lead");
                    if let Err(why) = candidacy.prefer(&by) {
                        shared.failed("handing over", &why);
                    }
                    return Next::Follow;
                }
                Err(refused) => {
                    if !std::mem::replace(&mut has_complained, true) {
                        shared.failed("leading again", &refused);
                    }
                    self.has_started();
                    if shared.pause(limits::RETRY_PAUSE) {
                        return Next::Stop;
                    }
                }
            }
        }
    }

    fn open(&self, role: Role) -> Result<Arc<Engine>, OpenError> {
        let config = &self.shared.config;
        let options = config.engine.clone().with_role(role).with_replicated_acks(true);
        let open = || self.shared.owner.open_engine(&config.dir, options.clone());
        let engine = match open() {
            Err(error) if self.shared.mend_closed(&error) => open(),
            opened => opened,
        };
        Ok(Arc::new(engine?))
    }

    /// Closes the log. `is_served`: its owner serves it.
    fn put_away(&self, engine: Arc<Engine>, is_served: bool) {
        let shared = &*self.shared;
        if is_served {
            shared.owner.stop_serving();
        }
        // Closing flushes; what is known of the log then is what it comes to.
        if let Err(error) = engine.flush() {
            tracing::error!(%error, "the log cannot be flushed");
        }
        let last = (LogState::of(&engine), engine.is_whole());
        let (members, guarantees) = (shared.members_of(&engine), shared.guarantees_of(&engine));
        shared.change(|state| {
            state.engine = None;
            state.last = Some(last);
            state.last_members = members;
            state.last_guarantees = guarantees;
        });
        let complain_at = shared.now() + limits::CLOSE_TIME_EXPECTED;
        let mut has_complained = false;
        let mut engine = engine;
        let engine = loop {
            engine = match Arc::try_unwrap(engine) {
                Ok(engine) => break engine,
                Err(engine) => engine,
            };
            if !has_complained && shared.now() > complain_at {
                has_complained = true;
                tracing::error!("somebody still holds the log, which is to be closed");
            }
            shared.rest(limits::LOOK_PAUSE);
        };
        if let Err(error) = engine.close() {
            tracing::error!(%error, "closing the log");
        }
    }

    // ---- leading

    fn lead(&mut self, term: Option<u32>, reply: Option<Reply>) -> Next {
        let shared = Arc::clone(&self.shared);
        let fail = |parts: &mut Parts, what: &str, error: NodeError| {
            if let Some(reply) = &reply {
                answer(reply, false, format!("{what}: {error}"));
            }
            parts.has_failed(what, error).unwrap_or(Next::Follow)
        };
        let engine = match self.open(Role::Leader { term }) {
            Ok(engine) => engine,
            Err(error @ OpenError::Promised { .. }) if term.is_none() => {
                // It was about to lead the promised term when it stopped, and never did.
                tracing::warn!(%error, "this node follows until it is promoted");
                return Next::Follow;
            }
            Err(error) => return fail(self, "opening the log to lead", error.into()),
        };
        let term = engine.info().epoch.term;
        let claim = Claim { term, leader: Some(shared.config.id.clone()) };
        let leader =
            shared.leadership.raise(&claim).map_err(NodeError::from).and_then(|()| {
                Leader::new(Arc::clone(&engine), shared.config.leading.clone()).map_err(NodeError::from)
            });
        let leader = match leader {
            Ok(leader) => leader,
            Err(error) => {
                self.put_away(engine, false);
                return fail(self, "leading", error);
            }
        };
        shared.change(|state| {
            state.engine = Some(Arc::clone(&engine));
            state.part = Part::Leading(Arc::clone(&leader));
        });
        // Whoever promised this node away before saw no leader to end; whoever does it from now on waits for the end of this one.
        if shared.leadership.current().as_ref() != Some(&claim) {
            leader.supersede(shared.claim_term(), shared.now());
        }
        shared.owner.serve(&engine, Serving::Leader(Arc::clone(&leader)));
        shared.event(&Event::Leads { term });
        self.has_started();
        if let Some(reply) = reply {
            answer(&reply, true, format!("{} leads in term {term}", shared.config.id));
        }
        let (next, is_served) = self.keep_leading(&leader, &claim);
        leader.stop(shared.now());
        let new_term = leader.superseded().unwrap_or(term);
        shared.change(|state| {
            state.part = Part::SteppingDown;
            state.links.values().for_each(Hangup::hang_up);
        });
        if is_served {
            shared.owner.stop_serving();
        }
        while !shared.wait_until(limits::RETRY_PAUSE, |state| state.links.is_empty()) {
            tracing::warn!("connections of followers do not end");
        }
        drop(leader);
        self.put_away(engine, false);
        shared.change(|state| state.part = Part::Between);
        shared.event(&Event::SteppedDown { term: new_term });
        next
    }

    /// Until this node leads no more; and whether its owner still serves.
    fn keep_leading(&mut self, leader: &Arc<Leader>, claim: &Claim) -> (Next, bool) {
        let shared = Arc::clone(&self.shared);
        let patience = (shared.config.leading.heartbeat / 4).max(limits::LOOK_PAUSE);
        let mut inquiry = Inquiry { last: shared.now(), heard: None };
        loop {
            leader.tick(shared.now());
            inquiry.go_on(&shared, leader);
            if let Some(current) = shared.leadership.current()
                && current != *claim
            {
                leader.supersede(current.term, shared.now());
            }
            if leader.superseded().is_some() {
                return (Next::Follow, true);
            }
            match shared.next_command(patience) {
                Some(Command::Stop) => {
                    leader.stop(shared.now());
                    // What was let in is acknowledged if it can be, so that the next run begins with a log that all have.
                    if leader.status(shared.now()).peers.iter().any(|peer| peer.in_sync) {
                        self.drain(leader);
                    }
                    return (Next::Stop, true);
                }
                Some(Command::Promote { unsafely, reply }) => {
                    let mut others = shared.ask_states().into_values();
                    if others.any(|state| state.promised_term > claim.term) {
                        return (Next::Renew { reply }, true);
                    }
                    let insists = unsafely && leader.insist(shared.now());
                    let what = if insists { "; what was to change holds at once" } else { "" };
                    answer(&reply, true, format!("{} leads already, in term {}{what}", shared.config.id, claim.term));
                }
                Some(Command::Demote { reply }) => match self.hand_over(leader, claim) {
                    HandOver::Done(text) => {
                        answer(&reply, true, text);
                        return (Next::Follow, false);
                    }
                    HandOver::Refused(text) => answer(&reply, false, text),
                    HandOver::Undone { text, is_served } => {
                        answer(&reply, false, text);
                        return (Next::Lead { term: None, reply: None }, is_served);
                    }
                },
                Some(Command::Look | Command::Followed(_)) | None => {}
            }
        }
    }

    /// This node led, and has all that it acknowledged; members that were promised away from it follow it in a higher term alone.
    fn renew(&self, reply: Reply) -> Next {
        let candidacy = Candidacy::of_leader(&self.shared);
        let states = self.shared.ask_states();
        let judged = candidacy.judge(&states).map_err(|refused| refused.to_string());
        match judged.and_then(|()| candidacy.collect(&states)) {
            Ok(term) => Next::Lead { term: Some(term), reply: Some(reply) },
            Err(why) => {
                answer(&reply, false, why);
                Next::Follow
            }
        }
    }

    /// Takes nothing more, and waits until the followers have everything; the owner serves no more when that is done.
    fn hand_over(&self, leader: &Arc<Leader>, claim: &Claim) -> HandOver {
        let shared = &*self.shared;
        if !leader.status(shared.now()).peers.iter().any(|peer| peer.in_sync && peer.is_member) {
            return HandOver::Refused("no follower is in sync: nobody could lead".to_owned());
        }
        leader.stop(shared.now());
        // What was let in before is acknowledged first, and its clients are told.
        let undone = |is_served| {
            let id = &shared.config.id;
            let text =
                format!("not all followers that are needed have everything: {id} has not handed over, and leads again");
            HandOver::Undone { text, is_served }
        };
        if !self.drain(leader) {
            return undone(true);
        }
        shared.owner.stop_serving();
        if !self.drain(leader) {
            return undone(false);
        }
        // From here on it would not lead again, started anew, without being promoted. In a term of its own: it may follow whoever leads
        // in another one.
        let term = next_term(claim.term, &shared.config.id, &shared.voters());
        let next = Claim { term: term.unwrap_or_else(|| claim.term.saturating_add(1)), leader: None };
        if let Err(error) = shared.leadership.raise(&next) {
            shared.failed("giving up the term", &error);
        }
        let end = leader.engine().watermarks().assigned;
        HandOver::Done(format!(
            "{} has handed over at LSN {end}: the followers in sync have everything",
            shared.config.id
        ))
    }

    /// Waits until the followers in sync have everything and nothing more is appended, the mark behind the last group among it; false
    /// when that takes too long.
    fn drain(&self, leader: &Leader) -> bool {
        let shared = &*self.shared;
        let deadline = shared.now() + limits::DRAIN_TIME_MAX;
        let (mut end, mut quiet_since) = (leader.engine().watermarks().assigned, shared.now());
        loop {
            let marks = leader.engine().watermarks();
            let now = shared.now();
            if marks.assigned != end || marks.durable != end || !leader.is_drained() {
                (end, quiet_since) = (marks.assigned, now);
            }
            if now.saturating_sub(quiet_since) >= limits::QUIET_TIME {
                return true;
            }
            if now > deadline {
                return false;
            }
            leader.tick(now);
            shared.rest(limits::LOOK_PAUSE);
        }
    }

    // ---- following

    fn follow(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let mut replaces = Replaces::Nothing;
        loop {
            let opened = if replaces != Replaces::Nothing { None } else { Some(self.open(Role::Replica)) };
            let engine = match opened {
                Some(Ok(engine)) => Some(engine),
                None | Some(Err(OpenError::NoReplica { .. } | OpenError::HalfSeeded { .. })) => None,
                Some(Err(error)) => {
                    let is_final = error.advice() == Advice::Stop;
                    match self.has_failed("opening the log to follow", error.into()) {
                        Some(next) => return next,
                        None if is_final && shared.pause(5 * limits::RETRY_PAUSE) => return Next::Stop,
                        None => continue,
                    }
                }
            };
            if let Some(engine) = &engine {
                shared.owner.serve(engine, Serving::Follower);
            }
            shared.change(|state| {
                state.part = if engine.is_some() { Part::Following } else { Part::Empty };
                state.engine.clone_from(&engine);
                if engine.is_none() {
                    state.last = None;
                    state.last_members = Vec::new();
                    state.last_guarantees = Vec::new();
                }
            });
            self.has_started();
            let outcome = self.keep_following(engine.as_ref(), replaces);
            replaces = Replaces::Nothing;
            if let Some(engine) = engine {
                self.put_away(engine, true);
            }
            shared.change(|state| state.part = Part::Between);
            let kept = Replaces::Kept { end: shared.log_state().map_or(Lsn::ZERO, |last| last.end) };
            match outcome {
                Parted::Next(next) => return next,
                Parted::Cut(at) if self.cut(at) => {}
                Parted::Cut(_) => replaces = kept,
                Parted::Bootstrap { why, keeps } => {
                    shared.event(&Event::Bootstraps { why });
                    replaces = if keeps { kept } else { Replaces::Erased };
                }
                Parted::Reopen => {}
            }
        }
    }

    /// False when the log has to begin anew instead.
    fn cut(&self, at: Lsn) -> bool {
        let shared = &*self.shared;
        let dir: &Path = &shared.config.dir;
        loop {
            match replica::cut(&*shared.backend, dir, at) {
                Ok(report) => {
                    tracing::warn!(%at, bytes = report.bytes, aside = ?report.aside, "the log was cut");
                    shared.event(&Event::Cut { at, bytes: report.bytes });
                    return true;
                }
                Err(error @ (CutError::BelowStart { .. } | CutError::NoBoundary { .. })) => {
                    shared.event(&Event::Bootstraps { why: error.to_string() });
                    return false;
                }
                Err(error) => {
                    shared.failed("cutting the log", &error);
                    if shared.pause(limits::RETRY_PAUSE) {
                        return true;
                    }
                }
            }
        }
    }

    /// Until this node has to do something with its log, or is to do something else.
    fn keep_following(&mut self, engine: Option<&Arc<Engine>>, replaces: Replaces) -> Parted {
        let shared = Arc::clone(&self.shared);
        loop {
            let errand = match engine {
                Some(engine) => Errand::Follow(Arc::clone(engine)),
                None => Errand::Seed { replaces },
            };
            let following = match Following::start(&shared, errand) {
                Ok(following) => following,
                Err(error) => {
                    shared.failed("starting to follow", &error);
                    if shared.pause(limits::RETRY_PAUSE) {
                        return Parted::Next(Next::Stop);
                    }
                    continue;
                }
            };
            let command = loop {
                match shared.next_command(limits::RETRY_PAUSE) {
                    None | Some(Command::Look | Command::Followed(Followed::Halted)) => {}
                    Some(Command::Demote { reply }) => {
                        answer(&reply, false, format!("{} does not lead", shared.config.id));
                    }
                    Some(Command::Promote { reply, .. }) if engine.is_none() => {
                        answer(&reply, false, format!("{} has no log yet", shared.config.id));
                    }
                    Some(command) => break command,
                }
            };
            let mut following = Some(following);
            let parted = match command {
                Command::Followed(Followed::Cut(at)) => Parted::Cut(at),
                Command::Followed(Followed::Bootstrap { why, keeps }) => Parted::Bootstrap { why, keeps },
                Command::Followed(Followed::Seeded) => Parted::Reopen,
                Command::Followed(Followed::Fenced) => {
                    shared.failed("following", &"the log is fenced, and opened again");
                    if shared.pause(limits::RETRY_PAUSE) { Parted::Next(Next::Stop) } else { Parted::Reopen }
                }
                Command::Promote { unsafely, reply } => match self.promote(unsafely, &mut following) {
                    Ok(term) => Parted::Next(Next::Lead { term: Some(term), reply: Some(reply) }),
                    Err(why) => {
                        answer(&reply, false, why);
                        self.forget(following.take());
                        continue;
                    }
                },
                Command::Stop | Command::Look | Command::Demote { .. } | Command::Followed(Followed::Halted) => {
                    Parted::Next(Next::Stop)
                }
            };
            self.forget(following.take());
            return parted;
        }
    }

    fn forget(&self, following: Option<Following>) {
        if let Some(following) = following {
            following.stop(&self.shared);
        }
        self.shared.forget_followed();
    }

    /// Everything up to the moment at which this node may open its log as a leader.
    fn promote(&self, unsafely: bool, following: &mut Option<Following>) -> Result<u32, String> {
        let shared = &*self.shared;
        let mut candidacy = Candidacy::new(shared, unsafely);
        // The link goes on meanwhile: it brings what is missing here.
        let relieved = candidacy.relieve()?;
        let states = shared.ask_states();
        let judged = candidacy.judge(&states).map_err(|refused| refused.to_string());
        let outcome = judged.and_then(|()| {
            self.forget(following.take());
            candidacy.collect(&states)
        });
        if let (Err(why), Some(former)) = (&outcome, relieved) {
            tracing::error!(%former, why, "not promoted: who led before is asked to lead again");
            if let Err(why) = candidacy.prefer(&former) {
                shared.failed("leading again", &why);
            }
        }
        outcome
    }
}

/// A leader's question to the members that do not follow it: whoever leads in a higher term may have been promoted behind its back, and
/// none of those who follow there would ever tell it.
struct Inquiry {
    last: Duration,
    heard: Option<mpsc::Receiver<Heard>>,
}

impl Inquiry {
    /// Takes what was answered, and asks again when it is time.
    fn go_on(&mut self, shared: &Shared, leader: &Leader) {
        let now = shared.now();
        while let Some(heard) = &self.heard {
            match heard.try_recv() {
                Ok(heard) => {
                    let term = heard.state().and_then(|(_, state)| leading_term(&state));
                    if let Some(term) = term.filter(|term| *term > leader.epoch().term) {
                        leader.supersede(term, now);
                    }
                }
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => self.heard = None,
            }
        }
        if now.saturating_sub(self.last) < limits::RETRY_PAUSE {
            return;
        }
        self.last = now;
        let connected: Vec<ReplicaId> =
            leader.status(now).peers.into_iter().filter(|peer| peer.connected).map(|peer| peer.replica).collect();
        let missing: Vec<Member> = shared.peers().into_iter().filter(|peer| !connected.contains(&peer.id)).collect();
        if !missing.is_empty() {
            self.heard = Some(shared.ask(missing, &Message::AskState, limits::STATE_TIME_MAX));
        }
    }
}

/// How a hand-over went.
enum HandOver {
    /// Nobody is served any more, and the node follows.
    Done(String),
    /// Nothing has changed.
    Refused(String),
    /// Nothing more is taken in this run; the next one leads on.
    Undone { text: String, is_served: bool },
}

/// Why a node stops to follow.
enum Parted {
    Cut(Lsn),
    Bootstrap { why: String, keeps: bool },
    Reopen,
    Next(Next),
}
