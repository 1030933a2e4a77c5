//! Bodies that operators' tools read and write: settings, progress, connections.
//!
//! 1. Members stand in the order of the original, which is that of their names: tools print some of these bodies as they are.
//! 2. What a tool leaves out of settings has the original's default.
//!
//! Source: wire notes, sections 2.9 to 2.12, 4.11 and 4.12; recordings of the original 5.3.3.

use bytes::{BufMut, BytesMut};
use serde_json::{Map, Value};

use super::body::{BodyError, ConsumerData, SubscriptionData};
use super::json::{put_number, put_string};
use super::object::{Object, QueueKey};

/// Which state of a table this is. Tools compare them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataVersion {
    /// Changes so far.
    pub counter: u64,
    /// When the last one was, in milliseconds since 1970.
    pub time_ms: u64,
}

impl DataVersion {
    pub(super) fn put(&self, object: &mut Object<'_>) {
        object.count("counter", self.counter).number("stateVersion", 0).count("timestamp", self.time_ms);
    }

    /// As text, for a header's field.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = BytesMut::new();
        self.put(&mut Object::begin(&mut out));
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// A topic's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings<'a> {
    /// Its name.
    pub name: &'a str,
    /// Queues that consumers see.
    pub read_queues: u32,
    /// Queues that producers see.
    pub write_queues: u32,
    /// Perm bits.
    pub perm: u8,
    /// Bits of unit deployments.
    pub sys_flag: i32,
    /// Whether order is meant to matter.
    pub ordered: bool,
}

impl TopicSettings<'_> {
    fn put(&self, object: &mut Object<'_>) {
        object
            .object("attributes", |_| {})
            .truth("order", self.ordered)
            .number("perm", self.perm)
            .number("readQueueNums", self.read_queues)
            .text("topicFilterType", "SINGLE_TAG")
            .text("topicName", self.name)
            .number("topicSysFlag", self.sys_flag)
            .number("writeQueueNums", self.write_queues);
    }

    /// Appends the body that says a topic's settings.
    pub fn encode(&self, out: &mut BytesMut) {
        self.put(&mut Object::begin(out));
    }
}

/// Appends the body with every topic's settings.
pub fn put_topic_table<'a>(
    out: &mut BytesMut,
    version: DataVersion,
    topics: impl IntoIterator<Item = TopicSettings<'a>>,
) {
    Object::begin(out)
        .object("dataVersion", |object| version.put(object))
        .object("topicConfigTable", |table| {
            for topic in topics {
                table.object(topic.name, |object| topic.put(object));
            }
        })
        .object("topicQueueMappingDetailMap", |_| {});
}

/// Appends the body with which a broker tells a name server what it has (103).
pub fn put_registration<'a>(
    out: &mut BytesMut,
    version: DataVersion,
    topics: impl IntoIterator<Item = TopicSettings<'a>>,
) {
    let mut wrapper = BytesMut::new();
    put_topic_table(&mut wrapper, version, topics);
    Object::begin(out)
        .texts("filterServerList", std::iter::empty::<&str>())
        .raw("topicConfigSerializeWrapper", &String::from_utf8_lossy(&wrapper));
}

/// A topic as a list of them names it (18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTopic {
    /// Its name.
    pub name: String,
    /// Queues that consumers see.
    pub read_queues: u32,
    /// Queues that producers see.
    pub write_queues: u32,
    /// Perm bits.
    pub perm: u8,
    /// Bits of unit deployments.
    pub sys_flag: i32,
    /// Whether order is meant to matter.
    pub ordered: bool,
    /// What else is wished of it.
    pub attributes: Vec<String>,
}

impl WantedTopic {
    /// Reads the body that lists topics.
    ///
    /// # Errors
    /// When it is no JSON, or a topic in it has no name or a number that is none.
    pub fn decode_list(body: &[u8]) -> Result<Vec<WantedTopic>, BodyError> {
        let value: Value = serde_json::from_slice(body)?;
        let list = value["topicConfigList"].as_array().ok_or(BodyError::Lacks("topicConfigList"))?;
        list.iter()
            .map(|entry| entry.as_object().and_then(WantedTopic::read).ok_or(BodyError::Lacks("a topic's settings")))
            .collect()
    }

