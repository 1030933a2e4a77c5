//! Replies on their way to whoever asked.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::net::{ConnectionId, ReplyTo};

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
