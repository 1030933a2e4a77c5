//! Bodies that are JSON: heartbeats in, routes and lists out.
//!
//! 1. A part of a heartbeat that cannot be read costs that part, never the rest of it.
//! 2. What is written has no blanks and a stable order: some clients compare it as text.
//!
//! Source: wire notes, sections 2.8, 4.9, 4.10 and 4.12.

use std::collections::BTreeSet;

use bytes::{BufMut, BytesMut};
use serde_json::{Map, Value};

use super::json::{put_number, put_string};

/// The first client version (4.9.4) whose routes have quoted ids.
const VERSION_STANDARD_JSON: i32 = 401;

/// What a client says of itself every 30 seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The client's own id.
    pub client_id: String,
    /// Groups in which it consumes.
    pub consumers: Vec<ConsumerData>,
    /// Groups in which it produces.
    pub producers: Vec<String>,
    /// Subscriptions are left out because they are as before.
    pub without_subscriptions: bool,
}

/// A consumer group as one of its members sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerData {
    /// The group's name.
    pub group: String,
    /// How it takes messages.
    pub consume_type: ConsumeType,
    /// Whether every member gets every message.
    pub message_model: MessageModel,
    /// Where it begins when nothing is committed; kept as text, because clients have values of their own.
    pub consume_from: String,
    /// What it subscribes.
    pub subscriptions: Vec<SubscriptionData>,
    /// Belongs to deployments in units; not used.
    pub unit_mode: bool,
}

/// How a consumer takes messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumeType {
    /// It pulls when it likes.
    Actively,
    /// Its library pulls for it.
    #[default]
    Passively,
    /// It takes messages for a time.
    Pop,
}

impl ConsumeType {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ConsumeType::Actively => "CONSUME_ACTIVELY",
            ConsumeType::Passively => "CONSUME_PASSIVELY",
            ConsumeType::Pop => "CONSUME_POP",
        }
    }
}

/// Whether every member of a group gets every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageModel {
    /// Each does.
    Broadcasting,
    /// They share.
    #[default]
    Clustering,
}

impl MessageModel {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MessageModel::Broadcasting => "BROADCASTING",
            MessageModel::Clustering => "CLUSTERING",
        }
    }
}

/// What a group subscribes of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionData {
    /// The topic.
    pub topic: String,
    /// The expression; `*` for everything.
    pub expression: String,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The tags of the expression, as the client read it.
    pub tags: Vec<String>,
    /// Their hashes.
    pub tag_hashes: Vec<i32>,
    /// Milliseconds or nanoseconds of the client's clock: only comparable within one group.
    pub version: i64,
}

impl SubscriptionData {
    /// Whether it filters by tag, which every client can.
    #[must_use]
    pub fn is_by_tag(&self) -> bool {
        self.expression_type.eq_ignore_ascii_case("TAG")
    }
}

/// What a client asks for to consume in order, or gives back (41, 42).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockRequest {
    /// The client's own id, as in its heartbeats.
    pub client_id: String,
    /// The group in which it consumes.
    pub group: String,
    /// The queues.
    pub queues: Vec<MessageQueue>,
}

/// A queue as clients name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageQueue {
    /// Its topic.
    pub topic: String,
    /// Its broker.
    pub broker: String,
    /// Its number.
    pub number: i64,
}

/// A body that is not the JSON that is wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Not JSON.
    #[error("body is no JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// JSON of another kind, or without what matters.
    #[error("body lacks {0}")]
    Lacks(&'static str),
}

impl Heartbeat {
    /// Reads a heartbeat.
    ///
    /// Enums come as names or ordinals, numbers as numbers or text, lists may be absent or null; entries without a name are left out.
    ///
    /// # Errors
    /// When it is no JSON object or has no client id.
    pub fn decode(body: &[u8]) -> Result<Heartbeat, BodyError> {
        let value: Value = serde_json::from_slice(body)?;
        let Value::Object(object) = value else { return Err(BodyError::Lacks("an object")) };
        let client_id = text(&object, "clientID").or_else(|| text(&object, "clientId"));
        let client_id = client_id.filter(|id| !id.is_empty()).ok_or(BodyError::Lacks("clientID"))?;
        let producers = objects(&object, "producerDataSet").filter_map(|data| text(data, "groupName"));
        Ok(Heartbeat {
            client_id,
            consumers: objects(&object, "consumerDataSet").filter_map(ConsumerData::read).collect(),
            producers: producers.filter(|name| !name.is_empty()).collect(),
            without_subscriptions: truth(&object, "withoutSub"),
        })
    }
}

