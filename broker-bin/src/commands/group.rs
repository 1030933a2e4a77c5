//! `anchorlog group`: who is in a consumer group, who differs, and how far it is.

use std::io::Write;

use anchorlog_engine::{Clock, SystemClock};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{self, maybe, span};
use super::{CommandError, DONE, Query, Remote, TargetArgs, loose};
use crate::wire::codes::{private, request as ask};
use crate::wire::operate::{self, DifferenceTold, GroupQueue, GroupTold, MemberTold, SetGroup, ShowGroup};

/// Groups that are asked about at once.
const AT_ONCE: usize = 32;

/// Arguments of `anchorlog group`.
#[derive(Args, Clone, Debug)]
pub struct GroupArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows every group: its members, and how far it is behind
    List,
    /// Shows one: its members, who subscribes something else, and how far it is in each queue
    Show {
        /// Its name
        group: String,
    },
    /// Changes how a group is treated
    Set {
        /// Its name
        group: String,
        /// Whether a consumer that subscribes something else than the members is kept out
        #[arg(long, action = clap::ArgAction::Set)]
        strict: bool,
    },
}

pub(super) fn run(args: &GroupArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut remote = args.target.connect()?;
    let told: GroupTold = match &args.verb {
        Verb::List => return list(&mut remote, args.target.json, out),
        Verb::Show { group } => remote.ask_json(private::GROUP_SHOW, &ShowGroup { group: group.clone() })?,
        Verb::Set { group, strict } => {
            let ask = SetGroup { group: group.clone(), strict: Some(*strict) };
            remote.ask_json(private::GROUP_SET, &ask)?
        }
    };
    if args.target.json {
        output::json(out, &told)?;
    } else {
        print(&told, out)?;
    }
    Ok(DONE)
}

/// A group in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    group: String,
    members: usize,
    behind: u64,
    oldest_ms: Option<u64>,
    strict: bool,
    /// Its members subscribe different things.
    differ: bool,
}

fn summary(told: GroupTold) -> Summary {
    Summary {
        members: told.members.len(),
        behind: behind(&told.queues),
        oldest_ms: told.queues.iter().filter_map(|queue| queue.oldest_ms).min(),
        strict: told.settings.strict,
        differ: !told.differences.is_empty(),
        group: told.group,
    }
}

fn behind(queues: &[GroupQueue]) -> u64 {
    queues.iter().map(|queue| queue.behind).sum()
}

/// For how long something has waited, by this machine's clock.
fn waiting(oldest_ms: Option<u64>) -> String {
    oldest_ms.map(|ms| span(SystemClock::new().wall_ms().saturating_sub(ms))).unwrap_or_default()
}

fn list(remote: &mut Remote, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let answer = remote.put(Query::new(ask::GET_ALL_SUBSCRIPTIONGROUP_CONFIG))?.done()?;
    let unreadable = || CommandError::Refused("the list of groups is unreadable".to_owned());
    let mut body = loose::read(&answer.body).ok_or_else(unreadable)?;
    let Some(Value::Object(table)) = body.get_mut("subscriptionGroupTable").map(Value::take) else {
        return Err(unreadable());
    };
    let asks: Vec<_> = table.into_iter().map(|(group, _)| ShowGroup { group }).collect();
    let mut groups = Vec::new();
    for some in asks.chunks(AT_ONCE) {
        for answer in remote.ask_all_json(private::GROUP_SHOW, some)? {
            // One that was deleted meanwhile is not told.
            if let Ok(answer) = answer.done()
                && let Ok(told) = operate::read(&answer.body)
            {
                groups.push(summary(told));
            }
        }
    }
    if as_json {
        output::json(out, &json!({ "groups": groups }))?;
        return Ok(DONE);
    }
    let rows = groups.iter().map(|group| {
        let differ = if group.differ { "members differ" } else { "" };
        let strict = if group.strict { "strict" } else { "" };
        let marks: Vec<_> = [differ, strict].into_iter().filter(|mark| !mark.is_empty()).collect();
        let (members, behind) = (group.members.to_string(), group.behind.to_string());
        [group.group.clone(), members, behind, waiting(group.oldest_ms), marks.join(", ")]
    });
    output::table(out, ["group", "members", "behind", "for", "note"], rows, "there are no groups")?;
    Ok(DONE)
}

fn print(told: &GroupTold, out: &mut dyn Write) -> std::io::Result<()> {
    let settings = &told.settings;
    let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
    output::facts(
        out,
        [
            ("group", told.group.clone()),
            ("may consume", yes(settings.may_consume)),
            ("strict", yes(settings.strict)),
            ("retries", settings.retry_max.to_string()),
            ("behind", format!("{} messages", behind(&told.queues))),
        ],
    )?;
    writeln!(out)?;
    let names = ["member", "address", "model", "subscriptions"];
    output::table(out, names, told.members.iter().map(member), "no member is connected")?;
    for difference in &told.differences {
        writeln!(out)?;
        output::facts(out, [("MEMBERS DIFFER", format!("in what they subscribe of {}", difference.topic))])?;
        output::table(out, ["expression", "type", "members"], variants(difference), "")?;
    }
    for refused in &told.refused {
        let who = format!("{} at {}: {}", refused.client_id, refused.address, refused.reason);
        output::facts(out, [("KEPT OUT", who)])?;
    }
    writeln!(out)?;
    let names = ["topic", "queue", "committed", "next", "behind", "for", "owner", "by"];
    output::table(out, names, told.queues.iter().map(queue), "it has no queues")
}

fn member(member: &MemberTold) -> [String; 4] {
    let held = member.subscriptions.iter().map(|held| format!("{} {}", held.topic, held.expression));
    let held = held.collect::<Vec<_>>().join("; ");
    [member.client_id.clone(), member.address.clone(), member.model.clone(), held]
}

fn variants(difference: &DifferenceTold) -> impl Iterator<Item = [String; 3]> {
    difference.variants.iter().map(|variant| {
        let expression = variant.expression.clone().unwrap_or_else(|| "(not at all)".to_owned());
        [expression, maybe(variant.kind.as_ref()), variant.members.join(" ")]
    })
}

fn queue(queue: &GroupQueue) -> [String; 8] {
    [
        queue.topic.clone(),
        queue.queue.to_string(),
        maybe(queue.committed),
        queue.max.to_string(),
        queue.behind.to_string(),
        waiting(queue.oldest_ms),
        maybe(queue.owner.as_ref()),
        maybe(queue.owned_by.as_ref()),
    ]
}
