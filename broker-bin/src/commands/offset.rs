//! `anchorlog offset`: how far a group is, and sending it elsewhere. By the requests that the original's tools make.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{self, maybe, maybe_time};
use super::{CommandError, DONE, Query, Remote, TargetArgs, When, loose};
use crate::wire::codes::request as ask;

/// Arguments of `anchorlog offset`.
#[derive(Args, Clone, Debug)]
pub struct OffsetArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows how far a group is in every queue that it has consumed
    Show {
        /// The consumer group
        group: String,
        /// In this topic only
        #[arg(long)]
        topic: Option<String>,
    },
    /// Sends a group to another place, also while it consumes
    Reset {
        /// The consumer group
        group: String,
        /// The topic
        topic: String,
        /// Where to: earliest, latest, or a time such as 2026-11-21T10:00:00Z or now-2h
        #[arg(long, value_name = "PLACE", required_unless_present = "to_offset")]
        to: Option<Place>,
        /// To this offset of one queue
        #[arg(long, value_name = "OFFSET", requires = "queue", conflicts_with = "to")]
        to_offset: Option<u64>,
        /// In this queue only
        #[arg(long)]
        queue: Option<u32>,
        /// Never forward: where the group is before that place already, it stays
        #[arg(long)]
        only_back: bool,
    },
}

/// A place in every queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Earliest,
    Latest,
    At(When),
}

impl FromStr for Place {
    type Err = <When as FromStr>::Err;

    fn from_str(text: &str) -> Result<Place, Self::Err> {
        match text {
            "earliest" => Ok(Place::Earliest),
            "latest" => Ok(Place::Latest),
            time => time.parse().map(Place::At),
        }
    }
}

/// As the request names it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Earliest => f.write_str("0"),
            Place::Latest => f.write_str("-1"),
            Place::At(when) => write!(f, "{}", when.ms),
        }
    }
}

/// How far a group is in a queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    topic: String,
    queue: u64,
    committed: u64,
    next: u64,
    behind: u64,
    /// When the last message was stored that it has consumed.
    last_ms: Option<u64>,
}

pub(super) fn run(args: &OffsetArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut remote = args.target.connect()?;
    let as_json = args.target.json;
    match &args.verb {
        Verb::Show { group, topic } => show(&mut remote, group, topic.as_deref(), as_json, out),
        Verb::Reset { group, topic, to, to_offset, queue, only_back } => {
            let place = to.unwrap_or(Place::Latest);
            let mut query = Query::new(ask::INVOKE_BROKER_TO_RESET_OFFSET)
                .with("group", group)
                .with("topic", topic)
                .with("timestamp", place)
                .with("isForce", !only_back)
                .with("queueId", queue.map_or(-1, i64::from));
            if let Some(offset) = to_offset {
                query = query.with("offset", offset);
            }
            let answer = remote.put(query)?.done()?;
            let rows: Vec<_> = table(&answer.body)?
                .into_iter()
                .map(|(key, offset)| (text(&key["topic"]), number(&key["queueId"]), number(&offset)))
                .collect();
            if as_json {
                let queues: Vec<_> = rows
                    .iter()
                    .map(|(topic, queue, offset)| json!({ "topic": topic, "queue": queue, "offset": offset }))
                    .collect();
                output::json(out, &json!({ "group": group, "queues": queues }))?;
            } else {
                let rows =
                    rows.into_iter().map(|(topic, queue, offset)| [topic, queue.to_string(), offset.to_string()]);
                output::table(out, ["topic", "queue", "goes on at"], rows, "the topic has no queues")?;
            }
            Ok(DONE)
        }
    }
}

fn show(
    remote: &mut Remote,
    group: &str,
    topic: Option<&str>,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, CommandError> {
    let mut query = Query::new(ask::GET_CONSUME_STATS).with("consumerGroup", group);
    if let Some(topic) = topic {
        query = query.with("topic", topic);
    }
    let answer = remote.put(query)?.done()?;
    let row = |(key, value): (Value, Value)| {
        let (committed, next) = (number(&value["consumerOffset"]), number(&value["brokerOffset"]));
        Row {
            topic: text(&key["topic"]),
            queue: number(&key["queueId"]),
            committed,
            next,
            behind: next.saturating_sub(committed),
            last_ms: Some(number(&value["lastTimestamp"])).filter(|ms| *ms > 0),
        }
    };
    let mut rows: Vec<Row> = table(&answer.body)?.into_iter().map(row).collect();
    rows.sort();
    let behind: u64 = rows.iter().map(|row| row.behind).sum();
    if as_json {
        output::json(out, &json!({ "group": group, "behind": behind, "queues": rows }))?;
        return Ok(DONE);
    }
    let any = !rows.is_empty();
    let rows = rows.into_iter().map(|row| {
        let Row { topic, queue, committed, next, behind, last_ms } = row;
        [topic, queue.to_string(), committed.to_string(), next.to_string(), behind.to_string(), maybe_time(last_ms)]
    });
    let names = ["topic", "queue", "committed", "next", "behind", "has come to"];
    output::table(out, names, rows, &format!("group {group} has consumed nothing"))?;
    if any {
        writeln!(out, "{behind} messages behind in all")?;
    }
    Ok(DONE)
}

fn text(value: &Value) -> String {
    maybe(value.as_str())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Queues and what is said of each.
fn table(body: &[u8]) -> Result<Vec<(Value, Value)>, CommandError> {
    let unreadable = || CommandError::Refused("the table of offsets is unreadable".to_owned());
    let mut body = loose::read(body).ok_or_else(unreadable)?;
    let Some(Value::Object(table)) = body.get_mut("offsetTable").map(Value::take) else { return Err(unreadable()) };
    let row = |(key, value): (String, Value)| serde_json::from_str(&key).map(|key| (key, value));
    table.into_iter().map(row).collect::<Result<_, _>>().map_err(|_| unreadable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_ends_or_times() {
        let shown = |text: &str| text.parse::<Place>().map(|place| place.to_string()).ok();
        assert_eq!(shown("earliest").as_deref(), Some("0"));
        assert_eq!(shown("latest").as_deref(), Some("-1"));
        assert_eq!(shown("2023-11-14T22:13:20Z").as_deref(), Some("1700000000000"));
        assert_eq!(shown("first"), None);
    }
}
