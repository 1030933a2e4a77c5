//! The visible view: the table as the dispatcher has applied it.
//!
//! ```text
//!  active layer    changes since the last checkpoint began
//!  frozen layer    what a checkpoint is writing, if one is
//!  store           what the last checkpoint wrote
//! ```
//! The uppermost that knows a key decides.
//!
//! Invariants:
//! 1. Changes are applied in log order, whole frames at a time.
//! 2. A layer becomes part of the store in one step for readers: nobody sees neither, or an older state.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Bound, ControlFlow, Range};
use std::sync::{Arc, RwLock};

use crate::checkpoint::rows::{self, Referrer};
use crate::error::ReadError;
use crate::retention::survivors;
use crate::store::{Direction, StoreReader, StoreTable};
use crate::table::layer::{Layer, Snapshots, Unsaved};
use crate::table::places::Places;
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

type SharedLayer = Arc<RwLock<Layer>>;

/// Entries with their keys, and the key with which to go on, if there is more.
type SaidPage = (Vec<(Vec<u8>, TableEntry)>, Option<Vec<u8>>);

/// What is looked through for a key, from top to bottom.
#[derive(Clone, Default)]
pub(crate) struct Layers {
    active: SharedLayer,
    frozen: Option<SharedLayer>,
    store: Option<Arc<StoreReader>>,
}

#[derive(Default)]
struct State {
    layers: Layers,
    /// All changes below are in.
    applied: Lsn,
    snapshots: Snapshots,
    places: Places,
}

/// The table that readers see.
#[derive(Default)]
pub(crate) struct Visible {
    state: RwLock<State>,
}

const INTACT: &str = "the table is intact";

impl Visible {
    /// A table that goes on from what a checkpoint wrote.
    pub(crate) fn new(store: Option<Arc<StoreReader>>, applied: Lsn) -> Visible {
        let layers = Layers { store, ..Layers::default() };
        Visible {
            state: RwLock::new(State {
                layers,
                applied,
                snapshots: Snapshots::default(),
                places: Places::new(applied),
            }),
        }
    }

    /// Applies the changes of a frame.
    pub(crate) fn apply(&self, changes: &mut Vec<Change>, frame: Range<Lsn>) {
        let mut state = self.state.write().expect(INTACT);
        let state = &mut *state;
        if changes.iter().any(|change| change.entry.is_some()) {
            state.places.note(frame.start);
        }
        let mut active = state.layers.active.write().expect(INTACT);
        for change in changes.drain(..) {
            active.change(change, &state.snapshots);
        }
        state.applied = state.applied.max(frame.end);
    }

