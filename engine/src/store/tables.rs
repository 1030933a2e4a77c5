//! Tables of byte strings, ordered by key: reading one commit of them, and writing the next.

use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use redb::{
    AccessGuard, Range, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use super::database::{Session, Shared, StoreError};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Bytes = &'static [u8];
/// From where to where.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Which table. Keys are compared as byte strings, so numbers in them stand big end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreTable {
    /// Pieces of consume queues, by queue and first offset.
    Entries,
    /// Queues, by their number.
    Queues,
    /// The embedder's small state, by its keys.
    Table,
    /// Who refers to a message, by that message's LSN.
    References,
    /// The key index, by run and hash.
    Keys,
    /// What the store says of itself.
    Meta,
}

impl StoreTable {
    /// All of them.
    pub(crate) const ALL: [StoreTable; 6] = [
        StoreTable::Entries,
        StoreTable::Queues,
        StoreTable::Table,
        StoreTable::References,
        StoreTable::Keys,
        StoreTable::Meta,
    ];

    pub(super) fn definition(self) -> Definition {
        Definition::new(match self {
            StoreTable::Entries => "entries",
            StoreTable::Queues => "queues",
            StoreTable::Table => "table",
            StoreTable::References => "references",
            StoreTable::Keys => "keys",
            StoreTable::Meta => "meta",
        })
    }
}

/// In which order a range is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// Makes all tables.
pub(super) fn create_all(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    for table in StoreTable::ALL {
        transaction.open_table(table.definition())?;
    }
    Ok(())
}

/// Finds all tables.
pub(super) fn check_all(transaction: &ReadTransaction) -> Result<(), redb::Error> {
    for table in StoreTable::ALL {
        transaction.open_table(table.definition())?;
    }
    Ok(())
}

/// The store as one commit left it. Cheap to make; any number may live, on any thread.
pub(crate) struct StoreReader {
    store: Arc<Shared>,
    tables: [OnceLock<ReadOnlyTable<Bytes, Bytes>>; StoreTable::ALL.len()],
    transaction: ReadTransaction,
    // Last: what is above must be gone before the database can be.
    session: Arc<Session>,
}

