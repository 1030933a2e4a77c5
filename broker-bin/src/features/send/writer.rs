//! From the fields of a send to the batch that it becomes.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use anchorlog_engine::{Append, BatchError, Queue, WriteBatch};

use super::properties::Known;
use super::sending::Sending;
use super::stored::{self, Attributes, Stored};
use crate::counters::Counters;
use crate::features::delay::{self, DueKey, Later, Place};
use crate::features::repeats::{self, Claims, Identity};
use crate::features::topics::RETRY_PREFIX;
use crate::features::transactions::{self, Begun, Wanted};
use crate::features::{Reply, code};
use crate::limits;
use crate::net::ConnectionId;
use crate::shared::Shared;
use crate::state::entries::due::Delivery;
use crate::wire::batch;
use crate::wire::message::{NAME_END, VALUE_END, sys_flag, tag_hash};

/// A send's fields, read.
#[derive(Clone, Copy)]
pub(super) struct Send<'a> {
    pub(super) group: &'a str,
    pub(super) topic: &'a str,
    pub(super) default_topic: &'a str,
    pub(super) default_topic_queues: u32,
    pub(super) queue: i32,
    pub(super) sys_flag: i32,
    pub(super) born_timestamp: i64,
    pub(super) flag: i32,
    pub(super) properties: &'a str,
    pub(super) reconsume_times: i32,
    pub(super) reconsume_max: Option<i32>,
    pub(super) is_batch: bool,
    /// Whatever delay its properties wish, it is a dead letter now.
    pub(super) is_dead: bool,
}

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) peer: SocketAddr,
    pub(super) connection: ConnectionId,
}

/// Fills a batch with the messages of a send.
pub(super) struct Writer<'a> {
    pub(super) shared: &'a Shared,
    pub(super) source: Source,
    pub(super) send: &'a Send<'a>,
    /// The queue's number in its topic.
    pub(super) number: u32,
    pub(super) queue: &'a Queue,
}

/// What a batch was filled with.
pub(super) struct Filled<'a> {
    pub(super) sending: Sending,
    /// The id of its one message.
    pub(super) unique_key: Cow<'a, str>,
    /// The topic that its one message came from, if it is tried again.
    pub(super) retry_topic: Option<&'a str>,
}

/// What one message became.
#[derive(Default)]
struct Written {
    due: Option<DueKey>,
    begun: Option<Box<Begun>>,
    /// It stands where nobody reads it.
    is_hidden: bool,
    /// The hash that it is recognised by there.
    hidden: Option<u32>,
}

