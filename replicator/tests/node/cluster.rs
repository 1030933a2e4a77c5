//! Nodes in one process, each with its directory, its port, and a proxy before that.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Lsn, Watermark, WriteBatch};
use anchorlog_replicator::{
    Control, Event, FirstRole, Member, Node, NodeConfig, NotAdmitted, OnMissing, Owner, Policy, Security, Serving,
    SharedKey,
};

use crate::proxy::Proxy;

pub(crate) fn sync(copies: u32) -> Policy {
    Policy::Sync { copies, on_missing: OnMissing::Refuse }
}

pub(crate) fn key(text: &str) -> Security {
    Security::Key(SharedKey::new(text.as_bytes()).unwrap())
}

/// Why something was not appended, or not acknowledged.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// Nobody leads here.
    NotLeading,
    NotAdmitted(NotAdmitted),
    /// It is in the log, and may be acknowledged or not.
    Unacknowledged,
}

/// A program that appends what tests say.
#[derive(Default)]
pub(crate) struct Program {
    serving: Mutex<Option<(Arc<Engine>, Serving)>>,
    pub(crate) events: Mutex<Vec<Event>>,
}

impl Owner for Program {
    fn serve(&self, engine: &Arc<Engine>, serving: Serving) {
        let before = self.serving.lock().unwrap().replace((Arc::clone(engine), serving));
        assert!(before.is_none(), "served twice");
    }

    fn stop_serving(&self) {
        let before = self.serving.lock().unwrap().take();
        assert!(before.is_some(), "ended twice");
    }

    fn event(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
    }
}

impl Program {
    /// Appends, and waits until it is acknowledged.
    pub(crate) fn send(&self, payload: &[u8], patience: Duration) -> Result<Lsn, Unsent> {
        let serving = self.serving.lock().unwrap();
        let Some((engine, Serving::Leader(leader))) = &*serving else { return Err(Unsent::NotLeading) };
        leader.admission().map_err(Unsent::NotAdmitted)?;
        let queue = engine.queue(b"letters").unwrap();
        let mut batch = WriteBatch::new();
        batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[payload] }).unwrap();
        let end = engine.append(batch).unwrap().outcome().end_lsn;
        engine.wait(Watermark::Acked, end, Some(patience)).map_err(|_| Unsent::Unacknowledged)?;
        Ok(end)
    }

    /// What readers may see.
    pub(crate) fn letters(&self) -> Vec<Vec<u8>> {
        self.try_letters().unwrap()
    }

    /// The same; `None` where some of it cannot be read.
    pub(crate) fn try_letters(&self) -> Option<Vec<Vec<u8>>> {
        Some(self.try_placed()?.into_iter().map(|(_, letter)| letter).collect())
    }

    /// What readers may see, with the offsets.
    pub(crate) fn placed(&self) -> Vec<(u64, Vec<u8>)> {
        self.try_placed().unwrap()
    }

    fn try_placed(&self) -> Option<Vec<(u64, Vec<u8>)>> {
        let serving = self.serving.lock().unwrap();
        let Some((engine, _)) = &*serving else { return Some(Vec::new()) };
        let queue = engine.queue(b"letters").unwrap();
        let mut next = anchorlog_engine::QueueOffset(0);
        let mut letters = Vec::new();
        loop {
            let found = engine.fetch(&anchorlog_engine::Fetch::new(&queue, next)).ok()?;
            if found.messages.is_empty() {
                return Some(letters);
            }
            next = found.next;
            letters.extend(found.messages.iter().map(|message| (message.queue_offset.0, message.payload().to_vec())));
        }
    }

    /// The log from its start to `end`.
    pub(crate) fn log(&self, end: Lsn) -> Vec<u8> {
        let serving = self.serving.lock().unwrap();
        let (engine, _) = serving.as_ref().expect("it is served");
        let mut log = Vec::new();
        let start = engine.watermarks().start;
        while start.plus(log.len() as u64) < end {
            for piece in engine.log_bytes(start.plus(log.len() as u64), 1 << 20).unwrap() {
                log.extend_from_slice(piece.as_ref());
            }
        }
        log.truncate(usize::try_from(end.since(start)).unwrap());
        log
    }

    pub(crate) fn watermarks(&self) -> Option<anchorlog_engine::Watermarks> {
        self.serving.lock().unwrap().as_ref().map(|(engine, _)| engine.watermarks())
    }

    pub(crate) fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(wanted)
    }
}

/// One machine: what of it stays when its process is gone.
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    listen: SocketAddr,
    pub(crate) proxy: Proxy,
    pub(crate) options: EngineOptions,
    pub(crate) security: Security,
    pub(crate) program: Arc<Program>,
    pub(crate) node: Option<Node>,
}

