//! Options that can be changed while the broker runs, and what is said of the others.
//!
//! 1. A change is judged as a configuration would be: by the same names, with the same suggestions, as a whole.
//! 2. What is changed holds until the next start; nothing is written into a file.
//! 3. A key from which nothing follows is refused with the reason: nobody is to believe that it changed something.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::options::{self, BrokerArgs};
use super::rocketmq::{self, Meaning};
use super::{closest, option_names};
use crate::limits;
use crate::lock::lock;

/// Options that may be changed while the broker runs.
const LIVE: [&str; 9] = [
    "ack-timeout",
    "auto-create-groups",
    "auto-create-topics",
    "default-topic-queues",
    "log-level",
    "max-message-bytes",
    "transaction-check-interval",
    "transaction-check-max",
    "transaction-timeout",
];

/// Why an option stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows it.
    #[error("{key} is not an option{}", suggestion.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        key: String,
        /// What comes closest.
        suggestion: Option<String>,
    },
    /// The value does not fit.
    #[error("{key} = {value}: {reason}")]
    Value {
        /// What was asked for.
        key: String,
        /// With which value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It has no effect here.
    #[error("{key} means nothing here: {reason}")]
    NoMeaning {
        /// What was asked for.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// It is read at the start alone.
    #[error("{key} ({name}) takes a restart: set it on the command line or in the file; these change at once: {}", LIVE.join(", "))]
    Restart {
        /// What was asked for.
        key: String,
        /// What it is called here.
        name: String,
    },
}

/// An option that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its name.
    pub name: &'static str,
    /// Its value now.
    pub value: String,
}

#[derive(Debug)]
struct InForce {
    args: BrokerArgs,
    changes: u64,
    /// When the last change was, in milliseconds since 1970.
    changed_ms: u64,
}

/// The options in force.
#[derive(Debug)]
pub struct Live {
    in_force: Mutex<InForce>,
    ack_timeout_ms: AtomicU64,
    auto_create_groups: AtomicBool,
    message_bytes_max: AtomicUsize,
    transaction_timeout_ms: AtomicU64,
    transaction_check_interval_ms: AtomicU64,
    transaction_check_max: AtomicU32,
}

impl Live {
    /// These options.
    #[must_use]
    pub fn new(args: BrokerArgs, now_ms: u64) -> Live {
        let live = Live {
            ack_timeout_ms: AtomicU64::default(),
            auto_create_groups: AtomicBool::default(),
            message_bytes_max: AtomicUsize::default(),
            transaction_timeout_ms: AtomicU64::default(),
            transaction_check_interval_ms: AtomicU64::default(),
            transaction_check_max: AtomicU32::default(),
            in_force: Mutex::new(InForce { args: args.clone(), changes: 0, changed_ms: now_ms }),
        };
        live.take(&args);
        live
    }

    fn take(&self, args: &BrokerArgs) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bytes = usize::try_from(args.max_message_bytes.0).unwrap_or(usize::MAX).min(limits::BODY_BYTES_MAX);
        self.ack_timeout_ms.store(ms(args.ack_timeout.0), Ordering::Relaxed);
        self.auto_create_groups.store(args.auto_create_groups, Ordering::Relaxed);
        self.message_bytes_max.store(bytes, Ordering::Relaxed);
        self.transaction_timeout_ms.store(ms(args.transaction_timeout.0), Ordering::Relaxed);
        self.transaction_check_interval_ms.store(ms(args.transaction_check_interval.0), Ordering::Relaxed);
        self.transaction_check_max.store(args.transaction_check_max, Ordering::Relaxed);
    }

    /// How long a send waits for its ack before it is answered as unconfirmed.
    #[must_use]
    pub fn ack_timeout(&self) -> Duration {
        Duration::from_millis(self.ack_timeout_ms.load(Ordering::Relaxed))
    }

    /// Whether unknown groups are made on demand.
    #[must_use]
    pub fn auto_create_groups(&self) -> bool {
        self.auto_create_groups.load(Ordering::Relaxed)
    }

    /// Largest body of a message or batch, in bytes.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max.load(Ordering::Relaxed)
    }

    /// How old a half message is when its producer is first asked.
    #[must_use]
    pub fn transaction_timeout(&self) -> Duration {
        Duration::from_millis(self.transaction_timeout_ms.load(Ordering::Relaxed))
    }

    /// Time from one question to the next.
    #[must_use]
    pub fn transaction_check_interval(&self) -> Duration {
        Duration::from_millis(self.transaction_check_interval_ms.load(Ordering::Relaxed))
    }

    /// Most questions to somebody who is there.
    #[must_use]
    pub fn transaction_check_max(&self) -> u32 {
        self.transaction_check_max.load(Ordering::Relaxed)
    }

    /// The options in force, how often they were changed, and when last.
    #[must_use]
    pub fn in_force(&self) -> (BrokerArgs, u64, u64) {
        let in_force = lock(&self.in_force);
        (in_force.args.clone(), in_force.changes, in_force.changed_ms)
    }

    /// Changes options, all of them or none. Keys are ours or the original's.
    ///
    /// # Errors
    /// Which one cannot be changed, and why.
    pub fn change<'a>(
        &self,
        wanted: impl IntoIterator<Item = (&'a str, &'a str)>,
        now_ms: u64,
    ) -> Result<(Vec<Changed>, BrokerArgs), Refusal> {
        let mut in_force = lock(&self.in_force);
        let mut args = in_force.args.clone();
        for (key, value) in wanted {
            let (name, meant) = meaning(key, value)?;
            let bad = |reason| Refusal::Value { key: key.to_owned(), value: value.to_owned(), reason };
            let mut wished = args.clone();
            wished.set(name, &meant).map_err(bad)?;
            if !LIVE.contains(&name) && wished != args {
                return Err(Refusal::Restart { key: key.to_owned(), name: name.to_owned() });
            }
            args = wished;
        }
        args.check().map_err(|(name, value, reason)| Refusal::Value { key: name.to_owned(), value, reason })?;
        let before = in_force.args.values();
        let changed = args.values().into_iter().zip(before).filter(|(now, before)| now != before);
        let changed: Vec<_> = changed.map(|((name, value), _)| Changed { name, value }).collect();
        if let Some(level) = changed.iter().find(|one| one.name == "log-level") {
            crate::telemetry::set_level(&level.value).map_err(|error| Refusal::Value {
                key: level.name.to_owned(),
                value: level.value.clone(),
                reason: error.to_string(),
            })?;
        }
        if !changed.is_empty() {
            self.take(&args);
            in_force.args = args.clone();
            in_force.changes += 1;
            in_force.changed_ms = now_ms;
        }
        Ok((changed, args))
    }
}

