//! Opening, reopening and giving up the derived store's file.
//!
//! A [`Session`] is one opening of the embedded database over the file. Its first failure ends it; the next transaction
//! starts another over the same file, unless the file is damaged: then it gets another name, and nothing more is promised
//! until somebody opens a new store.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use redb::{Database, ReadableDatabase};

use super::layout::StoreIdentity;
use super::pages::{Fault, Pace, Pages, Settings};
use super::tables::{self, StoreReader, StoreWriter};
use crate::io::{IoBackend, IoFile, OpenMode, is_full};
use crate::limits::{STORE_CACHE_BYTES_MIN, STORE_STEP_BYTES};

/// Name of the store's file.
pub(crate) const FILE_NAME: &str = "DERIVED";
/// Name of a file that was found damaged, until the next opening removes it.
pub(crate) const DAMAGED_NAME: &str = "DERIVED.damaged";

/// Why the store could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The kernel refused something. The transaction is lost; the store is as after its last commit (or the one whose
    /// `commit` said this), and the next transaction may succeed.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: Arc<io::Error>,
    },
    /// The content is wrong. Nothing can be had from this store any more; opening it again makes an empty one.
    #[error("{path} is damaged: {what}; it is made anew from the log", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

/// What was there when the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing.
    Fresh,
    /// What an earlier opening left.
    Existing,
    /// Something that could not be used: the store is empty.
    Rebuilt {
        /// What was wrong with it.
        why: String,
    },
}

/// The derived store of one log.
pub(crate) struct Store {
    shared: Arc<Shared>,
}

/// What transactions share with their store.
pub(super) struct Shared {
    backend: Arc<dyn IoBackend>,
    dir: PathBuf,
    path: PathBuf,
    file: Arc<dyn IoFile>,
    settings: Settings,
    cache_bytes: usize,
    session: Mutex<Option<Arc<Session>>>,
    /// Whether a [`StoreWriter`] lives.
    writing: AtomicBool,
    damage: OnceLock<String>,
}

/// One opening of the embedded database.
pub(super) struct Session {
    /// `None` only while it is dropped.
    database: Option<Database>,
    pub(super) pages: Pages,
}

impl Drop for Session {
    fn drop(&mut self) {
        let database = self.database.take();
        // It closes with a commit, for which a damaged file may be no good; then the next opening sees to it.
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::warn!("the derived store did not close in order");
        }
    }
}