pub(crate) struct Cluster {
    pub(crate) machines: Vec<Machine>,
    pub(crate) policy: Policy,
    _home: tempfile::TempDir,
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions::default()
        .with_backend(BackendChoice::Threads)
        .with_segment_bytes(1 << 20)
        .with_spare_count(0)
        .with_buffer_bytes(8 << 20)
        .with_cache_bytes(16 << 20)
}

/// A place to listen at, now and after every restart, that nothing else on this machine is given meanwhile: outgoing connections and
/// listeners that ask for any port live at 127.0.0.1.
fn place_of_its_own() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    TcpListener::bind(SocketAddr::from(([127, 1 + high, low, 1], 0))).unwrap().local_addr().unwrap()
}

impl Cluster {
    /// Machines by these names; the first begins the log when it is started.
    pub(crate) fn new(names: &[&str], policy: Policy) -> Cluster {
        let home = tempfile::tempdir().unwrap();
        let machine = |(at, name): (usize, &&str)| {
            let listen = place_of_its_own();
            Machine {
                id: (*name).to_owned(),
                dir: home.path().join(format!("{at}-{name}")),
                listen,
                proxy: Proxy::new(listen),
                options: options(),
                security: key("the key that all members share"),
                program: Arc::default(),
                node: None,
            }
        };
        Cluster { machines: names.iter().enumerate().map(machine).collect(), policy, _home: home }
    }

    pub(crate) fn started(names: &[&str], policy: Policy) -> Cluster {
        let mut cluster = Cluster::new(names, policy);
        for at in 0..names.len() {
            cluster.start(at);
        }
        cluster
    }

    pub(crate) fn config(&self, at: usize) -> NodeConfig {
        let members = self
            .machines
            .iter()
            .map(|machine| Member { id: machine.id.parse().unwrap(), address: machine.proxy.address.to_string() });
        let mut members: Vec<Member> = members.collect();
        members.sort();
        members.dedup_by(|one, other| one.id == other.id);
        let machine = &self.machines[at];
        let id = machine.id.parse().unwrap();
        let mut config = NodeConfig::new(id, machine.listen.to_string(), members, self.policy, &machine.dir);
        config.leading.heartbeat = Duration::from_millis(200);
        config.leading.free_bytes_min = 1 << 20;
        config.engine = machine.options.clone();
        config.security = machine.security.clone();
        if at == 0 {
            config.first_role = FirstRole::Leader;
        }
        config
    }

    pub(crate) fn start(&mut self, at: usize) {
        let config = self.config(at);
        let program = Arc::clone(&self.machines[at].program);
        self.machines[at].node = Some(Node::start(config, program).unwrap());
    }

    pub(crate) fn stop(&mut self, at: usize) {
        self.machines[at].node.take().expect("it runs").stop();
    }

    pub(crate) fn program(&self, at: usize) -> &Program {
        &self.machines[at].program
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        self.machines[at].node.as_ref().expect("it runs")
    }

    pub(crate) fn control(&self, at: usize) -> Control {
        Control::connect(&self.machines[at].proxy.address.to_string(), &self.machines[at].security).unwrap()
    }

    /// Sends until it is acknowledged.
    #[track_caller]
    pub(crate) fn send(&self, at: usize, payload: &[u8]) -> Lsn {
        let mut last = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.program(at).send(payload, Duration::from_secs(2)) {
                Ok(end) => return end,
                Err(why) => last = Some(why),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} takes nothing: {last:?}; {:?}", self.machines[at].id, self.program(at).events.lock().unwrap());
    }

    /// All running nodes come to have one log, the same in each byte.
    #[track_caller]
    pub(crate) fn agree(&self) -> Vec<Vec<u8>> {
        let running = || self.machines.iter().filter(|machine| machine.node.is_some());
        eventually("the logs are one", || {
            let ends: Vec<_> = running().map(|machine| machine.program.watermarks()).collect();
            let Some(first) = ends[0] else { return false };
            ends.iter()
                .all(|marks| marks.is_some_and(|marks| marks.durable == first.assigned && marks.acked == marks.durable))
        });
        let end = running().next().unwrap().program.watermarks().unwrap().durable;
        let logs: Vec<Vec<u8>> = running().map(|machine| machine.program.log(end)).collect();
        assert!(logs.iter().all(|log| *log == logs[0]), "logs differ");
        let letters: Vec<_> = running().map(|machine| machine.program.letters()).collect();
        assert!(letters.iter().all(|all| *all == letters[0]), "readers see different things");
        letters[0].clone()
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
