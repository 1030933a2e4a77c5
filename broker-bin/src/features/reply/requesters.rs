//! Which client is at the other end of which connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;

#[derive(Debug, Default)]
struct Known {
    by_id: BTreeMap<Box<str>, ConnectionId>,
    ids: HashMap<ConnectionId, Box<str>>,
}

/// Every client that was heard. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Requesters(Mutex<Known>);

impl Requesters {
    /// A client says its id by this connection, which is its connection from now on.
    pub fn note(&self, connection: ConnectionId, client_id: &str) {
        if client_id.is_empty() || client_id.len() > limits::CLIENT_ID_BYTES_MAX {
            return;
        }
        let Known { by_id, ids } = &mut *lock(&self.0);
        if by_id.get(client_id) == Some(&connection) {
            return;
        }
        if let Some(other) = ids.insert(connection, client_id.into())
            && by_id.get(&other) == Some(&connection)
        {
            by_id.remove(&other);
        }
        by_id.insert(client_id.into(), connection);
    }

    /// The connection is gone.
    pub fn gone(&self, connection: ConnectionId) {
        let Known { by_id, ids } = &mut *lock(&self.0);
        if let Some(client_id) = ids.remove(&connection)
            && by_id.get(&client_id) == Some(&connection)
        {
            by_id.remove(&client_id);
        }
    }

    /// By which connection a client can be reached.
    #[must_use]
    pub fn find(&self, client_id: &str) -> Option<ConnectionId> {
        lock(&self.0).by_id.get(client_id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_where_it_was_heard_last_until_that_connection_is_gone() {
        let by = |slot| ConnectionId { worker: 0, slot, generation: 0 };
        let known = Requesters::default();
        known.note(by(1), "a");
        known.note(by(2), "b");
        known.note(by(3), "a");
        assert_eq!((known.find("a"), known.find("b"), known.find("c")), (Some(by(3)), Some(by(2)), None));
        known.gone(by(1));
        assert_eq!(known.find("a"), Some(by(3)), "its old connection takes nothing along");
        known.note(by(2), "c");
        assert_eq!((known.find("b"), known.find("c")), (None, Some(by(2))));
        known.gone(by(3));
        known.gone(by(2));
        assert_eq!((known.find("a"), known.find("c")), (None, None));
        let inner = lock(&known.0);
        assert!(inner.by_id.is_empty() && inner.ids.is_empty());
    }
}
