//! A wire that can be cut at any byte, and that can swallow what goes over it in either direction without a word.

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
    /// Towards the target, and back.
    swallows: [AtomicBool; 2],
    /// Each new connection is cut after so many bytes, both directions together.
    cut_after: AtomicU64,
    is_over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn new(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            swallows: [AtomicBool::new(false), AtomicBool::new(false)],
            cut_after: AtomicU64::new(u64::MAX),
            is_over: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(near) = near else { continue };
                let Ok(far) = TcpStream::connect(accepting.target) else { continue };
                accepting.join(&near, &far);
            }
        });
        Proxy { address, shared }
    }

    /// Whether bytes towards the target, and back, vanish. Connections stay.
    pub(crate) fn swallow(&self, there: bool, back: bool) {
        self.shared.swallows[0].store(there, Ordering::SeqCst);
        self.shared.swallows[1].store(back, Ordering::SeqCst);
    }

    /// Cuts what is connected, and from now on each connection after so many bytes.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.shared.cut_after.store(bytes, Ordering::SeqCst);
        for socket in self.shared.open.lock().unwrap().drain(..) {
            end(&socket);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.cut_after(0);
        let _woken = TcpStream::connect(self.address).is_ok();
    }
}

fn end(socket: &TcpStream) {
    let _already = socket.shutdown(Shutdown::Both).is_err();
}

impl Shared {
    fn join(self: &Arc<Shared>, near: &TcpStream, far: &TcpStream) {
        let both = || [near.try_clone().unwrap(), far.try_clone().unwrap()];
        self.open.lock().unwrap().extend(both());
        let budget = Arc::new(AtomicU64::new(self.cut_after.load(Ordering::SeqCst)));
        for direction in 0..2 {
            let [from, to] =
                if direction == 0 { both() } else { [both()[1].try_clone().unwrap(), both()[0].try_clone().unwrap()] };
            let (shared, budget) = (Arc::clone(self), Arc::clone(&budget));
            std::thread::spawn(move || {
                shared.pass(direction, &from, &to, &budget);
                end(&from);
                end(&to);
            });
        }
    }

    fn pass(&self, direction: usize, mut from: &TcpStream, mut to: &TcpStream, budget: &AtomicU64) {
        from.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut bytes = vec![0; 64 << 10];
        loop {
            let length = match from.read(&mut bytes) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    continue;
                }
                Err(_) => return,
            };
            if self.swallows[direction].load(Ordering::SeqCst) {
                continue;
            }
            let wanted = length as u64;
            let take = |left: u64| Some(left - wanted.min(left));
            let left = budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).unwrap_or(0);
            let now = usize::try_from(wanted.min(left)).unwrap();
            if to.write_all(&bytes[..now]).is_err() || now < length {
                return;
            }
        }
    }
}