/// Which option a key is, and what its value is there.
fn meaning(key: &str, value: &str) -> Result<(&'static str, String), Refusal> {
    let dashed = key.replace('_', "-");
    if let Some(name) = option_names().into_iter().find(|name| *name == dashed) {
        return Ok((name, value.to_owned()));
    }
    let restart = |name: &str| Refusal::Restart { key: key.to_owned(), name: name.to_owned() };
    let bad = |reason| Refusal::Value { key: key.to_owned(), value: value.to_owned(), reason };
    match rocketmq::meaning(key, value).map_err(bad)? {
        Some(Meaning::Is(name, value)) => Ok((name, value)),
        Some(Meaning::ListenIp(_) | Meaning::ListenPort(_)) => Err(restart("listen")),
        Some(Meaning::AdvertiseIp(_)) => Err(restart("advertise")),
        Some(Meaning::Nothing(reason)) => Err(Refusal::NoMeaning { key: key.to_owned(), reason }),
        None => Err(Refusal::Unknown { key: key.to_owned(), suggestion: closest(key) }),
    }
}

/// Every option in force by our name, and those that the original has by its name too. In order.
#[must_use]
pub fn shown(args: &BrokerArgs) -> Vec<(String, String)> {
    let mut shown: Vec<_> = args.values().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    shown.extend(options::as_original(args).into_iter().map(|(name, value)| (name.to_owned(), value)));
    shown.sort();
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live::new(BrokerArgs::defaults(), 1)
    }

    #[test]
    fn a_live_option_changes_by_either_name() {
        let live = live();
        let (changed, _) = live.change([("maxMessageSize", "1024"), ("auto_create_groups", "false")], 7).expect("live");
        assert_eq!(changed.iter().map(|one| one.name).collect::<Vec<_>>(), ["auto-create-groups", "max-message-bytes"]);
        assert_eq!((live.message_bytes_max(), live.auto_create_groups()), (1024, false));
        let (args, changes, changed_ms) = live.in_force();
        assert_eq!((args.max_message_bytes.0, changes, changed_ms), (1024, 1, 7));
        let (changed, _) =
            live.change([("maxMessageSize", "1024"), ("flushDiskType", "SYNC_FLUSH")], 8).expect("as it is");
        assert!(changed.is_empty() && live.in_force().1 == 1, "what is as it was is no change, live or not");
    }

    #[test]
    fn what_cannot_be_changed_says_why_and_nothing_changes() {
        let live = live();
        let refused =
            |key, value| live.change([("maxMessageSize", "1024"), (key, value)], 7).expect_err(key).to_string();
        assert_eq!(
            refused("autoCreateTopicEnabled", "true"),
            "autoCreateTopicEnabled is not an option; did you mean autoCreateTopicEnable?"
        );
        assert!(refused("flushDiskType", "ASYNC_FLUSH").contains("(flush) takes a restart"));
        assert!(refused("listenPort", "1").contains("(listen) takes a restart"));
        assert!(refused("fileReservedTime", "48").starts_with("fileReservedTime means nothing here: "));
        assert!(refused("transaction-check-max", "many").starts_with("transaction-check-max = many: "));
        assert!(refused("defaultTopicQueueNums", "0").starts_with("default-topic-queues = 0: "));
        assert_eq!(live.message_bytes_max(), limits::BODY_BYTES_MAX);
        assert_eq!(live.in_force().1, 0);
    }

    #[test]
    fn options_are_shown_by_both_names() {
        let shown = shown(&BrokerArgs::defaults());
        let value = |name: &str| shown.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        assert_eq!((value("flush"), value("flushDiskType")), (Some("sync"), Some("SYNC_FLUSH")));
        assert_eq!((value("brokerName"), value("transactionTimeOut")), (Some("broker-a"), Some("6000")));
    }
}
