//! Who counts on which queue: clients believe in a lock for 30 s after they were told of it.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a client counts on a lock that it was told of, by its own rule.
const BELIEF: Duration = Duration::from_secs(30);

/// How long a client waits for an answer; what comes later it does not hear.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Who was told last, and when.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<u32, (usize, Duration)>);

impl Leases {
    /// A client was told that it has these queues.
    pub(super) fn told(&mut self, client: usize, queues: &[u32], now: Duration) -> Result<(), String> {
        for queue in queues {
            if let Some((other, told)) = self.0.insert(*queue, (client, now))
                && other != client
                && now < told + BELIEF
            {
                return Err(format!(
                    "queue {queue} is client {client}'s at {now:?}, and client {other}'s since {told:?}"
                ));
            }
        }
        Ok(())
    }

    /// A client gives a queue back, whatever becomes of it.
    pub(super) fn gives_back(&mut self, client: usize, queue: u32) {
        if self.0.get(&queue).is_some_and(|(owner, _)| *owner == client) {
            self.0.remove(&queue);
        }
    }

    /// A client is gone.
    pub(super) fn gone(&mut self, client: usize) {
        self.0.retain(|_, (owner, _)| *owner != client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clients_that_count_on_one_queue_are_seen() {
        let mut leases = Leases::default();
        let seconds = Duration::from_secs;
        assert_eq!(leases.told(0, &[1, 2], seconds(0)), Ok(()));
        assert_eq!(leases.told(0, &[1], seconds(20)), Ok(()));
        assert_eq!(leases.told(1, &[2], seconds(30)), Ok(()), "nobody asked again");
        assert!(leases.told(1, &[1], seconds(49)).is_err());
        leases.gives_back(1, 1);
        assert_eq!(leases.told(0, &[1], seconds(49)), Ok(()), "it was given back");
        leases.gone(0);
        assert_eq!(leases.told(1, &[1], seconds(50)), Ok(()), "its owner is gone");
    }
}