impl ConsumerData {
    fn read(data: &Map<String, Value>) -> Option<ConsumerData> {
        let group = text(data, "groupName").filter(|name| !name.is_empty())?;
        let consume_type = match text(data, "consumeType").as_deref() {
            Some("CONSUME_ACTIVELY" | "PULL" | "0") => ConsumeType::Actively,
            Some("CONSUME_POP" | "POP" | "2") => ConsumeType::Pop,
            _ => ConsumeType::Passively,
        };
        let message_model = match text(data, "messageModel").as_deref() {
            Some("BROADCASTING" | "0") => MessageModel::Broadcasting,
            _ => MessageModel::Clustering,
        };
        Some(ConsumerData {
            group,
            consume_type,
            message_model,
            consume_from: text(data, "consumeFromWhere").unwrap_or_default(),
            subscriptions: objects(data, "subscriptionDataSet").filter_map(SubscriptionData::read).collect(),
            unit_mode: truth(data, "unitMode"),
        })
    }
}

impl SubscriptionData {
    /// Reads one entry of a heartbeat, or the one of a filter check.
    #[must_use]
    pub fn read(data: &Map<String, Value>) -> Option<SubscriptionData> {
        let filled = |name| text(data, name).filter(|text| !text.is_empty());
        let hashes = list(data, "codeSet").filter_map(|code| i32::try_from(whole(code)?).ok());
        Some(SubscriptionData {
            topic: filled("topic")?,
            expression: filled("subString").unwrap_or_else(|| "*".to_owned()),
            expression_type: filled("expressionType").unwrap_or_else(|| "TAG".to_owned()),
            tags: list(data, "tagsSet").filter_map(as_text).collect(),
            tag_hashes: hashes.collect(),
            version: data.get("subVersion").and_then(whole).unwrap_or(0),
        })
    }
}

impl LockRequest {
    /// Reads such a body. Entries that name no queue are left out, and what is named twice stands there once.
    ///
    /// # Errors
    /// When it is no JSON object, or names no client or no group.
    pub fn decode(body: &[u8]) -> Result<LockRequest, BodyError> {
        let value: Value = serde_json::from_slice(body)?;
        let Value::Object(object) = value else { return Err(BodyError::Lacks("an object")) };
        let filled = |name| text(&object, name).filter(|text| !text.is_empty());
        let client_id = filled("clientId").or_else(|| filled("clientID")).ok_or(BodyError::Lacks("clientId"))?;
        let group = filled("consumerGroup").ok_or(BodyError::Lacks("consumerGroup"))?;
        let mut seen = BTreeSet::new();
        let queues = objects(&object, "mqSet").filter_map(MessageQueue::read);
        let queues = queues.filter(|queue| seen.insert((queue.topic.clone(), queue.number))).collect();
        Ok(LockRequest { client_id, group, queues })
    }
}

impl MessageQueue {
    fn read(data: &Map<String, Value>) -> Option<MessageQueue> {
        Some(MessageQueue {
            topic: text(data, "topic").filter(|topic| !topic.is_empty())?,
            broker: text(data, "brokerName").unwrap_or_default(),
            number: data.get("queueId").and_then(whole)?,
        })
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn text(object: &Map<String, Value>, name: &str) -> Option<String> {
    object.get(name).and_then(as_text)
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn truth(object: &Map<String, Value>, name: &str) -> bool {
    matches!(text(object, name).as_deref(), Some("true" | "1"))
}

fn list<'a>(object: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    object.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn objects<'a>(object: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    list(object, name).filter_map(Value::as_object)
}

/// Where a topic's queues are. Keep lists in the same order from answer to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Queues by broker.
    pub queues: &'a [RouteQueues<'a>],
    /// The brokers.
    pub brokers: &'a [RouteBroker<'a>],
}

