//! Files and names of a real file system: what both real backends do in the same way, by blocking calls.
//!
//! Where the file system refuses `O_DIRECT`, files are opened buffered, and a durable write becomes write + `fdatasync`:
//! file systems that lack direct I/O are also those where `RWF_DSYNC` is least certain to be heeded.
//! Deliberately not here: queues.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::buffer::AlignedBuf;
use super::sys::{self, LockedFile};
use super::{DirLock, IO_ALIGN, IoAction, IoFile, IoOp, OpenMode};
use crate::units::{to_u64, to_usize};

/// One file of a real file system.
struct RealFile {
    file: File,
    direct: bool,
}

impl IoFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        assert_aligned(0, to_usize(len));
        // Asked first: the kernel would end the process.
        if sys::file_bytes_limit().is_some_and(|limit| len > limit) {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        sys::allocate(self.file.as_fd(), len)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        assert_aligned(offset, to_usize(len));
        sys::punch_hole(self.file.as_fd(), offset, len)
    }

    fn read_at(&self, buf: &mut AlignedBuf, offset: u64) -> io::Result<()> {
        assert_aligned(offset, buf.len());
        sys::read_exact_at(self.file.as_fd(), buf, offset)
    }

    fn write_at(&self, buf: &AlignedBuf, offset: u64, durable: bool) -> io::Result<()> {
        write(self.file.as_fd(), self.direct, &[&**buf], offset, durable)
    }

    fn sync(&self) -> io::Result<()> {
        sys::sync_data(self.file.as_fd())
    }

    fn is_direct(&self) -> bool {
        self.direct
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// Refuses what promise "all offsets and lengths are multiples" excludes, before the kernel answers `EINVAL`.
pub(super) fn assert_aligned(offset: u64, len: usize) {
    assert!(
        offset.is_multiple_of(to_u64(IO_ALIGN)) && len.is_multiple_of(IO_ALIGN),
        "I/O of {len} bytes at {offset} is not aligned to {IO_ALIGN}"
    );
}

fn write<S: AsRef<[u8]>>(fd: BorrowedFd<'_>, direct: bool, slices: &[S], offset: u64, durable: bool) -> io::Result<()> {
    assert_aligned(offset, sys::total_len(slices));
    if durable && direct {
        match sys::write_all_at(fd, slices, offset, true) {
            // A kernel or sandbox without the flag: the same promise in two calls.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {}
            result => return result,
        }
    }
    sys::write_all_at(fd, slices, offset, false)?;
    if durable { sys::sync_data(fd) } else { Ok(()) }
}

/// Runs a queued operation to its end on the calling thread.
pub(super) fn run(op: &mut IoOp) -> io::Result<()> {
    let fd = descriptor(&*op.file)?;
    match &mut op.action {
        IoAction::Write { offset, slices, durable } => write(fd, op.file.is_direct(), slices, *offset, *durable),
        IoAction::Read { offset, buf } => {
            assert_aligned(*offset, buf.len());
            sys::read_exact_at(fd, buf, *offset)
        }
        IoAction::SyncData => sys::sync_data(fd),
    }
}

/// The descriptor of a file of a real backend.
pub(super) fn descriptor(file: &dyn IoFile) -> io::Result<BorrowedFd<'_>> {
    file.fd().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the file belongs to another backend"))
}

/// See [`super::IoBackend::open`]. Without `direct`, `O_DIRECT` is not even tried.
pub(super) fn open(path: &Path, mode: OpenMode, direct: bool) -> io::Result<Arc<dyn IoFile>> {
    if mode == OpenMode::ReadOnly {
        return open_to_read(path, direct);
    }
    if !direct {
        let file = open_with(path, mode == OpenMode::CreateNew, mode == OpenMode::CreateNew, 0)?;
        return Ok(Arc::new(RealFile { file, direct: false }));
    }
    match open_with(path, mode == OpenMode::CreateNew, mode == OpenMode::CreateNew, libc::O_DIRECT) {
        Ok(file) => Ok(Arc::new(RealFile { file, direct: true })),
        // The kernel checks the flag after it made the name, so the second try finds the file of the first.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let file = open_with(path, mode == OpenMode::CreateNew, false, 0)?;
            Ok(Arc::new(RealFile { file, direct: false }))
        }
        Err(error) => Err(error),
    }
}

