//! What serves clients from one opening of the log.
//!
//! ```text
//!   start: read the state back -> pin what groups need -> readers, state thread, timer, network threads
//!   stop:  no new requests -> answer what was taken -> network threads -> readers -> timer, state thread -> write the rest
//! ```
//! A broker that changes its part among its replicas stops serving, and serves again from the log as it was opened anew; the address stays
//! bound, and whoever connects meanwhile waits.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anchorlog_engine::{Clock, Engine, EngineOptions, Lsn, Watermark};
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;

use crate::alarm::{self, Teller};
use crate::broker::{BrokerOptions, Driver, StartError, StopError};
use crate::config::HostPort;
use crate::counters::Counters;
use crate::features::access::{Access, AclFile};
use crate::features::delay;
use crate::features::offsets::Pins;
use crate::features::send::MadeKeys;
use crate::features::topics::{TEMPLATE, TopicConfig};
use crate::limits;
use crate::lock::lock;
use crate::metrics::Source;
use crate::net::driver::{NotifyWake, Post};
use crate::net::{Mail, Mailbox, Tls, start_readers, tokio_driver};
use crate::registration;
use crate::shared::{Settings, Shared};
use crate::standing::Standing;
use crate::state::{State, StateError};

/// Where and how a broker serves, whatever log it serves from.
pub(crate) struct Place {
    options: BrokerOptions,
    listener: TcpListener,
    address: SocketAddr,
    advertise: SocketAddr,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    /// Where accounts come from.
    acl_file: Option<Arc<Mutex<AclFile>>>,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Source>,
}

