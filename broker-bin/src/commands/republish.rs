//! `anchorlog topic republish`: which queue comes next, and how fast. What a step is, the broker says.

use std::io::Write;
use std::time::Duration;

use anchorlog_engine::{Clock, SystemClock};
use clap::Args;
use serde_json::json;

use super::{CommandError, DONE, REFUSED, Remote, output};
use crate::limits;
use crate::wire::codes::{private, response as code};
use crate::wire::operate::{self, RepublishPair, RepublishQueue, RepublishStep, RepublishStepped, Republished};

/// How often it is said how far it is.
const SAY_INTERVAL: Duration = Duration::from_secs(1);
/// Time from one try to the next when the broker is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// How long nothing may go on.
const PATIENCE: Duration = Duration::from_secs(30);
/// Steps in a second, at least: so that a low rate is an even one.
const STEPS_PER_SECOND: u64 = 10;

/// Arguments of `anchorlog topic republish`.
#[derive(Args, Clone, Debug)]
pub(super) struct RepublishArgs {
    /// Whose messages
    topic: String,
    /// The topic that gets them, too; it must be there
    #[arg(long, value_name = "TOPIC")]
    to: String,
    /// For this group only: what it has not consumed, which counts as consumed by then. It must not consume the topic meanwhile, and may
    /// consume the other one
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Messages a second; 0 for as many as can be
    #[arg(long, value_name = "COUNT", default_value = "20000")]
    rate: u64,
    /// Go on behind messages that can never be read again; they are named and counted. Without it, it stops at the first one
    #[arg(long)]
    skip_damaged: bool,
}

/// A queue on its way.
struct OnItsWay {
    queue: RepublishQueue,
    /// Where it is was told by a step.
    begun: bool,
}

impl OnItsWay {
    fn is_done(&self) -> bool {
        self.queue.next >= self.queue.end
    }
}

/// A message that was left behind.
struct Damaged {
    queue: u32,
    offset: u64,
    why: String,
}

/// How far the whole is.
#[derive(Default)]
struct Far {
    total: u64,
    moved: u64,
    gone: u64,
    /// What was left behind.
    damaged: Vec<Damaged>,
    began: Duration,
    said: Duration,
}