impl Store {
    /// Opens the store of `dir`, or makes a new one where there is none, or none that can be used.
    ///
    /// `cache_bytes` bounds the memory for pages, read and to be written; beside it the store takes at most a step of
    /// writes (1 MiB) and 4 bytes for every 4 KiB page of its file.
    ///
    /// # Errors
    /// The kernel's, when the directory cannot be read or a new store cannot be made.
    pub(crate) fn open(
        backend: &Arc<dyn IoBackend>,
        dir: &Path,
        identity: StoreIdentity,
        cache_bytes: usize,
        pace: Pace,
    ) -> Result<(Store, Origin), StoreError> {
        let cache_bytes = cache_bytes.max(STORE_CACHE_BYTES_MIN);
        // Of what waits to be written at a commit, half of the database's cache at most, the pages hold a copy.
        let database_bytes = cache_bytes / 3 * 2;
        let pending_bytes_max = (cache_bytes / 3).max(STORE_STEP_BYTES);
        let settings = Settings { identity, pace, pending_bytes_max };
        let path = dir.join(FILE_NAME);
        let on = |what: &'static str| {
            let path = path.clone();
            move |error| StoreError::Io { what, path, source: Arc::new(error) }
        };
        let names = backend.list(dir).map_err(on("listing the directory of"))?;
        let mut why = None;
        if names.iter().any(|name| name == DAMAGED_NAME) {
            backend.remove(&dir.join(DAMAGED_NAME)).map_err(on("removing what was set aside of"))?;
            why = Some("it was found damaged while it was in use".to_owned());
        }
        let shared = |file, session| Shared {
            backend: Arc::clone(backend),
            dir: dir.to_path_buf(),
            path: path.clone(),
            file,
            settings: settings.clone(),
            cache_bytes: database_bytes,
            session: Mutex::new(Some(Arc::new(session))),
            writing: AtomicBool::new(false),
            damage: OnceLock::new(),
        };
        if names.iter().any(|name| name == FILE_NAME) {
            let file = backend.open(&path, OpenMode::Existing).map_err(on("opening"))?;
            match Session::reopen(&file, &settings, database_bytes) {
                Ok(session) => {
                    // Whoever made the name may have been stopped before it was durable.
                    backend.sync_dir(dir).map_err(on("making durable the name of"))?;
                    return Ok((Store { shared: Arc::new(shared(file, session)) }, Origin::Existing));
                }
                // Space comes back; the content need not be given up for it.
                Err(Fault::Io { what, source }) if is_full(&source) => {
                    return Err(StoreError::Io { what, path: path.clone(), source });
                }
                Err(fault) => why = Some(fault.to_string()),
            }
            backend.remove(&path).map_err(on("removing"))?;
        }
        let file = backend.open(&path, OpenMode::CreateNew).map_err(on("creating"))?;
        let session = Session::create(&file, &settings, database_bytes).map_err(|fault| fault.on(&path))?;
        backend.sync_dir(dir).map_err(on("making durable the name of"))?;
        let origin = match why {
            None => Origin::Fresh,
            Some(why) => {
                tracing::warn!(path = %path.display(), why, "the derived store is made anew from the log");
                Origin::Rebuilt { why }
            }
        };
        Ok((Store { shared: Arc::new(shared(file, session)) }, origin))
    }

    /// A view of the last commit, for as long as the reader lives. What is removed meanwhile keeps its space until then.
    ///
    /// # Errors
    /// [`StoreError`]; after [`StoreError::Io`] it may be tried again.
    pub(crate) fn begin_read(&self) -> Result<StoreReader, StoreError> {
        let session = self.shared.live_session(true)?;
        let begun = self.shared.run(&session, "reading", || Ok(session.database().begin_read()?))?;
        Ok(StoreReader::new(Arc::clone(&self.shared), session, begun))
    }

    /// Begins the one write transaction.
    ///
    /// # Errors
    /// [`StoreError`]; after [`StoreError::Io`] it may be tried again.
    ///
    /// # Panics
    /// When another writer lives: the store has one, the checkpointer.
    pub(crate) fn begin_write(&self) -> Result<StoreWriter, StoreError> {
        let was_writing = self.shared.writing.swap(true, Ordering::AcqRel);
        assert!(!was_writing, "the derived store has one writer at a time");
        let begin = || {
            let session = self.shared.live_session(false)?;
            let begun = self.shared.run(&session, "writing", || {
                let mut transaction = session.database().begin_write()?;
                // Promise 4.
                transaction.set_quick_repair(true);
                Ok(transaction)
            })?;
            Ok(StoreWriter::new(Arc::clone(&self.shared), session, begun))
        };
        begin().inspect_err(|_| self.shared.writer_ended())
    }

    /// What was found wrong with the content, if anything was.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.shared.damage.get().map(String::as_str)
    }

    /// Lets the file grow by what a transaction like the last one takes, so that the next need not find the disk full. No failure: it may
    /// find room then.
    pub(crate) fn keep_room(&self) {
        if let Some(session) = &*self.shared.lock_session()
            && let Err(error) = session.pages.keep_room()
        {
            tracing::debug!(%error, "no room is kept for the next checkpoint");
        }
    }

    /// Bytes that the file takes on disk.
    pub(crate) fn file_bytes(&self) -> u64 {
        match &*self.shared.lock_session() {
            Some(session) => session.pages.file_bytes(),
            // Between two sessions.
            None => self.shared.file.len().unwrap_or(0),
        }
    }
}

impl Drop for Store {
    /// Closes the file here and now: where transactions still live, they fail from now on, so that none of them closes it
    /// later, under the feet of the next store.
    fn drop(&mut self) {
        if let Some(session) = self.shared.lock_session().take()
            && Arc::strong_count(&session) > 1
        {
            let source = Arc::new(io::Error::other("the store was closed"));
            session.pages.retire(Fault::Io { what: "using", source });
        }
    }
}

/// Removes the store of `dir`, durably; what it said comes from the log again.
///
/// # Errors
/// The kernel's.
pub(crate) fn remove(backend: &dyn IoBackend, dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(FILE_NAME);
    let remove = || {
        if backend.list(dir)?.iter().any(|name| name == FILE_NAME) {
            backend.remove(&path)?;
            backend.sync_dir(dir)?;
        }
        Ok(())
    };
    remove().map_err(|source: io::Error| StoreError::Io {
        what: "removing",
        path: path.clone(),
        source: Arc::new(source),
    })
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.shared.path.display())
    }
}

impl Session {
    /// A session over an empty file, with empty tables.
    fn create(file: &Arc<dyn IoFile>, settings: &Settings, cache_bytes: usize) -> Result<Session, Fault> {
        let pages = Pages::create(Arc::clone(file), settings.clone());
        let session = Session::start(pages, cache_bytes)?;
        session.run("making", || {
            let mut transaction = session.database().begin_write()?;
            transaction.set_quick_repair(true);
            tables::create_all(&transaction)?;
            Ok(transaction.commit()?)
        })?;
        Ok(session)
    }

