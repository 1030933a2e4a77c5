//! What the keys of a `broker.conf` mean here.

use super::unused;

/// Every key is one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The same as one of our options with this value.
    Is(&'static str, String),
    /// Part of the address to listen at.
    ListenIp(String),
    /// Part of the address to listen at.
    ListenPort(u16),
    /// Part of the address that clients are told.
    AdvertiseIp(String),
    /// Accepted, and nothing follows from it.
    Nothing(&'static str),
}

/// Addresses that the original gives in parts.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) listen_ip: Option<String>,
    pub(super) listen_port: Option<u16>,
    pub(super) advertise_ip: Option<String>,
}

/// Keys with a meaning of their own; the match in [`meaning`] knows the same ones.
const MEANT: [&str; 44] = [
    "aclEnable",
    "allAckInSyncStateSet",
    "authenticationEnabled",
    "authorizationEnabled",
    "autoCreateSubscriptionGroup",
    "autoCreateTopicEnable",
    "bindAddress",
    "brokerClusterName",
    "brokerId",
    "brokerIP1",
    "brokerName",
    "brokerPermission",
    "brokerRole",
    "controllerAddr",
    "defaultTopicQueueNums",
    "duplicationEnable",
    "enableControllerMode",
    "enableDLegerCommitLog",
    "enableLmq",
    "enableMultiDispatch",
    "enablePropertyFilter",
    "enableRemoteEscape",
    "enableSlaveActingMaster",
    "flushDiskType",
    "flushIntervalCommitLog",
    "haMasterAddress",
    "inSyncReplicas",
    "listenPort",
    "mapedFileSizeCommitLog",
    "mappedFileSizeCommitLog",
    "maxMessageSize",
    "messageDelayLevel",
    "messageStorePlugIn",
    "namesrvAddr",
    "readOnlyCommitLogStorePaths",
    "rejectPullConsumerEnable",
    "rejectTransactionMessage",
    "storePathRootDir",
    "storeType",
    "syncFlushTimeout",
    "transactionCheckInterval",
    "transactionCheckMax",
    "transactionTimeOut",
    "useTLS",
];

/// All keys that are known, for suggestions.
pub(super) fn known_keys() -> impl Iterator<Item = &'static str> {
    MEANT.into_iter().chain(unused::keys())
}

