//! Numbers that say what a request wants and how it went.
//!
//! Both kinds share one field of the header; its response bit tells them apart. Source: wire notes, sections 2.0 and 3.1.

/// Request codes.
pub mod request {
    /// Store a message; fields under their long names.
    pub const SEND_MESSAGE: i32 = 10;
    /// Read messages of a queue.
    pub const PULL_MESSAGE: i32 = 11;
    /// Find messages by key.
    pub const QUERY_MESSAGE: i32 = 12;
    /// Read a group's committed offset.
    pub const QUERY_CONSUMER_OFFSET: i32 = 14;
    /// Commit a group's offset.
    pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
    /// Create a topic or change it.
    pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    /// Create several topics or change them.
    pub const UPDATE_AND_CREATE_TOPIC_LIST: i32 = 18;
    /// Every topic's settings.
    pub const GET_ALL_TOPIC_CONFIG: i32 = 21;
    /// Change the broker's settings.
    pub const UPDATE_BROKER_CONFIG: i32 = 25;
    /// Read the broker's settings.
    pub const GET_BROKER_CONFIG: i32 = 26;
    /// What the broker is doing, as text pairs.
    pub const GET_BROKER_RUNTIME_INFO: i32 = 28;
    /// The offset that belongs to a time.
    pub const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    /// The offset of a queue's next message.
    pub const GET_MAX_OFFSET: i32 = 30;
    /// The offset of a queue's first message.
    pub const GET_MIN_OFFSET: i32 = 31;
    /// When a queue's first message was stored.
    pub const GET_EARLIEST_MSG_STORETIME: i32 = 32;
    /// Read one message by its place in the log.
    pub const VIEW_MESSAGE_BY_ID: i32 = 33;
    /// A client's groups and subscriptions.
    pub const HEART_BEAT: i32 = 34;
    /// A client leaves its groups.
    pub const UNREGISTER_CLIENT: i32 = 35;
    /// A consumer wants a message again, later.
    pub const CONSUMER_SEND_MSG_BACK: i32 = 36;
    /// A producer's verdict on its half message.
    pub const END_TRANSACTION: i32 = 37;
    /// Who consumes in a group.
    pub const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    /// Broker to producer: what became of this half message? One way.
    pub const CHECK_TRANSACTION_STATE: i32 = 39;
    /// Broker to consumer: your group changed. One way.
    pub const NOTIFY_CONSUMER_IDS_CHANGED: i32 = 40;
    /// Lease queues for ordered consumption.
    pub const LOCK_BATCH_MQ: i32 = 41;
    /// Give leases back.
    pub const UNLOCK_BATCH_MQ: i32 = 42;
    /// Every group's offsets.
    pub const GET_ALL_CONSUMER_OFFSET: i32 = 43;
    /// Offsets of the delay levels.
    pub const GET_ALL_DELAY_OFFSET: i32 = 45;
    /// Would this filter work?
    pub const CHECK_CLIENT_CONFIG: i32 = 46;
    /// Make or change an entry of `plain_acl.yml`.
    pub const UPDATE_AND_CREATE_ACL_CONFIG: i32 = 50;
    /// Take an entry of `plain_acl.yml` away.
    pub const DELETE_ACL_CONFIG: i32 = 51;
    /// Write a value of the name server.
    pub const PUT_KV_CONFIG: i32 = 100;
    /// Read a value of the name server.
    pub const GET_KV_CONFIG: i32 = 101;
    /// Delete a value of the name server.
    pub const DELETE_KV_CONFIG: i32 = 102;
    /// A broker announces itself.
    pub const REGISTER_BROKER: i32 = 103;
    /// A broker takes its leave.
    pub const UNREGISTER_BROKER: i32 = 104;
    /// Where a topic's queues are.
    pub const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    /// Which brokers there are.
    pub const GET_BROKER_CLUSTER_INFO: i32 = 106;
    /// Create a group or change it.
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
    /// Every group's settings.
    pub const GET_ALL_SUBSCRIPTIONGROUP_CONFIG: i32 = 201;
    /// The offsets of a topic's queues.
    pub const GET_TOPIC_STATS_INFO: i32 = 202;
    /// A consumer group's connections and subscriptions.
    pub const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
    /// A producer group's connections.
    pub const GET_PRODUCER_CONNECTION_LIST: i32 = 204;
    /// Take the right to write from a broker's topics.
    pub const WIPE_WRITE_PERM_OF_BROKER: i32 = 205;
    /// Every topic's name.
    pub const GET_ALL_TOPIC_LIST_FROM_NAMESERVER: i32 = 206;
    /// Delete a group.
    pub const DELETE_SUBSCRIPTIONGROUP: i32 = 207;
    /// How far a group is.
    pub const GET_CONSUME_STATS: i32 = 208;
    /// Delete a topic.
    pub const DELETE_TOPIC_IN_BROKER: i32 = 215;
    /// Delete a topic's route.
    pub const DELETE_TOPIC_IN_NAMESRV: i32 = 216;
    /// Read a namespace of the name server.
    pub const GET_KVLIST_BY_NAMESPACE: i32 = 219;
    /// Broker to consumer: go to these offsets. One way.
    pub const RESET_CONSUMER_CLIENT_OFFSET: i32 = 220;
    /// Broker to consumer: where are you?
    pub const GET_CONSUMER_STATUS_FROM_CLIENT: i32 = 221;
    /// Move a group's offsets.
    pub const INVOKE_BROKER_TO_RESET_OFFSET: i32 = 222;
    /// Ask a group's members where they are.
    pub const INVOKE_BROKER_TO_GET_CONSUMER_STATUS: i32 = 223;
    /// Topics of a cluster.
    pub const GET_TOPICS_BY_CLUSTER: i32 = 224;
    /// Which groups consume a topic.
    pub const QUERY_TOPIC_CONSUME_BY_WHO: i32 = 300;
    /// How far behind a group is, in time.
    pub const QUERY_CONSUME_TIME_SPAN: i32 = 303;
    /// Create groups or change them.
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST: i32 = 225;
    /// Remove queue files that are not needed.
    pub const CLEAN_EXPIRED_CONSUMEQUEUE: i32 = 306;
    /// Remove topics that nobody uses.
    pub const CLEAN_UNUSED_TOPIC: i32 = 316;
    /// Ask a half message's producer again.
    pub const RESUME_CHECK_HALF_MESSAGE: i32 = 323;
    /// Remove files of the log that are too old.
    pub const DELETE_EXPIRED_COMMITLOG: i32 = 329;
    /// System topics, from the name server.
    pub const GET_SYSTEM_TOPIC_LIST_FROM_NS: i32 = 304;
    /// System topics, from the broker.
    pub const GET_SYSTEM_TOPIC_LIST_FROM_BROKER: i32 = 305;
    /// A consumer's state; relayed to it.
    pub const GET_CONSUMER_RUNNING_INFO: i32 = 307;
    /// Offsets corrected for filters.
    pub const QUERY_CORRECTION_OFFSET: i32 = 308;
    /// Let one consumer handle one message; relayed to it.
    pub const CONSUME_MESSAGE_DIRECTLY: i32 = 309;
    /// Store a message; fields under one letter each.
    pub const SEND_MESSAGE_V2: i32 = 310;
    /// Copy a group's offsets to another.
    pub const CLONE_GROUP_OFFSET: i32 = 314;
    /// One series of the broker's statistics.
    pub const VIEW_BROKER_STATS_DATA: i32 = 315;
    /// Every group's progress.
    pub const GET_BROKER_CONSUME_STATS: i32 = 317;
    /// Change the name server's settings.
    pub const UPDATE_NAMESRV_CONFIG: i32 = 318;
    /// Read the name server's settings.
    pub const GET_NAMESRV_CONFIG: i32 = 319;
    /// Store several messages; fields under one letter each.
    pub const SEND_BATCH_MESSAGE: i32 = 320;
    /// Raw entries of a consume queue.
    pub const QUERY_CONSUME_QUEUE: i32 = 321;
    /// Does a name server know this state of a broker's topics?
    pub const QUERY_DATA_VERSION: i32 = 322;
    /// Send a reply; long names.
    pub const SEND_REPLY_MESSAGE: i32 = 324;
    /// Send a reply; one letter each.
    pub const SEND_REPLY_MESSAGE_V2: i32 = 325;
    /// Broker to client: a reply arrived.
    pub const PUSH_REPLY_MESSAGE_TO_CLIENT: i32 = 326;
    /// Give the right to write back to a broker's topics.
    pub const ADD_WRITE_PERM_OF_BROKER: i32 = 327;
    /// Every producer's connection.
    pub const GET_ALL_PRODUCER_INFO: i32 = 328;
    /// Topics of a group.
    pub const QUERY_TOPICS_BY_CONSUMER: i32 = 343;
    /// A group's subscription of a topic.
    pub const QUERY_SUBSCRIPTION_BY_CONSUMER: i32 = 345;
    /// A topic's settings.
    pub const GET_TOPIC_CONFIG: i32 = 351;
    /// A group's settings.
    pub const GET_SUBSCRIPTIONGROUP_CONFIG: i32 = 352;
    /// As [`PULL_MESSAGE`], from a consumer that pulls at its own pace.
    pub const LITE_PULL_MESSAGE: i32 = 361;
    /// Call a timed message back.
    pub const RECALL_MESSAGE: i32 = 370;
    /// Who takes which queue, for the broker's own balancing.
    pub const QUERY_ASSIGNMENT: i32 = 400;
    /// Pull or pop, for a group.
    pub const SET_MESSAGE_REQUEST_MODE: i32 = 401;
    /// A broker is there still.
    pub const BROKER_HEARTBEAT: i32 = 904;
    /// Make a user.
    pub const AUTH_CREATE_USER: i32 = 3001;
    /// Change a user.
    pub const AUTH_UPDATE_USER: i32 = 3002;
    /// Take a user away.
    pub const AUTH_DELETE_USER: i32 = 3003;
    /// A user.
    pub const AUTH_GET_USER: i32 = 3004;
    /// All users.
    pub const AUTH_LIST_USER: i32 = 3005;
    /// Make policies of a user.
    pub const AUTH_CREATE_ACL: i32 = 3006;
    /// Change policies of a user.
    pub const AUTH_UPDATE_ACL: i32 = 3007;
    /// Take policies of a user away.
    pub const AUTH_DELETE_ACL: i32 = 3008;
    /// Policies of a user.
    pub const AUTH_GET_ACL: i32 = 3009;
    /// Policies of all users.
    pub const AUTH_LIST_ACL: i32 = 3010;
    /// Take messages for a time.
    pub const POP_MESSAGE: i32 = 200_050;
    /// A popped message is done.
    pub const ACK_MESSAGE: i32 = 200_051;
    /// Keep a popped message longer.
    pub const CHANGE_MESSAGE_INVISIBLETIME: i32 = 200_053;