    fn read(data: &Map<String, Value>) -> Option<WantedTopic> {
        let number = |name, default| whole(data, name, default);
        Some(WantedTopic {
            name: data.get("topicName")?.as_str()?.to_owned(),
            read_queues: u32::try_from(number("readQueueNums", 16)?).ok()?,
            write_queues: u32::try_from(number("writeQueueNums", 16)?).ok()?,
            perm: u8::try_from(number("perm", 6)?).ok()?,
            sys_flag: i32::try_from(number("topicSysFlag", 0)?).ok()?,
            ordered: truth(data, "order", false),
            attributes: data
                .get("attributes")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
                .collect(),
        })
    }
}

/// A consumer group's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// Its name.
    pub name: String,
    /// Whether it may consume.
    pub may_consume: bool,
    /// Whether every member may get every message.
    pub may_broadcast: bool,
    /// Kept for tools; nothing follows from it in the original either.
    pub from_min: bool,
    /// Kept for tools; means something to consumers that take messages for a time.
    pub ordered: bool,
    /// Whether members are told when others come and go.
    pub tell_members: bool,
    /// Queues of its retry topic.
    pub retry_queues: i64,
    /// Deliveries after the first.
    pub retry_max: i64,
}

impl GroupSettings {
    /// The original's defaults.
    #[must_use]
    pub fn new(name: &str) -> GroupSettings {
        GroupSettings {
            name: name.to_owned(),
            may_consume: true,
            may_broadcast: true,
            from_min: true,
            ordered: false,
            tell_members: true,
            retry_queues: 1,
            retry_max: 16,
        }
    }

    /// Reads a body with settings of one group.
    ///
    /// # Errors
    /// When it is no JSON object, or names no group.
    pub fn decode(body: &[u8]) -> Result<GroupSettings, BodyError> {
        let value: Value = serde_json::from_slice(body)?;
        value
            .as_object()
            .and_then(GroupSettings::read)
            .ok_or(BodyError::Lacks("a group's name, or numbers that are some"))
    }

    /// Reads a body with settings of several groups.
    ///
    /// # Errors
    /// When it is no JSON, or a group in it has no name.
    pub fn decode_list(body: &[u8]) -> Result<Vec<GroupSettings>, BodyError> {
        let value: Value = serde_json::from_slice(body)?;
        let list = value["groupConfigList"].as_array().ok_or(BodyError::Lacks("groupConfigList"))?;
        list.iter()
            .map(|entry| entry.as_object().and_then(GroupSettings::read).ok_or(BodyError::Lacks("a group's name")))
            .collect()
    }

    fn read(data: &Map<String, Value>) -> Option<GroupSettings> {
        let default = GroupSettings::new(data.get("groupName")?.as_str()?);
        Some(GroupSettings {
            may_consume: truth(data, "consumeEnable", default.may_consume),
            may_broadcast: truth(data, "consumeBroadcastEnable", default.may_broadcast),
            from_min: truth(data, "consumeFromMinEnable", default.from_min),
            ordered: truth(data, "consumeMessageOrderly", default.ordered),
            tell_members: truth(data, "notifyConsumerIdsChangedEnable", default.tell_members),
            retry_queues: whole(data, "retryQueueNums", default.retry_queues)?,
            retry_max: whole(data, "retryMaxTimes", default.retry_max)?,
            ..default
        })
    }

