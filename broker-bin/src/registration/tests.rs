use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::*;
use crate::features::topics::TopicConfig;
use crate::lock::lock;
use crate::scene::Scene;
use crate::wire::header::Head;
use crate::wire::{Encoding, FrameRef};

#[derive(Default)]
struct Desk {
    heard: Vec<(i64, Value, Value)>,
    /// Everything, with bodies as they came.
    raw: Vec<(i64, Value, Vec<u8>)>,
    /// Codes that it answers with another code than 0.
    refuses: BTreeMap<i64, i32>,
    /// What it says to 322.
    changed: bool,
    /// Topics of others, with the brokers that have them and how many queues each has.
    topics: BTreeMap<String, Vec<(&'static str, u32)>>,
    connections: Vec<TcpStream>,
    closed: bool,
}

impl Desk {
    fn answer(&self, code: i64, fields: &Value) -> (i32, Vec<(&'static str, String)>, Value) {
        let topic = fields["topic"].as_str().unwrap_or_default();
        if let Some(refusal) = self.refuses.get(&code) {
            return (*refusal, vec![], Value::Null);
        }
        match (code, self.topics.get(topic)) {
            (206, _) => (0, vec![], json!({"topicList": self.topics.keys().collect::<Vec<_>>()})),
            (105, None) => (17, vec![], Value::Null),
            (105, Some(brokers)) => (0, vec![], route(brokers)),
            (322, _) => (0, vec![("changed", self.changed.to_string())], Value::Null),
            _ => (0, vec![], Value::Null),
        }
    }
}

fn route(brokers: &[(&'static str, u32)]) -> Value {
    let queues = |(name, queues): &(&str, u32)| json!({"brokerName": name, "perm": 6, "readQueueNums": queues, "writeQueueNums": queues, "topicSysFlag": 0});
    let broker = |(name, _): &(&str, u32)| json!({"brokerName": name, "cluster": "c", "brokerAddrs": {"0": format!("{name}:10911")}});
    json!({
        "queueDatas": brokers.iter().map(queues).collect::<Vec<_>>(),
        "brokerDatas": brokers.iter().map(broker).collect::<Vec<_>>(),
    })
}

/// A name server.
struct NameServer {
    desk: Arc<Mutex<Desk>>,
    at: HostPort,
}

impl NameServer {
    fn open() -> NameServer {
        NameServer::behind(None)
    }

    /// One that speaks TLS, where that is said how.
    fn behind(tls: Option<Arc<ServerConfig>>) -> NameServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let desk = Arc::<Mutex<Desk>>::default();
        let own = desk.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.expect("a broker");
                let mut desk = lock(&own);
                if desk.closed {
                    return;
                }
                desk.connections.push(connection.try_clone().expect("a second handle"));
                let (own, tls) = (own.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(connection, &own),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).expect("a session");
                        serve(StreamOwned::new(session, connection), &own);
                    }
                });
            }
        });
        NameServer { desk, at: HostPort { host: "127.0.0.1".to_owned(), port } }
    }

    fn teller(&self, scene: &Scene, broker_id: u64) -> Teller {
        Teller::new(scene.shared.clone(), self.at.clone(), Door::default(), broker_id)
    }

    fn has(&self, topic: &str, brokers: &[(&'static str, u32)]) {
        lock(&self.desk).topics.insert(topic.to_owned(), brokers.to_vec());
    }

    /// The codes that it heard since it was asked last.
    fn codes(&self) -> Vec<i64> {
        self.heard().into_iter().map(|(code, ..)| code).collect()
    }

    /// What it heard since it was asked last, but for questions about others: code, fields and body.
    fn heard(&self) -> Vec<(i64, Value, Value)> {
        let mut heard = std::mem::take(&mut lock(&self.desk).heard);
        heard.retain(|(code, ..)| ![206, 105].contains(code));
        heard
    }

    fn hang_up(&self) {
        for connection in lock(&self.desk).connections.drain(..) {
            // It may be closed already.
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    fn die(&self) {
        lock(&self.desk).closed = true;
        self.hang_up();
        // The listener sees that it is over.
        drop(TcpStream::connect(("127.0.0.1", self.at.port)));
    }
}

fn serve(mut connection: impl Read + Write, desk: &Mutex<Desk>) {
    let (mut input, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = connection.read(&mut piece) {
        input.extend_from_slice(&piece[..count]);
        while let Some(frame) = FrameRef::parse(&input).expect("a frame") {
            let header: Value = serde_json::from_slice(frame.header).expect("JSON");
            let body = serde_json::from_slice(frame.body).unwrap_or_default();
            let mut desk = lock(desk);
            let asked = header["code"].as_i64().expect("a code");
            let (code, fields, answer) = desk.answer(asked, &header["extFields"]);
            desk.raw.push((asked, header["extFields"].clone(), frame.body.to_vec()));
            desk.heard.push((asked, header["extFields"].clone(), body));
            let opaque = i32::try_from(header["opaque"].as_i64().expect("a number")).expect("small");
            let mut out = BytesMut::new();
            let mut head = Head::response(Encoding::Json, code, opaque).with_remark("why").encode(&mut out);
            for (name, value) in fields {
                head.field(name, &value);
            }
            head.finish(answer.to_string().as_bytes()).expect("fits");
            drop(desk);
            if connection.write_all(&out).is_err() {
                return;
            }
            let used = frame.total_bytes();
            input.drain(..used);
        }
    }
}

/// The other side's end may take a moment to arrive.
fn await_end(teller: &Teller) {
    for _ in 0..2000 {
        if teller.connection.as_ref().is_some_and(Connection::is_closed) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("the connection does not end");
}

/// The queues of a topic by broker, as a client is told of them.
fn told(scene: &mut Scene, topic: &str) -> Vec<(String, u64)> {
    let id = scene.connect_apart();
    let answer = scene.ask(id, 105, &json!({"topic": topic}), &[]);
    scene.worker.closed(id);
    if answer.code() != 0 {
        assert_eq!(answer.code(), 17);
        return Vec::new();
    }
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let queues = body["queueDatas"].as_array().expect("queues").iter();
    let names = body["brokerDatas"].as_array().expect("brokers").iter().map(|broker| broker["brokerName"].clone());
    let names: Vec<_> = names.collect();
    let queues = queues.map(|queues| {
        assert!(names.contains(&queues["brokerName"]), "{body}");
        (queues["brokerName"].as_str().expect("text").to_owned(), queues["writeQueueNums"].as_u64().expect("a number"))
    });
    queues.collect()
}

fn queues(brokers: &[(&str, u64)]) -> Vec<(String, u64)> {
    brokers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn a_name_server_hears_of_every_topic_of_changes_and_of_the_end() {
    let (scene, server) = (Scene::new(), NameServer::open());
    scene.shared.state.put_topic("T1", TopicConfig::open(3));
    let mut teller = server.teller(&scene, 0);
    teller.step();
    teller.step(); // Nothing has changed: it only hears that we are there.
    scene.shared.state.put_topic("T2", TopicConfig::open(1));
    teller.step();
    teller.take_leave();
    let heard = server.heard();
    assert_eq!(heard.iter().map(|(code, ..)| *code).collect::<Vec<_>>(), [103, 904, 103, 104]);
    let fields = &heard[0].1;
    assert_eq!(
        (&fields["brokerName"], &fields["brokerAddr"], &fields["clusterName"], &fields["brokerId"]),
        (&json!("b"), &json!("127.0.0.1:10911"), &json!("c"), &json!("0"))
    );
    for name in ["brokerName", "brokerAddr", "clusterName"] {
        assert_eq!(heard[1].1[name], fields[name], "a beat names the broker as its registration did");
    }
    let wrapper = |place: usize| &heard[place].2["topicConfigSerializeWrapper"];
    assert_eq!(wrapper(0)["topicConfigTable"]["T1"]["writeQueueNums"], 3);
    assert!(wrapper(0)["topicConfigTable"][FILLER].is_null(), "there are two");
    assert!(wrapper(0)["topicConfigTable"]["T2"].is_null() && wrapper(2)["topicConfigTable"]["T2"].is_object());
    // A name server reads the table only where the version is another one.
    assert_ne!(wrapper(0)["dataVersion"], wrapper(2)["dataVersion"]);
}

#[test]
fn between_changes_it_is_asked_what_it_knows_and_told_everything_only_where_it_does_not() {
    let (scene, server) = (Scene::new(), NameServer::open());
    let mut teller = server.teller(&scene, 0);
    teller.step();
    let registered = server.heard().remove(0).2["topicConfigSerializeWrapper"]["dataVersion"].clone();
    scene.clock.advance(limits::REGISTER_INTERVAL);
    teller.step();
    let heard = server.heard();
    assert_eq!((heard.len(), heard[0].0, &heard[0].2), (1, 322, &registered));
    for name in ["brokerName", "brokerAddr", "clusterName", "brokerId"] {
        assert!(heard[0].1[name].is_string(), "{name} is demanded");
    }
    teller.step();
    assert_eq!(server.codes(), [904]);
    lock(&server.desk).changed = true;
    scene.clock.advance(limits::REGISTER_INTERVAL);
    teller.step();
    assert_eq!(server.codes(), [322, 103]);
}

#[test]
fn one_that_knows_neither_question_hears_everything_each_time() {
    let (scene, server) = (Scene::new(), NameServer::open());
    lock(&server.desk).refuses = [(322, 3), (904, 3)].into();
    let mut teller = server.teller(&scene, 0);
    teller.step();
    teller.step();
    let heard = server.heard();
    assert_eq!(heard.iter().map(|(code, ..)| *code).collect::<Vec<_>>(), [103, 904, 103]);
    assert_eq!(heard[0].1["heartbeatTimeoutMillis"], "10000");
    assert!(heard[2].1["heartbeatTimeoutMillis"].is_null(), "it would take us for gone");
    scene.clock.advance(limits::REGISTER_INTERVAL);
    teller.step();
    teller.step();
    assert_eq!(server.codes(), [322, 103]);
}

#[test]
fn a_name_server_that_comes_back_hears_everything_again() {
    let (scene, server) = (Scene::new(), NameServer::open());
    lock(&server.desk).refuses.insert(103, 1);
    let mut teller = server.teller(&scene, 1);
    teller.step();
    assert!(teller.told.is_none() && teller.complained);
    lock(&server.desk).refuses.clear();
    teller.step();
    assert!(teller.told.is_some() && !teller.complained);
    server.hang_up();
    await_end(&teller);
    server.heard();
    teller.step();
    let heard = server.heard();
    assert_eq!((heard[0].0, &heard[0].1["brokerId"]), (103, &json!("1")));
    let table = heard[0].2["topicConfigSerializeWrapper"]["topicConfigTable"].as_object().expect("topics");
    assert_eq!(table.keys().collect::<Vec<_>>(), [FILLER, "TBW102"], "never one alone");
}

/// Window K-96: clients that come while no name server lives find every queue by asking this broker, also after it was killed.
#[test]
fn k96_the_route_outlives_the_name_servers_and_this_broker_too() {
    let (mut scene, server) = (Scene::new(), NameServer::open());
    scene.shared.state.put_topic("T1", TopicConfig::open(4));
    server.has("T1", &[("b", 1), ("other", 8)]);
    server.has("T2", &[("other", 2)]);
    assert_eq!(told(&mut scene, "T1"), queues(&[("b", 4)]));
    let mut teller = server.teller(&scene, 0);
    teller.step();
    scene.settle();
    let both = queues(&[("b", 4), ("other", 8)]);
    assert_eq!(told(&mut scene, "T1"), both, "its own queues it knows best");
    assert_eq!(told(&mut scene, "T2"), queues(&[("other", 2)]));
    let id = scene.connect();
    let cluster = scene.ask(id, 106, &json!({}), &[]).body;
    assert!(String::from_utf8_lossy(&cluster).contains("\"clusterAddrTable\":{\"c\":[\"b\",\"other\"]}"));
    let names: Value = serde_json::from_slice(&scene.ask(id, 206, &json!({}), &[]).body).expect("JSON");
    assert_eq!(names["topicList"], json!(["T1", "T2", "TBW102"]));
    server.die();
    await_end(&teller);
    for _ in 0..3 {
        scene.clock.advance(limits::REGISTER_INTERVAL);
        teller.step();
        assert_eq!(told(&mut scene, "T1"), both);
    }
    drop(teller);
    let mut scene = scene.crash();
    scene.shared.state.put_topic("T1", TopicConfig::open(4));
    assert_eq!(told(&mut scene, "T1"), both);
    assert_eq!(told(&mut scene, "T2"), queues(&[("other", 2)]));
    assert_eq!(told(&mut scene, "T3"), []);
}

/// Window K-97: a name server takes a dead broker out within ten seconds, and what it took out is not shown here either; one that has just
/// come up takes nobody out.
#[test]
fn k97_who_is_gone_is_taken_out_of_routes() {
    let (mut scene, server) = (Scene::new(), NameServer::open());
    server.has("T1", &[("other", 8), ("third", 8)]);
    let mut teller = server.teller(&scene, 0);
    teller.step();
    assert_eq!(server.heard()[0].1["heartbeatTimeoutMillis"], "10000");
    // It may only have forgotten: brokers tell it again within half a minute.
    server.has("T1", &[("third", 4)]);
    scene.clock.advance(limits::REGISTER_INTERVAL);
    teller.step();
    assert_eq!(told(&mut scene, "T1"), queues(&[("other", 8), ("third", 4)]));
    scene.clock.advance(limits::NEIGHBOURS_GATHER);
    teller.step();
    assert_eq!(told(&mut scene, "T1"), queues(&[("third", 4)]));
    lock(&server.desk).topics.clear();
    scene.clock.advance(limits::REGISTER_INTERVAL);
    teller.step();
    scene.settle();
    assert_eq!(told(&mut scene, "T1"), []);
    assert!(scene.entries(b"neighbours/").is_empty());
}

#[test]
fn a_name_server_that_cannot_say_takes_nobody_away() {
    let (mut scene, server) = (Scene::new(), NameServer::open());
    server.has("T1", &[("other", 8)]);
    let mut teller = server.teller(&scene, 0);
    teller.step();
    scene.clock.advance(limits::NEIGHBOURS_GATHER);
    for refused in [206, 105] {
        lock(&server.desk).refuses = [(refused, 1)].into();
        scene.clock.advance(limits::REGISTER_INTERVAL);
        teller.step();
        assert_eq!(told(&mut scene, "T1"), queues(&[("other", 8)]));
    }
    assert!(teller.told.is_some() && !teller.complained, "it is registered all the same");
}

/// Window K-98: what is registered after a crash is what was registered before it, so nobody makes the topic anew with other queues.
#[test]
fn k98_a_topic_is_registered_after_a_crash_as_it_was_before() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let fields = json!({
        "topic": "T1", "defaultTopic": "any", "readQueueNums": "6", "writeQueueNums": "6", "perm": "6",
        "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
    });
    assert_eq!(scene.ask(id, 17, &fields, &[]).code(), 0);
    let mut scene = scene.crash();
    scene.with_template();
    let server = NameServer::open();
    server.teller(&scene, 0).step();
    let registered = server.heard().remove(0).2["topicConfigSerializeWrapper"]["topicConfigTable"]["T1"].clone();
    assert_eq!((&registered["readQueueNums"], &registered["writeQueueNums"]), (&json!(6), &json!(6)));
    // A producer that knows no route makes it with four.
    let id = scene.connect();
    assert_eq!(scene.send(id, "T1", 0, "", b"x").code(), 0);
    assert_eq!(told(&mut scene, "T1"), queues(&[("b", 6)]));
}

#[test]
fn what_is_shown_is_what_those_say_who_answer() {
    let (mut scene, first, second) = (Scene::new(), NameServer::open(), NameServer::open());
    first.has("T1", &[("other", 8)]);
    second.has("T1", &[("third", 8)]);
    let (mut one, mut two) = (first.teller(&scene, 0), second.teller(&scene, 0));
    one.step();
    two.step();
    assert_eq!(told(&mut scene, "T1"), queues(&[("other", 8), ("third", 8)]));
    scene.clock.advance(limits::NEIGHBOURS_GATHER);
    one.step();
    two.step();
    assert_eq!(told(&mut scene, "T1"), queues(&[("other", 8), ("third", 8)]));
    first.die();
    await_end(&one);
    one.step();
    assert_eq!(told(&mut scene, "T1"), queues(&[("third", 8)]));
    second.die();
    await_end(&two);
    two.step();
    assert_eq!(told(&mut scene, "T1"), queues(&[("third", 8)]), "the last word counts");
}

/// As brokers of the original do that have credentials of their own: every request, by its fields and its body.
#[test]
fn each_request_is_signed_where_an_account_is_given() {
    let (scene, server) = (Scene::new(), NameServer::open());
    server.has("T1", &[("other", 8)]);
    let secret = Secret::new("a secret key");
    let door = Door { signer: Some(("a".to_owned(), secret.clone())), ..Door::default() };
    let mut teller = Teller::new(scene.shared.clone(), server.at.clone(), door, 0);
    teller.step();
    teller.step();
    teller.take_leave();
    let heard = std::mem::take(&mut lock(&server.desk).raw);
    assert_eq!(heard.iter().map(|(code, ..)| *code).collect::<Vec<_>>(), [103, 206, 105, 904, 104]);
    for (code, fields, body) in heard {
        let text = |name: &str| fields[name].as_str().expect("text");
        assert_eq!(text("AccessKey"), "a", "{code}");
        let all = fields.as_object().expect("fields").iter().filter(|(name, _)| *name != "Signature");
        let all: Vec<_> = all.map(|(name, value)| (name.as_str(), value.as_str().expect("text"))).collect();
        assert!(secret.signs(all.into_iter(), &body, text("Signature")), "{code}: {fields}");
    }
}

/// A name server's side of TLS, and the authority that it is known by.
fn sealed() -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &authority).expect("signed");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).expect("they belong together");
    (Arc::new(config), authority.pem())
}

#[test]
fn a_name_server_is_spoken_to_by_tls_where_that_is_wanted_and_believed_by_its_authority() {
    let (config, authority) = sealed();
    let (_, stranger) = sealed();
    let file = |pem: &str| {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(pem.as_bytes()).expect("written");
        file
    };
    let [authority, stranger, nothing] = [&*authority, &*stranger, ""].map(file);
    let door = |path: &Path| {
        let trust = Trust { authorities: Some(path.to_owned()), own: None };
        Door { tls: Some(trust), ..Door::default() }
    };
    let (scene, server) = (Scene::new(), NameServer::behind(Some(config)));
    let teller = |door: Door| Teller::new(scene.shared.clone(), server.at.clone(), door, 0);
    let mut believing = teller(door(authority.path()));
    believing.step();
    believing.step();
    assert!(believing.told.is_some() && !believing.complained);
    assert_eq!(server.codes(), [103, 904], "the connection stays open");
    for refused in [door(stranger.path()), door(nothing.path())] {
        let mut teller = teller(refused);
        teller.step();
        assert!(teller.told.is_none() && teller.complained);
    }
    assert!(server.codes().is_empty(), "nobody tells a stranger anything");
    server.hang_up();
    await_end(&believing);
    believing.step();
    assert_eq!(server.codes(), [103]);
    let missing = door(Path::new("none.pem"));
    let refused = start(&scene.shared, std::slice::from_ref(&server.at), &missing, 0).expect_err("at once");
    assert!(refused.to_string().contains("none.pem"), "{refused}");
}