    /// Whether a request changes accounts: only a leader that can have it acknowledged takes it.
    #[must_use]
    pub const fn changes_accounts(code: i32) -> bool {
        matches!(
            code,
            UPDATE_AND_CREATE_ACL_CONFIG
                | DELETE_ACL_CONFIG
                | AUTH_CREATE_USER
                | AUTH_UPDATE_USER
                | AUTH_DELETE_USER
                | AUTH_CREATE_ACL
                | AUTH_UPDATE_ACL
                | AUTH_DELETE_ACL
        )
    }
}

/// Request codes of our own, for operators: JSON in, JSON out; see [`super::operate`]. A code never changes its meaning, and none is used
/// twice: 30 001 to 30 099 here, further hundreds for other rooms.
pub mod private {
    /// Transactions that nobody has decided.
    pub const TRANSACTION_LIST: i32 = 30_001;
    /// One transaction.
    pub const TRANSACTION_SHOW: i32 = 30_002;
    /// Decides a transaction by hand.
    pub const TRANSACTION_DECIDE: i32 = 30_003;
    /// What is to be delivered later.
    pub const DELAY_LIST: i32 = 30_011;
    /// Takes back what is to be delivered later.
    pub const DELAY_CANCEL: i32 = 30_012;
    /// Which groups have dead letters.
    pub const DEAD_LETTER_GROUPS: i32 = 30_021;
    /// A group's dead letters.
    pub const DEAD_LETTER_LIST: i32 = 30_022;
    /// Returns a dead letter to where it came from.
    pub const DEAD_LETTER_REPLAY: i32 = 30_023;
    /// The messages of a topic by their times.
    pub const MESSAGE_LIST: i32 = 30_031;
    /// What became of a message.
    pub const TRACE: i32 = 30_041;
    /// Who is in a consumer group, who differs, and who has which queue.
    pub const GROUP_SHOW: i32 = 30_100;
    /// How strict a consumer group is.
    pub const GROUP_SET: i32 = 30_101;
    /// The accounts, and their rules.
    pub const ACCOUNT_LIST: i32 = 30_201;
    /// Makes an account, or changes one.
    pub const ACCOUNT_PUT: i32 = 30_202;
    /// Takes an account away.
    pub const ACCOUNT_DELETE: i32 = 30_203;
    /// Changes an account's rules for topics and groups.
    pub const ACCOUNT_RULES: i32 = 30_204;
    /// How much of a topic stands in another one.
    pub const REPUBLISH_SHOW: i32 = 30_501;
    /// Puts some more of it there.
    pub const REPUBLISH_STEP: i32 = 30_502;

