//! The start-up case table as data: what opening may find, and what then happens.
//!
//! Promises:
//! 1. Every refusal of [`crate::Engine::open`] that bytes or names on the disk cause is a row here; [`crate::OpenError::case`] says which.
//! 2. A refusal changes nothing of the log.
//! 3. `engine/docs/recovery.md` has the same rows; `engine/tests/recovery/` compares, prepares each scene and walks it.
//!
//! Not here: finding out which case it is (`open` and the parent module).

use std::fmt;

/// What opening does about a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseOutcome {
    /// It opens; nothing is taken away.
    Opens,
    /// It opens; what was never known to be durable is cut off the end and its size reported.
    Cuts,
    /// It opens; a file that nothing refers to is removed.
    Removes,
    /// It opens; what the log says is derived from it anew.
    Rebuilds,
    /// It does not open and changes nothing: somebody has to decide.
    Refuses,
}

impl CaseOutcome {
    /// Whether the log is open afterwards.
    #[must_use]
    pub fn is_open(self) -> bool {
        self != CaseOutcome::Refuses
    }
}

impl fmt::Display for CaseOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CaseOutcome::Opens => "opens",
            CaseOutcome::Cuts => "cuts",
            CaseOutcome::Removes => "removes",
            CaseOutcome::Rebuilds => "rebuilds",
            CaseOutcome::Refuses => "refuses",
        })
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryCase {
    /// A name that errors, logs and the document use; never reused for something else.
    pub id: &'static str,
    /// What is found.
    pub title: &'static str,
    /// What happens.
    pub outcome: CaseOutcome,
    /// What an operator does about it.
    pub remedy: &'static str,
}

const fn row(id: &'static str, outcome: CaseOutcome, title: &'static str, remedy: &'static str) -> RecoveryCase {
    RecoveryCase { id, title, outcome, remedy }
}

const NOTHING: &str = "none needed";
const RESTORE_FILE: &str = "take the file from a copy of this log: `anchorlog log repair --from-copy DIR`";

use CaseOutcome::{Cuts, Opens, Rebuilds, Refuses, Removes};