/// A topic's queues at one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQueues<'a> {
    /// The broker.
    pub broker_name: &'a str,
    /// Queues that may be read.
    pub read_queues: u32,
    /// Queues that may be written.
    pub write_queues: u32,
    /// 4 read, 2 write, 1 a template for new topics.
    pub permissions: u32,
    /// Bits of unit deployments; 0 otherwise.
    pub sys_flag: u32,
}

/// A broker and its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteBroker<'a> {
    /// Its cluster.
    pub cluster: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `host:port` by id; 0 is the master.
    pub addresses: &'a [(u64, &'a str)],
}

/// How the ids of brokers are written: as JSON demands, or as numbers, which older Go clients insist on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdStyle {
    /// `{"0":"…"}`
    Quoted,
    /// `{0:"…"}`
    Bare,
}

impl IdStyle {
    /// What the original chooses for a client: quoted ids since 4.9.4, and for whoever asks for standard JSON.
    #[must_use]
    pub fn for_client(version: i32, standard_json_only: bool) -> IdStyle {
        if version >= VERSION_STANDARD_JSON || standard_json_only { IdStyle::Quoted } else { IdStyle::Bare }
    }
}

impl Route<'_> {
    /// Appends the body of a route answer.
    pub fn encode(&self, out: &mut BytesMut, ids: IdStyle) {
        out.put_slice(b"{\"brokerDatas\":");
        put_list(out, self.brokers, |out, broker| broker.encode(out, ids));
        out.put_slice(b",\"filterServerTable\":{},\"queueDatas\":");
        put_list(out, self.queues, |out, queues| {
            out.put_slice(b"{\"brokerName\":");
            put_string(out, queues.broker_name);
            // Older clients know the flag under a misspelt name only.
            for (name, value) in [
                (&b",\"perm\":"[..], queues.permissions),
                (b",\"readQueueNums\":", queues.read_queues),
                (b",\"topicSynFlag\":", queues.sys_flag),
                (b",\"topicSysFlag\":", queues.sys_flag),
                (b",\"writeQueueNums\":", queues.write_queues),
            ] {
                out.put_slice(name);
                put_number(out, i64::from(value));
            }
            out.put_u8(b'}');
        });
        out.put_u8(b'}');
    }
}

impl RouteBroker<'_> {
    fn encode(&self, out: &mut BytesMut, ids: IdStyle) {
        out.put_slice(b"{\"brokerAddrs\":{");
        for (place, (id, address)) in self.addresses.iter().enumerate() {
            if place > 0 {
                out.put_u8(b',');
            }
            let quote: &[u8] = if ids == IdStyle::Quoted { b"\"" } else { b"" };
            out.put_slice(quote);
            put_number(out, i64::try_from(*id).unwrap_or(i64::MAX));
            out.put_slice(quote);
            out.put_u8(b':');
            put_string(out, address);
        }
        out.put_slice(b"},\"brokerName\":");
        put_string(out, self.name);
        out.put_slice(b",\"cluster\":");
        put_string(out, self.cluster);
        out.put_slice(b",\"enableActingMaster\":false}");
    }
}

/// Appends the body that says which brokers there are. Its ids are always bare, as in the original.
pub fn put_cluster_info(out: &mut BytesMut, brokers: &[RouteBroker<'_>]) {
    out.put_slice(b"{\"brokerAddrTable\":{");
    for (place, broker) in brokers.iter().enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        put_string(out, broker.name);
        out.put_u8(b':');
        broker.encode(out, IdStyle::Bare);
    }
    out.put_slice(b"},\"clusterAddrTable\":{");
    let mut clusters: Vec<&str> = brokers.iter().map(|broker| broker.cluster).collect();
    clusters.sort_unstable();
    clusters.dedup();
    for (place, cluster) in clusters.iter().enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        put_string(out, cluster);
        out.put_u8(b':');
        let members: Vec<_> = brokers.iter().filter(|broker| broker.cluster == *cluster).collect();
        put_list(out, &members, |out, broker| put_string(out, broker.name));
    }
    out.put_slice(b"}}");
}

/// Appends the body that lists a group's members.
pub fn put_consumer_ids<T: AsRef<str>>(out: &mut BytesMut, ids: &[T]) {
    put_names(out, "consumerIdList", ids);
}

