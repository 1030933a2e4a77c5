//! Changes of the table that are in memory only: since the last checkpoint, or being written by one.
//!
//! Invariants:
//! 1. Versions of a key are in log order; the last is the newest.
//! 2. A version that a snapshot may read stays; all others leave when they are replaced.
//! 3. A removal stays as a version of its own: below this layer there may be an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};

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

/// One layer.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    entries: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Keys with more than one version.
    versioned: BTreeSet<Vec<u8>>,
    /// Messages that entries of this layer refer, or referred, to.
    targets: BTreeSet<(Lsn, Vec<u8>)>,
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
        if let Some(target) = change.entry.as_ref().and_then(|entry| entry.target) {
            self.targets.insert((target, change.key.clone()));
        }
        let key_bytes = change.key.len();
        let versions = self.entries.entry(change.key.clone()).or_default();
        if versions.is_empty() {
            self.bytes += key_bytes;
        }
        // The version before is needed by a snapshot that began behind it; nobody can read one that none began behind.
        let needed = |version: &Version| snapshots.range(version.lsn.plus(1)..=change.lsn).next().is_some();
        let next = Version { lsn: change.lsn, entry: change.entry };
        self.bytes += next.value_bytes();
        match versions.last_mut() {
            Some(last) if !needed(last) => {
                if let Some(target) = last.entry.as_ref().and_then(|entry| entry.target)
                    && next.entry.as_ref().and_then(|entry| entry.target) != Some(target)
                {
                    self.targets.remove(&(target, change.key));
                }
                self.bytes -= last.value_bytes();
                *last = next;
            }
            _ => {
                versions.push(next);
                if versions.len() > 1 {
                    self.versioned.insert(change.key);
                }
            }
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
            let read_by_lowest = versions.iter().rposition(|version| version.lsn < lowest).unwrap_or(0);
            *bytes -= versions.drain(..read_by_lowest).map(|version| version.value_bytes()).sum::<usize>();
            versions.len() > 1
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
        self.entries
            .range::<[u8], _>((from, to))
            .filter_map(move |(key, versions)| Some((key.as_slice(), at(versions, lsn)?)))
    }

    /// The newest version of every key, in the order of keys.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (&[u8], Option<&TableEntry>)> {
        self.range(Bound::Unbounded, Bound::Unbounded, Lsn::MAX)
    }

    /// Messages in this part of the log that entries may refer to, with the entries' keys.
    pub(crate) fn targets(&self, part: Range<Lsn>) -> impl Iterator<Item = (Lsn, &[u8])> {
        self.targets
            .range((part.start, Vec::new())..(part.end, Vec::new()))
            .map(|(target, key)| (*target, key.as_slice()))
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

fn at(versions: &[Version], lsn: Lsn) -> Lookup<'_> {
    versions.iter().rev().find(|version| version.lsn < lsn).map(|version| version.entry.as_ref())
}
