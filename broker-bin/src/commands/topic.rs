//! `anchorlog topic`: by the requests that the original's tools make.

use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{self, maybe_time};
use super::{Answer, CommandError, DONE, Query, Remote, TargetArgs, loose, republish};
use crate::wire::codes::request as ask;

/// Topics that are asked about at once.
const AT_ONCE: usize = 64;
/// Who may read and write, as clients number it.
const READ_WRITE: u8 = 6;

/// Arguments of `anchorlog topic`.
#[derive(Args, Clone, Debug)]
pub struct TopicArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows every topic
    List {
        /// Also the broker's own: retries, dead letters, templates
        #[arg(long)]
        all: bool,
    },
    /// Shows one: its settings, and what lies in each queue
    Show {
        /// Its name
        topic: String,
    },
    /// Makes one; done as well when it is there and just so
    Create {
        /// Its name
        topic: String,
        /// Its queues
        #[arg(long, value_name = "COUNT", default_value = "8")]
        queues: u32,
        /// What clients may do: 2 write, 4 read, 6 both
        #[arg(long, default_value_t = READ_WRITE)]
        perm: u8,
    },
    /// Deletes one, with all its messages and what groups have consumed of it
    Delete {
        /// Its name
        topic: String,
        /// It is meant
        #[arg(long)]
        yes: bool,
    },
    /// Gives it more queues, while it is in use; what is queued already keeps its order
    Expand {
        /// Its name
        topic: String,
        /// How many it is to have
        #[arg(long, value_name = "COUNT")]
        queues: u32,
    },
    /// Puts what lies in it into another topic too, usually one with more queues, by reference: while both are in use, and nothing twice,
    /// however often this is broken off and called again
    Republish(republish::RepublishArgs),
}

/// A topic as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    topic: String,
    read_queues: u32,
    write_queues: u32,
    perm: u8,
    #[serde(skip)]
    sys_flag: i64,
    #[serde(skip)]
    ordered: bool,
}

pub(super) fn run(args: &TopicArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut remote = args.target.connect()?;
    let as_json = args.target.json;
    match &args.verb {
        Verb::List { all } => list(&mut remote, *all, as_json, out),
        Verb::Show { topic } => show(&mut remote, topic, as_json, out),
        Verb::Create { topic, queues, perm } => {
            create(&mut remote, topic, *queues, *perm)?;
            done(&mut remote, topic, as_json, out)
        }
        Verb::Delete { topic, yes } => delete(&mut remote, topic, *yes, as_json, out),
        Verb::Republish(args) => republish::run(&mut remote, args, as_json, out),
        Verb::Expand { topic, queues } => {
            expand(&mut remote, topic, *queues)?;
            done(&mut remote, topic, as_json, out)
        }
    }
}

fn route(topic: &str) -> Query {
    Query::new(ask::GET_ROUTEINFO_BY_TOPIC).with("topic", topic)
}

/// Reads a route's answer. One broker is asked for its own; where it stands beside others, the first counts.
fn told(topic: &str, answer: &Answer) -> Option<Told> {
    let body = loose::read(&answer.body)?;
    read(topic, body["queueDatas"].as_array()?.first()?)
}

/// Reads what a route and a topic's settings have in common.
fn read(topic: &str, queues: &Value) -> Option<Told> {
    let number = |name: &str| queues[name].as_u64().and_then(|number| u32::try_from(number).ok());
    Some(Told {
        topic: topic.to_owned(),
        read_queues: number("readQueueNums")?,
        write_queues: number("writeQueueNums")?,
        perm: u8::try_from(number("perm")?).ok()?,
        sys_flag: queues["topicSysFlag"].as_i64().unwrap_or(0),
        ordered: queues["order"].as_bool().unwrap_or(false),
    })
}

fn look(remote: &mut Remote, topic: &str) -> Result<Told, CommandError> {
    let answer = remote.put(Query::new(ask::GET_TOPIC_CONFIG).with("topic", topic))?.done()?;
    let settings = loose::read(&answer.body).and_then(|body| read(topic, &body));
    settings.ok_or_else(|| CommandError::Refused(format!("the settings of topic {topic} are unreadable")))
}

fn is_own(topic: &str) -> bool {
    topic.starts_with(['%', '\u{1}']) || crate::features::topics::is_forbidden(topic) || topic == "TBW102"
}

fn list(remote: &mut Remote, all: bool, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let answer = remote.put(Query::new(ask::GET_ALL_TOPIC_LIST_FROM_NAMESERVER))?.done()?;
    let names: Vec<String> = loose::read(&answer.body)
        .and_then(|body| serde_json::from_value(body["topicList"].clone()).ok())
        .ok_or_else(|| CommandError::Refused("the list of topics is unreadable".to_owned()))?;
    let names: Vec<_> = names.into_iter().filter(|name| all || !is_own(name)).collect();
    let mut topics = Vec::new();
    for some in names.chunks(AT_ONCE) {
        let answers = remote.put_all(some.iter().map(|name| route(name)).collect())?;
        // One that was deleted meanwhile is not told.
        topics.extend(some.iter().zip(answers).filter_map(|(name, answer)| told(name, &answer)));
    }
    if as_json {
        output::json(out, &json!({ "topics": topics }))?;
        return Ok(DONE);
    }
    let rows = topics.iter().map(|topic| {
        [topic.topic.clone(), topic.read_queues.to_string(), topic.write_queues.to_string(), permission(topic.perm)]
    });
    output::table(out, ["topic", "read queues", "write queues", "clients may"], rows, "there are no topics")?;
    Ok(DONE)
}

