//! `anchorlog transaction`: what nobody has decided.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{self, maybe, maybe_time, span};
use super::{CommandError, DONE, PartArgs, Remote, TargetArgs, gather};
use crate::wire::codes::private;
use crate::wire::operate::{
    DecideTransaction, ListTransactions, ShowTransaction, TransactionState, TransactionTold, Transactions,
};

/// Arguments of `anchorlog transaction`.
#[derive(Args, Clone, Debug)]
pub struct TransactionArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows transactions that nobody has decided, the oldest first
    List {
        /// Only of this producer group
        #[arg(long)]
        group: Option<String>,
        /// Only those meant for this topic
        #[arg(long)]
        topic: Option<String>,
        /// Only with this key, or this id of their producer
        #[arg(long)]
        key: Option<String>,
        /// Only those that nobody is asked about any more
        #[arg(long)]
        parked: bool,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Shows one, with its message
    Show {
        /// Its id, or the id of its half message by its place
        id: String,
    },
    /// Lets its message be read; the first verdict counts
    Commit {
        /// As for show
        id: String,
    },
    /// Ends it: nobody will see its message; the first verdict counts
    Rollback {
        /// As for show
        id: String,
    },
}

pub(super) fn run(args: &TransactionArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut remote = args.target.connect()?;
    let as_json = args.target.json;
    match &args.verb {
        Verb::List { group, topic, key, parked, part } => {
            let ask = ListTransactions {
                group: group.clone(),
                topic: topic.clone(),
                key: key.clone(),
                parked: *parked,
                ..ListTransactions::default()
            };
            list(&mut remote, ask, part, as_json, out)
        }
        Verb::Show { id } => show(&mut remote, id, as_json, out),
        Verb::Commit { id } => decide(&mut remote, id, true, as_json, out),
        Verb::Rollback { id } => decide(&mut remote, id, false, as_json, out),
    }
}

fn list(
    remote: &mut Remote,
    ask: ListTransactions,
    part: &PartArgs,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, CommandError> {
    let (transactions, next) = gather(part, |after, limit| {
        let ask = ListTransactions { after, limit: Some(limit), ..ask.clone() };
        let told: Transactions = remote.ask_json(private::TRANSACTION_LIST, &ask)?;
        Ok((told.transactions, told.next))
    })?;
    if as_json {
        output::json(out, &Transactions { transactions, next })?;
        return Ok(DONE);
    }
    let names = ["id", "state", "group", "topic", "message", "keys", "age", "asked", "next asked"];
    let rows = transactions.iter().map(|one| {
        let half = one.half.as_ref();
        [
            one.id.clone(),
            state(one.state).to_owned(),
            maybe(one.group.as_ref()),
            maybe(one.topic.as_ref()),
            half.and_then(|half| half.unique_key.clone()).unwrap_or_default(),
            half.map(|half| half.keys.join(" ")).unwrap_or_default(),
            one.age_ms.map(span).unwrap_or_default(),
            maybe(one.checks),
            maybe_time(one.next_check_ms),
        ]
    });
    output::table(out, names, rows, "every transaction is decided")?;
    output::more(out, next.as_ref())?;
    Ok(DONE)
}

fn show(remote: &mut Remote, id: &str, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let told: TransactionTold = remote.ask_json(private::TRANSACTION_SHOW, &ShowTransaction { id: id.to_owned() })?;
    if as_json {
        output::json(out, &told)?;
        return Ok(DONE);
    }
    output::facts(
        out,
        [
            ("id", told.id.clone()),
            ("state", state(told.state).to_owned()),
            ("group", maybe(told.group.as_ref())),
            ("topic", maybe(told.topic.as_ref())),
            ("queue", maybe(told.queue)),
            ("age", told.age_ms.map(span).unwrap_or_default()),
            ("asked", maybe(told.checks)),
            ("next asked", maybe_time(told.next_check_ms)),
            ("decided", maybe_time(told.decided_ms)),
        ],
    )?;
    if let Some(half) = &told.half {
        output::message(out, half)?;
    }
    if let Some(fault) = told.fault {
        output::facts(out, [("fault", fault)])?;
    }
    Ok(DONE)
}

fn decide(remote: &mut Remote, id: &str, commit: bool, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let ask = DecideTransaction { id: id.to_owned(), commit };
    remote.ask(private::TRANSACTION_DECIDE, &[], &crate::wire::operate::write(&ask))?.done()?;
    let now = if commit { TransactionState::Committed } else { TransactionState::RolledBack };
    if as_json {
        output::json(out, &json!({ "id": id, "state": now }))?;
    } else {
        writeln!(out, "{id} is {}", state(now))?;
    }
    Ok(DONE)
}

fn state(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Pending => "pending",
        TransactionState::Parked => "parked",
        TransactionState::Committed => "committed",
        TransactionState::RolledBack => "rolled back",
    }
}
