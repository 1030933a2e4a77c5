//! The visible view: the table as the dispatcher has applied it.
//!
//! Invariants:
//! 1. Changes are applied in log order, whole frames at a time.
//! 2. A version that a snapshot may read stays until the snapshot is gone; all others leave when they are replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, RwLock};

use crate::units::Lsn;

/// A table entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Its value.
    pub value: Arc<[u8]>,
    /// The message that it refers to.
    pub target: Option<Lsn>,
    /// Where its latest record stands.
    pub lsn: Lsn,
}

/// A change on its way into the visible view.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) key: Vec<u8>,
    pub(crate) lsn: Lsn,
    /// `None` removes it.
    pub(crate) entry: Option<TableEntry>,
}

#[derive(Clone, Debug)]
struct Version {
    lsn: Lsn,
    entry: Option<TableEntry>,
}

#[derive(Debug, Default)]
struct State {
    /// Versions of a key, oldest first.
    entries: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Keys with more than one version.
    versioned: BTreeSet<Vec<u8>>,
    /// All changes below are in.
    applied: Lsn,
    /// LSNs of living snapshots, and how many there are of each.
    snapshots: BTreeMap<Lsn, usize>,
    /// Messages that entries refer to, and by how many.
    targets: BTreeMap<Lsn, usize>,
    /// Origins of links, by the link; and the other way round.
    links: BTreeMap<Lsn, Lsn>,
    origins: BTreeSet<(Lsn, Lsn)>,
}

/// The table that readers see.
#[derive(Debug, Default)]
pub(crate) struct Visible {
    state: RwLock<State>,
}

const INTACT: &str = "the table is intact";

impl Visible {
    /// Applies the changes of frames that end at `end`.
    pub(crate) fn apply(&self, changes: &mut Vec<Change>, end: Lsn) {
        let mut state = self.state.write().expect(INTACT);
        for change in changes.drain(..) {
            state.change(change);
        }
        state.applied = state.applied.max(end);
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<TableEntry> {
        let state = self.state.read().expect(INTACT);
        state.entries.get(key).and_then(|versions| versions.last()).and_then(|version| version.entry.clone())
    }

    /// Notes that the link at `link` leads to `origin`.
    pub(crate) fn link(&self, link: Lsn, origin: Lsn) {
        let mut state = self.state.write().expect(INTACT);
        state.links.insert(link, origin);
        state.origins.insert((origin, link));
    }

    /// Forgets links below `start`, which are gone with their segments.
    pub(crate) fn release_links(&self, start: Lsn) {
        let mut state = self.state.write().expect(INTACT);
        let kept = state.links.split_off(&start);
        for (link, origin) in std::mem::replace(&mut state.links, kept) {
            state.origins.remove(&(origin, link));
        }
    }

    /// The smallest LSN that a table entry refers to, or a link at or above `start`, if it is below `start`.
    pub(crate) fn lowest_target(&self, start: Lsn) -> Option<Lsn> {
        let state = self.state.read().expect(INTACT);
        let by_entry = state.targets.range(..start).next().map(|(lsn, _)| *lsn);
        // A link that goes together with its origin holds nothing.
        let mut origins = state.origins.range(..(start, Lsn::ZERO));
        let by_link = origins.find(|(_, link)| *link >= start).map(|(origin, _)| *origin);
        by_entry.into_iter().chain(by_link).min()
    }

    /// Begins a snapshot; give it back with [`Visible::end_snapshot`].
    pub(crate) fn begin_snapshot(&self) -> Lsn {
        let mut state = self.state.write().expect(INTACT);
        let lsn = state.applied;
        *state.snapshots.entry(lsn).or_default() += 1;
        lsn
    }

    pub(crate) fn end_snapshot(&self, lsn: Lsn) {
        let mut state = self.state.write().expect(INTACT);
        if let Some(count) = state.snapshots.get_mut(&lsn) {
            *count -= 1;
            if *count == 0 {
                state.snapshots.remove(&lsn);
            }
        }
        state.prune();
    }

    pub(crate) fn get_at(&self, key: &[u8], lsn: Lsn) -> Option<TableEntry> {
        let state = self.state.read().expect(INTACT);
        state.entries.get(key).and_then(|versions| at(versions, lsn)).cloned()
    }

    /// Up to `count` entries with `from <= key < to` as of `lsn`, in the order of their keys.
    pub(crate) fn range_at(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        lsn: Lsn,
        count: usize,
    ) -> Vec<(Vec<u8>, TableEntry)> {
        let state = self.state.read().expect(INTACT);
        state
            .entries
            .range::<[u8], _>((from, to))
            .filter_map(|(key, versions)| Some((key.clone(), at(versions, lsn)?.clone())))
            .take(count)
            .collect()
    }
}

fn at(versions: &[Version], lsn: Lsn) -> Option<&TableEntry> {
    versions.iter().rev().find(|version| version.lsn < lsn).and_then(|version| version.entry.as_ref())
}

impl State {
    /// Forgets versions that no living snapshot reads.
    fn prune(&mut self) {
        let lowest = self.snapshots.first_key_value().map_or(Lsn::MAX, |(lsn, _)| *lsn);
        let entries = &mut self.entries;
        self.versioned.retain(|key| {
            let Some(versions) = entries.get_mut(key) else { return false };
            let read_by_lowest = versions.iter().rposition(|version| version.lsn < lowest).unwrap_or(0);
            versions.drain(..read_by_lowest);
            if versions.len() == 1 && versions[0].entry.is_none() {
                entries.remove(key);
                return false;
            }
            versions.len() > 1
        });
    }

