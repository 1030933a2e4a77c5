//! `anchorlog trace`: what became of a message.

use std::io::Write;

use clap::Args;

use super::output::{self, maybe, maybe_time};
use super::{CommandError, DONE, TargetArgs};
use crate::wire::codes::private;
use crate::wire::operate::{ShowTrace, Step, StepKind, Trace};

/// Arguments of `anchorlog trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// The message's id: its producer's, or that of a place where it lies
    id: String,

    /// The topic that clients send their own traces to; none are looked for when it is empty
    #[arg(long, value_name = "TOPIC", default_value = "RMQ_SYS_TRACE_TOPIC")]
    trace_topic: String,

    #[command(flatten)]
    target: TargetArgs,
}

pub(super) fn run(args: &TraceArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let ask = ShowTrace { id: args.id.clone(), trace_topic: Some(args.trace_topic.clone()) };
    let trace: Trace = args.target.connect()?.ask_json(private::TRACE, &ask)?;
    if args.target.json {
        output::json(out, &trace)?;
        return Ok(DONE);
    }
    if let Some(message) = &trace.message {
        let keys = message.keys.join(" ");
        output::facts(out, [("message", maybe(message.unique_key.as_ref())), ("keys", keys)])?;
    }
    let names = ["time", "what", "group", "topic", "queue", "offset", "LSN", "more"];
    output::table(out, names, trace.steps.iter().map(row), "nothing is known of it")?;
    if trace.cut {
        writeln!(out, "there is more than this")?;
    }
    Ok(DONE)
}

fn row(step: &Step) -> [String; 8] {
    [
        maybe_time(step.at_ms),
        what(step.kind).to_owned(),
        maybe(step.group.as_ref()),
        maybe(step.topic.as_ref()),
        maybe(step.queue),
        maybe(step.queue_offset),
        maybe(step.lsn),
        maybe(step.note.as_ref()),
    ]
}

fn what(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Born => "made",
        StepKind::Stored => "stored",
        StepKind::Delayed => "stored for later",
        StepKind::Half => "stored as half",
        StepKind::Committed => "committed",
        StepKind::RolledBack => "rolled back",
        StepKind::Due => "due",
        StepKind::Delivered => "delivered",
        StepKind::Retried => "comes again",
        StepKind::DeadLetter => "dead letter",
        StepKind::Returned => "returned",
        StepKind::Consumed => "consumed",
        StepKind::Waiting => "waits",
        StepKind::ClientSent => "client sent",
        StepKind::ClientBegan => "client began",
        StepKind::ClientDone => "client done",
        StepKind::ClientEnded => "client decided",
    }
}
