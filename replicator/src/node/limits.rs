//! Every bound of a node, by name.

use std::time::Duration;

/// Longest wait for what a node says of itself.
pub const STATE_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest wait for bytes of another node's log.
pub const RANGE_TIME_MAX: Duration = Duration::from_secs(10);

/// How often damage is looked for, and how long it is left alone when nobody could help.
pub const MEND_PAUSE: Duration = Duration::from_millis(500);
/// See [`MEND_PAUSE`].
pub const MEND_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Longest wait for a promise: whoever leads ends that first.
pub const PROMISE_TIME_MAX: Duration = Duration::from_secs(15);

/// Longest wait for a leader that hands over, or for a node that is to lead.
pub const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest that a leader which hands over waits for its followers to have everything.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);

/// Pause between two looks for a leader, and before a connection is tried again.
pub const SEEK_PAUSE: Duration = Duration::from_millis(200);

/// Pause before what failed is tried again.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How often something is looked at that nobody announces.
pub const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// A connection on which nobody asks anything for so long is closed.
pub const ASKED_NOTHING_MAX: Duration = Duration::from_secs(30);

/// After so long, somebody who holds an engine that is to be closed is complained about.
pub const CLOSE_TIME_EXPECTED: Duration = Duration::from_secs(5);

/// Who was let in just before nothing more is taken has appended by then.
pub const QUIET_TIME: Duration = Duration::from_millis(50);