impl<'a> Writer<'a> {
    /// Fills `out` with the messages of a send, but for those, by their numbers, that are skipped; or says what of them cannot be stored.
    pub(super) fn fill(
        &self,
        out: &mut WriteBatch,
        body: &[u8],
        is_skipped: &dyn Fn(usize) -> bool,
    ) -> Result<Filled<'a>, Reply> {
        if self.send.is_batch { self.fill_many(out, body, is_skipped) } else { self.fill_one(out, body) }
    }

    fn fill_one(&self, out: &mut WriteBatch, body: &[u8]) -> Result<Filled<'a>, Reply> {
        let (send, shared) = (self.send, self.shared);
        let mut known = Known::default();
        known.read(send.properties);
        if let Some(client_id) = known.asks(send.reconsume_times) {
            // Its first heartbeat may be still to come.
            shared.requesters.note(self.source.connection, client_id);
        }
        let (written, key, identity) = match known.unique_key {
            Some(key) => {
                let written = self.append(out, send.flag, body, &[send.properties], &known, &[])?;
                let identity = self.identity(&known, body, &written);
                (written, Cow::Borrowed(key), identity)
            }
            None => {
                let made = shared.made_keys.next();
                let ending = if known.state.lacks_separator { "\u{2}" } else { "" };
                let added = format!("{ending}UNIQ_KEY{NAME_END}{made}{VALUE_END}");
                known.state.lacks_separator = false;
                let written = self.append(out, send.flag, body, &[send.properties, &added], &known, &[&made])?;
                // Nobody can send again what has a key that nobody knows.
                (written, Cow::Owned(made), None)
            }
        };
        // A level counts before a time, and what has a level cannot be taken back.
        let timed = written.due.filter(|_| known.wish.is_timed(&shared.settings.delay_levels));
        let recall = timed.map(|due| delay::recall_handle(shared, send.topic, due.time_ms, &key).into());
        let counted: fn(&Counters) = match (written.is_hidden, known.half) {
            (false, _) => |_| {},
            (true, true) => |counters| counters.transactions_begun.add(1),
            (true, false) => |counters| counters.messages_delayed.add(1),
        };
        let claims = Claims::one(identity);
        let new = Sending::new(self.number, Some(&key));
        let sending = Sending { due: written.due, begun: written.begun, recall, claims, counted, ..new };
        Ok(Filled { sending, unique_key: key, retry_topic: known.retry_topic })
    }

    fn fill_many(
        &self,
        out: &mut WriteBatch,
        body: &[u8],
        is_skipped: &dyn Fn(usize) -> bool,
    ) -> Result<Filled<'a>, Reply> {
        let outer = self.send.properties;
        let mut identities = Vec::new();
        for (number, inner) in batch::entries(body).enumerate() {
            let illegal = |error| Reply::failure(code::MESSAGE_ILLEGAL, format!("the batch cannot be read: {error}"));
            let inner = inner.map_err(illegal)?;
            if is_skipped(number) {
                continue;
            }
            let own = &*inner.properties;
            if inner.body.is_empty() {
                return Err(Reply::failure(code::MESSAGE_ILLEGAL, "a message of the batch has no body"));
            }
            let mut known = Known::default();
            known.read(own);
            let between = if known.state.lacks_separator && !outer.is_empty() { "\u{2}" } else { "" };
            known.read(outer);
            if !known.wish.is_none() {
                return Err(Reply::failure(code::MESSAGE_ILLEGAL, "a batch is delivered at once; it takes no delays"));
            }
            let written = self.append(out, inner.flag, inner.body, &[own, between, outer], &known, &[])?;
            identities.push(self.identity(&known, inner.body, &written));
        }
        if out.is_empty() {
            return Err(Reply::failure(code::MESSAGE_ILLEGAL, "the batch holds no message"));
        }
        let sending = Sending { claims: Claims::many(identities), ..Sending::new(self.number, None) };
        Ok(Filled { sending, unique_key: Cow::default(), retry_topic: None })
    }

    /// What the message is recognised by when it comes again; `None` when it is new in any case.
    fn identity(&self, known: &Known<'_>, body: &[u8], written: &Written) -> Option<Identity> {
        // A reply goes to somebody who is told once more, and takes the first.
        let is_new = known.is_reply || is_always_new(self.send);
        let key = known.unique_key.filter(|_| self.shared.repeats.is_on() && !is_new)?;
        let hash = self.shared.engine.key_hash(key.as_bytes());
        let print = Identity::print(self.send.topic, key, self.send.reconsume_times, body);
        if known.wish.is_none() && !known.half {
            return Some(Identity { hash, other: None, print });
        }
        let hidden = written.hidden.unwrap_or_else(|| self.shared.engine.key_hash(&repeats::hidden_key(key)));
        // A time that is over by now may not have been when it came first. Half of a transaction is always hidden.
        let other = Some(hash).filter(|_| written.begun.is_none());
        Some(Identity { hash: hidden, other, print })
    }

    /// Adds one message, with the entry that delivers it later if it wants that, or says what of it cannot be stored.
    fn append(
        &self,
        out: &mut WriteBatch,
        flag: i32,
        body: &[u8],
        properties: &[&str],
        known: &Known<'_>,
        more_keys: &[&str],
    ) -> Result<Written, Reply> {
        let illegal = |remark: String| Reply::failure(code::MESSAGE_ILLEGAL, remark);
        let half = self.half(known, more_keys)?;
        let later = self.later(known)?;
        if half.is_some() && later.is_some() {
            return Err(illegal("a message of a transaction takes no delay".to_owned()));
        }
        let half = half.map(|half| (half, half.changed()));
        let changed = half.as_ref().map_or(0, |(_, changed)| changed.len())
            + later.as_ref().map_or(0, |later| later.changed.len() + limits::TIMER_PROPERTY_BYTES);
        let added = known.state.added_bytes(&self.shared.settings.cluster) + changed;
        let properties_bytes = properties.iter().map(|part| part.len()).sum::<usize>() + added;
        if properties_bytes > limits::PROPERTIES_BYTES_MAX {
            return Err(illegal(format!(
                "the properties have {properties_bytes} bytes with the broker's own; at most {} are taken",
                limits::PROPERTIES_BYTES_MAX
            )));
        }
        let stored = Stored {
            sys_flag: self.send.sys_flag & !self.flags_not_kept(known),
            born_timestamp: self.send.born_timestamp,
            born_host: self.source.peer,
            body_bytes: u32::try_from(body.len()).map_err(|_| illegal("the body is too large".to_owned()))?,
            flag,
            reconsume_times: self.send.reconsume_times,
            prepared_offset: 0,
            properties: known.state,
        };
        let mut few = [&b""[..]; 8];
        let mut many = Vec::new();
        let words = known.keys.into_iter().flat_map(|keys| keys.split(' ').filter(|key| !key.is_empty()));
        let all = known.unique_key.into_iter().chain(more_keys.iter().copied()).chain(words).map(str::as_bytes);
        let mut count = 0;
        for key in all {
            if count < few.len() {
                few[count] = key;
            } else {
                if many.is_empty() {
                    many.extend_from_slice(&few);
                }
                many.push(key);
            }
            count += 1;
        }
        let mut payload = [&b""[..]; 4];
        payload[0] = body;
        for (piece, part) in payload[1..].iter_mut().zip(properties) {
            *piece = part.as_bytes();
        }
        let keys = if many.is_empty() { &few[..count] } else { &many };
        let tag = known.tags.map_or(0, tag_hash);
        let attributes = stored.encode();
        let message = Append {
            queue: self.queue,
            tag,
            keys,
            attributes: attributes.as_slice(),
            payload: &payload[..=properties.len()],
        };
        // It is found by its keys where it is read. A producer's own id is what it is recognised by before.
        let own_id = if half.is_some() || later.is_some() { known.unique_key.map(repeats::hidden_key) } else { None };
        let own_id = own_id.as_deref();
        let hidden_key = own_id.as_slice();
        let id_hash = own_id.map(|id| self.shared.engine.key_hash(id));
        if let Some((half, changed)) = half {
            let queue = self.shared.halves.queue(&self.shared.engine);
            let queue = queue.map_err(|error| Reply::failure(code::SYSTEM_ERROR, error.to_string()))?;
            let hidden = Append { queue, keys: hidden_key, ..message };
            let begun = transactions::store(self.shared, out, &hidden, stored, &half, &changed);
            let begun = begun.map_err(|error: BatchError| illegal(error.to_string()))?;
            self.shared.halves.producers.sent_half(self.source.connection, half.group);
            return Ok(Written { begun: Some(begun), is_hidden: true, hidden: id_hash, due: None });
        }
        let Some(later) = later else {
            return out.append(&message).map(|_| Written::default()).map_err(|error| illegal(error.to_string()));
        };
        let place = Delivery {
            record_bytes: 0,
            timed: later.timed,
            topic: self.send.topic,
            queue: self.number,
            tag,
            keys: Place::bounded(keys),
            attributes: &stored::AS_ITS_MESSAGE,
        };
        let queue = self.shared.due.hidden(&self.shared.engine);
        let queue = queue.map_err(|error| Reply::failure(code::SYSTEM_ERROR, error.to_string()))?;
        // What it will say where it is read tells also where that is, and when.
        let attributes = Attributes { stored, changed: later.changed.as_str().into() }.encode();
        let hidden = Append { queue, keys: hidden_key, attributes: &attributes, ..message };
        let due = delay::store(self.shared, out, &hidden, &later, place);
        let due = due.map_err(|error: BatchError| illegal(error.to_string()))?;
        Ok(Written { due: Some(due), is_hidden: true, hidden: id_hash, begun: None })
    }

    /// When it is to be delivered, if not at once.
    fn later(&self, known: &Known<'_>) -> Result<Option<Later>, Reply> {
        if known.wish.is_none() || self.send.is_dead {
            return Ok(None);
        }
        let now_ms = self.shared.engine.clock().wall_ms();
        let later = known.wish.later(&self.shared.settings.delay_levels, self.send.topic, self.number, now_ms);
        later.map_err(|remark| Reply::failure(code::MESSAGE_ILLEGAL, remark))
    }

    /// What it is half of, if it is. A copy that a consumer sends to try a message again is none, whatever its properties still say.
    fn half<'k>(&'k self, known: &Known<'k>, more_keys: &[&'k str]) -> Result<Option<Wanted<'k>>, Reply> {
        let illegal = |remark: &'static str| Reply::failure(code::MESSAGE_ILLEGAL, remark);
        if !known.half {
            let flags = self.send.sys_flag & sys_flag::TRANSACTION_MASK;
            if matches!(flags, sys_flag::TRANSACTION_PREPARED | sys_flag::TRANSACTION_ROLLBACK) {
                return Err(illegal("its flags say that it is half of a transaction, and its properties do not"));
            }
            return Ok(None);
        }
        if self.is_copy(known) {
            return Ok(None);
        }
        if self.send.is_batch {
            return Err(illegal("a batch cannot be half of a transaction"));
        }
        let group = known.group.unwrap_or(self.send.group);
        if group.is_empty() || group.len() > limits::GROUP_BYTES_MAX || group.contains('\0') {
            return Err(illegal("half of a transaction needs a producer group that can be asked"));
        }
        let timeout = known.immunity.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        let timeout = timeout.unwrap_or(self.shared.live.transaction_timeout());
        let now_ms = self.shared.engine.clock().wall_ms();
        Ok(Some(Wanted {
            group,
            topic: self.send.topic,
            queue: self.number,
            keys: known.keys.unwrap_or_default(),
            unique_key: known.unique_key.or(more_keys.first().copied()).unwrap_or_default(),
            ask_ms: now_ms.saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        }))
    }

    fn is_copy(&self, known: &Known<'_>) -> bool {
        let level = known.wish.level.and_then(|level| level.trim().parse::<i64>().ok()).unwrap_or(0);
        self.send.reconsume_times > 0 && level > 0
    }

    /// Bits that the broker sets itself, or that do not hold for what is stored.
    fn flags_not_kept(&self, known: &Known<'_>) -> i32 {
        let hosts = sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6;
        if known.half { hosts | sys_flag::TRANSACTION_MASK } else { hosts }
    }
}

/// What consumers send to be tried again: they make it from what they got, and its id is that message's.
fn is_always_new(send: &Send<'_>) -> bool {
    send.is_dead || send.topic.starts_with(RETRY_PREFIX)
}
