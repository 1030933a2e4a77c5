//! 370: a producer takes a timed message back.

use anchorlog_engine::{BatchError, Rejection, TableEntry, WriteBatch};

use super::due::Due;
use super::recall::Handle;
use crate::features::{Outcome, Reply, Request, Task, Writing, code};
use crate::limits;
use crate::shared::Shared;
use crate::state::entries;

/// 370: removes the entry of a message that is not delivered yet. Answered when that is acknowledged: from then on it never is.
pub fn recall(shared: &Shared, request: &Request<'_>) -> Outcome {
    match try_recall(shared, request) {
        Ok(handle) => Outcome::Read(Task::new(move |shared, batch| take_back(shared, &handle, batch))),
        Err(reply) => reply.into(),
    }
}

/// What the answer to a send tells of a message that can be taken back.
#[must_use]
pub fn recall_handle(shared: &Shared, topic: &str, time_ms: u64, unique_key: &str) -> String {
    super::recall::encode(topic, &shared.settings.broker, time_ms, unique_key)
}

fn try_recall(shared: &Shared, request: &Request<'_>) -> Result<Handle, Reply> {
    if shared.is_closing() {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, "the broker is stopping; nothing was done"));
    }
    let topic = request.required("topic")?;
    let handle = Handle::decode(request.required("recallHandle")?);
    handle
        .filter(|handle| handle.topic == topic && handle.broker == shared.settings.broker)
        .ok_or_else(|| Reply::failure(code::MESSAGE_ILLEGAL, "the handle names no message of this topic and broker"))
}

fn take_back(shared: &Shared, handle: &Handle, batch: &mut WriteBatch) -> Outcome {
    let failed = |remark: String| Outcome::Reply(Reply::failure(code::SYSTEM_ERROR, remark));
    let (key, entry) = match find(shared, handle) {
        Ok(Some(found)) => found,
        Ok(None) => return gone().into(),
        Err(error) => return failed(error.to_string()),
    };
    let mut fill = || {
        batch.require_value(&key, &entry.value)?;
        batch.delete(&key)
    };
    if let Err(error) = fill().map_err(|error: BatchError| error.to_string()) {
        batch.clear();
        return failed(error);
    }
    let reply = Reply::success().with("msgId", &handle.unique_key);
    let counted = |counters: &crate::counters::Counters| counters.messages_recalled.add(1);
    Outcome::Write(Writing {
        reply,
        due: None,
        ends: None,
        again: None,
        letter: None,
        rejected: |_: &Shared, _: &Rejection| gone(),
        counted,
        back: None,
    })
}

fn gone() -> Reply {
    Reply::failure(
        code::SYSTEM_ERROR,
        "no such message waits to be delivered: it is delivered, or was taken back before",
    )
}

/// The message's entry, among those of its time.
fn find(shared: &Shared, handle: &Handle) -> Result<Option<(Vec<u8>, TableEntry)>, anchorlog_engine::ReadError> {
    let snapshot = shared.engine.snapshot();
    let end = entries::due::first_key(handle.time_ms.saturating_add(1));
    let mut from = entries::due::first_key(handle.time_ms).to_vec();
    loop {
        let page = snapshot.range(&from, Some(&end), limits::DUE_PAGE_ENTRIES)?;
        let is_it = |entry: &TableEntry| match entries::due::decode(&entry.value) {
            Ok(Due::Deliver { timed: true, place, .. }) => {
                let key = place.keys.first().is_some_and(|key| **key == *handle.unique_key.as_bytes());
                key && *place.topic == *handle.topic
            }
            _ => false,
        };
        let Some((last, _)) = page.last() else { return Ok(None) };
        from.clone_from(last);
        from.push(0);
        if let Some(found) = page.into_iter().find(|(_, entry)| is_it(entry)) {
            return Ok(Some(found));
        }
    }
}
