//! Takes connections, makes sure of who is there, and hands each to its own thread.
//!
//! Invariant: when [`Listener::stop`] returns, no connection and no thread is left.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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
            open: Open::default(),
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

/// What ends the connections that are open, by number.
type Open = Arc<Mutex<BTreeMap<u64, Hangup>>>;

struct Accepting<F> {
    socket: TcpListener,
    security: Arc<Security>,
    clock: Arc<dyn Clock>,
    serve: Arc<F>,
    stop: Arc<Stop>,
    open: Open,
}

impl<F: Fn(Channel) + Send + Sync + 'static> Accepting<F> {
    fn run(self) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        let mut next = 0;
        while !self.stop.is_set.load(Ordering::SeqCst) {
            match self.socket.accept() {
                Ok((socket, peer)) => {
                    threads.retain(|thread| !thread.is_finished());
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
        for hangup in self.open.lock().expect("no holder panics").values() {
            hangup.hang_up();
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a connection's thread panicked");
            }
        }
    }

    fn serve(&self, number: u64, socket: TcpStream, peer: SocketAddr) -> io::Result<JoinHandle<()>> {
        socket.set_nonblocking(false)?;
        {
            let mut open = self.open.lock().expect("no holder panics");
            if open.len() >= limits::CONNECTION_COUNT_MAX {
                return Err(io::Error::other("there are too many connections"));
            }
            open.insert(number, Hangup::of(&socket)?);
        }
        let (security, clock) = (Arc::clone(&self.security), Arc::clone(&self.clock));
        let (serve, open) = (Arc::clone(&self.serve), Arc::clone(&self.open));
        let forget = Forget { open, number };
        std::thread::Builder::new().name("replica-peer".to_owned()).spawn(move || {
            let _forget = forget;
            match Channel::accept(socket, &security, &*clock) {
                Ok(channel) => serve(channel),
                Err(error) => tracing::warn!(%peer, %error, "a connection is refused"),
            }
        })
    }
}

/// Takes a connection out of the list of open ones, whatever ends it.
struct Forget {
    open: Open,
    number: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.open.lock().expect("no holder panics").remove(&self.number);
    }
}
