//! A topic as a client sees it: where its queues are, how it is made, how all of it is read back.

use std::collections::BTreeMap;
use std::time::Duration;

use anchorlog::wire::codes::{request, response};
use anchorlog::wire::message;

use crate::clock::{self, SECOND_NS};
use crate::error::PerfError;
use crate::payload::Payloads;
use crate::remoting::Caller;
use crate::verify::Verifier;

/// The group that sends and the group that reads back.
const GROUP: &str = "anchorlog-perf";
/// What a new topic is made after.
const TEMPLATE_TOPIC: &str = "TBW102";
/// Queues asked for when the topic is made.
const QUEUES_WANTED: &str = "8";
/// Messages asked for in one pull; a broker may give fewer.
const PULL_MESSAGES: u32 = 256;

/// One queue of a topic, and where it begins for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicQueue {
    /// `host:port` of its broker.
    pub(crate) broker: String,
    /// Its number there.
    pub(crate) id: u32,
    /// Its end when it was looked at: what lies before is not ours.
    pub(crate) from: u64,
}

/// Where a topic's messages go.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// Its name.
    pub(crate) name: String,
    /// Its queues.
    pub(crate) queues: Vec<TopicQueue>,
}

impl Topic {
    /// Asks the name server; makes the topic by a first message where it does not exist.
    ///
    /// # Errors
    /// When nobody answers, or the topic cannot be made.
    pub(crate) fn find_or_make(namesrv: &str, name: &str) -> Result<Topic, PerfError> {
        let mut caller = Caller::connect(namesrv)?;
        let queues = match route(&mut caller, name)? {
            Some(queues) => queues,
            None => {
                let template = route(&mut caller, TEMPLATE_TOPIC)?.ok_or_else(|| {
                    PerfError::Broker(format!(
                        "topic {name} does not exist, and {TEMPLATE_TOPIC} to make it after neither"
                    ))
                })?;
                let mut brokers: Vec<String> = template.into_iter().map(|queue| queue.broker).collect();
                brokers.dedup();
                for broker in brokers {
                    make(&broker, name)?;
                }
                let deadline = clock::now_ns() + 10 * SECOND_NS;
                loop {
                    match route(&mut caller, name)? {
                        Some(queues) => break queues,
                        None if clock::now_ns() < deadline => clock::sleep(Duration::from_millis(50)),
                        None => return Err(PerfError::Broker(format!("topic {name} was made and cannot be found"))),
                    }
                }
            }
        };
        let mut topic = Topic { name: name.to_owned(), queues };
        topic.look_at_ends()?;
        Ok(topic)
    }

    /// Sends to a broker until it takes something, then finds the topic that this made: our own broker refuses while it cannot keep its
    /// promise.
    ///
    /// # Errors
    /// When nothing was taken in that time; says why not.
    pub(crate) fn make_in_time(broker: &str, name: &str, patience: Duration) -> Result<Topic, PerfError> {
        in_time(patience, || make(broker, name))?;
        Topic::find_or_make(broker, name)
    }