impl Place {
    /// Takes the address.
    pub(crate) fn bind(
        options: BrokerOptions,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Result<Place, StartError> {
        let acl_file = options.acl_file.clone().map(AclFile::new).transpose()?;
        let acl_file = acl_file.map(|file| Arc::new(Mutex::new(file)));
        let tls = options.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
        let listen_failed = |source| StartError::Listen { listen: options.listen, source };
        let listener = TcpListener::bind(options.listen).map_err(listen_failed)?;
        listener.set_nonblocking(true).map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        let advertise = options.advertise.unwrap_or(address);
        if advertise.ip().is_unspecified() {
            return Err(StartError::NoAddress(address));
        }
        let metrics = Source::new(Arc::clone(&clock), Arc::clone(&counters), &options.cluster, &options.broker);
        Ok(Place { options, listener, address, advertise, clock, counters, acl_file, tls, metrics: Arc::new(metrics) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn options(&self) -> &BrokerOptions {
        &self.options
    }

    /// What monitors are answered from.
    pub(crate) fn metrics(&self) -> &Arc<Source> {
        &self.metrics
    }

    /// Nothing is dropped before it is known what groups need.
    pub(crate) fn engine_options(&self) -> EngineOptions {
        self.options.engine.clone().with_retention_held(true)
    }

    /// Under which number name servers know this broker: 0 takes messages, and every slave of a set has one of its own.
    fn broker_id(&self, standing: &Standing) -> u64 {
        match (&self.options.replication, standing) {
            (Some(set), Standing::Slave { .. }) => {
                1 + set.others.iter().filter(|other| other.id < set.id).map(|_| 1).sum::<u64>()
            }
            _ => 0,
        }
    }

    fn settings(&self) -> Settings {
        let options = &self.options;
        Settings {
            advertise: self.advertise,
            cluster: options.cluster.clone(),
            broker: options.broker.clone(),
            auto_create_topics: options.auto_create_topics,
            template_queues: options.template_queues,
            auto_create_groups: options.auto_create_groups,
            message_bytes_max: options.message_bytes_max.min(limits::BODY_BYTES_MAX),
            ack_timeout: options.ack_timeout,
            busy_timeout: options.busy_timeout,
            keep_unconsumed: options.keep_unconsumed,
            property_filter: options.property_filter,
            delay_levels: options.delay_levels.clone(),
            transaction_timeout: options.transaction_timeout,
            transaction_check_interval: options.transaction_check_interval,
            transaction_check_max: options.transaction_check_max,
            repeat_window: options.repeat_window,
            repeat_memory: options.repeat_memory,
        }
    }
}

/// Everything that runs while clients are served. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Serving {
    shared: Option<Arc<Shared>>,
    wakes: Vec<Arc<Notify>>,
    network: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    state_thread: Option<(Sender<()>, JoinHandle<()>)>,
    timer: Option<(Sender<()>, JoinHandle<()>)>,
    /// One for each name server that is told.
    registrations: Vec<(Sender<()>, JoinHandle<()>)>,
    teller: Option<Teller>,
    metrics: Arc<Source>,
}

impl Serving {
    /// Serves when this returns.
    pub(crate) fn start(place: &Place, engine: Arc<Engine>, standing: Standing) -> Result<Serving, StartError> {
        let options = &place.options;
        // What was acknowledged before shows when it is acknowledged again: by slaves that say what they have.
        let knows_all = match standing {
            // A slave shows what its leader has written, as it comes.
            Standing::Alone | Standing::Slave { .. } => true,
            // Where nobody is waited for, that is at once.
            Standing::Leader { .. } => {
                let settled = engine.watermarks().assigned;
                engine.wait(Watermark::Dispatched, settled, Some(2 * limits::KNOW_INTERVAL)).is_ok()
            }
        };
        let state = if standing.writes() && knows_all { State::open(&engine)? } else { State::follow(&engine)? };
        if !standing.writes() {
            // What goes is the leader's to say.
            engine.start_retention();
        } else if knows_all {
            keep_what_is_needed(&engine, &state, options.keep_unconsumed);
        }
        if options.auto_create_topics && state.topics.get(TEMPLATE).is_none() {
            state.topics.put(TEMPLATE, TopicConfig::template(options.template_queues));
        }
        let made_keys = MadeKeys::new(place.advertise.ip(), std::process::id(), place.clock.wall_ms());
        let mut shared = Shared::new(engine, state, place.settings(), made_keys)
            .with_standing(standing)
            .with_counters(Arc::clone(&place.counters))
            .with_bounds(options.bounds)
            .with_tls(place.tls.clone())
            .with_access(Access::new(options.acl || options.acl_file.is_some()));
        if let Some(args) = &options.args {
            shared = shared.with_args((**args).clone());
        }
        let mut teller = None;
        if let Some(whom) = options.on_dead_letter.clone().filter(|_| shared.standing.writes()) {
            let started = alarm::start(whom, place.clock.clone(), Arc::clone(&place.counters));
            let (alarm, thread) =
                started.map_err(|source| StartError::Thread { what: "alarm thread".to_owned(), source })?;
            shared = shared.with_alarm(alarm);
            teller = Some(thread);
        }
        if shared.standing.writes() && knows_all {
            learn_repeats(&shared)?;
        }
        if !options.name_servers.is_empty() {
            shared.neighbours.load(&shared.engine).map_err(StateError::from)?;
        }
        shared.knows_all.store(knows_all, Ordering::Release);
        if let Some(file) = &place.acl_file {
            lock(file).forget();
        }
        take_over_accounts(&shared, place.acl_file.as_deref());
        if shared.access.is_on() && shared.standing.writes() && knows_all && !shared.state.accounts.has_admin() {
            tracing::warn!(
                "requests must be signed (acl), and no account is an admin: name one in acl-file, or start once without acl, on \
                 loopback, and make one with anchorlog user"
            );
        }
        let shared = Arc::new(shared);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let thread_count = options.network_threads.unwrap_or(cores.min(4)).clamp(1, limits::NETWORK_THREADS_MAX);
        let wakes: Vec<_> = (0..thread_count).map(|_| Arc::new(Notify::new())).collect();
        let mut serving = Serving {
            shared: Some(shared.clone()),
            wakes,
            network: Vec::new(),
            readers: Vec::new(),
            state_thread: None,
            timer: None,
            registrations: Vec::new(),
            teller,
            metrics: Arc::clone(&place.metrics),
        };
        // From here on an early return drops it, which stops what is running.
        serving.start_threads(&shared, place)?;
        place.metrics.begin(&shared);
        tracing::info!(
            listen = %place.address, advertise = %shared.settings.advertise, cluster = shared.settings.cluster,
            broker = shared.settings.broker, standing = %shared.standing, threads = thread_count, driver = ?options.driver,
            topics = shared.state.topics.count(), offsets = shared.state.offsets.count(), "serving"
        );
        Ok(serving)
    }

    fn start_threads(&mut self, shared: &Arc<Shared>, place: &Place) -> Result<(), StartError> {
        let failed = |what: &str, source| StartError::Thread { what: what.to_owned(), source };
        let mailboxes: Arc<[Mailbox]> =
            self.wakes.iter().map(|wake| Mailbox::new(Box::new(NotifyWake(wake.clone())))).collect();
        let (cold_reads, readers) = start_readers(shared, &mailboxes).map_err(|error| failed("readers", error))?;
        self.readers = readers;
        self.state_thread = Some(
            start_state_thread(shared.clone(), mailboxes.clone(), place.acl_file.clone())
                .map_err(|error| failed("state thread", error))?,
        );
        if shared.standing.writes() {
            self.timer = Some(delay::start(shared.clone(), mailboxes.clone()).map_err(|error| failed("timer", error))?);
        }
        let (threads, incoming): (Vec<_>, Vec<_>) = self.wakes.iter().map(|_| unbounded_channel()).unzip();
        let (ready, came_up) = channel();
        let listener = place.listener.try_clone().map_err(|error| failed("the listener", error))?;
        let mut listener = Some(listener);
        let driver = place.options.driver;
        for ((index, wake), incoming) in (0u16..).zip(&self.wakes).zip(incoming) {
            let post = Post {
                shared: shared.clone(),
                clock: place.clock.clone(),
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
        // Only now there is somebody to answer those who are sent here.
        let own = [place.address, place.advertise];
        let is_own = |server: &HostPort| server.resolve().is_ok_and(|server| own.contains(&server));
        let others: Vec<_> = place.options.name_servers.iter().filter(|server| !is_own(server)).cloned().collect();
        self.registrations =
            registration::start(shared, &others, &place.options.name_server_door, place.broker_id(&shared.standing))
                .map_err(|error| failed("registration", error))?;
        Ok(())
    }

    /// The log that is served.
    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.as_ref().expect("only stopping takes it").engine
    }

    /// Answers what was taken, and writes what is only in memory. The log comes back, whatever did not work.
    pub(crate) fn stop(mut self) -> (Arc<Engine>, Result<(), StopError>) {
        let engine = Arc::clone(&self.shared.as_ref().expect("only stopping takes it").engine);
        let outcome = self.shut_down();
        (engine, outcome)
    }

    fn shut_down(&mut self) -> Result<(), StopError> {
        let Some(shared) = self.shared.take() else { return Ok(()) };
        // Who asks a name server from now on is sent elsewhere.
        for (stop, thread) in self.registrations.drain(..) {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("a registration ended in a panic");
            }
        }
        shared.closing.store(true, Ordering::SeqCst);
        self.metrics.end();
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
        for (stop, thread) in [self.timer.take(), self.state_thread.take()].into_iter().flatten() {
            drop(stop);
            join(thread);
        }
        if self.teller.take().is_some_and(|teller| teller.stop().is_err()) && outcome.is_ok() {
            outcome = Err(StopError::Panicked("alarm".to_owned()));
        }
        if !shared.standing.writes() || !shared.knows_all.load(Ordering::Acquire) {
            return outcome;
        }
        let flushed = shared.state.flush_all(&shared.engine);
        outcome.and(flushed.map(drop).map_err(|error| StopError::State(error.to_string())))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "serving did not stop cleanly");
        }
    }
}

/// Starts the thread that writes what nobody waits for, once per `limits::OFFSETS_INTERVAL`, or reads what the leader has written; it ends
/// when the sender is dropped.
fn start_state_thread(
    shared: Arc<Shared>,
    mailboxes: Arc<[Mailbox]>,
    acl_file: Option<Arc<Mutex<AclFile>>>,
) -> std::io::Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    let body = move || {
        let mut complaint = Complaint::default();
        let mut pins = Pins::default();
        let mut fenced = false;
        let settled = shared.engine.watermarks().assigned;
        let mut shown = Lsn::ZERO;
        let knows_all = shared.knows_all.load(Ordering::Acquire);
        let mut interval = if knows_all { limits::OFFSETS_INTERVAL } else { limits::KNOW_INTERVAL };
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let clock = shared.engine.clock();
            shared.rates.note(clock.monotonic(), clock.wall_ms(), &shared.counters);
            shared.state.groups.note_pulls(clock.monotonic());
            if let Some(tls) = &shared.tls {
                tls.look(&shared.counters);
            }
            if let Some(reason) = shared.engine.fenced().filter(|_| !fenced) {
                fenced = true;
                tracing::error!(lsn = %reason.lsn, %reason, "the log takes nothing any more: sends are refused, reading goes on; restart the broker");
            }
            if !shared.knows_all.load(Ordering::Acquire) {
                interval = match get_to_know(&shared, settled, &mut shown) {
                    Ok(true) => limits::OFFSETS_INTERVAL,
                    Ok(false) => limits::KNOW_INTERVAL,
                    Err(error) => {
                        complaint.hear::<(), _>(Err(error), "this leader cannot read what was acknowledged before it");
                        limits::OFFSETS_INTERVAL
                    }
                };
            } else if shared.standing.writes() {
                take_over_accounts(&shared, acl_file.as_deref());
                write_state(&shared, &mailboxes, &mut pins, &mut complaint);
            } else {
                let began = shared.engine.clock().monotonic();
                let outcome = show_table(&shared, &mut shown);
                complaint.hear(outcome, "topics, groups and offsets are as they were");
                // A state that takes long to read is read less often.
                let took = shared.engine.clock().monotonic().saturating_sub(began);
                interval = limits::OFFSETS_INTERVAL.max(took * 10);
            }
        }
    };
    let thread = std::thread::Builder::new().name("state".to_owned()).spawn(body)?;
    Ok((stop, thread))
}

