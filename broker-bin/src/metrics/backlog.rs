//! What the table holds that is to be done: deliveries, transactions that nobody has decided, entries that can never be done.

use anchorlog_engine::ReadError;

use crate::features::transactions::Transaction;
use crate::limits;
use crate::shared::Shared;
use crate::state::entries::{self, due, parked, transaction};

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Messages that are to be delivered at a time.
    pub(super) deliveries: u64,
    /// Half messages whose producers are asked, or will be.
    pub(super) transactions: u64,
    /// Those of which nobody knew, and nobody is asked any more.
    pub(super) parked_transactions: u64,
    /// Entries that wait for an operator.
    pub(super) parked: u64,
}

/// Counts, some entries at a time. `None` when it cannot be read, or the broker stops.
pub(super) fn count(shared: &Shared) -> Option<Backlog> {
    let mut backlog = Backlog::default();
    let mut look = || {
        let due = each(shared, due::PREFIX, |value| backlog.deliveries += u64::from(due::is_delivery(value)))?;
        // Whoever is to be asked may have decided since: only the transaction says.
        let known = each(shared, transaction::PREFIX, |value| match transaction::decode(value) {
            Ok(Transaction::Prepared { .. }) => backlog.transactions += 1,
            Ok(Transaction::Parked { .. }) => backlog.parked_transactions += 1,
            Ok(Transaction::Decided { .. }) | Err(_) => {}
        })?;
        Ok::<_, ReadError>(due && known && each(shared, parked::PREFIX, |_| backlog.parked += 1)?)
    };
    let whole = look();
    matches!(whole, Ok(true)).then_some(backlog)
}

/// Looks at the values behind a prefix; false when the broker stops meanwhile.
fn each(shared: &Shared, prefix: &[u8], mut visit: impl FnMut(&[u8])) -> Result<bool, ReadError> {
    let (mut from, to) = (prefix.to_vec(), entries::end_of(prefix));
    loop {
        if shared.is_closing() {
            return Ok(false);
        }
        let page = shared.engine.snapshot().range(&from, Some(&to), limits::STATE_PAGE_ENTRIES)?;
        page.iter().for_each(|(_, entry)| visit(&entry.value));
        match page.last() {
            Some((last, _)) if page.len() == limits::STATE_PAGE_ENTRIES => from = [last.as_slice(), &[0]].concat(),
            _ => return Ok(true),
        }
    }
}
