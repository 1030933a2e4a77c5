//! Which connections are producers, and of which groups: whom to ask.
//!
//! 1. A connection that has sent a half message of a group is known to decide for it. Clients that only send plain messages under the same
//!    name never answer; they are asked only while nobody better is known, as after a restart, and then all at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;

#[derive(Debug, Default)]
struct Known {
    /// True for those who have sent a half message.
    by_group: BTreeMap<Box<str>, BTreeMap<ConnectionId, bool>>,
    groups: HashMap<ConnectionId, Vec<Box<str>>>,
    /// Spreads questions.
    turn: usize,
}

/// All producers. Shared by every network thread and the timer.
#[derive(Debug, Default)]
pub struct Producers(Mutex<Known>);

impl Producers {
    /// A heartbeat names the group.
    pub fn beat(&self, connection: ConnectionId, group: &str) {
        self.note(connection, group, false);
    }

    /// A half message of the group came by this connection.
    pub fn sent_half(&self, connection: ConnectionId, group: &str) {
        self.note(connection, group, true);
    }

    fn note(&self, connection: ConnectionId, group: &str, decides: bool) {
        let mut known = lock(&self.0);
        if let Some(found) = known.by_group.get_mut(group).and_then(|members| members.get_mut(&connection)) {
            *found |= decides;
            return;
        }
        let groups = known.groups.entry(connection).or_default();
        if groups.len() >= limits::GROUPS_PER_CONNECTION_MAX {
            return;
        }
        groups.push(group.into());
        known.by_group.entry(group.into()).or_default().insert(connection, decides);
    }

    /// The client leaves a group.
    pub fn leave(&self, connection: ConnectionId, group: &str) {
        let mut known = lock(&self.0);
        if let Some(groups) = known.groups.get_mut(&connection) {
            groups.retain(|found| **found != *group);
        }
        known.remove(connection, group);
    }

    /// The connection is gone, or silent.
    pub fn gone(&self, connection: ConnectionId) {
        let mut known = lock(&self.0);
        for group in known.groups.remove(&connection).unwrap_or_default() {
            known.remove(connection, &group);
        }
    }

    /// Whom to ask: one of those who are known to decide, each in turn, or else everyone of the group.
    #[must_use]
    pub fn to_ask(&self, group: &str) -> Vec<ConnectionId> {
        let mut known = lock(&self.0);
        known.turn = known.turn.wrapping_add(1);
        let Some(members) = known.by_group.get(group) else { return Vec::new() };
        let deciding: Vec<_> = members.iter().filter(|(_, decides)| **decides).map(|(id, _)| *id).collect();
        match deciding.len() {
            0 => members.keys().copied().collect(),
            count => vec![deciding[known.turn % count]],
        }
    }
}

impl Known {
    fn remove(&mut self, connection: ConnectionId, group: &str) {
        if let Some(members) = self.by_group.get_mut(group) {
            members.remove(&connection);
            if members.is_empty() {
                self.by_group.remove(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId { worker: 0, slot, generation: 0 }
    }

    #[test]
    fn those_who_sent_half_messages_are_asked_in_turn_and_others_only_without_them() {
        let producers = Producers::default();
        assert!(producers.to_ask("g").is_empty());
        producers.beat(id(1), "g");
        producers.beat(id(2), "g");
        assert_eq!(producers.to_ask("g"), [id(1), id(2)], "nobody better is known");
        producers.sent_half(id(2), "g");
        producers.sent_half(id(3), "g");
        producers.beat(id(3), "g");
        let mut asked: Vec<_> = (0..4).flat_map(|_| producers.to_ask("g")).collect();
        asked.sort_unstable();
        assert_eq!(asked, [id(2), id(2), id(3), id(3)]);
        producers.gone(id(3));
        producers.leave(id(2), "g");
        assert_eq!(producers.to_ask("g"), [id(1)]);
        producers.gone(id(1));
        assert!(producers.to_ask("g").is_empty() && lock(&producers.0).by_group.is_empty());
    }
}
