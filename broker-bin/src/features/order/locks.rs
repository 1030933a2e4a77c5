//! The lease machine: who has which queue, until when.
//!
//! 1. A lock that is too old is as good as none; its former owner may have it again as anybody else may.
//! 2. Tokens only grow: the log's epoch comes first in them, and it grows with every opening.
//!
//! It knows nothing of the log. [`crate::state::State`] notes what changes, and writes it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;
use std::time::Duration;

use anchorlog_engine::Epoch;

use crate::features::offsets::OffsetKey;
use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;

/// Tells owners apart that came one after the other. A later one is higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// The log's, when the queue was locked.
    pub epoch: Epoch,
    /// Counts locks within it.
    pub count: u64,
}

/// A lock as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Whose it is.
    pub client_id: Box<str>,
    /// Since which change of owner.
    pub token: Token,
}

/// Whose a queue is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The client.
    pub client_id: Box<str>,
    /// By which connection it asked last; `None` when it has not since the log was opened.
    pub by: Option<ConnectionId>,
}

/// Who asks for a lock, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The client.
    pub client_id: &'a str,
    /// The connection by which it asks.
    pub connection: ConnectionId,
    /// Time of the monotonic clock.
    pub now: Duration,
}

/// What becomes of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It was the client's already, and is for longer now.
    Renewed,
    /// It can be had.
    Free,
    /// Somebody else has it.
    Taken,
}

#[derive(Debug)]
struct Lease {
    lock: Lock,
    /// When the owner asked last, or when it was read back.
    asked: Duration,
    /// Its owner is connected no more, and may count on it for as long as it would by itself.
    is_cut: bool,
    /// By which connection the owner came last; `None` for what was read back.
    by: Option<ConnectionId>,
}

impl Lease {
    fn until(&self) -> Duration {
        self.asked + if self.is_cut { limits::LOCK_TRUSTED } else { limits::LOCK_LEASE }
    }
}

#[derive(Debug, Default)]
struct Held {
    /// Sorted by group, so that one group's lie side by side.
    by_key: BTreeMap<OffsetKey, Lease>,
    count: u64,
    /// No lock is too old before this.
    earliest: Option<Duration>,
}

/// All locks. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Locks {
    epoch: Epoch,
    held: Mutex<Held>,
}

impl Locks {
    /// No locks yet. `epoch`: the log's since it was opened.
    #[must_use]
    pub fn new(epoch: Epoch) -> Locks {
        Locks { epoch, held: Mutex::default() }
    }

    /// The lock, however old.
    #[must_use]
    pub fn get(&self, key: &OffsetKey) -> Option<Lock> {
        lock(&self.held).by_key.get(key).map(|lease| lease.lock.clone())
    }

    /// For whom the queue is locked now.
    #[must_use]
    pub fn owner(&self, key: &OffsetKey, now: Duration) -> Option<Owner> {
        let held = lock(&self.held);
        let lease = held.by_key.get(key).filter(|lease| lease.until() > now)?;
        Some(Owner { client_id: lease.lock.client_id.clone(), by: lease.by })
    }

    /// Renews the client's own lock; says of others whether they can be had.
    pub fn ask(&self, key: &OffsetKey, asker: &Asker<'_>) -> Asked {
        match lock(&self.held).by_key.get_mut(key) {
            Some(lease) if lease.until() <= asker.now => Asked::Free,
            Some(lease) if *lease.lock.client_id == *asker.client_id => {
                lease.asked = asker.now;
                lease.is_cut = false;
                lease.by = Some(asker.connection);
                Asked::Renewed
            }
            Some(_) => Asked::Taken,
            None => Asked::Free,
        }
    }

    /// Locks a queue for a client under a new token. False when it cannot be had any more, or when there are too many locks.
    pub fn take(&self, key: &OffsetKey, asker: &Asker<'_>) -> bool {
        let mut held = lock(&self.held);
        match held.by_key.get(key) {
            Some(lease) if lease.until() > asker.now => return false,
            None if held.by_key.len() >= limits::LOCK_COUNT_MAX => return false,
            _ => {}
        }
        held.count += 1;
        let token = Token { epoch: self.epoch, count: held.count };
        let taken = Lock { client_id: asker.client_id.into(), token };
        held.put(key, Lease { lock: taken, asked: asker.now, is_cut: false, by: Some(asker.connection) });
        true
    }

    /// Takes over what the log has: as good as just renewed. False when there are too many.
    pub fn restore(&self, key: &OffsetKey, found: Lock, now: Duration) -> bool {
        let mut held = lock(&self.held);
        if held.by_key.len() >= limits::LOCK_COUNT_MAX {
            return false;
        }
        held.put(key, Lease { lock: found, asked: now, is_cut: false, by: None });
        true
    }

    /// Ends a lock of this client. `by`: only if the owner has not come by another connection since.
    pub fn give_up(&self, key: &OffsetKey, client_id: &str, by: Option<ConnectionId>) -> bool {
        lock(&self.held).remove_if(key, |lease| {
            let stayed = by.is_some() && lease.by.is_some() && by != lease.by;
            *lease.lock.client_id == *client_id && !stayed
        })
    }

