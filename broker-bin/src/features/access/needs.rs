//! What a request needs, by its code. The only file that names them all.
//!
//! | what | needs |
//! |---|---|
//! | send, recall | `PUB` on the topic |
//! | pull, offsets, locks, heartbeats, send-back | `SUB` as the group, and on the topic |
//! | search in a topic, bounds of a queue | `SUB` on the topic; either of both |
//! | routes, transactions' verdicts, replies to those who asked | any account |
//! | everything else, and what is not in this file | an admin |

use std::borrow::Cow;

use crate::features::Request;
use crate::features::reply;
use crate::wire::body::{Heartbeat, LockRequest};
use crate::wire::codes::request as ask;

/// What is done with a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Publish,
    Subscribe,
    /// One of both is enough.
    Either,
}

/// What somebody may need a permission for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing<'a> {
    Topic(&'a str),
    Group(&'a str),
}

/// A permission that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need<'a> {
    pub(super) act: Act,
    is_topic: bool,
    name: Cow<'a, str>,
}

impl<'a> Need<'a> {
    fn topic(act: Act, name: impl Into<Cow<'a, str>>) -> Need<'a> {
        Need { act, is_topic: true, name: name.into() }
    }

    fn group(name: impl Into<Cow<'a, str>>) -> Need<'a> {
        Need { act: Act::Subscribe, is_topic: false, name: name.into() }
    }

    pub(super) fn thing(&self) -> Thing<'_> {
        if self.is_topic { Thing::Topic(&self.name) } else { Thing::Group(&self.name) }
    }
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Needs<'a> {
    /// Any account.
    Account,
    /// These permissions. What a request leaves out that its handler wants is refused there.
    All(Vec<Need<'a>>),
    /// An admin.
    Admin,
}

/// Where clients write what became of their messages: everybody may.
const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";

/// What a request needs; `cluster` is the name of the broker's own.
pub(super) fn needs<'a>(request: &Request<'a>, cluster: &str) -> Needs<'a> {
    let topic = |act, field: &str| request.field(field).map(|name| Need::topic(act, name));
    let group = |field: &str| request.field(field).map(Need::group);
    match request.header.code {
        ask::SEND_MESSAGE => send(request.field("topic")),
        ask::SEND_MESSAGE_V2 | ask::SEND_BATCH_MESSAGE => send(request.field("b")),
        ask::SEND_REPLY_MESSAGE => send_reply(request.field("topic"), cluster),
        ask::SEND_REPLY_MESSAGE_V2 => send_reply(request.field("b"), cluster),
        ask::RECALL_MESSAGE => some([topic(Act::Publish, "topic")]),
        ask::PULL_MESSAGE | ask::LITE_PULL_MESSAGE | ask::QUERY_CONSUMER_OFFSET | ask::UPDATE_CONSUMER_OFFSET => {
            some([topic(Act::Subscribe, "topic"), group("consumerGroup")])
        }
        ask::QUERY_MESSAGE => some([topic(Act::Subscribe, "topic")]),
        ask::SEARCH_OFFSET_BY_TIMESTAMP
        | ask::GET_MAX_OFFSET
        | ask::GET_MIN_OFFSET
        | ask::GET_EARLIEST_MSG_STORETIME => some([topic(Act::Either, "topic")]),
        ask::CONSUMER_SEND_MSG_BACK => some([group("group")]),
        ask::GET_CONSUMER_LIST_BY_GROUP => some([group("consumerGroup")]),
        ask::UNREGISTER_CLIENT => some([group("consumerGroup").filter(|need| !need.name.is_empty())]),
        ask::HEART_BEAT => heartbeat(request.body),
        ask::LOCK_BATCH_MQ | ask::UNLOCK_BATCH_MQ => locks(request.body),
        // What is read or decided by them is asked of the pass, where it is known.
        ask::VIEW_MESSAGE_BY_ID | ask::END_TRANSACTION | ask::CHECK_CLIENT_CONFIG => Needs::Account,
        // Whoever is let in may know where its queues are.
        ask::GET_ROUTEINFO_BY_TOPIC | ask::GET_BROKER_CLUSTER_INFO | ask::GET_KV_CONFIG => Needs::Account,
        // Not offered: everybody hears that.
        ask::QUERY_ASSIGNMENT
        | ask::SET_MESSAGE_REQUEST_MODE
        | ask::POP_MESSAGE
        | ask::ACK_MESSAGE
        | ask::CHANGE_MESSAGE_INVISIBLETIME => Needs::Account,
        _ => Needs::Admin,
    }
}

fn some<const N: usize>(needs: [Option<Need<'_>>; N]) -> Needs<'_> {
    Needs::All(needs.into_iter().flatten().collect())
}

fn send(topic: Option<&str>) -> Needs<'_> {
    match topic {
        Some(TRACE_TOPIC) => Needs::Account,
        topic => some([topic.map(|topic| Need::topic(Act::Publish, topic))]),
    }
}

/// A reply goes to whoever asked; its topic is the cluster's, and nobody's.
fn send_reply<'a>(topic: Option<&'a str>, cluster: &str) -> Needs<'a> {
    match topic {
        Some(topic) if topic == reply::topic(cluster) => Needs::Account,
        topic => send(topic),
    }
}

fn heartbeat(body: &[u8]) -> Needs<'static> {
    // One that cannot be read is refused by its handler.
    let Ok(heartbeat) = Heartbeat::decode(body) else { return Needs::Account };
    let mut needs = Vec::new();
    for consumer in heartbeat.consumers {
        needs.extend(consumer.subscriptions.into_iter().map(|held| Need::topic(Act::Subscribe, held.topic)));
        needs.push(Need::group(consumer.group));
    }
    Needs::All(needs)
}

fn locks(body: &[u8]) -> Needs<'static> {
    match LockRequest::decode(body) {
        Ok(asked) => Needs::All(vec![Need::group(asked.group)]),
        Err(_) => Needs::Account,
    }
}
