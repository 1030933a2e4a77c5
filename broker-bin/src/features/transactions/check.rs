//! What falls due for a transaction: a question to its producer, and the end of questions.

use anchorlog_engine::{Advice, BatchError, Link, Lsn, Put, TableEntry, WriteBatch};
use bytes::BytesMut;

use super::half::{Half, NoHalf};
use super::producers::Whom;
use super::transaction::{NextAsk, Transaction, TransactionId};
use crate::features::delay::DueKey;
use crate::features::pull::encode_as;
use crate::features::topics::TopicConfig;
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
    /// The transaction is asked about again then.
    pub asks: Option<DueKey>,
    /// A question, once the batch has its place in the log.
    pub question: Option<Question>,
    /// Nobody is asked any more.
    pub parked: bool,
}

/// Fills a batch with what is to be done about a transaction whose time has come: ask and come back, or ask no more. Nothing is filled in
/// when nobody is to be asked now. `entry`: what the table says of the transaction.
///
/// # Errors
/// Why nothing can ever be done about it.
pub fn ask(
    shared: &Shared,
    batch: &mut WriteBatch,
    due: DueKey,
    entry: &TableEntry,
    now_ms: u64,
) -> Result<Next, String> {
    match entries::transaction::decode(&entry.value).map_err(|error| error.to_string())? {
        Transaction::Prepared { group, asks: Some(asks) } if asks.at_ms == due.time_ms => {
            decide(shared, batch, due, entry, (&group, asks.checks), now_ms)
        }
        _ => Ok(Next::default()),
    }
}

/// The same for a transaction about which an entry of its own asks, as before format 3; the caller removes that. From now on the
/// transaction's entry says when it is asked about.
///
/// # Errors
/// Why nothing can ever be done about it.
pub fn ask_by_entry(
    shared: &Shared,
    batch: &mut WriteBatch,
    due: DueKey,
    entry: &TableEntry,
    checks: u32,
    now_ms: u64,
) -> Result<Next, String> {
    match entries::transaction::decode(&entry.value).map_err(|error| error.to_string())? {
        Transaction::Prepared { group, asks: None } => decide(shared, batch, due, entry, (&group, checks), now_ms),
        _ => Ok(Next::default()),
    }
}

fn decide(
    shared: &Shared,
    batch: &mut WriteBatch,
    due: DueKey,
    entry: &TableEntry,
    (group, checks): (&str, u32),
    now_ms: u64,
) -> Result<Next, String> {
    let id = TransactionId::of(&due);
    let key = entries::transaction::encode_key(&id);
    let target = entry.target.ok_or("it refers to no half message")?;
    // A verdict from now on needs what the entry says then.
    drop(shared.halves.recent.take(target, |_| true));
    let half = Half::read(&shared.engine, target);
    let is_unread = matches!(&half, Err(NoHalf::Read(error)) if error.advice() == Advice::Retry);
    let half = half.ok();
    if !is_unread && (half.is_none() || checks >= shared.live.transaction_check_max()) {
        return park(shared, batch, &key, entry, group, half.as_ref());
    }
    let interval = shared.live.transaction_check_interval();
    let whom = match &half {
        Some(_) => {
            let patience = interval.saturating_mul(shared.live.transaction_check_max());
            shared.halves.producers.to_ask(group, shared.engine.clock().monotonic(), patience)
        }
        None => Whom::default(),
    };
    if whom.none_decides {
        tracing::error!(
            group,
            half = %target,
            "transactions wait to be decided, and no producer of their group that is connected has ever answered a question: \
             those send plain messages under its name, and are asked no more; the transactions are kept until one comes that decides"
        );
    }
    let checks = checks + u32::from(whom.decide);
    // Never at the same time as before.
    let at_ms = now_ms.saturating_add(millis(interval)).max(due.time_ms + 1);
    let asks = Some(NextAsk { at_ms, checks });
    let prepared = entries::transaction::encode(&Transaction::Prepared { group: group.into(), asks });
    put(shared, batch, &key, entry, &prepared).map_err(|error| error.to_string())?;
    let question = half.and_then(|half| question(shared, &half, whom.to));
    Ok(Next { asks: Some(id.due_at(at_ms)), question, parked: false })
}

/// Replaces what a transaction's entry says; it refers to the half message as before.
fn put(
    shared: &Shared,
    batch: &mut WriteBatch,
    key: &[u8],
    entry: &TableEntry,
    value: &[u8],
) -> Result<(), BatchError> {
    let target = entry.target.map(|lsn| shared.engine.reference_to(lsn, 0).into());
    batch.require_value(key, &entry.value)?;
    batch.put(&Put { key, value, target }).map(drop)
}

/// Fills a batch that forgets what became of a transaction.
///
/// # Errors
/// Never for an entry that this broker wrote.
pub fn forget(batch: &mut WriteBatch, id: &TransactionId) -> Result<Next, String> {
    batch.delete(&entries::transaction::encode_key(id)).map_err(|error| error.to_string())?;
    Ok(Next::default())
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
    put(shared, batch, key, entry, &parked).map_err(|error| error.to_string())?;
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
