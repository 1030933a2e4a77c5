//! The nodes, and what each does by itself: lead or follow, connect, cut, step down, take part in a promotion.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{Seeded, SimDisk, Survival};
use anchorlog_engine::replica;
use anchorlog_engine::{Append, Clock, Engine, EngineOptions, Fetch, Flush, Lsn, OpenError, Put, Role, WriteBatch};
use anchorlog_replicator::message::LogState;
use anchorlog_replicator::quorum::{next_term, promotion_quorum};
use anchorlog_replicator::{
    End, Fault, FollowerConfig, FollowerLink, Leader, LeaderConfig, Link, LinkError, Member, OnMissing, Policy,
    Replaces, ReplicaId, SeedConfig, SeedLink,
};

use crate::model::{Model, Outcome, Placed, demand};
use crate::network::{Blocks, Connection, Lane, NODES};

const DIR: &str = "/log";
const NAMES: [&str; NODES] = ["a", "b", "c"];
const HISTORY_LINES: usize = 60;
/// What a name keeps: which message, and where it is.
type Kept = Option<(Vec<u8>, Option<Lsn>)>;
/// Names by which messages are kept.
const KEPT_NAMES: usize = 6;
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
}

/// What was done, in words and as a number.
#[derive(Default)]
pub(crate) struct History {
    lines: VecDeque<String>,
    pub(crate) hash: u64,
}

impl History {
    pub(crate) fn fold(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    }

    pub(crate) fn note(&mut self, now: Duration, line: String) {
        line.bytes().for_each(|byte| self.fold(u64::from(byte)));
        if self.lines.len() == HISTORY_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>9.3} s: {line}", now.as_secs_f64()));
    }

    pub(crate) fn lines(&self) -> String {
        self.lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}

macro_rules! tally {
    ($($name:ident: $what:literal),+ $(,)?) => {
        /// How often something happened; the sum over all runs shows what was tried.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: u64),+
        }

        impl Tally {
            fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$(($what, self.$name)),+]
            }

            pub(crate) fn add(&mut self, other: &Tally) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

tally! {
    appended: "messages appended",
    promised: "messages acknowledged or shown",
    refused: "not admitted",
    links: "connections",
    link_errors: "connections that failed",
    silent: "connections that fell silent",
    replaced: "connections that were replaced",
    damaged: "damaged on the way",
    kills: "processes killed",
    crashes: "power failures",
    all_crashes: "power failures of all",
    cuts: "logs cut",
    anew: "logs begun anew",
    promotions: "promotions",
    no_quorum: "promotions without a quorum",
    superseded: "leaders that learned of a higher term",
    partitions: "partitions",
    pauses: "nodes paused",
    stalls: "disks that stalled",
    full: "disks that were full",
    releases: "releases",
    kept: "messages kept by name",
    survivors: "segments that survivors keep",
}

impl Tally {
    /// Whether everything that a run can meet was met.
    pub(crate) fn is_full(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count > 0)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.counts().iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&parts.join(", "))
    }
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

pub(crate) struct Node {
    pub(crate) disk: SimDisk,
    pub(crate) life: Life,
    /// Durable: the highest term that it has promised.
    pub(crate) promised: u32,
    /// Durable: the last term that it led.
    led: Option<u32>,
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
    pub(crate) steps: usize,
    pub(crate) draws: Draws,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) blocks: Blocks,
    pub(crate) model: Model,
    pub(crate) history: History,
    pub(crate) tally: Tally,
    copies: u32,
    next_number: u64,
    /// A node that has lost its disk, until it has everything again: meanwhile nobody else may lose anything.
    pub(crate) bereft: Option<(usize, Lsn)>,
}

pub(crate) fn name(node: usize) -> ReplicaId {
    NAMES[node].parse().unwrap()
}

