//! Telling name servers that are somebody else's what this broker has, so that their clients find it beside other brokers.
//!
//! 1. Each name server hears of every topic when the broker starts, every `limits::REGISTER_INTERVAL`, and within a second of a change; it
//!    is told when the broker stops.
//! 2. A name server that does not answer delays nobody, not even the other name servers; what is wrong with it is said once.
//! 3. The connection stays open: a name server takes its end for the broker's.
//!
//! ```text
//!   topics ── version ──> one thread for each name server ── 103 ──> name server <── 105 ── clients
//! ```
//! Deliberately not here: answering name-server requests, which this broker does for its own topics whether or not others know them.
//! Source: wire notes, section 2.8.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;

use crate::config::HostPort;
use crate::limits;
use crate::shared::Shared;
use crate::wire::admin::{DataVersion, TopicSettings, put_registration};
use crate::wire::codes::{request as ask, response as code};
use crate::wire::header::Head;
use crate::wire::message::body_crc;
use crate::wire::{Encoding, FrameRef, Header};

/// A topic of the broker's own that every broker of the original has too.
const FILLER: &str = "SELF_TEST_TOPIC";

/// Starts a thread for each name server; it ends, and takes the broker's leave, when its sender is dropped.
///
/// `broker_id`: 0 for one that takes messages.
///
/// # Errors
/// When a thread cannot be started.
pub(crate) fn start(
    shared: &Arc<Shared>,
    name_servers: &[HostPort],
    broker_id: u64,
) -> io::Result<Vec<(Sender<()>, JoinHandle<()>)>> {
    let start_one = |name_server: &HostPort| {
        let mut teller = Teller::new(shared.clone(), name_server.clone(), broker_id);
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

/// Tells one name server.
struct Teller {
    shared: Arc<Shared>,
    name_server: HostPort,
    broker_id: u64,
    connection: Option<TcpStream>,
    /// Which state of the topics it knows, and since when.
    told: Option<(u64, Duration)>,
    /// It was said that it does not work.
    complained: bool,
    opaque: i32,
}

impl Teller {
    fn new(shared: Arc<Shared>, name_server: HostPort, broker_id: u64) -> Teller {
        Teller { shared, name_server, broker_id, connection: None, told: None, complained: false, opaque: 0 }
    }

    /// Tells what is to be told now; says when to look again.
    fn step(&mut self) -> Duration {
        if self.connection.as_ref().is_some_and(is_closed) {
            (self.connection, self.told) = (None, None);
        }
        let (version, now) = (self.shared.state.topics.version(), self.shared.engine.clock().monotonic());
        let knows = |(known, since): (u64, Duration)| known == version && now < since + limits::REGISTER_INTERVAL;
        if self.told.is_some_and(knows) {
            return limits::REGISTER_LOOK;
        }
        match self.register(version) {
            Ok(()) => {
                if self.told.is_none() {
                    tracing::info!(name_server = %self.name_server, broker_id = self.broker_id, "registered");
                }
                (self.told, self.complained) = (Some((version, now)), false);
            }
            Err(error) => {
                (self.connection, self.told) = (None, None);
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(
                        name_server = %self.name_server, %error,
                        "this broker could not be registered: who asks that name server does not find it; trying on"
                    );
                }
            }
        }
        limits::REGISTER_LOOK
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
        put_registration(&mut body, DataVersion { counter: version, time_ms: self.shared.started_ms }, settings);
        let checksum = body_crc(&body).to_string();
        let more = [("compressed", "false"), ("bodyCrc32", &checksum), ("enableActingMaster", "false")];
        self.ask(ask::REGISTER_BROKER, &more, &body)
    }

    /// The broker stops.
    fn take_leave(&mut self) {
        if self.told.is_some() && self.ask(ask::UNREGISTER_BROKER, &[], &[]).is_err() {
            tracing::info!(name_server = %self.name_server, "could not say that this broker stops; it will be found out");
        }
    }

    fn ask(&mut self, request: i32, more: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        self.opaque = self.opaque.wrapping_add(1) & i32::MAX;
        let settings = &self.shared.settings;
        let (own, id) = (settings.advertise.to_string(), self.broker_id.to_string());
        let mut out = BytesMut::new();
        let mut frame = Head::request(Encoding::Json, request, self.opaque).encode(&mut out);
        let fields = [
            ("brokerName", settings.broker.as_str()),
            ("brokerAddr", &own),
            ("clusterName", &settings.cluster),
            ("haServerAddr", &own),
            ("brokerId", &id),
        ];
        for (name, value) in fields.iter().chain(more) {
            frame.field(name, value);
        }
        frame.finish(body).map_err(io::Error::other)?;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(connect(self.name_server.resolve()?)?),
        };
        connection.write_all(&out)?;
        answer(connection, self.opaque)
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&to, limits::REGISTER_TIMEOUT)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(limits::REGISTER_TIMEOUT))?;
    connection.set_write_timeout(Some(limits::REGISTER_TIMEOUT))?;
    Ok(connection)
}

