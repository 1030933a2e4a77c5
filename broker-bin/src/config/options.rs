//! The broker's options, one field each.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anchorlog_engine::{BackendChoice, EngineOptions, Flush, Tail};
use anchorlog_replicator::{Certificates, InSync, OnMissing, Policy, ReplicaId, Security, SharedKey};
use clap::{Args, FromArgMatches as _, ValueEnum};

use super::replicas::Replicas;
use super::units::{ByteSize, HostPort, HostPorts, Period};
use crate::alarm::Whom;
use crate::broker::{BrokerOptions, Driver, NameServerDoor, OtherReplica, ReplicationOptions};
use crate::dial::Trust;
use crate::features::access::Secret;
use crate::features::delay::DelayLevels;
use crate::limits;
use crate::net::{Bounds, TlsOptions};
use crate::telemetry;

/// What clients wait for an answer to a send before they send again.
pub(super) const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);

/// When a send is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlushMode {
    /// After its bytes are durable: a power failure loses nothing that was acknowledged
    Sync,
    /// After its bytes are in memory: a power failure loses what came since the last flush
    Async,
}

/// What happens to messages that a group has not consumed when their file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unconsumed {
    /// They are kept, however many; when the disk is full of them, sends are refused
    Keep,
    /// They go with their file: a group that is behind loses them
    Lose,
}

/// What happens to the rest of a commit's last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TailMode {
    /// The next commit writes the block again
    Rewrite,
    /// It is padded: for disks that can lose a whole block when torn
    Pad,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// A short measurement at the first start decides
    Auto,
    /// `io_uring`, or no start
    Uring,
    /// Plain system calls
    Threads,
}

/// How sockets are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetDriver {
    /// tokio on epoll
    Tokio,
    /// tokio-uring; only in builds with the feature net-uring
    Uring,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line each, with all there is
    Full,
    /// One shorter line each
    Compact,
    /// Several lines each, for people
    Pretty,
    /// One JSON object a line, with every field under its name
    Json,
}

/// What the broker is among its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleMode {
    /// It has none
    Alone,
    /// Others follow its log; it asks them first whether one of them leads meanwhile
    Leader,
    /// It follows its leader's log, and serves reads
    Slave,
}

/// What an ack promises beyond the leader's own disk or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReplicationMode {
    /// Also that it is on the disks of copies - 1 slaves
    Sync,
    /// Nothing: slaves follow as fast as they can, and a lost leader takes with it what they lack
    Async,
}

/// What happens while too few slaves are in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnMissingMode {
    /// Sends are refused before anything is stored
    Refuse,
    /// Unsafe: sends are acknowledged by the leader alone, with code 11
    DegradeUnsafe,
}

