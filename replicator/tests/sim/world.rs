//! The nodes, and what each does by itself: lead or follow, connect, cut, step down.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{Seeded, SimDisk, Survival};
use anchorlog_engine::replica::{self, CutError};
use anchorlog_engine::{Append, Clock, Engine, EngineOptions, Epoch, Lsn, OpenError, Put, Role, WriteBatch};
use anchorlog_replicator::{
    End, Fault, FollowerConfig, FollowerLink, Leader, LeaderConfig, Link, LinkError, Member, NotAdmitted, Policy,
    Replaces, ReplicaId, SeedConfig, SeedLink, member,
};

use crate::model::{Model, Outcome, Placed, demand};
use crate::network::{Blocks, Connection, Harm, Lane, NODES};
use crate::plan::Plan;
use crate::tally::{History, Tally};

const DIR: &str = "/log";
/// The one that comes and goes as a member stands between the others in their order.
const NAMES: [&str; NODES] = ["a", "c", "b"];
/// Names by which messages are kept.
pub(crate) const KEPT_NAMES: usize = 6;
/// Nothing is admitted while a follower in sync has less.
const FREE_BYTES_MIN: u64 = 256 << 10;
pub(crate) const QUEUE: &[u8] = b"orders";

/// Which promise is broken, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tooth {
    /// By leaders and followers.
    Replicator(Fault),
    /// By the engines of followers.
    Followers(anchorlog_engine::options::Fault),
    /// By the engines of leaders.
    Leaders(anchorlog_engine::options::Fault),
    /// By whoever judges: a former leader counts among those that hold what it acknowledged, although it had that in memory alone.
    FormerCounts,
    /// A leader that may have acknowledged alone is replaced as any other.
    UnsafeUnsaid,
}

pub(crate) enum Life {
    /// No log yet.
    Empty,
    /// Its process is not running.
    Down {
        until: Duration,
    },
    Follows {
        engine: Arc<Engine>,
    },
    Leads {
        engine: Arc<Engine>,
        leader: Arc<Leader>,
    },
}

/// Whom a node follows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim {
    pub(crate) term: u32,
    /// Nobody, while that is not known.
    pub(crate) leader: Option<usize>,
}

pub(crate) struct Node {
    pub(crate) disk: SimDisk,
    pub(crate) life: Life,
    /// Durable: the highest term that it has promised, and to whom.
    pub(crate) claim: Claim,
    /// Of the leader that it is: in which run, and how often and whether it had degraded when somebody looked last.
    degraded: (Epoch, u64, bool),
    /// Durable: the last term that it led.
    led: Option<u32>,
    /// Durable: the term that it has promised itself when it handed over last; nobody leads in that.
    pub(crate) handed_over: u32,
    /// It does nothing before this.
    pub(crate) paused: Duration,
}

impl Node {
    pub(crate) fn engine(&self) -> Option<&Arc<Engine>> {
        match &self.life {
            Life::Follows { engine } | Life::Leads { engine, .. } => Some(engine),
            Life::Empty | Life::Down { .. } => None,
        }
    }

    pub(crate) fn leader(&self) -> Option<&Arc<Leader>> {
        if let Life::Leads { leader, .. } = &self.life { Some(leader) } else { None }
    }
}

/// One stream of draws for each purpose, so that a new draw for one moves no other.
pub(crate) struct Draws {
    pub(crate) actions: Seeded,
    pub(crate) network: Seeded,
    pub(crate) schedule: Seeded,
    pub(crate) ends: Seeded,
}

pub(crate) struct World {
    pub(crate) tooth: Option<Tooth>,
    pub(crate) plan: Plan,
    pub(crate) draws: Draws,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) blocks: Blocks,
    pub(crate) model: Model,
    pub(crate) history: History,
    pub(crate) tally: Tally,
    next_number: u64,
    /// The troubles are.
    pub(crate) is_over: bool,
    /// The configuration names all nodes, or all but the last.
    pub(crate) has_all: bool,
    /// A node that has lost its disk, until it has everything again: meanwhile nobody else may lose anything.
    pub(crate) bereft: Option<(usize, Lsn)>,
}

pub(crate) fn name(node: usize) -> ReplicaId {
    NAMES[node].parse().unwrap()
}

