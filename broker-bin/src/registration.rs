//! Telling name servers that are somebody else's what this broker has, so that their clients find it beside other brokers; and asking them
//! who these are.
//!
//! 1. Each name server hears of every topic when the broker starts, and within a second of a change; it is told when the broker stops.
//! 2. Between changes it is asked, every `limits::REGISTER_INTERVAL`, whether it knows the topics as they are, and told them where it does
//!    not; and it hears every second that the broker is there still, so that it takes a dead one out of its routes within
//!    `limits::REGISTER_PATIENCE` instead of two minutes. One that knows neither question hears everything each time.
//! 3. A name server that does not answer delays nobody, not even the other name servers; what is wrong with it is said once.
//! 4. The connection stays open: a name server takes its end for the broker's.
//! 5. Where a name server stands behind a door, it is spoken to by TLS, and each request is signed, as brokers of the original do it.
//!
//! ```text
//!   topics ── version ──> one thread for each name server ── 103, 322, 904 ──> name server <── 105 ── clients
//!                         Neighbours <── 206, 105 ──'
//! ```
//! Deliberately not here: answering name-server requests, which this broker does for its own topics whether or not others know them, and
//! what is made of others' routes (`features/neighbours`).
//! Source: wire notes, section 2.8.

mod connection;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;

use crate::config::HostPort;
use crate::dial::Trust;
use crate::features::access::Secret;
use crate::features::neighbours::Routes;
use crate::limits;
use crate::shared::Shared;
use crate::wire::admin::{DataVersion, TopicSettings, put_registration};
use crate::wire::codes::{request as ask, response as code};
use crate::wire::message::body_crc;
use crate::wire::neighbour::{put_data_version, read_route, read_topic_list};
use connection::{Answer, Connection, Question};

/// A topic of the broker's own that every broker of the original has too.
const FILLER: &str = "SELF_TEST_TOPIC";

/// How name servers are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// By TLS, and whom to believe. Default: no TLS.
    pub tls: Option<Trust>,
    /// The account that signs, and its secret. Default: nothing is signed.
    pub signer: Option<(String, Secret)>,
}

/// Starts a thread for each name server; it ends, and takes the broker's leave, when its sender is dropped.
///
/// `broker_id`: 0 for one that takes messages.
///
/// # Errors
/// When a thread cannot be started, or the files of the door cannot be used.
pub(crate) fn start(
    shared: &Arc<Shared>,
    name_servers: &[HostPort],
    door: &Door,
    broker_id: u64,
) -> io::Result<Vec<(Sender<()>, JoinHandle<()>)>> {
    if let Some(trust) = &door.tls {
        trust.config().map_err(io::Error::other)?;
    }
    let start_one = |name_server: &HostPort| {
        let mut teller = Teller::new(shared.clone(), name_server.clone(), door.clone(), broker_id);
        let (stop, stopped) = channel();
        let body = move || {
            while stopped.recv_timeout(teller.step()) == Err(RecvTimeoutError::Timeout) {}
            teller.take_leave();
        };
        let thread = std::thread::Builder::new().name(format!("register-{}", name_server.port)).spawn(body)?;
        Ok((stop, thread))
    };
    name_servers.iter().map(start_one).collect()
}

/// What a name server knows of this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    /// Which state of the topics.
    version: u64,
    /// Since when that is sure.
    since: Duration,
    /// When it was met.
    met: Duration,
}

/// Tells one name server.
struct Teller {
    shared: Arc<Shared>,
    name_server: HostPort,
    door: Door,
    broker_id: u64,
    connection: Option<Connection>,
    told: Option<Told>,
    /// It was said that it does not work.
    complained: bool,
    /// It is of a kind that knows 904.
    hears_beats: bool,
    /// When it was asked last who else is there.
    asked: Option<Duration>,
}

impl Teller {
    fn new(shared: Arc<Shared>, name_server: HostPort, door: Door, broker_id: u64) -> Teller {
        Teller {
            shared,
            name_server,
            door,
            broker_id,
            connection: None,
            told: None,
            complained: false,
            hears_beats: true,
            asked: None,
        }
    }