/// Options of `anchorlog broker`. A file has the same names; there, `-` may be `_`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct BrokerArgs {
    /// Options from this file: TOML, or key=value lines like a broker.conf. Flags win over it [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory of the log; made when it is missing
    #[arg(long, value_name = "DIR", default_value = "./anchorlog-store")]
    pub store: PathBuf,

    /// Where to listen, for clients and as their name server; port 0 takes any that is free
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9876")]
    pub listen: HostPort,

    /// Address that clients are told to dial; stands in routes and message ids [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<HostPort>,

    /// Listen beyond loopback although anyone who can connect can read, write and delete: neither accounts (acl) nor TLS (tls-only) keep
    /// them out
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub insecure: bool,

    /// Answer a request only when it is signed by an account that may make it; accounts are made by anchorlog user, or stand in acl-file
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub acl: bool,

    /// Accounts from this file, a plain_acl.yml; implies acl. A change of it holds at once, and replicas have it [default: none]
    #[arg(long, value_name = "FILE")]
    pub acl_file: Option<PathBuf>,

    /// Certificate to show to clients that speak TLS, on the same port; PEM, with tls-key. Read again when it changes [default: none]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key; PEM [default: none]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Authorities, PEM: clients must show a certificate of one of them. With tls-only [default: clients show none]
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Close connections that do not speak TLS
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub tls_only: bool,

    /// Name of this broker
    #[arg(long, value_name = "NAME", default_value = "broker-a")]
    pub broker_name: String,

    /// Name of its cluster
    #[arg(long, value_name = "NAME", default_value = "DefaultCluster")]
    pub cluster_name: String,

    /// Name servers of others to register with, HOST:PORT;HOST:PORT; this broker answers for its own topics in any case, and for those of
    /// the brokers beside it as these name servers told last [default: none]
    #[arg(long, value_name = "LIST")]
    pub name_servers: Option<HostPorts>,

    /// Speak TLS to these name servers, and believe the authorities in this file (PEM); where one of them wants to see a certificate, the
    /// broker's own is shown (tls-cert) [default: no TLS]
    #[arg(long, value_name = "FILE")]
    pub name_server_tls_ca: Option<PathBuf>,

    /// The account that signs what these name servers are asked [default: nothing is signed]
    #[arg(long, value_name = "NAME")]
    pub name_server_access_key: Option<String>,

    /// File with its secret key [default: none]
    #[arg(long, value_name = "FILE")]
    pub name_server_secret_key_file: Option<PathBuf>,

    /// When a send is acknowledged
    #[arg(long, value_enum, default_value = "sync")]
    pub flush: FlushMode,

    /// With async flush: longest time between two flushes
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    pub flush_interval: Period,

    /// With async flush: unflushed bytes that cause a flush earlier
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub flush_bytes: ByteSize,

    /// How the log is written
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: Backend,

    /// Measure the backends again, even if there is a verdict from an earlier start
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub remeasure: bool,

    /// Size of one file of the log, 64KiB to 1GiB; fixed when the log is created
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub segment_bytes: ByteSize,

    /// Drop the oldest files once the log is longer than this; at least two files [default: keep everything]
    #[arg(long, value_name = "SIZE")]
    pub retain_bytes: Option<ByteSize>,

    /// What happens to messages that a group has not consumed when their file is dropped; a group counts from its first commit on
    #[arg(long, value_enum, default_value = "keep")]
    pub unconsumed: Unconsumed,

    /// What happens to the rest of a commit's last block; fixed when the log is created
    #[arg(long, value_enum, default_value = "rewrite")]
    pub tail: TailMode,

    /// Durable writes in flight at once, 1 to 16; more than one is slower on disks without FUA
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub commit_depth: usize,

    /// Longest wait for a send's ack before it is answered as stored but not confirmed
    #[arg(long, value_name = "TIME", default_value = "2500ms")]
    pub ack_timeout: Period,

    /// Network threads, 1 to 256 [default: one for each core, at most 4]
    #[arg(long, value_name = "COUNT")]
    pub net_threads: Option<usize>,

    /// How sockets are served
    #[arg(long, value_enum, default_value = "tokio")]
    pub net_driver: NetDriver,

    /// Make unknown topics when something is sent to them
    #[arg(long, value_name = "BOOL", default_value = "true", action = clap::ArgAction::Set)]
    pub auto_create_topics: bool,

    /// Make unknown groups when a consumer joins them
    #[arg(long, value_name = "BOOL", default_value = "true", action = clap::ArgAction::Set)]
    pub auto_create_groups: bool,

    /// Let consumers choose messages by their properties (SQL92): each message that such a consumer passes is read, and costs its share
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub enable_property_filter: bool,

    /// Most queues of a topic made on demand; clients ask for 4 unless told otherwise
    #[arg(long, value_name = "COUNT", default_value = "8")]
    pub default_topic_queues: u32,

    /// Delays of the levels that a producer or a retry can ask for, from level 1 on; what is scheduled already keeps its time
    #[arg(long, value_name = "TIMES", default_value = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h")]
    pub message_delay_level: DelayLevels,

    /// How old a half message is when its producer is first asked what became of its transaction
    #[arg(long, value_name = "TIME", default_value = "6s")]
    pub transaction_timeout: Period,

    /// Time from one such question to the next, at least 100ms
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub transaction_check_interval: Period,

    /// Most questions to a producer that is there; after the last the message is kept, and nobody is asked any more
    #[arg(long, value_name = "COUNT", default_value = "15")]
    pub transaction_check_max: u32,

    /// How long a send is recognised that comes again because its answer was lost, so that it is stored once; 0s for never
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub repeat_window: Period,

    /// Most memory for that: 20 bytes for each message of that time; with more messages the oldest are forgotten early, and counted
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    pub repeat_memory: ByteSize,

    /// Who is told of each dead letter: a command, which gets JSON lines on its standard input, or a URL to post to [default: nobody]
    #[arg(long, value_name = "COMMAND|URL")]
    pub on_dead_letter: Option<Whom>,

    /// Largest body of a message or batch, at most 4MiB
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    pub max_message_bytes: ByteSize,

    /// Most connections at once
    #[arg(long, value_name = "COUNT", default_value = "65536")]
    pub max_connections: usize,

    /// Most connections at once from one address
    #[arg(long, value_name = "COUNT", default_value = "16384")]
    pub max_connections_per_address: usize,

    /// Most connections at once of one client: of one client id from one address
    #[arg(long, value_name = "COUNT", default_value = "1024")]
    pub max_connections_per_client: usize,

    /// Largest request, 64KiB to 16MiB; who announces a larger one is disconnected
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub max_frame_bytes: ByteSize,

    /// Most bytes of requests from one address that are not whole, or wait to be handled; who goes beyond it is disconnected
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub max_unfinished_bytes: ByteSize,

    /// The same for one client
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    pub max_unfinished_bytes_per_client: ByteSize,

    /// Bytes of a connection's sends that wait for their acks; with more it is not read until some are acknowledged
    #[arg(long, value_name = "SIZE", default_value = "32MiB")]
    pub max_in_flight_bytes: ByteSize,

    /// The same for all connections of one client
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    pub max_in_flight_bytes_per_client: ByteSize,

    /// Most pulls of one connection that wait for a message; further ones are refused with code 2
    #[arg(long, value_name = "COUNT", default_value = "16384")]
    pub max_held_pulls: usize,

    /// The same for all connections of one client
    #[arg(long, value_name = "COUNT", default_value = "65536")]
    pub max_held_pulls_per_client: usize,

    /// The same for all connections from one address
    #[arg(long, value_name = "COUNT", default_value = "262144")]
    pub max_held_pulls_per_address: usize,

    /// What the broker is among its replicas
    #[arg(long, value_enum, default_value = "alone")]
    pub role: RoleMode,

    /// Its name among them; never change it for a store
    #[arg(long, value_name = "NAME", default_value = "a")]
    pub replica_id: String,

    /// Where replicas connect to it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:10912")]
    pub replica_listen: HostPort,

    /// The others, NAME=CLIENTS+REPLICAS with two addresses each, separated by commas [default: none]
    #[arg(long, value_name = "LIST")]
    pub replicas: Option<Replicas>,

    /// What an ack promises beyond the leader's own disk or memory; the same for all replicas, since each may lead
    #[arg(long, value_enum, default_value = "sync")]
    pub replication: ReplicationMode,

    /// With sync replication: copies that an ack stands for, the leader's included; the same for all replicas
    #[arg(long, value_name = "COUNT", default_value = "2")]
    pub copies: u32,

    /// With sync replication: what happens while too few slaves are in sync; the same for all replicas
    #[arg(long, value_enum, default_value = "refuse")]
    pub on_missing: OnMissingMode,

    /// A slave further behind than this is not in sync
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub in_sync_lag: ByteSize,

    /// File with the key that all replicas share, at least 16 bytes; needed beyond loopback, unless there are certificates [default: none]
    #[arg(long, value_name = "FILE")]
    pub replica_key: Option<PathBuf>,

    /// Directory with cert.pem, key.pem and ca.pem: replicas speak TLS and trust that authority [default: none]
    #[arg(long, value_name = "DIR")]
    pub replica_tls: Option<PathBuf>,

    /// Where monitors are told of /metrics, /health and /ready over HTTP, without login: names and numbers of topics and groups can be read
    /// there, and nothing can be changed [default: nowhere]
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics_listen: Option<HostPort>,

    /// What is logged: a level, or directives such as info,anchorlog::net=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// How log lines look
    #[arg(long, value_enum, default_value = "full")]
    pub log_format: LogFormat,
}

