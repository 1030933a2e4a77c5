//! What the threads of a node share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use anchorlog_engine::io::IoBackend;
use anchorlog_engine::replica::{self, PromiseError};
use anchorlog_engine::{Clock, Engine};

use super::config::NodeConfig;
use super::leadership::{Claim, Leadership};
use super::limits;
use super::owner::{Event, Owner};
use crate::guarantee::{self, Guarantee};
use crate::leader::Leader;
use crate::member::{self, Member, ReplicaId};
use crate::message::{LogState, Message, NodeRole, NodeState, Outcome, PeerLine, Status};
use crate::policy::{OnMissing, Policy};
use crate::transport::channel::Hangup;
use crate::transport::conversation::{Conversation, TalkError};
use crate::transport::drive::Signal;

/// Where the outcome of a person's request goes.
pub(super) type Reply = mpsc::Sender<Outcome>;

/// What the node's own thread is to do.
pub(super) enum Command {
    Promote {
        unsafely: bool,
        reply: Reply,
    },
    Demote {
        reply: Reply,
    },
    /// Something has changed that it should look at.
    Look,
    /// The thread that follows is through.
    Followed(super::following::Followed),
    Stop,
}

/// Which part the node plays.
pub(super) enum Part {
    /// None: its log is closed, or not open yet.
    Between,
    /// It has no log.
    Empty,
    Following,
    Leading(Arc<Leader>),
    /// It leads no more; its log is being closed.
    SteppingDown,
}

/// What changes.
pub(super) struct State {
    pub(super) part: Part,
    pub(super) engine: Option<Arc<Engine>>,
    /// The log as it was when it was closed, and whether it was whole.
    pub(super) last: Option<(LogState, bool)>,
    /// The members that it named then: see [`member::possible`].
    pub(super) last_members: Vec<Vec<Member>>,
    /// What it guaranteed then: see [`guarantee::possible`].
    pub(super) last_guarantees: Vec<Guarantee>,
    /// Connections of followers, while it leads.
    pub(super) links: BTreeMap<u64, Hangup>,
    next_link: u64,
    /// The connection to whoever leads.
    pub(super) upstream: Option<Hangup>,
}

/// A node, as its threads see it.
pub(super) struct Shared {
    pub(super) config: NodeConfig,
    pub(super) owner: Arc<dyn Owner>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) backend: Arc<dyn IoBackend>,
    pub(super) leadership: Box<dyn Leadership>,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while the claim is read and raised.
    promising: Mutex<()>,
    commands: Mutex<VecDeque<Command>>,
    wake: Signal,
}

impl Shared {
    pub(super) fn new(
        config: NodeConfig,
        owner: Arc<dyn Owner>,
        clock: Arc<dyn Clock>,
        backend: Arc<dyn IoBackend>,
        leadership: Box<dyn Leadership>,
    ) -> std::io::Result<Shared> {
        let state = State {
            part: Part::Between,
            engine: None,
            last: None,
            last_members: Vec::new(),
            last_guarantees: Vec::new(),
            links: BTreeMap::new(),
            next_link: 0,
            upstream: None,
        };
        Ok(Shared {
            config,
            owner,
            clock,
            backend,
            leadership,
            state: Mutex::new(state),
            changed: Condvar::new(),
            promising: Mutex::new(()),
            commands: Mutex::new(VecDeque::new()),
            wake: Signal::new()?,
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Changes the state, and tells those who wait for that.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.notify_all();
        changed
    }

    /// Waits until the state is as wanted; false when that takes longer than `patience`.
    pub(super) fn wait_until(&self, patience: Duration, is_so: impl Fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), patience, |state| !is_so(state));
        !waited.expect("no holder panics").1.timed_out()
    }

    /// Lets time pass, for what nobody announces.
    pub(super) fn rest(&self, pause: Duration) {
        let _it_never_is = self.wait_until(pause, |_| false);
    }

    pub(super) fn tell(&self, command: Command) {
        self.commands.lock().expect("no holder panics").push_back(command);
        self.wake.set();
    }

    /// Forgets what threads said that follow no more.
    pub(super) fn forget_followed(&self) {
        let mut commands = self.commands.lock().expect("no holder panics");
        commands.retain(|command| !matches!(command, Command::Followed(_)));
    }

