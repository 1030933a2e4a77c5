//! `anchorlog delay`: what is to be delivered later.

use std::io::Write;

use clap::{Args, Subcommand};

use super::output::{self, time};
use super::{CommandError, DONE, PartArgs, TargetArgs, When, gather};
use crate::wire::codes::private;
use crate::wire::operate::{CancelDelay, DelayKind, Delayed, Delays, ListDelays};

/// Arguments of `anchorlog delay`.
#[derive(Args, Clone, Debug)]
pub struct DelayArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows what is to be delivered, in the order in which it falls due
    List {
        /// Only into this topic
        #[arg(long)]
        topic: Option<String>,
        /// Only with this key, or this id of their producer
        #[arg(long)]
        key: Option<String>,
        /// Due at this time or later: 2026-11-21T10:00:00Z, now, now+10m, or milliseconds since 1970
        #[arg(long, value_name = "TIME")]
        from: Option<When>,
        /// Due before this time
        #[arg(long, value_name = "TIME")]
        to: Option<When>,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Takes back what is not delivered yet: it never is
    Cancel {
        /// Its id, as the list shows it
        id: String,
        /// Also what a group is to get again: cancelled it is lost to it
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(args: &DelayArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut remote = args.target.connect()?;
    match &args.verb {
        Verb::List { topic, key, from, to, part } => {
            let ask = ListDelays {
                topic: topic.clone(),
                key: key.clone(),
                from_ms: from.map(|from| from.ms),
                to_ms: to.map(|to| to.ms),
                ..ListDelays::default()
            };
            let (delays, next) = gather(part, |after, limit| {
                let ask = ListDelays { after, limit: Some(limit), ..ask.clone() };
                let told: Delays = remote.ask_json(private::DELAY_LIST, &ask)?;
                Ok((told.delays, told.next))
            })?;
            if args.target.json {
                output::json(out, &Delays { delays, next })?;
                return Ok(DONE);
            }
            let names = ["id", "due", "kind", "topic", "queue", "keys", "bytes"];
            output::table(out, names, delays.iter().map(row), "nothing is to be delivered later")?;
            output::more(out, next.as_ref())?;
        }
        Verb::Cancel { id, force } => {
            let cancelled: Delayed =
                remote.ask_json(private::DELAY_CANCEL, &CancelDelay { id: id.clone(), force: *force })?;
            if args.target.json {
                output::json(out, &cancelled)?;
            } else {
                writeln!(out, "{id} is cancelled: it was due in {} at {}", cancelled.topic, time(cancelled.due_ms))?;
            }
        }
    }
    Ok(DONE)
}

fn row(delayed: &Delayed) -> [String; 7] {
    let kind = match delayed.kind {
        DelayKind::Level => "level",
        DelayKind::Time => "time",
        DelayKind::Retry => "retry",
    };
    [
        delayed.id.clone(),
        time(delayed.due_ms),
        kind.to_owned(),
        delayed.topic.clone(),
        delayed.queue.to_string(),
        delayed.keys.join(" "),
        delayed.record_bytes.to_string(),
    ]
}
