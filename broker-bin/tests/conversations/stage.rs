//! A broker on a temporary store.

use std::path::Path;

use anchorlog::{Broker, BrokerHandle, BrokerOptions, Driver};
use anchorlog_engine::{BackendChoice, EngineOptions};
use tempfile::TempDir;

use crate::peer::Peer;

/// A directory on the disk that the repository is on: memory file systems would hide what direct I/O asks for.
pub(crate) fn store() -> TempDir {
    tempfile::Builder::new().prefix("conversation-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// Small segments, so that conversations roll over them.
pub(crate) fn small_log() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(1 << 20)
        .with_buffer_bytes(1 << 20)
        .with_chunk_bytes(64 << 10)
        .with_cache_bytes(2 << 20)
        .with_spare_count(1)
        .with_backend(BackendChoice::Threads)
}

/// What conversations run against unless they say otherwise: any free port, an advertised address that is not the real one.
pub(crate) fn options(store: &Path, driver: Driver) -> BrokerOptions {
    BrokerOptions {
        listen: "127.0.0.1:0".parse().expect("an address"),
        advertise: Some("127.0.0.1:10911".parse().expect("an address")),
        engine: small_log(),
        driver,
        network_threads: Some(2),
        ..BrokerOptions::new(store)
    }
}

/// A broker and its store.
pub(crate) struct Stage {
    pub(crate) broker: BrokerHandle,
    pub(crate) store: TempDir,
}

impl Stage {
    pub(crate) fn new(driver: Driver) -> Stage {
        Stage::with(driver, |options| options)
    }

    pub(crate) fn with(driver: Driver, change: impl FnOnce(BrokerOptions) -> BrokerOptions) -> Stage {
        let store = store();
        let broker = Broker::start(change(options(store.path(), driver))).expect("a broker");
        Stage { broker, store }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::connect(self.broker.address())
    }

    /// Stops it in order and starts it again on the same store.
    pub(crate) fn restart(self, driver: Driver) -> Stage {
        let Stage { broker, store } = self;
        broker.stop().expect("a clean stop");
        let broker = Broker::start(options(store.path(), driver)).expect("a broker again");
        Stage { broker, store }
    }
}

/// Whether this kernel lets us use `io_uring`; says so out loud when it does not.
#[cfg(feature = "net-uring")]
pub(crate) fn kernel_offers_uring(conversation: &str) -> bool {
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(_) => true,
        Err(error) => {
            // Past the test harness, which keeps what a passing test prints to itself.
            let line = format!("SKIPPED over io_uring: {conversation}: this kernel refuses it ({error})\n");
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error can be written");
            false
        }
    }
}
