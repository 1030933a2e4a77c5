//! `anchorlog topic|group|message|offset|transaction|delay|dlq|trace|cluster|user|acl …`: asks a running broker, for operators.
//!
//! 1. A command asks by the broker's ordinary port and touches no file of its log.
//! 2. What was asked for goes to standard output, as a table for people or as JSON for scripts; why it could not be done goes to standard
//!    error.
//! 3. Exit codes: 0 done; 1 refused, not found, or done in part; 2 a wrong call, or no answer.
//! 4. What takes long is asked for in parts, so nothing grows with the number of things that there are but what is printed.
//!
//! Deliberately not here: what asks mean (`features/operate/` and the other rooms), and a second implementation of the protocol.

mod acl;
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
mod user;
mod when;
mod wire;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::config::HostPort;
use crate::features::access::Secret;
use crate::wire::loose;
pub use remote::{Answer, Query, Remote};
pub use when::When;
pub use wire::TlsArgs;

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
    /// Accounts that requests are signed with
    User(user::UserArgs),
    /// What accounts may do with topics and as groups
    Acl(acl::AclArgs),
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

    /// The account to sign with [default: none; or what ANCHORLOG_ACCESS_KEY holds]
    #[arg(long, value_name = "NAME", global = true)]
    pub access_key: Option<String>,

    /// File with its secret key; - for standard input [default: what ANCHORLOG_SECRET_KEY holds]
    #[arg(long, value_name = "FILE", global = true)]
    pub secret_key_file: Option<PathBuf>,

    /// Whether to speak TLS
    #[command(flatten)]
    pub tls: TlsArgs,
}

impl TargetArgs {
    /// Connects.
    ///
    /// # Errors
    /// When nobody is there.
    pub fn connect(&self) -> Result<Remote, CommandError> {
        let signer = self.signer()?;
        let remote = Remote::connect_by(&self.broker, &self.tls)?;
        Ok(match signer {
            Some((name, secret)) => remote.signed_by(&name, secret),
            None => remote,
        })
    }

    /// The account to sign with, if there is one.
    fn signer(&self) -> Result<Option<(String, Secret)>, CommandError> {
        let from_environment = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(name) = self.access_key.clone().or_else(|| from_environment("ANCHORLOG_ACCESS_KEY")) else {
            return Ok(None);
        };
        let secret = match &self.secret_key_file {
            Some(path) => Some(read_secret(path)?),
            None => from_environment("ANCHORLOG_SECRET_KEY"),
        };
        let missing = || CommandError::Usage(format!("no secret key of {name}: give --secret-key-file FILE"));
        Ok(Some((name.clone(), Secret::new(&secret.ok_or_else(missing)?))))
    }
}

/// Reads a secret key, without the blanks around it.
fn read_secret(path: &Path) -> Result<String, CommandError> {
    let read =
        if path == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let text = read.map_err(|error| CommandError::Usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
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
        OperatorCommand::User(args) => user::run(args, out),
        OperatorCommand::Acl(args) => acl::run(args, out),
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
