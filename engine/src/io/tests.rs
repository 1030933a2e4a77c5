//! One body for every backend: what the seam promises, asked of each implementation.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::buffer::{AlignedBuf, IoSlice};
use super::threads::ThreadsBackend;
use super::{IO_ALIGN, IoAction, IoBackend, IoCompletion, IoFile, IoOp, IoQueue, OpenMode, Wait};
use crate::units::to_u64;

fn block(fill: u8, count: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(count * IO_ALIGN);
    buf.fill(fill);
    buf
}

fn at(blocks: usize) -> u64 {
    to_u64(blocks * IO_ALIGN)
}

fn reap_all(queue: &mut dyn IoQueue) -> Vec<IoCompletion> {
    let mut out = Vec::new();
    while queue.in_flight() > 0 {
        queue.reap(Wait::One, &mut out);
    }
    out.sort_by_key(|completion| completion.op.token);
    out
}

/// Runs every promise on one backend, in an empty directory that it knows.
fn promises(backend: &Arc<dyn IoBackend>, dir: &Path) {
    names(&**backend, dir);
    files(&**backend, dir);
    holes(&**backend, dir);
    for depth in [1, 4] {
        queues(&**backend, dir, depth);
    }
    locks(&**backend, dir);
}

fn names(backend: &dyn IoBackend, dir: &Path) {
    let deep = dir.join("a/b");
    backend.create_dir_all(&deep).expect("directories can be made");
    backend.create_dir_all(&deep).expect("making them twice is no error");
    assert_eq!(backend.list(&deep).expect("it exists"), Vec::<String>::new());
    for name in ["two", "one"] {
        backend.open(&deep.join(name), OpenMode::CreateNew).expect("it is new");
    }
    assert_eq!(backend.list(&deep).expect("it exists"), ["one", "two"]);
    let again = backend.open(&deep.join("one"), OpenMode::CreateNew).err().expect("it exists already");
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    let missing = backend.open(&deep.join("three"), OpenMode::Existing).err().expect("there is none");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    backend.rename(&deep.join("one"), &deep.join("two")).expect("the target is replaced");
    backend.sync_dir(&deep).expect("names can be synced");
    assert_eq!(backend.list(&deep).expect("it exists"), ["two"]);
    backend.remove(&deep.join("two")).expect("it is there");
    let gone = backend.remove(&deep.join("two")).expect_err("it is gone");
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    assert!(backend.list(&dir.join("nowhere")).is_err());
    assert!(backend.free_bytes(dir).expect("the disk answers") > 0);
}

fn files(backend: &dyn IoBackend, dir: &Path) {
    let file = backend.open(&dir.join("file"), OpenMode::CreateNew).expect("it is new");
    file.allocate(at(4)).expect("there is space");
    assert_eq!(file.len().expect("it is open"), at(4));
    let mut seen = block(9, 4);
    file.read_at(&mut seen, 0).expect("allocated bytes can be read");
    assert!(seen.iter().all(|byte| *byte == 0));
    file.write_at(&block(1, 1), at(1), true).expect("durable writes work");
    file.write_at(&block(2, 1), at(2), false).expect("plain writes work");
    file.sync().expect("syncs work");
    file.read_at(&mut seen, 0).expect("it is all there");
    assert_eq!([seen[0], seen[IO_ALIGN], seen[2 * IO_ALIGN], seen[3 * IO_ALIGN]], [0, 1, 2, 0]);
    let beyond = file.read_at(&mut seen, at(2)).expect_err("the file ends inside the range");
    assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    file.allocate(at(2)).expect("a file can shrink");
    assert_eq!(file.len().expect("it is open"), at(2));
    let read_only = backend.open(&dir.join("file"), OpenMode::ReadOnly).expect("it exists");
    let mut seen = block(9, 2);
    read_only.read_at(&mut seen, 0).expect("it is all there");
    assert_eq!([seen[0], seen[IO_ALIGN]], [0, 1]);
    read_only.write_at(&block(3, 1), 0, true).expect_err("it was opened to be read");
    let missing = backend.open(&dir.join("nothing"), OpenMode::ReadOnly).err().expect("there is none");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    backend.remove(&dir.join("file")).expect("it is there");
}

fn holes(backend: &dyn IoBackend, dir: &Path) {
    let path = dir.join("holes");
    let file = backend.open(&path, OpenMode::CreateNew).expect("it is new");
    file.allocate(at(8)).expect("there is space");
    file.write_at(&block(5, 8), 0, true).expect("durable writes work");
    let before = allocated(&*file);
    match file.punch_hole(at(2), at(3)) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            return skipped(&format!("holes on {} in {}: {error}", backend.kind(), dir.display()));
        }
        punched => punched.expect("the range lies in the file"),
    }
    file.punch_hole(at(3), at(1)).expect("a hole may be punched again");
    file.punch_hole(at(1), 0).expect("nothing is a range too");
    let fills = |count: usize| {
        let mut seen = block(9, count);
        file.read_at(&mut seen, 0).expect("holes can be read");
        seen.chunks(IO_ALIGN).map(|block| block.iter().copied().max().expect("a block has bytes")).collect::<Vec<u8>>()
    };
    assert_eq!(fills(8), [5, 5, 0, 0, 0, 5, 5, 5]);
    assert_eq!(file.len().expect("it is open"), at(8), "the length stays");
    if let (Some(before), Some(after)) = (before, allocated(&*file)) {
        assert_eq!(before - after, at(3), "the file system has the space back");
    }
    file.sync().expect("syncs work");
    file.write_at(&block(6, 1), at(3), true).expect("a hole can be written");
    file.allocate(at(10)).expect("a file can grow");
    assert_eq!(fills(10), [5, 5, 0, 6, 0, 5, 5, 5, 0, 0], "growing keeps what is there");
    backend.remove(&path).expect("it is there");
}