/// Names of all options, in the order of [`BrokerArgs`].
pub(super) const NAMES: [&str; 66] = [
    "config",
    "store",
    "listen",
    "advertise",
    "insecure",
    "acl",
    "acl-file",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "tls-only",
    "broker-name",
    "cluster-name",
    "name-servers",
    "name-server-tls-ca",
    "name-server-access-key",
    "name-server-secret-key-file",
    "flush",
    "flush-interval",
    "flush-bytes",
    "backend",
    "remeasure",
    "segment-bytes",
    "retain-bytes",
    "unconsumed",
    "tail",
    "commit-depth",
    "ack-timeout",
    "net-threads",
    "net-driver",
    "auto-create-topics",
    "auto-create-groups",
    "enable-property-filter",
    "default-topic-queues",
    "message-delay-level",
    "transaction-timeout",
    "transaction-check-interval",
    "transaction-check-max",
    "repeat-window",
    "repeat-memory",
    "on-dead-letter",
    "max-message-bytes",
    "max-connections",
    "max-connections-per-address",
    "max-connections-per-client",
    "max-frame-bytes",
    "max-unfinished-bytes",
    "max-unfinished-bytes-per-client",
    "max-in-flight-bytes",
    "max-in-flight-bytes-per-client",
    "max-held-pulls",
    "max-held-pulls-per-client",
    "max-held-pulls-per-address",
    "role",
    "replica-id",
    "replica-listen",
    "replicas",
    "replication",
    "copies",
    "on-missing",
    "in-sync-lag",
    "replica-key",
    "replica-tls",
    "metrics-listen",
    "log-level",
    "log-format",
];

/// How replicas know each other: by the key in a file, or by the certificates in a directory.
///
/// # Errors
/// When they cannot be read, or are not good enough.
pub fn security(key: Option<&PathBuf>, tls: Option<&PathBuf>) -> std::io::Result<Security> {
    let read = |path: PathBuf| {
        std::fs::read(&path).map_err(|error| std::io::Error::other(format!("cannot read {}: {error}", path.display())))
    };
    match (key, tls) {
        (_, Some(dir)) => {
            let (chain, key, authority) =
                (read(dir.join("cert.pem"))?, read(dir.join("key.pem"))?, read(dir.join("ca.pem"))?);
            Certificates::from_pem(&chain, &key, &authority).map(Security::Tls).map_err(std::io::Error::other)
        }
        (Some(path), None) => {
            let text = read(path.clone())?;
            SharedKey::new(text.trim_ascii()).map(Security::Key).map_err(std::io::Error::other)
        }
        (None, None) => Ok(Security::Open),
    }
}

fn parsed<T: FromStr>(value: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    value.trim().parse().map_err(|error: T::Err| error.to_string())
}

fn chosen<T: ValueEnum>(value: &str) -> Result<T, String> {
    T::from_str(value.trim(), true).map_err(|_| {
        let known: Vec<_> = T::value_variants()
            .iter()
            .filter_map(|one| one.to_possible_value())
            .map(|one| one.get_name().to_owned())
            .collect();
        format!("one of {} is wanted", known.join(", "))
    })
}

pub(super) fn shown<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn shown_path(path: Option<&PathBuf>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

fn shown_or<T: fmt::Display>(value: Option<&T>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), T::to_string)
}

