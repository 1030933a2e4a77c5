//! What an operator chooses: flags, a file, defaults.
//!
//! 1. A flag wins over the file, the file over the default; [`Config::summary`] says where each value came from.
//! 2. A key that is not known is an error with a suggestion, never silence. So is a value that promises what is not built.
//! 3. A `broker.conf` of the original means here what it means there, or is named as meaning nothing.
//!
//! Not here: what the engine accepts for its own options; it says so when the log is opened.

mod file;
mod live;
mod options;
mod replicas;
mod rocketmq;
mod units;
mod unused;
mod watched;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anchorlog_engine::Tail;
use anchorlog_engine::commitlog::manifest::Manifest;
use anchorlog_engine::commitlog::segment::Geometry;
use anchorlog_engine::io::threads::ThreadsBackend;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, parser::ValueSource};

pub use live::{Changed, Live, Refusal, shown as shown_options};
pub use options::{
    Backend, BrokerArgs, FlushMode, LogFormat, NetDriver, OnMissingMode, ReplicationMode, RoleMode, TailMode, security,
};
pub use replicas::{Replica, Replicas};
pub use units::{ByteSize, HostPort, HostPorts, Period, UnitError};
pub use watched::Watched;

use crate::commands::OperatorCommand;
use crate::doctor::DoctorArgs;
use crate::log_tools::LogArgs;
use crate::probe::ProbeArgs;
use crate::replica_tools::{NodeArgs, PromoteArgs};
use rocketmq::Meaning;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "anchorlog", version, about = "A durable log that speaks Apache RocketMQ's remoting protocol", long_about = None)]
#[command(propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the process can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Serves clients: broker and name server in one process
    Broker(Box<BrokerArgs>),
    /// Looks at the files of a log, and mends them
    Log(LogArgs),
    /// Says what a directory and its machine are good for, before a broker is started there
    Doctor(DoctorArgs),
    /// Asks a running broker whether it is healthy, or ready
    Probe(ProbeArgs),
    /// Shows how a set of replicas stands, as one of them knows it
    Replicas(NodeArgs),
    /// Makes a slave the leader
    Promote(PromoteArgs),
    /// Lets a leader hand over to a slave
    Demote(NodeArgs),
    /// Asks a running broker.
    #[command(flatten)]
    Operator(OperatorCommand),
}

/// What was asked for, complete.
#[derive(Debug)]
pub enum Order {
    /// To serve, with these options.
    Broker(Box<Config>),
    /// To look at a log.
    Log(LogArgs),
    /// To say what a directory is good for.
    Doctor(DoctorArgs),
    /// To ask whether a broker is healthy, or ready.
    Probe(ProbeArgs),
    /// To ask how a set of replicas stands.
    Replicas(NodeArgs),
    /// To make a slave the leader.
    Promote(PromoteArgs),
    /// To let a leader hand over.
    Demote(NodeArgs),
    /// To ask a running broker.
    Operator(OperatorCommand),
}

impl Order {
    /// Reads command line and file. The first of `words` is the program's own name.
    ///
    /// # Errors
    /// Says what is wrong and where. A call for help or for the version comes as [`ConfigError::CommandLine`], too.
    pub fn from_words<T: Into<std::ffi::OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Order, ConfigError> {
        let matches = Cli::command().try_get_matches_from(words)?;
        match Cli::from_arg_matches(&matches)?.command {
            Command::Broker(options) => {
                let given = matches.subcommand_matches("broker");
                Ok(Order::Broker(Box::new(Config::layered(*options, given)?)))
            }
            Command::Log(args) => Ok(Order::Log(args)),
            Command::Doctor(args) => Ok(Order::Doctor(args)),
            Command::Probe(args) => Ok(Order::Probe(args)),
            Command::Replicas(args) => Ok(Order::Replicas(args)),
            Command::Promote(args) => Ok(Order::Promote(args)),
            Command::Demote(args) => Ok(Order::Demote(args)),
            Command::Operator(command) => Ok(Order::Operator(command)),
        }
    }
}

/// What is wrong with a configuration. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The command line itself, or a call for help.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The file is not in its format.
    #[error("{path}: {what}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong, with the line.
        what: String,
    },
    /// A key that nobody knows.
    #[error("{place}: {key} is not an option{}", suggestion.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    UnknownKey {
        /// File and line.
        place: String,
        /// The key.
        key: String,
        /// The key that comes closest.
        suggestion: Option<String>,
    },
    /// A value that does not fit its option, or does not fit here at all.
    #[error("{place}: {key} = {value}: {reason}")]
    BadValue {
        /// File and line, or the command line.
        place: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Default,
    Flag,
    File,
    /// The log was made with it, whatever is asked for.
    Log,
}

/// What stands in the file for an option.
#[derive(Clone, Debug)]
struct Origin {
    /// File and line.
    place: String,
    key: String,
    value: String,
}

