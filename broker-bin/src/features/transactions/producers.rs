//! Which connections are producers, and of which groups: whom to ask.
//!
//! 1. A connection that has sent a half message of a group, or answered a question about one, is known to decide for it. Clients that only
//!    send plain messages under the same name never answer.
//! 2. Others are asked only while nobody better is known, as after a restart or a promotion, and then all at once. Such questions do not
//!    count (K-91, K-92): who decides may be away. One that never answers is asked no more after as long as all questions take.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whom {
    /// Nobody, perhaps.
    pub to: Vec<ConnectionId>,
    /// They are known to decide: a question to them counts.
    pub decide: bool,
    /// There are producers, none of them has ever answered, and that was not said before.
    pub none_decides: bool,
}

#[derive(Debug, Default)]
struct Producer {
    decides: bool,
    /// When it was asked first, without being known to decide.
    asked: Option<Duration>,
}

#[derive(Debug, Default)]
struct Known {
    by_group: BTreeMap<Box<str>, BTreeMap<ConnectionId, Producer>>,
    groups: HashMap<ConnectionId, Vec<Box<str>>>,
    /// Of which groups it was said that nobody decides.
    said: BTreeSet<Box<str>>,
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

    /// A question was answered by this connection, whatever was said.
    pub fn answered(&self, connection: ConnectionId, group: &str) {
        self.note(connection, group, true);
    }

    fn note(&self, connection: ConnectionId, group: &str, decides: bool) {
        let mut known = lock(&self.0);
        if decides {
            known.said.remove(group);
        }
        if let Some(found) = known.by_group.get_mut(group).and_then(|members| members.get_mut(&connection)) {
            found.decides |= decides;
            return;
        }
        let groups = known.groups.entry(connection).or_default();
        if groups.len() >= limits::GROUPS_PER_CONNECTION_MAX {
            return;
        }
        groups.push(group.into());
        known.by_group.entry(group.into()).or_default().insert(connection, Producer { decides, asked: None });
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

    /// Whom to ask: one of those who are known to decide, each in turn, or else everyone of the group that has not been asked in vain for
    /// as long as `patience`. `now`: of the monotonic clock.
    #[must_use]
    pub fn to_ask(&self, group: &str, now: Duration, patience: Duration) -> Whom {
        let mut known = lock(&self.0);
        known.turn = known.turn.wrapping_add(1);
        let Known { by_group, said, turn, .. } = &mut *known;
        let Some(members) = by_group.get_mut(group) else { return Whom::default() };
        let deciding: Vec<_> = members.iter().filter(|(_, member)| member.decides).map(|(id, _)| *id).collect();
        if !deciding.is_empty() {
            return Whom { to: vec![deciding[*turn % deciding.len()]], decide: true, none_decides: false };
        }
        let may_yet = |(id, member): (&ConnectionId, &mut Producer)| {
            let asked = *member.asked.get_or_insert(now);
            (now < asked + patience).then_some(*id)
        };
        let to: Vec<_> = members.iter_mut().filter_map(may_yet).collect();
        let is_news = to.is_empty() && said.len() < limits::GROUP_COUNT_MAX && said.insert(group.into());
        Whom { to, decide: false, none_decides: is_news }
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

    fn asks(producers: &Producers, seconds: u64) -> Whom {
        producers.to_ask("g", Duration::from_secs(seconds), Duration::from_secs(450))
    }

    #[test]
    fn those_who_sent_half_messages_are_asked_in_turn_and_others_only_without_them() {
        let producers = Producers::default();
        let plain = |ids: &[u32]| Whom { to: ids.iter().copied().map(id).collect(), ..Whom::default() };
        assert_eq!(asks(&producers, 0), plain(&[]));
        producers.beat(id(1), "g");
        producers.beat(id(2), "g");
        assert_eq!(asks(&producers, 0), plain(&[1, 2]), "nobody better is known");
        producers.sent_half(id(2), "g");
        producers.answered(id(3), "g");
        producers.beat(id(3), "g");
        let whom: Vec<_> = (0..4).map(|_| asks(&producers, 0)).collect();
        assert!(whom.iter().all(|whom| whom.decide));
        let mut asked: Vec<_> = whom.into_iter().flat_map(|whom| whom.to).collect();
        asked.sort_unstable();
        assert_eq!(asked, [id(2), id(2), id(3), id(3)]);
        producers.gone(id(3));
        producers.leave(id(2), "g");
        assert_eq!(asks(&producers, 0), plain(&[1]));
        producers.gone(id(1));
        assert!(asks(&producers, 0) == plain(&[]) && lock(&producers.0).by_group.is_empty());
    }

    #[test]
    fn k91_one_that_never_answers_is_asked_no_more_after_long_and_that_is_said_once() {
        let producers = Producers::default();
        producers.beat(id(1), "g");
        assert_eq!(asks(&producers, 100).to, [id(1)]);
        producers.beat(id(2), "g");
        assert_eq!(asks(&producers, 549).to, [id(1), id(2)]);
        assert_eq!(asks(&producers, 550), Whom { to: vec![id(2)], ..Whom::default() });
        assert_eq!(asks(&producers, 999), Whom { none_decides: true, ..Whom::default() });
        assert_eq!(asks(&producers, 1030), Whom::default(), "that was said");
        // One that comes by a new connection may be another program.
        producers.gone(id(1));
        producers.beat(id(3), "g");
        assert_eq!(asks(&producers, 1060), Whom { to: vec![id(3)], ..Whom::default() });
        // However late, an answer is one.
        producers.answered(id(2), "g");
        assert_eq!(asks(&producers, 1090), Whom { to: vec![id(2)], decide: true, none_decides: false });
        producers.gone(id(2));
        assert!(asks(&producers, 2000).none_decides, "and what was said of the group is forgotten");
    }
}
