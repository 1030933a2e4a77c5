//! The broker: what is started in which order, and stopped in the reverse.
//!
//! ```text
//!   start: bind -> open the log -> serve from it
//!   stop:  stop serving -> close the log
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::{Clock, Engine, EngineInfo, EngineOptions, EngineStats, OpenError, SystemClock, WaitError};
use anchorlog_replicator::{InSync, Node, NodeError, Policy, ReplicaId, Security};

use crate::alarm::Whom;
use crate::config::{BrokerArgs, HostPort};
use crate::counters::{Counters, Counts};
use crate::features::access::AclFileError;
use crate::features::delay::DelayLevels;
use crate::limits;
use crate::metrics::Server;
use crate::net::{Bounds, TlsError, TlsOptions};
pub use crate::registration::Door as NameServerDoor;
use crate::replicas::Replicated;
use crate::serving::{Place, Serving};
use crate::standing::Standing;
use crate::state::StateError;

/// Which driver moves the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// tokio on epoll.
    #[default]
    Epoll,
    /// tokio-uring. Starting fails where the kernel refuses `io_uring`.
    #[cfg(feature = "net-uring")]
    Uring,
}

/// What a broker is told of its replicas.
#[derive(Clone, Debug)]
pub struct ReplicationOptions {
    /// Whether it follows at first; else it leads, unless another one turns out to lead in a higher term.
    pub follows: bool,
    /// Its own name among them; never changed for a store.
    pub id: ReplicaId,
    /// Where replicas connect to it.
    pub listen: SocketAddr,
    /// Host and port at which the others do.
    pub address: String,
    /// The others.
    pub others: Vec<OtherReplica>,
    /// What an ack promises beyond the leader's own disk or memory.
    pub policy: Policy,
    /// When a slave counts.
    pub in_sync: InSync,
    /// How replicas know each other.
    pub security: Security,
}

/// One of the other brokers of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherReplica {
    /// Its name.
    pub id: ReplicaId,
    /// Where clients reach it.
    pub clients: SocketAddr,
    /// Where replicas reach it.
    pub replicas: SocketAddr,
}

/// Options of [`Broker::start`].
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The directory of the log; made when it is missing.
    pub store: PathBuf,
    /// Where to listen. Default: 127.0.0.1:9876. Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// The address that clients are told. Default: where it listens.
    pub advertise: Option<SocketAddr>,
    /// The cluster's name. Default: `DefaultCluster`.
    pub cluster: String,
    /// The broker's name. Default: `broker-a`.
    pub broker: String,
    /// Name servers to register with. Default: none; it is its own.
    pub name_servers: Vec<HostPort>,
    /// How they are spoken to. Default: without TLS, and nothing is signed.
    pub name_server_door: NameServerDoor,
    /// Options of the log.
    pub engine: EngineOptions,
    /// Whether messages that a group has not consumed outlive their file. Default: yes; when the disk is full of them, sends are refused.
    /// With no, groups that are behind lose them.
    pub keep_unconsumed: bool,
    /// Which driver moves the bytes. Default: epoll.
    pub driver: Driver,
    /// Network threads. Default: one for each core, at most 4.
    pub network_threads: Option<usize>,
    /// Whether unknown topics are made on demand. Default: yes.
    pub auto_create_topics: bool,
    /// Most queues of such a topic. Default: 8.
    pub template_queues: u32,
    /// Whether unknown groups are made on demand. Default: yes.
    pub auto_create_groups: bool,
    /// Whether consumers may choose messages by their properties. Default: no, as with the original.
    pub property_filter: bool,
    /// Largest body of a message or batch, in bytes. Default and most: 4 MiB.
    pub message_bytes_max: usize,
    /// How long a send waits for its ack before it is answered as stored and not confirmed. Default: 2.5 s, below every client's 3 s.
    pub ack_timeout: Duration,
    /// How long a send waits for space in the log buffer before it is refused. Default: 2 s.
    pub busy_timeout: Duration,
    /// The options as an operator gave them, to be shown and changed while it runs. Default: made of the others.
    pub args: Option<Box<BrokerArgs>>,
    /// Whether a request is answered only when it is signed by an account that may make it. Default: no.
    pub acl: bool,
    /// A file that accounts come from, a `plain_acl.yml`. Default: none.
    pub acl_file: Option<PathBuf>,
    /// What connections that begin with TLS are met with. Default: nothing, they are closed.
    pub tls: Option<TlsOptions>,
    /// What peers may have at once.
    pub bounds: Bounds,
    /// What it is told of its replicas. Default: it has none.
    pub replication: Option<ReplicationOptions>,
    /// What a level of delay means. Default: the 18 levels that clients know.
    pub delay_levels: DelayLevels,
    /// How old a half message is when its producer is first asked. Default: 6 s.
    pub transaction_timeout: Duration,
    /// Time from one question to the next. Default: 30 s.
    pub transaction_check_interval: Duration,
    /// Most questions to somebody who is there. Default: 15.
    pub transaction_check_max: u32,
    /// How long a send is recognised that comes again, because its answer was lost; zero for never. Default: 10 minutes.
    pub repeat_window: Duration,
    /// Most bytes of memory for that: twenty for each message of that time. Default: 128 MiB.
    pub repeat_memory: usize,
    /// Where monitors are told of metrics, health and readiness over HTTP. Default: nowhere. Port 0 takes any that is free.
    pub metrics_listen: Option<SocketAddr>,
    /// Who is told of dead letters. Default: nobody; their lines in the log and their number are there in any case.
    pub on_dead_letter: Option<Whom>,
}

