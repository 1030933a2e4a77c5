//! What a network thread does about its connections' bounds; which there are says `net/visitors.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use super::Worker;
use crate::net::ConnectionId;
use crate::net::connection::{CloseReason, Connection};

impl Worker {
    /// Looks whether what waits in a connection's input is more than its client or its address may have.
    pub(super) fn weigh(&mut self, connection: &mut Connection) {
        self.wait_for_client(connection);
        let bounds = self.shared.visitors.bounds();
        let (before, (of_client, of_address)) = (connection.unfinished, connection.charge());
        let is_too_much =
            of_client > bounds.unfinished_bytes_per_client || of_address > bounds.unfinished_bytes_per_address;
        if connection.unfinished > before && is_too_much {
            self.shared.counters.unfinished_closed.add(1);
            self.close_because(connection, CloseReason::TooMuchUnfinished);
            connection.charge();
        }
    }

    /// What was put in line last is on its way: it counts for its connection until it is answered.
    pub(super) fn took_off(&mut self, connection: &mut Connection) {
        let bytes = self.parsed.back().map_or(0, |parsed| parsed.bytes);
        let was_ahead = connection.is_ahead();
        connection.took_off(bytes);
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
        connection.landed(bytes);
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
        let held = connection.held_pulls();
        let most = [bounds.held_pulls, bounds.held_pulls_per_client, bounds.held_pulls_per_address];
        let too_many = held.iter().zip(most).any(|(held, most)| *held >= most);
        if too_many {
            self.complain(connection.peer, "refused a pull: too many are held", &held);
        }
        too_many
    }

    /// A connection said in a heartbeat whose it is.
    pub(super) fn introduced(&mut self, connection: &mut Connection) {
        let Some(id) = self.shared.clients.id_of(connection.id).filter(|id| !connection.is_of(id)) else { return };
        // What it has counts for nobody before it counts for another one.
        connection.belong_to(None);
        match self.shared.visitors.introduce(&connection.visitor, &id) {
            Ok(client) => connection.belong_to(Some(client)),
            Err(full) => {
                self.shared.counters.connections_refused.add(1);
                self.complain(connection.peer, "a client has too many connections", &full);
                self.close_because(connection, CloseReason::TooMany);
            }
        }
    }

    /// Remembers a connection that is not read before others of its client are acknowledged, perhaps by other threads.
    pub(super) fn wait_for_client(&mut self, connection: &mut Connection) {
        if connection.is_client_ahead() && !connection.waits_for_client {
            connection.waits_for_client = true;
            self.waiting_for_client.push(connection.id);
        }
    }

    /// Lets those go on whose clients have room again.
    pub(super) fn end_waits_for_clients(&mut self) {
        for id in std::mem::take(&mut self.waiting_for_client) {
            let Some(mut connection) = self.lend(id) else { continue };
            if connection.is_client_ahead() {
                self.waiting_for_client.push(id);
            } else {
                connection.waits_for_client = false;
                self.touched(&mut connection);
            }
            self.give_back(connection);
        }
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