impl StoreReader {
    pub(super) fn new(store: Arc<Shared>, session: Arc<Session>, transaction: ReadTransaction) -> StoreReader {
        StoreReader { store, tables: Default::default(), transaction, session }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`]; after [`StoreError::Io`] another reader may be begun.
    pub(crate) fn get(&self, table: StoreTable, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store
            .run(&self.session, "reading", || Ok(self.table(table)?.get(key)?.map(|found| found.value().to_vec())))
    }

    /// Shows the entries of a range to `visit`, until it breaks off.
    ///
    /// # Errors
    /// As [`StoreReader::get`]; what was shown until then was right.
    pub(crate) fn range(
        &self,
        table: StoreTable,
        bounds: Bounds<'_>,
        direction: Direction,
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if is_empty(bounds) {
            return Ok(());
        }
        let range = self.store.run(&self.session, "reading", || Ok(self.table(table)?.range::<&[u8]>(bounds)?))?;
        walk(&self.store, &self.session, range, direction, visit)
    }

    fn table(&self, table: StoreTable) -> Result<&ReadOnlyTable<Bytes, Bytes>, redb::Error> {
        let place = &self.tables[table as usize];
        if let Some(open) = place.get() {
            return Ok(open);
        }
        let opened = self.transaction.open_table(table.definition())?;
        Ok(place.get_or_init(|| opened))
    }
}

/// Whether nothing can lie between the bounds.
fn is_empty(bounds: Bounds<'_>) -> bool {
    match bounds {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        _ => false,
    }
}

fn walk(
    store: &Shared,
    session: &Session,
    mut range: Range<'_, Bytes, Bytes>,
    direction: Direction,
    mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    loop {
        let next = store.run(session, "reading", || {
            let next = match direction {
                Direction::Ascending => range.next(),
                Direction::Descending => range.next_back(),
            };
            Ok(next.transpose()?)
        })?;
        // Called outside of `run`: the visitor's panics are its own.
        match next {
            Some((key, value)) if visit(key.value(), value.value()).is_continue() => {}
            _ => return Ok(()),
        }
    }
}

/// The next commit in the making. Dropped without [`StoreWriter::commit`], it leaves nothing behind.
pub(crate) struct StoreWriter {
    /// `None` only while it ends.
    transaction: Option<WriteTransaction>,
    store: Arc<Shared>,
    session: Arc<Session>,
}

impl StoreWriter {
    pub(super) fn new(store: Arc<Shared>, session: Arc<Session>, transaction: WriteTransaction) -> StoreWriter {
        StoreWriter { transaction: Some(transaction), store, session }
    }

    /// Opens one table for changes. Different tables may be open at the same time.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction is lost.
    pub(crate) fn table(&self, table: StoreTable) -> Result<TableWriter<'_>, StoreError> {
        let transaction = self.transaction.as_ref().expect("it is there until it ends");
        let table = self.store.run(&self.session, "writing", || Ok(transaction.open_table(table.definition())?))?;
        Ok(TableWriter { table: Some(table), writer: self })
    }

    /// Makes all changes visible and durable, at once. May take as long as the pace wants; readers do not wait.
    ///
    /// # Errors
    /// [`StoreError`]. After [`StoreError::Io`] the store is as before this transaction or as after it: the next reader
    /// shows which.
    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        let transaction = self.transaction.take().expect("it is there until it ends");
        self.store.run(&self.session, "committing", || Ok(transaction.commit()?))
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        let transaction = self.transaction.take();
        if catch_unwind(AssertUnwindSafe(|| drop(transaction))).is_err() {
            tracing::warn!("a transaction of the derived store did not end in order");
        }
        self.store.writer_ended();
    }
}

/// One table of the commit in the making.
pub(crate) struct TableWriter<'w> {
    /// `None` only while it is dropped.
    table: Option<Table<'w, Bytes, Bytes>>,
    writer: &'w StoreWriter,
}

impl<'w> TableWriter<'w> {
    fn run<T>(
        &mut self,
        what: &'static str,
        call: impl FnOnce(&mut Table<'w, Bytes, Bytes>) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let (store, session) = (&self.writer.store, &self.writer.session);
        let table = self.table.as_mut().expect("it is there until the drop");
        store.run(session, what, || call(table))
    }

    /// The value of a key, as this transaction left it.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction is lost.
    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.run("reading", |table| Ok(table.get(key)?.map(|found: AccessGuard<'_, Bytes>| found.value().to_vec())))
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// As [`TableWriter::get`].
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.run("writing", |table| {
            table.insert(key, value)?;
            Ok(())
        })?;
        self.writer.store.drain(&self.writer.session)
    }

    /// Removes a key; says whether it was there.
    ///
    /// # Errors
    /// As [`TableWriter::get`].
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let was_there = self.run("writing", |table| Ok(table.remove(key)?.is_some()))?;
        self.writer.store.drain(&self.writer.session)?;
        Ok(was_there)
    }

    /// Removes all keys of a range; says how many there were.
    ///
    /// # Errors
    /// As [`TableWriter::get`].
    pub(crate) fn remove_range(&mut self, bounds: Bounds<'_>) -> Result<u64, StoreError> {
        if is_empty(bounds) {
            return Ok(0);
        }
        let mut count = 0;
        self.run("writing", |table| {
            Ok(table.retain_in::<&[u8], _>(bounds, |_, _| {
                count += 1;
                false
            })?)
        })?;
        self.writer.store.drain(&self.writer.session)?;
        Ok(count)
    }

    /// Shows the entries of a range, as this transaction left them, to `visit`, until it breaks off.
    ///
    /// # Errors
    /// As [`TableWriter::get`].
    pub(crate) fn range(
        &mut self,
        bounds: Bounds<'_>,
        direction: Direction,
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if is_empty(bounds) {
            return Ok(());
        }
        let (store, session) = (&self.writer.store, &self.writer.session);
        let table = self.table.as_ref().expect("it is there until the drop");
        let range = store.run(session, "reading", || Ok(table.range::<&[u8]>(bounds)?))?;
        walk(store, session, range, direction, visit)
    }
}

impl Drop for TableWriter<'_> {
    fn drop(&mut self) {
        let table = self.table.take();
        if catch_unwind(AssertUnwindSafe(|| drop(table))).is_err() {
            tracing::warn!("a table of the derived store did not close in order");
        }
    }
}
