//! What a network thread does about its connections' bounds; which there are says `net/visitors.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use super::Worker;
use crate::net::ConnectionId;
use crate::net::connection::{CloseReason, Connection};

impl Worker {
    /// Looks whether what waits in a connection's input is more than its address may have.
    pub(super) fn weigh(&mut self, connection: &mut Connection) {
        let (before, charged) = (connection.unfinished, connection.charge());
        if connection.unfinished > before && charged > self.shared.visitors.bounds().unfinished_bytes_per_address {
            self.shared.counters.unfinished_closed.add(1);
            self.close_because(connection, CloseReason::TooMuchUnfinished);
            connection.charge();
        }
    }

    /// What was put in line last is on its way: it counts for its connection until it is answered.
    pub(super) fn took_off(&mut self, connection: &mut Connection) {
        let bytes = self.parsed.back().map_or(0, |parsed| parsed.bytes);
        let was_ahead = connection.is_ahead();
        connection.in_flight = connection.in_flight.saturating_add(bytes);
        if connection.is_ahead() && !was_ahead {
            self.shared.counters.connections_held_back.add(1);
            self.complain(
                connection.peer,
                "a connection waits until its sends are acknowledged",
                &connection.in_flight,
            );
        }
    }

    /// So many bytes of it are not on their way any more.
    pub(super) fn landed(&mut self, id: ConnectionId, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let Some(connection) = self.connection(id) else { return };
        let was_ahead = connection.is_ahead();
        connection.in_flight = connection.in_flight.saturating_sub(bytes);
        if was_ahead
            && !connection.is_ahead()
            && let Some(mut connection) = self.lend(id)
        {
            self.touched(&mut connection);
            self.give_back(connection);
        }
    }

    pub(super) fn holds_too_many(&mut self, connection: &Connection) -> bool {
        let bounds = self.shared.visitors.bounds();
        let (here, of_address) = connection.held_pulls();
        let too_many = here >= bounds.held_pulls || of_address >= bounds.held_pulls_per_address;
        if too_many {
            self.complain(connection.peer, "refused a pull: too many are held", &(here, of_address));
        }
        too_many
    }

    /// Says something in the log, at most once a second: a peer must not be able to fill a disk with it.
    pub(super) fn complain(&mut self, peer: SocketAddr, what: &str, reason: &dyn std::fmt::Debug) {
        if self.complained.is_none_or(|last| self.now >= last + Duration::from_secs(1)) {
            tracing::warn!(%peer, suppressed = self.complaints, ?reason, "{what}");
            self.complained = Some(self.now);
            self.complaints = 0;
        } else {
            self.complaints += 1;
        }
    }
}

/// Bytes of the frame that begins here, as far as it says by now.
pub(super) fn announced(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*bytes.first_chunk::<4>()?);
    usize::try_from(length).ok()?.checked_add(4)
}