/// Appends the body that says which queues are locked for whoever asked.
pub fn put_locked_queues<'a>(out: &mut BytesMut, queues: impl IntoIterator<Item = &'a MessageQueue>) {
    out.put_slice(b"{\"lockOKMQSet\":[");
    for (place, queue) in queues.into_iter().enumerate() {
        out.put_slice(if place > 0 { b",{\"brokerName\":" } else { b"{\"brokerName\":" });
        put_string(out, &queue.broker);
        out.put_slice(b",\"queueId\":");
        put_number(out, queue.number);
        out.put_slice(b",\"topic\":");
        put_string(out, &queue.topic);
        out.put_u8(b'}');
    }
    out.put_slice(b"]}");
}

/// Appends the body that lists topics.
pub fn put_topic_list<T: AsRef<str>>(out: &mut BytesMut, topics: &[T]) {
    put_names(out, "topicList", topics);
}

/// Appends the body that lists groups.
pub fn put_group_list<T: AsRef<str>>(out: &mut BytesMut, groups: &[T]) {
    put_names(out, "groupList", groups);
}

/// Appends a body of text pairs, such as the broker's state.
pub fn put_text_table<'a>(out: &mut BytesMut, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    out.put_slice(b"{\"table\":{");
    for (place, (name, value)) in pairs.into_iter().enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        put_string(out, name);
        out.put_u8(b':');
        put_string(out, value);
    }
    out.put_slice(b"}}");
}

fn put_names<T: AsRef<str>>(out: &mut BytesMut, key: &str, names: &[T]) {
    out.put_u8(b'{');
    put_string(out, key);
    out.put_u8(b':');
    put_list(out, names, |out, name| put_string(out, name.as_ref()));
    out.put_u8(b'}');
}