    fn put(&self, object: &mut Object<'_>) {
        object
            .object("attributes", |_| {})
            .number("brokerId", 0)
            .truth("consumeBroadcastEnable", self.may_broadcast)
            .truth("consumeEnable", self.may_consume)
            .truth("consumeFromMinEnable", self.from_min)
            .truth("consumeMessageOrderly", self.ordered)
            .number("consumeTimeoutMinute", 15)
            .text("groupName", &self.name)
            .object("groupRetryPolicy", |policy| {
                policy.text("type", "CUSTOMIZED");
            })
            .number("groupSysFlag", 0)
            .truth("notifyConsumerIdsChangedEnable", self.tell_members)
            .number("retryMaxTimes", self.retry_max)
            .number("retryQueueNums", self.retry_queues)
            .number("whichBrokerWhenConsumeSlowly", 1);
    }

    /// Appends the body that says a group's settings.
    pub fn encode(&self, out: &mut BytesMut) {
        self.put(&mut Object::begin(out));
    }
}

/// Appends the body with every group's settings.
pub fn put_group_table(out: &mut BytesMut, version: DataVersion, groups: &[GroupSettings]) {
    Object::begin(out).object("dataVersion", |object| version.put(object)).object("forbiddenTable", |_| {}).object(
        "subscriptionGroupTable",
        |table| {
            for group in groups {
                table.object(&group.name, |object| group.put(object));
            }
        },
    );
}

fn whole(data: &Map<String, Value>, name: &str, default: i64) -> Option<i64> {
    match data.get(name) {
        None | Some(Value::Null) => Some(default),
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    }
}

fn truth(data: &Map<String, Value>, name: &str, default: bool) -> bool {
    match data.get(name) {
        Some(Value::Bool(truth)) => *truth,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true") || text == "1",
        _ => default,
    }
}

/// A connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected<'a> {
    /// `host:port` at its other end.
    pub address: &'a str,
    /// The client's own id.
    pub client_id: &'a str,
    /// What it is written in.
    pub language: &'a str,
    /// Its version.
    pub version: i32,
}

fn put_connection(out: &mut BytesMut, connected: &Connected<'_>) {
    Object::begin(out)
        .text("clientAddr", connected.address)
        .text("clientId", connected.client_id)
        .text("language", connected.language)
        .number("version", connected.version);
}

impl SubscriptionData {
    fn put(&self, object: &mut Object<'_>) {
        object
            .truth("classFilterMode", false)
            .list("codeSet", &self.tag_hashes, |out, hash| put_number(out, (*hash).into()))
            .text("expressionType", &self.expression_type)
            .text("subString", &self.expression)
            .number("subVersion", self.version)
            .texts("tagsSet", &self.tags)
            .text("topic", &self.topic);
    }
}

/// Appends the body that says who consumes in a group. `data`: what its members say of it.
pub fn put_consumer_connections(
    out: &mut BytesMut,
    connections: &[Connected<'_>],
    data: &ConsumerData,
    subscriptions: &[&SubscriptionData],
) {
    Object::begin(out)
        .list("connectionSet", connections, put_connection)
        .text("consumeFromWhere", consume_from(&data.consume_from))
        .text("consumeType", data.consume_type.name())
        .text("messageModel", data.message_model.name())
        .object("subscriptionTable", |table| {
            for subscription in subscriptions {
                table.object(&subscription.topic, |object| subscription.put(object));
            }
        });
}

/// A name that tools know: one that they do not know spoils the whole body.
fn consume_from(name: &str) -> &'static str {
    const KNOWN: [&str; 6] = [
        "CONSUME_FROM_LAST_OFFSET",
        "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        "CONSUME_FROM_MIN_OFFSET",
        "CONSUME_FROM_MAX_OFFSET",
        "CONSUME_FROM_FIRST_OFFSET",
        "CONSUME_FROM_TIMESTAMP",
    ];
    let ordinal = name.parse().ok().and_then(|ordinal: usize| KNOWN.get(ordinal).copied());
    ordinal.or_else(|| KNOWN.into_iter().find(|known| *known == name)).unwrap_or(KNOWN[0])
}

