//! Looking through the messages of a topic, a bounded part at a time.

use anchorlog_engine::{Fetch, FetchStatus, KeyOrder, KeyQuery, Lsn, Message, Queue, QueueOffset, ReadError};

use super::asking::{missing, part, refused, unreadable};
use crate::features::Reply;
use crate::features::topics::{Topic, topic_of};
use crate::limits;
use crate::shared::Shared;

/// What a part tells, and where the next one begins.
pub(super) type Part<T> = (Vec<T>, Option<String>);

/// Which messages are looked for.
pub(super) struct Browse<'a> {
    pub(super) shared: &'a Shared,
    pub(super) topic: &'a Topic,
    /// In this queue only.
    pub(super) queue: Option<u32>,
    /// That were stored at this time or later.
    pub(super) from_ms: Option<u64>,
    /// That were stored before this time.
    pub(super) to_ms: Option<u64>,
    /// Behind this place, as an earlier part said it.
    pub(super) after: Option<&'a str>,
    /// Most of them.
    pub(super) limit: Option<usize>,
    /// They are told with their bodies, so that their bytes count.
    pub(super) whole: bool,
}

/// What lies at a place.
pub(super) enum Found<'m> {
    Message(&'m Message),
    Unreadable { queue: u32, offset: QueueOffset, error: &'m ReadError },
}

/// In each, `tell` says what is told of a message; nothing when it is not asked for.
impl Browse<'_> {
    /// Those with a key, in the order of the log.
    pub(super) fn of_key<T>(
        &self,
        key: &str,
        tell: &mut dyn FnMut(&Message) -> Result<Option<T>, Reply>,
    ) -> Result<Part<T>, Reply> {
        let place =
            |after: &str| after.parse().map(Lsn).map_err(|_| missing(format!("{after} is no place in the log")));
        let mut beyond = self.after.map(place).transpose()?;
        let (limit, mut told, mut looked_at) = (part(self.limit), Vec::new(), 0);
        // One key may have very many messages of other topics.
        while looked_at < limits::OPERATE_SCAN_MAX && told.is_empty() {
            let query = KeyQuery {
                from_ms: self.from_ms.unwrap_or(0),
                to_ms: self.to_ms.map_or(u64::MAX, |to_ms| to_ms.saturating_sub(1)),
                order: KeyOrder::OldestFirst,
                beyond,
                count: limit,
                bytes_max: limits::OPERATE_PART_BYTES,
                ..KeyQuery::new(key.as_bytes())
            };
            let found = self.shared.engine.find(&query).map_err(unreadable)?;
            let Some(last) = found.last() else { return Ok((told, None)) };
            beyond = Some(last.lsn);
            looked_at += found.len();
            for message in found.iter().filter(|message| self.has(message)) {
                told.extend(tell(message)?);
            }
        }
        Ok((told, beyond.map(|lsn| lsn.to_string())))
    }

    /// Whether a message lies where it is looked for.
    pub(super) fn has(&self, message: &Message) -> bool {
        topic_of(&message.queue_name).is_some_and(|(topic, number)| {
            *topic == *self.topic.name && self.queue.is_none_or(|wanted| wanted == number)
        })
    }

    /// All of them, queue by queue.
    pub(super) fn in_order<T>(
        &self,
        tell: &mut dyn FnMut(Found<'_>) -> Result<Option<T>, Reply>,
    ) -> Result<Part<T>, Reply> {
        let (mut number, mut from) = match self.after {
            Some(after) => place(after).ok_or_else(|| missing(format!("{after} is no place in a queue")))?,
            None => (self.queue.unwrap_or(0), None),
        };
        let last = self.queue.unwrap_or(u32::MAX);
        let (mut told, mut looked_at) = (Vec::new(), 0);
        while number < self.topic.config.queues() && number <= last {
            let Some(queue) = queue_of(self.shared, self.topic, number)? else { break };
            let begin = match from.take() {
                Some(from) => from,
                None => self.begin(&queue)?,
            };
            match self.of_queue(&queue, number, begin, tell, &mut told, &mut looked_at)? {
                Some(at) => return Ok((told, Some(format!("{number}.{at}")))),
                None => number += 1,
            }
        }
        Ok((told, None))
    }

    fn begin(&self, queue: &Queue) -> Result<QueueOffset, Reply> {
        match self.from_ms {
            Some(from_ms) => self.shared.engine.offset_by_time(queue, from_ms).map_err(unreadable),
            None => Ok(self.shared.engine.range(queue).min),
        }
    }

    /// Where the next part goes on in this queue; `None` when it is at its end.
    fn of_queue<T>(
        &self,
        queue: &Queue,
        number: u32,
        begin: QueueOffset,
        tell: &mut dyn FnMut(Found<'_>) -> Result<Option<T>, Reply>,
        told: &mut Vec<T>,
        looked_at: &mut usize,
    ) -> Result<Option<QueueOffset>, Reply> {
        let (limit, mut from) = (part(self.limit), begin);
        loop {
            let left = limit - told.len();
            if left == 0 || *looked_at >= limits::OPERATE_SCAN_MAX {
                return Ok(Some(from));
            }
            let fetch = Fetch { messages_max: left, bytes_max: limits::OPERATE_PART_BYTES, ..Fetch::new(queue, from) };
            let outcome = match self.shared.engine.fetch(&fetch) {
                Ok(outcome) => outcome,
                Err(error @ ReadError::Damaged { .. }) => {
                    told.extend(tell(Found::Unreadable { queue: number, offset: from, error: &error })?);
                    from = QueueOffset(from.0 + 1);
                    continue;
                }
                Err(error) => return Err(unreadable(error)),
            };
            match outcome.status {
                FetchStatus::Found | FetchStatus::NoMatch => from = outcome.next,
                FetchStatus::BelowMin => from = outcome.range.min,
                FetchStatus::AtEnd | FetchStatus::BeyondMax => return Ok(None),
                FetchStatus::NeedsDisk => return Err(refused("the disk was not read")),
            }
            *looked_at += outcome.messages.len();
            for message in &outcome.messages {
                if self.to_ms.is_some_and(|to_ms| message.store_time_ms >= to_ms) {
                    return Ok(None);
                }
                told.extend(tell(Found::Message(message))?);
            }
            if !told.is_empty() && self.whole {
                // Bodies are bounded by what one look reads.
                return Ok(Some(from));
            }
        }
    }
}

/// A topic's queue.
pub(super) fn queue_of(shared: &Shared, topic: &Topic, number: u32) -> Result<Option<Queue>, Reply> {
    topic.queue(&shared.engine, number).map(|queue| queue.cloned()).map_err(refused)
}

/// Reads `queue.offset`.
fn place(text: &str) -> Option<(u32, Option<QueueOffset>)> {
    let (queue, offset) = text.split_once('.')?;
    Some((queue.parse().ok()?, Some(QueueOffset(offset.parse().ok()?))))
}