    /// A client is connected no more: its locks in the group last as long as it counts on them, and longer if it comes back and asks.
    pub fn cut(&self, group: &str, client_id: &str) {
        let mut held = lock(&self.held);
        let mut earliest = held.earliest;
        let first = OffsetKey { group: group.into(), topic: Box::default(), queue: 0 };
        let of_group = held.by_key.range_mut(first..).take_while(|(key, _)| *key.group == *group);
        for (_, lease) in of_group.filter(|(_, lease)| *lease.lock.client_id == *client_id) {
            lease.is_cut = true;
            earliest = Some(earliest.map_or(lease.until(), |earliest| earliest.min(lease.until())));
        }
        held.earliest = earliest;
    }

    /// What is locked for a client in a group.
    #[must_use]
    pub fn of_client(&self, group: &str, client_id: &str) -> Vec<OffsetKey> {
        let first = OffsetKey { group: group.into(), topic: Box::default(), queue: 0 };
        let held = lock(&self.held);
        let of_group = held.by_key.range(first..).take_while(|(key, _)| *key.group == *group);
        of_group.filter(|(_, lease)| *lease.lock.client_id == *client_id).map(|(key, _)| key.clone()).collect()
    }

    /// Locks that are too old.
    #[must_use]
    pub fn too_old(&self, now: Duration) -> Vec<OffsetKey> {
        let mut held = lock(&self.held);
        if held.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let (old, alive): (Vec<_>, Vec<_>) = held.by_key.iter().partition(|(_, lease)| lease.until() <= now);
        let old = old.into_iter().map(|(key, _)| key.clone()).collect();
        held.earliest = alive.into_iter().map(|(_, lease)| lease.until()).min();
        old
    }

    /// Ends a lock that is too old.
    pub fn expire(&self, key: &OffsetKey, now: Duration) -> bool {
        lock(&self.held).remove_if(key, |lease| lease.until() <= now)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.held).by_key.len()
    }
}

impl Held {
    fn put(&mut self, key: &OffsetKey, lease: Lease) {
        let until = lease.until();
        self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
        self.by_key.insert(key.clone(), lease);
    }

