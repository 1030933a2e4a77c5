//! Every bound of the broker, named, and what holds between them.

use std::time::Duration;

use anchorlog_engine::limits as engine;

/// Largest frame taken, its length word included.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Largest message body, or body of a batch.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Largest property string of a stored message, with what the broker adds when it is read.
pub const PROPERTIES_BYTES_MAX: usize = 32_767;
/// Longest topic name that every client family can decode.
pub const TOPIC_BYTES_MAX: usize = 127;
/// Longest group name.
pub const GROUP_BYTES_MAX: usize = 255;
/// Topics; `anchorlog_engine::limits::QUEUE_COUNT_MAX` bounds their queues.
pub const TOPIC_COUNT_MAX: usize = 100_000;
/// Queues of one topic.
pub const TOPIC_QUEUES_MAX: u32 = 1024;
/// Groups that are remembered.
pub const GROUP_COUNT_MAX: usize = 100_000;
/// Committed offsets that are remembered.
pub const OFFSET_COUNT_MAX: usize = 4_000_000;
/// Accounts that are remembered.
pub const ACCOUNT_COUNT_MAX: usize = 10_000;
/// Longest name of an account.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 255;
/// Shortest secret that an account signs with, as with the original.
pub const SECRET_BYTES_MIN: usize = 7;
/// Longest one.
pub const SECRET_BYTES_MAX: usize = 1024;
/// Rules of one account, for topics and groups together.
pub const RULES_PER_ACCOUNT_MAX: usize = 1024;
/// Bytes that an account, or all addresses that are trusted, takes in the table.
pub const ACCOUNT_BYTES_MAX: usize = 8 << 10;

/// Queues of whose offsets one connection was told, as far as that is remembered.
pub const PLACES_PER_CONNECTION_MAX: usize = 64 << 10;
/// Queues locked for ordered consumption.
pub const LOCK_COUNT_MAX: usize = 1_000_000;
/// How long a lock lasts that its owner does not ask for again; owners ask every 20 s, and stop by themselves after 30 s.
pub const LOCK_LEASE: Duration = Duration::from_secs(60);
/// How long its owner may count on a lock after it asked: 30 s from the answer, which it takes within 3 s or not at all.
pub const LOCK_TRUSTED: Duration = Duration::from_secs(33);
/// Longest id of a client that may lock queues; Java's hold the name of their group.
pub const CLIENT_ID_BYTES_MAX: usize = 1024;
/// Consumer groups that one connection may be a member of.
pub const GROUPS_PER_CONNECTION_MAX: usize = 1024;
/// Clients that a strict group keeps out and remembers.
pub const REFUSALS_PER_GROUP_MAX: usize = 64;
/// Longest SQL expression, in bytes.
pub const SQL_BYTES_MAX: usize = 64 << 10;
/// Parts of one: each costs a step for each message.
pub const SQL_NODES_MAX: usize = 1024;
/// How deep one may be nested.
pub const SQL_DEPTH_MAX: usize = 100;
/// Messages that one pull applies an expression to.
pub const SQL_MESSAGES_MAX: usize = 512;
/// Bytes of them.
pub const SQL_MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Time that whoever asked has to take a reply, however long that took to be acknowledged.
pub const PUSH_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// Subscribed topics of one group.
pub const SUBSCRIPTIONS_PER_GROUP_MAX: usize = 4096;

/// Turns in a row with one message each, all from one connection and nothing from another between them, after which a network thread runs
/// the commit itself: nobody else is there to wait for it.
pub const LONE_TURNS: u32 = 8;
/// Time between two looks of a new leader whether all that was acknowledged before it shows.
pub const KNOW_INTERVAL: Duration = Duration::from_millis(20);

/// Most messages of one pull answer: as many as a client can ask for. Its bytes are bounded by [`PULL_BYTES_MAX`].
pub const PULL_MESSAGES_MAX: usize = 1024;
/// Messages of an answer to who does not say how many.
pub const PULL_MESSAGES: usize = 32;
/// Bytes of one pull answer, but for its first message.
pub const PULL_BYTES_MAX: usize = 256 << 10;
/// Queue entries that one pull looks at when its filter passes few.
pub const PULL_SCAN_MAX: usize = 4096;
/// Longest time that a pull is held: below every client's own 30 s.
pub const HOLD_MAX: Duration = Duration::from_secs(25);
/// Held pulls of one connection; further ones are refused.
pub const HELD_PER_CONNECTION_MAX: usize = 16 << 10;