    /// The next command, or none within `patience`.
    pub(super) fn next_command(&self, patience: Duration) -> Option<Command> {
        let pop = || self.commands.lock().expect("no holder panics").pop_front();
        if let Some(command) = pop() {
            return Some(command);
        }
        self.wake.clear();
        pop().or_else(|| {
            if let Err(error) = self.wake.wait([], Some(patience)) {
                tracing::error!(%error, "waiting for commands");
            }
            pop()
        })
    }

    /// Waits; true when the node is to stop. What else is asked meanwhile is refused.
    pub(super) fn pause(&self, patience: Duration) -> bool {
        let deadline = self.now() + patience;
        loop {
            let left = deadline.saturating_sub(self.now());
            match self.next_command(left) {
                Some(Command::Stop) => {
                    self.tell(Command::Stop);
                    return true;
                }
                Some(Command::Promote { reply, .. } | Command::Demote { reply }) => {
                    answer(&reply, false, "this node is not ready yet".to_owned());
                }
                Some(Command::Look | Command::Followed(_)) => {}
                None if left.is_zero() => return false,
                None => {}
            }
        }
    }

    pub(super) fn claim_term(&self) -> u32 {
        self.leadership.current().map_or(0, |claim| claim.term)
    }

    /// The highest term that it takes part in: promised, or seen in the log.
    pub(super) fn promised_term(&self, log: Option<&LogState>) -> u32 {
        let seen = log.and_then(|log| log.history.last()).map_or(0, |last| last.epoch.term);
        self.claim_term().max(seen)
    }

    /// Makes `claim` what holds, and returns what did before: nothing comes between the two.
    pub(super) fn promise(&self, claim: &Claim) -> Result<Option<Claim>, PromiseError> {
        let _alone = self.promising.lock().expect("no holder panics");
        let before = self.leadership.current();
        self.leadership.raise(claim).map(|()| before)
    }

    /// Begins to count a follower's connection; `None` when the node does not lead.
    pub(super) fn begin_link(&self, hangup: Hangup) -> Option<(u64, Arc<Leader>)> {
        let mut state = self.state();
        let Part::Leading(leader) = &state.part else { return None };
        let leader = Arc::clone(leader);
        state.next_link += 1;
        let number = state.next_link;
        state.links.insert(number, hangup);
        Some((number, leader))
    }

    pub(super) fn end_link(&self, number: u64) {
        self.change(|state| state.links.remove(&number));
    }

    /// The log as it is, or was when it was closed; and whether it is whole.
    fn known_log(&self) -> Option<(LogState, bool)> {
        let (engine, last) = {
            let state = self.state();
            (state.engine.clone(), state.last.clone())
        };
        match engine {
            Some(engine) => Some((LogState::of(&engine), engine.is_whole())),
            None => last,
        }
    }

    /// The log as it is, or was when it was closed.
    pub(super) fn log_state(&self) -> Option<LogState> {
        self.known_log().map(|(log, _)| log)
    }

    /// Makes durable what the log has, so that what is said of it is all that a restart would find. A log that cannot be flushed is as far
    /// as it says.
    pub(super) fn flush_log(&self) {
        let engine = self.state().engine.clone();
        if let Some(Err(error)) = engine.map(|engine| engine.flush()) {
            tracing::error!(%error, "the log cannot be flushed");
        }
    }

    /// The log as far as it says what is acknowledged: none while it was seeded and has not come to where its leader's ended then. This
    /// machine may have acknowledged more before.
    pub(super) fn whole_log_state(&self) -> Option<LogState> {
        self.known_log().filter(|(_, is_whole)| *is_whole).map(|(log, _)| log)
    }

    pub(super) fn node_state(&self) -> NodeState {
        self.node_state_by(self.leadership.current())
    }

