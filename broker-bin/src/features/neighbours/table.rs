//! Who else has queues of which topic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use anchorlog_engine::{AppendError, Engine, Put, ReadError, WriteBatch};

use crate::limits;
use crate::lock::{lock, read, write};
use crate::state::entries::{self, neighbours as entry};
use crate::wire::neighbour::Neighbour;

/// Other brokers by topic, in the order of their names. No topic is there without one.
pub type Routes = BTreeMap<Box<str>, Vec<Neighbour>>;

#[derive(Debug, Default)]
struct Heard {
    /// What each name server that answers says.
    views: BTreeMap<String, Routes>,
    /// What the table says.
    written: Arc<Routes>,
}

/// What is known of other brokers.
#[derive(Debug, Default)]
pub struct Neighbours {
    heard: Mutex<Heard>,
    shown: RwLock<Arc<Routes>>,
}

impl Neighbours {
    /// Knows what the table says.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn load(&self, engine: &Engine) -> Result<(), ReadError> {
        let (mut from, end) = (entry::PREFIX.to_vec(), entries::end_of(entry::PREFIX));
        let mut routes = Routes::new();
        loop {
            let page = engine.snapshot().range(&from, Some(&end), limits::STATE_PAGE_ENTRIES)?;
            for (key, found) in &page {
                match entry::decode(key, &found.value) {
                    Ok((topic, neighbours)) => drop(routes.insert(topic, neighbours)),
                    Err(error) => {
                        tracing::warn!(key = %key.escape_ascii(), %error, "a remembered route is passed over")
                    }
                }
            }
            let Some((last, _)) = page.last() else { break };
            from = [last.as_slice(), &[0]].concat();
        }
        let routes = Arc::new(routes);
        lock(&self.heard).written = Arc::clone(&routes);
        *write(&self.shown) = routes;
        Ok(())
    }

    /// What is known now.
    #[must_use]
    pub fn shown(&self) -> Arc<Routes> {
        Arc::clone(&read(&self.shown))
    }

    /// A name server tells all it knows. `may_lack`: it may not have heard of everybody yet.
    pub fn told(&self, name_server: &str, mut routes: Routes, may_lack: bool) {
        let mut heard = lock(&self.heard);
        if may_lack {
            add(&mut routes, &self.shown());
        }
        heard.views.insert(name_server.to_owned(), routes);
        self.show(&heard);
    }

    /// A name server does not answer.
    pub fn silent(&self, name_server: &str) {
        let mut heard = lock(&self.heard);
        if heard.views.remove(name_server).is_some() {
            self.show(&heard);
        }
    }

    /// Shows what all that answer say together; when none does, what was shown stays.
    fn show(&self, heard: &Heard) {
        let mut views = heard.views.values();
        let Some(first) = views.next() else { return };
        let mut routes = first.clone();
        views.for_each(|view| add(&mut routes, view));
        if routes != *self.shown() {
            *write(&self.shown) = Arc::new(routes);
        }
    }

    /// Puts into the table what has changed. Nobody waits for it.
    ///
    /// # Errors
    /// Why the log does not take it now; it is tried again with the next change, and whenever this is called.
    pub fn write(&self, engine: &Engine) -> Result<(), AppendError> {
        let mut heard = lock(&self.heard);
        let shown = self.shown();
        if Arc::ptr_eq(&shown, &heard.written) {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        let gone = heard.written.keys().filter(|topic| !shown.contains_key(*topic)).map(|topic| (topic, None));
        let there = shown.iter().map(|(topic, neighbours)| (topic, Some(neighbours)));
        for (topic, neighbours) in gone.chain(there.filter(|(topic, now)| heard.written.get(*topic) != *now)) {
            let key = entry::encode_key(topic);
            let changed = match neighbours {
                Some(neighbours) => {
                    let value = entry::encode(neighbours);
                    batch.put(&Put { key: &key, value: &value, target: None })
                }
                None => batch.delete(&key),
            };
            if let Err(error) = changed {
                tracing::warn!(topic = &**topic, %error, "this topic's route will not be known after a restart");
            }
            if batch.frame_bytes() >= limits::STATE_BATCH_BYTES {
                drop(engine.append(std::mem::take(&mut batch))?);
            }
        }
        if !batch.is_empty() {
            drop(engine.append(batch)?);
        }
        heard.written = shown;
        Ok(())
    }
}

/// Adds what is not there: brokers to topics, and topics.
fn add(routes: &mut Routes, more: &Routes) {
    for (topic, neighbours) in more {
        let known = routes.entry(topic.clone()).or_default();
        for neighbour in neighbours {
            if let Err(place) = known.binary_search_by(|other| other.broker.cmp(&neighbour.broker)) {
                known.insert(place, neighbour.clone());
            }
        }
    }
}
