//! Takes connections, makes sure of who is there, and hands each to its own thread.
//!
//! Invariants:
//! 1. When [`Listener::stop`] returns, no connection and no thread is left.
//! 2. Who has proven nothing takes no place of those who have. Strangers take each other's: an address that has all that one may have its
//!    own oldest, otherwise whichever address has most; those who have not said a byte before those who have. So whoever can prove himself
//!    need only be quicker at that than so many strangers are at coming.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use anchorlog_engine::Clock;

use super::channel::{Channel, Hangup};
use super::drive::Signal;
use super::limits;
use super::security::Security;

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Not without protection.
    #[error("listening on {0} needs a shared key or certificates: it is beyond the loopback interface")]
    Unprotected(SocketAddr),
    /// The address cannot be listened on.
    #[error("listening on {address}: {source}")]
    Io {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
}

/// A listening socket and the connections that came of it.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Stop {
    signal: Signal,
    is_set: AtomicBool,
}

impl Listener {
    /// Listens on `address` (host and port); `serve` is called with each connection whose other end is known, in a thread of its own.
    pub(crate) fn start<F>(
        address: &str,
        security: Security,
        clock: Arc<dyn Clock>,
        serve: F,
    ) -> Result<Listener, ListenError>
    where
        F: Fn(Channel) + Send + Sync + 'static,
    {
        let failed = |source| ListenError::Io { address: address.to_owned(), source };
        for one in address.to_socket_addrs().map_err(failed)? {
            if !security.is_enough_for(one) {
                return Err(ListenError::Unprotected(one));
            }
        }
        let socket = TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let bound = socket.local_addr().map_err(failed)?;
        let signal = Signal::new().map_err(|errno| failed(errno.into()))?;
        let stop = Arc::new(Stop { signal, is_set: AtomicBool::new(false) });
        let accepting = Accepting {
            socket,
            security: Arc::new(security),
            clock,
            serve: Arc::new(serve),
            stop: Arc::clone(&stop),
            open: Arc::default(),
        };
        let thread = std::thread::Builder::new().name("replica-accept".to_owned());
        let thread = thread.spawn(move || accepting.run()).map_err(failed)?;
        Ok(Listener { address: bound, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and waits for their threads.
    pub(crate) fn stop(&mut self) {
        self.stop.is_set.store(true, Ordering::SeqCst);
        self.stop.signal.set();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the accepting thread does not panic");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What ends the connections that are open, by number: the oldest has the lowest.
#[derive(Debug, Default)]
struct Open {
    strangers: BTreeMap<u64, Stranger>,
    peers: BTreeMap<u64, Hangup>,
}

/// A connection whose other end has not proven anything yet.
#[derive(Debug)]
struct Stranger {
    hangup: Hangup,
    origin: IpAddr,
    has_spoken: bool,
}

/// What counts as one address: of IPv6 the half that names a network, within which anybody has as many as he likes.
fn origin(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

impl Open {
    /// Takes a stranger in, for whom another one may have to go.
    fn admit(&mut self, number: u64, origin: IpAddr, hangup: Hangup) {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.strangers.values().for_each(|stranger| *counts.entry(stranger.origin).or_default() += 1);
        let here = counts.get(&origin).copied().unwrap_or(0);
        let crowded = if here >= limits::STRANGER_COUNT_PER_ADDRESS_MAX {
            Some(origin)
        } else if self.strangers.len() >= limits::STRANGER_COUNT_MAX {
            counts.into_iter().max_by_key(|(_, count)| *count).map(|(origin, _)| origin)
        } else {
            None
        };
        if let Some(crowded) = crowded {
            let those = self.strangers.iter().filter(|(_, stranger)| stranger.origin == crowded);
            let goes =
                those.min_by_key(|(number, stranger)| (stranger.has_spoken, **number)).map(|(number, _)| *number);
            if let Some(stranger) = goes.and_then(|number| self.strangers.remove(&number)) {
                tracing::debug!(origin = %stranger.origin, "a connection that has proven nothing makes room for another one");
                stranger.hangup.hang_up();
            }
        }
        self.strangers.insert(number, Stranger { hangup, origin, has_spoken: false });
    }

    fn has_spoken(&mut self, number: u64) {
        if let Some(stranger) = self.strangers.get_mut(&number) {
            stranger.has_spoken = true;
        }
    }

    /// Whoever it is has proven it; false when there is no place any more, or it had to go meanwhile.
    fn prove(&mut self, number: u64) -> bool {
        let Some(stranger) = self.strangers.remove(&number) else { return false };
        let has_place = self.peers.len() < limits::PEER_COUNT_MAX;
        if has_place {
            self.peers.insert(number, stranger.hangup);
        } else {
            tracing::warn!(origin = %stranger.origin, "there are too many connections: one more is not served");
        }
        has_place
    }

    fn forget(&mut self, number: u64) {
        self.strangers.remove(&number);
        self.peers.remove(&number);
    }

    fn hang_up(&self) {
        let strangers = self.strangers.values().map(|stranger| &stranger.hangup);
        strangers.chain(self.peers.values()).for_each(Hangup::hang_up);
    }
}

fn locked(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().expect("no holder panics")
}

struct Accepting<F> {
    socket: TcpListener,
    security: Arc<Security>,
    clock: Arc<dyn Clock>,
    serve: Arc<F>,
    stop: Arc<Stop>,
    open: Arc<Mutex<Open>>,
}

impl<F: Fn(Channel) + Send + Sync + 'static> Accepting<F> {
    fn run(self) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        let mut next = 0;
        while !self.stop.is_set.load(Ordering::SeqCst) {
            match self.socket.accept() {
                Ok((socket, peer)) => {
                    self.wait_for_threads(&mut threads);
                    next += 1;
                    match self.serve(next, socket, peer) {
                        Ok(thread) => threads.push(thread),
                        Err(error) => tracing::warn!(%peer, %error, "a connection is not served"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.stop.signal.wait([self.socket.as_fd()], None) {
                        tracing::error!(%error, "no further connections are taken");
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    // It may be for want of descriptors: not at full speed.
                    let _tried_again_anyway = self.stop.signal.wait([], Some(limits::ACCEPT_PAUSE)).is_err();
                }
            }
        }
        locked(&self.open).hang_up();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a connection's thread panicked");
            }
        }
    }

    /// Forgets the threads that have ended. All but a bounded number of them were told to, and will.
    fn wait_for_threads(&self, threads: &mut Vec<JoinHandle<()>>) {
        loop {
            threads.retain(|thread| !thread.is_finished());
            if threads.len() < limits::THREAD_COUNT_MAX || self.stop.is_set.load(Ordering::SeqCst) {
                return;
            }
            let _looked_again_anyway = self.stop.signal.wait([], Some(limits::THREAD_END_PAUSE)).is_err();
        }
    }

    fn serve(&self, number: u64, socket: TcpStream, peer: SocketAddr) -> io::Result<JoinHandle<()>> {
        socket.set_nonblocking(false)?;
        locked(&self.open).admit(number, origin(peer), Hangup::of(&socket)?);
        let (security, clock) = (Arc::clone(&self.security), Arc::clone(&self.clock));
        let (serve, open) = (Arc::clone(&self.serve), Arc::clone(&self.open));
        let forget = Forget { open: Arc::clone(&open), number };
        std::thread::Builder::new().name("replica-peer".to_owned()).spawn(move || {
            let _forget = forget;
            let spoken = Channel::wait_for_word(&socket).inspect(|()| locked(&open).has_spoken(number));
            match spoken.and_then(|()| Channel::accept(socket, &security, &*clock)) {
                Ok(channel) if locked(&open).prove(number) => serve(channel),
                Ok(_) => {}
                Err(error) if locked(&open).strangers.contains_key(&number) => {
                    tracing::warn!(%peer, %error, "a connection is refused");
                }
                Err(error) => tracing::debug!(%peer, %error, "a connection had to go"),
            }
        })
    }
}

/// Takes a connection out of the list of open ones, whatever ends it.
struct Forget {
    open: Arc<Mutex<Open>>,
    number: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        locked(&self.open).forget(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_make_room_for_each_other_and_for_nobody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut open = Open::default();
        let at = |text: &str| origin(SocketAddr::new(text.parse().unwrap(), 1));
        let mut number = 0;
        let mut admit = |open: &mut Open, from: &str| {
            number += 1;
            open.admit(number, at(from), Hangup::of(&socket).unwrap());
            number
        };
        let (peer, quiet) = (admit(&mut open, "10.0.0.1"), admit(&mut open, "10.0.0.1"));
        assert!(open.prove(peer) && !open.prove(peer), "once");
        let first = admit(&mut open, "10.0.0.2");
        open.has_spoken(first);
        let second = admit(&mut open, "10.0.0.2");
        for _ in 0..limits::STRANGER_COUNT_PER_ADDRESS_MAX - 1 {
            admit(&mut open, "10.0.0.2");
        }
        assert!(!open.strangers.contains_key(&second), "of those who say nothing it is the oldest");
        assert!(open.strangers.contains_key(&first) && open.strangers.contains_key(&quiet));
        for network in 0..10 * limits::STRANGER_COUNT_MAX {
            admit(&mut open, &format!("2001:db8:0:{network:x}::1"));
        }
        assert_eq!(open.strangers.len(), limits::STRANGER_COUNT_MAX);
        assert!(open.strangers.contains_key(&first), "who has said something goes last");
        assert!(open.peers.contains_key(&peer));
        open.forget(peer);
        open.forget(first);
        assert!(open.peers.is_empty() && !open.strangers.contains_key(&first));
    }

    #[test]
    fn one_network_counts_as_one_address() {
        let at = |text: &str| origin(SocketAddr::new(text.parse().unwrap(), 1));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:0:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }
}
