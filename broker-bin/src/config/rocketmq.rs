//! What the keys of a `broker.conf` mean here.

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
const MEANT: [&str; 32] = [
    "aclEnable",
    "authenticationEnabled",
    "authorizationEnabled",
    "autoCreateSubscriptionGroup",
    "autoCreateTopicEnable",
    "bindAddress",
    "brokerClusterName",
    "brokerIP1",
    "brokerId",
    "brokerName",
    "brokerRole",
    "controllerAddr",
    "defaultTopicQueueNums",
    "enableControllerMode",
    "enableDLegerCommitLog",
    "enablePropertyFilter",
    "flushDiskType",
    "flushIntervalCommitLog",
    "haMasterAddress",
    "listenPort",
    "mapedFileSizeCommitLog",
    "mappedFileSizeCommitLog",
    "maxMessageSize",
    "messageDelayLevel",
    "namesrvAddr",
    "storePathRootDir",
    "storeType",
    "syncFlushTimeout",
    "transactionCheckInterval",
    "transactionCheckMax",
    "transactionTimeOut",
    "transientStorePoolEnable",
];

const ONE_LOG: &str = "everything is in one log, in the store directory";
const OWN_PACE: &str = "a commit closes when the disk is free; there are no pages to count and no timer to set";
const BY_SIZE: &str = "the log is kept by size (retain-bytes), not by age or time of day";
const OWN_THREADS: &str = "network threads (net-threads) do this work";
const NO_PAGE_CACHE: &str = "the log does not go through the page cache";
const NO_HA: &str = "role, replica-listen and replicas say who follows whom; the stream needs no tuning";
const NOT_YET: &str = "what it tunes is not built yet and is refused when a client asks for it";
const NO_NAME_SERVER: &str =
    "this broker is its own name server; those of others (name-servers) are told at a pace of its own";
const OWN_INDEX: &str = "messages are always found by their keys; there is nothing to tune";
const OWN_STATE: &str = "offsets, topics and groups are records of the log";
const OWN_QUEUES: &str = "consume queues are kept in another form";
const OWN_METRICS: &str = "metrics-listen says where metrics are told over HTTP, under names of our own";
const OWN_NETWORK: &str = "sockets and buffers are sized by this broker itself";