/// The same, for a file that may be somebody else's, or on a file system that takes no writes.
#[expect(clippy::disallowed_methods, reason = "this is the room where durable files are opened")]
fn open_to_read(path: &Path, direct: bool) -> io::Result<Arc<dyn IoFile>> {
    let open = |flags: i32| OpenOptions::new().read(true).custom_flags(flags).open(path);
    if direct {
        match open(libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => return Ok(Arc::new(RealFile { file: other?, direct: true })),
        }
    }
    Ok(Arc::new(RealFile { file: open(0)?, direct: false }))
}

#[expect(clippy::disallowed_methods, reason = "this is the room where durable files are opened")]
fn open_with(path: &Path, create: bool, exclusive: bool, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .create_new(exclusive)
        .truncate(false)
        .custom_flags(flags)
        .open(path)
}

/// See [`super::IoBackend::create_dir_all`].
pub(super) fn create_dir_all(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).collect();
    for path in missing.iter().rev() {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        sync_dir(parent(path))?;
    }
    if missing.is_empty() {
        // An earlier run may have lost power between the creation and this sync. Somebody else's parent directory
        // may be closed to us; then the one who made `dir` answers for it.
        match sync_dir(parent(dir)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    Ok(())
}

/// The directory that holds a name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// See [`super::IoBackend::list`]. Names that are not UTF-8 are not ours, and left out.
pub(super) fn list(dir: &Path) -> io::Result<Vec<String>> {
    names(dir, |kind| kind.is_file())
}

/// See [`super::IoBackend::dirs`].
pub(super) fn dirs(dir: &Path) -> io::Result<Vec<String>> {
    names(dir, |kind| kind.is_dir())
}

fn names(dir: &Path, is_wanted: impl Fn(fs::FileType) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if is_wanted(entry.file_type()?)
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// See [`super::IoBackend::remove_dir`].
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    fs::remove_dir(dir)
}

/// See [`super::IoBackend::rename`].
#[expect(clippy::disallowed_methods, reason = "this is the room where durable names change")]
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// See [`super::IoBackend::remove`].
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// See [`super::IoBackend::sync_dir`].
#[expect(clippy::disallowed_methods, reason = "this is the room where durable names change")]
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    sys::sync_all(File::open(dir)?.as_fd())
}

/// Keeps the lock file locked.
struct RealLock {
    _file: LockedFile,
}

impl DirLock for RealLock {}

/// See [`super::IoBackend::lock`].
pub(super) fn lock(path: &Path) -> io::Result<Box<dyn DirLock>> {
    let file = open_with(path, true, false, 0)?;
    match LockedFile::try_lock(file) {
        Ok(locked) => {
            let mut writer = locked.file();
            writer.set_len(0)?;
            writeln!(writer, "{}", std::process::id())?;
            Ok(Box::new(RealLock { _file: locked }))
        }
        Err((file, error)) if error.kind() == io::ErrorKind::WouldBlock => Err(held(path, &file)),
        Err((_, error)) => Err(error),
    }
}

fn held(path: &Path, file: &File) -> io::Error {
    let mut text = String::new();
    let holder = match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    };
    io::Error::new(io::ErrorKind::WouldBlock, format!("{} is held by {holder}", path.display()))
}

/// Writes a small text beside the log so that readers see all of it or the one before. Not synced: losing it costs nothing.
pub(super) fn replace_text(path: &Path, text: &str) -> io::Result<()> {
    let draft = draft_of(path);
    let mut file = open_with(&draft, true, false, 0)?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    rename(&draft, path)
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}
