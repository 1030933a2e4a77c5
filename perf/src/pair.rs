//! A leader and its slave, as two child processes on two directories of this machine.
//!
//! 1. Nothing is measured before the slave is in step: the leader has taken a message, and the slave shows all that the leader does.
//! 2. The slave flushes by its own group commit in every combination, also where nobody waits for it: what a slave acknowledges is what is
//!    on its disk, so that is its work.
//! 3. What is read back is what lies in each directory: each store is opened again by a broker that stands alone, so that neither can
//!    have what it shows from the other one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anchorlog_engine::BackendChoice;
use anchorlog_engine::io::sys::BlockDevice;

use crate::broker_rows::{self, TOPIC};
use crate::cli::{Mode, Role};
use crate::engine_rows;
use crate::error::PerfError;
use crate::payload::Payloads;
use crate::sender::Sent;
use crate::served::{Order, Part, Reached, Served, Starting};
use crate::topic::{Topic, in_time};
use crate::verify::Verified;

/// How long a slave may take until it is in step with an idle leader.
const PATIENCE: Duration = Duration::from_secs(60);

/// The two directories of a run.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    leader: PathBuf,
    slave: PathBuf,
}

impl Stores {
    /// Two fresh directories.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn make(leader_dir: &Path, slave_dir: &Path) -> Result<Stores, PerfError> {
        let stores = Stores { leader: leader_dir.join("leader"), slave: slave_dir.join("slave") };
        stores.remove()?;
        for store in [&stores.leader, &stores.slave] {
            std::fs::create_dir_all(store).map_err(|source| PerfError::Io {
                what: "making",
                path: store.clone(),
                source,
            })?;
        }
        Ok(stores)
    }

    /// Deletes both.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn remove(&self) -> Result<(), PerfError> {
        engine_rows::remove_store(&self.leader)?;
        engine_rows::remove_store(&self.slave)
    }

    /// The leader's or the slave's.
    pub(crate) fn of(&self, role: Role) -> &Path {
        match role {
            Role::Leader => &self.leader,
            Role::Slave => &self.slave,
        }
    }

    /// The disks below both.
    pub(crate) fn disks(&self) -> Disks {
        let [leader, slave] = [&self.leader, &self.slave].map(|store| BlockDevice::below(store));
        let volume = |store: &Path| std::fs::metadata(store).ok().map(|found| found.dev());
        let shared = match (&leader, &slave) {
            (Some(leader), Some(slave)) => leader.name == slave.name,
            _ => volume(&self.leader) == volume(&self.slave),
        };
        Disks { leader, slave: slave.filter(|_| !shared), shared }
    }
}

/// The disks below two directories.
pub(crate) struct Disks {
    /// The leader's, where one is known.
    pub(crate) leader: Option<BlockDevice>,
    /// The slave's, where it is another one.
    pub(crate) slave: Option<BlockDevice>,
    /// Whether it is one.
    pub(crate) shared: bool,
}

/// With what both brokers of a pair are started, and started again.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where their logs are.
    pub(crate) stores: Stores,
    /// Whether an ack waits for the leader's flush.
    pub(crate) flush: Mode,
    /// Whether it waits for the slave's.
    pub(crate) replication: Mode,
    /// The backend of both.
    pub(crate) backend: BackendChoice,
    /// Bytes of a segment.
    pub(crate) segment_bytes: u64,
    /// Segments filled before they are needed.
    pub(crate) spare_count: usize,
    /// What the log keeps.
    pub(crate) retain_bytes: Option<u64>,
    /// How old a half message is when its producer is asked, if not as by default.
    pub(crate) ask_after_ms: Option<u64>,
    /// Where the leader is reached, and the slave.
    pub(crate) reached: [Reached; 2],
}

impl Plan {
    /// What one of them is started with.
    fn order(&self, role: Role) -> Order<'_> {
        let [leader, slave] = self.reached;
        let (own, other) = if role == Role::Leader { (leader, slave) } else { (slave, leader) };
        Order {
            store: self.stores.of(role),
            flush: if role == Role::Leader { self.flush } else { Mode::Sync },
            backend: self.backend,
            segment_bytes: self.segment_bytes,
            spare_count: self.spare_count,
            retain_bytes: self.retain_bytes,
            ask_after_ms: self.ask_after_ms,
            part: Some(Part { role, replication: self.replication, own, other }),
        }
    }

    /// Starts both; a leader may ask its slave before it serves.
    ///
    /// # Errors
    /// When one does not come up.
    pub(crate) fn start(&self) -> Result<Pair, PerfError> {
        let leader = Starting::spawn(&self.order(Role::Leader))?;
        let slave = Starting::spawn(&self.order(Role::Slave))?;
        Ok(Pair { leader: leader.greet()?, slave: slave.greet()? })
    }

    /// Starts the slave again.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn start_slave(&self) -> Result<Served, PerfError> {
        Served::start(&self.order(Role::Slave))
    }

    /// Reads one of the stores back, by a broker that stands alone and recycles nothing.
    ///
    /// # Errors
    /// When it does not answer; what it does not have is a verdict.
    pub(crate) fn read_back(
        &self,
        role: Role,
        topic: &Topic,
        payloads: &Payloads,
        sent: &mut Sent,
    ) -> Result<Verified, PerfError> {
        let alone = Order { spare_count: 0, retain_bytes: None, part: None, ..self.order(role) };
        let broker = Served::start(&alone)?;
        let verified = broker_rows::read_back(&topic.moved_to(&broker.address), payloads, sent)?;
        broker.stop()?;
        Ok(verified)
    }
}