/// Known keys from which nothing follows, and why.
const NOTHING: &[(&str, &str)] = &[
    ("accessMessageInMemoryMaxRatio", NO_PAGE_CACHE),
    ("adminBrokerThreadPoolNums", OWN_THREADS),
    ("brokerFastFailureEnable", "a request is answered in time or refused; there is no queue to clean"),
    ("brokerFetchNamesrvAddrInterval", NO_NAME_SERVER),
    ("brokerIP2", NO_HA),
    ("brokerPermission", "topics have permissions of their own"),
    ("brokerTopicEnable", "no topic is made for the broker's own name"),
    ("checkCRCOnRecover", "checksums are always checked"),
    ("cleanFileForciblyEnable", BY_SIZE),
    ("clientAsyncSemaphoreValue", OWN_NETWORK),
    ("clientCallbackExecutorThreads", OWN_NETWORK),
    ("clientCloseSocketIfTimeout", OWN_NETWORK),
    ("clientManageThreadPoolNums", OWN_THREADS),
    ("clientOnewaySemaphoreValue", OWN_NETWORK),
    ("clusterTopicEnable", "no topic is made for the cluster's own name"),
    ("commitCommitLogLeastPages", OWN_PACE),
    ("commitCommitLogThoroughInterval", OWN_PACE),
    ("commitIntervalCommitLog", OWN_PACE),
    ("compressedRegister", NO_NAME_SERVER),
    ("consumerManageThreadPoolNums", OWN_THREADS),
    ("defaultQueryMaxNum", OWN_INDEX),
    ("deleteCommitLogFilesInterval", BY_SIZE),
    ("deleteConsumeQueueFilesInterval", BY_SIZE),
    ("deleteWhen", BY_SIZE),
    ("destroyMapedFileIntervalForcibly", BY_SIZE),
    ("disableConsumeIfConsumerReadSlowly", "a slow consumer reads from the disk and disturbs nobody"),
    ("diskFallRecorded", "always recorded"),
    ("diskMaxUsedSpaceRatio", BY_SIZE),
    ("duplicationEnable", NO_HA),
    ("enableBatchPush", OWN_STATE),
    ("enableCalcFilterBitMap", NOT_YET),
    ("enableConsumeQueueExt", OWN_QUEUES),
    ("enableLmq", NOT_YET),
    ("fastFailIfNoBufferInStorePool", OWN_PACE),
    ("fetchNamesrvAddrByAddressServer", NO_NAME_SERVER),
    ("fileReservedTime", BY_SIZE),
    ("filterDataCleanTimeSpan", NOT_YET),
    ("filterServerNums", "filter servers do not exist any more"),
    ("filterSupportRetry", NOT_YET),
    ("flushCommitLogLeastPages", OWN_PACE),
    ("flushCommitLogThoroughInterval", OWN_PACE),
    ("flushCommitLogTimed", OWN_PACE),
    ("flushConsumeQueueLeastPages", OWN_QUEUES),
    ("flushConsumeQueueThoroughInterval", OWN_QUEUES),
    ("flushConsumerOffsetHistoryInterval", OWN_STATE),
    ("flushConsumerOffsetInterval", OWN_STATE),
    ("flushDelayOffsetInterval", NOT_YET),
    ("flushIntervalConsumeQueue", OWN_QUEUES),
    ("flushLeastPagesWhenWarmMapedFile", NO_PAGE_CACHE),
    ("forceRegister", NO_NAME_SERVER),
    ("haHousekeepingInterval", NO_HA),
    ("haListenPort", NO_HA),
    ("haSendHeartbeatInterval", NO_HA),
    ("haSlaveFallbehindMax", NO_HA),
    ("haTransferBatchSize", NO_HA),
    ("heartbeatThreadPoolNums", OWN_THREADS),
    ("highSpeedMode", "this is the only mode"),
    ("longPollingEnable", "pulls are always held"),
    ("mapedFileSizeConsumeQueue", OWN_QUEUES),
    ("mappedFileSizeConsumeQueue", OWN_QUEUES),
    ("mappedFileSizeConsumeQueueExt", OWN_QUEUES),
    ("maxDelayTime", NOT_YET),
    ("maxHashSlotNum", OWN_INDEX),
    ("maxIndexNum", OWN_INDEX),
    ("maxMsgsNumBatch", OWN_INDEX),
    ("maxTransferBytesOnMessageInDisk", "pull answers are bounded alike from memory and disk"),
    ("maxTransferBytesOnMessageInMemory", "pull answers are bounded alike from memory and disk"),
    ("maxTransferCountOnMessageInDisk", "pull answers are bounded alike from memory and disk"),
    ("maxTransferCountOnMessageInMemory", "pull answers are bounded alike from memory and disk"),
    ("messageIndexEnable", OWN_INDEX),
    ("messageIndexSafe", OWN_INDEX),
    ("metricsExporterType", OWN_METRICS),
    ("metricsPromExporterHost", OWN_METRICS),
    ("metricsPromExporterPort", OWN_METRICS),
    ("msgTraceTopicName", "trace topics are ordinary ones"),
    ("namesrvDomain", NO_NAME_SERVER),
    ("namesrvDomainSubgroup", NO_NAME_SERVER),
    ("notifyConsumerIdsChangedEnable", "consumers are always told"),
    ("offsetCheckInSlave", NO_HA),
    ("osPageCacheBusyTimeOutMills", NO_PAGE_CACHE),
    ("pullMessageThreadPoolNums", OWN_THREADS),
    ("pullThreadPoolQueueCapacity", OWN_THREADS),
    ("putMsgIndexHightWater", OWN_INDEX),
    ("queryMessageThreadPoolNums", OWN_THREADS),
    ("queryThreadPoolQueueCapacity", OWN_THREADS),
    ("redeleteHangedFileInterval", BY_SIZE),
    ("regionId", "the region is always DefaultRegion"),
    ("registerBrokerTimeoutMills", NO_NAME_SERVER),
    ("registerNameServerPeriod", NO_NAME_SERVER),
    ("rejectTransactionMessage", "transactions are always offered"),
    ("rocketmqHome", ONE_LOG),
    ("sendMessageThreadPoolNums", OWN_THREADS),
    ("sendThreadPoolQueueCapacity", OWN_THREADS),
    ("serverAsyncSemaphoreValue", OWN_NETWORK),
    ("serverCallbackExecutorThreads", OWN_NETWORK),
    ("serverChannelMaxIdleTimeSeconds", OWN_NETWORK),
    ("serverOnewaySemaphoreValue", OWN_NETWORK),
    ("serverPooledByteBufAllocatorEnable", OWN_NETWORK),
    ("serverSelectorThreads", OWN_THREADS),
    ("serverSocketRcvBufSize", OWN_NETWORK),
    ("serverSocketSndBufSize", OWN_NETWORK),
    ("serverWorkerThreads", OWN_THREADS),
    ("shortPollingTimeMills", "pulls are always held"),
    ("slaveReadEnable", NO_HA),
    ("startAcceptSendRequestTimeStamp", "sends are taken at once"),
    ("storePathAbortFile", ONE_LOG),
    ("storePathCommitLog", ONE_LOG),
    ("storePathConsumeQueue", ONE_LOG),
    ("storePathIndex", ONE_LOG),
    ("storePathCheckpoint", ONE_LOG),
    ("storeCheckpoint", ONE_LOG),
    ("abortFile", ONE_LOG),
    ("timerWheelEnable", NOT_YET),
    ("traceOn", "clients decide whether to trace"),
    ("traceTopicEnable", "trace topics are ordinary ones"),
    ("transferMsgByHeap", OWN_NETWORK),
    ("transientStorePoolSize", OWN_PACE),
    ("useEpollNativeSelector", OWN_NETWORK),
    ("useReentrantLockWhenPutMessage", OWN_PACE),
    ("waitTimeMillsInHeartbeatQueue", OWN_THREADS),
    ("waitTimeMillsInPullQueue", OWN_THREADS),
    ("waitTimeMillsInSendQueue", OWN_THREADS),
    ("warmMapedFileEnable", NO_PAGE_CACHE),
];

/// All keys that are known, for suggestions.
pub(super) fn known_keys() -> impl Iterator<Item = &'static str> {
    MEANT.into_iter().chain(NOTHING.iter().map(|(key, _)| *key))
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
        "transientStorePoolEnable" => Ok(Some(Meaning::Nothing(OWN_PACE))),
        _ => Ok(NOTHING.iter().find(|(known, _)| *known == key).map(|(_, reason)| Meaning::Nothing(reason))),
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
        for (key, value) in [("authenticationEnabled", "true"), ("enableDLegerCommitLog", "true")] {
            let error = meaning(key, value).expect_err(key);
            assert!(error.contains("not built yet"), "{key}: {error}");
        }
        for (key, value) in [("brokerRole", "ASYNC_MASTER"), ("authorizationEnabled", "false")] {
            assert!(matches!(meaning(key, value), Ok(Some(Meaning::Nothing(_)))), "{key}");
        }
    }
}