/// A configuration that holds together.
#[derive(Clone, Debug)]
pub struct Config {
    /// The options in force.
    pub options: BrokerArgs,
    /// Keys of the file that mean nothing here, with the reason.
    pub without_meaning: Vec<(String, &'static str)>,
    sources: BTreeMap<&'static str, Source>,
    /// Where in the file.
    origins: BTreeMap<&'static str, Origin>,
    /// What was asked for of a log that was made otherwise.
    overruled: Vec<String>,
}

impl Config {
    fn layered(options: BrokerArgs, given: Option<&ArgMatches>) -> Result<Config, ConfigError> {
        let mut sources = BTreeMap::new();
        for name in option_names() {
            let is_flag = given.and_then(|given| given.value_source(&name.replace('-', "_")));
            let source = if is_flag == Some(ValueSource::CommandLine) { Source::Flag } else { Source::Default };
            sources.insert(name, source);
        }
        let mut config =
            Config { options, without_meaning: Vec::new(), sources, origins: BTreeMap::new(), overruled: Vec::new() };
        if let Some(path) = config.options.config.clone() {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            let entries =
                file::entries(&path, &text).map_err(|what| ConfigError::Malformed { path: path.clone(), what })?;
            let mut addresses = rocketmq::Addresses::default();
            for entry in entries {
                let place = format!("{} line {}", path.display(), entry.line);
                config.apply(&place, &entry.key, &entry.value, &mut addresses)?;
            }
            config.apply_addresses(addresses);
        }
        config.check()?;
        Ok(config)
    }

    /// Takes one entry of a file.
    fn apply(
        &mut self,
        place: &str,
        key: &str,
        value: &str,
        addresses: &mut rocketmq::Addresses,
    ) -> Result<(), ConfigError> {
        let bad = |reason: String| ConfigError::BadValue {
            place: place.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            reason,
        };
        let origin = Origin { place: place.to_owned(), key: key.to_owned(), value: value.to_owned() };
        let dashed = key.replace('_', "-");
        if let Some(name) = option_names().into_iter().find(|name| *name == dashed) {
            self.origins.insert(name, origin);
            return self.set(name, value).map_err(bad);
        }
        match rocketmq::meaning(key, value).map_err(bad)? {
            Some(Meaning::Is(name, value)) => {
                self.origins.insert(name, origin);
                self.set(name, &value).map_err(bad)
            }
            Some(Meaning::ListenIp(ip)) => {
                // Whether it can be listened at depends on the host more than on the port.
                self.origins.insert("listen", origin);
                addresses.listen_ip = Some(ip);
                Ok(())
            }
            Some(Meaning::ListenPort(port)) => {
                self.origins.entry("listen").or_insert(origin);
                addresses.listen_port = Some(port);
                Ok(())
            }
            Some(Meaning::AdvertiseIp(ip)) => {
                self.origins.insert("advertise", origin);
                addresses.advertise_ip = Some(ip);
                Ok(())
            }
            Some(Meaning::Nothing(reason)) => {
                self.without_meaning.push((key.to_owned(), reason));
                Ok(())
            }
            None => {
                Err(ConfigError::UnknownKey { place: place.to_owned(), key: key.to_owned(), suggestion: closest(key) })
            }
        }
    }

    fn set(&mut self, name: &'static str, value: &str) -> Result<(), String> {
        if name == "config" {
            return Err("a file cannot name another".to_owned());
        }
        let is_flag = self.sources.get(name) == Some(&Source::Flag);
        if is_flag {
            // It must make sense all the same.
            return self.options.clone().set(name, value);
        }
        self.options.set(name, value)?;
        self.sources.insert(name, Source::File);
        Ok(())
    }

    /// The original gives an address in parts; what is missing comes from our own.
    fn apply_addresses(&mut self, parts: rocketmq::Addresses) {
        if self.sources.get("listen") != Some(&Source::Flag)
            && (parts.listen_ip.is_some() || parts.listen_port.is_some())
        {
            let listen = &mut self.options.listen;
            listen.host = parts.listen_ip.unwrap_or_else(|| listen.host.clone());
            listen.port = parts.listen_port.unwrap_or(listen.port);
            self.sources.insert("listen", Source::File);
        }
        if let Some(host) = parts.advertise_ip.filter(|_| self.sources.get("advertise") != Some(&Source::Flag)) {
            self.options.advertise = Some(HostPort { host, port: self.options.listen.port });
            self.sources.insert("advertise", Source::File);
        }
    }

    /// What one option cannot see alone. Blamed is what was written, where it was written.
    fn check(&self) -> Result<(), ConfigError> {
        self.options.check().map_err(|(name, value, reason)| self.blamed(name, value, reason))
    }

    fn blamed(&self, name: &'static str, value: String, reason: String) -> ConfigError {
        match (self.sources.get(name), self.origins.get(name)) {
            (Some(Source::File), Some(Origin { place, key, value })) => {
                ConfigError::BadValue { place: place.clone(), key: key.clone(), value: value.clone(), reason }
            }
            (source, _) => {
                let place = if source == Some(&Source::Flag) { "command line" } else { "by default" };
                ConfigError::BadValue { place: place.to_owned(), key: name.to_owned(), value, reason }
            }
        }
    }