fn members() -> Vec<Member> {
    (0..NODES).map(|node| Member { id: name(node), address: format!("{}.example:10912", NAMES[node]) }).collect()
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
            Node { disk, life: Life::Empty, promised: 0, led: None, paused: Duration::ZERO }
        };
        let copies = if seed % 3 == 2 { 3 } else { 2 };
        World {
            tooth,
            steps: 800 + usize::try_from(seed % 5).unwrap() * 200,
            draws,
            clock: Arc::new(SimClock::default()),
            nodes: (0..NODES as u64).map(node).collect(),
            connections: Vec::new(),
            blocks: Blocks::default(),
            model: Model { copies: copies as usize, ..Model::default() },
            history: History::default(),
            tally: Tally::default(),
            copies,
            next_number: 0,
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

    fn options(&self, role: Role) -> EngineOptions {
        let options = EngineOptions::default()
            .with_segment_bytes(64 << 10)
            .with_chunk_bytes(16 << 10)
            .with_buffer_bytes(64 << 10)
            .with_cache_bytes(96 << 10)
            .with_spare_count(1)
            .with_flush(Flush::Sync)
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
        self.lead(0, None)?;
        for _ in 0..2000 {
            self.step()?;
            if self.nodes.iter().all(|node| node.engine().is_some()) {
                return Ok(());
            }
        }
        Err("the followers do not get a log".to_owned())
    }

    fn open(&self, node: usize, role: Role) -> Result<Arc<Engine>, OpenError> {
        let clock: Arc<SimClock> = Arc::clone(&self.clock);
        Engine::open_with(self.nodes[node].disk.backend(), clock, DIR, self.options(role)).map(Arc::new)
    }

    /// Opens a node's log to lead: a new term, or the one that it led before.
    fn lead(&mut self, node: usize, term: Option<u32>) -> Outcome {
        let engine = match self.open(node, Role::Leader { term }) {
            Ok(engine) => engine,
            Err(error) => return self.not_opened(node, &error),
        };
        let (marks, history) = (engine.watermarks(), engine.history());
        self.model.reopened(node, marks.durable, &history)?;
        self.model.leads(node, marks.assigned, &history)?;
        let policy = Policy::Sync { copies: self.copies, on_missing: OnMissing::Refuse };
        let mut config = LeaderConfig::new(name(node), policy, members());
        config.free_bytes_min = 256 << 10;
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
        let epoch = engine.info().epoch;
        self.nodes[node].led = Some(epoch.term);
        self.nodes[node].promised = self.nodes[node].promised.max(epoch.term);
        self.nodes[node].life = Life::Leads { engine, leader };
        self.note(format!("node {node} leads in {epoch} from {}", marks.assigned));
        Ok(())
    }

    fn follow(&mut self, node: usize) -> Outcome {
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
        self.nodes[node].life = Life::Down { until: now };
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
        let led = self.nodes[node].led;
        let known = self.model.disks[node].history.last().map(|last| last.epoch.term);
        // The term's leader goes on in a new run, unless it has promised a higher one; nobody else writes in that term.
        let may_lead = led.is_some() && led == known && led == Some(self.nodes[node].promised);
        if may_lead && self.draws.ends.chance(5) { self.lead(node, None) } else { self.follow(node) }
    }

    /// Whom the leader of the highest term counts as in sync; nobody, where there is no such leader.
    fn in_sync(&self) -> Vec<usize> {
        let leads = |node: &&Node| {
            node.leader().is_some_and(|leader| leader.epoch().term == self.model.term && leader.superseded().is_none())
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
            let everywhere =
                ends.iter().flatten().filter(|marks| Some(marks.acked) == end && Some(marks.assigned) == end);
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

    fn restart_as_follower(&mut self, node: usize) -> Outcome {
        self.kill(node);
        self.follow(node)
    }

    /// Somebody asks for a promotion: a quorum promises a new term, and the most advanced of those who answer leads in it.
    pub(crate) fn promote(&mut self, candidate: usize) -> Outcome {
        let reaches = |from: usize, to: usize| from == to || self.blocks.is_open(from, to);
        let now = self.now();
        let answers: Vec<usize> = (0..NODES)
            .filter(|node| reaches(candidate, *node) && reaches(*node, candidate))
            .filter(|node| self.nodes[*node].engine().is_some() && self.nodes[*node].paused <= now)
            .collect();
        let needed = promotion_quorum(u32::try_from(NODES - 1).unwrap(), self.copies).unwrap_or(u32::MAX);
        if (answers.len() as u64) < u64::from(needed) || !answers.contains(&candidate) {
            self.tally.no_quorum += 1;
            return Ok(());
        }
        let known = answers.iter().map(|node| {
            let last = self.nodes[*node].engine().and_then(|engine| engine.history().last());
            self.nodes[*node].promised.max(last.map_or(0, |last| last.epoch.term))
        });
        let Some(term) = next_term(known.max().unwrap_or(0), &name(candidate), &members()) else { return Ok(()) };
        let mut best = None;
        for node in answers {
            // Whoever promises follows nobody of a lower term from then on, and leads in none.
            self.nodes[node].promised = term;
            if self.nodes[node].leader().is_some() {
                self.restart_as_follower(node)?;
            }
            for connection in self.connections.iter_mut().filter(|connection| connection.follower == node) {
                if connection.at_follower.take().is_some() {
                    connection.to_leader.close(now);
                }
            }
            let Some(engine) = self.nodes[node].engine() else { continue };
            best = best.max(Some((LogState::of(engine).reach(), node)));
        }
        let Some((reach, best)) = best else { return Ok(()) };
        // The term is the candidate's own: another one must ask again, for itself.
        self.note(format!("node {candidate} asks for term {term}: node {best} reaches {reach:?}"));
        if best != candidate {
            return Ok(());
        }
        self.tally.promotions += 1;
        self.kill(best);
        self.lead(best, Some(term))
    }

    // ---- what happens by itself

    /// Time passes, bytes arrive, machines run.
    pub(crate) fn step(&mut self) -> Outcome {
        let by = if self.draws.schedule.below(60) == 0 { 100 } else { self.draws.schedule.below(4) };
        self.clock.advance(Duration::from_millis(by as u64));
        let now = self.now();
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
                    }
                }
            }
        }
        self.connect()?;
        for at in 0..self.connections.len() {
            self.carry(at)?;
        }
        self.connections.retain(|connection| connection.at_follower.is_some() || connection.at_leader.is_some());
        self.step_down()?;
        self.look()
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
                    let mut config = FollowerConfig::new(name(node), state.promised);
                    config.fault = self.broken();
                    (Box::new(FollowerLink::new(Arc::clone(engine), config, now)), false)
                }
                Life::Empty => {
                    let config = SeedConfig {
                        id: name(node),
                        promised_term: state.promised,
                        backend: state.disk.backend(),
                        dir: DIR.into(),
                        options: self.options(Role::Replica),
                        replaces: Replaces::Erased,
                    };
                    (Box::new(SeedLink::new(config, now)), true)
                }
                Life::Leads { .. } | Life::Down { .. } => continue,
            };
            self.tally.links += 1;
            self.connections.push(Connection {
                follower: node,
                leader: other,
                seeds,
                at_follower: Some(link),
                at_leader: Some(leader.link(now)),
                to_follower: Lane::default(),
                to_leader: Lane::default(),
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
        self.tally.damaged += std::mem::take(&mut connection.to_follower.damaged);
        self.tally.damaged += std::mem::take(&mut connection.to_leader.damaged);
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
                self.model.cuts(node, Lsn::ZERO)?;
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
                self.nodes[node].promised = self.nodes[node].promised.max(term);
                self.restart_as_follower(node)?;
            }
        }
        Ok(())
    }

    /// Everything that nodes say is compared with the model.
    fn look(&mut self) -> Outcome {
        let seen: Vec<_> =
            self.nodes.iter().map(|node| node.engine().map(|engine| (engine.watermarks(), engine.history()))).collect();
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
        let placed =
            Placed { number, lsn: outcome.lsn, record: outcome.first.lsn, end: outcome.end_lsn, epoch, by: node };
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

    /// What is kept by a name is the same on every node, and can be read there, also where the log does not go back so far any more.
    fn kept(&mut self) -> Outcome {
        let mut first: Option<Vec<Kept>> = None;
        for (node, state) in self.nodes.iter().enumerate() {
            let engine = state.engine().ok_or("a node is down")?;
            self.tally.survivors += engine.seed().map_err(|error| error.to_string())?.sparse.len() as u64;
            let mut found = Vec::new();
            for name in 0..KEPT_NAMES {
                let key = [b"keep/".as_slice(), &[b'a' + u8::try_from(name).unwrap()]].concat();
                let entry = engine.get(&key).map_err(|error| error.to_string())?;
                let entry = entry.map(|entry| (entry.value.to_vec(), entry.target));
                if let Some((number, Some(target))) = &entry {
                    let message =
                        engine.read(*target).map_err(|error| format!("node {node} keeps {target}: {error}"))?;
                    let is_it = message.payload().starts_with(&[number, b" ".as_slice()].concat());
                    demand!(is_it, "node {node} keeps another message at {target}");
                }
                found.push(entry);
            }
            let first = first.get_or_insert_with(|| found.clone());
            demand!(*first == found, "node {node} keeps {found:?}, node 0 {first:?}");
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

    // ---- the end

    /// The troubles are over: everybody follows one leader, appends are acknowledged, and all logs are the same; then the power fails
    /// everywhere, as strictly as it can, and what was promised is there.
    pub(crate) fn settle(&mut self) -> Outcome {
        self.note("the troubles are over".to_owned());
        self.heal();
        self.agree("at the end")?;
        self.same_bytes()?;
        for node in 0..NODES {
            self.tally.crashes += 1;
            self.lose_power(node, Survival::Nothing);
        }
        self.agree("after a power failure of all")?;
        self.same_bytes()?;
        self.readers()?;
        self.kept()
    }

    pub(crate) fn heal(&mut self) {
        self.blocks.clear();
        for node in &mut self.nodes {
            node.paused = Duration::ZERO;
            node.disk.heal();
            node.disk.set_capacity(None);
        }
    }

    /// Runs until one leader has everybody in sync and acknowledges.
    fn agree(&mut self, when: &str) -> Outcome {
        for step in 0..8000_usize {
            self.step()?;
            let leads = (0..NODES)
                .filter(|node| self.nodes[*node].leader().is_some_and(|leader| leader.superseded().is_none()));
            let leads: Vec<usize> = leads.collect();
            if leads.len() != 1 && step % 400 == 399 {
                let candidate = self.draws.ends.below(NODES);
                self.promote(candidate)?;
            }
            if step % 50 == 0 {
                for node in &leads {
                    self.append(*node, 100)?;
                }
            }
            let [leader] = leads[..] else { continue };
            let status = self.nodes[leader].leader().map(|leader| leader.status(self.clock.monotonic()));
            let all_in_sync = status.is_some_and(|status| status.peers.iter().all(|peer| peer.in_sync));
            let ends: Vec<Option<Lsn>> =
                self.nodes.iter().map(|node| node.engine().map(|engine| engine.watermarks().acked)).collect();
            let end = self.nodes[leader].engine().map(|engine| engine.watermarks().assigned);
            let epoch = self.nodes[leader].leader().map(|leader| leader.epoch());
            let mine = self.model.open.iter().any(|placed| Some(placed.epoch) == epoch);
            if all_in_sync && step > 100 && !mine && ends.iter().all(|acked| *acked == end) {
                return Ok(());
            }
        }
        let lives: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let marks = node.engine().map(|engine| (engine.watermarks(), engine.fenced().is_some()));
                let status = node.leader().map(|leader| leader.status(self.clock.monotonic()));
                format!("{marks:?} {status:?}")
            })
            .collect();
        Err(format!("{when} they do not come together: {}", lives.join("\n")))
    }

    fn same_bytes(&mut self) -> Outcome {
        let starts = self.nodes.iter().filter_map(|node| node.engine()).map(|engine| engine.watermarks().start);
        let start = starts.max().unwrap_or_default();
        let logs: Vec<Vec<u8>> = self.nodes.iter().map(|node| bytes_from(node.engine(), start)).collect();
        for node in 1..NODES {
            let differs = logs[0].iter().zip(&logs[node]).position(|(one, other)| one != other);
            demand!(differs.is_none(), "the logs of nodes 0 and {node} differ at {differs:?} behind {start}");
            demand!(logs[0].len() == logs[node].len(), "{} and {} bytes of log", logs[0].len(), logs[node].len());
        }
        Ok(())
    }

    /// Every node's queue holds what was promised and not released, in the log's order, once.
    fn readers(&mut self) -> Outcome {
        let starts = self.nodes.iter().filter_map(|node| node.engine()).map(|engine| engine.watermarks().start);
        self.model.released(starts.max().unwrap_or_default());
        let expected: Vec<u64> = self.model.promised.values().map(|placed| placed.number).collect();
        let first = self.model.promised.keys().next().copied().unwrap_or(Lsn::MAX);
        for (node, state) in self.nodes.iter().enumerate() {
            let engine = state.engine().ok_or("a node is down")?;
            let queue = engine.queue(QUEUE).map_err(|error| error.to_string())?;
            let (mut found, mut next) = (Vec::new(), engine.range(&queue).min);
            loop {
                let fetch = Fetch { messages_max: 500, ..Fetch::new(&queue, next) };
                let outcome = engine.fetch(&fetch).map_err(|error| error.to_string())?;
                if outcome.messages.is_empty() {
                    break;
                }
                let text = |payload: &[u8]| {
                    String::from_utf8_lossy(payload).split(' ').next().and_then(|word| word.parse().ok())
                };
                found.extend(
                    outcome
                        .messages
                        .iter()
                        .filter_map(|message| text(message.payload()).map(|number: u64| (message.lsn, number))),
                );
                next = outcome.next;
            }
            let ordered = found.windows(2).all(|pair| pair[0].0 < pair[1].0);
            demand!(ordered, "node {node} shows messages in another order than the log's");
            found.retain(|(lsn, _)| *lsn >= first);
            let shown: Vec<u64> = found.iter().map(|(_, number)| *number).collect();
            demand!(shown == expected, "node {node} shows {} messages, promised are {}", shown.len(), expected.len());
        }
        Ok(())
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

fn bytes_from(engine: Option<&Arc<Engine>>, from: Lsn) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(engine) = engine else { return out };
    while let Ok(pieces) = engine.log_bytes(from.plus(out.len() as u64), 1 << 20) {
        if pieces.is_empty() {
            break;
        }
        pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_ref()));
    }
    out
}