/// Appends the body that says who produces in a group.
pub fn put_producer_connections(out: &mut BytesMut, connections: &[Connected<'_>]) {
    Object::begin(out).list("connectionSet", connections, put_connection);
}

/// Appends the body with every producer, by group. The groups come in order, with when each client was heard.
pub fn put_producer_table(out: &mut BytesMut, producers: &[(&str, Connected<'_>, u64)]) {
    Object::begin(out).object("data", |table| {
        for group in producers.chunk_by(|one, other| one.0 == other.0) {
            table.list(group[0].0, group, |out, (_, connected, heard_ms)| {
                Object::begin(out)
                    .text("clientId", connected.client_id)
                    .text("language", connected.language)
                    .count("lastUpdateTimestamp", *heard_ms)
                    // As the original prints a socket's address.
                    .text("remoteIP", &["/", connected.address].concat())
                    .number("version", connected.version);
            });
        }
    });
}

/// Appends the body that says what a group subscribes of a topic.
pub fn put_subscription(out: &mut BytesMut, group: &str, topic: &str, subscription: Option<&SubscriptionData>) {
    let mut object = Object::begin(out);
    object.text("group", group);
    if let Some(subscription) = subscription {
        object.object("subscriptionData", |object| subscription.put(object));
    }
    object.text("topic", topic);
}

/// How far a group is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The offset that the next message gets.
    pub broker_offset: u64,
    /// What the group has committed.
    pub consumer_offset: u64,
    /// What its members have pulled up to.
    pub pull_offset: u64,
    /// When the last message before the committed offset was stored, in milliseconds since 1970; 0 when it is gone or never was.
    pub last_ms: u64,
}

impl Progress {
    /// What is committed of it, but for what is not there.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.broker_offset.saturating_sub(self.consumer_offset)
    }

    /// What its members have and is not committed.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.pull_offset.saturating_sub(self.consumer_offset)
    }
}

/// A group's progress in the queues of a topic.
pub type Rows<'a> = Vec<(QueueKey<'a>, Progress)>;

fn put_progress(out: &mut BytesMut, progress: Progress) {
    Object::begin(out)
        .count("brokerOffset", progress.broker_offset)
        .count("consumerOffset", progress.consumer_offset)
        .count("lastTimestamp", progress.last_ms)
        .count("pullOffset", progress.pull_offset);
}