fn put_list<T>(out: &mut BytesMut, items: &[T], put: impl Fn(&mut BytesMut, &T)) {
    out.put_u8(b'[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        put(out, item);
    }
    out.put_u8(b']');
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use proptest::prelude::*;

    use super::*;

    fn written(put: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        put(&mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn a_heartbeat_of_any_family_is_read() {
        // Names or ordinals, numbers or text, present or not: each quirk is of some client.
        let body = br#"{"clientID":"10.0.0.5@1","consumerDataSet":[
            {"groupName":"java","consumeType":"CONSUME_ACTIVELY","messageModel":"BROADCASTING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
             "subscriptionDataSet":[{"topic":"T","subString":"TagA","codeSet":[2598919],"tagsSet":["TagA"],"subVersion":1700000000000}]},
            {"groupName":"go","consumeFromWhere":"UNKNOWN","subscriptionDataSet":[{"topic":"T","codeSet":["65","x"],"subVersion":"1700000000000000000",
             "expressionType":"SQL92","subString":"a > 1"}, 5, {"subString":"no topic"}, {"topic":"U","tagsSet":null,"codeSet":null,"subString":null}]},
            {"groupName":"cpp","consumeType":1,"messageModel":0,"consumeFromWhere":0,"unitMode":"1","subscriptionDataSet":null},
            {"groupName":""}, "odd"],
            "producerDataSet":[{"groupName":"CLIENT_INNER_PRODUCER"},{}],"withoutSub":true,"heartbeatFingerprint":5}
"#;
        let heartbeat = Heartbeat::decode(body).expect("good");
        assert_eq!(heartbeat.client_id, "10.0.0.5@1");
        assert_eq!(heartbeat.producers, ["CLIENT_INNER_PRODUCER"]);
        assert!(heartbeat.without_subscriptions);
        let [java, go, cpp] = &heartbeat.consumers[..] else { panic!("three groups: {heartbeat:?}") };
        assert_eq!((java.consume_type, java.message_model), (ConsumeType::Actively, MessageModel::Broadcasting));
        assert_eq!(java.subscriptions[0].tag_hashes, [2_598_919]);
        assert!(java.subscriptions[0].is_by_tag());
        let [sql, all] = &go.subscriptions[..] else { panic!("two subscriptions: {go:?}") };
        assert_eq!((sql.version, &sql.tag_hashes[..], sql.is_by_tag()), (1_700_000_000_000_000_000, &[65][..], false));
        assert_eq!((all.expression.as_str(), all.is_by_tag(), all.version), ("*", true, 0));
        assert_eq!((cpp.consume_type, cpp.message_model), (ConsumeType::Passively, MessageModel::Broadcasting));
        assert!(cpp.unit_mode && cpp.subscriptions.is_empty());
        assert_eq!(cpp.consume_from, "0");
    }

    #[test]
    fn a_heartbeat_without_its_sender_is_refused() {
        for body in ["", "{}", "[]", "{\"clientID\":\"\"}", "{\"clientID\":null}"] {
            assert!(Heartbeat::decode(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(Heartbeat::decode(b"{\"clientID\":\"c\"}").expect("good").consumers, []);
    }

    #[test]
    fn queues_to_lock_are_read_of_every_family_and_answered_as_the_original_does() {
        // As Java, Go and C++ write them, by the order of their fields and by what they leave out.
        let bodies = [
            r#"{"clientId":"10.0.0.5@g@1","consumerGroup":"g","mqSet":[{"brokerName":"broker-a","queueId":3,"topic":"T"}],"onlyThisBroker":false}"#,
            r#"{"consumerGroup":"g","clientId":"10.0.0.5@g@1","mqSet":[{"topic":"T","brokerName":"broker-a","queueId":3}]}"#,
            "{\"clientId\":\"10.0.0.5@g@1\",\"consumerGroup\":\"g\",\"mqSet\":[{\"brokerName\":\"broker-a\",\"queueId\":\"3\",\"topic\":\"T\"}]}\n",
        ];
        let queue = MessageQueue { topic: "T".to_owned(), broker: "broker-a".to_owned(), number: 3 };
        for body in bodies {
            let request = LockRequest::decode(body.as_bytes()).expect("good");
            assert_eq!((request.client_id.as_str(), request.group.as_str()), ("10.0.0.5@g@1", "g"));
            assert_eq!(request.queues, std::slice::from_ref(&queue));
        }
        let odd = r#"{"clientId":"c","consumerGroup":"g","mqSet":[{"topic":"T","queueId":1},5,{"queueId":2},{"topic":"T","queueId":1}]}"#;
        assert_eq!(LockRequest::decode(odd.as_bytes()).expect("good").queues.len(), 1);
        for body in ["", "[]", r#"{"clientId":"c"}"#, r#"{"consumerGroup":"g","mqSet":[]}"#] {
            assert!(LockRequest::decode(body.as_bytes()).is_err(), "{body}");
        }
        let one = r#"{"brokerName":"broker-a","queueId":3,"topic":"T"}"#;
        assert_eq!(written(|out| put_locked_queues(out, [])), r#"{"lockOKMQSet":[]}"#);
        let two = [&queue, &queue];
        assert_eq!(written(|out| put_locked_queues(out, two)), format!(r#"{{"lockOKMQSet":[{one},{one}]}}"#));
    }

    #[test]
    fn ids_in_routes_are_quoted_as_the_original_does() {
        assert_eq!(IdStyle::for_client(401, false), IdStyle::Quoted);
        assert_eq!(IdStyle::for_client(317, false), IdStyle::Bare);
        assert_eq!(IdStyle::for_client(317, true), IdStyle::Quoted);
    }

    #[test]
    fn lists_are_compact_and_escaped() {
        let ids = ["10.0.0.5@1", "\"odd\""];
        assert_eq!(written(|out| put_consumer_ids(out, &ids)), r#"{"consumerIdList":["10.0.0.5@1","\"odd\""]}"#);
        assert_eq!(written(|out| put_topic_list::<&str>(out, &[])), r#"{"topicList":[]}"#);
        assert_eq!(written(|out| put_group_list(out, &["g"])), r#"{"groupList":["g"]}"#);
        assert_eq!(written(|out| put_text_table(out, [("k", "v"), ("l", "")])), r#"{"table":{"k":"v","l":""}}"#);
    }

    proptest! {
        #[test]
        fn any_json_is_a_heartbeat_or_an_error(text in "\\{\"clientID\":\"c\",\"consumerDataSet\":[\\[\\]{}\",:a-z0-9]{0,40}") {
            black_box(Heartbeat::decode(text.as_bytes()).is_ok());
        }
    }
}
