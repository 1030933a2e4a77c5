//! Reading the state back, and which stores are refused.

use std::collections::BTreeSet;

use anchorlog_engine::{AppendError, Engine, Lsn, Put, ReadError, Snapshot, WaitError, WriteBatch};
use anchorlog_replicator::member::NAMESPACE;

use super::entries::{self, BadEntry, account, format, group, lock, offset, topic};
use super::tables::{FlushError, State};
use crate::features::offsets::Commit;
use crate::features::topics::{TEMPLATE, queue_name};
use crate::limits;

/// Where brokers before format 1 kept their state: messages of this queue. No topic's name begins with this byte.
pub(super) const SYSTEM_QUEUE: &[u8] = b"\x01journal";

/// Why a store cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A broker that kept its state elsewhere wrote the store.
    #[error(
        "{dir} was written by an older version of the broker, which kept topics, groups and offsets in a system queue; this version \
         keeps them in the table and does not convert them. Open the store with the version that wrote it, or start with a new directory"
    )]
    Older {
        /// The store.
        dir: String,
    },
    /// A broker of a later version wrote the store.
    #[error(
        "{dir} was written by a newer version of the broker: its topics, groups and offsets have format {found}, this version knows \
         format {known}. Open the store with the version that wrote it, or start with a new directory"
    )]
    Newer {
        /// The store.
        dir: String,
        /// What the store says.
        found: u32,
        /// What this version reads.
        known: u32,
    },
    /// The log holds something, and not the entry that every broker's store begins with.
    #[error(
        "{dir} holds {holds}, but not the table entry meta/format with which every broker's store begins: its topics, groups and \
         offsets are missing, or it is no broker's store. Restore it from a copy, or start with a new directory"
    )]
    Missing {
        /// The store.
        dir: String,
        /// What shows that it is not a new one.
        holds: String,
    },
    /// An entry is there and cannot be understood.
    #[error("the table entry {key} at LSN {lsn}: {source}; open the store with the version that wrote it", key = key.escape_ascii())]
    Bad {
        /// Its key.
        key: Vec<u8>,
        /// Where it stands.
        lsn: Lsn,
        /// What is wrong.
        source: BadEntry,
    },
    /// The table cannot be read.
    #[error("reading topics, groups and offsets: {0}")]
    Read(#[from] ReadError),
    /// The log does not take what must be written before anything else.
    #[error("writing topics, groups and offsets: {0}")]
    Append(#[from] AppendError),
    /// The log could not write what must be written before anything else.
    #[error("writing topics, groups and offsets: {0}")]
    Wait(#[from] WaitError),
}

/// Reads the state back, or begins one.
pub(super) fn open(engine: &Engine) -> Result<State, StateError> {
    let state = State::new(engine.info().epoch);
    take_over(engine, &state)?;
    Ok(state)
}

/// Brings the state up to what the table says, and begins to write it.
pub(super) fn take_over(engine: &Engine, state: &State) -> Result<(), StateError> {
    let snapshot = engine.snapshot();
    let is_new = check_format(engine, &snapshot)?;
    read(&snapshot, state)?;
    state.topics.renew_dropped(engine);
    read_locks(engine, &snapshot, state)?;
    let moved = state.clamp_offsets(|key| {
        let queue = engine.queue(&queue_name(&key.topic, key.queue))?;
        Ok(engine.range(&queue).max.0)
    })?;
    if moved {
        write(engine, state)?;
    }
    state.positions.begin(engine, is_new);
    Ok(())
}

/// Brings the state of a log that somebody else writes up to what its table says.
pub(super) fn refresh(engine: &Engine, state: &State) -> Result<(), StateError> {
    let snapshot = engine.snapshot();
    match known_format(&snapshot, || engine.info().dir.display().to_string())? {
        Some(_) => {
            read(&snapshot, state)?;
            state.topics.renew_dropped(engine);
            Ok(())
        }
        // Its first entry is still on the way.
        None => Ok(()),
    }
}

/// Memory shows what the table has, and no more: what its writer deleted is forgotten.
fn read(snapshot: &Snapshot, state: &State) -> Result<(), StateError> {
    let mut counts = [0; 3];
    let [topics, groups, offsets] = &mut counts;
    each(snapshot, topic::PREFIX, |key, value| {
        *topics += 1;
        let (name, config) = topic::decode(key, value)?;
        state.topics.put(&name, config);
        Ok(())
    })?;
    each(snapshot, group::PREFIX, |key, value| {
        *groups += 1;
        let (name, config) = group::decode(key, value)?;
        let put = state.groups.put(&name, config);
        let known = put || state.groups.config(&name).is_some();
        if known { Ok(()) } else { Err(BadEntry("there are more groups than this version remembers")) }
    })?;
    each(snapshot, offset::PREFIX, |key, value| {
        *offsets += 1;
        let (key, offset) = offset::decode(key, value)?;
        match state.offsets.commit(&key, offset) {
            Commit::Full => Err(BadEntry("there are more offsets than this version remembers")),
            Commit::Changed | Commit::Unchanged => Ok(()),
        }
    })?;
    read_accounts(snapshot, state)?;
    forget(snapshot, state, counts)
}

/// Who may do what: also that somebody may not any more.
fn read_accounts(snapshot: &Snapshot, state: &State) -> Result<(), StateError> {
    let mut names = BTreeSet::new();
    each(snapshot, account::PREFIX, |key, value| {
        let (name, found) = account::decode(key, value)?;
        state.accounts.put(&name, found);
        let known = state.accounts.get(&name).is_some();
        names.insert(name);
        if known { Ok(()) } else { Err(BadEntry("there are more accounts than this version remembers")) }
    })?;
    state.accounts.retain(|name| names.contains(name));
    let entry = snapshot.get(account::TRUSTED)?;
    let trusted = entry.as_ref().map_or(Ok(Vec::new()), |entry| {
        let bad = |source| StateError::Bad { key: account::TRUSTED.to_vec(), lsn: entry.lsn, source };
        account::decode_trusted(&entry.value).map_err(bad)
    })?;
    state.accounts.set_trusted(trusted);
    Ok(())
}

/// Forgets what the table does not have. `counts`: how many topics, groups and offsets it has.
fn forget(snapshot: &Snapshot, state: &State, [topics, groups, offsets]: [usize; 3]) -> Result<(), StateError> {
    let keys = |prefix: &'static [u8]| {
        let mut keys = BTreeSet::new();
        let noted = each(snapshot, prefix, |key, _| {
            keys.insert(key.to_vec());
            Ok(())
        });
        noted.map(|()| keys)
    };
    if state.topics.count() > topics {
        let keys = keys(topic::PREFIX)?;
        // The template is made at each start.
        state.topics.retain(|name| name == TEMPLATE || keys.contains(&topic::encode_key(name)));
    }
    if state.groups.count() > groups {
        let keys = keys(group::PREFIX)?;
        state.groups.retain(|name| keys.contains(&group::encode_key(name)));
    }
    if state.offsets.count() > offsets {
        let keys = keys(offset::PREFIX)?;
        state.offsets.retain(|key| keys.contains(&offset::encode_key(key)));
    }
    Ok(())
}

/// Whoever has a lock counts on it still: it lasts as if it had been asked for now.
fn read_locks(engine: &Engine, snapshot: &Snapshot, state: &State) -> Result<(), StateError> {
    let now = engine.clock().monotonic();
    each(snapshot, lock::PREFIX, |key, value| {
        let (key, found) = lock::decode(key, value)?;
        let known = state.locks.restore(&key, found, now);
        if known { Ok(()) } else { Err(BadEntry("there are more locks than this version remembers")) }
    })
}

/// The version that the store says it has, if this one reads that; `None` when it says nothing.
fn known_format(snapshot: &Snapshot, dir: impl Fn() -> String) -> Result<Option<u32>, StateError> {
    let Some(entry) = snapshot.get(format::KEY)? else { return Ok(None) };
    let bad = |source| StateError::Bad { key: format::KEY.to_vec(), lsn: entry.lsn, source };
    match format::decode(&entry.value).map_err(bad)? {
        found @ 1..=format::KNOWN => Ok(Some(found)),
        found => Err(StateError::Newer { dir: dir(), found, known: format::KNOWN }),
    }
}

/// Refuses what another version wrote, and marks a new store as one of this version; true for a new one.
fn check_format(engine: &Engine, snapshot: &Snapshot) -> Result<bool, StateError> {
    let dir = || engine.info().dir.display().to_string();
    // The engine knows the queue as long as it knows the log, also when all messages of it are gone.
    let queues = engine.queues();
    if queues.iter().any(|queue| queue.name() == SYSTEM_QUEUE) {
        return Err(StateError::Older { dir: dir() });
    }
    match known_format(snapshot, dir)? {
        Some(format::KNOWN) => return Ok(false),
        // What is written from now on must not be overlooked by the version that wrote the rest.
        Some(_) => return mark_format(engine).map(|()| false),
        None => {}
    }
    // The first entry of a store cannot have been lost alone: what stands behind it in the log is lost before it.
    if let Some(queue) = queues.iter().find(|queue| engine.range(queue).max.0 > 0) {
        let holds = format!("messages (of the queue {})", queue.name().escape_ascii());
        return Err(StateError::Missing { dir: dir(), holds });
    }
    // The members of a set may stand before it.
    let end = entries::end_of(NAMESPACE);
    let mut others = snapshot.range(&[1], Some(NAMESPACE), 1)?;
    others.append(&mut snapshot.range(&end, None, 1)?);
    if let Some((key, _)) = others.first() {
        return Err(StateError::Missing { dir: dir(), holds: format!("the table entry {}", key.escape_ascii()) });
    }
    mark_format(engine).map(|()| true)
}

/// Marks a store as one of this version.
fn mark_format(engine: &Engine) -> Result<(), StateError> {
    let mut batch = WriteBatch::new();
    let value = format::encode(format::KNOWN);
    batch.put(&Put { key: format::KEY, value: &value, target: None }).expect("a small batch with a good key");
    // Its place is enough: nothing behind it is durable before it is.
    drop(engine.append(batch)?);
    Ok(())
}

/// Gives every entry of a kind to `read`.
fn each(
    snapshot: &Snapshot,
    prefix: &[u8],
    mut read: impl FnMut(&[u8], &[u8]) -> Result<(), BadEntry>,
) -> Result<(), StateError> {
    let end = entries::end_of(prefix);
    let mut from = prefix.to_vec();
    loop {
        let page = snapshot.range(&from, Some(&end), limits::STATE_PAGE_ENTRIES)?;
        for (key, entry) in &page {
            let bad = |source| StateError::Bad { key: key.clone(), lsn: entry.lsn, source };
            read(key, &entry.value).map_err(bad)?;
        }
        let Some((last, _)) = page.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
    }
}

/// Appends all that is noted.
fn write(engine: &Engine, state: &State) -> Result<(), StateError> {
    loop {
        match state.flush_all(engine) {
            Ok(_) => return Ok(()),
            Err(FlushError::Full) => drop(engine.flush()?),
            Err(FlushError::Append(error)) => return Err(error.into()),
        }
    }
}