    fn change(&mut self, change: Change) {
        let versions = self.entries.entry(change.key.clone()).or_default();
        let before = versions.last().and_then(|version| version.entry.as_ref()).and_then(|entry| entry.target);
        let after = change.entry.as_ref().and_then(|entry| entry.target);
        let is_deletion = change.entry.is_none();
        // The version before is needed by a snapshot that began behind it; nobody can read one that none began behind.
        let needed = |version: &Version, next: Lsn| self.snapshots.range(version.lsn.plus(1)..=next).next().is_some();
        let next = Version { lsn: change.lsn, entry: change.entry };
        match versions.last_mut() {
            Some(last) if !needed(last, change.lsn) => *last = next,
            _ => versions.push(next),
        }
        if versions.len() > 1 {
            self.versioned.insert(change.key);
        } else if is_deletion {
            self.entries.remove(&change.key);
        }
        if let Some(target) = after {
            *self.targets.entry(target).or_default() += 1;
        }
        if let Some(target) = before {
            release(&mut self.targets, target);
        }
    }
}

fn release(counts: &mut BTreeMap<Lsn, usize>, lsn: Lsn) {
    if let Some(count) = counts.get_mut(&lsn) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&lsn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, lsn: u64, value: Option<&str>, target: Option<u64>) -> Change {
        let entry = value.map(|value| TableEntry {
            value: Arc::from(value.as_bytes()),
            target: target.map(Lsn),
            lsn: Lsn(lsn),
        });
        Change { key: key.as_bytes().to_vec(), lsn: Lsn(lsn), entry }
    }

    fn put(table: &Visible, key: &str, lsn: u64, value: &str, target: Option<u64>) {
        table.apply(&mut vec![change(key, lsn, Some(value), target)], Lsn(lsn + 8));
    }

    fn value(entry: Option<TableEntry>) -> Option<String> {
        entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
    }

    #[test]
    fn a_snapshot_shows_one_lsn_whatever_comes_after() {
        let table = Visible::default();
        put(&table, "a", 8, "1", None);
        put(&table, "b", 16, "1", None);
        let lsn = table.begin_snapshot();
        put(&table, "a", 24, "2", None);
        table.apply(&mut vec![change("b", 32, None, None)], Lsn(40));
        put(&table, "c", 40, "1", None);
        assert_eq!(value(table.get_at(b"a", lsn)).as_deref(), Some("1"));
        let all = table.range_at(Bound::Unbounded, Bound::Unbounded, lsn, 10);
        assert_eq!(all.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!((value(table.get(b"a")).as_deref(), table.get(b"b")), (Some("2"), None));

        let later = table.begin_snapshot();
        put(&table, "a", 48, "3", None);
        table.end_snapshot(lsn);
        assert_eq!(value(table.get_at(b"a", later)).as_deref(), Some("2"));
        table.end_snapshot(later);
        let state = table.state.read().unwrap();
        assert!(state.versioned.is_empty() && !state.entries.contains_key(&b"b"[..]), "nothing is kept for nobody");
    }

    #[test]
    fn the_lowest_target_is_known_while_an_entry_refers_to_it() {
        let table = Visible::default();
        put(&table, "a", 100, "", Some(16));
        put(&table, "b", 108, "", Some(8));
        put(&table, "c", 116, "", Some(8));
        assert_eq!(table.lowest_target(Lsn(1000)), Some(Lsn(8)));
        put(&table, "b", 124, "", None);
        assert_eq!(table.lowest_target(Lsn(1000)), Some(Lsn(8)));
        table.apply(&mut vec![change("c", 132, None, None)], Lsn(140));
        assert_eq!(table.lowest_target(Lsn(1000)), Some(Lsn(16)));
        assert_eq!(table.lowest_target(Lsn(16)), None, "it is not below");
    }

    #[test]
    fn a_link_holds_its_origin_until_it_is_gone_itself() {
        let table = Visible::default();
        table.link(Lsn(100), Lsn(8));
        table.link(Lsn(200), Lsn(16));
        assert_eq!(table.lowest_target(Lsn(50)), Some(Lsn(8)));
        assert_eq!(table.lowest_target(Lsn(150)), Some(Lsn(16)), "the link at 100 goes with its origin");
        assert_eq!(table.lowest_target(Lsn(250)), None);
        table.release_links(Lsn(150));
        assert_eq!(table.lowest_target(Lsn(50)), Some(Lsn(16)));
    }
}
