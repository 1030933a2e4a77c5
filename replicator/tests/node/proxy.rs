//! A connection's worst enemy: passes bytes on, until it is told not to. It stands between nodes here, and between the brokers of
//! `broker-bin/tests/pair`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Between whoever connects and one address.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// Bytes towards the target, and back, vanish; connections stay.
    swallows: [AtomicBool; 2],
    /// After so many bytes, in either direction, each connection is cut.
    cut_after: AtomicU64,
    is_over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Passes on to `target`.
    pub(crate) fn new(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            swallows: [AtomicBool::new(false), AtomicBool::new(false)],
            cut_after: AtomicU64::new(u64::MAX),
            is_over: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(near) = near else { continue };
                let Ok(far) = TcpStream::connect(accepting.target) else { continue };
                let budget = Arc::new(AtomicU64::new(accepting.cut_after.load(Ordering::SeqCst)));
                accepting.open.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (direction, from, to) in [(0, near.try_clone().unwrap(), far.try_clone().unwrap()), (1, far, near)]
                {
                    let (shared, budget) = (Arc::clone(&accepting), Arc::clone(&budget));
                    std::thread::spawn(move || shared.pass(direction, from, to, &budget));
                }
            }
        });
        Proxy { address, shared }
    }

    /// Whether bytes towards the target, and back, vanish.
    pub(crate) fn swallow(&self, there: bool, back: bool) {
        self.shared.swallows[0].store(there, Ordering::SeqCst);
        self.shared.swallows[1].store(back, Ordering::SeqCst);
    }

    /// Cuts each new connection after so many bytes.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.shared.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        for socket in self.shared.open.lock().unwrap().drain(..) {
            let _already = socket.shutdown(Shutdown::Both).is_err();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.cut();
        let _woken = TcpStream::connect(self.address).is_ok();
    }
}

impl Shared {
    fn pass(&self, direction: usize, mut from: TcpStream, mut to: TcpStream, budget: &AtomicU64) {
        from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut bytes = vec![0; 64 << 10];
        loop {
            let length = match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    continue;
                }
                Err(_) => break,
            };
            if self.swallows[direction].load(Ordering::SeqCst) {
                continue;
            }
            let wanted = length as u64;
            let take = |left: u64| Some(left - wanted.min(left));
            let left = budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).unwrap_or(0);
            let now = usize::try_from(wanted.min(left)).unwrap();
            if to.write_all(&bytes[..now]).is_err() || now < length {
                break;
            }
        }
        let _already = (from.shutdown(Shutdown::Both).is_err(), to.shutdown(Shutdown::Both).is_err());
    }
}
