//! Keys of the original from which nothing follows here, each with the reason.
//!
//! They are what RocketMQ 5.3.3 reads from a `broker.conf` (the fields of its broker, store, network and access control settings), with
//! those of 4.9 that it has no more. A key with a meaning stands in [`super::rocketmq`].

/// A reason, and the keys that it holds for.
const NOTHING: &[(&str, &str)] = &[
    (
        "everything is in one log, in the store directory",
        "abortFile brokerConfigPath rocketmqHome storeCheckpoint storePathAbortFile storePathBrokerIdentity storePathCheckpoint \
         storePathCommitLog storePathConsumeQueue storePathDLedgerCommitLog storePathEpochFile storePathIndex",
    ),
    (
        "a commit closes when the disk is free; there are no pages to count and no timer to set",
        "commitCommitLogLeastPages commitCommitLogThoroughInterval commitIntervalCommitLog debugLockEnable \
         fastFailIfNoBufferInStorePool flushCommitLogLeastPages flushCommitLogThoroughInterval flushCommitLogTimed \
         maxAsyncPutMessageRequests putMessageTimeout spinLockCollisionRetreatOptimalDegree topicQueueLockNum \
         transientStorePoolEnable transientStorePoolSize useABSLock useReentrantLockWhenPutMessage \
         wakeCommitWhenPutMessage wakeFlushWhenPutMessage",
    ),
    (
        "the log is kept by size (retain-bytes), not by age or time of day",
        "cleanFileForciblyEnable cleanResourceInterval deleteCommitLogFilesInterval deleteConsumeQueueFilesInterval \
         deleteFileBatchMax deleteWhen destroyMapedFileIntervalForcibly diskMaxUsedSpaceRatio diskSpaceCleanForciblyRatio \
         diskSpaceWarningLevelRatio enableCleanExpiredOffset fileReservedTime logicalDiskSpaceCleanForciblyThreshold \
         maxBatchDeleteFilesNum redeleteHangedFileInterval replicasPerDiskPartition",
    ),
    (
        "network threads (net-threads) do this work",
        "ackMessageThreadPoolNums ackThreadPoolQueueCapacity adminBrokerThreadPoolNums adminBrokerThreadPoolQueueCapacity \
         asyncSendEnable clientManageThreadPoolNums clientManagerThreadPoolQueueCapacity consumerManageThreadPoolNums \
         consumerManagerThreadPoolQueueCapacity endTransactionPoolQueueCapacity endTransactionThreadPoolNums heartbeatThreadPoolNums \
         heartbeatThreadPoolQueueCapacity isolateLogEnable litePullMessageThreadPoolNums litePullThreadPoolQueueCapacity \
         loadBalanceProcessorThreadPoolNums loadBalanceThreadPoolQueueCapacity lockInStrictMode processReplyMessageThreadPoolNums \
         pullMessageThreadPoolNums pullThreadPoolQueueCapacity putMessageFutureThreadPoolNums putThreadPoolQueueCapacity \
         queryMessageThreadPoolNums queryThreadPoolQueueCapacity recoverThreadPoolNums replyThreadPoolQueueCapacity \
         sendMessageThreadPoolNums sendThreadPoolQueueCapacity serverSelectorThreads serverWorkerThreads waitTimeMillsInAckQueue \
         waitTimeMillsInAdminBrokerQueue waitTimeMillsInHeartbeatQueue waitTimeMillsInLitePullQueue waitTimeMillsInPullQueue \
         waitTimeMillsInSendQueue waitTimeMillsInTransactionQueue",
    ),
    (
        "the log does not go through the page cache",
        "accessMessageInMemoryHotRatio accessMessageInMemoryMaxRatio cgColdReadThreshold cleanSwapedMapInterval coldCtrStrategyEnable \
         coldDataFlowControlEnable coldDataScanEnable commitLogForceSwapMapInterval commitLogSwapMapInterval \
         commitLogSwapMapReserveFileNum dataReadAheadEnable flushLeastPagesWhenWarmMapedFile globalColdReadThreshold \
         logicQueueForceSwapMapInterval logicQueueSwapMapInterval logicQueueSwapMapReserveFileNum mappedFileSwapEnable \
         osPageCacheBusyTimeOutMills sampleCountThreshold sampleSteps usePIDColdCtrStrategy warmMapedFileEnable",
    ),
    (
        "role, replica-listen and replicas say who follows whom; the stream needs no tuning",
        "asyncLearner brokerIP2 compatibleWithOldNameSrv haFlowControlEnable haHousekeepingInterval haListenPort haMaxGapNotInSync \
         haMaxTimeSlaveNotCatchup haSendHeartbeatInterval haSlaveFallbehindMax haTransferBatchSize maxChecksumRange \
         maxHaTransferByteInSecond maxSlaveResendLength offsetCheckInSlave skipPreOnline slaveReadEnable slaveTimeout \
         syncBrokerMemberGroupPeriod syncFromLastFile syncMasterFlushOffsetWhenStartup",
    ),
    (
        "this broker is its own name server; those of others (name-servers) are told at a pace of its own",
        "brokerFetchNamesrvAddrInterval brokerHeartbeatInterval brokerNotActiveTimeoutMillis cleanOfflineBrokerInterval \
         compressedRegister enableRegisterProducer enableSingleTopicRegister enableSplitRegistration fetchNameSrvAddrByDnsLookup \
         fetchNamesrvAddrByAddressServer fetchNamesrvAddrInterval forceRegister namesrvDomain namesrvDomainSubgroup \
         registerBrokerTimeoutMills registerNameServerPeriod scanAvailableNameSrv sendHeartbeatTimeoutMillis splitRegistrationSize \
         updateNameServerAddrPeriod",
    ),
    (
        "messages are always found by their keys; there is nothing to tune",
        "defaultQueryMaxNum maxHashSlotNum maxIndexNum maxMsgsNumBatch messageIndexEnable messageIndexSafe putMsgIndexHightWater",
    ),
    (
        "offsets, topics and groups are records of the log",
        "broadcastOffsetExpireMaxSecond broadcastOffsetExpireSecond configManagerVersion consumerOffsetUpdateVersionStep \
         enableBatchPush enableBroadcastOffsetStore flushConsumerOffsetHistoryInterval flushConsumerOffsetInterval \
         realTimePersistRocksDBConfig subscriptionExpiredTimeout useServerSideResetOffset useStaticSubscription",
    ),
    (
        "consume queues are kept in another form",
        "batchDispatchRequestThreadPoolNums correctLogicMinOffsetForceInterval correctLogicMinOffsetSleepInterval dispatchCqCacheNum \
         dispatchCqThreads dispatchFromSenderThread enableAsyncReput enableBuildConsumeQueueConcurrently enableConsumeQueueExt \
         flushConsumeQueueLeastPages flushConsumeQueueThoroughInterval flushIntervalConsumeQueue mapedFileSizeConsumeQueue \
         mappedFileSizeConsumeQueue mappedFileSizeConsumeQueueExt mapperFileSizeBatchConsumeQueue maxConsumeQueueScan \
         putConsumeQueueDataByFileChannel recheckReputOffsetFromCq searchBcqByCacheEnable travelCqFileNumWhenGetMessage",
    ),
    (
        "metrics-listen says where metrics are told over HTTP, under names of our own",
        "accountStatsEnable accountStatsPrintZeroValues autoDeleteUnusedStats commercialBaseCount commercialSizePerMsg \
         enableDetailStat enableLmqStats estimateAccumulation maxStatsIdleTimeInMinutes metricGrpcExporterIntervalInMills \
         metricGrpcExporterTimeOutInMills metricLoggingExporterIntervalInMills metricsExporterType metricsGrpcExporterHeader \
         metricsGrpcExporterTarget metricsInDelta metricsLabel metricsOtelCardinalityLimit metricsPromExporterHost \
         metricsPromExporterPort transactionMetricFlushInterval",
    ),
    (
        "sockets and buffers are sized by this broker itself",
        "channelExpiredTimeout channelNotActiveInterval clientAsyncSemaphoreValue clientCallbackExecutorThreads \
         clientChannelMaxIdleTimeSeconds clientCloseSocketIfTimeout clientOnewaySemaphoreValue clientPooledByteBufAllocatorEnable \
         clientSocketRcvBufSize clientSocketSndBufSize clientWorkerThreads connectTimeoutMillis disableCallbackExecutor \
         disableNettyWorkerGroup enableFastChannelEventProcess enableNetWorkFlowControl enableReconnectForGoAway \
         enableShutdownGracefully forwardTimeout maxReconnectIntervalTimeSeconds printChannelGroups printChannelGroupsMinNum \
         serverAsyncSemaphoreValue serverCallbackExecutorThreads serverChannelMaxIdleTimeSeconds serverNettyWorkerGroupEnable \
         serverOnewaySemaphoreValue serverPooledByteBufAllocatorEnable serverSocketBacklog serverSocketRcvBufSize \
         serverSocketSndBufSize shutdownWaitTimeSeconds socksProxyConfig transferMsgByHeap useEpollNativeSelector \
         writeBufferHighWaterMark writeBufferLowWaterMark",
    ),
    (
        "accounts and their rules are shown and set by anchorlog user and anchorlog acl; access control of 5.x is not built yet",
        "aclCacheExpiredSecond aclCacheMaxNum aclCacheRefreshSecond authenticationMetadataProvider authenticationProvider \
         authenticationStrategy authenticationWhitelist authorizationMetadataProvider authorizationProvider authorizationStrategy \
         authorizationWhitelist initAuthenticationUser innerClientAuthenticationCredentials migrateAuthFromV1Enabled \
         statefulAuthenticationCacheExpiredSecond statefulAuthenticationCacheMaxNum statefulAuthorizationCacheExpiredSecond \
         statefulAuthorizationCacheMaxNum userCacheExpiredSecond userCacheMaxNum userCacheRefreshSecond",
    ),
    (
        "requests that clients make are always answered",
        "allowRecallWhenBrokerNotWriteable litePullMessageEnable recallMessageEnable storeReplyMessageEnable",
    ),
    (
        "messages are pulled here, not popped: clients leave clientRebalance at true",
        "appendAckAsync appendCkAsync defaultMessageRequestMode defaultPopShareQueueNum enableNotifyAfterPopOrderLockRelease \
         enableNotifyBeforePopCalculateLag enablePopBatchAck enablePopBufferMerge enablePopLog enablePopMessageThreshold \
         enableRetryTopicV2 enableSkipLongAwaitingAck initPopOffsetByCheckMsgInMem loadBalancePollNameServerInterval \
         maxPopPollingSize popCkMaxBufferSize popCkOffsetMaxQueueSize popCkStayBufferTime popCkStayBufferTimeOut \
         popConsumerFSServiceInit popConsumerKVServiceEnable popConsumerKVServiceInit popConsumerKVServiceLog popFromRetryProbability \
         popInflightMessageThreshold popLongPollingForceNotifyInterval popPollingMapSize popPollingSize \
         popResponseReturnActualRetryTopic popReviveMaxAttemptTimes popReviveMaxReturnSizePerRead retrieveMessageFromPopRetryTopicV1 \
         reviveAckWaitMs reviveInterval reviveMaxSlow reviveQueueNum reviveScanTime serverLoadBalancerEnable \
         skipWhenCKRePutReachMaxTimes",
    ),
    (
        "topics and groups are as their administrators leave them",
        "autoMessageVersionOnTopicLen clearRetryTopicWhenDeleteTopic configBlackList enableCreateSysGroup enableMixedMessageType \
         maxTopicLength validateSystemTopicWhenUpdateTopic",
    ),
    (
        "an expression (enable-property-filter) is applied to each message as it is read; there are no bit maps of filters",
        "bitMapLengthConsumeQueueExt enableCalcFilterBitMap expectConsumerNumUseFilter filterDataCleanTimeSpan filterSupportRetry \
         maxErrorRateOfBloomFilter maxFilterMessageSize",
    ),
    (
        "there is no RocksDB; everything is in one log, in the store directory",
        "bottomMostCompressionTypeForConsumeQueueStore cleanRocksDBDirtyCQIntervalMin enableRocksDBLog memTableFlushIntervalMs \
         rocksdbCQDoubleWriteEnable rocksdbCompressionType rocksdbFlushWalFrequency rocksdbWalFileRollingThreshold \
         statRocksDBCQIntervalSec",
    ),
    ("one process is one broker", "brokerContainer inBrokerContainer isBrokerContainer isInBrokerContainer"),
    (
        "there are no controllers and no DLedger: anchorlog promote and demote say who leads",
        "brokerElectionPriority checkSyncStateSetPeriod controllerHeartBeatTimeoutMills dLegerGroup dLegerPeers dLegerSelfId \
         fetchControllerAddrByDnsLookup preferredLeaderId syncBrokerMetadataPeriod syncControllerMetadataPeriod",
    ),
    ("a request is answered in time or refused; there is no queue to clean", "brokerFastFailureEnable"),
    ("no topic is made for the broker's own name", "brokerTopicEnable"),
    ("checksums are always checked", "checkCRCOnRecover enabledAppendPropCRC forceVerifyPropCRC"),
    ("no topic is made for the cluster's own name", "clusterTopicEnable"),
    (
        "topics are not compacted",
        "compactionCqMappedFileSize compactionMappedFileSize compactionScheduleInternal compactionThreadNum enableCompaction \
         maxOffsetMapSize",
    ),
    (
        "pull answers are bounded alike from memory and disk",
        "consumerFallbehindThreshold maxTransferBytesOnMessageInDisk maxTransferBytesOnMessageInMemory \
         maxTransferCountOnMessageInDisk maxTransferCountOnMessageInMemory pullBatchMaxMessageCount",
    ),
    (
        "delayed and timed messages are always taken; there is nothing to tune",
        "delayOffsetUpdateVersionStep disappearTimeAfterStart enableScheduleAsyncDeliver enableScheduleMessageStats \
         flushDelayOffsetInterval mappedFileSizeTimerLog maxDelayTime scheduleAsyncDeliverMaxPendingLimit \
         scheduleAsyncDeliverMaxResendNum2Blocked timerCheckMetricsWhen timerColdDataCheckIntervalMs timerCongestNumEachSlot \
         timerEnableCheckMetrics timerEnableDisruptor timerEnableRetryUntilSuccess timerFlushIntervalMs timerGetMessageThreadNum \
         timerInterceptDelayLevel timerMaxDelaySec timerMetricSmallThreshold timerPrecisionMs timerProgressLogIntervalMs \
         timerPutMessageThreadNum timerRollWindowSlot timerSkipUnknownError timerStopDequeue timerStopEnqueue timerWarmEnable \
         timerWheelEnable",
    ),
    ("a slow consumer reads from the disk and disturbs nobody", "disableConsumeIfConsumerReadSlowly"),
    ("always recorded", "diskFallRecorded"),
    (
        "copies says how many an ack stands for, replicas names all of them, and on-missing says what happens without them",
        "enableAutoInSyncReplicas minInSyncReplicas totalReplicas",
    ),
    ("filter servers do not exist any more", "filterServerNums"),
    ("this is the only mode", "highSpeedMode"),
    ("pulls are always held", "longPollingEnable shortPollingTimeMills"),
    ("there are no light message queues", "maxLmqConsumeQueueNum"),
    (
        "a start takes what the log needs to be read, from its last checkpoint on",
        "maxRecoveryCommitlogFiles recoverConcurrently",
    ),
    ("trace topics are ordinary ones", "msgTraceTopicName traceTopicEnable"),
    ("consumers are always told", "notifyConsumerIdsChangedEnable realTimeNotifyConsumerChange"),
    ("what can be read is what is acknowledged", "readUnCommitted"),
    ("the region is always DefaultRegion", "regionId"),
    ("sends are taken at once", "startAcceptSendRequestTimeStamp"),
    ("clients decide whether to trace", "traceOn"),
    ("what becomes of a transaction is one record of the log", "transactionOpBatchInterval transactionOpMsgMaxSize"),
];

/// All of these keys.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    NOTHING.iter().flat_map(|(_, keys)| keys.split_whitespace())
}

/// Why nothing follows from this key; `None` when it is not one of them.
pub(super) fn reason(key: &str) -> Option<&'static str> {
    let is_among = |keys: &str| keys.split_whitespace().any(|known| known == key);
    NOTHING.iter().find(|(_, keys)| is_among(keys)).map(|(reason, _)| *reason)
}