/// The options that the original has too, by its names and with its values.
pub(super) fn as_original(args: &BrokerArgs) -> Vec<(&'static str, String)> {
    let ms = |period: &Period| period.0.as_millis().to_string();
    let role = match (args.role, args.replication) {
        (RoleMode::Slave, _) => "SLAVE",
        (RoleMode::Leader, ReplicationMode::Sync) => "SYNC_MASTER",
        _ => "ASYNC_MASTER",
    };
    let flush = if args.flush == FlushMode::Sync { "SYNC_FLUSH" } else { "ASYNC_FLUSH" };
    vec![
        ("aclEnable", args.is_acl_on().to_string()),
        ("autoCreateSubscriptionGroup", args.auto_create_groups.to_string()),
        ("autoCreateTopicEnable", args.auto_create_topics.to_string()),
        ("brokerClusterName", args.cluster_name.clone()),
        ("brokerId", u8::from(args.role == RoleMode::Slave).to_string()),
        ("brokerIP1", args.advertise.as_ref().unwrap_or(&args.listen).host.clone()),
        ("brokerName", args.broker_name.clone()),
        ("brokerRole", role.to_owned()),
        ("defaultTopicQueueNums", args.default_topic_queues.to_string()),
        ("flushDiskType", flush.to_owned()),
        ("listenPort", args.listen.port.to_string()),
        ("mappedFileSizeCommitLog", args.segment_bytes.0.to_string()),
        ("maxMessageSize", args.max_message_bytes.0.to_string()),
        ("messageDelayLevel", args.message_delay_level.to_string()),
        ("namesrvAddr", args.name_servers.as_ref().map(HostPorts::to_string).unwrap_or_default()),
        ("storePathRootDir", args.store.display().to_string()),
        ("syncFlushTimeout", ms(&args.ack_timeout)),
        ("transactionCheckInterval", ms(&args.transaction_check_interval)),
        ("transactionCheckMax", args.transaction_check_max.to_string()),
        ("transactionTimeOut", ms(&args.transaction_timeout)),
    ]
}

impl BrokerArgs {
    /// Every option at its default.
    ///
    /// # Panics
    /// Never: every default can be read.
    #[must_use]
    pub fn defaults() -> BrokerArgs {
        let command = BrokerArgs::augment_args(clap::Command::new("broker"));
        let matches = command.try_get_matches_from(["broker"]).expect("no option is required");
        BrokerArgs::from_arg_matches(&matches).expect("every default can be read")
    }

