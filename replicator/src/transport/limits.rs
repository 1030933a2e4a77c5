//! Every bound of the transport, by name.

use std::time::Duration;

/// Shortest shared key, in bytes.
pub const KEY_BYTES_MIN: usize = 16;

/// Longest record on a connection that is protected by a key, in bytes: what is held back until its code is checked.
pub const RECORD_BYTES_MAX: usize = 256 << 10;

/// Bytes read from a socket at once.
pub const READ_BYTES: usize = 256 << 10;

/// Longest wait for a connection to be made.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest wait for a connection's first byte, and longest time from there until both ends are sure of each other.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(3);

/// Longest wait for the other end to take what is sent: a peer that is stopped is let go, and comes back by itself.
pub const SEND_TIME_MAX: Duration = Duration::from_secs(3);

/// Connections at once of those who are known; further ones are closed when they have said who they are.
pub const PEER_COUNT_MAX: usize = 64;

/// Connections at once of those who have not proven anything yet; the next one takes the place of another.
pub const STRANGER_COUNT_MAX: usize = 64;

/// The same for those from one address.
pub const STRANGER_COUNT_PER_ADDRESS_MAX: usize = 16;

/// Threads at once: those, and some that are about to end.
pub const THREAD_COUNT_MAX: usize = PEER_COUNT_MAX + 2 * STRANGER_COUNT_MAX;

const _: () = assert!(STRANGER_COUNT_PER_ADDRESS_MAX < STRANGER_COUNT_MAX);

/// How long a thread that was told to end may take before it is looked for again.
pub const THREAD_END_PAUSE: Duration = Duration::from_millis(1);

/// Bytes handed to a link at once: what the other direction waits for at most.
pub const RECEIVE_BYTES: usize = 64 << 10;

/// Bytes asked of a link at once: as many as one wide read of the log brings, for a peer that is far behind an idle leader.
pub const SEND_BYTES: usize = 1 << 20;

/// How often a direction that hears nothing looks whether the other is still there.
pub const READ_PATIENCE: Duration = Duration::from_millis(500);

/// Longest wait for the other end to take the last words.
pub const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// Pause after a connection could not be accepted.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
