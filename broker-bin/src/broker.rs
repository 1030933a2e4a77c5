//! The broker: what is started in which order, and stopped in the reverse.
//!
//! ```text
//!   start: bind -> open the log -> read the state back -> pin what groups need -> readers, state writer, network threads
//!   stop:  no new requests -> answer what was taken -> network threads -> readers -> state writer -> write the rest -> close the log
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anchorlog_engine::{Clock, Engine, EngineInfo, EngineOptions, EngineStats, OpenError, SystemClock, WaitError};
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;

use crate::counters::Counts;
use crate::features::offsets::Pins;
use crate::features::send::MadeKeys;
use crate::features::topics::{TEMPLATE, TopicConfig};
use crate::limits;
use crate::net::driver::{NotifyWake, Post};
use crate::net::{Mailbox, start_readers, tokio_driver};
use crate::shared::{Settings, Shared};
use crate::state::{State, StateError};

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
    /// Largest body of a message or batch, in bytes. Default and most: 4 MiB.
    pub message_bytes_max: usize,
    /// How long a send waits for its ack before it is answered as stored and not confirmed. Default: 2.5 s, below every client's 3 s.
    pub ack_timeout: Duration,
    /// How long a send waits for space in the log buffer before it is refused. Default: 2 s.
    pub busy_timeout: Duration,
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
            engine: EngineOptions::default(),
            keep_unconsumed: true,
            driver: Driver::default(),
            network_threads: None,
            auto_create_topics: true,
            template_queues: 8,
            auto_create_groups: true,
            message_bytes_max: limits::BODY_BYTES_MAX,
            ack_timeout: Duration::from_millis(2500),
            busy_timeout: Duration::from_secs(2),
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
    shared: Option<Arc<Shared>>,
    address: SocketAddr,
    wakes: Vec<Arc<Notify>>,
    network: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    state_writer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Broker {
    /// Starts a broker; it serves when this returns.
    ///
    /// # Errors
    /// Says what is in the way; nothing is left running.
    pub fn start(options: BrokerOptions) -> Result<BrokerHandle, StartError> {
        let listen_failed = |source| StartError::Listen { listen: options.listen, source };
        let listener = std::net::TcpListener::bind(options.listen).map_err(listen_failed)?;
        listener.set_nonblocking(true).map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        let advertise = options.advertise.unwrap_or(address);
        if advertise.ip().is_unspecified() {
            return Err(StartError::NoAddress(address));
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let engine = Engine::open(&options.store, options.engine.clone().with_retention_held(true))?;
        let state = State::open(&engine)?;
        if options.keep_unconsumed {
            Pins::pin_all(&engine, &state);
        }
        engine.start_retention();
        if options.auto_create_topics && state.topics.get(TEMPLATE).is_none() {
            state.topics.put(TEMPLATE, TopicConfig::template(options.template_queues));
        }
        let settings = Settings {
            advertise,
            cluster: options.cluster,
            broker: options.broker,
            auto_create_topics: options.auto_create_topics,
            template_queues: options.template_queues,
            auto_create_groups: options.auto_create_groups,
            message_bytes_max: options.message_bytes_max.min(limits::BODY_BYTES_MAX),
            ack_timeout: options.ack_timeout,
            busy_timeout: options.busy_timeout,
            keep_unconsumed: options.keep_unconsumed,
        };
        let made_keys = MadeKeys::new(advertise.ip(), std::process::id(), clock.wall_ms());
        let shared = Arc::new(Shared::new(engine, state, settings, made_keys));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let thread_count = options.network_threads.unwrap_or(cores.min(4)).clamp(1, usize::from(u16::MAX));
        let wakes: Vec<_> = (0..thread_count).map(|_| Arc::new(Notify::new())).collect();
        let mut handle = BrokerHandle {
            shared: Some(shared.clone()),
            address,
            wakes: wakes.clone(),
            network: Vec::new(),
            readers: Vec::new(),
            state_writer: None,
        };
        // From here on an early return drops the handle, which stops what is running.
        handle.start_threads(&shared, &clock, listener, options.driver)?;
        tracing::info!(
            listen = %address, advertise = %shared.settings.advertise, cluster = shared.settings.cluster,
            broker = shared.settings.broker, threads = thread_count, driver = ?options.driver,
            topics = shared.state.topics.count(), offsets = shared.state.offsets.count(), "serving"
        );
        Ok(handle)
    }
}

impl BrokerHandle {
    fn start_threads(
        &mut self,
        shared: &Arc<Shared>,
        clock: &Arc<dyn Clock>,
        listener: std::net::TcpListener,
        driver: Driver,
    ) -> Result<(), StartError> {
        let failed = |what: &str, source| StartError::Thread { what: what.to_owned(), source };
        let mailboxes: Arc<[Mailbox]> =
            self.wakes.iter().map(|wake| Mailbox::new(Box::new(NotifyWake(wake.clone())))).collect();
        let (cold_reads, readers) = start_readers(shared, &mailboxes).map_err(|error| failed("readers", error))?;
        self.readers = readers;
        self.state_writer = Some(start_state_writer(shared.clone()).map_err(|error| failed("state writer", error))?);
        let (threads, incoming): (Vec<_>, Vec<_>) = self.wakes.iter().map(|_| unbounded_channel()).unzip();
        let (ready, came_up) = channel();
        let mut listener = Some(listener);
        for ((index, wake), incoming) in (0u16..).zip(&self.wakes).zip(incoming) {
            let post = Post {
                shared: shared.clone(),
                clock: clock.clone(),
                index,
                mailboxes: mailboxes.clone(),
                cold_reads: cold_reads.clone(),
                wake: wake.clone(),
                listener: listener.take(),
                incoming,
                threads: threads.clone(),
            };
            let ready = ready.clone();
            let body = move || {
                let ready = move |outcome| drop(ready.send(outcome));
                match driver {
                    Driver::Epoll => tokio_driver::run(post, ready),
                    #[cfg(feature = "net-uring")]
                    Driver::Uring => crate::net::uring_driver::run(post, ready),
                }
            };
            let thread = std::thread::Builder::new().name(format!("net-{index}")).spawn(body);
            self.network.push(thread.map_err(|error| failed("network thread", error))?);
        }
        drop(ready);
        for outcome in came_up {
            outcome.map_err(|error| failed("network thread", error))?;
        }
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.as_ref().map(|shared| shared.counters.read()).unwrap_or_default()
    }

    /// What the engine found and chose.
    ///
    /// # Panics
    /// Never: the broker runs as long as the handle is there.
    #[must_use]
    pub fn engine_info(&self) -> EngineInfo {
        self.shared().engine.info().clone()
    }

    /// The engine's counters now.
    ///
    /// # Panics
    /// Never: the broker runs as long as the handle is there.
    #[must_use]
    pub fn engine_stats(&self) -> EngineStats {
        self.shared().engine.stats()
    }

    fn shared(&self) -> &Arc<Shared> {
        self.shared.as_ref().expect("only stopping takes it")
    }

    /// Answers what was taken, writes what is only in memory, and closes the log.
    ///
    /// # Errors
    /// Says what did not work. Everything is stopped all the same.
    pub fn stop(mut self) -> Result<Counts, StopError> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<Counts, StopError> {
        let Some(shared) = self.shared.take() else { return Ok(Counts::default()) };
        shared.closing.store(true, Ordering::SeqCst);
        for wake in &self.wakes {
            wake.notify_one();
        }
        let mut outcome = Ok(());
        let mut join = |thread: JoinHandle<()>| {
            let name = thread.thread().name().unwrap_or("a thread").to_owned();
            if thread.join().is_err() && outcome.is_ok() {
                outcome = Err(StopError::Panicked(name));
            }
        };
        self.network.drain(..).for_each(&mut join);
        self.readers.drain(..).for_each(&mut join);
        if let Some((stop, thread)) = self.state_writer.take() {
            drop(stop);
            join(thread);
        }
        let counts = shared.counters.read();
        let flushed = shared.state.flush_all(&shared.engine);
        let flushed = flushed.map_err(|error| StopError::State(error.to_string()));
        // Every thread that had a part of it is joined.
        let closed = match Arc::try_unwrap(shared) {
            Ok(shared) => shared.engine.close().map_err(StopError::Close),
            Err(_) => Ok(()),
        };
        tracing::info!(?counts, "stopped");
        outcome.and(flushed.map(drop)).and(closed).map(|()| counts)
    }
}

impl Drop for BrokerHandle {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "the broker did not stop cleanly");
        }
    }
}

/// Starts the thread that writes what nobody waits for, once per `limits::OFFSETS_INTERVAL`; it ends when the sender is dropped.
fn start_state_writer(shared: Arc<Shared>) -> std::io::Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    let body = move || {
        let mut complained = false;
        let mut fenced = false;
        let mut pins = Pins::default();
        while stopped.recv_timeout(limits::OFFSETS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if let Some(reason) = shared.engine.fenced().filter(|_| !fenced) {
                fenced = true;
                tracing::error!(%reason, "the log takes nothing any more: sends are refused, reading goes on; restart the broker");
            }
            let moved = shared.state.offsets.take_moved();
            match shared.state.flush_all(&shared.engine) {
                Ok(end_lsn) => {
                    complained = false;
                    if shared.settings.keep_unconsumed {
                        pins.note(moved, end_lsn);
                    }
                }
                Err(error) => {
                    shared.state.offsets.put_back_moved(moved);
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(%error, "topics, groups and offsets are not being written");
                    }
                }
            }
            pins.settle(&shared.engine, &shared.state);
            pins.say(&shared.engine, &shared.state);
        }
    };
    let thread = std::thread::Builder::new().name("state".to_owned()).spawn(body)?;
    Ok((stop, thread))
}
