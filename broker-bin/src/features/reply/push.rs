//! Replies on their way to whoever asked.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::features::{Reply, Request, code};
use crate::net::{ConnectionId, ReplyTo};
use crate::shared::Shared;
use crate::wire::codes::request as ask;
use crate::wire::message::{append_property, property};

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

/// A reply as it is given to whoever asked.
#[derive(Clone, Debug)]
pub struct Push {
    /// Whose it is.
    pub client_id: Box<str>,
    /// The fields of the request that gives it.
    pub fields: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Push {
    /// What is to be given to whoever asked, when this is sent; `None` for what is no reply.
    ///
    /// # Errors
    /// A reply that does not say whom it is for is refused.
    pub fn of(shared: &Shared, request: &Request<'_>) -> Result<Option<Push>, Reply> {
        let names = match request.header.code {
            ask::SEND_REPLY_MESSAGE => &LONG,
            ask::SEND_REPLY_MESSAGE_V2 => &LETTERS,
            _ => return Ok(None),
        };
        let properties = request.field(names[8]).unwrap_or_default();
        let Some(client_id) = property(properties, "REPLY_TO_CLIENT") else {
            let remark = "the reply does not say whom it is for: it lacks the property REPLY_TO_CLIENT";
            return Err(Reply::failure(code::SYSTEM_ERROR, remark));
        };
        let now_ms = shared.engine.clock().wall_ms().to_string();
        let mut given = String::with_capacity(properties.len() + 40);
        given.push_str(properties);
        append_property(&mut given, "PUSH_REPLY_TIME", &now_ms);
        let mut fields: Vec<(&'static str, String)> = Vec::with_capacity(LONG.len() + 3);
        for ((long, name), absent) in LONG.iter().zip(names).zip(ABSENT) {
            let value = if *long == "properties" { given.as_str() } else { request.field(name).unwrap_or(absent) };
            fields.push((long, value.to_owned()));
        }
        fields.push(("bornHost", request.peer.to_string()));
        fields.push(("storeHost", shared.settings.advertise.to_string()));
        fields.push(("storeTimestamp", now_ms));
        Ok(Some(Push { client_id: client_id.into(), fields, body: request.body.to_vec() }))
    }
}

/// A reply that was given, and not taken yet.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    /// Who replied.
    pub to: ReplyTo,
    /// Which reply it is, of that connection's network thread.
    pub number: u64,
    /// Until when the replier waits.
    pub deadline: Duration,
}

/// Replies that were given by one network thread and not taken yet.
#[derive(Debug, Default)]
pub struct Pushes {
    waiting: BTreeMap<(ConnectionId, i32), (Pushed, Duration)>,
}

impl Pushes {
    /// One was given by this connection, as a request of this number.
    pub fn given(&mut self, connection: ConnectionId, opaque: i32, pushed: Pushed, deadline: Duration) {
        self.waiting.insert((connection, opaque), (pushed, deadline));
    }

    /// A client answers a request of this number.
    pub fn taken(&mut self, connection: ConnectionId, opaque: i32) -> Option<Pushed> {
        self.waiting.remove(&(connection, opaque)).map(|(pushed, _)| pushed)
    }

    /// What was given by a connection that is gone.
    pub fn gone(&mut self, connection: ConnectionId) -> Vec<Pushed> {
        let of_it = (connection, i32::MIN)..=(connection, i32::MAX);
        let numbers: Vec<_> = self.waiting.range(of_it).map(|(key, _)| *key).collect();
        numbers.iter().filter_map(|key| self.waiting.remove(key)).map(|(pushed, _)| pushed).collect()
    }

    /// What nobody has answered in time.
    pub fn overdue(&mut self, now: Duration) -> Vec<Pushed> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let late: Vec<_> = self.waiting.iter().filter(|(_, (_, until))| *until <= now).map(|(key, _)| *key).collect();
        late.iter().filter_map(|key| self.waiting.remove(key)).map(|(pushed, _)| pushed).collect()
    }

    /// Whether none is waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
