//! A broker as one of a set: serves from the log while the node that owns it leads or follows.
//!
//! ```text
//!   Node (replicator) --open, serve, stop serving--> Replicated --> Serving --> clients
//!         ^                                              |
//!         '------------- replicas' listener              '--> Standing: leader, or slave of whom
//! ```
//! Deliberately not here: who leads, what is shipped, what is cut. That is the replicator's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anchorlog_engine::{Engine, EngineInfo, EngineStats};
use anchorlog_replicator::{Event, FirstRole, Member, Node, NodeConfig, Owner, ReplicaId, Serving as Part};

use crate::broker::{ReplicationOptions, StartError, StopError};
use crate::lock::lock;
use crate::serving::{Place, Serving};
use crate::standing::{KnownLeader, Standing};

/// What the node serves through.
pub(crate) struct Replicated {
    place: Place,
    /// Where clients reach the others.
    addresses: BTreeMap<ReplicaId, SocketAddr>,
    leader: Arc<KnownLeader>,
    serving: Mutex<Option<Serving>>,
    /// Why it does not serve, or did not stop cleanly.
    failed: Mutex<Failed>,
}

#[derive(Default)]
struct Failed {
    start: Option<StartError>,
    stop: Option<StopError>,
}

impl Replicated {
    /// Starts the node. It serves when this returns, unless it is a slave that has no log yet: then as soon as it got one.
    pub(crate) fn start(place: Place, options: ReplicationOptions) -> Result<(Arc<Replicated>, Node), StartError> {
        let own = Member { id: options.id.clone(), address: options.address };
        let others =
            options.others.iter().map(|other| Member { id: other.id.clone(), address: other.replicas.to_string() });
        let members = std::iter::once(own).chain(others).collect();
        let dir = place.options().store.clone();
        let mut config = NodeConfig::new(options.id, options.listen.to_string(), members, options.policy, dir);
        config.engine = place.engine_options();
        config.security = options.security;
        config.first_role = if options.follows { FirstRole::Follower } else { FirstRole::Leader };
        config.leading.in_sync = options.in_sync;
        let owner = Arc::new(Replicated {
            addresses: options.others.into_iter().map(|other| (other.id, other.clients)).collect(),
            place,
            leader: Arc::default(),
            serving: Mutex::default(),
            failed: Mutex::default(),
        });
        let node = Node::start(config, Arc::clone(&owner) as Arc<dyn Owner>)?;
        let failed = lock(&owner.failed).start.take();
        match failed {
            None => Ok((owner, node)),
            Some(error) => {
                node.stop();
                Err(error)
            }
        }
    }

    /// Why serving did not stop cleanly, if it did not.
    pub(crate) fn outcome(&self) -> Result<(), StopError> {
        lock(&self.failed).stop.take().map_or(Ok(()), Err)
    }

    /// The log's, while it is served.
    pub(crate) fn engine_info(&self) -> Option<EngineInfo> {
        lock(&self.serving).as_ref().map(|serving| serving.engine().info().clone())
    }

    /// The log's, while it is served.
    pub(crate) fn engine_stats(&self) -> Option<EngineStats> {
        lock(&self.serving).as_ref().map(|serving| serving.engine().stats())
    }
}

impl std::fmt::Debug for Replicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicated").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Owner for Replicated {
    fn serve(&self, engine: &Arc<Engine>, part: Part) {
        let standing = match part {
            Part::Leader(leader) => Standing::Leader { leader, addresses: self.addresses.clone() },
            Part::Follower => Standing::Slave { leader: Arc::clone(&self.leader) },
        };
        match Serving::start(&self.place, Arc::clone(engine), standing) {
            Ok(serving) => *lock(&self.serving) = Some(serving),
            Err(error) => {
                tracing::error!(%error, "clients are not served");
                self.place.metrics().fail(&error.to_string());
                lock(&self.failed).start = Some(error);
            }
        }
    }

    fn stop_serving(&self) {
        let serving = lock(&self.serving).take();
        let Some(serving) = serving else { return };
        let (engine, outcome) = serving.stop();
        drop(engine);
        if let Err(error) = outcome {
            tracing::error!(%error, "serving did not stop cleanly");
            lock(&self.failed).stop = Some(error);
        }
    }

    fn event(&self, event: &Event) {
        match event {
            Event::Leads { term } => tracing::info!(term, "leads"),
            Event::SteppedDown { term } => tracing::warn!(term, "leads no more"),
            Event::Follows { leader, term } => {
                self.leader.set(self.addresses.get(leader).copied());
                self.leader.set_connected(true);
                tracing::info!(%leader, term, "follows");
            }
            Event::Lost { leader } => {
                self.leader.set_connected(false);
                tracing::debug!(%leader, "the connection to the leader is over");
            }
            Event::Cut { at, bytes } => {
                tracing::warn!(%at, bytes, "cut what the leader's log does not have; it is kept aside");
            }
            Event::Bootstraps { why } => tracing::warn!(why, "begins anew with the leader's log"),
            Event::Mended { from, to, by } => {
                tracing::warn!(%from, %to, %by, "a damaged range of the log is whole again")
            }
            Event::Failed { what } => tracing::error!(what, "replication"),
            other => tracing::info!(?other, "replication"),
        }
    }
}
