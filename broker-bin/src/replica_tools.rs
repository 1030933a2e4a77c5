//! `anchorlog replicas|promote|demote`: asks a node about its part, or to change it, over the replicas' own port.
//!
//! Exit codes: 0 done; 1 refused, or nobody answered.

use std::io::Write;
use std::path::PathBuf;

use anchorlog_replicator::{Control, ControlError};
use clap::Args;

use crate::config::{HostPort, security};

/// Exit code of what was not done.
pub const NOT_DONE: u8 = 1;

/// Which node, and how it is to be convinced.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// Where the node's replicas connect to it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:10912")]
    pub at: HostPort,

    /// File with the key that all replicas share
    #[arg(long, value_name = "FILE")]
    pub replica_key: Option<PathBuf>,

    /// Directory with cert.pem, key.pem and ca.pem
    #[arg(long, value_name = "DIR")]
    pub replica_tls: Option<PathBuf>,
}

/// Arguments of `anchorlog promote`.
#[derive(Args, Clone, Debug)]
pub struct PromoteArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// Lead even though something that was acknowledged may be lost: where too few replicas answer, or this one does not have the most.
    /// Where it leads already, what was changed of members, copies or flush holds at once, though replicas that are away do not know it
    #[arg(long = "unsafe")]
    unsafely: bool,
}

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The key or the certificates.
    #[error(transparent)]
    Security(std::io::Error),
    /// The conversation.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Standard output.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

fn connect(node: &NodeArgs) -> Result<Control, AskError> {
    let security = security(node.replica_key.as_ref(), node.replica_tls.as_ref()).map_err(AskError::Security)?;
    Ok(Control::connect(&node.at.to_string(), &security)?)
}

/// Prints how the set stands, as this node knows it.
///
/// # Errors
/// When it cannot be asked.
pub fn show(node: &NodeArgs, out: &mut impl Write) -> Result<u8, AskError> {
    let status = connect(node)?.status()?;
    let state = &status.state;
    let leader = state.leader.as_ref().map_or_else(|| "nobody known".to_owned(), ToString::to_string);
    writeln!(out, "node        {} ({:?})", state.replica, state.role)?;
    writeln!(out, "leader      {leader}")?;
    writeln!(out, "term        {}", state.promised_term)?;
    writeln!(
        out,
        "promise     {}{}",
        status.policy,
        if status.degraded { "; DEGRADED: the leader alone confirms" } else { "" }
    )?;
    writeln!(out, "committed   {}", status.committed)?;
    if status.given_up_bytes > 0 {
        let bytes = status.given_up_bytes;
        writeln!(out, "given up    {bytes} bytes of earlier logs lie in its store: see `anchorlog log given-up`")?;
    }
    if !status.peers.is_empty() {
        writeln!(out, "{:<16}{:<12}{:<10}{:>20}{:>16}", "replica", "connected", "in sync", "durable", "behind by")?;
        for peer in &status.peers {
            let yes = |it: bool| if it { "yes" } else { "NO" };
            writeln!(
                out,
                "{:<16}{:<12}{:<10}{:>20}{:>16}",
                peer.replica.to_string(),
                yes(peer.connected),
                yes(peer.in_sync),
                peer.durable.to_string(),
                peer.lag_bytes
            )?;
        }
    }
    Ok(0)
}

/// Asks a node to lead.
///
/// # Errors
/// When it cannot be asked.
pub fn promote(args: &PromoteArgs, out: &mut impl Write) -> Result<u8, AskError> {
    let outcome = connect(&args.node)?.promote(args.unsafely)?;
    writeln!(out, "{}", outcome.text)?;
    Ok(if outcome.done { 0 } else { NOT_DONE })
}

/// Asks a leader to hand over.
///
/// # Errors
/// When it cannot be asked.
pub fn demote(node: &NodeArgs, out: &mut impl Write) -> Result<u8, AskError> {
    let outcome = connect(node)?.demote()?;
    writeln!(out, "{}", outcome.text)?;
    Ok(if outcome.done { 0 } else { NOT_DONE })
}