    /// Tells what is to be told now, and asks what is to be asked; says when to look again.
    fn step(&mut self) -> Duration {
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.forget();
        }
        let now = self.shared.engine.clock().monotonic();
        match self.tell(now).and_then(|()| self.ask_around(now)) {
            Ok(()) => self.complained = false,
            Err(error) => {
                self.forget();
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(
                        name_server = %self.name_server, %error,
                        "this broker could not be registered: who asks that name server does not find it; trying on"
                    );
                }
            }
        }
        // Where the log does not take it now, the next step tries again.
        if self.shared.admission().is_ok()
            && let Err(error) = self.shared.neighbours.write(&self.shared.engine)
        {
            tracing::debug!(%error, "what name servers say of other brokers is not written yet");
        }
        limits::REGISTER_LOOK
    }

    /// Whatever it knew, it may not know any more.
    fn forget(&mut self) {
        (self.connection, self.told, self.asked, self.hears_beats) = (None, None, None, true);
        self.shared.neighbours.silent(&self.name_server.to_string());
    }

    fn tell(&mut self, now: Duration) -> io::Result<()> {
        let version = self.shared.state.topics.version();
        let known = match self.told {
            Some(told) if told.version == version && now < told.since + limits::REGISTER_INTERVAL => {
                return self.beat(version);
            }
            Some(told) => told.version == version && self.is_known(version)?,
            None => false,
        };
        if !known {
            self.register(version)?;
            // A topic that is new here may be old elsewhere.
            self.asked = None;
        }
        if self.told.is_none() {
            tracing::info!(name_server = %self.name_server, broker_id = self.broker_id, "registered");
        }
        self.told = Some(Told { version, since: now, met: self.told.map_or(now, |told| told.met) });
        Ok(())
    }

    /// Says that this broker is there still.
    fn beat(&mut self, version: u64) -> io::Result<()> {
        if self.hears_beats && self.ask(ask::BROKER_HEARTBEAT, &[], &[])?.code != code::SUCCESS {
            self.hears_beats = false;
            // It was told that it would hear them.
            self.register(version)?;
        }
        Ok(())
    }

    /// Whether it knows the topics as they are.
    fn is_known(&mut self, version: u64) -> io::Result<bool> {
        let mut body = BytesMut::new();
        put_data_version(&mut body, self.data_version(version));
        let answer = self.ask(ask::QUERY_DATA_VERSION, &[], &body)?;
        Ok(answer.code == code::SUCCESS && answer.field("changed") == Some("false"))
    }

    fn data_version(&self, version: u64) -> DataVersion {
        DataVersion { counter: version, time_ms: self.shared.started_ms }
    }

    fn register(&mut self, version: u64) -> io::Result<()> {
        let topics = &self.shared.state.topics;
        let topics: Vec<_> = topics.names().iter().filter_map(|name| topics.get(name)).collect();
        let settings = topics.iter().map(|topic| TopicSettings {
            name: &topic.name,
            read_queues: topic.config.read_queues,
            write_queues: topic.config.write_queues,
            perm: topic.config.perm,
            sys_flag: topic.config.sys_flag,
            ordered: topic.config.ordered,
        });
        // A name server takes one topic alone for a part of what is to come, and refuses it from a broker that it does not know.
        let filler =
            TopicSettings { name: FILLER, read_queues: 1, write_queues: 1, perm: 0, sys_flag: 0, ordered: false };
        let settings = settings.chain((topics.len() == 1).then_some(filler));
        let mut body = BytesMut::new();
        put_registration(&mut body, self.data_version(version), settings);
        let checksum = body_crc(&body).to_string();
        let patience = limits::REGISTER_PATIENCE.as_millis().to_string();
        let mut more = vec![("compressed", "false"), ("bodyCrc32", &*checksum), ("enableActingMaster", "false")];
        // Whoever does not hear beats would take this broker for gone between two registrations.
        more.extend(self.hears_beats.then_some(("heartbeatTimeoutMillis", &*patience)));
        self.ask(ask::REGISTER_BROKER, &more, &body)?.done()
    }

    /// Learns who else has queues of which topic.
    fn ask_around(&mut self, now: Duration) -> io::Result<()> {
        if self.asked.is_some_and(|asked| now < asked + limits::REGISTER_INTERVAL) {
            return Ok(());
        }
        let Some(told) = self.told else { return Ok(()) };
        self.asked = Some(now);
        let listed = self.ask(ask::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[], &[])?;
        // One that cannot say has not said that there is nobody.
        let Some(mut names) = read_topic_list(&listed.body).filter(|_| listed.code == code::SUCCESS) else {
            return Ok(());
        };
        if names.len() > limits::NEIGHBOUR_TOPICS_MAX {
            tracing::debug!(topics = names.len(), "there are more topics than other brokers' queues are remembered of");
            names.truncate(limits::NEIGHBOUR_TOPICS_MAX);
        }
        let shared = Arc::clone(&self.shared);
        let (mut routes, mut beaten) = (Routes::new(), now);
        for names in names.chunks(limits::NEIGHBOUR_QUESTIONS) {
            let asks = names.iter().map(|name| [("topic", name.as_str()), ("acceptStandardJsonOnly", "true")]);
            let asks: Vec<_> = asks.collect();
            let asks: Vec<_> = asks.iter().map(|fields| Question::new(ask::GET_ROUTEINFO_BY_TOPIC, fields)).collect();
            for (name, answer) in names.iter().zip(self.connected()?.ask_all(&asks)?) {
                let mut found = match answer.code {
                    code::SUCCESS => read_route(&answer.body).unwrap_or_default(),
                    // It was deleted meanwhile.
                    code::TOPIC_NOT_EXIST => continue,
                    _ => return Ok(()),
                };
                found.retain(|neighbour| neighbour.broker != shared.settings.broker);
                if !found.is_empty() {
                    routes.insert(name.as_str().into(), found);
                }
            }
            // Thousands of topics take their time.
            let clock_now = shared.engine.clock().monotonic();
            if clock_now >= beaten + limits::REGISTER_BEAT {
                self.beat(told.version)?;
                beaten = clock_now;
            }
        }
        let may_lack = now < told.met + limits::NEIGHBOURS_GATHER;
        shared.neighbours.told(&self.name_server.to_string(), routes, may_lack);
        Ok(())
    }

    /// The broker stops.
    fn take_leave(&mut self) {
        let left = |teller: &mut Teller| teller.ask(ask::UNREGISTER_BROKER, &[], &[])?.done();
        if self.told.is_some() && left(self).is_err() {
            tracing::info!(name_server = %self.name_server, "could not say that this broker stops; it will be found out");
        }
    }

    fn ask(&mut self, request: i32, more: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let shared = Arc::clone(&self.shared);
        let (own, id) = (shared.settings.advertise.to_string(), self.broker_id.to_string());
        let fields = [
            ("brokerName", shared.settings.broker.as_str()),
            ("brokerAddr", &own),
            ("clusterName", &shared.settings.cluster),
            ("haServerAddr", &own),
            ("brokerId", &id),
        ];
        let fields: Vec<_> = fields.iter().chain(more).copied().collect();
        self.connected()?.ask(&Question { code: request, fields: &fields, body })
    }

    fn connected(&mut self) -> io::Result<&mut Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::new(&self.name_server, &self.door)?,
        };
        Ok(self.connection.insert(connection))
    }
}
