//! Two brokers as processes, each with a store, and a proxy before the port where the other one's replica connects.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::{Client, Told, read_all};
use crate::load::{Load, Sent};
use crate::proxy::Proxy;

/// Longest that anything may take to come back by itself.
pub(crate) const BACK: Duration = Duration::from_secs(10);
const STARTED: Duration = Duration::from_secs(20);
const SEGMENT: &str = "1MiB";

/// A place that a process may listen at, now and when it is started again: below the ports that systems give to outgoing connections, and
/// never the same one twice.
fn free() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::SeqCst));
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + u16::try_from(number % 20_000).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

pub(crate) struct Pair {
    home: TempDir,
    clients: [SocketAddr; 2],
    replicas: [SocketAddr; 2],
    pub(crate) proxies: [Proxy; 2],
    children: [Option<Child>; 2],
}

impl Pair {
    /// Both run, and something is acknowledged.
    pub(crate) fn started() -> Pair {
        let replicas = [free(), free()];
        let mut pair = Pair {
            home: tempfile::tempdir().unwrap(),
            clients: [free(), free()],
            replicas,
            proxies: replicas.map(Proxy::new),
            children: [None, None],
        };
        pair.start(0);
        pair.start(1);
        pair.send_until(0, "the first");
        pair
    }

    pub(crate) fn store(&self, at: usize) -> PathBuf {
        self.home.path().join(["a", "b"][at])
    }

    pub(crate) fn leader(&self) -> SocketAddr {
        self.clients[0]
    }

    /// Starts a broker: a leads unless somebody else was promoted since.
    pub(crate) fn start(&mut self, at: usize) {
        let said = self.home.path().join(format!("{}.log", ["a", "b"][at]));
        let said = std::fs::OpenOptions::new().create(true).append(true).open(said).unwrap();
        let member = |at: usize| format!("{}={}+{}", ["a", "b"][at], self.clients[at], self.proxies[at].address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_anchorlog"));
        command
            .args(["broker", "--backend", "threads", "--segment-bytes", SEGMENT, "--role", ["leader", "slave"][at]])
            .args(["--replica-id", ["a", "b"][at], "--listen", &self.clients[at].to_string()])
            .args(["--replica-listen", &self.replicas[at].to_string()])
            .args(["--replicas", &format!("{},{}", member(0), member(1))])
            .arg("--store")
            .arg(self.store(at))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        self.children[at] = Some(command.spawn().unwrap());
    }

    pub(crate) fn signal(&self, at: usize, signal: Signal) {
        let id = i32::try_from(self.children[at].as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, at: usize) {
        let mut child = self.children[at].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The longest that files of a broker may become: the bound that can be raised again.
    pub(crate) fn limit_files(&self, at: usize, bytes: &str) {
        let id = self.children[at].as_ref().unwrap().id().to_string();
        let status = Command::new("prlimit").args(["--pid", &id, &format!("--fsize={bytes}:")]).status();
        assert!(status.expect("prlimit of util-linux is there").success());
    }

    /// Where its replicas reach a broker.
    pub(crate) fn replica(&self, at: usize) -> String {
        self.replicas[at].to_string()
    }

    /// `anchorlog log`, on the store of a broker that does not run.
    pub(crate) fn log_tool(&self, at: usize, words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anchorlog"));
        command.arg("log").arg(words[0]).arg("--store").arg(self.store(at)).args(&words[1..]);
        let outcome = command.stdin(Stdio::null()).output().unwrap();
        (outcome.status.code(), String::from_utf8([outcome.stdout, outcome.stderr].concat()).unwrap())
    }

    pub(crate) fn said(&self, at: usize) -> String {
        std::fs::read_to_string(self.home.path().join(format!("{}.log", ["a", "b"][at]))).unwrap()
    }

    /// Sends until it is acknowledged; how long that took.
    #[track_caller]
    fn send_until(&self, at: usize, body: &str) -> Duration {
        let begun = Instant::now();
        let mut last = Told::Gone;
        while begun.elapsed() < STARTED {
            if let Ok(mut client) = Client::connect(self.clients[at]) {
                last = client.send(0, body.as_bytes());
                if last == Told::Code(0) {
                    return begun.elapsed();
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not acknowledged: {last:?}\na says\n{}\nb says\n{}", self.said(0), self.said(1));
    }

    /// What is on the slave alone, once leader and leader's disk are gone; and how long it took until it led and was in sync with a new
    /// slave.
    fn survives(&mut self) -> BTreeMap<String, usize> {
        self.kill(0);
        let at = self.replicas[1].to_string();
        let promoted = Command::new(env!("CARGO_BIN_EXE_anchorlog")).args(["promote", "--at", &at]).output().unwrap();
        let words = String::from_utf8([promoted.stdout, promoted.stderr].concat()).unwrap();
        assert!(promoted.status.success(), "{words}\nb says\n{}", self.said(1));
        std::fs::remove_dir_all(self.store(0)).unwrap();
        self.start(0);
        // What was acknowledged last shows when it is acknowledged again.
        self.send_until(1, "the last");
        let mut all = read_all(self.clients[1]).unwrap();
        let begun = Instant::now();
        while read_all(self.clients[0]).ok().as_ref() != Some(&all) {
            assert!(begun.elapsed() < STARTED, "leader and slave show different things");
            std::thread::sleep(Duration::from_millis(50));
            all = read_all(self.clients[1]).unwrap();
        }
        all
    }

    /// The judgement. `is_leader_killed`: then some requests have no answer because nobody is there.
    pub(crate) fn judge(mut self, load: Load, is_leader_killed: bool) {
        let sent: Vec<Sent> = load.end();
        let with = |code: i64| sent.iter().filter(move |sent| sent.told == Told::Code(code));
        let gone = sent.iter().filter(|sent| sent.told == Told::Gone).count();
        let slowest = sent.iter().max_by_key(|sent| sent.took).unwrap();
        println!(
            "{} sent: {} acknowledged, {} refused, {} stored and unconfirmed, {gone} without a broker; slowest answer {:?}",
            sent.len(),
            with(0).count(),
            with(14).count(),
            with(10).count() + with(12).count(),
            slowest.took,
        );
        assert!(sent.iter().all(|sent| sent.told != Told::Nothing), "no answer within a client's time: {slowest:?}");
        assert!(is_leader_killed || gone == 0, "the leader did not go on: {}", self.said(0));
        let known = |sent: &&Sent| matches!(sent.told, Told::Gone | Told::Code(0 | 10 | 12 | 14));
        assert!(sent.iter().all(|sent| known(&sent)), "{:?}", sent.iter().find(|sent| !known(sent)));
        let all = self.survives();
        for sent in with(0) {
            assert_eq!(
                all.get(&sent.body),
                Some(&1),
                "acknowledged, and not there once: {}",
                &sent.body[..12.min(sent.body.len())]
            );
        }
        for sent in with(14) {
            assert_eq!(all.get(&sent.body), None, "refused before it was stored, and there");
        }
        assert!(with(0).count() > 100, "hardly anything was acknowledged");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for mut child in self.children.iter_mut().filter_map(Option::take) {
            // A stopped process is killed all the same.
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