/// Every case, in the order of the document.
pub const RECOVERY_CASES: [RecoveryCase; 32] = [
    row("empty-directory", Opens, "no directory, or one without manifest and segments", NOTHING),
    row("half-created", Opens, "a manifest that names no epoch: the power failed while the log was made", NOTHING),
    row("clean-end", Opens, "zeros behind the last frame", NOTHING),
    row("stale-bytes", Opens, "behind the end, whole frames of another place or of an older epoch", NOTHING),
    row("power-fails-again", Opens, "what an opening left that was itself cut short", NOTHING),
    row(
        "torn-tail",
        Cuts,
        "a frame that is not whole, and nothing that says it was durable",
        "none needed; the bytes cut are reported, and were not acknowledged unless the last group rotted before its mark was written",
    ),
    row(
        "half-released",
        Opens,
        "a segment of the log under the name of one that is kept for survivors: the power failed while it was released",
        NOTHING,
    ),
    row("half-cut", Opens, "a file `CUT`: the log was to end earlier, and the power failed on the way there", NOTHING),
    row("half-made", Removes, "a file whose name ends in `.tmp`", NOTHING),
    row("released-segment", Removes, "a segment below the manifest's first LSN of which nothing survives", NOTHING),
    row("prepared-behind-gap", Removes, "a segment without frames behind the end, and none between", NOTHING),
    row(
        "derived-store",
        Rebuilds,
        "a derived store that is missing, damaged, of another log, version or history, or that contradicts the log",
        NOTHING,
    ),
    row(
        "damage",
        Refuses,
        "a frame that is not whole, and a later frame or the newest epoch says that it was durable",
        "find it all with `anchorlog log verify`; then `anchorlog log repair --from-copy DIR`, or `--give-up LSN` to give up that range alone, or `--cut-from LSN` all that lies behind",
    ),
    row(
        "checkpoint-beyond-end",
        Refuses,
        "a frame that is not whole below the end of the last checkpoint, and nothing in the log that says it was durable",
        "take what is missing from a copy of this log: `anchorlog log repair --from-copy DIR`; or give it up with `--cut-from LSN`, which drops the checkpoint",
    ),
    row(
        "unreadable",
        Refuses,
        "the device answers a read with an error",
        "check the device; then `anchorlog log repair --from-copy DIR` writes the bytes anew, or `--give-up LSN` gives up that range alone, or `--cut-from LSN` all that lies behind",
    ),
    row(
        "missing-segment",
        Refuses,
        "a segment that the manifest, the last checkpoint, a list of survivors or a later frame says must be there is not",
        "take the file from a copy of this log: `anchorlog log repair --from-copy DIR`; or give up what was in it with `--give-up LSN`, or all that lies behind with `--cut-from LSN`",
    ),
    row(
        "no-segments",
        Refuses,
        "a manifest that names an epoch, and no segment at all",
        "restore the directory from a copy; for a new log choose an empty directory",
    ),
    row(
        "no-manifest",
        Refuses,
        "segments without a manifest",
        "restore MANIFEST: `anchorlog log repair --from-copy DIR` takes it from a copy made since the last start",
    ),
    row(
        "damaged-manifest",
        Refuses,
        "a manifest that is not whole",
        "restore MANIFEST: `anchorlog log repair --from-copy DIR` takes it from a copy made since the last start",
    ),
    row(
        "newer-manifest",
        Refuses,
        "a manifest of a version that this program does not know",
        "open it with the version that wrote it, or a later one",
    ),
    row(
        "newer-form",
        Refuses,
        "a whole frame or record of a kind that this program does not know",
        "open it with the version that wrote it, or a later one",
    ),
    row(
        "damaged-segment-header",
        Refuses,
        "a segment whose header block is not whole",
        "`anchorlog log repair --give-up LSN`, with the LSN that the file is named by, writes the header anew and loses nothing",
    ),
    row("wrong-store-id", Refuses, "a segment of another log", RESTORE_FILE),
    row("wrong-length", Refuses, "a segment that is longer or shorter than the manifest says", RESTORE_FILE),
    row("wrong-geometry", Refuses, "a segment of another segment size or tail mode", RESTORE_FILE),
    row(
        "wrong-base",
        Refuses,
        "a segment under another one's name",
        "move the file away where it is none of this log's; where it is, `anchorlog log repair --from-copy DIR` takes the right one from a copy",
    ),
    row(
        "queue-out-of-turn",
        Refuses,
        "a whole record whose queue offset does not follow",
        "keep the directory and report it: no fault of a disk explains this; `anchorlog log repair --cut-from LSN` gives up what lies behind",
    ),
    row(
        "damaged-side-block",
        Refuses,
        "a replica's side block of which neither copy is whole, or that is another log's",
        "seed the replica again: it is what its leader has; where it is the only copy left, remove `DURABLE` to open it by the marks in its frames",
    ),
    row(
        "damaged-cut",
        Refuses,
        "a file `CUT` that names no cut of this log",
        "seed the replica again; where it is the only copy left, remove `CUT` and see what `anchorlog log verify` says",
    ),
    row(
        "promised",
        Refuses,
        "a leader is to be opened of a term below the one that the file `PROMISE` names, or nobody can tell for that file is not whole",
        "follow whoever leads now; where nobody does, promote with a higher term; where the file is not whole and no other copy of the log is left, remove it",
    ),
    row(
        "half-seeded",
        Refuses,
        "a file `SEED`: a replica that was not given its beginning to the end, or a log that was half wiped",
        "seed it again, from the beginning; the replicator does so by itself",
    ),
    row("second-process", Refuses, "another process has the directory", "stop it, or choose another directory"),
];

/// The row of an id.
///
/// # Panics
/// When there is none.
pub(crate) fn case(id: &str) -> &'static RecoveryCase {
    RECOVERY_CASES.iter().find(|case| case.id == id).expect("errors name rows of the table")
}

/// What of a segment or manifest contradicts what is expected; a word for people, and the case that it is.
pub(crate) mod property {
    pub(crate) const MANIFEST: &str = "manifest";
    pub(crate) const MANIFEST_VERSION: &str = "manifest version";
    pub(crate) const FORM: &str = "form";
    pub(crate) const SEGMENT_HEADER: &str = "segment header";
    pub(crate) const STORE_ID: &str = "store id";
    pub(crate) const LENGTH: &str = "length";
    pub(crate) const GEOMETRY: &str = "geometry";
    pub(crate) const BASE: &str = "base LSN";
    pub(crate) const CUT: &str = "cut";
    pub(crate) const SIDE_BLOCK: &str = "side block";
    pub(crate) const QUEUE_ENTRY: &str = "queue entry";
    /// Never a refusal: the log is read without the checkpoint then.
    pub(crate) const CHECKPOINT: &str = "checkpoint";
}

/// The case that a contradiction in this property is.
pub(crate) fn contradiction(what: &str) -> Option<&'static RecoveryCase> {
    let id = match what {
        property::MANIFEST => "damaged-manifest",
        property::MANIFEST_VERSION => "newer-manifest",
        property::FORM => "newer-form",
        property::SEGMENT_HEADER => "damaged-segment-header",
        property::STORE_ID => "wrong-store-id",
        property::LENGTH => "wrong-length",
        property::GEOMETRY => "wrong-geometry",
        property::BASE => "wrong-base",
        property::CUT => "damaged-cut",
        property::SIDE_BLOCK => "damaged-side-block",
        property::QUEUE_ENTRY => "queue-out-of-turn",
        _ => return None,
    };
    Some(case(id))
}
