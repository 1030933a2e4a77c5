//! What a broker is among its replicas.
//!
//! 1. A slave writes nothing: what clients ask it to store is refused, and what its table says is what its leader has written.
//! 2. A leader takes nothing that it could not acknowledge: who asks is told before anything is stored.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use anchorlog_engine::{Engine, Lsn};
use anchorlog_replicator::{Leader, ReplicaId};

use crate::lock::{read, write};

/// What a broker is among its replicas.
#[derive(Clone, Debug, Default)]
pub enum Standing {
    /// There are none.
    #[default]
    Alone,
    /// It leads: others follow its log.
    Leader {
        /// What it knows of them.
        leader: Arc<Leader>,
        /// Where clients reach the others.
        addresses: BTreeMap<ReplicaId, SocketAddr>,
    },
    /// It follows another one's log.
    Slave {
        /// Where clients reach the leader, once that is known.
        leader: Arc<KnownLeader>,
    },
}

/// Where clients reach the leader, as a slave knows it.
#[derive(Debug, Default)]
pub struct KnownLeader {
    address: RwLock<Option<SocketAddr>>,
    connected: AtomicBool,
}

impl KnownLeader {
    /// It follows another one now.
    pub fn set(&self, leader: Option<SocketAddr>) {
        *write(&self.address) = leader;
    }

    /// It is connected to it, or is not any more.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Release);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Where, if that is known.
    #[must_use]
    pub fn get(&self) -> Option<SocketAddr> {
        *read(&self.address)
    }
}

impl Standing {
    /// Whether it writes into its log.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Standing::Slave { .. })
    }

    /// Why nothing may be stored now, if nothing may.
    ///
    /// # Errors
    /// The reason, in words for whoever asked.
    pub fn admission(&self) -> Result<(), String> {
        match self {
            Standing::Alone => Ok(()),
            Standing::Leader { leader, .. } => {
                leader.admission().map_err(|reason| format!("nothing was stored: {reason}"))
            }
            Standing::Slave { .. } => Err("nothing was stored: this broker is a slave; ask its leader".to_owned()),
        }
    }

    /// Every broker of the set as routes name it: 0 leads. `own` is where clients reach this one.
    #[must_use]
    pub fn addresses(&self, own: SocketAddr) -> Vec<(u64, String)> {
        match self {
            Standing::Alone => vec![(0, own.to_string())],
            Standing::Leader { leader, addresses } => {
                let connected = leader.connected();
                let others = addresses.iter().filter(|(id, _)| connected.contains(*id));
                std::iter::once((0, own.to_string())).chain((1..).zip(others.map(|(_, at)| at.to_string()))).collect()
            }
            Standing::Slave { leader } => {
                leader.get().iter().map(|leader| (0, leader.to_string())).chain([(1, own.to_string())]).collect()
            }
        }
    }

    /// How far acknowledgements are what the policy promises; beyond that they are the leader's alone, as an operator asked by name.
    #[must_use]
    pub fn kept_promise(&self, engine: &Engine) -> Lsn {
        match self {
            Standing::Leader { leader, .. } if leader.config().policy.followers() > 0 => {
                engine.replicated().unwrap_or(Lsn::ZERO)
            }
            _ => Lsn::MAX,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Alone => f.write_str("alone"),
            Standing::Leader { leader, .. } => write!(f, "leader in epoch {}", leader.epoch()),
            Standing::Slave { .. } => f.write_str("slave"),
        }
    }
}
