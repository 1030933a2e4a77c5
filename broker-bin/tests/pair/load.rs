//! Clients that send all the time, each message once, and note what they were told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, Told};

const SENDERS: usize = 4;

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) body: String,
    pub(crate) told: Told,
    pub(crate) at: Instant,
    pub(crate) took: Duration,
}

pub(crate) struct Load {
    sent: Arc<Mutex<Vec<Sent>>>,
    is_over: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(leader: SocketAddr) -> Load {
        let (sent, is_over) = (Arc::<Mutex<Vec<Sent>>>::default(), Arc::<AtomicBool>::default());
        let senders = (0..SENDERS).map(|queue| {
            let (sent, is_over) = (Arc::clone(&sent), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut client = None;
                for number in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let body = format!("{queue}-{number} {}", "x".repeat(number * 37 % 3000));
                    let at = Instant::now();
                    client = client.or_else(|| Client::connect(leader).ok());
                    let told = client.as_mut().map_or(Told::Gone, |client| client.send(queue, body.as_bytes()));
                    let took = at.elapsed();
                    if !matches!(told, Told::Code(_)) {
                        client = None;
                    }
                    let pause = if told == Told::Code(0) { 2 } else { 30 };
                    sent.lock().unwrap().push(Sent { body, told, at, took });
                    std::thread::sleep(Duration::from_millis(pause));
                }
            })
        });
        Load { senders: senders.collect(), sent, is_over }
    }

    /// Waits for an acknowledgement of something that was sent after `since`; how long that took.
    #[track_caller]
    pub(crate) fn acknowledged_after(&self, since: Instant, patience: Duration) -> Duration {
        loop {
            let is_later = |sent: &&Sent| sent.at >= since && sent.told == Told::Code(0);
            if let Some(sent) = self.sent.lock().unwrap().iter().find(is_later) {
                return (sent.at + sent.took).duration_since(since);
            }
            let last = self.sent.lock().unwrap().last().cloned();
            assert!(since.elapsed() < patience, "nothing is acknowledged after {patience:?}; last: {last:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What was told since then.
    pub(crate) fn told_since(&self, since: Instant) -> Vec<Told> {
        self.sent.lock().unwrap().iter().filter(|sent| sent.at >= since).map(|sent| sent.told.clone()).collect()
    }

    /// Ends it; everything that was sent.
    pub(crate) fn end(self) -> Vec<Sent> {
        self.is_over.store(true, Ordering::SeqCst);
        self.senders.into_iter().for_each(|sender| sender.join().unwrap());
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}