    fn is_chosen(&self, name: &str) -> bool {
        matches!(self.sources.get(name), Some(Source::Flag | Source::File))
    }

    /// Takes what a log that is there already has for good, so that nothing else is shown as if it were in force. A log that cannot be
    /// read is left to whoever opens it.
    ///
    /// # Errors
    /// When a tail was asked for that the log does not have: who asks for one relies on it.
    pub fn heed_log(&mut self) -> Result<(), ConfigError> {
        let Some(made) = geometry(&self.options.store) else { return Ok(()) };
        let store = self.options.store.display();
        let tail = match made.tail {
            Tail::Rewrite => TailMode::Rewrite,
            Tail::Pad => TailMode::Pad,
        };
        if tail != self.options.tail {
            let reason = format!(
                "the log in {store} was made with tail = {}, and keeps it: say that, or start with a new directory",
                options::shown(&tail)
            );
            if self.is_chosen("tail") {
                return Err(self.blamed("tail", options::shown(&self.options.tail), reason));
            }
            self.options.tail = tail;
            self.sources.insert("tail", Source::Log);
        }
        let segment_bytes = ByteSize(made.segment_bytes);
        if segment_bytes != self.options.segment_bytes {
            if self.is_chosen("segment-bytes") {
                let asked = self.options.segment_bytes;
                self.overruled.push(format!(
                    "segment-bytes = {asked} has no effect: the log in {store} was made with {segment_bytes}, and keeps it"
                ));
            }
            self.options.segment_bytes = segment_bytes;
            self.sources.insert("segment-bytes", Source::Log);
        }
        Ok(())
    }

    /// Every option with its value and where it came from, one a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.options.values() {
            let source = match self.sources.get(name) {
                Some(Source::Flag) => " (flag)",
                Some(Source::File) => " (file)",
                Some(Source::Log) => " (as the log was made)",
                _ => "",
            };
            // A string takes everything.
            let _written = write!(text, "\n  {name} = {value}{source}");
        }
        text
    }

    /// What was asked for and has no effect, as sentences.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> =
            self.without_meaning.iter().map(|(key, reason)| format!("{key} means nothing here: {reason}")).collect();
        remarks.extend(self.overruled.iter().cloned());
        if self.options.flush == FlushMode::Sync {
            let without_effect = ["flush-interval", "flush-bytes"].into_iter().filter(|name| self.is_chosen(name));
            remarks.extend(without_effect.map(|name| format!("{name} has no effect while flush is sync")));
        }
        if self.options.ack_timeout.0 >= options::CLIENT_TIMEOUT {
            remarks.push(format!(
                "ack-timeout is {}: clients give up after 3s and send again before they are answered",
                self.options.ack_timeout
            ));
        }
        if self.options.is_open_behind_tls() {
            remarks.push(
                "tls-only without acl and tls-client-ca: nobody reads along, and anyone who can connect may do everything".to_owned(),
            );
        }
        let reach = |host: &HostPort| host.resolve().ok().map(|address| address.ip());
        if self.options.metrics_listen.as_ref().and_then(reach).is_some_and(|ip| !ip.is_loopback()) {
            remarks.push(
                "metrics-listen reaches beyond this machine: whoever connects there can read names and numbers of topics and groups; no account \
                 or certificate is asked for, so let only monitors reach it (a private address, a firewall)"
                    .to_owned(),
            );
        }
        let advertise = self.options.advertise.as_ref().and_then(reach);
        if reach(&self.options.listen).is_some_and(|ip| ip.is_loopback())
            && advertise.is_some_and(|ip| !ip.is_loopback())
        {
            remarks
                .push("clients are told an address beyond this machine, but only this machine can connect".to_owned());
        }
        remarks
    }
}

/// What the log in `store` was made with, if there is one.
fn geometry(store: &Path) -> Option<Geometry> {
    let bytes = Manifest::load(&ThreadsBackend::new(), store).ok()??;
    Manifest::decode(&bytes).ok().map(|manifest| manifest.geometry)
}

/// Names of all options, as flags and in files.
fn option_names() -> Vec<&'static str> {
    options::NAMES.to_vec()
}

/// The option, or key of the original, that `key` is most likely meant to be: all but a few letters are the same.
fn closest(key: &str) -> Option<String> {
    let letters = |key: &str| key.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_ascii_lowercase();
    let wanted = letters(key);
    let most = (wanted.len() / 4).clamp(1, 3);
    let known = option_names().into_iter().chain(rocketmq::known_keys());
    known
        .map(|name| (strsim::damerau_levenshtein(&wanted, &letters(name)), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// The `broker` subcommand on its own, for help and tests.
#[must_use]
pub fn broker_command() -> clap::Command {
    BrokerArgs::augment_args(clap::Command::new("broker"))
}

#[cfg(test)]
mod tests;