/// What a key means; `None` when it is not known.
///
/// # Errors
/// When the value promises what is not built, or is none.
pub(super) fn meaning(key: &str, value: &str) -> Result<Option<Meaning>, String> {
    let is = |name, value: &str| Ok(Some(Meaning::Is(name, value.to_owned())));
    let milliseconds = |name, value: &str| match value.parse::<u64>() {
        Ok(number) => Ok(Some(Meaning::Is(name, format!("{number}ms")))),
        Err(_) => Err("a number of milliseconds is wanted".to_owned()),
    };
    // A switch that may only be off.
    let off = |what: &str| match value {
        "false" | "" => Ok(Some(Meaning::Nothing("it is off, as here"))),
        _ => Err(format!("{what} is not built yet")),
    };
    // Text that may only be empty.
    let empty = |what: &str| match value {
        "" => Ok(Some(Meaning::Nothing("it is empty"))),
        _ => Err(what.to_owned()),
    };
    match key {
        "flushDiskType" => match value {
            "SYNC_FLUSH" => is("flush", "sync"),
            "ASYNC_FLUSH" => is("flush", "async"),
            _ => Err("SYNC_FLUSH or ASYNC_FLUSH is wanted".to_owned()),
        },
        "flushIntervalCommitLog" => milliseconds("flush-interval", value),
        "syncFlushTimeout" => milliseconds("ack-timeout", value),
        "storePathRootDir" => is("store", value),
        "brokerName" => is("broker-name", value),
        "brokerClusterName" => is("cluster-name", value),
        "autoCreateTopicEnable" => is("auto-create-topics", value),
        "autoCreateSubscriptionGroup" => is("auto-create-groups", value),
        "enablePropertyFilter" => is("enable-property-filter", value),
        "defaultTopicQueueNums" => is("default-topic-queues", value),
        "mapedFileSizeCommitLog" | "mappedFileSizeCommitLog" => is("segment-bytes", value),
        "maxMessageSize" => is("max-message-bytes", value),
        "bindAddress" => Ok(Some(Meaning::ListenIp(value.to_owned()))),
        "brokerIP1" => Ok(Some(Meaning::AdvertiseIp(value.to_owned()))),
        "listenPort" => match value.parse() {
            Ok(port) => Ok(Some(Meaning::ListenPort(port))),
            Err(_) => Err("a port is wanted".to_owned()),
        },
        "brokerRole" => match value {
            "ASYNC_MASTER" => Ok(Some(Meaning::Nothing("a broker without slaves is one"))),
            "SYNC_MASTER" => is("role", "leader"),
            "SLAVE" => is("role", "slave"),
            _ => Err("ASYNC_MASTER, SYNC_MASTER or SLAVE is wanted".to_owned()),
        },
        "brokerId" => match value {
            number if number.parse::<u32>().is_ok() => {
                Ok(Some(Meaning::Nothing("role and replica-id say what it is; routes name the leader 0")))
            }
            _ => Err("a number is wanted".to_owned()),
        },
        "transactionTimeOut" => milliseconds("transaction-timeout", value),
        "transactionCheckInterval" => milliseconds("transaction-check-interval", value),
        "transactionCheckMax" => is("transaction-check-max", value),
        "messageDelayLevel" => is("message-delay-level", value),
        "namesrvAddr" => match value {
            "" => Ok(Some(Meaning::Nothing("it is empty"))),
            _ => is("name-servers", value),
        },
        "haMasterAddress" => empty("replicas names all brokers of a set, with two addresses each; say that instead"),
        "controllerAddr" => empty("controllers are not built yet"),
        "storeType" => match value {
            "default" => Ok(Some(Meaning::Nothing("there is one kind of store"))),
            _ => Err("there is one kind of store".to_owned()),
        },
        "aclEnable" => is("acl", value),
        "authenticationEnabled" | "authorizationEnabled" => off(
            "access control of 5.x (say acl = true; accounts are made by anchorlog user, or stand in a plain_acl.yml)",
        ),
        "enableDLegerCommitLog" | "enableControllerMode" => off("automatic fail-over"),
        "enableSlaveActingMaster" | "enableRemoteEscape" => off("a slave that takes over by itself"),
        "allAckInSyncStateSet" => off("an ack of all that are in sync (say copies = COUNT)"),
        // Of 1 nothing follows where there are no replicas; with some, the default of copies promises more.
        "inSyncReplicas" => match value {
            "1" => Ok(Some(Meaning::Nothing("with role = leader, copies says how many an ack stands for"))),
            _ => is("copies", value),
        },
        "brokerPermission" => {
            match value {
                "6" => Ok(Some(Meaning::Nothing("the broker is read and written, as here"))),
                _ => Err("a broker that is only read or only written is not built yet: its topics have permissions"
                    .to_owned()),
            }
        }
        "rejectTransactionMessage" => off("a broker without transactions"),
        "rejectPullConsumerEnable" => off("a broker without pull consumers"),
        "duplicationEnable" => off("a copy of the log besides replicas (say role and replicas)"),
        "enableLmq" | "enableMultiDispatch" => off("a light message queue"),
        "useTLS" => off("TLS to name servers (tls-cert and tls-key offer it to clients)"),
        "messageStorePlugIn" => empty("plug-ins of the store are not built yet"),
        "readOnlyCommitLogStorePaths" => empty("everything is in one log; logs of the original cannot be read"),
        _ => Ok(unused::reason(key).map(Meaning::Nothing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_with_a_meaning_is_known_and_none_stands_twice() {
        let mut keys: Vec<_> = known_keys().collect();
        for key in MEANT {
            // A value or an error, but never "not known".
            assert_ne!(meaning(key, "1"), Ok(None), "{key}");
        }
        keys.sort_unstable();
        let count = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn what_is_promised_and_not_built_is_an_error() {
        for (key, value) in [
            ("authenticationEnabled", "true"),
            ("enableDLegerCommitLog", "true"),
            ("enableSlaveActingMaster", "true"),
            ("enableLmq", "true"),
            ("rejectTransactionMessage", "true"),
            ("duplicationEnable", "true"),
            ("brokerPermission", "4"),
            ("messageStorePlugIn", "org.example.Tiered"),
        ] {
            let error = meaning(key, value).expect_err(key);
            assert!(error.contains("not built yet"), "{key}: {error}");
        }
        for (key, value) in [
            ("brokerRole", "ASYNC_MASTER"),
            ("authorizationEnabled", "false"),
            ("enableLmq", "false"),
            ("brokerPermission", "6"),
            ("messageStorePlugIn", ""),
            ("inSyncReplicas", "1"),
        ] {
            assert!(matches!(meaning(key, value), Ok(Some(Meaning::Nothing(_)))), "{key}");
        }
    }

    #[test]
    fn an_ack_stands_for_as_many_copies_as_there() {
        assert_eq!(meaning("inSyncReplicas", "3"), Ok(Some(Meaning::Is("copies", "3".to_owned()))));
    }

    #[test]
    fn what_is_built_is_not_called_missing() {
        for key in unused::keys() {
            let reason = unused::reason(key).expect(key);
            assert!(!reason.contains("not built") || reason.contains("5.x"), "{key}: {reason}");
        }
    }
}
