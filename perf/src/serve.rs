//! Our own broker, as the child process that rows measure: it says its address and its backend, a line each, answers each line `counts` on
//! its standard input with its counters, serves until that input ends, and stops.

use std::io::BufRead;
use std::time::Duration;

use anchorlog::broker::{OtherReplica, ReplicationOptions};
use anchorlog::{Broker, BrokerHandle, BrokerOptions};
use anchorlog_engine::{EngineOptions, Flush};
use anchorlog_replicator::{InSync, OnMissing, Policy, ReplicaId, Security};

use crate::cli::{Mode, Role, Serve};
use crate::engine_rows;
use crate::error::PerfError;
use crate::out;
use crate::served::{COUNTS, Counts};

/// Serves until standard input ends. Nothing is recycled unless it is said what is kept.
///
/// # Errors
/// When the broker cannot start or stop.
pub(crate) fn serve(wished: &Serve) -> Result<(), PerfError> {
    let broker = Broker::start(options(wished)?).map_err(|error| PerfError::Broker(error.to_string()))?;
    out::line(format_args!("{}", broker.address()));
    // A slave that has no log yet says nothing of its backend.
    let backend = broker.engine_info().map_or_else(|| "none yet".to_owned(), |info| engine_rows::backend_line(&info));
    out::line(format_args!("{backend}"));
    for asked in std::io::stdin().lock().lines() {
        match asked {
            Ok(line) if line == COUNTS => out::line(format_args!("{}", counters(&broker)?)),
            Ok(line) => return Err(PerfError::Usage(format!("{line:?} is nothing that can be asked"))),
            Err(_) => break,
        }
    }
    broker.stop().map(drop).map_err(|error| PerfError::Broker(error.to_string()))
}

fn counters(broker: &BrokerHandle) -> Result<String, PerfError> {
    let stats = broker.engine_stats().ok_or_else(|| PerfError::Broker("it has no log at the moment".to_owned()))?;
    let counts = Counts { flushes: stats.flushes, bytes: stats.commit_bytes, log_bytes: stats.frame_bytes };
    serde_json::to_string(&counts).map_err(|error| PerfError::Report(error.to_string()))
}

fn options(wished: &Serve) -> Result<BrokerOptions, PerfError> {
    let mut options = BrokerOptions::new(&wished.dir);
    options.listen = wished.listen;
    options.engine = EngineOptions::default()
        .with_backend(wished.backend.into())
        .with_segment_bytes(wished.segment_bytes)
        .with_retain_bytes(wished.retain_bytes)
        .with_spare_count(wished.spare_count)
        .with_flush(match wished.flush {
            Mode::Sync => Flush::Sync,
            Mode::Async => Flush::async_default(),
        });
    if let Some(ms) = wished.ask_after_ms {
        options.transaction_timeout = Duration::from_millis(ms);
    }
    options.replication = wished.role.map(|role| replication(wished, role)).transpose()?;
    Ok(options)
}

/// Two brokers, `leader` and `slave`, which are reached on this machine alone and so need not prove who they are.
fn replication(wished: &Serve, role: Role) -> Result<ReplicationOptions, PerfError> {
    let [own, other_clients, other_replicas] = wished.replicas[..] else {
        return Err(PerfError::Usage("a broker of a pair is told three addresses".to_owned()));
    };
    let named = |role: Role| role.name().parse::<ReplicaId>().map_err(|error| PerfError::Usage(error.to_string()));
    let other = if role == Role::Leader { Role::Slave } else { Role::Leader };
    Ok(ReplicationOptions {
        follows: role == Role::Slave,
        id: named(role)?,
        listen: own,
        address: own.to_string(),
        others: vec![OtherReplica { id: named(other)?, clients: other_clients, replicas: other_replicas }],
        policy: match wished.replication {
            Some(Mode::Sync) => Policy::Sync { copies: 2, on_missing: OnMissing::Refuse },
            _ => Policy::Async,
        },
        in_sync: InSync::default(),
        security: Security::Open,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn wished(more: &[&str]) -> Serve {
        let words = [
            "anchorlog-perf",
            "serve",
            "--dir=d",
            "--flush=async",
            "--backend=auto",
            "--spare-count=1",
            "--segment-bytes=1048576",
        ];
        let Some(Command::Serve(wished)) = Cli::parse_from(words.iter().chain(more)).command else {
            panic!("it is the serve command")
        };
        wished
    }

    #[test]
    fn a_slave_knows_its_leader_and_follows() {
        let wished = wished(&["--role=slave", "--replication=sync", "--replicas=127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"]);
        let replication = options(&wished).expect("it is whole").replication.expect("it has a part");
        assert!(replication.follows);
        assert_eq!((replication.id.as_str(), replication.others[0].id.as_str()), ("slave", "leader"));
        let ports =
            [replication.listen, replication.others[0].clients, replication.others[0].replicas].map(|at| at.port());
        assert_eq!(ports, [1, 2, 3]);
        assert_eq!(replication.policy.followers(), 1);
    }

    #[test]
    fn a_leader_that_waits_for_nobody_leads_all_the_same() {
        let wished =
            wished(&["--role=leader", "--replication=async", "--replicas=127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"]);
        let replication = options(&wished).expect("it is whole").replication.expect("it has a part");
        assert!(!replication.follows);
        assert_eq!((replication.id.as_str(), replication.policy), ("leader", Policy::Async));
    }

    #[test]
    fn without_a_role_a_broker_is_alone() {
        assert!(options(&wished(&[])).expect("it is whole").replication.is_none());
    }
}