    fn remove_if(&mut self, key: &OffsetKey, wanted: impl Fn(&Lease) -> bool) -> bool {
        match self.by_key.entry(key.clone()) {
            Entry::Occupied(found) if wanted(found.get()) => {
                found.remove();
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch { term: 1, run: 2 };

    fn key(group: &str, queue: u32) -> OffsetKey {
        OffsetKey { group: group.into(), topic: "T".into(), queue }
    }

    fn by(slot: u32) -> ConnectionId {
        ConnectionId { worker: 0, slot, generation: 0 }
    }

    fn asker(client_id: &str, connection: u32, seconds: u64) -> Asker<'_> {
        Asker { client_id, connection: by(connection), now: Duration::from_secs(seconds) }
    }

    #[test]
    fn k70_a_queue_is_one_clients_until_60_s_after_it_asked_last() {
        let locks = Locks::new(EPOCH);
        let queue = key("g", 0);
        assert_eq!(locks.ask(&queue, &asker("a", 1, 0)), Asked::Free);
        assert!(locks.take(&queue, &asker("a", 1, 0)));
        assert_eq!(locks.ask(&queue, &asker("b", 2, 10)), Asked::Taken);
        assert!(!locks.take(&queue, &asker("b", 2, 10)));
        assert_eq!(locks.ask(&queue, &asker("a", 1, 50)), Asked::Renewed);
        assert_eq!(locks.ask(&queue, &asker("b", 2, 109)), Asked::Taken);
        let owner = |locks: &Locks, seconds| locks.owner(&queue, Duration::from_secs(seconds));
        assert_eq!(owner(&locks, 109), Some(Owner { client_id: "a".into(), by: Some(by(1)) }));
        assert_eq!(owner(&locks, 110), None);
        // Nobody came: even its own owner has to take it anew, and others may be faster.
        assert_eq!(locks.ask(&queue, &asker("a", 1, 110)), Asked::Free);
        assert!(locks.take(&queue, &asker("b", 2, 110)) && !locks.take(&queue, &asker("a", 1, 110)));
        assert_eq!(owner(&locks, 110), Some(Owner { client_id: "b".into(), by: Some(by(2)) }));
    }

    #[test]
    fn every_group_and_queue_is_by_itself() {
        let locks = Locks::new(EPOCH);
        for (group, queue, client) in [("g", 0, "a"), ("g", 1, "b"), ("h", 0, "b"), ("g", 2, "a"), ("f", 0, "a")] {
            assert!(locks.take(&key(group, queue), &asker(client, 1, 0)));
        }
        assert_eq!(locks.of_client("g", "a"), [key("g", 0), key("g", 2)]);
        assert_eq!(locks.of_client("h", "a"), []);
        assert!(!locks.give_up(&key("g", 1), "a", None), "it is not its own");
        assert!(locks.give_up(&key("g", 0), "a", None) && locks.get(&key("g", 0)).is_none());
        assert_eq!(locks.count(), 4);
    }

    #[test]
    fn tokens_grow_with_every_change_of_owner_and_with_no_renewal() {
        let locks = Locks::new(EPOCH);
        let (queue, token) = (key("g", 0), |locks: &Locks| locks.get(&key("g", 0)).expect("a lock").token);
        locks.take(&queue, &asker("a", 1, 0));
        let first = token(&locks);
        locks.ask(&queue, &asker("a", 1, 20));
        assert_eq!(token(&locks), first);
        locks.give_up(&queue, "a", None);
        locks.take(&queue, &asker("b", 2, 21));
        let second = token(&locks);
        assert!(second > first);
        // The next opening begins to count anew, in a higher epoch.
        for epoch in [Epoch { run: 3, ..EPOCH }, Epoch { term: 2, run: 1 }] {
            let next = Locks::new(epoch);
            assert!(next.restore(&queue, locks.get(&queue).expect("a lock"), Duration::ZERO));
            assert_eq!(token(&next), second, "the owner is the same");
            next.take(&queue, &asker("c", 3, 60));
            assert!(token(&next) > second);
        }
    }

    #[test]
    fn k70_what_was_read_back_counts_as_just_renewed() {
        let locks = Locks::new(EPOCH);
        let found = Lock { client_id: "a".into(), token: Token::default() };
        assert!(locks.restore(&key("g", 0), found, Duration::from_secs(100)));
        assert_eq!(locks.ask(&key("g", 0), &asker("b", 2, 159)), Asked::Taken);
        assert_eq!(locks.ask(&key("g", 0), &asker("b", 2, 160)), Asked::Free);
        // Its owner is known to come by no other connection than the one that leaves.
        assert!(locks.give_up(&key("g", 0), "a", Some(by(1))));
    }

    #[test]
    fn a_connection_that_leaves_ends_no_lock_that_was_asked_for_by_another_since() {
        let locks = Locks::new(EPOCH);
        locks.take(&key("g", 0), &asker("a", 1, 0));
        locks.ask(&key("g", 0), &asker("a", 2, 20));
        assert!(!locks.give_up(&key("g", 0), "a", Some(by(1))));
        assert!(locks.give_up(&key("g", 0), "a", Some(by(2))));
    }

    #[test]
    fn k70_a_lock_whose_owner_was_cut_off_lasts_as_long_as_the_owner_counts_on_it() {
        let locks = Locks::new(EPOCH);
        for (group, queue, client) in [("g", 0, "a"), ("g", 1, "b"), ("h", 0, "a")] {
            locks.take(&key(group, queue), &asker(client, 1, 0));
        }
        locks.ask(&key("g", 0), &asker("a", 1, 20));
        // Twice is once.
        locks.cut("g", "a");
        locks.cut("g", "a");
        let seconds = Duration::from_secs;
        assert_eq!(locks.ask(&key("g", 0), &asker("b", 1, 52)), Asked::Taken);
        assert_eq!(locks.too_old(seconds(52)), []);
        assert_eq!(locks.too_old(seconds(53)), [key("g", 0)]);
        assert_eq!(locks.ask(&key("g", 0), &asker("b", 1, 53)), Asked::Free);
        assert_eq!(locks.ask(&key("g", 1), &asker("c", 1, 59)), Asked::Taken, "another's");
        assert_eq!(locks.ask(&key("h", 0), &asker("c", 1, 59)), Asked::Taken, "another group's");
        // Who comes back has it as before.
        assert_eq!(locks.ask(&key("g", 0), &asker("a", 2, 52)), Asked::Renewed);
        assert_eq!(locks.ask(&key("g", 0), &asker("b", 1, 111)), Asked::Taken);
        assert_eq!(locks.ask(&key("g", 0), &asker("b", 1, 112)), Asked::Free);
        // One that was asked for too long ago to be counted on is free at once.
        locks.cut("g", "b");
        assert_eq!(locks.too_old(seconds(59)), [key("g", 1)]);
    }

    #[test]
    fn those_that_are_too_old_are_found_and_a_renewed_one_is_not() {
        let locks = Locks::new(EPOCH);
        let seconds = Duration::from_secs;
        assert_eq!(locks.too_old(seconds(1000)), []);
        locks.take(&key("g", 0), &asker("a", 1, 0));
        locks.take(&key("g", 1), &asker("a", 1, 10));
        locks.ask(&key("g", 1), &asker("a", 1, 50));
        assert_eq!(locks.too_old(seconds(59)), []);
        assert_eq!(locks.too_old(seconds(60)), [key("g", 0)]);
        assert!(locks.expire(&key("g", 0), seconds(60)) && !locks.expire(&key("g", 1), seconds(60)));
        assert_eq!(locks.too_old(seconds(109)), []);
        assert_eq!(locks.too_old(seconds(110)), [key("g", 1)]);
    }
}
