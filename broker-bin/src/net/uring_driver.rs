//! The other driver: tokio-uring, behind the feature `net-uring`. The same [`super::Worker`], the same tasks; reads and writes
//! are completions with buffers of their own.
//!
//! It exists to be compared: the crate has had no release since 2024, and nothing else depends on it.

use std::net::Shutdown;
use std::rc::Rc;

use tokio_uring::net::TcpStream;

use super::driver::{Driver, Io, Post, Socket, serve};
use crate::limits;

/// Operations that can be handed to the kernel at once.
const RING_ENTRIES: u32 = 1024;

/// Runs one network thread on `io_uring` until the broker stops. `ready` hears whether it came up: not where the kernel refuses it.
pub(crate) fn run(post: Post, ready: impl FnOnce(std::io::Result<()>)) {
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES);
    match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => runtime.block_on(serve::<TcpStream>(post, ready)),
        Err(error) => ready(Err(error)),
    }
}

impl Socket for TcpStream {
    fn adopt(stream: std::net::TcpStream) -> std::io::Result<Self> {
        // On a non-blocking socket the kernel would answer "not now" instead of waiting.
        stream.set_nonblocking(false)?;
        Ok(TcpStream::from_std(stream))
    }

    async fn read(driver: Rc<Driver<Self>>, io: Rc<Io<Self>>) {
        let mut buffer = vec![0; limits::READ_BYTES / 4];
        loop {
            driver.may_read(&io).await;
            let (outcome, returned) = io.socket.read(buffer).await;
            buffer = returned;
            match outcome {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if !driver.received(&io, &buffer[..count]) {
                        return;
                    }
                }
            }
        }
    }

    fn write(driver: &Rc<Driver<Self>>, io: &Rc<Io<Self>>) {
        if io.writing.get() || !driver.has_output(io) {
            return;
        }
        let (driver, writing) = (driver.clone(), io.clone());
        io.write_with(async move {
            loop {
                let output = driver.take_owned(&writing);
                if output.is_empty() {
                    break;
                }
                let (outcome, _) = writing.socket.write_all(output).await;
                driver.wrote_owned(&writing);
                if outcome.is_err() {
                    break;
                }
                driver.written(&writing);
            }
        });
    }

    fn shut(&self) {
        // A read in flight holds the socket open: this ends it.
        drop(self.shutdown(Shutdown::Both));
    }
}