/// Whether the other side has ended the connection.
fn is_closed(connection: &TcpStream) -> bool {
    let looked = connection.set_nonblocking(true).and_then(|()| connection.peek(&mut [0]));
    let open = match looked {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    !open || connection.set_nonblocking(false).is_err()
}

/// Waits for the answer to `opaque`.
fn answer(connection: &mut TcpStream, opaque: i32) -> io::Result<()> {
    let (mut input, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(frame) = FrameRef::parse(&input).map_err(io::Error::other)? {
            let header = Header::of(&frame).map_err(io::Error::other)?;
            if header.is_response() && header.opaque == opaque {
                return match header.code {
                    code::SUCCESS => Ok(()),
                    other => {
                        Err(io::Error::other(format!("it answered {other}: {}", header.remark().unwrap_or_default())))
                    }
                };
            }
            let used = frame.total_bytes();
            input.drain(..used);
        }
        match connection.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => input.extend_from_slice(&piece[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::{Value, json};

    use super::*;
    use crate::features::topics::TopicConfig;
    use crate::scene::Scene;

    /// A name server that takes one request and answers it.
    fn serve_one(connection: &mut TcpStream, answer_code: i32) -> (Value, Vec<u8>) {
        let (mut input, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = connection.read(&mut piece).expect("a request");
            assert!(count > 0, "a request");
            input.extend_from_slice(&piece[..count]);
            let Some(frame) = FrameRef::parse(&input).expect("a frame") else { continue };
            let header: Value = serde_json::from_slice(frame.header).expect("JSON");
            let opaque = i32::try_from(header["opaque"].as_i64().expect("a number")).expect("small");
            let mut out = BytesMut::new();
            Head::response(Encoding::Json, answer_code, opaque)
                .with_remark("why")
                .encode(&mut out)
                .finish(&[])
                .expect("fits");
            connection.write_all(&out).expect("taken");
            return (header, frame.body.to_vec());
        }
    }

    #[test]
    fn a_name_server_hears_of_every_topic_of_changes_and_of_the_end() {
        let scene = Scene::new();
        scene.shared.state.put_topic("T1", TopicConfig::open(3));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let name_server = HostPort { host: "127.0.0.1".to_owned(), port };
        let mut teller = Teller::new(scene.shared.clone(), name_server, 0);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (mut connection, _) = listener.accept().expect("a broker");
                [0, 0, 0, 0].map(|code| serve_one(&mut connection, code))
            });
            teller.step();
            teller.step(); // Nothing has changed.
            scene.shared.state.put_topic("T2", TopicConfig::open(1));
            teller.step();
            scene.clock.advance(limits::REGISTER_INTERVAL);
            teller.step();
            teller.take_leave();
            let heard = server.join().expect("no panic");
            let codes: Vec<_> = heard.iter().map(|(header, _)| header["code"].as_i64().expect("a code")).collect();
            assert_eq!(codes, [103, 103, 103, 104]);
            let (header, body) = &heard[0];
            let fields = &header["extFields"];
            assert_eq!(
                (&fields["brokerName"], &fields["brokerAddr"], &fields["clusterName"], &fields["brokerId"]),
                (&json!("b"), &json!("127.0.0.1:10911"), &json!("c"), &json!("0"))
            );
            assert_eq!(fields["bodyCrc32"], body_crc(body).to_string());
            let tables = heard.each_ref().map(|(_, body)| serde_json::from_slice::<Value>(body).unwrap_or_default());
            let wrapper = |place: usize| &tables[place]["topicConfigSerializeWrapper"];
            assert_eq!(wrapper(0)["topicConfigTable"]["T1"]["writeQueueNums"], 3);
            assert!(wrapper(0)["topicConfigTable"][FILLER].is_null(), "there are two");
            assert!(wrapper(0)["topicConfigTable"]["T2"].is_null() && wrapper(1)["topicConfigTable"]["T2"].is_object());
            // A name server reads the table only where the version is another one.
            assert_ne!(wrapper(0)["dataVersion"], wrapper(1)["dataVersion"]);
            assert_eq!(wrapper(1)["dataVersion"], wrapper(2)["dataVersion"]);
        });
    }

    #[test]
    fn a_name_server_that_comes_back_hears_everything_again() {
        let scene = Scene::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let mut teller = Teller::new(scene.shared.clone(), HostPort { host: "127.0.0.1".to_owned(), port }, 1);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let refused = serve_one(&mut listener.accept().expect("a broker").0, 1);
                let mut again = listener.accept().expect("a broker").0;
                let taken = serve_one(&mut again, 0);
                drop(again);
                (refused, taken, serve_one(&mut listener.accept().expect("a broker").0, 0))
            });
            teller.step();
            assert!(teller.told.is_none() && teller.complained);
            teller.step();
            assert!(teller.told.is_some() && !teller.complained);
            // The end of the connection may take a moment to arrive.
            for _ in 0..500 {
                if teller.connection.as_ref().is_some_and(is_closed) {
                    break;
                }
                std::thread::yield_now();
            }
            teller.step();
            let (.., third) = server.join().expect("no panic");
            let body: Value = serde_json::from_slice(&third.1).expect("JSON");
            let table = body["topicConfigSerializeWrapper"]["topicConfigTable"].as_object().expect("topics");
            assert_eq!(table.keys().collect::<Vec<_>>(), [FILLER, "TBW102"], "never one alone");
            assert_eq!(third.0["extFields"]["brokerId"], "1");
        });
    }
}
