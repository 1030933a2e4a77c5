//! `anchorlog completion`: what a shell reads to complete the program's words.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{CommandError, DONE};
use crate::config::Cli;

/// Arguments of `anchorlog completion`.
#[derive(Args, Clone, Debug)]
pub struct CompletionArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "anchorlog", &mut script);
    out.write_all(&script)?;
    Ok(DONE)
}
