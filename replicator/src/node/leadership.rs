//! Who leads: one small value behind one trait, and nothing else decides it.
//!
//! Today it is what was configured for a directory that nobody has led or followed from, and from then on what was promised there. A
//! consensus library would be another implementation.
//!
//! Invariants:
//! 1. A claim is durable before anybody acts on it.
//! 2. Terms only grow; within one term there is one leader.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anchorlog_engine::io::IoBackend;
use anchorlog_engine::replica::{Promise, PromiseError};

use crate::member::ReplicaId;

/// Who leads, as far as a node knows and has promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Nobody of a lower term is followed, and none is led.
    pub term: u32,
    /// Who leads in it, or may; nobody, after a leader has stepped down.
    pub leader: Option<ReplicaId>,
}

/// Where the claim is kept, and who decides it.
pub trait Leadership: Send + Sync + 'static {
    /// What holds now; nothing where nobody has led or followed yet.
    fn current(&self) -> Option<Claim>;

    /// Makes `claim` what holds, durably.
    ///
    /// # Errors
    /// When a higher term holds, or this one under another leader, or it cannot be made durable.
    fn raise(&self, claim: &Claim) -> Result<(), PromiseError>;
}

/// The claim as a promise in the log's directory.
pub struct PromisedLeadership {
    backend: Arc<dyn IoBackend>,
    dir: PathBuf,
    known: Mutex<Option<Claim>>,
}

impl PromisedLeadership {
    /// What was promised in `dir`.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn load(backend: Arc<dyn IoBackend>, dir: &Path) -> Result<PromisedLeadership, PromiseError> {
        let promise = Promise::load(&*backend, dir)?;
        let known = promise.map(|promise| Claim {
            term: promise.term,
            leader: std::str::from_utf8(&promise.to).ok().and_then(|name| name.parse().ok()),
        });
        Ok(PromisedLeadership { backend, dir: dir.to_path_buf(), known: Mutex::new(known) })
    }
}

impl Leadership for PromisedLeadership {
    fn current(&self) -> Option<Claim> {
        self.known.lock().expect("no holder panics").clone()
    }

    fn raise(&self, claim: &Claim) -> Result<(), PromiseError> {
        let mut known = self.known.lock().expect("no holder panics");
        if known.as_ref() == Some(claim) {
            return Ok(());
        }
        let to = claim.leader.as_ref().map_or(Vec::new(), |leader| leader.as_str().as_bytes().to_vec());
        Promise { term: claim.term, to }.store(&*self.backend, &self.dir)?;
        *known = Some(claim.clone());
        Ok(())
    }
}