/// Keys of delayed messages and checks held in memory: what is due soon.
pub const DUE_KEYS_MAX: usize = 1 << 20;
/// Keys of a message that its entry remembers, in bytes.
pub const DUE_KEYS_BYTES_MAX: usize = 8 << 10;
/// What a timed message's properties grow by when it leaves the timer: a name and a time, with their separators.
pub const TIMER_PROPERTY_BYTES: usize = 40;
/// How far ahead what is due is read into memory.
pub const DUE_AHEAD: Duration = Duration::from_secs(60);
/// Entries read ahead in one step.
pub const DUE_PAGE_ENTRIES: usize = 1024;
/// Entries that one step of the timer does: live sends get their turn between two of them.
pub const DUE_PER_STEP: usize = 512;
/// Bytes of a batch that does what several asked for, from which on the next one is begun.
pub const MERGED_BATCH_BYTES: u64 = 16 << 10;
/// Transactions of which all that a verdict needs is held in memory, a few hundred bytes each: those that were begun last.
pub const BEGUN_MAX: usize = 32 << 10;
/// Time between two looks for outcomes of transactions that need not be remembered any more.
pub const OUTCOMES_INTERVAL_MS: u64 = 10_000;
/// Pages of entries that one such look goes through; the next one goes on there.
pub const OUTCOME_PAGES_MAX: usize = 64;
/// Producers that one step of the timer asks: each costs the reading of a message.
pub const ASKED_PER_STEP: usize = 64;
/// How long the outcome of a transaction is remembered, in milliseconds: a verdict that comes again gets the same answer so long.
pub const OUTCOME_KEPT_MS: u64 = 3_600_000;
/// Longest sleep of the timer.
pub const DUE_NAP: Duration = Duration::from_millis(20);

/// Answers that are remembered because they were no answers, or came to somebody else; the oldest is forgotten first.
pub const ANSWERS_MAX: usize = 64 << 10;
/// Messages that are remembered as sent back; the oldest is forgotten first.
pub const BACKS_MAX: usize = 256 << 10;
/// How long a message that is acknowledged is waited for until readers see it.
pub const COMPARE_PATIENCE: Duration = Duration::from_millis(500);
/// How long a connection that may be about to close is given until it counts as open.
pub const CLOSE_PATIENCE: Duration = Duration::from_millis(100);

/// How often a name server that is somebody else's is told what there is.
pub const REGISTER_INTERVAL: Duration = Duration::from_secs(30);
/// How often it is looked whether there is something to tell.
pub const REGISTER_LOOK: Duration = Duration::from_secs(1);
/// How long a name server may take to answer.
pub const REGISTER_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a name server is told that this broker is there still.
pub const REGISTER_BEAT: Duration = REGISTER_LOOK;
/// How long a name server that is told so waits for the next time until it takes this broker for gone.
pub const REGISTER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a name server that was just met may not know yet who else is there: every broker tells it all within
/// [`REGISTER_INTERVAL`].
pub const NEIGHBOURS_GATHER: Duration = Duration::from_secs(75);
/// Topics of which it is known who else has queues.
pub const NEIGHBOUR_TOPICS_MAX: usize = 10_000;
/// Questions to a name server that are on their way at once.
pub const NEIGHBOUR_QUESTIONS: usize = 64;

/// How long a client may take to answer what an operator asks of it.
pub const RELAY_WAIT: Duration = Duration::from_secs(10);
/// Such questions that one network thread waits for.
pub const RELAYS_MAX: usize = 1024;
/// Entries of a queue that one answer lists.
pub const ENTRIES_MAX: usize = 256;

/// Messages that an answer to a search holds.
pub const FIND_MESSAGES_MAX: usize = 64;
/// The same for a search by a producer's id.
pub const FIND_UNIQUE_MAX: usize = 32;
/// Bytes of messages that it holds, but for the first.
pub const FIND_BYTES_MAX: usize = 4 << 20;
/// Bytes that a message takes in memory at most, a linked one with its origin.
pub const FIND_SLACK_BYTES: usize = BODY_BYTES_MAX + (512 << 10);
/// Messages of whatever topic that one search looks at.
pub const FIND_CANDIDATES_MAX: usize = 16 << 10;

