//! Whose commits count.

use super::Committer;
use crate::features::offsets::OffsetKey;
use crate::net::ConnectionId;
use crate::shared::Shared;

/// Whether a commit counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commits {
    /// It does.
    Counts(Committer),
    /// The queue is another member's.
    No {
        /// Whose.
        owner: String,
        /// How it came to have it.
        by_lock: bool,
    },
}

/// Judges a commit that came by this connection, and counts it when it does not count. `awaited`: its answer is waited for, as tools do.
///
/// Consumers send theirs one-way or with a pull, and some say that they wait and do not: those are known by what they did before. After a
/// cut a consumer's first commits may come before its heartbeat, up to half a minute; while another member has the queue they speak of
/// what it had before, and what it has still it commits again.
#[must_use]
pub fn judge(shared: &Shared, connection: ConnectionId, key: &OffsetKey, awaited: bool) -> Commits {
    let lock = shared.state.locks.owner(key, shared.engine.clock().monotonic());
    if let Some(owner) = lock.as_ref().filter(|owner| owner.by == Some(connection)) {
        // Its client may be no member yet.
        return Commits::Counts(Committer::Owner(owner.client_id.as_ref().into()));
    }
    let locked_for = lock.map(|owner| owner.client_id);
    let groups = &shared.state.groups;
    let by = match groups.committer(connection, &key.group, &key.topic, key.queue, locked_for.as_deref()) {
        Committer::Other(client_id) => Some(client_id),
        Committer::Outsider { consumes, .. } if consumes || !awaited => None,
        Committer::Outsider { .. } => return Commits::Counts(Committer::Stranger),
        committer => return Commits::Counts(committer),
    };
    shared.counters.commits_refused.add(1);
    let by_lock = locked_for.is_some();
    let puller = || groups.owner(&key.group, &key.topic, key.queue).map(|owner| owner.to_string());
    let owner = locked_for.map(String::from).or_else(puller).unwrap_or_default();
    tracing::debug!(
        group = &*key.group,
        topic = &*key.topic,
        queue = key.queue,
        owner,
        by = by.as_deref().unwrap_or("a connection that is no member"),
        "a commit of a consumer that does not have the queue any more does not count"
    );
    Commits::No { owner, by_lock }
}

impl Commits {
    /// What is said to whoever's commit does not count.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        match self {
            Commits::Counts(_) => None,
            Commits::No { owner, by_lock: true } => Some(format!(
                "the queue is locked for {owner}, another member of the group, which alone commits its offset"
            )),
            Commits::No { owner, by_lock: false } => Some(format!(
                "{owner}, another member of the group, has pulled the queue since, and alone commits its offset"
            )),
        }
    }
}