    /// With another claim than the one that holds now.
    pub(super) fn node_state_by(&self, claim: Option<Claim>) -> NodeState {
        let log = self.log_state();
        let seen = log.as_ref().and_then(|log| log.history.last()).map_or(0, |last| last.epoch.term);
        // Who leads in a higher term than was promised is not known.
        let claim = claim.filter(|claim| claim.term >= seen);
        let role = match self.state().part {
            Part::Leading(_) => NodeRole::Leader,
            _ if log.is_none() => NodeRole::Empty,
            _ => NodeRole::Follower,
        };
        NodeState {
            replica: self.config.id.clone(),
            role,
            promised_term: claim.as_ref().map_or(seen, |claim| claim.term),
            leader: claim.and_then(|claim| claim.leader),
            log: self.whole_log_state(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let leader = match &self.state().part {
            Part::Leading(leader) => Some(Arc::clone(leader)),
            _ => None,
        };
        let status = leader.map(|leader| leader.status(self.now()));
        let state = self.node_state();
        let peers = status.iter().flat_map(|status| &status.peers).map(|peer| PeerLine {
            replica: peer.replica.clone(),
            in_sync: peer.in_sync,
            connected: peer.connected,
            durable: peer.durable,
            lag_bytes: peer.lag_bytes,
        });
        let peers = peers.take(crate::message::PEERS_MAX).collect();
        let given_up = replica::given_up(&*self.backend, &self.config.dir).unwrap_or_else(|error| {
            tracing::error!(%error, "logs that were given up cannot be counted");
            Vec::new()
        });
        Status {
            policy: policy_words(status.as_ref().map_or(self.config.leading.policy, |status| status.policy)),
            degraded: status.as_ref().is_some_and(|status| status.degraded),
            committed: self.log_state().map_or_else(Default::default, |log| log.committed),
            peers,
            state,
            given_up_bytes: given_up.iter().map(|one| one.bytes).sum(),
        }
    }

    /// Everybody who may be a member, by the log and by configuration; addresses are the configured ones.
    pub(super) fn peers(&self) -> Vec<Member> {
        let mut all: BTreeMap<ReplicaId, Member> =
            self.logged_members().into_iter().flatten().map(|member| (member.id.clone(), member)).collect();
        all.extend(self.config.members.iter().map(|member| (member.id.clone(), member.clone())));
        all.remove(&self.config.id);
        all.into_values().collect()
    }

    /// Everybody whose promise may count, among whom terms are shared out: the members in the log, all of them while they change; the
    /// configured ones where it names none.
    pub(super) fn voters(&self) -> Vec<Member> {
        let logged: BTreeMap<ReplicaId, Member> =
            self.logged_members().into_iter().flatten().map(|member| (member.id.clone(), member)).collect();
        if logged.is_empty() { self.config.members.clone() } else { logged.into_values().collect() }
    }

    /// The sets of members that may have the votes: more than one while they change.
    pub(super) fn possible_voters(&self) -> Vec<BTreeSet<ReplicaId>> {
        let mut sets = self.logged_members();
        if sets.is_empty() {
            sets.push(self.config.members.clone());
        }
        let ids = |members: Vec<Member>| members.into_iter().map(|member| member.id).collect();
        sets.into_iter().map(ids).collect()
    }

    /// By the log as it is, or was when it was closed.
    fn logged_members(&self) -> Vec<Vec<Member>> {
        let (engine, last) = {
            let state = self.state();
            (state.engine.clone(), state.last_members.clone())
        };
        engine.map_or(last, |engine| self.members_of(&engine))
    }

    /// By a log that is open.
    pub(super) fn members_of(&self, engine: &Engine) -> Vec<Vec<Member>> {
        member::possible(engine).unwrap_or_else(|error| {
            tracing::error!(%error, "the members in the log cannot be read");
            Vec::new()
        })
    }

    /// All that acknowledgements may have stood for: by the log as it is, or was when it was closed, and by what this node was told. A
    /// log that names members and no guarantee is an older one: nothing else is known of that.
    pub(super) fn guarantees(&self) -> Vec<Guarantee> {
        let (engine, last) = {
            let state = self.state();
            (state.engine.clone(), state.last_guarantees.clone())
        };
        let mut all = engine.map_or(last, |engine| self.guarantees_of(&engine));
        if all.is_empty() && self.logged_members().is_empty() {
            all.push(Guarantee::NOTHING);
        }
        let own = Guarantee::new(self.config.leading.policy, self.config.engine.flush());
        if !all.contains(&own) {
            all.push(own);
        }
        all
    }

    /// By a log that is open.
    pub(super) fn guarantees_of(&self, engine: &Engine) -> Vec<Guarantee> {
        guarantee::possible(engine).unwrap_or_else(|error| {
            tracing::error!(%error, "what acknowledgements stand for cannot be read in the log");
            vec![Guarantee::NOTHING]
        })
    }

    /// Asks all of `peers` at once; answers come as they do, each within `patience` and the time that connecting takes.
    pub(super) fn ask(&self, peers: Vec<Member>, question: &Message, patience: Duration) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel();
        for peer in peers {
            let (sender, question) = (sender.clone(), question.clone());
            let (security, clock) = (self.config.security.clone(), Arc::clone(&self.clock));
            let asked = std::thread::Builder::new().name("replica-ask".to_owned()).spawn(move || {
                let talk = Conversation::connect(&peer.address, &security, &*clock);
                let answer = talk.map_err(TalkError::from).and_then(|mut talk| talk.ask(&question, patience, &*clock));
                // Nobody waits for it any more when this fails.
                let _unheard = sender.send(Heard { peer, answer }).is_err();
            });
            if let Err(error) = asked {
                tracing::error!(%error, "a member is not asked");
            }
        }
        receiver
    }

    /// What the others say of themselves, as far as they answer.
    pub(super) fn ask_states(&self) -> BTreeMap<ReplicaId, NodeState> {
        let heard = self.ask(self.peers(), &Message::AskState, limits::STATE_TIME_MAX);
        heard.iter().filter_map(Heard::state).map(|(peer, state)| (peer.id, state)).collect()
    }

    pub(super) fn event(&self, event: &Event) {
        self.owner.event(event);
    }

    pub(super) fn failed(&self, what: &str, error: &dyn std::fmt::Display) {
        self.event(&Event::Failed { what: format!("{what}: {error}") });
    }
}

/// What a member answers.
pub(super) struct Heard {
    pub(super) peer: Member,
    pub(super) answer: Result<Message, TalkError>,
}

impl Heard {
    /// Its state, when it is who it should be.
    pub(super) fn state(self) -> Option<(Member, NodeState)> {
        match self.answer {
            Ok(Message::State(state)) if state.replica == self.peer.id => Some((self.peer, state)),
            Ok(Message::State(state)) => {
                tracing::error!(expected = %self.peer.id, found = %state.replica, "another node at this address");
                None
            }
            Ok(other) => {
                tracing::warn!(peer = %self.peer.id, answer = other.name(), "a member does not say how it is");
                None
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer.id, %error, "a member does not answer");
                None
            }
        }
    }
}

