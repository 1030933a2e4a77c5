//! Topics, groups, offsets and locks in memory, and their way into the log.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anchorlog_engine::{AppendError, Engine, Epoch, Lsn, Put, WriteBatch};

use super::changes::{Changes, Key, Taken, Which};
use super::entries::{account, group, lock as lock_entry, offset, topic};
use super::open::{self, StateError};
use crate::features::access::{Account, Accounts, Addresses};
use crate::features::groups::{Change, GroupConfig, Groups};
use crate::features::offsets::{Commit, OffsetKey, Offsets, Pins, Positions};
use crate::features::order::{Asker, Locks};
use crate::features::topics::{Topic, TopicConfig, Topics};
use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;

/// Why changes are not in the log yet. They stay noted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The log buffer is full: try again when the written watermark has moved.
    #[error("the log buffer is full")]
    Full,
    /// The log does not take them.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What of the changes the log has now.
#[derive(Debug)]
#[must_use]
pub struct Flushed {
    /// Topics and groups: why not all that were noted before stand before [`Flushed::end_lsn`].
    pub names: Result<(), FlushError>,
    /// Offsets and locks: the same. They are let in where a full disk keeps other things out.
    pub offsets: Result<(), FlushError>,
    /// End of the last batch.
    pub end_lsn: Lsn,
}

impl Flushed {
    /// The end, when all is in the log.
    ///
    /// # Errors
    /// What keeps some of it out.
    pub fn whole(self) -> Result<Lsn, FlushError> {
        self.names.and(self.offsets).map(|()| self.end_lsn)
    }
}

/// What orders the writes.
#[derive(Debug, Default)]
struct Tail {
    /// End of the last batch.
    end_lsn: Lsn,
    batch: WriteBatch,
}

/// Topics, groups, offsets and locks, and what of them the log does not know yet.
#[derive(Debug, Default)]
pub struct State {
    /// The topics.
    pub topics: Topics,
    /// The groups.
    pub groups: Groups,
    /// The committed offsets.
    pub offsets: Offsets,
    /// Who may do what.
    pub accounts: Accounts,
    /// Which queues are locked for whom.
    pub locks: Locks,
    /// Which places in queues are of this log.
    pub positions: Positions,
    changes: Changes,
    tail: Mutex<Tail>,
    /// Somebody else writes: what memory shows is what the table says, and nothing is noted.
    follows: AtomicBool,
}

impl State {
    /// Reads the state back from the log, or begins one in a log that holds nothing.
    ///
    /// # Errors
    /// When the log holds no state of this version, or not all of it; nothing is started from half a state.
    pub fn open(engine: &Engine) -> Result<State, StateError> {
        open::open(engine)
    }

    /// Nothing yet, for a log in this epoch.
    pub(super) fn new(epoch: Epoch) -> State {
        State { locks: Locks::new(epoch), ..State::default() }
    }

    /// Reads the state of a log that somebody else writes. It may hold nothing yet.
    ///
    /// # Errors
    /// When the log holds a state that this version does not know.
    pub fn follow(engine: &Engine) -> Result<State, StateError> {
        let state = State { follows: AtomicBool::new(true), ..State::new(engine.info().epoch) };
        state.refresh(engine)?;
        Ok(state)
    }

    fn follows(&self) -> bool {
        self.follows.load(Ordering::Acquire)
    }

    /// From now on this is who writes. All that the log says is in the table by now.
    ///
    /// # Errors
    /// As for [`State::open`]; it goes on following then.
    pub fn take_over(&self, engine: &Engine) -> Result<(), StateError> {
        open::take_over(engine, self)?;
        self.follows.store(false, Ordering::Release);
        Ok(())
    }

    /// Shows what the table says now, all of it as of one LSN.
    ///
    /// # Errors
    /// What cannot be read stays as it was.
    pub fn refresh(&self, engine: &Engine) -> Result<(), StateError> {
        open::refresh(engine, self)
    }