    /// Makes a topic with so many queues, as an administrator does.
    ///
    /// # Errors
    /// When the broker does not answer, or refuses.
    pub(crate) fn create(broker: &str, name: &str, queues: u32) -> Result<Topic, PerfError> {
        const READ_AND_WRITE: &str = "6";
        let count = queues.to_string();
        let fields = [
            ("topic", name),
            ("defaultTopic", TEMPLATE_TOPIC),
            ("readQueueNums", count.as_str()),
            ("writeQueueNums", count.as_str()),
            ("perm", READ_AND_WRITE),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        let mut caller = Caller::connect(broker)?;
        caller.call(request::UPDATE_AND_CREATE_TOPIC, &fields, b"")?.ok("making a topic")?;
        Topic::find_or_make(broker, name)
    }

    /// A queue of a broker's topic that it made by itself.
    pub(crate) fn of_one_queue(broker: &str, name: &str) -> Topic {
        Topic { name: name.to_owned(), queues: vec![TopicQueue { broker: broker.to_owned(), id: 0, from: 0 }] }
    }

    /// The next offset of every queue.
    ///
    /// # Errors
    /// When a broker does not answer, or does not know the topic.
    pub(crate) fn ends(&self) -> Result<Vec<u64>, PerfError> {
        bounds(self, request::GET_MAX_OFFSET)
    }

    /// Begins all queues at their ends.
    fn look_at_ends(&mut self) -> Result<(), PerfError> {
        let ends = self.ends()?;
        for (queue, end) in self.queues.iter_mut().zip(ends) {
            queue.from = end;
        }
        Ok(())
    }

    /// Pulls everything that was sent, one request in flight for each queue; says of which queues retention took the beginning. `None` when
    /// it took some just now, so that what was read has a hole: a log may come up with a release that it had only begun.
    ///
    /// # Errors
    /// When a broker does not answer or refuses.
    pub(crate) fn read_back(
        &self,
        payloads: &Payloads,
        acked: u64,
        verifier: &mut Verifier,
    ) -> Result<Option<Vec<bool>>, PerfError> {
        self.visit(acked, |record| verifier.take(payloads, record.body))
    }

    /// The same for whoever wants to know more of a message than its body.
    ///
    /// # Errors
    /// As for [`Topic::read_back`].
    pub(crate) fn visit(
        &self,
        acked: u64,
        mut take: impl FnMut(&message::Record<'_>),
    ) -> Result<Option<Vec<bool>>, PerfError> {
        let from: u64 = self.queues.iter().map(|queue| queue.from).sum();
        let deadline = clock::now_ns() + 3 * SECOND_NS;
        let ends = loop {
            // A broker may index what it acknowledged a moment later.
            let ends = bounds(self, request::GET_MAX_OFFSET)?;
            if ends.iter().sum::<u64>().saturating_sub(from) >= acked || clock::now_ns() > deadline {
                break ends;
            }
            clock::sleep(Duration::from_millis(20));
        };
        let firsts = bounds(self, request::GET_MIN_OFFSET)?;
        let recycled = self.queues.iter().zip(&firsts).map(|(queue, first)| *first > queue.from).collect();
        let mut brokers: Vec<&str> = self.queues.iter().map(|queue| queue.broker.as_str()).collect();
        brokers.dedup();
        for broker in brokers {
            let mut caller = Caller::connect(broker)?;
            let mut asked: BTreeMap<i32, (&TopicQueue, u64, u64)> = BTreeMap::new();
            let bounds = firsts.iter().zip(&ends);
            for (queue, (first, end)) in self.queues.iter().zip(bounds).filter(|(queue, _)| queue.broker == broker) {
                let from = queue.from.max(*first);
                if from < *end {
                    asked.insert(pull(&mut caller, self, queue, from)?, (queue, from, *end));
                }
            }
            while !asked.is_empty() {
                for (opaque, answer) in caller.answers()? {
                    let Some((queue, at, end)) = asked.remove(&opaque) else { continue };
                    let next = match answer.code {
                        response::PULL_NOT_FOUND => end,
                        response::PULL_RETRY_IMMEDIATELY | response::PULL_OFFSET_MOVED => {
                            answer.number("nextBeginOffset")?
                        }
                        _ => {
                            let answer = answer.ok("a pull")?;
                            for record in message::records(&answer.body) {
                                take(&record.map_err(|error| PerfError::Broker(error.to_string()))?);
                            }
                            answer.number("nextBeginOffset")?
                        }
                    };
                    if next > at && next < end {
                        asked.insert(pull(&mut caller, self, queue, next)?, (queue, next, end));
                    }
                }
            }
        }
        let is_whole = bounds(self, request::GET_MIN_OFFSET)? == firsts;
        Ok(is_whole.then_some(recycled))
    }

    /// The same topic after its only broker moved to another address.
    pub(crate) fn moved_to(&self, broker: &str) -> Topic {
        let mut topic = self.clone();
        topic.queues.iter_mut().for_each(|queue| broker.clone_into(&mut queue.broker));
        topic
    }
}

/// Tries until it succeeds; the last error, if it does not in that time.
///
/// # Errors
/// That one.
pub(crate) fn in_time<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, PerfError>,
) -> Result<T, PerfError> {
    const STEP: Duration = Duration::from_millis(20);
    let begun = clock::now_ns();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if u128::from(clock::now_ns() - begun) > patience.as_nanos() => return Err(error),
            Err(_) => clock::sleep(STEP),
        }
    }
}

/// The first or the next offset of every queue, as `code` asks.
fn bounds(topic: &Topic, code: i32) -> Result<Vec<u64>, PerfError> {
    let mut callers: BTreeMap<&str, Caller> = BTreeMap::new();
    let mut bounds = Vec::new();
    for queue in &topic.queues {
        if !callers.contains_key(queue.broker.as_str()) {
            callers.insert(&queue.broker, Caller::connect(&queue.broker)?);
        }
        let Some(caller) = callers.get_mut(queue.broker.as_str()) else { continue };
        let fields = [("topic", topic.name.as_str()), ("queueId", &queue.id.to_string())];
        bounds.push(caller.call(code, &fields, b"")?.ok("asking for a bound of a queue")?.number("offset")?);
    }
    Ok(bounds)
}

