//! `anchorlog log`: looks at the files of a log, and mends them.
//!
//! 1. Reading tools take no lock: they may run beside a broker. Its tail may move meanwhile, and they say so when it did.
//! 2. Results go to standard output, as text or JSON; what could not be done goes to standard error.
//! 3. Exit codes: 0 whole, or done; 1 damage was found, or is left; 2 it could not be done.
//!
//! Deliberately not here: what damage is, and how it is mended (`anchorlog_engine::audit`).

mod json;
mod text;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anchorlog_engine::audit::{self, Item, RepairError};
use anchorlog_engine::io::IoBackend;
use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::replica::{self, is_one_of_several};
use anchorlog_engine::{Lsn, OpenError};
use anchorlog_replicator::mending::{MendClosedError, mend_closed};
use clap::{Args, Subcommand};

use crate::config::{HostPort, security};
use crate::state::entries::account;

/// Exit code: whole, or done.
pub const WHOLE: u8 = 0;
/// Exit code: damage was found, or is left.
pub const DAMAGED: u8 = 1;
/// Exit code: it could not be done.
pub const NOT_DONE: u8 = 2;

/// Arguments of `anchorlog log`.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// Which tool.
    #[command(subcommand)]
    pub tool: Tool,
}

/// The tools.
#[derive(Clone, Debug, Subcommand)]
pub enum Tool {
    /// Reads everything and names every damaged place; exit code 1 when there is one
    Verify {
        /// Directory of the log
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Shows what the log holds: identity, epochs, segments, kinds of records, queues
    Inspect {
        /// Directory of the log
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Shows frames and records, one a line
    Dump {
        /// Directory of the log
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
        /// The first frame begins here or behind
        #[arg(long, value_name = "LSN", default_value_t = 0)]
        from: u64,
        /// How many frames
        #[arg(long, value_name = "N", default_value_t = 100)]
        count: u64,
        /// How many bytes of each payload
        #[arg(long, value_name = "N", default_value_t = 64)]
        payload_bytes: usize,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Lists the logs that were given up when this one began anew as a replica; they stay until they are deleted by this very command
    GivenUp {
        /// Directory of the log; a broker may have it open
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
        /// Deletes them, for good: what they acknowledged once may be nowhere else
        #[arg(long)]
        delete: bool,
    },
    /// Mends a log that does not open: from a copy, or by giving up a damaged range, or all that lies behind it
    #[command(group = clap::ArgGroup::new("how").required(true).multiple(false))]
    Repair {
        /// Directory of the log; no broker may have it open
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
        /// Takes what is damaged here from this copy of the same log, as far as the copy proves itself
        #[arg(long, value_name = "DIR", group = "how")]
        from_copy: Option<PathBuf>,
        /// Takes what is damaged here from the broker whose replicas connect there, as far as its log proves itself
        #[arg(long, value_name = "HOST:PORT", group = "how")]
        from: Option<HostPort>,
        /// With --from: file with the key that all replicas share
        #[arg(long, value_name = "FILE", requires = "from")]
        replica_key: Option<PathBuf>,
        /// With --from: directory with cert.pem, key.pem and ca.pem
        #[arg(long, value_name = "DIR", requires = "from")]
        replica_tls: Option<PathBuf>,
        /// Ends the log at the first damaged place, which is named by the LSN that `verify` prints: everything behind it is given up
        #[arg(long, value_name = "LSN", group = "how")]
        cut_from: Option<u64>,
        /// Gives up the first damaged range, which is named by the LSN that `verify` prints, and keeps what follows it
        #[arg(long, value_name = "LSN", group = "how")]
        give_up: Option<u64>,
        /// Gives up what is damaged here although the log has replicas: this one is the only copy left. Others that still have it must be
        /// wiped before they meet it again
        #[arg(long)]
        only_copy: bool,
    },
}

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The log cannot be looked at.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Others may have what is damaged here.
    #[error(
        "{path} is one of several replicas of its log, and the others may have what is damaged here: take it from a copy of one of them \
         (--from-copy) or from the running one itself (--from), or remove this directory and let the replica begin anew; where this is the only copy left, say --only-copy",
        path = .0.display()
    )]
    HasReplicas(PathBuf),
    /// The directory cannot be read.
    #[error("reading {path}: {source}", path = path.display())]
    Store {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// It cannot be mended.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// The key or the certificates.
    #[error(transparent)]
    Security(io::Error),
    /// The other broker is of no help.
    #[error(transparent)]
    MendClosed(#[from] MendClosedError),
    /// Nobody takes the result.
    #[error("writing the result: {0}")]
    Output(#[from] io::Error),
}

/// Does what was asked, says it to `out`, and gives back the exit code.
///
/// # Errors
/// When it could not be done.
pub fn run(args: &LogArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let backend = ThreadsBackend::new();
    match &args.tool {
        Tool::Verify { store, json } => verify(&backend, store, *json, out),
        Tool::Inspect { store, json } => {
            let survey = audit::survey(&backend, store)?;
            if *json {
                writeln!(out, "{}", json::inspection(&survey))?;
            } else {
                text::inspection(out, &survey)?;
            }
            Ok(if survey.is_clean() { WHOLE } else { DAMAGED })
        }
        Tool::Dump { store, from, count, payload_bytes, json } => {
            let mut written = Ok(());
            audit::dump(&backend, store, Lsn(*from), *count, &mut |item: Item<'_>| {
                written = if *json {
                    writeln!(out, "{}", json::item(&item, *payload_bytes))
                } else {
                    text::item(out, &item, *payload_bytes)
                };
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            written?;
            Ok(WHOLE)
        }
        Tool::GivenUp { store, delete } => {
            let failed = |source| ToolError::Store { path: store.clone(), source };
            for one in replica::given_up(&backend, store).map_err(failed)? {
                if *delete {
                    replica::forget(&backend, &one).map_err(failed)?;
                }
                let what = if *delete { "deleted" } else { "given up" };
                writeln!(out, "{what}: {}, {} files of {} bytes", one.path.display(), one.files, one.bytes)?;
            }
            Ok(WHOLE)
        }
        Tool::Repair { store, from: Some(from), replica_key, replica_tls, .. } => {
            let security = security(replica_key.as_ref(), replica_tls.as_ref()).map_err(ToolError::Security)?;
            let report = mend_closed(&backend, store, &from.to_string(), &security)?;
            text::mended(out, store, &report)?;
            Ok(if report.after.is_clean() { WHOLE } else { DAMAGED })
        }
        Tool::Repair { store, from_copy, cut_from, give_up, only_copy, .. } => {
            if from_copy.is_none() && !only_copy {
                let several = is_one_of_several(&backend, store);
                if several.map_err(|source| ToolError::Store { path: store.clone(), source })? {
                    return Err(ToolError::HasReplicas(store.clone()));
                }
            }
            repair(&backend, store, from_copy.as_deref(), *cut_from, *give_up, out)
        }
    }
}

/// Damage that keeps a log from being looked at, by the case that it is.
const UNTOLD: [&str; 3] = ["no-manifest", "damaged-manifest", "damaged-side-block"];

fn verify(backend: &dyn IoBackend, store: &Path, as_json: bool, out: &mut dyn Write) -> Result<u8, ToolError> {
    match audit::survey(backend, store) {
        Ok(survey) => {
            if as_json {
                writeln!(out, "{}", json::verdict(&survey))?;
            } else {
                text::verdict(out, store, &survey)?;
            }
            Ok(if survey.is_clean() { WHOLE } else { DAMAGED })
        }
        // Without what says where it begins and ends nothing of a log can be read: that is what there is to say of it.
        Err(error) if error.case().is_some_and(|case| UNTOLD.contains(&case.id)) => {
            if as_json {
                writeln!(out, "{}", serde_json::json!({ "clean": false, "error": error.to_string() }))?;
            } else {
                writeln!(out, "damaged: {error}")?;
            }
            Ok(DAMAGED)
        }
        Err(error) => Err(error.into()),
    }
}

fn repair(
    backend: &dyn IoBackend,
    store: &Path,
    from_copy: Option<&Path>,
    cut_from: Option<u64>,
    give_up: Option<u64>,
    out: &mut dyn Write,
) -> Result<u8, ToolError> {
    if let Some(copy) = from_copy {
        let report = audit::mend_from_copy(backend, store, copy)?;
        text::mended(out, store, &report)?;
        return Ok(if report.after.is_clean() { WHOLE } else { DAMAGED });
    }
    if let Some(lsn) = cut_from {
        let report = audit::cut_from(backend, store, Lsn(lsn))?;
        text::cut(out, &report)?;
    }
    if let Some(lsn) = give_up {
        let report = audit::give_up(backend, store, Lsn(lsn))?;
        text::given_up(out, &report)?;
    }
    let after = audit::survey(backend, store)?;
    text::verdict(out, store, &after)?;
    Ok(if after.is_clean() { WHOLE } else { DAMAGED })
}
/// The part of a record's payload that is shown. Accounts hold secrets: nothing of them is.
fn shown<'a>(name: &[u8], payload: &'a [u8], bytes: usize) -> &'a [u8] {
    let bytes = if name.starts_with(account::PREFIX) { 0 } else { bytes };
    payload.get(..bytes).unwrap_or(payload)
}