    /// Notes that the link at `link` leads to `origin`.
    pub(crate) fn link(&self, link: Lsn, origin: Lsn) {
        self.state.read().expect(INTACT).layers.active.write().expect(INTACT).link(link, origin);
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<TableEntry>, ReadError> {
        self.layers().get(key, Lsn::MAX)
    }

    /// Whether memory alone says what a key is.
    pub(crate) fn knows(&self, key: &[u8]) -> bool {
        let layers = self.layers();
        layers.store.is_none() || layers.overlaid(key, Lsn::MAX).is_some()
    }

    /// The first place at or behind `at` where a frame may have put an entry.
    pub(crate) fn next_put(&self, at: Lsn) -> Lsn {
        self.state.read().expect(INTACT).places.next(at)
    }

    /// The log begins at `start` now.
    pub(crate) fn set_start(&self, start: Lsn) {
        self.state.write().expect(INTACT).places.forget_below(start);
    }

    fn layers(&self) -> Layers {
        self.state.read().expect(INTACT).layers.clone()
    }

    /// Who refers to messages in this part of the log: entries as they are now, and every link that was ever made and may still be there.
    pub(crate) fn references(&self, part: Range<Lsn>) -> Result<BTreeSet<(Lsn, Referrer)>, ReadError> {
        self.layers().references(part)
    }

    /// What survives of segments below the dense log, by their base LSNs.
    pub(crate) fn survivors(&self) -> Result<Vec<(Lsn, survivors::List)>, ReadError> {
        let layers = self.layers();
        let (mut lists, mut from) = (Vec::new(), survivors::KEY_PREFIX.to_vec());
        loop {
            let page = layers.range(&from, Some(&[1]), Lsn::MAX, 1000)?;
            let Some((last, _)) = page.last() else { return Ok(lists) };
            from.clone_from(last);
            from.push(0);
            for (key, entry) in page {
                if let Some(base) = survivors::base_of_key(&key) {
                    lists.push((base, survivors::decode_list(&entry.value)));
                }
            }
        }
    }

    /// Of the next `count` entries from the key `from` on, those whose latest record lies in this part of the log; and with which key to
    /// go on.
    pub(crate) fn said_in(&self, part: &Range<Lsn>, from: &[u8], count: usize) -> Result<SaidPage, ReadError> {
        let mut page = self.layers().range(from, None, Lsn::MAX, count)?;
        let last = page.last().filter(|_| page.len() == count);
        let next = last.map(|(key, _)| [key, &[0][..]].concat());
        page.retain(|(_, entry)| part.contains(&entry.lsn));
        Ok((page, next))
    }

    /// How much only memory has that no checkpoint is writing.
    pub(crate) fn unsaved(&self) -> Unsaved {
        self.state.read().expect(INTACT).layers.active.read().expect(INTACT).unsaved()
    }

    /// Puts what was applied so far aside for a checkpoint; what is applied from now on goes to a new layer.
    ///
    /// # Panics
    /// When there is one aside already.
    pub(crate) fn freeze(&self) -> SharedLayer {
        let mut state = self.state.write().expect(INTACT);
        assert!(state.layers.frozen.is_none(), "one checkpoint at a time");
        let frozen = std::mem::take(&mut state.layers.active);
        state.layers.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// Another view of what the store held already.
    pub(crate) fn set_store(&self, reader: Arc<StoreReader>) {
        self.state.write().expect(INTACT).layers.store = Some(reader);
    }

    /// The frozen layer is in the store that `reader` sees.
    pub(crate) fn merged(&self, reader: Arc<StoreReader>) {
        let mut state = self.state.write().expect(INTACT);
        state.layers.frozen = None;
        state.layers.store = Some(reader);
    }

    /// Begins a snapshot; give it back with [`Visible::end_snapshot`].
    pub(crate) fn begin_snapshot(&self) -> (Lsn, Layers) {
        let mut state = self.state.write().expect(INTACT);
        let lsn = state.applied;
        *state.snapshots.entry(lsn).or_default() += 1;
        (lsn, state.layers.clone())
    }

    pub(crate) fn end_snapshot(&self, lsn: Lsn) {
        let mut state = self.state.write().expect(INTACT);
        if let Some(count) = state.snapshots.get_mut(&lsn) {
            *count -= 1;
            if *count == 0 {
                state.snapshots.remove(&lsn);
            }
        }
        let state = &*state;
        state.layers.active.write().expect(INTACT).prune(&state.snapshots);
    }
}

impl std::fmt::Debug for Visible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.read().expect(INTACT);
        f.debug_struct("Visible").field("applied", &state.applied).finish_non_exhaustive()
    }
}

impl Layers {
    /// What the layers above the store know of a key.
    #[expect(clippy::option_option, reason = "not known and known to be removed are two answers")]
    fn overlaid(&self, key: &[u8], lsn: Lsn) -> Option<Option<TableEntry>> {
        for layer in std::iter::once(&self.active).chain(&self.frozen) {
            if let Some(found) = layer.read().expect(INTACT).get(key, lsn) {
                return Some(found.cloned());
            }
        }
        None
    }

    /// A key as of `lsn`.
    pub(crate) fn get(&self, key: &[u8], lsn: Lsn) -> Result<Option<TableEntry>, ReadError> {
        if let Some(found) = self.overlaid(key, lsn) {
            return Ok(found);
        }
        let Some(store) = &self.store else { return Ok(None) };
        let row = store.get(StoreTable::Table, key)?;
        Ok(row.map(|row| rows::decode_entry(&row)).transpose()?)
    }

