//! `anchorlog topic|group|message|offset|transaction|delay|dlq|trace|cluster …`: asks a running broker, for operators.
//!
//! 1. A command asks by the broker's ordinary port and touches no file of its log.
//! 2. What was asked for goes to standard output, as a table for people or as JSON for scripts; why it could not be done goes to standard
//!    error.
//! 3. Exit codes: 0 done; 1 refused, not found, or done in part; 2 a wrong call, or no answer.
//! 4. What takes long is asked for in parts, so nothing grows with the number of things that there are but what is printed.
//!
//! Deliberately not here: what asks mean (`features/operate/` and the other rooms), and a second implementation of the protocol.

mod cluster;
mod completion;
mod delay;
mod dlq;
mod group;
mod message;
mod offset;
mod output;
mod remote;
mod republish;
mod topic;
mod trace;
mod transaction;
mod when;

use std::io::Write;

use clap::{Args, Subcommand};

use crate::config::HostPort;
use crate::wire::loose;
pub use remote::{Answer, Query, Remote};
pub use when::When;

/// Exit code: done.
pub const DONE: u8 = 0;
/// Exit code: refused, not found, or done in part.
pub const REFUSED: u8 = 1;
/// Exit code: a wrong call, or no answer.
pub const NO_ANSWER: u8 = 2;

/// What an operator can ask a broker.
#[derive(Clone, Debug, Subcommand)]
pub enum OperatorCommand {
    /// Topics: shows them, makes them, gives them more queues
    Topic(topic::TopicArgs),
    /// Consumer groups: who is in them, who differs, how far they are
    Group(group::GroupArgs),
    /// Finds messages
    Message(message::MessageArgs),
    /// How far consumer groups are, and sending them elsewhere
    Offset(offset::OffsetArgs),
    /// Shows what became of a message
    Trace(trace::TraceArgs),
    /// Shows which brokers there are
    Cluster(cluster::ClusterArgs),
    /// Transactions that nobody has decided: shows them, and decides them by hand
    Transaction(transaction::TransactionArgs),
    /// Messages that are to be delivered later: shows them, and takes them back
    Delay(delay::DelayArgs),
    /// Dead letters: shows them, returns them, writes them to a file
    Dlq(dlq::DlqArgs),
    /// Prints what a shell needs to complete these words
    Completion(completion::CompletionArgs),
}

/// Whom to ask, and how to tell the answer.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// The broker to ask
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9876", global = true)]
    pub broker: HostPort,

    /// As JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl TargetArgs {
    /// Connects.
    ///
    /// # Errors
    /// When nobody is there.
    pub fn connect(&self) -> Result<Remote, CommandError> {
        Remote::connect(&self.broker)
    }
}

/// Which part of a list to tell.
#[derive(Args, Clone, Debug)]
pub struct PartArgs {
    /// Most of them to show
    #[arg(long, value_name = "COUNT", default_value = "100")]
    pub limit: usize,

    /// Go on behind an earlier answer, which said how
    #[arg(long, value_name = "PLACE")]
    pub after: Option<String>,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The broker says no.
    #[error("{0}")]
    Refused(String),
    /// What was named is not there.
    #[error("{0}")]
    Missing(String),
    /// Nobody answers.
    #[error("no answer from {broker}: {what}")]
    NoAnswer {
        /// Who was asked.
        broker: String,
        /// What came instead.
        what: String,
    },
    /// Words that mean nothing.
    #[error("{0}")]
    Usage(String),
    /// The result cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

impl CommandError {
    /// What the process ends with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Refused(_) | CommandError::Missing(_) => REFUSED,
            CommandError::NoAnswer { .. } | CommandError::Usage(_) | CommandError::Output(_) => NO_ANSWER,
        }
    }
}

/// Does what was asked; says what the process ends with.
///
/// # Errors
/// Why it was not done.
pub fn run(command: &OperatorCommand, out: &mut dyn Write) -> Result<u8, CommandError> {
    match command {
        OperatorCommand::Topic(args) => topic::run(args, out),
        OperatorCommand::Group(args) => group::run(args, out),
        OperatorCommand::Message(args) => message::run(args, out),
        OperatorCommand::Offset(args) => offset::run(args, out),
        OperatorCommand::Trace(args) => trace::run(args, out),
        OperatorCommand::Cluster(args) => cluster::run(args, out),
        OperatorCommand::Completion(args) => completion::run(args, out),
        OperatorCommand::Transaction(args) => transaction::run(args, out),
        OperatorCommand::Delay(args) => delay::run(args, out),
        OperatorCommand::Dlq(args) => dlq::run(args, out),
    }
}

/// Gathers a list by its parts: `part` asks for one, behind a place and of so many, and says where the next begins.
///
/// # Errors
/// Those of `part`.
pub fn gather<T>(
    args: &PartArgs,
    mut part: impl FnMut(Option<String>, usize) -> Result<(Vec<T>, Option<String>), CommandError>,
) -> Result<(Vec<T>, Option<String>), CommandError> {
    let (mut all, mut after) = (Vec::new(), args.after.clone());
    while all.len() < args.limit {
        let (found, next) = part(after, args.limit - all.len())?;
        all.extend(found);
        after = next;
        if after.is_none() {
            break;
        }
    }
    Ok((all, after))
}