/// Appends the body that says how far a group is. `per_second`: messages that it consumes in one.
pub fn put_consume_stats(out: &mut BytesMut, per_second: f64, rows: &[(QueueKey<'_>, Progress)]) {
    Object::begin(out).fraction("consumeTps", per_second).by_queue("offsetTable", rows.iter().copied(), put_progress);
}

/// Appends the body that says how far every group is: by group, one entry for each of its topics, with the messages that it consumes in a
/// second.
pub fn put_broker_consume_stats(out: &mut BytesMut, broker_address: &str, groups: &[(&str, Vec<(f64, Rows<'_>)>)]) {
    let queues = groups.iter().flat_map(|(_, topics)| topics.iter().flat_map(|(_, rows)| rows));
    let total = |of: fn(&Progress) -> u64| queues.clone().map(|(_, progress)| of(progress)).sum();
    Object::begin(out)
        .text("brokerAddr", broker_address)
        .list("consumeStatsList", groups, |out, (group, topics)| {
            Object::begin(out).list(group, topics, |out, (rate, rows)| put_consume_stats(out, *rate, rows));
        })
        .count("totalDiff", total(Progress::behind))
        .count("totalInflightDiff", total(Progress::in_flight));
}

/// What a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// The first readable offset.
    pub min: u64,
    /// The offset that the next message gets.
    pub max: u64,
    /// When the last message was stored, in milliseconds since 1970; 0 when there is none.
    pub last_ms: u64,
}

/// Appends the body that says what a topic's queues hold. `per_second`: messages that come in one.
pub fn put_topic_stats(out: &mut BytesMut, rows: &[(QueueKey<'_>, QueueStats)], per_second: f64) {
    Object::begin(out)
        .by_queue("offsetTable", rows.iter().copied(), |out, stats| {
            Object::begin(out)
                .count("lastUpdateTimestamp", stats.last_ms)
                .count("maxOffset", stats.max)
                .count("minOffset", stats.min);
        })
        .fraction("topicPutTps", per_second);
}

/// Appends the body that maps queues to offsets.
pub fn put_offset_table(out: &mut BytesMut, rows: &[(QueueKey<'_>, u64)]) {
    Object::begin(out).by_queue("offsetTable", rows.iter().copied(), |out, offset| {
        put_number(out, i64::try_from(offset).unwrap_or(i64::MAX));
    });
}

/// Appends the body with every group's committed offsets. They come in order of topic and group.
pub fn put_all_offsets(out: &mut BytesMut, version: DataVersion, rows: &[(&str, &str, u32, u64)]) {
    Object::begin(out).object("dataVersion", |object| version.put(object)).object("offsetTable", |table| {
        for queues in rows.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
            let (topic, group, ..) = queues[0];
            table.object(&[topic, "@", group].concat(), |object| {
                for (.., queue, offset) in queues {
                    object.numbered((*queue).into(), i64::try_from(*offset).unwrap_or(i64::MAX));
                }
            });
        }
    });
}

/// Messages of a time: how many, and how many each second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Series {
    /// How many.
    pub sum: u64,
    /// How many in a second.
    pub per_second: f64,
}

impl Series {
    fn put(&self, object: &mut Object<'_>) {
        // Each counted by itself: one at a time, if there was any.
        let at_a_time = if self.sum > 0 { 1.0 } else { 0.0 };
        object.fraction("avgpt", at_a_time).count("sum", self.sum).fraction("tps", self.per_second);
    }
}

/// Appends the body with one series of statistics.
pub fn put_series(out: &mut BytesMut, day: Series, hour: Series, minute: Series) {
    Object::begin(out)
        .object("statsDay", |object| day.put(object))
        .object("statsHour", |object| hour.put(object))
        .object("statsMinute", |object| minute.put(object));
}

/// When what a group has and what it lacks of a queue was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSpan {
    /// The first message, in milliseconds since 1970.
    pub first_ms: u64,
    /// The last.
    pub last_ms: u64,
    /// The last that is consumed.
    pub consumed_ms: u64,
    /// How old the first is that is not, in milliseconds; 0 when there is none.
    pub delay_ms: u64,
}

/// Appends the body that says how far behind a group is in time.
pub fn put_time_spans(out: &mut BytesMut, rows: &[(QueueKey<'_>, TimeSpan)]) {
    Object::begin(out).list("consumeTimeSpanSet", rows, |out, (queue, span)| {
        let mut key = BytesMut::new();
        queue.put(&mut key);
        Object::begin(out)
            .count("consumeTimeStamp", span.consumed_ms)
            .count("delayTime", span.delay_ms)
            .count("maxTimeStamp", span.last_ms)
            .raw("messageQueue", &String::from_utf8_lossy(&key))
            .count("minTimeStamp", span.first_ms);
    });
}

/// An entry of a consume queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueData {
    /// Where its message lies.
    pub physical_offset: u64,
    /// Bytes of the message as clients read it.
    pub bytes: u32,
    /// The hash of its tag.
    pub tag_hash: i32,
}

/// Appends the body with entries of a consume queue.
pub fn put_queue_entries(out: &mut BytesMut, min: u64, max: u64, entries: &[QueueData]) {
    Object::begin(out).count("maxQueueIndex", max).count("minQueueIndex", min).list(
        "queueData",
        entries,
        |out, entry| {
            Object::begin(out)
                .truth("eval", false)
                .count("physicOffset", entry.physical_offset)
                .number("physicSize", entry.bytes)
                .number("tagsCode", entry.tag_hash);
        },
    );
}

/// Appends the body with what the members of a group say of where they are; `tables` are as they wrote them.
pub fn put_consumer_status(out: &mut BytesMut, tables: &[(&str, &str)]) {
    Object::begin(out).object("consumerTable", |by_client| {
        for (client_id, table) in tables {
            by_client.raw(client_id, table);
        }
    });
}

/// The map of queues to offsets in a client's answer to being asked where it is, as it wrote it.
#[must_use]
pub fn queue_table(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let mut reader = super::json::Reader::new(text);
    reader.expect(b'{', "an object").ok()?;
    loop {
        let name = reader.string().ok()?;
        reader.expect(b':', "a colon").ok()?;
        let value = reader.skip().ok()?;
        if name.raw == "messageQueueTable" {
            return value.raw.starts_with('{').then_some(value.raw);
        }
        if !reader.take(b',') {
            return None;
        }
    }
}

/// Appends settings as lines of names and values.
pub fn put_properties<'a>(out: &mut BytesMut, settings: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (name, value) in settings {
        out.put_slice(name.as_bytes());
        out.put_u8(b'=');
        out.put_slice(value.as_bytes());
        out.put_u8(b'\n');
    }
}

/// Appends the list of topics that names a broker which has them.
pub fn put_topics_of_broker<T: AsRef<str>>(out: &mut BytesMut, broker_address: &str, topics: &[T]) {
    Object::begin(out).text("brokerAddr", broker_address).list("topicList", topics, |out, topic| {
        put_string(out, topic.as_ref());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(put: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        put(&mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    const Q0: QueueKey<'static> = QueueKey { broker: "broker-a", topic: "AdmTopic", number: 0 };

    #[test]
    fn bodies_are_those_of_the_original() {
        let topic =
            TopicSettings { name: "AdmTopic", read_queues: 4, write_queues: 4, perm: 6, sys_flag: 0, ordered: false };
        // Recorded, but for what is cut.
        assert_eq!(
            written(|out| topic.encode(out)),
            r#"{"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"AdmTopic","topicSysFlag":0,"writeQueueNums":4}"#
        );
        let key = r#"{"brokerName":"broker-a","queueId":0,"topic":"AdmTopic"}"#;
        let stats = QueueStats { min: 0, max: 14, last_ms: 1_795_218_130_321 };
        assert_eq!(
            written(|out| put_topic_stats(out, &[(Q0, stats)], 1.020_061_203_672_220_3)),
            format!(
                r#"{{"offsetTable":{{{key}:{{"lastUpdateTimestamp":1795218130321,"maxOffset":14,"minOffset":0}}}},"topicPutTps":1.0200612036722203}}"#
            )
        );
        let progress = Progress { broker_offset: 21, consumer_offset: 20, pull_offset: 21, last_ms: 1_795_218_153_733 };
        assert_eq!(
            written(|out| put_consume_stats(out, 0.0, &[(Q0, progress)])),
            format!(
                r#"{{"consumeTps":0.0,"offsetTable":{{{key}:{{"brokerOffset":21,"consumerOffset":20,"lastTimestamp":1795218153733,"pullOffset":21}}}}}}"#
            )
        );
        assert_eq!(
            written(|out| put_consume_stats(out, 0.0, &[])),
            r#"{"consumeTps":0.0,"offsetTable":{}}"#,
            "of a group that nobody knows"
        );
        assert_eq!(written(|out| put_offset_table(out, &[(Q0, 62)])), format!(r#"{{"offsetTable":{{{key}:62}}}}"#));
        let live = Connected { address: "127.0.0.1:36014", client_id: "10.0.0.5@live", language: "JAVA", version: 479 };
        let one = r#"{"clientAddr":"127.0.0.1:36014","clientId":"10.0.0.5@live","language":"JAVA","version":479}"#;
        assert_eq!(written(|out| put_producer_connections(out, &[live])), format!(r#"{{"connectionSet":[{one}]}}"#));
        let subscription = SubscriptionData {
            topic: "AdmTopic".to_owned(),
            expression: "*".to_owned(),
            expression_type: "TAG".to_owned(),
            version: 1_795_218_082_606,
            ..SubscriptionData::default()
        };
        let data = ConsumerData { consume_from: "CONSUME_FROM_LAST_OFFSET".to_owned(), ..ConsumerData::default() };
        assert_eq!(
            written(|out| put_consumer_connections(out, &[live], &data, &[&subscription])),
            format!(
                r#"{{"connectionSet":[{one}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{{"AdmTopic":{{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1795218082606,"tagsSet":[],"topic":"AdmTopic"}}}}}}"#
            )
        );
        assert_eq!(
            written(|out| put_producer_table(out, &[("p", live, 7), ("p", live, 8), ("q", live, 9)]))
                .matches("remoteIP")
                .count(),
            3
        );
        let (hour, none) = (Series { sum: 2, per_second: 2.0 / 600.0 }, Series::default());
        assert_eq!(
            written(|out| put_series(out, none, hour, none)),
            r#"{"statsDay":{"avgpt":0.0,"sum":0,"tps":0.0},"statsHour":{"avgpt":1.0,"sum":2,"tps":0.0033333333333333335},"statsMinute":{"avgpt":0.0,"sum":0,"tps":0.0}}"#
        );
        let entry = QueueData { physical_offset: 22_276_473, bytes: 256, tag_hash: 84 };
        assert_eq!(
            written(|out| put_queue_entries(out, 0, 65, &[entry])),
            r#"{"maxQueueIndex":65,"minQueueIndex":0,"queueData":[{"eval":false,"physicOffset":22276473,"physicSize":256,"tagsCode":84}]}"#
        );
        let version = DataVersion { counter: 0, time_ms: 1_795_217_217_086 };
        assert_eq!(version.to_text(), r#"{"counter":0,"stateVersion":0,"timestamp":1795217217086}"#);
        assert_eq!(
            written(|out| put_all_offsets(out, version, &[("T", "g", 0, 5), ("T", "g", 1, 7), ("U", "g", 0, 1)])),
            r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1795217217086},"offsetTable":{"T@g":{0:5,1:7},"U@g":{0:1}}}"#
        );
    }

    #[test]
    fn a_groups_settings_are_written_as_a_tool_wrote_them() {
        // Recorded of mqadmin 5.3.3.
        let body = r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":false,"consumeEnable":true,"consumeFromMinEnable":false,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"AdmGroup","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#;
        let settings = GroupSettings::decode(body.as_bytes()).expect("good");
        assert_eq!(written(|out| settings.encode(out)), body);
        assert_eq!(GroupSettings::decode(br#"{"groupName":"g"}"#).expect("good"), GroupSettings::new("g"));
        for bad in ["", "[]", "{}", r#"{"groupName":"g","retryMaxTimes":[]}"#] {
            assert!(GroupSettings::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn where_a_client_says_it_is_is_taken_as_it_wrote_it() {
        let table = r#"{{"brokerName":"b","queueId":0,"topic":"T"}:5}"#;
        let body = format!(r#"{{"other":1,"messageQueueTable":{table}}}"#);
        assert_eq!(queue_table(body.as_bytes()), Some(table));
        for odd in ["", "{}", "[]", r#"{"messageQueueTable":5}"#, r#"{"messageQueueTable":{"#] {
            assert_eq!(queue_table(odd.as_bytes()), None, "{odd}");
        }
        assert_eq!(
            written(|out| put_consumer_status(out, &[("c", table)])),
            format!(r#"{{"consumerTable":{{"c":{table}}}}}"#)
        );
    }

    #[test]
    fn a_start_rule_that_tools_do_not_know_is_shown_as_the_usual_one() {
        for (said, shown) in [
            ("UNKNOWN", "CONSUME_FROM_LAST_OFFSET"),
            ("4", "CONSUME_FROM_FIRST_OFFSET"),
            ("", "CONSUME_FROM_LAST_OFFSET"),
        ] {
            assert_eq!(consume_from(said), shown);
        }
    }
}