/// Bytes that a real file takes on its disk.
fn allocated(file: &dyn IoFile) -> Option<u64> {
    let stat = nix::sys::stat::fstat(file.fd()?).expect("it is open");
    Some(u64::try_from(stat.st_blocks).expect("blocks are counted from zero") * 512)
}

fn queues(backend: &dyn IoBackend, dir: &Path, depth: usize) {
    let path = dir.join("queued");
    let file = backend.open(&path, OpenMode::CreateNew).expect("it is new");
    file.allocate(at(64)).expect("there is space");
    let mut queue = backend.queue(depth).expect("a queue can be made");
    let mut out = Vec::new();
    queue.reap(Wait::One, &mut out);
    assert!(out.is_empty(), "waiting for nothing ends at once");

    let (mut next, mut completed) = (0_usize, Vec::new());
    while completed.len() < 32 {
        while next < 32 && queue.in_flight() < depth {
            let fill = u8::try_from(next).expect("it is below 32");
            let slices = vec![IoSlice::from_buf(block(fill, 1)), IoSlice::from_buf(block(fill + 100, 1))];
            queue.submit(IoOp::write_durable(to_u64(next), Arc::clone(&file), at(2 * next), slices));
            next += 1;
        }
        queue.reap(if next.is_multiple_of(2) { Wait::One } else { Wait::No }, &mut completed);
    }
    assert!(completed.iter().all(|completion| completion.result.is_ok()));
    let mut tokens: Vec<u64> = completed.iter().map(|completion| completion.op.token).collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..32), "every operation comes back once");

    queue.submit(IoOp::sync_data(0, Arc::clone(&file)));
    let synced = reap_all(&mut *queue);
    assert!(matches!(synced[0].op.action, IoAction::SyncData) && synced[0].result.is_ok());

    for token in 0..depth {
        queue.submit(IoOp::read(to_u64(token), Arc::clone(&file), at(2 * token), block(0, 2)));
    }
    for (token, completion) in reap_all(&mut *queue).into_iter().enumerate() {
        completion.result.expect("it was written");
        let IoAction::Read { buf, .. } = completion.op.action else { panic!("a read comes back as a read") };
        assert_eq!((usize::from(buf[0]), usize::from(buf[IO_ALIGN])), (token, token + 100));
    }

    queue.submit(IoOp::read(0, Arc::clone(&file), at(63), block(0, 2)));
    let short = reap_all(&mut *queue).remove(0).result.expect_err("the file ends inside the range");
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);

    for _ in 0..3 {
        // More files than a table of registered ones may have room for, and files that go away in between.
        for extra in 0..12_u64 {
            let path = dir.join(format!("extra-{extra}"));
            let file = backend.open(&path, OpenMode::CreateNew).expect("it is new");
            queue.submit(IoOp::write(extra, file, 0, vec![block(1, 1).into()]));
            assert!(reap_all(&mut *queue)[0].result.is_ok());
            backend.remove(&path).expect("it is there");
        }
    }

    // Dropping with work in flight neither hangs nor frees what the kernel still reads.
    for token in 0..depth {
        queue.submit(IoOp::write(to_u64(token), Arc::clone(&file), at(token), vec![block(7, 1).into()]));
    }
    drop(queue);
    backend.remove(&path).expect("it is there");
}

fn locks(backend: &dyn IoBackend, dir: &Path) {
    let path = dir.join("LOCK");
    let held = backend.lock(&path).expect("nobody holds it");
    let refused = backend.lock(&path).err().expect("it is held");
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    assert!(refused.to_string().contains(&std::process::id().to_string()), "the message names the holder: {refused}");
    drop(held);
    drop(backend.lock(&path).expect("it is free again"));
}

fn on_disk(backend: Arc<dyn IoBackend>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    promises(&backend, dir.path());
}

#[test]
fn plain_calls_keep_the_promises() {
    on_disk(Arc::new(ThreadsBackend::new()));
}

#[cfg(feature = "sim")]
#[test]
fn the_simulated_disk_keeps_the_promises() {
    for seed in 0..20 {
        for inline in [false, true] {
            let disk = super::sim::SimDisk::new(seed);
            disk.set_runs_inline(inline);
            promises(&disk.backend(), Path::new("/sim"));
        }
    }
}

#[test]
fn the_ring_keeps_the_promises() {
    match super::uring::UringBackend::new() {
        Ok(backend) => on_disk(Arc::new(backend)),
        Err(why) => skipped(&format!("the_ring_keeps_the_promises: {why}")),
    }
}

#[test]
fn files_without_direct_io_keep_the_promises() {
    on_disk(Arc::new(ThreadsBackend::new().without_direct_io()));
    match super::uring::UringBackend::new() {
        Ok(backend) => on_disk(Arc::new(backend.without_direct_io())),
        Err(why) => skipped(&format!("files_without_direct_io_keep_the_promises (ring): {why}")),
    }
}

/// Says that a check could not run here, past the test harness, which keeps what a passing test prints to itself.
pub(crate) fn skipped(what: &str) {
    use std::io::Write;
    let line = format!("SKIPPED {what}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written");
}