/// Puts the accounts of the file into the state, where this is who writes it and they changed.
fn take_over_accounts(shared: &Shared, file: Option<&Mutex<AclFile>>) {
    if let Some(file) = file
        && shared.standing.writes()
        && shared.knows_all.load(Ordering::Acquire)
    {
        lock(file).look(shared);
    }
}

/// Lets retention begin, but for what groups need.
fn keep_what_is_needed(engine: &Engine, state: &State, keep_unconsumed: bool) {
    if keep_unconsumed {
        Pins::pin_all(engine, state);
    }
    engine.start_retention();
}

/// Begins to write once everything up to `settled`, where the log ended when it was opened, is acknowledged again; true when it has.
fn get_to_know(shared: &Shared, settled: Lsn, shown: &mut Lsn) -> Result<bool, StateError> {
    let known = shared.engine.wait(Watermark::Dispatched, settled, Some(limits::KNOW_INTERVAL));
    if known.is_err() {
        show_table(shared, shown)?;
        return Ok(false);
    }
    shared.state.take_over(&shared.engine)?;
    keep_what_is_needed(&shared.engine, &shared.state, shared.settings.keep_unconsumed);
    learn_repeats(shared)?;
    shared.knows_all.store(true, Ordering::Release);
    Ok(true)
}