/// The term that somebody leads in who says so.
pub(super) fn leading_term(state: &NodeState) -> Option<u32> {
    let last = state.log.as_ref().and_then(|log| log.history.last());
    last.filter(|_| state.role == NodeRole::Leader).map(|last| last.epoch.term)
}

/// Whether somebody who leads `term` may be followed.
pub(super) fn may_follow(claim: Option<&Claim>, leader: &ReplicaId, term: u32) -> bool {
    match claim {
        None => true,
        Some(claim) if claim.term == term => claim.leader.as_ref() == Some(leader),
        Some(claim) => claim.term < term,
    }
}

pub(super) fn answer(reply: &Reply, done: bool, text: String) {
    // Whoever asked may have gone.
    let _unheard = reply.send(Outcome { done, text }).is_err();
}

fn policy_words(policy: Policy) -> String {
    match policy {
        Policy::Async => "async".to_owned(),
        Policy::Sync { copies, on_missing: OnMissing::Refuse } => format!("sync, {copies} copies, or refuse"),
        Policy::Sync { copies, on_missing: OnMissing::Degrade } => {
            format!("sync, {copies} copies, or degrade (unsafe)")
        }
    }
}

/// A flag that somebody waits for.
pub(super) struct Halt {
    is_set: AtomicBool,
    signal: Signal,
}

impl Halt {
    pub(super) fn new() -> std::io::Result<Halt> {
        Ok(Halt { is_set: AtomicBool::new(false), signal: Signal::new()? })
    }

    pub(super) fn set(&self) {
        self.is_set.store(true, Ordering::SeqCst);
        self.signal.set();
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::SeqCst)
    }

    /// Waits; true when it is set.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        if let Err(error) = self.signal.wait([], Some(patience)) {
            tracing::error!(%error, "waiting");
        }
        self.is_set()
    }
}