    /// Whether a request changes what is stored: only a leader that can have it acknowledged takes it.
    #[must_use]
    pub const fn writes(code: i32) -> bool {
        matches!(
            code,
            TRANSACTION_DECIDE
                | DELAY_CANCEL
                | DEAD_LETTER_REPLAY
                | GROUP_SET
                | ACCOUNT_PUT
                | ACCOUNT_DELETE
                | ACCOUNT_RULES
                | REPUBLISH_STEP
        )
    }
}

/// Response codes.
pub mod response {
    /// Done; for a pull, messages were found.
    pub const SUCCESS: i32 = 0;
    /// Anything else went wrong; the remark explains.
    pub const SYSTEM_ERROR: i32 = 1;
    /// Too much to do.
    pub const SYSTEM_BUSY: i32 = 2;
    /// Not offered.
    pub const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
    /// Stored; the local disk did not confirm in time.
    pub const FLUSH_DISK_TIMEOUT: i32 = 10;
    /// Stored; there is no slave that could hold it as well.
    pub const SLAVE_NOT_AVAILABLE: i32 = 11;
    /// Stored; no slave confirmed in time.
    pub const FLUSH_SLAVE_TIMEOUT: i32 = 12;
    /// The message cannot be stored as it is.
    pub const MESSAGE_ILLEGAL: i32 = 13;
    /// Nothing is stored; try later or elsewhere.
    pub const SERVICE_NOT_AVAILABLE: i32 = 14;
    /// This version is not served.
    pub const VERSION_NOT_SUPPORTED: i32 = 15;
    /// Not allowed.
    pub const NO_PERMISSION: i32 = 16;
    /// No such topic, or no route to it.
    pub const TOPIC_NOT_EXIST: i32 = 17;
    /// Nothing new in the queue.
    pub const PULL_NOT_FOUND: i32 = 19;
    /// Nothing matched; go on at the next offset at once.
    pub const PULL_RETRY_IMMEDIATELY: i32 = 20;
    /// No such offset; go on at the one given.
    pub const PULL_OFFSET_MOVED: i32 = 21;
    /// No such offset, message or value is known.
    pub const QUERY_NOT_FOUND: i32 = 22;
    /// A filter that cannot be read.
    pub const SUBSCRIPTION_PARSE_FAILED: i32 = 23;
    /// The group does not subscribe that topic.
    pub const SUBSCRIPTION_NOT_EXIST: i32 = 24;
    /// The broker knows an older subscription.
    pub const SUBSCRIPTION_NOT_LATEST: i32 = 25;
    /// No such group.
    pub const SUBSCRIPTION_GROUP_NOT_EXIST: i32 = 26;
    /// What a filter needs is not there: its expression cannot be read.
    pub const FILTER_DATA_NOT_EXIST: i32 = 27;
    /// A parameter is out of range; clients before 5.0 know [`SYSTEM_ERROR`] only.
    pub const INVALID_PARAMETER: i32 = 29;
    /// No member of the group is connected.
    pub const CONSUMER_NOT_ONLINE: i32 = 206;
    /// The consumer did not answer a relayed request.
    pub const CONSUME_MSG_TIMEOUT: i32 = 207;
    /// No such message.
    pub const NO_MESSAGE: i32 = 208;
    /// Too many pops wait.
    pub const POLLING_FULL: i32 = 209;
    /// A pop waited in vain.
    pub const POLLING_TIMEOUT: i32 = 210;
    /// Slow down; ask again in 20 ms.
    pub const FLOW_CONTROL: i32 = 215;
    /// Not what this message's state allows; clients before 5.0 do not know it.
    pub const ILLEGAL_OPERATION: i32 = 604;
    /// The server is closing: connect anew. Clients before 5.3.2 do not know it.
    pub const GO_AWAY: i32 = 1500;

    /// A user that there is not.
    pub const USER_NOT_EXIST: i32 = 3001;
    /// A policy that there is not.
    pub const POLICY_NOT_EXIST: i32 = 3002;
}