/// Learns what was sent lately, before anything is stored.
fn learn_repeats(shared: &Shared) -> Result<(), StateError> {
    let began = shared.engine.clock().monotonic();
    let keys = shared.repeats.load(&shared.engine)?;
    let took = shared.engine.clock().monotonic().saturating_sub(began);
    tracing::info!(keys, ?took, "knows what was sent within the window of repeats");
    Ok(())
}

/// Shows what the table of somebody else's log says, where more is acknowledged than `shown`: all of it is read.
fn show_table(shared: &Shared, shown: &mut Lsn) -> Result<(), StateError> {
    let acked = shared.engine.watermarks().acked;
    if acked > *shown {
        shared.state.refresh(&shared.engine)?;
        *shown = acked;
    }
    Ok(())
}

/// Writes what nobody waits for, and pins what groups need by then.
fn write_state(shared: &Shared, mailboxes: &[Mailbox], pins: &mut Pins, complaint: &mut Complaint) {
    for group in shared.state.expire_locks(shared.engine.clock().monotonic()) {
        tell_members(shared, mailboxes, &group);
    }
    let moved = shared.state.offsets.take_moved();
    let outcome = shared.state.flush_all(&shared.engine);
    match &outcome {
        Ok(end_lsn) if shared.settings.keep_unconsumed => pins.note(moved, *end_lsn),
        Ok(_) => {}
        Err(_) => shared.state.offsets.put_back_moved(moved),
    }
    complaint.hear(outcome, "topics, groups and offsets are not being written");
    pins.settle(&shared.engine, &shared.state);
    pins.say(&shared.engine, &shared.state);
}

/// Queues of a group are free again: its members look for their share at once, and not only with their next turn.
fn tell_members(shared: &Shared, mailboxes: &[Mailbox], group: &str) {
    if shared.state.groups.config(group).is_none_or(|config| config.rules.tell_members) {
        for connection in shared.state.groups.everyone(group).notify {
            if let Some(mailbox) = mailboxes.get(usize::from(connection.worker)) {
                mailbox.post(Mail::Notice { connection, group: group.into() });
            }
        }
    }
}

/// Says once what goes on not to work.
#[derive(Default)]
struct Complaint {
    made: bool,
}

impl Complaint {
    fn hear<T, E: std::fmt::Display>(&mut self, outcome: Result<T, E>, what: &str) {
        match outcome {
            Ok(_) => self.made = false,
            Err(error) if !self.made => {
                self.made = true;
                tracing::error!(%error, "{what}");
            }
            Err(_) => {}
        }
    }
}
