//! The default driver: tokio on epoll, one current-thread runtime for each network thread.
//!
//! Answers are written at once, and only what the socket does not take waits for it to become writable.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::Worker;
use super::door::{Door, Session};
use super::driver::{Driver, Io, Post, Socket, refill, serve};
use crate::limits;

thread_local! {
    /// One buffer for every connection of a thread: it holds bytes only while the worker looks at them.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; limits::READ_BYTES]);
}

/// Pieces that one connection may read before others have their turn.
const READS_PER_TURN: usize = 4;

/// Runs one network thread on epoll until the broker stops. `ready` hears whether it came up.
pub(crate) fn run(post: Post, ready: impl FnOnce(std::io::Result<()>)) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => LocalSet::new().block_on(&runtime, serve::<TcpStream>(post, ready)),
        Err(error) => ready(Err(error)),
    }
}

impl Socket for TcpStream {
    fn adopt(stream: std::net::TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }

    async fn read(driver: Rc<Driver<Self>>, io: Rc<Io<Self>>) {
        loop {
            driver.may_read(&io).await;
            if io.socket.readable().await.is_err() || !read_some(&driver, &io) {
                return;
            }
        }
    }

    fn write(driver: &Rc<Driver<Self>>, io: &Rc<Io<Self>>) {
        if io.writing.get() || write_some(driver, io) {
            return;
        }
        let (driver, writing) = (driver.clone(), io.clone());
        io.write_with(async move {
            while writing.socket.writable().await.is_ok() {
                let done = write_some(&driver, &writing);
                driver.written(&writing);
                if done {
                    break;
                }
            }
        });
    }

    fn shut(&self) {
        // Dropping the last handle closes it; nothing is in flight on epoll.
    }
}

/// Reads what is there; false when the connection has ended.
fn read_some(driver: &Rc<Driver<TcpStream>>, io: &Rc<Io<TcpStream>>) -> bool {
    READ_BUFFER.with_borrow_mut(|buffer| {
        for _ in 0..READS_PER_TURN {
            match io.socket.try_read(buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    if !driver.received(io, &buffer[..count]) {
                        return false;
                    }
                    if count < buffer.len() || !driver.worker.borrow_mut().wants_input(io.id) {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    })
}

/// Writes what the socket takes; true when nothing is left, or nothing can be written any more.
fn write_some(driver: &Driver<TcpStream>, io: &Io<TcpStream>) -> bool {
    let mut worker = driver.worker.borrow_mut();
    if let Door::Tls(session) = &mut *io.door.borrow_mut() {
        return write_sealed(session, &mut worker, io);
    }
    loop {
        let output = worker.output(io.id);
        if output.is_empty() {
            return true;
        }
        match io.socket.try_write(output) {
            Ok(count) => worker.wrote(io.id, count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // The reader sees the same end, and cleans up.
            Err(_) => return true,
        }
    }
}

/// The same for a connection whose bytes are sealed.
fn write_sealed(session: &mut Session, worker: &mut Worker, io: &Io<TcpStream>) -> bool {
    loop {
        if session.sealed().is_empty() && !refill(session, worker, io.id) {
            return true;
        }
        match io.socket.try_write(session.sealed()) {
            Ok(count) => session.wrote(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}