    /// Up to `count` entries with `from <= key < to` as of `lsn`, in the order of their keys.
    pub(crate) fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        lsn: Lsn,
        count: usize,
    ) -> Result<Vec<(Vec<u8>, TableEntry)>, ReadError> {
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut out = Vec::new();
        let mut page_from = Bound::Included(from.to_vec());
        while out.len() < count {
            let (page, is_last) = self.page(bound(&page_from), to, count - out.len())?;
            // What lies behind the last row of a full page is for the next round.
            let end = match (is_last, page.back()) {
                (false, Some((key, _))) => Bound::Included(key.clone()),
                _ => owned(to),
            };
            self.merge(bound(&page_from), bound(&end), lsn, count, page, &mut out);
            match end {
                Bound::Included(last) => page_from = Bound::Excluded(last),
                _ => break,
            }
        }
        Ok(out)
    }

    /// Adds what the layers and a page of the store have between `from` and `end`, up to `count` in all.
    fn merge(
        &self,
        from: Bound<&[u8]>,
        end: Bound<&[u8]>,
        lsn: Lsn,
        count: usize,
        mut page: Page,
        out: &mut Vec<(Vec<u8>, TableEntry)>,
    ) {
        let active = self.active.read().expect(INTACT);
        let frozen = self.frozen.as_ref().map(|layer| layer.read().expect(INTACT));
        let mut upper = active.range(from, end, lsn).peekable();
        let mut lower = frozen.iter().flat_map(|layer| layer.range(from, end, lsn)).peekable();
        while out.len() < count {
            let least = [
                upper.peek().map(|(key, _)| *key),
                lower.peek().map(|(key, _)| *key),
                page.front().map(|(key, _)| key.as_slice()),
            ];
            let Some(least) = least.into_iter().flatten().min().map(<[u8]>::to_vec) else { break };
            let above = upper.next_if(|(key, _)| *key == least).map(|(_, entry)| entry.cloned());
            let middle = lower.next_if(|(key, _)| *key == least).map(|(_, entry)| entry.cloned());
            let is_next = page.front().is_some_and(|(key, _)| *key == least);
            let below = if is_next { page.pop_front() } else { None }.map(|(_, entry)| Some(entry));
            if let Some(entry) = above.or(middle).or(below).flatten() {
                out.push((least, entry));
            }
        }
    }

    /// The store's next entries, and whether there are no more of them.
    fn page(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, count: usize) -> Result<(Page, bool), ReadError> {
        let (mut page, mut bad, mut is_last) = (Page::new(), None, true);
        if let Some(store) = &self.store {
            store.range(StoreTable::Table, (from, to), Direction::Ascending, |key, value| {
                if page.len() == count {
                    is_last = false;
                    return ControlFlow::Break(());
                }
                match rows::decode_entry(value) {
                    Ok(entry) => page.push_back((key.to_vec(), entry)),
                    Err(row) => bad = Some(row),
                }
                if bad.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        bad.map_or(Ok((page, is_last)), |row| Err(row.into()))
    }

    fn references(&self, part: Range<Lsn>) -> Result<BTreeSet<(Lsn, Referrer)>, ReadError> {
        let mut found = BTreeSet::new();
        for layer in std::iter::once(&self.active).chain(&self.frozen) {
            let candidates: Vec<(Lsn, Vec<u8>)> = {
                let layer = layer.read().expect(INTACT);
                found.extend(layer.origins(part.clone()).map(|(origin, link)| (origin, Referrer::Link(link))));
                layer.targets(part.clone()).map(|(target, key)| (target, key.to_vec())).collect()
            };
            for (target, key) in candidates {
                if self.get(&key, Lsn::MAX)?.is_some_and(|entry| entry.target == Some(target)) {
                    found.insert((target, Referrer::Entry(key)));
                }
            }
        }
        let Some(store) = &self.store else { return Ok(found) };
        let mut bad = None;
        let (from, to) = (rows::references_from(part.start), rows::references_from(part.end));
        let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        store.range(StoreTable::References, bounds, Direction::Ascending, |key, _| {
            match rows::decode_reference(key) {
                Ok((target, referrer)) => {
                    // What is not overlaid is as the store has it.
                    let holds = match &referrer {
                        Referrer::Link(_) => true,
                        Referrer::Entry(key) => {
                            let now = self.overlaid(key, Lsn::MAX);
                            now.is_none_or(|entry| entry.is_some_and(|entry| entry.target == Some(target)))
                        }
                    };
                    if holds {
                        found.insert((target, referrer));
                    }
                    ControlFlow::Continue(())
                }
                Err(row) => {
                    bad = Some(row);
                    ControlFlow::Break(())
                }
            }
        })?;
        bad.map_or(Ok(found), |row| Err(row.into()))
    }
}

type Page = VecDeque<(Vec<u8>, TableEntry)>;

fn bound(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn owned(bound: Bound<&[u8]>) -> Bound<Vec<u8>> {
    bound.map(<[u8]>::to_vec)
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
        table.apply(&mut vec![change(key, lsn, Some(value), target)], Lsn(lsn)..Lsn(lsn + 8));
    }

    fn remove(table: &Visible, key: &str, lsn: u64) {
        table.apply(&mut vec![change(key, lsn, None, None)], Lsn(lsn)..Lsn(lsn + 8));
    }

    fn value(entry: Option<TableEntry>) -> Option<String> {
        entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
    }

    fn keys(layers: &Layers, lsn: Lsn) -> Vec<String> {
        let all = layers.range(b"", None, lsn, 100).unwrap();
        all.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
    }

    #[test]
    fn a_snapshot_shows_one_lsn_whatever_comes_after() {
        let table = Visible::default();
        put(&table, "a", 8, "1", None);
        put(&table, "b", 16, "1", None);
        let (lsn, layers) = table.begin_snapshot();
        put(&table, "a", 24, "2", None);
        table.freeze();
        remove(&table, "b", 32);
        put(&table, "c", 40, "1", None);
        assert_eq!(value(layers.get(b"a", lsn).unwrap()).as_deref(), Some("1"));
        assert_eq!(keys(&layers, lsn), ["a", "b"]);
        assert_eq!((value(table.get(b"a").unwrap()).as_deref(), table.get(b"b").unwrap()), (Some("2"), None));
        assert_eq!(keys(&table.layers(), Lsn::MAX), ["a", "c"]);

        let (later, layers) = table.begin_snapshot();
        put(&table, "c", 48, "2", None);
        put(&table, "c", 56, "3", None);
        table.end_snapshot(lsn);
        assert_eq!(value(layers.get(b"c", later).unwrap()).as_deref(), Some("1"));
        table.end_snapshot(later);
        assert_eq!(value(layers.get(b"c", later).unwrap()), None, "nothing is kept for nobody");
    }

    #[test]
    fn what_only_memory_has_is_counted_with_every_version_that_is_kept() {
        let table = Visible::default();
        put(&table, "a", 8, "one", None);
        put(&table, "bb", 16, "two!", None);
        assert_eq!(table.unsaved(), Unsaved { count: 2, bytes: 4 + 6 });
        let (lsn, _layers) = table.begin_snapshot();
        put(&table, "a", 24, "1", None);
        assert_eq!(table.unsaved(), Unsaved { count: 2, bytes: 4 + 6 + 1 }, "the snapshot reads the older one");
        table.end_snapshot(lsn);
        assert_eq!(table.unsaved(), Unsaved { count: 2, bytes: 2 + 6 });
        remove(&table, "bb", 32);
        table.link(Lsn(40), Lsn(8));
        assert_eq!(table.unsaved(), Unsaved { count: 3, bytes: 2 + 2 });
        table.freeze();
        assert_eq!(table.unsaved(), Unsaved::default());
    }

    #[test]
    fn references_are_known_while_an_entry_or_a_link_makes_them() {
        let table = Visible::default();
        put(&table, "a", 100, "", Some(16));
        put(&table, "b", 108, "", Some(8));
        put(&table, "c", 116, "", Some(8));
        table.link(Lsn(120), Lsn(8));
        let of = |part: Range<u64>| -> Vec<(u64, Referrer)> {
            let found = table.references(Lsn(part.start)..Lsn(part.end)).unwrap();
            found.into_iter().map(|(target, referrer)| (target.0, referrer)).collect()
        };
        let entry = |key: &str| Referrer::Entry(key.as_bytes().to_vec());
        assert_eq!(of(0..16), [(8, entry("b")), (8, entry("c")), (8, Referrer::Link(Lsn(120)))]);
        put(&table, "b", 124, "", None);
        table.freeze();
        remove(&table, "c", 132);
        assert_eq!(of(0..16), [(8, Referrer::Link(Lsn(120)))]);
        assert_eq!(of(9..17), [(16, entry("a"))]);
    }
}