    /// Sets a topic. [`State::flush`] before anything is appended to it.
    pub fn put_topic(&self, name: &str, config: TopicConfig) {
        if self.follows() {
            return;
        }
        self.changes.urgently(Key::Topic(name.into()), || (self.topics.put(name, config), ()));
    }

    /// The topic, made with `config` when it is missing; `None` when there are too many.
    pub fn get_or_make_topic(&self, name: &str, config: TopicConfig) -> Option<Arc<Topic>> {
        if let Some(topic) = self.topics.get(name) {
            return Some(topic);
        }
        if self.follows() || self.topics.count() >= limits::TOPIC_COUNT_MAX {
            return None;
        }
        Some(self.changes.urgently(Key::Topic(name.into()), || {
            let (topic, made) = self.topics.get_or_put(name, config);
            (made, topic)
        }))
    }

    /// Forgets a topic whose queues were dropped, and what groups have committed of it; says how many offsets that were.
    pub fn remove_topic(&self, engine: &Engine, topic: &Topic) -> usize {
        if self.follows() {
            return 0;
        }
        self.changes.urgently(Key::Topic(topic.name.clone()), || (self.topics.remove(&topic.name), ()));
        Pins::unpin_own(engine, topic);
        self.positions.forget_topic(&topic.name);
        self.groups.forget_topic(&topic.name);
        self.remove_offsets(engine, |key| key.topic == topic.name, |_| Some(topic))
    }

    /// Forgets a group; `with_offsets`: and what it has committed. Says how many offsets that were.
    pub fn remove_group(&self, engine: &Engine, name: &str, with_offsets: bool) -> usize {
        if self.follows() {
            return 0;
        }
        self.changes.urgently(Key::Group(name.into()), || (self.groups.remove(name), ()));
        if with_offsets { self.remove_offsets(engine, |key| *key.group == *name, |_| None) } else { 0 }
    }