fn permission(perm: u8) -> String {
    let parts = [(4, "read"), (2, "write"), (1, "inherit")];
    let parts: Vec<_> = parts.into_iter().filter(|(bit, _)| perm & bit != 0).map(|(_, name)| name).collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

/// What lies in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueTold {
    queue: u32,
    min: u64,
    max: u64,
    oldest_ms: Option<u64>,
}

fn look_into(remote: &mut Remote, told: &Told) -> Result<Vec<QueueTold>, CommandError> {
    let topic = &told.topic;
    let mut queues = Vec::new();
    for queue in 0..told.read_queues.max(told.write_queues) {
        let about = |code| Query::new(code).with("topic", topic).with("queueId", queue);
        let asks = [ask::GET_MIN_OFFSET, ask::GET_MAX_OFFSET, ask::GET_EARLIEST_MSG_STORETIME].map(about);
        let mut answers = remote.put_all(asks.to_vec())?.into_iter();
        let mut number = |name: &str| match answers.next() {
            Some(answer) => Ok(answer.done()?.fields.get(name).and_then(|text| text.parse::<i64>().ok())),
            None => Ok::<_, CommandError>(None),
        };
        let (min, max, oldest) = (number("offset")?, number("offset")?, number("timestamp")?);
        let known = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        let (min, max) = (known(min).unwrap_or(0), known(max).unwrap_or(0));
        queues.push(QueueTold { queue, min, max, oldest_ms: known(oldest).filter(|_| max > min) });
    }
    Ok(queues)
}

fn messages_in(queues: &[QueueTold]) -> u64 {
    queues.iter().map(|queue| queue.max.saturating_sub(queue.min)).sum()
}

fn show(remote: &mut Remote, topic: &str, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let told = look(remote, topic)?;
    let queues = look_into(remote, &told)?;
    if as_json {
        let mut whole = serde_json::to_value(&told).unwrap_or_default();
        whole["queues"] = json!(queues);
        output::json(out, &whole)?;
        return Ok(DONE);
    }
    let Told { read_queues, write_queues, perm, .. } = &told;
    output::facts(
        out,
        [
            ("topic", topic.to_owned()),
            ("read queues", read_queues.to_string()),
            ("write queues", write_queues.to_string()),
            ("clients may", permission(*perm)),
            ("messages", messages_in(&queues).to_string()),
        ],
    )?;
    let rows = queues.iter().map(|queue| {
        let QueueTold { queue, min, max, oldest_ms } = queue;
        [queue.to_string(), min.to_string(), max.to_string(), (max - min).to_string(), maybe_time(*oldest_ms)]
    });
    output::table(out, ["queue", "first", "next", "messages", "oldest"], rows, "it has no queues")?;
    Ok(DONE)
}

fn delete(remote: &mut Remote, topic: &str, yes: bool, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let told = look(remote, topic)?;
    let messages = messages_in(&look_into(remote, &told)?);
    if !yes {
        let what = format!(
            "topic {topic} has {messages} messages, which nobody could read any more; say --yes if that is meant"
        );
        return Err(CommandError::Usage(what));
    }
    remote.put(Query::new(ask::DELETE_TOPIC_IN_BROKER).with("topic", topic))?.done()?;
    if as_json {
        output::json(out, &json!({ "topic": topic, "messages": messages }))?;
    } else {
        writeln!(out, "topic {topic} is deleted, with {messages} messages")?;
    }
    Ok(DONE)
}

fn put(topic: &str, queues: u32, perm: u8, found: Option<&Told>) -> Query {
    Query::new(ask::UPDATE_AND_CREATE_TOPIC)
        .with("topic", topic)
        .with("defaultTopic", "TBW102")
        .with("readQueueNums", queues)
        .with("writeQueueNums", queues)
        .with("perm", perm)
        .with("topicFilterType", "SINGLE_TAG")
        .with("topicSysFlag", found.map_or(0, |found| found.sys_flag))
        .with("order", found.is_some_and(|found| found.ordered))
}

fn create(remote: &mut Remote, topic: &str, queues: u32, perm: u8) -> Result<(), CommandError> {
    match look(remote, topic) {
        Ok(found) if found.perm == perm && (found.read_queues, found.write_queues) == (queues, queues) => Ok(()),
        Ok(found) => {
            let Told { read_queues, write_queues, perm, .. } = found;
            let what = format!(
                "topic {topic} exists with {read_queues} read queues, {write_queues} write queues and perm {perm}; more queues: anchorlog \
                 topic expand"
            );
            Err(CommandError::Refused(what))
        }
        Err(CommandError::Missing(_)) => remote.put(put(topic, queues, perm, None))?.done().map(drop),
        Err(error) => Err(error),
    }
}

fn expand(remote: &mut Remote, topic: &str, queues: u32) -> Result<(), CommandError> {
    let found = look(remote, topic)?;
    let has = found.read_queues.max(found.write_queues);
    if queues < has {
        return Err(CommandError::Refused(format!("topic {topic} has {has} queues; {queues} would be fewer")));
    }
    remote.put(put(topic, queues, found.perm, Some(&found)))?.done().map(drop)
}

/// Shows how it is now.
fn done(remote: &mut Remote, topic: &str, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let told = look(remote, topic)?;
    if as_json {
        let value: Value = serde_json::to_value(&told).unwrap_or_default();
        output::json(out, &value)?;
    } else {
        writeln!(out, "topic {topic} has {} queues; clients may {}", told.write_queues, permission(told.perm))?;
    }
    Ok(DONE)
}
