//! What a node asks of the program that it runs in.

use std::path::Path;
use std::sync::Arc;

use anchorlog_engine::{Engine, EngineOptions, Lsn, OpenError};

use crate::leader::Leader;
use crate::member::ReplicaId;

/// As what an engine is served.
#[derive(Clone)]
pub enum Serving {
    /// It leads: appends are taken as long as [`Leader::admission`] says so, asked before each.
    Leader(Arc<Leader>),
    /// It follows: what is acknowledged is read, nothing is appended.
    Follower,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Serving::Leader(_) => "Leader",
            Serving::Follower => "Follower",
        })
    }
}

/// Something that its owner may want to tell people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// This node leads from now on.
    Leads {
        /// In which term.
        term: u32,
    },
    /// It leads no more.
    SteppedDown {
        /// The term that it makes room for, or that is free now.
        term: u32,
    },
    /// It is connected to a leader.
    Follows {
        /// Whom.
        leader: ReplicaId,
        /// In which term.
        term: u32,
    },
    /// The connection to that leader is over; it is looked for one again.
    Lost {
        /// Whose.
        leader: ReplicaId,
    },
    /// What its log had from `at` on was not the leader's: it was cut, and kept aside.
    Cut {
        /// Where it ends now.
        at: Lsn,
        /// How much that was.
        bytes: u64,
    },
    /// Its directory begins anew with the leader's whole retained log.
    Bootstraps {
        /// Why.
        why: String,
    },
    /// Something of its log was damaged, and is whole again.
    Mended {
        /// The first byte; that of a segment whose header it was, where `to` is the same.
        from: Lsn,
        /// Behind the last one.
        to: Lsn,
        /// Whose bytes they are now.
        by: ReplicaId,
    },
    /// Something failed, and is tried again.
    Failed {
        /// What, and how.
        what: String,
    },
}

/// The program that a node runs in. Its calls come from one thread, never two at once, in the order
/// `open_engine`, `serve`, `stop_serving`, and so on from the beginning.
pub trait Owner: Send + Sync + 'static {
    /// Opens the log in `dir`. `options` are those of the configuration, with the role that this node has.
    ///
    /// # Errors
    /// As [`Engine::open`].
    fn open_engine(&self, dir: &Path, options: EngineOptions) -> Result<Engine, OpenError> {
        Engine::open(dir, options)
    }

    /// Serves `engine` from now on.
    fn serve(&self, engine: &Arc<Engine>, serving: Serving);

    /// Ends that. When it returns, nothing of the engine (and of a [`Leader`]) is held any more: it is closed next.
    fn stop_serving(&self);

    /// Something happened.
    fn event(&self, event: &Event) {
        tracing::info!(?event, "replication");
    }
}
