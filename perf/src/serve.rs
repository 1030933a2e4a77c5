//! Our own broker, as the child process that the broker rows measure: it says its address and its backend, a line each, serves until
//! its standard input ends, and stops.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anchorlog::{Broker, BrokerOptions};
use anchorlog_engine::{EngineOptions, Flush};

use crate::cli::{FlushMode, Serve};
use crate::engine_rows;
use crate::error::PerfError;
use crate::out;

/// Serves until standard input ends. Nothing is recycled unless it is said what is kept.
///
/// # Errors
/// When the broker cannot start or stop.
pub(crate) fn serve(wished: &Serve) -> Result<(), PerfError> {
    let mut options = BrokerOptions::new(&wished.dir);
    options.listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    options.engine = EngineOptions::default()
        .with_backend(wished.backend.into())
        .with_segment_bytes(wished.segment_bytes)
        .with_retain_bytes(wished.retain_bytes)
        .with_spare_count(wished.spare_count)
        .with_flush(match wished.flush {
            FlushMode::Sync => Flush::Sync,
            FlushMode::Async => Flush::async_default(),
        });
    let broker = Broker::start(options).map_err(|error| PerfError::Broker(error.to_string()))?;
    out::line(format_args!("{}", broker.address()));
    out::line(format_args!(
        "{}",
        engine_rows::backend_line(&broker.engine_info().expect("a broker without replicas serves"))
    ));
    let mut nothing = Vec::new();
    drop(std::io::stdin().read_to_end(&mut nothing));
    broker.stop().map(drop).map_err(|error| PerfError::Broker(error.to_string()))
}
