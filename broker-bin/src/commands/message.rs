//! `anchorlog message`: finding messages.

use std::io::Write;

use clap::{Args, Subcommand};

use super::output::{self, maybe, time};
use super::{CommandError, DONE, PartArgs, Query, Remote, TargetArgs, When, gather};
use crate::wire::codes::{private, request as ask};
use crate::wire::message::{MessageId, Record, properties, property, records};
use crate::wire::operate::{ListMessages, Messages, ShownMessage};

/// Most messages of one key that are shown.
const OF_KEY_MAX: u32 = 1000;

/// Arguments of `anchorlog message`.
#[derive(Args, Clone, Debug)]
pub struct MessageArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows messages of a topic: those with a key or an id, or those of a time
    Find {
        /// The topic
        topic: String,
        /// With this key
        #[arg(long, conflicts_with_all = ["id", "queue", "tag", "after"])]
        key: Option<String>,
        /// With this id of their producer
        #[arg(long, conflicts_with_all = ["queue", "tag", "after"])]
        id: Option<String>,
        /// In this queue only
        #[arg(long)]
        queue: Option<u32>,
        /// With this tag only
        #[arg(long)]
        tag: Option<String>,
        /// Stored at this time or later: 2026-11-21T10:00:00Z, now-2h, or milliseconds since 1970
        #[arg(long, value_name = "TIME")]
        from: Option<When>,
        /// Stored before this time
        #[arg(long, value_name = "TIME")]
        to: Option<When>,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Shows one message, with its properties and body
    Show {
        /// Its id by its place, as the broker gave it to its producer
        id: MessageId,
    },
}

pub(super) fn run(args: &MessageArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut remote = args.target.connect()?;
    let as_json = args.target.json;
    match &args.verb {
        Verb::Show { id } => {
            let answer = remote.put(Query::new(ask::VIEW_MESSAGE_BY_ID).with("offset", id.offset))?.done()?;
            let message = read(&answer.body, true)?.pop();
            let message = message.ok_or_else(|| CommandError::Missing(format!("there is no message {id}")))?;
            if as_json {
                output::json(out, &message)?;
            } else {
                output::message(out, &message)?;
            }
        }
        Verb::Find { topic, key, id, queue, tag, from, to, part } => {
            let (from_ms, to_ms) = (from.map(|from| from.ms), to.map(|to| to.ms));
            let named = key.as_ref().map(|key| (key, false)).or(id.as_ref().map(|id| (id, true)));
            let found = match named {
                Some((key, unique)) => {
                    let limit = part.limit.min(usize::try_from(OF_KEY_MAX).unwrap_or(usize::MAX));
                    of_key(&mut remote, topic, key, unique, (from_ms, to_ms), limit)?
                }
                None => {
                    let ask = ListMessages {
                        topic: topic.clone(),
                        queue: *queue,
                        tag: tag.clone(),
                        from_ms,
                        to_ms,
                        ..ListMessages::default()
                    };
                    of_time(&mut remote, &ask, part)?
                }
            };
            print(&found, as_json, out)?;
        }
    }
    Ok(DONE)
}

fn of_time(remote: &mut Remote, ask: &ListMessages, part: &PartArgs) -> Result<Messages, CommandError> {
    let mut unreadable = 0;
    let (messages, next) = gather(part, |after, limit| {
        let ask = ListMessages { after, limit: Some(limit), ..ask.clone() };
        let told: Messages = remote.ask_json(private::MESSAGE_LIST, &ask)?;
        unreadable += told.unreadable;
        Ok((told.messages, told.next))
    })?;
    Ok(Messages { messages, unreadable, next })
}

fn of_key(
    remote: &mut Remote,
    topic: &str,
    key: &str,
    unique: bool,
    (from_ms, to_ms): (Option<u64>, Option<u64>),
    limit: usize,
) -> Result<Messages, CommandError> {
    let query = Query::new(ask::QUERY_MESSAGE)
        .with("topic", topic)
        .with("key", key)
        .with("maxNum", limit)
        .with("beginTimestamp", from_ms.unwrap_or(0))
        .with("endTimestamp", to_ms.map_or(i64::MAX, |to| i64::try_from(to).unwrap_or(i64::MAX) - 1))
        .with("_UNIQUE_KEY_QUERY", unique);
    match remote.put(query)?.done() {
        Ok(answer) => Ok(Messages { messages: read(&answer.body, false)?, ..Messages::default() }),
        Err(CommandError::Missing(_)) => Ok(Messages::default()),
        Err(error) => Err(error),
    }
}

fn print(found: &Messages, as_json: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    if as_json {
        output::json(out, found)?;
        return Ok(());
    }
    let row = |message: &ShownMessage| {
        [
            message.id.clone(),
            maybe(message.unique_key.as_ref()),
            time(message.stored_ms),
            message.queue.to_string(),
            message.queue_offset.to_string(),
            maybe(message.tag.as_ref()),
            message.keys.join(" "),
            message.body_bytes.to_string(),
        ]
    };
    let names = ["id", "message", "stored", "queue", "offset", "tag", "keys", "bytes"];
    output::table(out, names, found.messages.iter().map(row), "no message is such a one")?;
    if found.unreadable > 0 {
        writeln!(out, "{} messages between them cannot be read; the broker's log says why", found.unreadable)?;
    }
    output::more(out, found.next.as_ref())?;
    Ok(())
}

/// Reads messages as clients do.
fn read(body: &[u8], whole: bool) -> Result<Vec<ShownMessage>, CommandError> {
    let unreadable = |error| CommandError::Refused(format!("the answer's messages are unreadable: {error}"));
    records(body).map(|record| record.map(|record| shown(&record, whole)).map_err(unreadable)).collect()
}

fn shown(record: &Record<'_>, whole: bool) -> ShownMessage {
    use base64::Engine as _;
    let head = &record.head;
    let all = &*record.properties;
    let words = property(all, "KEYS").unwrap_or_default().split(' ');
    ShownMessage {
        id: MessageId { host: head.store_host, offset: head.physical_offset }.to_string(),
        unique_key: property(all, "UNIQ_KEY").map(str::to_owned),
        topic: record.topic.to_string(),
        queue: head.queue_id.cast_unsigned(),
        queue_offset: head.queue_offset.cast_unsigned(),
        lsn: head.physical_offset.cast_unsigned(),
        stored_ms: head.store_timestamp.cast_unsigned(),
        born_ms: head.born_timestamp,
        born_host: head.born_host.to_string(),
        tag: property(all, "TAGS").map(str::to_owned),
        keys: words.filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        attempts: head.reconsume_times,
        body_bytes: record.body.len() as u64,
        flag: head.flag,
        sys_flag: head.sys_flag,
        properties: whole.then(|| properties(all).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
        body: whole.then(|| base64::prelude::BASE64_STANDARD.encode(record.body)),
    }
}