/// Both brokers, serving.
pub(crate) struct Pair {
    /// Takes what is sent.
    pub(crate) leader: Served,
    /// Follows.
    pub(crate) slave: Served,
}

impl Pair {
    /// Makes the topic and waits until the slave is in step: the topic as the leader has it, and as the slave has it.
    ///
    /// # Errors
    /// When it does not come to that.
    pub(crate) fn meet(&self) -> Result<(Topic, Topic), PerfError> {
        let topic = Topic::make_in_time(&self.leader.address, TOPIC, PATIENCE)?;
        let followed = topic.moved_to(&self.slave.address);
        wait_in_step(&topic, &followed)?;
        Ok((topic, followed))
    }
}

/// Messages that the slave does not show yet.
///
/// # Errors
/// When one does not answer.
pub(crate) fn behind(topic: &Topic, followed: &Topic) -> Result<u64, PerfError> {
    // The slave first: what arrives in between makes it look further behind, never less.
    let slave = followed.ends()?;
    Ok(topic.ends()?.iter().zip(slave).map(|(end, shown)| end.saturating_sub(shown)).sum())
}

/// Waits until the slave shows all that the leader does.
///
/// # Errors
/// When it does not in time.
pub(crate) fn wait_in_step(topic: &Topic, followed: &Topic) -> Result<(), PerfError> {
    in_time(PATIENCE, || match behind(topic, followed)? {
        0 => Ok(()),
        behind => Err(PerfError::Broker(format!("the slave is {behind} messages behind, and does not catch up"))),
    })
}

/// Addresses on this machine that nobody uses at the moment: a leader's two and a slave's.
///
/// # Errors
/// The kernel's.
pub(crate) fn free_addresses() -> Result<[Reached; 2], PerfError> {
    let failed = |source| PerfError::Io { what: "looking for a free port on", path: "127.0.0.1".into(), source };
    // All are held until all are found, so that none is found twice.
    let held =
        (0..4).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let found = held.iter().map(TcpListener::local_addr).collect::<Result<Vec<SocketAddr>, _>>().map_err(failed)?;
    Ok([Reached { clients: found[0], replicas: found[1] }, Reached { clients: found[2], replicas: found[3] }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            stores: Stores { leader: "l".into(), slave: "s".into() },
            flush: Mode::Async,
            replication: Mode::Sync,
            backend: BackendChoice::Threads,
            segment_bytes: 1 << 20,
            spare_count: 1,
            retain_bytes: Some(1 << 24),
            ask_after_ms: None,
            reached: free_addresses().expect("there are free ports"),
        }
    }

    #[test]
    fn the_two_know_each_other_and_lie_apart() {
        let plan = plan();
        let [leader, slave] = [Role::Leader, Role::Slave].map(|role| plan.order(role));
        let [of_leader, of_slave] = [leader.part, slave.part].map(|part| part.expect("it has one"));
        assert_eq!((of_leader.own, of_leader.other), (of_slave.other, of_slave.own));
        assert_ne!(leader.store, slave.store);
        assert_eq!((of_leader.replication, of_slave.replication), (Mode::Sync, Mode::Sync));
    }

    #[test]
    fn a_slave_flushes_also_where_nobody_waits_for_it() {
        let plan = Plan { replication: Mode::Async, ..plan() };
        assert_eq!(plan.order(Role::Leader).flush, Mode::Async);
        assert_eq!(plan.order(Role::Slave).flush, Mode::Sync);
    }

    #[test]
    fn four_different_ports_are_found() {
        let [leader, slave] = free_addresses().expect("there are free ports");
        let mut ports = [leader.clients, leader.replicas, slave.clients, slave.replicas].map(|at| at.port());
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
    }

    #[test]
    fn two_directories_on_one_disk_are_known_to_be() {
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let stores = Stores::make(dir.path(), dir.path()).expect("they are made");
        let disks = stores.disks();
        assert!(disks.shared && disks.slave.is_none());
        stores.remove().expect("they are removed");
        assert!(!stores.of(Role::Slave).exists());
    }
}