pub(super) fn run(
    remote: &mut Remote,
    args: &RepublishArgs,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, CommandError> {
    let clock = SystemClock::new();
    let pair = RepublishPair { from: args.topic.clone(), to: args.to.clone(), group: args.group.clone() };
    let found: Republished = remote.ask_json(private::REPUBLISH_SHOW, &pair)?;
    let mut queues: Vec<_> = found.queues.into_iter().map(|queue| OnItsWay { queue, begun: false }).collect();
    let total = queues.iter().map(|one| one.queue.end.saturating_sub(one.queue.next)).sum();
    let now = clock.monotonic();
    let mut far = Far { total, began: now, said: now, ..Far::default() };
    let limit = match args.rate {
        0 => limits::REPUBLISH_LINKS_MAX,
        rate => usize::try_from(rate / STEPS_PER_SECOND).unwrap_or(usize::MAX).clamp(1, limits::REPUBLISH_LINKS_MAX),
    };
    let mut moved_at = now;
    // The oldest first, so that what the topics' consumers get is about in the order in which it was sent.
    while let Some(next) = queues.iter_mut().filter(|one| !one.is_done()).min_by_key(|one| one.queue.next_ms) {
        if step(remote, &pair, next, (limit, args.skip_damaged), &mut far)? {
            moved_at = clock.monotonic();
        } else if clock.monotonic() > moved_at + PATIENCE {
            return Err(CommandError::Refused(format!("the broker was busy for {} s; {AGAIN}", PATIENCE.as_secs())));
        } else {
            pause(&clock, BUSY_PAUSE);
            look_again(remote, &pair, &mut queues)?;
        }
        if let Some(due_us) = (far.moved * 1_000_000).checked_div(args.rate) {
            pause(&clock, (far.began + Duration::from_micros(due_us)).saturating_sub(clock.monotonic()));
        }
        if clock.monotonic() >= far.said + SAY_INTERVAL {
            far.said = clock.monotonic();
            say(&far, far.said, as_json, out)?;
        }
    }
    finished(args, &far, found.to_queues, as_json, out)
}

const AGAIN: &str = "call this again to go on: nothing is moved twice";

/// Moves some of a queue; false when the broker could not, for now.
fn step(
    remote: &mut Remote,
    pair: &RepublishPair,
    one: &mut OnItsWay,
    (limit, skip_damaged): (usize, bool),
    far: &mut Far,
) -> Result<bool, CommandError> {
    let OnItsWay { queue, begun } = one;
    let ask = RepublishStep {
        pair: pair.clone(),
        queue: queue.queue,
        at: queue.next,
        begun: *begun,
        end: queue.end,
        limit: Some(limit),
        skip_damaged,
    };
    let again = |error| match error {
        CommandError::Refused(what) => CommandError::Refused(format!("{what}; {AGAIN}")),
        CommandError::NoAnswer { broker, what } => CommandError::NoAnswer { broker, what: format!("{what}; {AGAIN}") },
        other => other,
    };
    let answer = remote.ask(private::REPUBLISH_STEP, &[], &operate::write(&ask)).map_err(again)?;
    if answer.code == code::SYSTEM_BUSY {
        return Ok(false);
    }
    let answer = answer.done().map_err(again)?;
    let stepped: RepublishStepped =
        operate::read(&answer.body).map_err(|error| CommandError::Refused(format!("an answer that {error}")))?;
    let went_on = stepped.next > queue.next;
    let is_noted = stepped.moved > 0 || stepped.damaged.is_some();
    (queue.next, queue.next_ms, *begun) = (stepped.next, stepped.next_ms, is_noted);
    if let Some(why) = stepped.damaged {
        far.damaged.push(Damaged { queue: queue.queue, offset: stepped.next.saturating_sub(1), why });
    }
    far.moved += stepped.moved;
    far.gone += stepped.gone.min(far.total);
    Ok(went_on)
}

/// Asks anew how far the queues are: somebody else may have moved some.
fn look_again(remote: &mut Remote, pair: &RepublishPair, queues: &mut [OnItsWay]) -> Result<(), CommandError> {
    let found: Republished = remote.ask_json(private::REPUBLISH_SHOW, pair)?;
    for now in found.queues {
        if let Some(one) = queues.iter_mut().find(|one| one.queue.queue == now.queue) {
            (one.queue.next, one.queue.next_ms, one.begun) = (now.next, now.next_ms, false);
        }
    }
    Ok(())
}

fn pause(clock: &dyn Clock, time: Duration) {
    let until = clock.monotonic() + time;
    while let Some(left) = until.checked_sub(clock.monotonic()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn say(far: &Far, now: Duration, as_json: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    let rate = u128::from(far.moved) * 1000 / (now - far.began).as_millis().max(1);
    if as_json {
        let told = json!({"moved": far.moved, "total": far.total, "gone": far.gone, "damaged": far.damaged.len(), "done": false});
        writeln!(out, "{told}")?;
    } else {
        writeln!(out, "{} of {} messages, {rate}/s", far.moved, far.total)?;
    }
    out.flush()?;
    Ok(())
}

fn finished(
    args: &RepublishArgs,
    far: &Far,
    to_queues: u32,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, CommandError> {
    let RepublishArgs { topic, to, group, .. } = args;
    let outcome = if far.damaged.is_empty() { DONE } else { REFUSED };
    if as_json {
        let left = far.damaged.iter().map(|one| json!({"queue": one.queue, "offset": one.offset, "why": one.why}));
        let told = json!({
            "topic": topic, "to": to, "group": group, "moved": far.moved, "total": far.total, "gone": far.gone, "toQueues": to_queues,
            "damaged": far.damaged.len(), "leftBehind": left.collect::<Vec<_>>(), "done": true,
        });
        output::json(out, &told)?;
        return Ok(outcome);
    }
    let whom =
        group.as_ref().map(|group| format!(", and group {group} is done with them in {topic}")).unwrap_or_default();
    writeln!(out, "{} messages of {topic} stand in the {to_queues} queues of {to}, too{whom}", far.moved)?;
    if far.gone > 0 {
        writeln!(out, "{} were gone before they could be moved: retention has dropped them", far.gone)?;
    }
    if !far.damaged.is_empty() {
        writeln!(out, "{} were left behind, as they cannot be read:", far.damaged.len())?;
    }
    for Damaged { queue, offset, why } in &far.damaged {
        writeln!(out, "  message {offset} of queue {queue}: {why}")?;
    }
    Ok(outcome)
}
