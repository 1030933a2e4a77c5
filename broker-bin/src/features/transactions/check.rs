//! What falls due for a transaction: a question to its producer, the end of questions, and the end of what is remembered.

use anchorlog_engine::{Advice, BatchError, Link, Lsn, Put, TableEntry, WriteBatch};
use bytes::BytesMut;

use super::half::{Half, NoHalf};
use super::transaction::{Transaction, TransactionId};
use crate::features::delay::{Due, DueKey};
use crate::features::pull::encode_as;
use crate::features::topics::TopicConfig;
use crate::limits;
use crate::net::ConnectionId;
use crate::shared::Shared;
use crate::state::entries;
use crate::wire::message::MessageId;

/// Where half messages are shown that nobody decided.
const PARKED_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";

/// 39: what became of this half message?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who is asked.
    pub to: Vec<ConnectionId>,
    /// The fields of the request.
    pub fields: Vec<(&'static str, String)>,
    /// The half message, as a client reads it.
    pub body: BytesMut,
}

/// What comes after an entry whose batch was filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// Another entry of the batch, for a later time.
    pub due: Option<DueKey>,
    /// A question, once the batch has its place in the log.
    pub question: Option<Question>,
    /// Nobody is asked any more.
    pub parked: bool,
}

/// Fills a batch with what is to be done about a transaction that was not decided in time: ask and come back, or ask no more. What became
/// of one that is decided is forgotten later. The caller removes the entry itself.
///
/// # Errors
/// Why nothing can ever be done about it.
pub fn ask(shared: &Shared, batch: &mut WriteBatch, due: DueKey, checks: u32, now_ms: u64) -> Result<Next, String> {
    let id = TransactionId::of(&due);
    let key = entries::transaction::encode_key(&id);
    let later = Later { due, interval_ms: millis(shared.live.transaction_check_interval()), now_ms };
    let entry = match shared.engine.get(&key) {
        Ok(Some(entry)) => entry,
        Ok(None) => return Ok(Next::default()),
        Err(_) => return later.come_back(batch, checks),
    };
    match entries::transaction::decode(&entry.value).map_err(|error| error.to_string())? {
        Transaction::Parked { .. } => Ok(Next::default()),
        Transaction::Decided { at_ms, .. } => {
            let forget_ms = at_ms.saturating_add(limits::OUTCOME_KEPT_MS).max(due.time_ms + 1);
            later.put(batch, forget_ms, &Due::Forget { id })
        }
        Transaction::Prepared { group } => {
            let target = entry.target.ok_or("it refers to no half message")?;
            let half = match Half::read(&shared.engine, target) {
                Ok(half) => Some(half),
                Err(NoHalf::Read(error)) if error.advice() == Advice::Retry => return later.come_back(batch, checks),
                Err(_) => None,
            };
            let half = match half {
                Some(half) if checks < shared.live.transaction_check_max() => half,
                half => return park(shared, batch, &key, &entry, &group, half.as_ref()),
            };
            let to = shared.halves.producers.to_ask(&group);
            let asked = if to.is_empty() { checks } else { checks + 1 };
            batch.require_value(&key, &entry.value).map_err(|error| error.to_string())?;
            let next = later.come_back(batch, asked)?;
            Ok(Next { question: question(shared, &half, to), ..next })
        }
    }
}

/// Fills a batch that forgets what became of a transaction.
///
/// # Errors
/// Never for an entry that this broker wrote.
pub fn forget(batch: &mut WriteBatch, id: &TransactionId) -> Result<Next, String> {
    batch.delete(&entries::transaction::encode_key(id)).map_err(|error| error.to_string())?;
    Ok(Next::default())
}

/// When to come back.
struct Later {
    due: DueKey,
    interval_ms: u64,
    now_ms: u64,
}

impl Later {
    fn come_back(&self, batch: &mut WriteBatch, checks: u32) -> Result<Next, String> {
        // Never under the key that is removed.
        let time_ms = self.now_ms.saturating_add(self.interval_ms).max(self.due.time_ms + 1);
        self.put(batch, time_ms, &Due::Ask { id: TransactionId::of(&self.due), checks })
    }

    fn put(&self, batch: &mut WriteBatch, time_ms: u64, due: &Due) -> Result<Next, String> {
        let key = DueKey { time_ms, ..self.due };
        let (bytes, value) = (entries::due::encode_key(&key), entries::due::encode(due));
        batch.put(&Put { key: &bytes, value: &value, target: None }).map_err(|error| error.to_string())?;
        Ok(Next { due: Some(key), ..Next::default() })
    }
}

fn question(shared: &Shared, half: &Half, to: Vec<ConnectionId>) -> Option<Question> {
    let (topic, queue) = half.place()?;
    let mut body = BytesMut::new();
    if to.is_empty() || !encode_as(&mut body, &half.message, topic, queue, &shared.settings) {
        return None;
    }
    let mut id = String::new();
    MessageId { host: shared.settings.advertise, offset: half.message.lsn.0.cast_signed() }.push_to(&mut id);
    let fields = vec![
        ("topic", topic.to_owned()),
        ("bname", shared.settings.broker.clone()),
        ("tranStateTableOffset", half.message.queue_offset.to_string()),
        ("commitLogOffset", half.message.lsn.to_string()),
        ("msgId", half.unique_key().to_owned()),
        ("transactionId", half.unique_key().to_owned()),
        ("offsetMsgId", id),
    ];
    Some(Question { to, fields, body })
}

/// Asks no more: the half message is kept, and shown where somebody may find it.
fn park(
    shared: &Shared,
    batch: &mut WriteBatch,
    key: &[u8],
    entry: &TableEntry,
    group: &str,
    half: Option<&Half>,
) -> Result<Next, String> {
    if let Some(half) = half {
        let topic = shared.state.get_or_make_topic(PARKED_TOPIC, TopicConfig::open(1));
        let topic = topic.ok_or_else(|| format!("there are too many topics to make {PARKED_TOPIC}"))?;
        let queue = topic.queue(&shared.engine, 0).map_err(|error| error.to_string())?;
        let queue = queue.ok_or_else(|| format!("topic {PARKED_TOPIC} has no queue"))?;
        let link = Link {
            queue,
            target: half.message.reference().into(),
            tag: half.message.tag,
            keys: &half.keys(),
            attributes: half.message.attributes(),
        };
        batch.link(&link).map_err(|error| error.to_string())?;
    }
    let parked = entries::transaction::encode(&Transaction::Parked { group: group.into() });
    let mut fill = || {
        // It refers to the half message as before.
        let target = entry.target.map(|lsn| shared.engine.reference_to(lsn, 0).into());
        batch.require_value(key, &entry.value)?;
        batch.put(&Put { key, value: &parked, target })
    };
    fill().map_err(|error: BatchError| error.to_string())?;
    tracing::error!(
        group,
        half = %entry.target.unwrap_or(Lsn::ZERO),
        id = half.map(Half::unique_key).unwrap_or_default(),
        readable = half.is_some(),
        "nobody decided a transaction; it is kept, and nobody is asked any more: see {PARKED_TOPIC}"
    );
    Ok(Next { parked: true, ..Next::default() })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