/// Dead letters that wait to be told to whoever the operator named.
pub const ALARM_QUEUE_MAX: usize = 4096;
/// Dead letters that one call tells. Their lines fit a pipe of 64 KiB.
pub const ALARM_LETTERS_MAX: usize = 12;
/// Longest text of a dead letter's that is told and is not bounded elsewhere.
pub const ALARM_TEXT_CHARS_MAX: usize = 128;
/// How long a command may take that tells of dead letters.
pub const ALARM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request may take that tells of dead letters; stopping may wait for it.
pub const ALARM_URL_TIMEOUT: Duration = Duration::from_secs(5);

/// Things that one part of an operator's list tells.
pub const OPERATE_PART_MAX: usize = 256;
/// Table entries that one part of an operator's list looks at.
pub const OPERATE_SCAN_MAX: usize = 16 << 10;
/// Messages that one part of an operator's list reads only to see whether they are asked for.
pub const OPERATE_READS_MAX: usize = 1024;
/// Bytes of messages that one part of an operator's list tells, but for its first.
pub const OPERATE_PART_BYTES: usize = 2 << 20;
/// Messages that one step of a republishing moves.
pub const REPUBLISH_LINKS_MAX: usize = 256;
/// Bytes of a step's batch, but for its first message.
pub const REPUBLISH_BATCH_BYTES: u64 = STATE_BATCH_BYTES;
/// Marks of dead letters that are gone which one replay removes.
pub const STALE_MARKS_PER_REPLAY: usize = 8;

/// Log lines that one place in the code may say at once.
pub const LOG_LINES_AT_ONCE: f64 = 100.0;
/// Lines that it may say each second from then on.
pub const LOG_LINES_PER_SECOND: f64 = 10.0;

/// A network thread that does not move for so long does not work: more than any disk's hiccup, which a lone sender's thread waits for.
pub const STALLED: Duration = Duration::from_secs(30);
/// With less room than this in a log that cannot grow, a broker is not ready for a send.
pub const READY_BYTES_MIN: u64 = 64 << 10;
/// Pairs of group and topic that monitors are told of one by one.
pub const METRICS_LAGS_MAX: usize = 1000;
/// Topics that monitors are told of one by one.
pub const METRICS_TOPICS_MAX: usize = 1000;
/// Connections of monitors.
pub const METRICS_CONNECTIONS_MAX: usize = 64;
/// Threads that look at the broker for them.
pub const METRICS_THREADS: usize = 4;
/// Time for the head of a monitor's request.
pub const METRICS_HEAD_TIME: Duration = Duration::from_secs(20);
/// Bytes of it.
pub const METRICS_HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest life of a monitor's connection.
pub const METRICS_CONNECTION_TIME: Duration = Duration::from_secs(120);

