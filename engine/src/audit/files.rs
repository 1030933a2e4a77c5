//! The files of a log as they are, whole or not. They are only read: a backup need not be one that can be written to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commitlog::manifest::{MANIFEST_NAME, Manifest};
use crate::commitlog::segment::{base_of, file_name};
use crate::commitlog::segments::{base_of_sparse, sparse_name};
use crate::error::OpenError;
use crate::io::{IoBackend, IoFile, OpenMode};
use crate::open::{io_error, open_segment, read_manifest};
use crate::recovery::cases::property;
use crate::units::Lsn;

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What should be there.
    pub expected: String,
    /// What is.
    pub found: String,
}

/// One segment file.
pub(crate) enum FoundSegment {
    Whole(Arc<dyn IoFile>),
    /// Its header block says nothing; its frames may speak for themselves.
    Headless(Arc<dyn IoFile>, Trouble),
    /// It is no segment of this log.
    Foreign(Trouble),
}

/// A manifest, and the segments that it knows of.
pub(crate) struct LogFiles<'a> {
    pub(crate) backend: &'a dyn IoBackend,
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) segments: BTreeMap<Lsn, FoundSegment>,
    /// Segments below the start, of which something survives.
    pub(crate) sparse: BTreeMap<Lsn, FoundSegment>,
    /// Files whose names are those of segments, at places where none begins.
    pub(crate) strays: BTreeMap<Lsn, (PathBuf, Trouble)>,
    /// Segments that have the name of a sparse one still, or already.
    misnamed: BTreeSet<Lsn>,
    /// Whether this very process writes it.
    pub(crate) is_open: bool,
}

impl<'a> LogFiles<'a> {
    /// Opens what is in `dir`.
    pub(crate) fn open(backend: &'a dyn IoBackend, dir: &Path) -> Result<LogFiles<'a>, OpenError> {
        let names = backend.list(dir).map_err(io_error("listing", dir))?;
        let Some(manifest) = read_manifest(backend, dir)? else {
            return Err(match names.iter().find(|name| base_of(name).is_some()) {
                Some(segment) => {
                    let why = format!("{segment} lies beside it");
                    OpenError::Missing { path: dir.join(MANIFEST_NAME), lsn: None, why }
                }
                None => {
                    let source = io::Error::new(io::ErrorKind::NotFound, "neither a manifest nor segments are there");
                    OpenError::Io { what: "looking for a log in", path: dir.to_path_buf(), source }
                }
            });
        };
        LogFiles::with_manifest(backend, dir, manifest)
    }

    /// The same, by another manifest than the one that is there.
    pub(crate) fn with_manifest(
        backend: &'a dyn IoBackend,
        dir: &Path,
        manifest: Manifest,
    ) -> Result<LogFiles<'a>, OpenError> {
        let (mut segments, mut sparse, mut misnamed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut strays = BTreeMap::new();
        for name in &backend.list(dir).map_err(io_error("listing", dir))? {
            let is_sparse = base_of_sparse(name);
            let Some(base) = is_sparse.or_else(|| base_of(name)) else { continue };
            if base < manifest.start && is_sparse.is_none() {
                continue;
            }
            let segment = find_segment(backend, &dir.join(name), base, &manifest)?;
            let is_place = base.0.checked_add(manifest.geometry.data_bytes()).is_some();
            if manifest.geometry.base(base) != base || !is_place {
                let trouble = match segment {
                    FoundSegment::Foreign(trouble) | FoundSegment::Headless(_, trouble) => trouble,
                    FoundSegment::Whole(_) => {
                        Trouble { expected: "a place in the log".to_owned(), found: name.clone() }
                    }
                };
                strays.insert(base, (dir.join(name), trouble));
            } else if base < manifest.start {
                sparse.insert(base, segment);
            } else {
                misnamed.extend(is_sparse);
                segments.insert(base, segment);
            }
        }
        Ok(LogFiles { backend, dir: dir.to_path_buf(), manifest, segments, sparse, strays, misnamed, is_open: false })
    }

    /// Some segments of a log that is open: read gently, for it goes on.
    pub(crate) fn beside(
        backend: &'a dyn IoBackend,
        dir: &Path,
        manifest: Manifest,
        segments: BTreeMap<Lsn, FoundSegment>,
    ) -> LogFiles<'a> {
        let (sparse, strays, misnamed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        LogFiles { backend, dir: dir.to_path_buf(), manifest, segments, sparse, strays, misnamed, is_open: true }
    }

    /// Path of the segment that holds `lsn`.
    pub(crate) fn path(&self, lsn: Lsn) -> PathBuf {
        let base = self.manifest.geometry.base(lsn);
        let is_sparse = base < self.manifest.start || self.misnamed.contains(&base);
        self.dir.join(if is_sparse { sparse_name(base) } else { file_name(base) })
    }

    /// The file that holds `lsn`, or why there is none.
    pub(crate) fn file(&self, lsn: Lsn) -> Result<&Arc<dyn IoFile>, Trouble> {
        match self.segments.get(&self.manifest.geometry.base(lsn)) {
            Some(FoundSegment::Whole(file) | FoundSegment::Headless(file, _)) => Ok(file),
            Some(FoundSegment::Foreign(trouble)) => Err(trouble.clone()),
            None => Err(Trouble { expected: "a segment file".to_owned(), found: "none".to_owned() }),
        }
    }
}

fn find_segment(
    backend: &dyn IoBackend,
    path: &Path,
    base: Lsn,
    manifest: &Manifest,
) -> Result<FoundSegment, OpenError> {
    let open = || backend.open(path, OpenMode::ReadOnly).map_err(io_error("opening", path));
    Ok(match open_segment(backend, path, OpenMode::ReadOnly, base, manifest) {
        Ok(file) => FoundSegment::Whole(file),
        Err(OpenError::Contradiction { what: property::SEGMENT_HEADER, expected, found, .. }) => {
            FoundSegment::Headless(open()?, Trouble { expected, found })
        }
        Err(OpenError::Contradiction { what, expected, found, .. }) => {
            FoundSegment::Foreign(Trouble { expected: format!("{what} {expected}"), found })
        }
        Err(OpenError::Io { what: "reading", source, .. }) => {
            let expected = "a header that can be read".to_owned();
            FoundSegment::Headless(open()?, Trouble { expected, found: source.to_string() })
        }
        Err(error) => return Err(error),
    })
}
