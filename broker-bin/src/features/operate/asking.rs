//! From an ask's bytes to an answer's: what all nouns here share.

use std::ops::ControlFlow;

use anchorlog_engine::{BatchError, ReadError, TableEntry, WriteBatch};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::features::{Outcome, Reply, Request, Task, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::operate;

/// Reads an ask and has it done where the disk may be read. What `work` put into the batch counts only if it wants it written.
pub fn answer<T: DeserializeOwned + Send + 'static>(
    shared: &Shared,
    request: &Request<'_>,
    work: fn(&Shared, &T, &mut WriteBatch) -> Result<Outcome, Reply>,
) -> Outcome {
    if shared.is_closing() {
        return Reply::failure(code::SERVICE_NOT_AVAILABLE, "the broker is stopping; nothing was done").into();
    }
    let ask: T = match operate::read(request.body) {
        Ok(ask) => ask,
        Err(error) => return Reply::failure(code::INVALID_PARAMETER, format!("the request {error}")).into(),
    };
    Outcome::Read(Task::new(move |shared, batch| {
        work(shared, &ask, batch).unwrap_or_else(|reply| {
            batch.clear();
            reply.into()
        })
    }))
}

/// A telling as an answer.
#[must_use]
pub fn told(told: &impl Serialize) -> Reply {
    Reply::body(operate::write(told))
}

/// The answer when what was named is not there.
#[must_use]
pub fn missing(remark: impl Into<String>) -> Reply {
    Reply::failure(code::QUERY_NOT_FOUND, remark.into())
}

/// The answer when something cannot be done.
#[must_use]
pub fn refused(remark: impl std::fmt::Display) -> Reply {
    Reply::failure(code::SYSTEM_ERROR, remark.to_string())
}

/// How many a part of a list tells, of what was asked for.
#[must_use]
pub fn part(asked: Option<usize>) -> usize {
    asked.unwrap_or(limits::OPERATE_PART_MAX).clamp(1, limits::OPERATE_PART_MAX)
}

/// How a look through the table ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// There is no more.
    Whole,
    /// There may be: `visit` had enough, or so many entries were looked at as one part may.
    Cut,
}

/// Looks at the table's entries with `from <= key < to`, in their order, without keeping any of them.
pub(super) fn each_entry(
    shared: &Shared,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &TableEntry) -> Result<ControlFlow<()>, Reply>,
) -> Result<Ended, Reply> {
    let (mut from, mut looked_at) = (from.to_vec(), 0);
    while looked_at < limits::OPERATE_SCAN_MAX {
        let page = shared.engine.snapshot().range(&from, Some(to), limits::STATE_PAGE_ENTRIES).map_err(unreadable)?;
        for (key, entry) in &page {
            if visit(key, entry)?.is_break() {
                return Ok(Ended::Cut);
            }
        }
        looked_at += page.len();
        match page.last() {
            Some((last, _)) if page.len() == limits::STATE_PAGE_ENTRIES => from = [last.as_slice(), &[0]].concat(),
            _ => return Ok(Ended::Whole),
        }
    }
    Ok(Ended::Cut)
}

/// What cannot be read now.
pub(super) fn unreadable(error: ReadError) -> Reply {
    refused(error)
}

/// What cannot be put into a batch.
pub(super) fn unbuilt(error: BatchError) -> Reply {
    refused(error)
}
