//! What a node is told.

use std::path::PathBuf;

use anchorlog_engine::EngineOptions;

use crate::leader::LeaderConfig;
use crate::member::{Member, ReplicaId};
use crate::policy::Policy;
use crate::transport::Security;

/// What a node is before anybody has led or followed in its directory; after that, what was promised there counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRole {
    /// It begins the log.
    Leader,
    /// It gets the log from whoever leads.
    Follower,
}

/// What a node is told. All members need the same members and kind of security. Policy and flush mode are the leader's, and stand in the
/// log; those of another member hold when it leads, and a promotion of it is judged by both: best they are the same everywhere.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its own name.
    pub id: ReplicaId,
    /// Where it listens for its peers: host and port.
    pub listen: String,
    /// All members, itself among them, with the addresses at which the others reach them.
    pub members: Vec<Member>,
    /// What members trust each other by.
    pub security: Security,
    /// The log's directory.
    pub dir: PathBuf,
    /// How the log is opened; role and replicated acks are set by the node.
    pub engine: EngineOptions,
    /// What it is in the beginning.
    pub first_role: FirstRole,
    /// How it leads, when it does; id, policy and members of it are those above.
    pub leading: LeaderConfig,
}

impl NodeConfig {
    /// A node with defaults for the rest: unprotected (loopback only), and following in the beginning.
    #[must_use]
    pub fn new(
        id: ReplicaId,
        listen: impl Into<String>,
        members: Vec<Member>,
        policy: Policy,
        dir: impl Into<PathBuf>,
    ) -> NodeConfig {
        NodeConfig {
            leading: LeaderConfig::new(id.clone(), policy, members.clone()),
            id,
            listen: listen.into(),
            members,
            security: Security::Open,
            dir: dir.into(),
            engine: EngineOptions::default(),
            first_role: FirstRole::Follower,
        }
    }
}
