//! Which part an engine plays, and what its log is.

use crate::options::Tail;

/// Whether a log gives out places, or takes over what another one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It appends. Each opening begins an epoch.
    Leader {
        /// The term to begin: it must be above that of the log. `None`: the log's own term goes on, with its next run.
        term: Option<u32>,
    },
    /// It takes over what the leader appended, and begins no epoch.
    Replica,
}

impl Default for Role {
    fn default() -> Role {
        Role::Leader { term: None }
    }
}

/// What acknowledgement waits for, in an engine with replicated acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckRule {
    /// For this machine alone, by its flush mode: the name for what a policy does that goes on without its replicas.
    Local,
    /// For this machine, and for what [`crate::Engine::set_replicated`] tells.
    Replicated,
}

/// What two logs must share for one to be the other's replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// Made when the log was created.
    pub store_id: u128,
    /// Size of one segment file, header included.
    pub segment_bytes: u64,
    /// What happens to a commit's last block.
    pub tail: Tail,
}