/// The queues of a topic; `None` when the name server does not know it.
fn route(caller: &mut Caller, topic: &str) -> Result<Option<Vec<TopicQueue>>, PerfError> {
    let fields = [("topic", topic), ("acceptStandardJsonOnly", "true")];
    let answer = caller.call(request::GET_ROUTEINFO_BY_TOPIC, &fields, b"")?;
    if answer.code == response::TOPIC_NOT_EXIST {
        return Ok(None);
    }
    let answer = answer.ok("asking for a route")?;
    parse_route(&answer.body).map(Some)
}

fn parse_route(body: &[u8]) -> Result<Vec<TopicQueue>, PerfError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Brokers {
        broker_name: String,
        broker_addrs: BTreeMap<String, String>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Queues {
        broker_name: String,
        write_queue_nums: u32,
        perm: u32,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Route {
        broker_datas: Vec<Brokers>,
        queue_datas: Vec<Queues>,
    }
    const WRITABLE: u32 = 2;
    let route: Route = serde_json::from_slice(body)
        .map_err(|error| PerfError::Broker(format!("a route that is not JSON: {error}")))?;
    let mut queues = Vec::new();
    for of_broker in route.queue_datas.iter().filter(|queues| queues.perm & WRITABLE != 0) {
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == of_broker.broker_name);
        let Some(master) = broker.and_then(|broker| broker.broker_addrs.get("0")) else { continue };
        queues.extend((0..of_broker.write_queue_nums).map(|id| TopicQueue { broker: master.clone(), id, from: 0 }));
    }
    if queues.is_empty() {
        return Err(PerfError::Broker("a route without a queue that can be written".to_owned()));
    }
    Ok(queues)
}

/// Makes a topic as clients do: by sending to it.
fn make(broker: &str, topic: &str) -> Result<(), PerfError> {
    let mut caller = Caller::connect(broker)?;
    let (now, properties) = (clock::wall_ms().to_string(), properties("0"));
    let send = Send { topic, queue: "0", sys_flag: "0", born: &now, properties: &properties };
    caller
        .call(request::SEND_MESSAGE_V2, &send.fields(), b"made by anchorlog-perf")?
        .ok("the first message of a topic")?;
    Ok(())
}

pub(crate) fn properties(key: &str) -> String {
    format!("UNIQ_KEY\u{1}{key:0>32}\u{2}WAIT\u{1}true\u{2}")
}

/// What a send says.
#[derive(Clone, Copy)]
pub(crate) struct Send<'a> {
    pub(crate) topic: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) sys_flag: &'a str,
    pub(crate) born: &'a str,
    pub(crate) properties: &'a str,
}

impl<'a> Send<'a> {
    /// Its fields, by the letters that they have on the wire.
    pub(crate) fn fields(&self) -> [(&'static str, &'a str); 12] {
        [
            ("a", GROUP),
            ("b", self.topic),
            ("c", TEMPLATE_TOPIC),
            ("d", QUEUES_WANTED),
            ("e", self.queue),
            ("f", self.sys_flag),
            ("g", self.born),
            ("h", "0"),
            ("i", self.properties),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ]
    }
}

fn pull(caller: &mut Caller, topic: &Topic, queue: &TopicQueue, offset: u64) -> Result<i32, PerfError> {
    const SUBSCRIPTION_IN_REQUEST: &str = "4";
    let fields = [
        ("consumerGroup", GROUP),
        ("topic", &topic.name),
        ("queueId", &queue.id.to_string()),
        ("queueOffset", &offset.to_string()),
        ("maxMsgNums", &PULL_MESSAGES.to_string()),
        ("sysFlag", SUBSCRIPTION_IN_REQUEST),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    caller.ask(request::PULL_MESSAGE, &fields, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_says_which_queues_can_be_written() {
        let body = br#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:10911"},"brokerName":"b0","cluster":"c0"},
            {"brokerAddrs":{"1":"127.0.0.1:10921"},"brokerName":"b1","cluster":"c0"}],"filterServerTable":{},
            "queueDatas":[{"brokerName":"b0","perm":6,"readQueueNums":2,"topicSysFlag":0,"writeQueueNums":2},
            {"brokerName":"b1","perm":6,"readQueueNums":2,"topicSysFlag":0,"writeQueueNums":2}]}"#;
        let queues = parse_route(body).expect("a route");
        assert_eq!(queues.len(), 2, "a broker without a master cannot be written");
        assert_eq!(queues[1], TopicQueue { broker: "127.0.0.1:10911".to_owned(), id: 1, from: 0 });
        assert!(parse_route(b"{}").is_err());
    }
}
