//! The derived store: one file in which queues, table and indexes outlive the process, always as they were at one LSN.
//!
//! Promises, numbered so that asserts and tests can cite them:
//! 1. **One commit, one state.** Everything that one [`StoreWriter`] changed becomes visible and durable at once; after a
//!    power failure the store shows the last commit that returned, or the one that was under way. Never a mix, never less.
//! 2. **Found, never guessed.** Damaged pages are found when they are read ([`pages`]) and reported as
//!    [`StoreError::Damaged`], never as other data and never as a panic. The damaged file is set aside, so that the next
//!    opening makes a new one, even if it does not meet the damage again.
//! 3. **Nothing depends on it.** Missing, damaged, of another log or another version: [`Store::open`] makes an empty store
//!    and says why. What was in it comes from the log.
//! 4. **Reopening costs what was read, not what is stored.** The allocation state is part of every commit, so that neither
//!    a clean nor an unclean end is followed by a walk through the file.
//! 5. **Readers wait for nobody.** A [`StoreReader`] sees one commit for as long as it lives, while another is being
//!    written; the writer holds no lock of theirs while it writes, flushes or is paced.
//!
//! ```text
//!  StoreWriter --pages--> embedded database --> Pages: wait, checksum --paced runs--> IoFile
//!  StoreReader --------->  (copy on write)  <-- Pages: compare checksum <------------ IoFile
//! ```
//!
//! After an I/O error a transaction and the readers of that moment fail; the next one opens the file anew, from its last
//! commit. After a failed flush nobody can say what the file holds, so that counts as damage.
//!
//! Deliberately not here: what keys and values mean; when a checkpoint is due.

mod database;
mod layout;
mod pages;
mod peek;
mod tables;
#[cfg(all(test, feature = "sim"))]
mod tests;

pub(crate) use database::{DAMAGED_NAME, FILE_NAME, Origin, Store, StoreError, remove};
pub(crate) use layout::StoreIdentity;
pub(crate) use pages::Pace;
pub(crate) use peek::peek;
pub(crate) use tables::{Bounds, Direction, StoreReader, StoreTable, StoreWriter, TableWriter};
