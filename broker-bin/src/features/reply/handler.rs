//! 324 and 325: a reply.

use anchorlog_engine::WriteBatch;

use super::Push;
use crate::features::topics::TopicConfig;
use crate::features::{Outcome, Reply, Request, code, send};
use crate::shared::Shared;
use crate::wire::codes::request as ask;
use crate::wire::message::{VALUE_END, append_property, property};

/// The topic of a cluster's replies.
#[must_use]
pub fn topic(cluster: &str) -> String {
    [cluster, "_REPLY_TOPIC"].concat()
}

/// The names of a reply's fields: code 324 spells them out, 325 uses letters.
const LONG: [&str; 11] = [
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
    "properties",
    "reconsumeTimes",
    "unitMode",
];
const LETTERS: [&str; 11] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];

/// What stands for a field that the replier left out.
const ABSENT: [&str; 11] = ["", "", "", "4", "0", "0", "0", "0", "", "0", "false"];

/// Stores a reply, and says whom it is to be given to.
pub fn reply(shared: &Shared, request: &Request<'_>, batch: &mut WriteBatch) -> Outcome {
    let names = if request.header.code == ask::SEND_REPLY_MESSAGE { &LONG } else { &LETTERS };
    let properties = request.field(names[8]).unwrap_or_default();
    let Some(client_id) = property(properties, "REPLY_TO_CLIENT") else {
        let remark = "the reply does not say whom it is for: it lacks the property REPLY_TO_CLIENT";
        return Reply::failure(code::SYSTEM_ERROR, remark).into();
    };
    if request.field(names[1]) == Some(&topic(&shared.settings.cluster)) {
        // As with the original, one queue; a reply topic that a client named otherwise is made as any other.
        drop(shared.state.get_or_make_topic(&topic(&shared.settings.cluster), TopicConfig::open(1)));
    }
    let mut outcome = send::send(shared, request, batch);
    let Outcome::Append(sending) = &mut outcome else { return outcome };
    let now_ms = shared.engine.clock().wall_ms();
    let mut given = String::with_capacity(properties.len() + 40);
    given.push_str(properties);
    if !given.is_empty() && !given.ends_with(VALUE_END) {
        given.push(VALUE_END);
    }
    append_property(&mut given, "PUSH_REPLY_TIME", &now_ms.to_string());
    let mut fields: Vec<(&'static str, String)> = Vec::with_capacity(LONG.len() + 3);
    for ((long, name), absent) in LONG.iter().zip(names).zip(ABSENT) {
        let value = if *long == "properties" { given.as_str() } else { request.field(name).unwrap_or(absent) };
        fields.push((long, value.to_owned()));
    }
    fields.push(("bornHost", request.peer.to_string()));
    fields.push(("storeHost", shared.settings.advertise.to_string()));
    fields.push(("storeTimestamp", now_ms.to_string()));
    sending.push = Some(Box::new(Push { client_id: client_id.into(), fields, body: request.body.to_vec() }));
    outcome
}