    /// Forgets offsets, and lets go of what they keep. `topic_of`: the topic, where it is not the one of that name.
    fn remove_offsets<'a>(
        &self,
        engine: &Engine,
        meant: impl Fn(&OffsetKey) -> bool,
        topic_of: impl Fn(&OffsetKey) -> Option<&'a Topic>,
    ) -> usize {
        let keys = self.offsets.keys(meant);
        for key in &keys {
            self.changes.urgently(Key::Offset(key.clone()), || (self.offsets.remove(key), ()));
            match topic_of(key) {
                Some(topic) => Pins::unpin(engine, topic, key),
                None => {
                    if let Some(topic) = self.topics.get(&key.topic) {
                        Pins::unpin(engine, &topic, key);
                    }
                }
            }
        }
        keys.len()
    }

    /// Sets a group.
    pub fn put_group(&self, name: &str, config: GroupConfig) {
        if self.follows() {
            // Its members can be known here all the same.
            self.groups.put(name, config);
            return;
        }
        self.changes.urgently(Key::Group(name.into()), || (self.groups.put(name, config), ()));
    }

    /// Sets an account, which must be a good one.
    pub fn put_account(&self, name: &str, account: Account) {
        if !self.follows() {
            self.changes.urgently(Key::Account(name.into()), || (self.accounts.put(name, account), ()));
        }
    }

    /// Forgets an account.
    pub fn remove_account(&self, name: &str) {
        if !self.follows() {
            self.changes.urgently(Key::Account(name.into()), || (self.accounts.remove(name), ()));
        }
    }

    /// Sets the addresses from which nobody need sign; true when that changed something.
    pub fn set_trusted(&self, trusted: Vec<Addresses>) -> bool {
        if self.follows() {
            return false;
        }
        self.changes.urgently(Key::Trusted, || {
            let changed = self.accounts.set_trusted(trusted);
            (changed, changed)
        })
    }

    /// Sets an offset; `awaited` when an answer waits for it to be durable.
    pub fn commit_offset(&self, key: &OffsetKey, offset: u64, awaited: bool) -> Commit {
        if self.follows() {
            return Commit::Unchanged;
        }
        let commit = || {
            let commit = self.offsets.commit(key, offset);
            (commit == Commit::Changed, commit)
        };
        if awaited {
            return self.changes.urgently(Key::Offset(key.clone()), commit);
        }
        // Clients repeat themselves every few seconds. Whoever brought the value has noted it.
        if self.offsets.get(key) == Some(offset) {
            return Commit::Unchanged;
        }
        self.changes.lazily(Key::Offset(key.clone()), commit)
    }

    /// Sets where a group begins a queue; an answer waits for it to be durable. False when something stands there already.
    pub fn begin_offset(&self, key: &OffsetKey, offset: u64) -> bool {
        if self.follows() {
            return false;
        }
        self.changes.urgently(Key::Offset(key.clone()), || {
            let begun = self.offsets.begin(key, offset);
            (begun, begun)
        })
    }

    /// Locks a queue that was free; false when somebody else was faster.
    #[must_use]
    pub fn take_lock(&self, key: &OffsetKey, asker: &Asker<'_>) -> bool {
        self.changes.urgently(Key::Lock(key.clone()), || {
            let taken = self.locks.take(key, asker);
            (taken, taken)
        })
    }

    /// A client gives a queue back.
    pub fn give_up_lock(&self, key: &OffsetKey, client_id: &str) {
        self.changes.urgently(Key::Lock(key.clone()), || (self.locks.give_up(key, client_id, None), ()));
    }

    /// A connection that is cut leaves a group. What is locked for its client is its own until the client counts on it no more.
    pub fn cut_off(&self, connection: ConnectionId, group: &str) -> Change {
        let Some((client_id, change)) = self.groups.leave(connection, group) else { return Change::default() };
        self.locks.cut(group, &client_id);
        change
    }

    /// A client says that it leaves a group, and with it what is locked for it.
    ///
    /// Nobody waits for that to be written: a lock that comes back after a crash only lasts longer than it had to.
    pub fn leave_group(&self, connection: ConnectionId, group: &str) -> Change {
        let Some((client_id, change)) = self.groups.leave(connection, group) else { return Change::default() };
        for key in self.locks.of_client(group, &client_id) {
            let give_up = || (self.locks.give_up(&key, &client_id, Some(connection)), ());
            self.changes.lazily(Key::Lock(key.clone()), give_up);
        }
        change
    }

    /// Ends locks that nobody asked for in time; says in which groups.
    #[must_use]
    pub fn expire_locks(&self, now: Duration) -> BTreeSet<Box<str>> {
        let expire = |key: OffsetKey| {
            let expired = self.changes.lazily(Key::Lock(key.clone()), || {
                let expired = self.locks.expire(&key, now);
                (expired, expired)
            });
            expired.then_some(key.group)
        };
        self.locks.too_old(now).into_iter().filter_map(expire).collect()
    }

    /// Appends what somebody waits for, if there is any. Afterwards everything noted before the call stands before the
    /// LSN returned, but for what could not be appended: that stays noted.
    pub fn flush(&self, engine: &Engine) -> Flushed {
        self.flush_some(engine, Which::Urgent)
    }

    /// True when [`State::flush`] has something to do.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.changes.is_urgent()
    }

    /// Appends every change noted.
    ///
    /// # Errors
    /// The changes stay noted.
    pub fn flush_all(&self, engine: &Engine) -> Result<Lsn, FlushError> {
        self.flush_some(engine, Which::All).whole()
    }

    fn flush_some(&self, engine: &Engine, which: Which) -> Flushed {
        let mut tail = lock(&self.tail);
        if which == Which::Urgent && !self.is_urgent() {
            return Flushed { names: Ok(()), offsets: Ok(()), end_lsn: tail.end_lsn };
        }
        let taken = self.changes.take(which);
        let (names, offsets) = split(&taken);
        // What keeps new topics out of the log, like a full disk, need not keep offsets out.
        let names = self.append_each(engine, &mut tail, names);
        let offsets = self.append_each(engine, &mut tail, offsets);
        if names.is_ok() && offsets.is_ok() {
            self.changes.written(&taken);
        }
        Flushed { names, offsets, end_lsn: tail.end_lsn }
    }

    fn append_each(&self, engine: &Engine, tail: &mut Tail, keys: &[Key]) -> Result<(), FlushError> {
        let mut left = keys;
        while !left.is_empty() {
            match self.append_some(engine, tail, left) {
                Ok(count) => left = &left[count..],
                Err(error) => {
                    self.changes.put_back(left.iter().cloned());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Appends one batch for the first keys; says for how many.
    fn append_some(&self, engine: &Engine, tail: &mut Tail, keys: &[Key]) -> Result<usize, FlushError> {
        tail.batch.clear();
        let mut count = 0;
        for key in keys {
            if tail.batch.frame_bytes() >= limits::STATE_BATCH_BYTES {
                break;
            }
            count += 1;
            let entry = match key {
                Key::Topic(name) => self.topics.get(name).map(|topic| topic::encode(name, &topic.config)),
                Key::Group(name) => self.groups.config(name).map(|config| group::encode(name, &config)),
                Key::Account(name) => self.accounts.get(name).map(|found| account::encode(name, &found)),
                Key::Trusted => {
                    let trusted = Some(self.accounts.trusted()).filter(|trusted| !trusted.is_empty());
                    trusted.map(|trusted| (account::TRUSTED.to_vec(), account::encode_trusted(&trusted)))
                }
                Key::Offset(key) => self.offsets.get(key).map(|offset| offset::encode(key, offset)),
                Key::Lock(key) => self.locks.get(key).map(|found| lock_entry::encode(key, &found)),
            };
            // What memory does not have any more goes from the table.
            let changed = match entry {
                Some((key, value)) => tail.batch.put(&Put { key: &key, value: &value, target: None }),
                None => tail.batch.delete(&match key {
                    Key::Topic(name) => topic::encode_key(name),
                    Key::Group(name) => group::encode_key(name),
                    Key::Account(name) => account::encode_key(name),
                    Key::Trusted => account::TRUSTED.to_vec(),
                    Key::Offset(key) => offset::encode_key(key),
                    Key::Lock(key) => lock_entry::encode_key(key),
                }),
            };
            changed.expect("names are bounded by limits, and so is the batch");
        }
        if tail.batch.is_empty() {
            return Ok(count);
        }
        // Consumers go on when the disk is full.
        tail.batch.set_essential(!keys[0].is_name());
        let mut outcomes = Vec::with_capacity(1);
        if engine.append_all(std::slice::from_mut(&mut tail.batch), &mut outcomes)? == 0 {
            return Err(FlushError::Full);
        }
        tail.end_lsn = outcomes[0].end_lsn;
        Ok(count)
    }

    /// Moves offsets beyond the end of their queue back to it; flush them before anything else is appended.
    ///
    /// The messages that such an offset speaks of are lost with the tail of an asynchronous log, or never were. What is sent next gets
    /// their offsets, and must not be skipped: not now, and not after the next crash either, when the queue may have grown past them.
    ///
    /// Says whether there were any.
    pub(super) fn clamp_offsets(
        &self,
        end_of: impl Fn(&OffsetKey) -> Result<u64, AppendError>,
    ) -> Result<bool, AppendError> {
        let mut moved = Vec::new();
        let mut outcome = Ok(());
        self.offsets.for_each_mut(|key, offset| match end_of(key) {
            Ok(end) if *offset > end => {
                tracing::warn!(
                    group = &*key.group,
                    topic = &*key.topic,
                    queue = key.queue,
                    committed = *offset,
                    end,
                    "a committed offset lies beyond the queue's end, whose tail was lost; moved back to the end"
                );
                *offset = end;
                moved.push(Key::Offset(key.clone()));
            }
            Ok(_) => {}
            Err(error) => outcome = Err(error),
        });
        outcome?;
        let any = !moved.is_empty();
        self.changes.put_back(moved);
        Ok(any)
    }
}

/// Names of things, and what consumers go on by.
fn split(taken: &Taken) -> (&[Key], &[Key]) {
    taken.keys.split_at(taken.keys.partition_point(Key::is_name))
}