    /// Sets one option from a file.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "store" => self.store = value.into(),
            "listen" => self.listen = parsed(value)?,
            "advertise" => self.advertise = Some(parsed(value)?),
            "insecure" => self.insecure = parsed(value)?,
            "acl" => self.acl = parsed(value)?,
            "acl-file" => self.acl_file = Some(value.into()),
            "tls-cert" => self.tls_cert = Some(value.into()),
            "tls-key" => self.tls_key = Some(value.into()),
            "tls-client-ca" => self.tls_client_ca = Some(value.into()),
            "tls-only" => self.tls_only = parsed(value)?,
            "broker-name" => self.broker_name = value.to_owned(),
            "cluster-name" => self.cluster_name = value.to_owned(),
            "name-servers" => self.name_servers = Some(parsed(value)?),
            "name-server-tls-ca" => self.name_server_tls_ca = Some(PathBuf::from(value)),
            "name-server-access-key" => self.name_server_access_key = Some(value.to_owned()),
            "name-server-secret-key-file" => self.name_server_secret_key_file = Some(PathBuf::from(value)),
            "flush" => self.flush = chosen(value)?,
            "flush-interval" => self.flush_interval = parsed(value)?,
            "flush-bytes" => self.flush_bytes = parsed(value)?,
            "backend" => self.backend = chosen(value)?,
            "remeasure" => self.remeasure = parsed(value)?,
            "segment-bytes" => self.segment_bytes = parsed(value)?,
            "retain-bytes" => self.retain_bytes = Some(parsed(value)?),
            "unconsumed" => self.unconsumed = chosen(value)?,
            "tail" => self.tail = chosen(value)?,
            "commit-depth" => self.commit_depth = parsed(value)?,
            "ack-timeout" => self.ack_timeout = parsed(value)?,
            "net-threads" => self.net_threads = Some(parsed(value)?),
            "net-driver" => self.net_driver = chosen(value)?,
            "auto-create-topics" => self.auto_create_topics = parsed(value)?,
            "auto-create-groups" => self.auto_create_groups = parsed(value)?,
            "enable-property-filter" => self.enable_property_filter = parsed(value)?,
            "default-topic-queues" => self.default_topic_queues = parsed(value)?,
            "message-delay-level" => self.message_delay_level = parsed(value)?,
            "transaction-timeout" => self.transaction_timeout = parsed(value)?,
            "transaction-check-interval" => self.transaction_check_interval = parsed(value)?,
            "transaction-check-max" => self.transaction_check_max = parsed(value)?,
            "repeat-window" => self.repeat_window = parsed(value)?,
            "repeat-memory" => self.repeat_memory = parsed(value)?,
            "on-dead-letter" => self.on_dead_letter = Some(parsed(value)?),
            "max-message-bytes" => self.max_message_bytes = parsed(value)?,
            "max-connections" => self.max_connections = parsed(value)?,
            "max-connections-per-address" => self.max_connections_per_address = parsed(value)?,
            "max-connections-per-client" => self.max_connections_per_client = parsed(value)?,
            "max-frame-bytes" => self.max_frame_bytes = parsed(value)?,
            "max-unfinished-bytes" => self.max_unfinished_bytes = parsed(value)?,
            "max-unfinished-bytes-per-client" => self.max_unfinished_bytes_per_client = parsed(value)?,
            "max-in-flight-bytes" => self.max_in_flight_bytes = parsed(value)?,
            "max-in-flight-bytes-per-client" => self.max_in_flight_bytes_per_client = parsed(value)?,
            "max-held-pulls" => self.max_held_pulls = parsed(value)?,
            "max-held-pulls-per-client" => self.max_held_pulls_per_client = parsed(value)?,
            "max-held-pulls-per-address" => self.max_held_pulls_per_address = parsed(value)?,
            "role" => self.role = chosen(value)?,
            "replica-id" => self.replica_id = value.to_owned(),
            "replica-listen" => self.replica_listen = parsed(value)?,
            "replicas" => self.replicas = Some(parsed(value)?),
            "replication" => self.replication = chosen(value)?,
            "copies" => self.copies = parsed(value)?,
            "on-missing" => self.on_missing = chosen(value)?,
            "in-sync-lag" => self.in_sync_lag = parsed(value)?,
            "replica-key" => self.replica_key = Some(value.into()),
            "replica-tls" => self.replica_tls = Some(value.into()),
            "metrics-listen" => self.metrics_listen = Some(parsed(value)?),
            "log-level" => self.log_level = value.to_owned(),
            "log-format" => self.log_format = chosen(value)?,
            _ => return Err("it cannot be set here".to_owned()),
        }
        Ok(())
    }

    /// Every option with its value as text.
    pub(super) fn values(&self) -> Vec<(&'static str, String)> {
        let values = [
            shown_path(self.config.as_ref()),
            self.store.display().to_string(),
            self.listen.to_string(),
            shown_or(self.advertise.as_ref(), "where it listens"),
            self.insecure.to_string(),
            self.acl.to_string(),
            shown_path(self.acl_file.as_ref()),
            shown_path(self.tls_cert.as_ref()),
            shown_path(self.tls_key.as_ref()),
            self.tls_client_ca
                .as_ref()
                .map_or_else(|| "clients show none".to_owned(), |path| path.display().to_string()),
            self.tls_only.to_string(),
            self.broker_name.clone(),
            self.cluster_name.clone(),
            shown_or(self.name_servers.as_ref(), "none"),
            self.name_server_tls_ca.as_ref().map_or_else(|| "no TLS".to_owned(), |path| path.display().to_string()),
            self.name_server_access_key.clone().unwrap_or_else(|| "nothing is signed".to_owned()),
            self.name_server_secret_key_file
                .as_ref()
                .map_or_else(|| "none".to_owned(), |path| path.display().to_string()),
            shown(&self.flush),
            self.flush_interval.to_string(),
            self.flush_bytes.to_string(),
            shown(&self.backend),
            self.remeasure.to_string(),
            self.segment_bytes.to_string(),
            shown_or(self.retain_bytes.as_ref(), "keep everything"),
            shown(&self.unconsumed),
            shown(&self.tail),
            self.commit_depth.to_string(),
            self.ack_timeout.to_string(),
            shown_or(self.net_threads.as_ref(), "one for each core, at most 4"),
            shown(&self.net_driver),
            self.auto_create_topics.to_string(),
            self.auto_create_groups.to_string(),
            self.enable_property_filter.to_string(),
            self.default_topic_queues.to_string(),
            self.message_delay_level.to_string(),
            self.transaction_timeout.to_string(),
            self.transaction_check_interval.to_string(),
            self.transaction_check_max.to_string(),
            self.repeat_window.to_string(),
            self.repeat_memory.to_string(),
            shown_or(self.on_dead_letter.as_ref(), "nobody"),
            self.max_message_bytes.to_string(),
            self.max_connections.to_string(),
            self.max_connections_per_address.to_string(),
            self.max_connections_per_client.to_string(),
            self.max_frame_bytes.to_string(),
            self.max_unfinished_bytes.to_string(),
            self.max_unfinished_bytes_per_client.to_string(),
            self.max_in_flight_bytes.to_string(),
            self.max_in_flight_bytes_per_client.to_string(),
            self.max_held_pulls.to_string(),
            self.max_held_pulls_per_client.to_string(),
            self.max_held_pulls_per_address.to_string(),
            shown(&self.role),
            self.replica_id.clone(),
            self.replica_listen.to_string(),
            shown_or(self.replicas.as_ref(), "none"),
            shown(&self.replication),
            self.copies.to_string(),
            shown(&self.on_missing),
            self.in_sync_lag.to_string(),
            shown_path(self.replica_key.as_ref()),
            shown_path(self.replica_tls.as_ref()),
            shown_or(self.metrics_listen.as_ref(), "nowhere"),
            self.log_level.clone(),
            shown(&self.log_format),
        ];
        NAMES.into_iter().zip(values).collect()
    }

    /// Says which option does not hold, with its value and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String, String)> {
        let fail = |name, value: String, reason: String| Err((name, value, reason));
        let listen = match self.listen.resolve() {
            Ok(listen) => listen,
            Err(error) => return fail("listen", self.listen.to_string(), error.to_string()),
        };
        if !listen.ip().to_canonical().is_loopback() && !self.insecure && !self.has_doors() {
            let reason = "anyone who can connect could read, write and delete: give accounts (--acl or --acl-file FILE) or let \
                          nobody in without TLS (--tls-only), say --insecure (insecure = true) if all that is meant, or listen \
                          on a loopback address";
            return fail("listen", self.listen.to_string(), reason.to_owned());
        }
        if let Some(advertise) = &self.advertise {
            match advertise.resolve() {
                Err(error) => return fail("advertise", advertise.to_string(), error.to_string()),
                Ok(address) if address.ip().is_unspecified() => {
                    return fail("advertise", advertise.to_string(), "clients cannot dial that".to_owned());
                }
                Ok(_) => {}
            }
        }
        for (name, value) in [("broker-name", &self.broker_name), ("cluster-name", &self.cluster_name)] {
            if value.is_empty() || value.len() > limits::TOPIC_BYTES_MAX || value.chars().any(char::is_whitespace) {
                return fail(name, value.clone(), "1 to 127 bytes without blanks are wanted".to_owned());
            }
        }
        if let Some(Err(error)) = self.metrics_listen.as_ref().map(HostPort::resolve) {
            return fail("metrics-listen", shown_or(self.metrics_listen.as_ref(), "nowhere"), error.to_string());
        }
        if let Some(count) = self.net_threads.filter(|count| !(1..=limits::NETWORK_THREADS_MAX).contains(count)) {
            let reason = format!("1 to {} are possible", limits::NETWORK_THREADS_MAX);
            return fail("net-threads", count.to_string(), reason);
        }
        if let Err(reason) = telemetry::check_level(&self.log_level) {
            return fail("log-level", self.log_level.clone(), reason);
        }
        if !(1..=limits::TOPIC_QUEUES_MAX).contains(&self.default_topic_queues) {
            let reason = format!("1 to {} are possible", limits::TOPIC_QUEUES_MAX);
            return fail("default-topic-queues", self.default_topic_queues.to_string(), reason);
        }
        let bytes = usize::try_from(self.max_message_bytes.0).unwrap_or(usize::MAX);
        if !(1..=limits::BODY_BYTES_MAX).contains(&bytes) {
            return fail("max-message-bytes", self.max_message_bytes.to_string(), "1B to 4MiB are possible".to_owned());
        }
        for (name, bytes) in
            [("max-frame-bytes", self.max_frame_bytes), ("max-unfinished-bytes", self.max_unfinished_bytes)]
        {
            let needed = self.max_message_bytes.0 + limits::FRAME_BYTES_MIN as u64;
            if bytes.0 < needed {
                let reason =
                    format!("a message may have {}: at least {} are wanted", self.max_message_bytes, ByteSize(needed));
                return fail(name, bytes.to_string(), reason);
            }
        }
        if self.max_frame_bytes.0 > limits::FRAME_BYTES_MAX as u64 {
            return fail("max-frame-bytes", self.max_frame_bytes.to_string(), "at most 16MiB are possible".to_owned());
        }
        let counts = [
            ("max-connections", self.max_connections),
            ("max-connections-per-address", self.max_connections_per_address),
            ("max-connections-per-client", self.max_connections_per_client),
            ("max-held-pulls", self.max_held_pulls),
            ("max-held-pulls-per-client", self.max_held_pulls_per_client),
            ("max-held-pulls-per-address", self.max_held_pulls_per_address),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return fail(name, "0".to_owned(), "at least one is wanted".to_owned());
        }
        let sends = [
            ("max-in-flight-bytes", self.max_in_flight_bytes),
            ("max-in-flight-bytes-per-client", self.max_in_flight_bytes_per_client),
        ];
        if let Some((name, _)) = sends.into_iter().find(|(_, bytes)| bytes.0 == 0) {
            return fail(name, "0B".to_owned(), "nothing could be sent".to_owned());
        }
        if let Err((name, value, reason)) = self.check_tls().and_then(|()| self.check_replication()) {
            return fail(name, value, reason);
        }
        if self.ack_timeout.0.is_zero() {
            return fail("ack-timeout", self.ack_timeout.to_string(), "more than zero is wanted".to_owned());
        }
        if self.transaction_check_interval.0 < Duration::from_millis(100) {
            let value = self.transaction_check_interval.to_string();
            return fail("transaction-check-interval", value, "at least 100ms are wanted".to_owned());
        }
        #[cfg(not(feature = "net-uring"))]
        if self.net_driver == NetDriver::Uring {
            let reason = "this build has no such driver; build with --features net-uring";
            return fail("net-driver", "uring".to_owned(), reason.to_owned());
        }
        Ok(())
    }

    /// Whether requests must be signed.
    fn is_acl_on(&self) -> bool {
        self.acl || self.acl_file.is_some()
    }

    /// Whether something keeps those out who can connect.
    fn has_doors(&self) -> bool {
        self.is_acl_on() || self.tls_only
    }

    /// Whether anyone who can connect may do everything, although what is said is hidden.
    pub(super) fn is_open_behind_tls(&self) -> bool {
        self.tls_only && !self.is_acl_on() && self.tls_client_ca.is_none()
    }

    /// The files for TLS, if there are any.
    fn tls(&self) -> Option<TlsOptions> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(TlsOptions { certificate, key, client_authorities: self.tls_client_ca.clone(), only: self.tls_only })
    }

    /// What of the options about TLS does not hold.
    fn check_tls(&self) -> Result<(), (&'static str, String, String)> {
        let fail = |name, value: String, reason: &str| Err((name, value, reason.to_owned()));
        match (&self.tls_cert, &self.tls_key) {
            (Some(path), None) => {
                return fail("tls-cert", path.display().to_string(), "it needs its private key: give tls-key");
            }
            (None, Some(path)) => {
                return fail("tls-key", path.display().to_string(), "it needs its certificate: give tls-cert");
            }
            (Some(_), Some(_)) => {}
            (None, None) if self.tls_only => {
                return fail("tls-only", "true".to_owned(), "there is nothing to show: give tls-cert and tls-key");
            }
            (None, None) => {}
        }
        match (&self.name_server_access_key, &self.name_server_secret_key_file) {
            (Some(name), None) => {
                let reason = "it needs its secret key: give name-server-secret-key-file";
                return fail("name-server-access-key", name.clone(), reason);
            }
            (None, Some(path)) => {
                let reason = "whose is it? give name-server-access-key";
                return fail("name-server-secret-key-file", path.display().to_string(), reason);
            }
            _ => {}
        }
        match &self.tls_client_ca {
            Some(path) if !self.tls_only => {
                let reason = "who comes without TLS shows no certificate: say tls-only as well";
                fail("tls-client-ca", path.display().to_string(), reason)
            }
            _ => Ok(()),
        }
    }

    /// What of the options about replicas does not hold.
    fn check_replication(&self) -> Result<(), (&'static str, String, String)> {
        if self.role == RoleMode::Alone {
            return Ok(());
        }
        let fail = |name, value: String, reason: &str| Err((name, value, reason.to_owned()));
        if self.replica_id.parse::<ReplicaId>().is_err() {
            let reason = "1 to 32 letters, digits, dots, - and _ are wanted";
            return fail("replica-id", self.replica_id.clone(), reason);
        }
        let others = self.replicas.iter().flat_map(|replicas| &replicas.0);
        let others: Vec<_> = others.filter(|other| other.id != self.replica_id).collect();
        if others.is_empty() {
            let reason = "a leader or slave must know the others: give replicas, NAME=CLIENTS+REPLICAS for each, separated by commas";
            return match &self.replicas {
                None => fail("role", shown(&self.role), reason),
                Some(replicas) => fail("replicas", replicas.to_string(), reason),
            };
        }
        if let Some(other) = others.iter().find(|other| other.id.parse::<ReplicaId>().is_err()) {
            return fail("replicas", other.id.clone(), "1 to 32 letters, digits, dots, - and _ are wanted as a name");
        }
        let is_sync = self.role == RoleMode::Leader && self.replication == ReplicationMode::Sync;
        let brokers = u32::try_from(others.len()).unwrap_or(u32::MAX).saturating_add(1);
        if is_sync && !(2..=brokers).contains(&self.copies) {
            let reason =
                format!("2 to {brokers} are possible with {brokers} brokers; --replication async promises none");
            return Err(("copies", self.copies.to_string(), reason));
        }
        let is_beyond = |at: &HostPort| at.resolve().is_ok_and(|at| !at.ip().to_canonical().is_loopback());
        let is_open = self.replica_key.is_none() && self.replica_tls.is_none();
        let reason = "replicas beyond loopback must know each other: give --replica-key FILE or --replica-tls DIR";
        if is_open && is_beyond(&self.replica_listen) {
            return fail("replica-listen", self.replica_listen.to_string(), reason);
        }
        if is_open && others.iter().any(|other| is_beyond(&other.replicas)) {
            return fail("replicas", shown_or(self.replicas.as_ref(), "none"), reason);
        }
        Ok(())
    }

    /// How name servers are spoken to.
    fn name_server_door(&self) -> std::io::Result<NameServerDoor> {
        let own = self.tls_cert.clone().zip(self.tls_key.clone());
        let authorities = self.name_server_tls_ca.clone();
        let secret = self.name_server_secret_key_file.as_ref().map(|path| {
            let named =
                |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            std::fs::read_to_string(path).map(|text| Secret::new(text.trim())).map_err(named)
        });
        Ok(NameServerDoor {
            tls: authorities.map(|authorities| Trust { authorities: Some(authorities), own }),
            signer: self.name_server_access_key.clone().zip(secret.transpose()?),
        })
    }

    /// The same for [`crate::Broker::start`].
    ///
    /// # Errors
    /// When a name means nothing to this machine any more.
    pub fn to_options(&self) -> std::io::Result<BrokerOptions> {
        let flush = match self.flush {
            FlushMode::Sync => Flush::Sync,
            FlushMode::Async => Flush::Async { interval: self.flush_interval.0, bytes: self.flush_bytes.0 },
        };
        let tail = match self.tail {
            TailMode::Rewrite => Tail::Rewrite,
            TailMode::Pad => Tail::Pad,
        };
        let backend = match self.backend {
            Backend::Auto => BackendChoice::Auto,
            Backend::Uring => BackendChoice::Uring,
            Backend::Threads => BackendChoice::Threads,
        };
        let bytes = |size: ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        let engine = EngineOptions::default()
            .with_flush(flush)
            .with_tail(tail)
            .with_backend(backend)
            .with_remeasure(self.remeasure)
            .with_segment_bytes(self.segment_bytes.0)
            .with_retain_bytes(self.retain_bytes.map(|size| size.0))
            .with_commit_depth(self.commit_depth);
        Ok(BrokerOptions {
            listen: self.listen.resolve()?,
            advertise: self.advertise.as_ref().map(HostPort::resolve).transpose()?,
            cluster: self.cluster_name.clone(),
            name_servers: self.name_servers.clone().unwrap_or_default().0,
            name_server_door: self.name_server_door()?,
            broker: self.broker_name.clone(),
            engine,
            keep_unconsumed: self.unconsumed == Unconsumed::Keep,
            driver: match self.net_driver {
                NetDriver::Tokio => Driver::Epoll,
                #[cfg(feature = "net-uring")]
                NetDriver::Uring => Driver::Uring,
                // Refused by `check`.
                #[cfg(not(feature = "net-uring"))]
                NetDriver::Uring => return Err(std::io::Error::other("this build has no uring driver")),
            },
            network_threads: self.net_threads,
            auto_create_topics: self.auto_create_topics,
            template_queues: self.default_topic_queues,
            auto_create_groups: self.auto_create_groups,
            property_filter: self.enable_property_filter,
            message_bytes_max: usize::try_from(self.max_message_bytes.0).unwrap_or(limits::BODY_BYTES_MAX),
            ack_timeout: self.ack_timeout.0,
            acl: self.is_acl_on(),
            acl_file: self.acl_file.clone(),
            tls: self.tls(),
            bounds: Bounds {
                connections: self.max_connections,
                connections_per_address: self.max_connections_per_address,
                connections_per_client: self.max_connections_per_client,
                frame_bytes: bytes(self.max_frame_bytes),
                unfinished_bytes_per_address: bytes(self.max_unfinished_bytes),
                unfinished_bytes_per_client: bytes(self.max_unfinished_bytes_per_client),
                in_flight_bytes: bytes(self.max_in_flight_bytes),
                in_flight_bytes_per_client: bytes(self.max_in_flight_bytes_per_client),
                held_pulls: self.max_held_pulls,
                held_pulls_per_client: self.max_held_pulls_per_client,
                held_pulls_per_address: self.max_held_pulls_per_address,
            },
            args: Some(Box::new(self.clone())),
            replication: self.replication()?,
            delay_levels: self.message_delay_level.clone(),
            transaction_timeout: self.transaction_timeout.0,
            transaction_check_interval: self.transaction_check_interval.0,
            transaction_check_max: self.transaction_check_max,
            repeat_window: self.repeat_window.0,
            repeat_memory: usize::try_from(self.repeat_memory.0).unwrap_or(usize::MAX),
            metrics_listen: self.metrics_listen.as_ref().map(HostPort::resolve).transpose()?,
            on_dead_letter: self.on_dead_letter.clone(),
            ..BrokerOptions::new(&self.store)
        })
    }

    /// What it is told of its replicas.
    fn replication(&self) -> std::io::Result<Option<ReplicationOptions>> {
        if self.role == RoleMode::Alone {
            return Ok(None);
        }
        let named = |id: &str| id.parse::<ReplicaId>().map_err(std::io::Error::other);
        let others = self.replicas.iter().flat_map(|replicas| &replicas.0).filter(|other| other.id != self.replica_id);
        let others = others.map(|other| {
            let (clients, replicas) = (other.clients.resolve()?, other.replicas.resolve()?);
            Ok(OtherReplica { id: named(&other.id)?, clients, replicas })
        });
        // Where it stands among the others in the list, that is how they reach it.
        let own = self.replicas.iter().flat_map(|replicas| &replicas.0).find(|one| one.id == self.replica_id);
        let address = own.map_or_else(|| self.replica_listen.to_string(), |own| own.replicas.to_string());
        Ok(Some(ReplicationOptions {
            address,
            follows: self.role == RoleMode::Slave,
            id: named(&self.replica_id)?,
            listen: self.replica_listen.resolve()?,
            others: others.collect::<std::io::Result<_>>()?,
            policy: match (self.replication, self.on_missing) {
                (ReplicationMode::Async, _) => Policy::Async,
                (ReplicationMode::Sync, on_missing) => Policy::Sync {
                    copies: self.copies,
                    on_missing: match on_missing {
                        OnMissingMode::Refuse => OnMissing::Refuse,
                        OnMissingMode::DegradeUnsafe => OnMissing::Degrade,
                    },
                },
            },
            in_sync: InSync { lag_bytes: self.in_sync_lag.0, ..InSync::default() },
            security: security(self.replica_key.as_ref(), self.replica_tls.as_ref())?,
        }))
    }
}
