//! The file that accounts come from: what it says is put into the table whenever it changes.
//!
//! 1. A file that cannot be understood changes nothing: what it said before goes on to hold, and the log says what is wrong, once.
//! 2. What the file does not say any more is taken away; accounts that were made by hand stay. Where both name one, the file counts.

use std::path::PathBuf;

use super::plain_acl::{self, Plain};
use crate::config::Watched;
use crate::shared::Shared;

/// Why a file's accounts do not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct AclFileError {
    path: String,
    what: String,
}

/// A file of accounts.
#[derive(Debug)]
pub struct AclFile {
    watched: Watched,
    /// Read, and not put into the table yet.
    pending: Option<Plain>,
}

impl AclFile {
    /// This one. It is read, and must be good.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(path: PathBuf) -> Result<AclFile, AclFileError> {
        let mut file = AclFile { watched: Watched::new(vec![path]), pending: None };
        file.read()?;
        Ok(file)
    }

    fn error(&self, what: String) -> AclFileError {
        AclFileError { path: self.watched.paths()[0].display().to_string(), what }
    }

    /// Reads it when it changed.
    fn read(&mut self) -> Result<(), AclFileError> {
        match self.watched.changed() {
            Ok(None) => Ok(()),
            Ok(Some(files)) => {
                let text = std::str::from_utf8(&files[0]).map_err(|_| self.error("it is no text".to_owned()))?;
                self.pending = Some(plain_acl::read(text).map_err(|error| self.error(error.to_string()))?);
                Ok(())
            }
            Err(error) => Err(self.error(error.to_string())),
        }
    }

    /// Looks whether it changed, and puts what it says into the state; the state's own pace brings it into the log. For whoever writes the
    /// state, no other.
    pub fn look(&mut self, shared: &Shared) {
        if let Err(error) = self.read() {
            shared.counters.access_reloads_failed.add(1);
            tracing::error!(%error, "the accounts are as they were");
        }
        if let Some(plain) = self.pending.take() {
            take_over(shared, plain);
        }
    }

    /// The next look puts all that it says into the state again: that of another opening of the log.
    pub fn forget(&mut self) {
        self.watched.forget();
    }
}

fn take_over(shared: &Shared, plain: Plain) {
    let (accounts, state) = (&shared.state.accounts, &shared.state);
    let (mut put, mut removed) = (0u64, 0u64);
    for (name, account) in accounts.all() {
        if account.from_file && !plain.accounts.contains_key(&name) {
            state.remove_account(&name);
            removed += 1;
        }
    }
    let count = plain.accounts.len();
    for (name, account) in plain.accounts {
        if let Some(before) = accounts.get(&name) {
            if *before == account {
                continue;
            }
            if !before.from_file {
                tracing::warn!(
                    account = &*name,
                    "the file names an account that was made by hand; from now on the file counts"
                );
            }
        }
        state.put_account(&name, account);
        put += 1;
    }
    let trusted = plain.trusted.len();
    let trust_changed = state.set_trusted(plain.trusted);
    if put + removed > 0 || trust_changed {
        shared.counters.access_reloads.add(1);
        tracing::info!(accounts = count, trusted, put, removed, "took over the accounts of the file");
    }
}
