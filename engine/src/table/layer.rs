//! Changes of the table that are in memory only: since the last checkpoint, or being written by one.
//!
//! Invariants:
//! 1. Versions of a key are in log order; the last is the newest.
//! 2. A version that a snapshot may read stays; all others leave when they are replaced.
//! 3. A removal stays as a version of its own: below this layer there may be an entry.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::Arc;

use crate::table::{Change, TableEntry};
use crate::units::{Lsn, to_u64};

/// Living snapshots: their LSNs, and how many there are of each.
pub(crate) type Snapshots = BTreeMap<Lsn, usize>;

/// What a key is in a layer: `None` when the layer does not know it, `Some(None)` when it was removed.
pub(crate) type Lookup<'a> = Option<Option<&'a TableEntry>>;

#[derive(Clone, Debug)]
struct Version {
    lsn: Lsn,
    entry: Option<TableEntry>,
}

/// A key's versions: most have one.
#[derive(Debug)]
struct Versions {
    newest: Version,
    older: Vec<Version>,
}

/// One layer.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    entries: BTreeMap<Arc<[u8]>, Versions>,
    /// Keys with more than one version.
    versioned: BTreeSet<Arc<[u8]>>,
    /// Messages that entries of this layer refer, or referred, to.
    targets: BTreeSet<(Lsn, Arc<[u8]>)>,
    /// Origins of links, with the link.
    origins: BTreeSet<(Lsn, Lsn)>,
    /// Bytes of keys and values in it.
    bytes: usize,
}

/// How much waits in a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unsaved {
    /// Keys and links.
    pub(crate) count: usize,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
}

impl Version {
    fn value_bytes(&self) -> usize {
        self.entry.as_ref().map_or(0, |entry| entry.value.len())
    }
}

impl Layer {
    pub(crate) fn change(&mut self, change: Change, snapshots: &Snapshots) {
        let Change { key, lsn, entry } = change;
        let target = entry.as_ref().and_then(|entry| entry.target);
        if let Some(target) = target {
            self.targets.insert((target, Arc::clone(&key)));
        }
        let next = Version { lsn, entry };
        self.bytes += next.value_bytes();
        let mut known = match self.entries.entry(key) {
            Entry::Vacant(vacant) => {
                self.bytes += vacant.key().len();
                vacant.insert(Versions { newest: next, older: Vec::new() });
                return;
            }
            Entry::Occupied(known) => known,
        };
        let before = std::mem::replace(&mut known.get_mut().newest, next);
        // The version before is needed by a snapshot that began behind it; nobody can read one that none began behind.
        if snapshots.range(before.lsn.plus(1)..=lsn).next().is_some() {
            self.versioned.insert(Arc::clone(known.key()));
            known.get_mut().older.push(before);
            return;
        }
        self.bytes -= before.value_bytes();
        let was = before.entry.and_then(|entry| entry.target);
        if let Some(was) = was.filter(|was| Some(*was) != target) {
            self.targets.remove(&(was, Arc::clone(known.key())));
        }
    }

    pub(crate) fn link(&mut self, link: Lsn, origin: Lsn) {
        self.origins.insert((origin, link));
    }

    /// Forgets versions that no living snapshot reads.
    pub(crate) fn prune(&mut self, snapshots: &Snapshots) {
        let lowest = snapshots.first_key_value().map_or(Lsn::MAX, |(lsn, _)| *lsn);
        let (entries, bytes) = (&mut self.entries, &mut self.bytes);
        self.versioned.retain(|key| {
            let Some(versions) = entries.get_mut(key) else { return false };
            let older = &mut versions.older;
            let read_by_lowest = if versions.newest.lsn < lowest {
                older.len()
            } else {
                older.iter().rposition(|version| version.lsn < lowest).unwrap_or(0)
            };
            *bytes -= older.drain(..read_by_lowest).map(|version| version.value_bytes()).sum::<usize>();
            !older.is_empty()
        });
    }

    /// A key as of `lsn`.
    pub(crate) fn get(&self, key: &[u8], lsn: Lsn) -> Lookup<'_> {
        at(self.entries.get(key)?, lsn)
    }

    /// Keys in order, as of `lsn`.
    pub(crate) fn range<'a>(
        &'a self,
        from: Bound<&'a [u8]>,
        to: Bound<&'a [u8]>,
        lsn: Lsn,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a TableEntry>)> {
        self.entries.range::<[u8], _>((from, to)).filter_map(move |(key, versions)| Some((&**key, at(versions, lsn)?)))
    }

    /// The newest version of every key, in the order of keys.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (&[u8], Option<&TableEntry>)> {
        self.range(Bound::Unbounded, Bound::Unbounded, Lsn::MAX)
    }

    /// Messages in this part of the log that entries may refer to, with the entries' keys.
    pub(crate) fn targets(&self, part: Range<Lsn>) -> impl Iterator<Item = (Lsn, &[u8])> {
        let from = |lsn: Lsn| (lsn, Arc::default());
        self.targets.range(from(part.start)..from(part.end)).map(|(target, key)| (*target, &**key))
    }

    /// Origins in this part of the log, with the links that lead there.
    pub(crate) fn origins(&self, part: Range<Lsn>) -> impl Iterator<Item = (Lsn, Lsn)> + '_ {
        self.origins.range((part.start, Lsn::ZERO)..(part.end, Lsn::ZERO)).copied()
    }

    /// How much is in it.
    pub(crate) fn unsaved(&self) -> Unsaved {
        Unsaved { count: self.entries.len() + self.origins.len(), bytes: to_u64(self.bytes) }
    }
}

fn at(versions: &Versions, lsn: Lsn) -> Lookup<'_> {
    let mut all = std::iter::once(&versions.newest).chain(versions.older.iter().rev());
    all.find(|version| version.lsn < lsn).map(|version| version.entry.as_ref())
}