    /// A session over what an earlier one left.
    pub(super) fn reopen(file: &Arc<dyn IoFile>, settings: &Settings, cache_bytes: usize) -> Result<Session, Fault> {
        let session = Session::start(Pages::open(Arc::clone(file), settings.clone())?, cache_bytes)?;
        session.run("opening", || tables::check_all(&session.database().begin_read()?))?;
        Ok(session)
    }

    fn start(pages: Pages, cache_bytes: usize) -> Result<Session, Fault> {
        let opened = judged(&pages, "opening", || {
            Ok(Database::builder().set_cache_size(cache_bytes).create_with_backend(pages.clone())?)
        })?;
        Ok(Session { database: Some(opened), pages })
    }

    pub(super) fn database(&self) -> &Database {
        self.database.as_ref().expect("it is there until the drop")
    }

    pub(super) fn run<T>(&self, what: &'static str, call: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
        judged(&self.pages, what, call)
    }
}

/// Calls the embedded database. What goes wrong ends the use of `pages`; the answer says what it was.
fn judged<T>(pages: &Pages, what: &'static str, call: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
    let fault = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(redb::Error::Io(source))) => Fault::Io { what, source: Arc::new(source) },
        Ok(Err(error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed))) => {
            Fault::Io { what, source: Arc::new(io::Error::other(error.to_string())) }
        }
        Ok(Err(error)) => Fault::Damage(error.to_string()),
        Err(panic) => Fault::Damage(format!("the embedded database gave up: {}", words(&*panic))),
    };
    // Where the pages have failed before, that is why.
    pages.retire(fault.clone());
    Err(pages.fault().cloned().unwrap_or(fault))
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (None, Some(words)) => words,
        (None, None) => "it did not say why",
    }
}

impl Shared {
    fn lock_session(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the embedded database of `session`.
    pub(super) fn run<T>(
        &self,
        session: &Session,
        what: &'static str,
        call: impl FnOnce() -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        session.run(what, call).map_err(|fault| self.report(fault))
    }

    /// As [`Shared::run`], for calls of the adapter.
    pub(super) fn drain(&self, session: &Session) -> Result<(), StoreError> {
        self.run(session, "writing", || Ok(session.pages.drain()?))
    }

    pub(super) fn writer_ended(&self) {
        self.writing.store(false, Ordering::Release);
    }

    /// The session that works, a new one if the last has failed. A reader does not start one while a writer holds the old.
    fn live_session(&self, for_reading: bool) -> Result<Arc<Session>, StoreError> {
        if let Some(what) = self.damage.get() {
            return Err(Fault::Damage(what.clone()).on(&self.path));
        }
        let mut session = self.lock_session();
        if let Some(live) = &*session {
            match live.pages.fault().cloned() {
                None => return Ok(Arc::clone(live)),
                Some(fault @ Fault::Damage(_)) => return Err(self.report(fault)),
                Some(fault) if for_reading && self.writing.load(Ordering::Acquire) => return Err(self.report(fault)),
                Some(fault) => tracing::warn!(path = %self.path.display(), %fault, "the derived store is opened anew"),
            }
        }
        // Before the new one reads anything: readers of the old one may keep it, but it touches the file no more.
        *session = None;
        let opened = Session::reopen(&self.file, &self.settings, self.cache_bytes);
        let opened = Arc::new(opened.map_err(|fault| self.report(fault))?);
        *session = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Turns a fault into the caller's error; sets a damaged file aside, so that the next opening makes a new one.
    fn report(&self, fault: Fault) -> StoreError {
        if let Fault::Damage(what) = &fault
            && self.damage.set(what.clone()).is_ok()
        {
            tracing::warn!(path = %self.path.display(), what, "the derived store is damaged and set aside");
            let moved = self.backend.rename(&self.path, &self.dir.join(DAMAGED_NAME));
            if let Err(error) = moved.and_then(|()| self.backend.sync_dir(&self.dir)) {
                tracing::warn!(path = %self.path.display(), %error, "the damaged store keeps its name");
            }
        }
        fault.on(&self.path)
    }
}

impl Fault {
    fn on(self, path: &Path) -> StoreError {
        let path = path.to_path_buf();
        match self {
            Fault::Damage(what) => StoreError::Damaged { path, what },
            Fault::Io { what, source } => StoreError::Io { what, path, source },
        }
    }
}