fn all_members(count: usize) -> Vec<Member> {
    let member = |node: usize| Member { id: name(node), address: format!("{}.example:10912", NAMES[node]) };
    let mut all: Vec<Member> = (0..count).map(member).collect();
    all.sort();
    all
}

impl World {
    pub(crate) fn new(seed: u64, tooth: Option<Tooth>) -> World {
        let draws = Draws {
            actions: Seeded::new(seed, 1),
            network: Seeded::new(seed, 2),
            schedule: Seeded::new(seed, 3),
            ends: Seeded::new(seed, 4),
        };
        let node = |number: u64| {
            let disk = SimDisk::new(seed.wrapping_mul(NODES as u64) + number);
            disk.set_runs_inline(seed % 2 == 1);
            let (claim, degraded) = (Claim::default(), (Epoch::default(), 0, false));
            Node { disk, life: Life::Empty, claim, degraded, led: None, handed_over: 0, paused: Duration::ZERO }
        };
        let plan = Plan::of(seed, tooth);
        World {
            tooth,
            plan,
            draws,
            clock: Arc::new(SimClock::default()),
            nodes: (0..NODES as u64).map(node).collect(),
            connections: Vec::new(),
            blocks: Blocks::default(),
            model: Model::new(plan),
            history: History::default(),
            tally: Tally::default(),
            next_number: 0,
            has_all: plan.begins_with_all,
            is_over: false,
            bereft: None,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(crate) fn note(&mut self, line: String) {
        let now = self.now();
        self.history.note(now, line);
    }

    /// Those that the configuration names.
    pub(crate) fn members(&self) -> Vec<Member> {
        all_members(if self.has_all { NODES } else { NODES - 1 })
    }

    fn options(&self, role: Role) -> EngineOptions {
        let options = EngineOptions::default()
            .with_segment_bytes(64 << 10)
            .with_chunk_bytes(16 << 10)
            .with_buffer_bytes(64 << 10)
            .with_cache_bytes(96 << 10)
            .with_spare_count(1)
            .with_flush(self.plan.flush)
            .with_role(role)
            .with_replicated_acks(true)
            .with_manual_drive();
        match (self.tooth, role) {
            (Some(Tooth::Followers(fault)), Role::Replica) => options.with_fault(fault),
            (Some(Tooth::Leaders(fault)), Role::Leader { .. }) => options.with_fault(fault),
            _ => options,
        }
    }

    fn broken(&self) -> Option<Fault> {
        if let Some(Tooth::Replicator(fault)) = self.tooth { Some(fault) } else { None }
    }

    pub(crate) fn trace_hash(&mut self) -> u64 {
        let hashes: Vec<u64> = self.nodes.iter().map(|node| node.disk.trace_hash()).collect();
        hashes.into_iter().for_each(|hash| self.history.fold(hash));
        self.history.hash
    }

    // ---- lives

    /// The cluster begins: one node has a log, the others get it from there.
    pub(crate) fn found(&mut self) -> Outcome {
        self.lead(0, None, false)?;
        for _ in 0..2000 {
            self.step()?;
            if self.nodes[..self.members().len()].iter().all(|node| node.engine().is_some()) {
                return Ok(());
            }
        }
        Err("the followers do not get a log".to_owned())
    }

    fn open(&self, node: usize, role: Role) -> Result<Arc<Engine>, OpenError> {
        let clock: Arc<SimClock> = Arc::clone(&self.clock);
        Engine::open_with(self.nodes[node].disk.backend(), clock, DIR, self.options(role)).map(Arc::new)
    }

    /// Opens a node's log to lead: a new term, or the one that it led before. `unsafely`: what was acknowledged alone may be lost.
    pub(crate) fn lead(&mut self, node: usize, term: Option<u32>, unsafely: bool) -> Outcome {
        let engine = match self.open(node, Role::Leader { term }) {
            Ok(engine) => engine,
            Err(error) => return self.not_opened(node, &error),
        };
        let (marks, history) = (engine.watermarks(), engine.history());
        self.model.reopened(node, marks.durable, &history)?;
        let epoch = engine.info().epoch;
        self.model.leads(node, epoch, marks.assigned, &history, unsafely)?;
        // One that has left the configuration since it was started goes on by the one before.
        let members = if node < self.members().len() { self.members() } else { all_members(NODES) };
        let mut config = LeaderConfig::new(name(node), self.plan.policy, members.clone());
        config.free_bytes_min = FREE_BYTES_MIN;
        config.heartbeat = Duration::from_millis(50);
        config.in_sync.silence = Duration::from_millis(200);
        config.in_sync.lag_bytes = 100 << 10;
        config.window_bytes = 32 << 10;
        config.catch_up_bytes = 1 << 20;
        config.fault = self.broken();
        let leader = match Leader::new(Arc::clone(&engine), config) {
            Ok(leader) => leader,
            Err(error) => {
                demand!(self.nodes[node].disk.fault_count() > 0, "node {node} cannot lead: {error}");
                drop(engine);
                self.kill(node);
                return Ok(());
            }
        };
        self.nodes[node].led = Some(epoch.term);
        self.raise(node, epoch.term, Some(node));
        self.nodes[node].degraded = (epoch, 0, false);
        let read = member::read(&engine).map_err(|error| error.to_string())?;
        self.tally.members += u64::from(!read.is_empty() && read != members);
        self.nodes[node].life = Life::Leads { engine, leader };
        self.note(format!("node {node} leads in {epoch} from {}", marks.assigned));
        Ok(())
    }

    /// What a node takes part in from now on, unless that is higher already.
    fn raise(&mut self, node: usize, term: u32, leader: Option<usize>) {
        let claim = &mut self.nodes[node].claim;
        if term > claim.term {
            *claim = Claim { term, leader };
        }
    }

    pub(crate) fn follow(&mut self, node: usize) -> Outcome {
        let engine = match self.open(node, Role::Replica) {
            Ok(engine) => engine,
            Err(error) => return self.not_opened(node, &error),
        };
        let (marks, history) = (engine.watermarks(), engine.history());
        self.model.reopened(node, marks.durable, &history)?;
        self.note(format!("node {node} follows from {}, of {history:?}", marks.assigned));
        self.nodes[node].life = Life::Follows { engine };
        Ok(())
    }

    /// A disk that is full may refuse what opening needs.
    fn not_opened(&mut self, node: usize, error: &OpenError) -> Outcome {
        let explained = self.nodes[node].disk.fault_count() > 0 && matches!(error, OpenError::Io { .. });
        demand!(explained, "node {node} does not open: {error}");
        self.note(format!("node {node} does not open: {error}"));
        let until = self.now() + Duration::from_millis(500);
        self.nodes[node].life = Life::Down { until };
        Ok(())
    }

    /// The node's process is gone, and its connections with it. What is on the way to others still arrives.
    pub(crate) fn stop(&mut self, node: usize, half_open: bool) {
        let now = self.now();
        for connection in &mut self.connections {
            if connection.follower == node && connection.at_follower.take().is_some() && !half_open {
                connection.to_leader.close(now);
            }
            if connection.leader == node && connection.at_leader.take().is_some() && !half_open {
                connection.to_follower.close(now);
            }
        }
        self.watch_degrading(node, true);
        self.model.forgets(node);
        self.nodes[node].life = Life::Down { until: now };
    }

    /// Tells the model when a leader may have acknowledged alone since the last look.
    fn watch_degrading(&mut self, node: usize, ends: bool) {
        if !self.plan.may_be_alone() {
            return;
        }
        let Some(leader) = self.nodes[node].leader() else { return };
        let (epoch, status) = (leader.epoch(), leader.status(self.clock.monotonic()));
        let before = std::mem::replace(&mut self.nodes[node].degraded, (epoch, status.degradations, status.degraded));
        let is_async = self.plan.policy == Policy::Async;
        if is_async || status.degraded || before != self.nodes[node].degraded {
            self.model.was_alone(node, epoch, ends);
        }
        self.tally.degraded += status.degradations - before.1;
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.stop(node, false);
        self.nodes[node].disk = self.nodes[node].disk.kill();
    }

    pub(crate) fn lose_power(&mut self, node: usize, survival: Survival) {
        self.stop(node, true);
        let seed = self.draws.ends.draw();
        self.nodes[node].disk = self.nodes[node].disk.crash_with(seed, survival);
    }

    /// A node that is down comes back, as what it may be.
    fn rise(&mut self, node: usize) -> Outcome {
        if self.may_lead_again(node) && self.draws.ends.chance(5) { self.lead_again(node) } else { self.follow(node) }
    }

    pub(crate) fn may_lead_again(&self, node: usize) -> bool {
        let led = self.nodes[node].led;
        let known = self.model.disks[node].history.last().map(|last| last.epoch.term);
        // The term's leader goes on in a new run, unless it has promised a higher one; nobody else writes in that term.
        let claim = self.nodes[node].claim;
        let is_own = claim.leader == Some(node) && led == Some(claim.term);
        led.is_some() && led == known && is_own && node < self.members().len()
    }

    /// Whom the leader of the highest term counts as in sync; nobody, where there is no such leader.
    fn in_sync(&self) -> Vec<usize> {
        let leads = |node: &&Node| {
            node.leader()
                .is_some_and(|leader| leader.epoch().term == self.model.term() && leader.superseded().is_none())
        };
        let Some(leader) = self.nodes.iter().find(leads).and_then(Node::leader) else { return Vec::new() };
        let peers = leader.status(self.clock.monotonic()).peers;
        let in_sync = |node: &usize| peers.iter().any(|peer| peer.in_sync && peer.replica == name(*node));
        (0..NODES).filter(in_sync).collect()
    }

    /// A follower's disk is replaced by an empty one: only while everybody else has everything, or it would be one loss too many.
    pub(crate) fn lose_disk(&mut self, node: usize) -> Outcome {
        self.heal();
        let mut is_calm = false;
        for _ in 0..300 {
            let ends: Vec<_> = self.nodes.iter().map(|node| node.engine().map(|engine| engine.watermarks())).collect();
            let end = ends[0].map(|marks| marks.assigned);
            let has_all = |marks: &&anchorlog_engine::Watermarks| {
                [marks.acked, marks.assigned, marks.durable].iter().all(|lsn| Some(*lsn) == end)
            };
            let everywhere = ends.iter().flatten().filter(has_all);
            is_calm = everywhere.count() == NODES && self.in_sync().len() + 1 == NODES;
            if is_calm {
                break;
            }
            self.step()?;
        }
        if is_calm && self.nodes[node].leader().is_none() {
            self.tally.anew += 1;
            self.note(format!("node {node} has lost its disk"));
            self.stop(node, true);
            self.nodes[node].disk = SimDisk::new(self.draws.ends.draw());
            self.nodes[node].life = Life::Empty;
            let had = std::mem::take(&mut self.model.disks[node]);
            self.bereft = Some((node, had.durable));
        }
        Ok(())
    }

    /// Ends the time in which nothing else may be lost.
    pub(crate) fn mourn(&mut self) {
        if let Some((node, had)) = self.bereft
            && self.model.disks[node].durable >= had
            && self.in_sync().contains(&node)
        {
            self.note(format!("node {node} has everything again"));
            self.bereft = None;
        }
    }

    // ---- what happens by itself

    /// Time passes, bytes arrive, machines run.
    pub(crate) fn step(&mut self) -> Outcome {
        let by = if self.draws.schedule.below(60) == 0 { 100 } else { self.draws.schedule.below(4) };
        self.clock.advance(Duration::from_millis(by as u64));
        let now = self.now();
        let mut ticked = Vec::new();
        for node in 0..NODES {
            let state = &self.nodes[node];
            match &state.life {
                Life::Down { until } if *until <= now && state.paused <= now => self.rise(node)?,
                Life::Empty | Life::Down { .. } => {}
                Life::Follows { .. } | Life::Leads { .. } if state.paused > now => {}
                Life::Follows { engine } => {
                    for _ in 0..self.draws.schedule.below(3) {
                        engine.step();
                    }
                }
                Life::Leads { engine, leader } => {
                    for _ in 0..self.draws.schedule.below(3) {
                        engine.step();
                    }
                    if self.draws.schedule.chance(2) {
                        leader.tick(now);
                        ticked.push(node);
                    }
                }
            }
        }
        for node in ticked {
            self.check_admission(node)?;
        }
        self.connect()?;
        for at in 0..self.connections.len() {
            self.carry(at)?;
        }
        self.connections.retain(|connection| connection.at_follower.is_some() || connection.at_leader.is_some());
        self.step_down()?;
        self.look()
    }

    /// A leader that has just decided takes nothing while a follower in sync has said that its disk is full.
    fn check_admission(&mut self, node: usize) -> Outcome {
        let Some(leader) = self.nodes[node].leader() else { return Ok(()) };
        let status = leader.status(self.clock.monotonic());
        let is_full = status.peers.iter().any(|peer| peer.in_sync && peer.free_bytes < FREE_BYTES_MIN);
        demand!(!is_full || status.not_admitted.is_some(), "node {node} takes what fits on no disk: {status:?}");
        self.tally.full_follower += u64::from(status.not_admitted == Some(NotAdmitted::NoSpace));
        Ok(())
    }

    /// Whoever follows nobody tries somebody.
    fn connect(&mut self) -> Outcome {
        let now = self.now();
        for node in 0..NODES {
            let is_connected = self
                .connections
                .iter()
                .any(|connection| connection.follower == node && connection.at_follower.is_some());
            let state = &self.nodes[node];
            if is_connected || state.paused > now || self.draws.schedule.chance(5) {
                continue;
            }
            let other = (node + 1 + self.draws.schedule.below(NODES - 1)) % NODES;
            let Some(leader) = self.nodes[other].leader() else { continue };
            let reaches = self.blocks.is_open(node, other) && self.blocks.is_open(other, node);
            if !reaches || self.nodes[other].paused > now {
                continue;
            }
            let (link, seeds): (Box<dyn Link>, bool) = match &state.life {
                Life::Follows { engine } => {
                    let mut config = FollowerConfig::new(name(node), state.claim.term);
                    config.fault = self.broken();
                    (Box::new(FollowerLink::new(Arc::clone(engine), config, now)), false)
                }
                Life::Empty => {
                    let config = SeedConfig {
                        id: name(node),
                        promised_term: state.claim.term,
                        backend: state.disk.backend(),
                        dir: DIR.into(),
                        options: self.options(Role::Replica),
                        replaces: Replaces::Erased,
                    };
                    (Box::new(SeedLink::new(config, now)), true)
                }
                Life::Leads { .. } | Life::Down { .. } => continue,
            };
            let (term, leader) = (leader.epoch().term, leader.link(now));
            self.tally.links += 1;
            let slow = if !self.is_over && self.draws.network.chance(1) { self.draws.network.below(400) } else { 0 };
            self.raise(node, term, Some(other));
            self.connections.push(Connection {
                follower: node,
                leader: other,
                seeds,
                at_follower: Some(link),
                at_leader: Some(leader),
                to_follower: Lane::slow(slow),
                to_leader: Lane::slow(slow),
            });
        }
        Ok(())
    }

    /// Moves the bytes of one connection, and lets both ends act on them.
    fn carry(&mut self, at: usize) -> Outcome {
        let now = self.now();
        let Connection { follower, leader, .. } = self.connections[at];
        let runs = |node: usize| self.nodes[node].paused <= now;
        let (follower_runs, leader_runs) = (runs(follower), runs(leader));
        let connection = &mut self.connections[at];
        let draws = &mut self.draws.network;
        let mut failed: Vec<LinkError> = Vec::new();
        if leader_runs && self.blocks.is_open(follower, leader) {
            let end = connection.at_leader.as_mut().map(|link| link as &mut dyn Link);
            if !arrive(end, &mut connection.to_leader, now, &mut failed) && connection.at_leader.take().is_some() {
                connection.to_follower.close(now);
            }
        }
        let mut end = None;
        if follower_runs && self.blocks.is_open(leader, follower) {
            let link = connection.at_follower.as_mut().map(|link| &mut **link as &mut dyn Link);
            let goes_on = arrive(link, &mut connection.to_follower, now, &mut failed);
            end = connection.at_follower.as_ref().and_then(|link| link.end().cloned());
            if !goes_on && connection.at_follower.take().is_some() {
                connection.to_leader.close(now);
            }
        }
        let most = 2000 + draws.below(30_000);
        if leader_runs
            && let Some(link) = &mut connection.at_leader
            && !speak(link, &mut connection.to_follower, now, most, draws, &mut failed)
        {
            connection.at_leader = None;
            connection.to_follower.close(now);
        }
        if follower_runs && let Some(link) = &mut connection.at_follower {
            let goes_on = speak(&mut **link, &mut connection.to_leader, now, most, draws, &mut failed);
            end = end.or(link.end().cloned());
            if !goes_on || end.is_some() {
                connection.at_follower = None;
                connection.to_leader.close(now);
            }
        }
        let seeds = connection.seeds;
        for lane in [&mut connection.to_follower, &mut connection.to_leader] {
            match lane.harmed.take() {
                Some(Harm::Bit) => self.tally.flipped += 1,
                Some(Harm::Burst) => self.tally.garbled += 1,
                Some(Harm::Gap) => self.tally.torn += 1,
                Some(Harm::Twice) => self.tally.doubled += 1,
                None => {}
            }
        }
        for error in failed {
            match error {
                LinkError::Silent(_) => self.tally.silent += 1,
                LinkError::Replaced => self.tally.replaced += 1,
                _ => self.tally.link_errors += 1,
            }
            self.note(format!("between {follower} and {leader}: {error}"));
        }
        match end {
            Some(end) => self.ended(follower, seeds, end),
            None => Ok(()),
        }
    }

    /// A follower's connection is over, for a reason that it acts on.
    fn ended(&mut self, node: usize, seeds: bool, end: End) -> Outcome {
        self.note(format!("node {node}: {end:?}"));
        match end {
            End::Done if seeds => {
                self.model.disks[node] = Default::default();
                self.follow(node)
            }
            End::Done => Ok(()),
            End::Cut { at } => {
                self.tally.cuts += 1;
                self.model.cuts(node, at)?;
                self.kill(node);
                let backend = self.nodes[node].disk.backend();
                match replica::cut(&*backend, DIR, at) {
                    // What was to be cut, and more, was in memory alone.
                    Err(CutError::NoBoundary { .. }) if !self.plan.is_sync() => {
                        self.follow(node)?;
                        let end = self.nodes[node].engine().map(|engine| engine.watermarks().assigned);
                        demand!(end.is_none_or(|end| end < at), "node {node} is to be cut at {at} and ends at {end:?}");
                        return Ok(());
                    }
                    Ok(report) => demand!(report.end == at, "cut at {at}: {report:?}"),
                    Err(error) => {
                        let full = self.nodes[node].disk.fault_count() > 0;
                        demand!(full, "node {node} cannot be cut at {at}: {error}");
                    }
                }
                self.follow(node)
            }
            End::Bootstrap { .. } => {
                self.tally.anew += 1;
                self.model.begins_anew(node)?;
                self.kill(node);
                self.nodes[node].life = Life::Empty;
                Ok(())
            }
            End::Stale { .. } | End::Refused(_) => Ok(()),
        }
    }

    /// A leader that knows of a higher term leads no more.
    fn step_down(&mut self) -> Outcome {
        for node in 0..NODES {
            let superseded = self.nodes[node].leader().and_then(|leader| leader.superseded());
            if let Some(term) = superseded
                && self.draws.schedule.chance(2)
            {
                self.tally.superseded += 1;
                self.note(format!("node {node} steps down for term {term}"));
                self.raise(node, term, None);
                self.restart_as_follower(node)?;
            }
        }
        Ok(())
    }

    /// Everything that nodes say is compared with the model.
    fn look(&mut self) -> Outcome {
        let seen: Vec<_> =
            self.nodes.iter().map(|node| node.engine().map(|engine| (engine.watermarks(), engine.history()))).collect();
        for node in 0..NODES {
            self.watch_degrading(node, false);
        }
        for (node, seen) in seen.iter().enumerate() {
            if let Some((marks, history)) = seen {
                demand!(marks.acked <= marks.assigned, "node {node}: {marks:?}");
                self.model.knows(node, marks.durable, history);
            }
        }
        for (node, seen) in seen.iter().enumerate() {
            if let Some((marks, history)) = seen {
                let leads = self.nodes[node].leader().is_some();
                self.tally.promised += self.model.shown(node, leads, marks.acked, history)?;
                self.model.released(marks.start);
                self.history.fold(marks.acked.0 ^ marks.durable.0.rotate_left(20) ^ marks.start.0.rotate_left(40));
            }
        }
        self.model.looked();
        (self.tally.alone, self.tally.given_up) = self.model.counts;
        Ok(())
    }

    /// Appends a message on a node that leads, or believes so; false where it does not.
    pub(crate) fn append(&mut self, node: usize, len: usize) -> Outcome<bool> {
        let Some(leader) = self.nodes[node].leader() else { return Ok(false) };
        if leader.admission().is_err() {
            self.tally.refused += 1;
            return Ok(false);
        }
        let engine = Arc::clone(leader.engine());
        let number = self.next_number;
        let payload: Vec<u8> = format!("{number} ").bytes().cycle().take(len.max(8)).collect();
        let queue = engine.queue(QUEUE).map_err(|error| error.to_string())?;
        let mut batch = WriteBatch::new();
        let append = Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[&payload] };
        batch.append(&append).map_err(|error| error.to_string())?;
        let Ok(ticket) = engine.try_append(&mut batch) else { return Ok(false) };
        let outcome = ticket.outcome();
        self.next_number += 1;
        self.tally.appended += 1;
        let epoch = engine.info().epoch;
        let placed = Placed {
            number,
            lsn: outcome.lsn,
            record: outcome.first.lsn,
            end: outcome.end_lsn,
            epoch,
            by: node,
            alone: None,
        };
        self.model.open.push(placed);
        self.history.fold(placed.end.0);
        Ok(true)
    }

    /// A leader keeps a message by a name, whatever is released around it.
    pub(crate) fn keep(&mut self, node: usize) -> Outcome {
        let count = self.model.promised.len();
        let Some(leader) = self.nodes[node].leader().filter(|leader| leader.admission().is_ok() && count > 0) else {
            return Ok(());
        };
        let engine = Arc::clone(leader.engine());
        let at = self.draws.actions.below(count);
        let placed = *self.model.promised.values().nth(at).expect("below the count");
        let name =
            [b"keep/".as_slice(), &[b'a' + u8::try_from(self.draws.actions.below(KEPT_NAMES)).unwrap()]].concat();
        // Released meanwhile, or another leader's.
        let Ok(message) = engine.reference(placed.record) else { return Ok(()) };
        let mut batch = WriteBatch::new();
        let value = placed.number.to_string();
        let put = Put { key: &name, value: value.as_bytes(), target: Some(message.into()) };
        batch.put(&put).map_err(|error| error.to_string())?;
        if let Ok(ticket) = engine.try_append(&mut batch) {
            self.tally.kept += 1;
            self.history.fold(ticket.outcome().end_lsn.0);
        }
        Ok(())
    }

    /// A leader lets go what is acknowledged, up to somewhere.
    pub(crate) fn release(&mut self, node: usize, eighths: u64) {
        let Some(leader) = self.nodes[node].leader() else { return };
        let marks = leader.engine().watermarks();
        let lsn = Lsn(marks.start.0 + marks.acked.since(marks.start) / 8 * eighths);
        if let Ok(outcome) = leader.engine().release(lsn)
            && outcome.start > marks.start
        {
            self.tally.releases += 1;
            self.note(format!("node {node} lets go up to {}", outcome.start));
        }
    }
}

/// Hands over what has arrived; false when the end must be closed.
fn arrive(end: Option<&mut (dyn Link + '_)>, lane: &mut Lane, now: Duration, failed: &mut Vec<LinkError>) -> bool {
    let Some(link) = end else {
        while lane.take(now).is_some() {}
        return true;
    };
    while let Some(bytes) = lane.take(now) {
        if let Err(error) = link.receive(&bytes, now) {
            failed.push(error);
            return false;
        }
    }
    !lane.is_over(now)
}

/// Takes what an end has to say; false when it must be closed.
fn speak(
    link: &mut dyn Link,
    lane: &mut Lane,
    now: Duration,
    most: usize,
    draws: &mut Seeded,
    failed: &mut Vec<LinkError>,
) -> bool {
    match link.send(now, most) {
        Ok(pieces) => {
            pieces.iter().for_each(|piece| lane.put(piece.as_ref(), now, draws));
            link.end().is_none() || !pieces.is_empty()
        }
        Err(error) => {
            failed.push(error);
            false
        }
    }
}