/// Bytes that a driver reads at once.
pub const READ_BYTES: usize = 64 << 10;
/// Bytes waiting for a slow reader before its requests wait too.
pub const OUT_PAUSE_BYTES: usize = 1 << 20;
/// Bytes waiting for a slow reader before its connection is closed.
pub const OUT_BYTES_MAX: usize = 64 << 20;
/// Emptied write batches that a network thread keeps for their memory.
pub const SPARE_BATCHES_MAX: usize = 4096;
/// The same of batches that several requests shared: [`MERGED_BATCH_BYTES`] each.
pub const ROOMY_BATCHES_MAX: usize = 256;
/// Largest write batch of one request whose memory is kept.
pub const SPARE_BATCH_BYTES: u64 = 8 << 10;
/// Reads from the disk in flight for one connection.
pub const COLD_PER_CONNECTION_MAX: usize = 16;
/// Threads that read for consumers behind the cache.
pub const COLD_READERS: usize = 4;
/// Connections of all network threads.
pub const CONNECTIONS_MAX: usize = 64 << 10;
/// Connections from one address.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 16 << 10;
/// Bytes of requests from one address that are not whole, or that wait to be handled.
pub const UNFINISHED_PER_ADDRESS_BYTES: usize = 256 << 20;
/// Connections of one client.
pub const CONNECTIONS_PER_CLIENT_MAX: usize = 1024;
/// Bytes of requests of one client that are not whole, or that wait to be handled.
pub const UNFINISHED_PER_CLIENT_BYTES: usize = 128 << 20;
/// How long a request may take to come, from its first byte to its last.
pub const UNFINISHED_MAX: Duration = Duration::from_secs(60);
/// Bytes of one connection's sends that are not answered; from there on it is not read.
pub const IN_FLIGHT_BYTES: usize = 32 << 20;
/// The same of one client.
pub const IN_FLIGHT_PER_CLIENT_BYTES: usize = 128 << 20;
/// Held pulls of one client; further ones are refused.
pub const HELD_PER_CLIENT_MAX: usize = 64 << 10;
/// Held pulls from one address; further ones are refused.
pub const HELD_PER_ADDRESS_MAX: usize = 256 << 10;
/// Smallest bound of a frame that can be asked for: a small message, or a heartbeat of many groups.
pub const FRAME_BYTES_MIN: usize = 64 << 10;
/// Network threads: each has a runtime of its own.
pub const NETWORK_THREADS_MAX: usize = 256;
/// Connections of one network thread.
pub const CONNECTIONS_PER_WORKER_MAX: usize = 64 << 10;

/// A connection without traffic, or a client without a heartbeat, is forgotten after this.
pub const IDLE_MAX: Duration = Duration::from_secs(120);
/// How often timers are looked at.
pub const TICK: Duration = Duration::from_millis(50);
/// How often offsets that nobody waits for are written.
pub const OFFSETS_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a batch of table entries from which on the next one is begun.
pub const STATE_BATCH_BYTES: u64 = 16 << 10;
/// Table entries read at once when the broker starts.
pub const STATE_PAGE_ENTRIES: usize = 1024;

const _: () =
    assert!(BODY_BYTES_MAX + PROPERTIES_BYTES_MAX < FRAME_BYTES_MAX, "every message that is stored fits an answer");
const _: () = assert!(
    (OPERATE_PART_BYTES + BODY_BYTES_MAX + PROPERTIES_BYTES_MAX) * 3 / 2 + (64 << 10) < FRAME_BYTES_MAX,
    "every part of a list fits a frame, also in base64"
);
const _: () = assert!(
    // In JSON each byte becomes six at most.
    ALARM_LETTERS_MAX * (6 * (GROUP_BYTES_MAX + 2 * TOPIC_BYTES_MAX + 2 * ALARM_TEXT_CHARS_MAX) + 256) <= 64 << 10,
    "a call's letters fit a pipe"
);
const _: () = assert!(
    BODY_BYTES_MAX + 2 * (engine::ATTRIBUTES_BYTES_MAX + engine::KEYS_BYTES_MAX + PROPERTIES_BYTES_MAX)
        < FIND_SLACK_BYTES,
    "whatever a page of a search leaves out does not fit, so that one that has room for a message is the last"
);
const _: () = assert!(PULL_BYTES_MAX + BODY_BYTES_MAX + (64 << 10) < FRAME_BYTES_MAX, "every pull answer fits a frame");
const _: () = assert!(
    FIND_BYTES_MAX + BODY_BYTES_MAX + FIND_MESSAGES_MAX * (PROPERTIES_BYTES_MAX + 1024) < FRAME_BYTES_MAX,
    "every answer to a search fits a frame"
);
const _: () = assert!(
    STATE_BATCH_BYTES + ACCOUNT_BYTES_MAX as u64 + 2048 < engine::frame_bytes_max(engine::SEGMENT_BYTES_MIN),
    "a batch of entries fits every log, with one of the largest as its last"
);
const _: () =
    assert!(MERGED_BATCH_BYTES < engine::frame_bytes_max(engine::SEGMENT_BYTES_MIN), "merged batches fit every log");
const _: () =
    assert!(DUE_KEYS_BYTES_MAX * 2 <= engine::TABLE_VALUE_BYTES_MAX, "every entry has a value, parked or not");
const _: () = assert!(OUT_PAUSE_BYTES < OUT_BYTES_MAX, "a reader is paused before it is cut off");
