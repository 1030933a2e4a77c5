//! What a refusal advises is done as it says, and helps.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anchorlog_engine::audit::{self, Item};
use anchorlog_engine::commitlog::manifest::MANIFEST_NAME;
use anchorlog_engine::{Lsn, OpenError};

use crate::log::{DIR, Log, image, open, path};
use crate::repair::{COPY, copy, mend, opens_with, second, survey, sweep};

#[test]
fn a_manifest_of_any_length_is_mended_from_a_copy_and_kept() {
    for len in [0, 1, 30, 4095, 4097, 12_289] {
        let log = Log::new();
        copy(&log);
        log.disk.set_len(&path(MANIFEST_NAME), len);
        let damaged = log.bytes(&path(MANIFEST_NAME));
        assert_eq!(open(&log.disk).unwrap_err().case().unwrap().id, "damaged-manifest", "{len} bytes");
        let report = mend(&log.disk.kill()).unwrap();
        assert!(report.manifest && report.after.is_clean(), "{len} bytes: {report:?}");
        let mend = |disk: &_| mend(disk).map(drop).map_err(|error| error.to_string());
        sweep(&log.disk, "a manifest of another length", &mend, &|disk| {
            let aside = PathBuf::from(format!("{}.damaged", path(MANIFEST_NAME).display()));
            assert!(disk.read(&aside).is_some_and(|bytes| bytes == damaged), "{len} bytes: it is kept");
            opens_with(disk, "a manifest of another length", &log.messages);
        });
    }
}

#[test]
fn a_bit_in_the_manifests_version_is_rot_and_mended_from_a_copy() {
    let log = Log::new();
    copy(&log);
    log.disk.flip_bit(&path(MANIFEST_NAME), 5, 7);
    let report = mend(&log.disk).unwrap();
    assert!(report.manifest && report.after.is_clean(), "{report:?}");
    opens_with(&log.disk, "a rotten version", &log.messages);
}

#[test]
fn what_may_only_be_read_is_looked_at_and_mended_from() {
    let log = Log::checkpointed();
    copy(&log);
    log.disk.protect(Path::new(COPY));
    let frame = second(&log);
    log.disk.flip_bit(&frame.path, frame.offset + 3000, 1);
    let report = mend(&log.disk).unwrap();
    assert!(report.after.is_clean() && report.mended.len() == 1, "{report:?}");
    opens_with(&log.disk, "from a backup that may only be read", &log.messages);

    let log = Log::checkpointed();
    log.disk.protect(Path::new(DIR));
    let before = image(&log.disk);
    let found = survey(&log.disk).unwrap();
    assert!(found.is_clean() && found.checkpoint == Some(found.contents.end), "{:?}", found.damage);
    let mut frames = 0;
    audit::dump(&*log.disk.backend(), Path::new(DIR), Lsn(0), u64::MAX, &mut |item| {
        frames += u64::from(matches!(item, Item::Frame { .. }));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(frames, found.contents.frames.values().sum::<u64>());
    assert!(image(&log.disk) == before);
    // Opening writes, and says what forbids it: nothing is wrong with the disk.
    let error = open(&log.disk).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }) && error.case().is_none(), "{error}");
    assert!(!error.to_string().contains("--cut-from"), "{error}");
}

#[test]
fn what_may_not_be_read_is_no_dead_disk() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
        let error = OpenError::Io { what: "reading", path: path(MANIFEST_NAME), source: kind.into() };
        assert!(error.case().is_none() && !error.to_string().contains("Remedy"), "{error}");
    }
}
