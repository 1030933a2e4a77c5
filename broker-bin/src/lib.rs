//! The broker: speaks Apache RocketMQ's remoting protocol to unmodified clients, over the Anchorlog engine.
//!
//! ```text
//!  client --> net (bytes) --> wire (types) --> router --> features --> Engine::append_all
//!  client <-- net <-- answers, released behind the acked watermark <-- engine
//! ```
//! A library, so that tests can drive it without a process.

#![forbid(unsafe_code)]

pub mod alarm;
pub mod broker;
pub mod commands;
pub mod config;
pub mod counters;
pub mod dial;
pub mod doctor;
pub mod features;
pub mod limits;
mod lock;
pub mod log_tools;
pub mod metrics;
pub mod net;
pub mod probe;
mod registration;
pub mod replica_tools;
mod replicas;
pub mod router;
#[cfg(test)]
mod scene;
mod serving;
pub mod shared;
#[cfg(test)]
mod simulation;
pub mod standing;
pub mod state;
pub mod telemetry;
pub mod wire;

pub use broker::{Broker, BrokerHandle, BrokerOptions, Driver, StartError, StopError};