impl BrokerOptions {
    /// Everything at its default, for a log in `store`.
    #[must_use]
    pub fn new(store: impl Into<PathBuf>) -> BrokerOptions {
        BrokerOptions {
            store: store.into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9876),
            advertise: None,
            cluster: "DefaultCluster".to_owned(),
            broker: "broker-a".to_owned(),
            name_servers: Vec::new(),
            name_server_door: NameServerDoor::default(),
            engine: EngineOptions::default(),
            keep_unconsumed: true,
            driver: Driver::default(),
            network_threads: None,
            auto_create_topics: true,
            template_queues: 8,
            auto_create_groups: true,
            property_filter: false,
            message_bytes_max: limits::BODY_BYTES_MAX,
            ack_timeout: Duration::from_millis(2500),
            busy_timeout: Duration::from_secs(2),
            acl: false,
            acl_file: None,
            tls: None,
            bounds: Bounds::default(),
            args: None,
            replication: None,
            delay_levels: DelayLevels::default(),
            transaction_timeout: Duration::from_secs(6),
            transaction_check_interval: Duration::from_secs(30),
            transaction_check_max: 15,
            repeat_window: Duration::from_secs(600),
            repeat_memory: 128 << 20,
            metrics_listen: None,
            on_dead_letter: None,
        }
    }
}

/// Why a broker did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be had.
    #[error("cannot listen on {listen}: {source}; is another broker running there?")]
    Listen {
        /// Which.
        listen: SocketAddr,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Clients cannot dial an address that means "any".
    #[error("listening on {0} needs an address that clients can dial: give --advertise HOST:PORT")]
    NoAddress(SocketAddr),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The state cannot be read back.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file of accounts is not good.
    #[error(transparent)]
    AclFile(#[from] AclFileError),
    /// The files of the certificate are not good.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The node among its replicas cannot start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A thread cannot be started or prepared.
    #[error("{what}: {source}")]
    Thread {
        /// Which.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// Why a stop was not clean. The log recovers when it is opened again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The last changes of topics, groups or offsets did not get into the log.
    #[error("the last changes were not written: {0}")]
    State(String),
    /// The last flush failed.
    #[error(transparent)]
    Close(#[from] WaitError),
    /// A thread panicked.
    #[error("{0} ended in a panic")]
    Panicked(String),
}

/// Starts brokers.
#[derive(Debug)]
pub struct Broker;

/// A running broker. Dropping it stops it too; [`BrokerHandle::stop`] says how that went.
#[derive(Debug)]
pub struct BrokerHandle {
    running: Option<Running>,
    /// Ends behind everything else.
    monitors: Option<Server>,
    address: SocketAddr,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Running {
    Alone(Serving),
    Among(Arc<Replicated>, Node),
}

impl Broker {
    /// Starts a broker; it serves when this returns.
    ///
    /// # Errors
    /// Says what is in the way; nothing is left running.
    pub fn start(options: BrokerOptions) -> Result<BrokerHandle, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let counters = Arc::<Counters>::default();
        let place = Place::bind(options, clock, Arc::clone(&counters))?;
        let address = place.address();
        // Whoever waits for the log to open can look on.
        let monitors = match place.options().metrics_listen {
            None => None,
            Some(listen) => {
                let server = Server::start(listen, Arc::clone(place.metrics()));
                Some(server.map_err(|source| StartError::Listen { listen, source })?)
            }
        };
        let running = match place.options().replication.clone() {
            None => {
                let engine = Arc::new(Engine::open(&place.options().store, place.engine_options())?);
                Running::Alone(Serving::start(&place, engine, Standing::Alone)?)
            }
            Some(options) => {
                let (owner, node) = Replicated::start(place, options)?;
                Running::Among(owner, node)
            }
        };
        Ok(BrokerHandle { running: Some(running), monitors, address, counters })
    }
}

impl BrokerHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it tells monitors over HTTP, if it does.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.monitors.as_ref().map(Server::address)
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// What the engine found and chose; `None` while a slave has no log yet, or changes its part.
    #[must_use]
    pub fn engine_info(&self) -> Option<EngineInfo> {
        match self.running.as_ref()? {
            Running::Alone(serving) => Some(serving.engine().info().clone()),
            Running::Among(owner, _) => owner.engine_info(),
        }
    }

    /// The engine's counters now; `None` as for [`BrokerHandle::engine_info`].
    #[must_use]
    pub fn engine_stats(&self) -> Option<EngineStats> {
        match self.running.as_ref()? {
            Running::Alone(serving) => Some(serving.engine().stats()),
            Running::Among(owner, _) => owner.engine_stats(),
        }
    }

    /// The node among its replicas, if it has any.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        match self.running.as_ref()? {
            Running::Alone(_) => None,
            Running::Among(_, node) => Some(node),
        }
    }

    /// Answers what was taken, writes what is only in memory, and closes the log.
    ///
    /// # Errors
    /// Says what did not work. Everything is stopped all the same.
    pub fn stop(mut self) -> Result<Counts, StopError> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<Counts, StopError> {
        let outcome = match self.running.take() {
            None => return Ok(Counts::default()),
            Some(Running::Alone(serving)) => {
                let (engine, outcome) = serving.stop();
                // Every thread that had a part of it is joined.
                let closed = match Arc::try_unwrap(engine) {
                    Ok(engine) => engine.close().map_err(StopError::Close),
                    Err(_) => Ok(()),
                };
                outcome.and(closed)
            }
            Some(Running::Among(owner, node)) => {
                node.stop();
                owner.outcome()
            }
        };
        drop(self.monitors.take());
        let counts = self.counters.read();
        tracing::info!(?counts, "stopped");
        outcome.map(|()| counts)
    }
}

impl Drop for BrokerHandle {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "the broker did not stop cleanly");
        }
    }
}
