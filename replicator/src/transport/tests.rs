use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anchorlog_engine::{Clock, SystemClock};

use super::channel::{Channel, ChannelError};
use super::conversation::Conversation;
use super::drive::{DriveError, drive};
use super::listener::{ListenError, Listener};
use super::*;
use crate::link::{End, Link, LinkError, Piece};
use crate::message::{Message, Promote};

fn key(text: &str) -> Security {
    Security::Key(SharedKey::new(text.as_bytes()).unwrap())
}

/// Certificates of one authority: for the host that tests talk to, and for another one.
fn certificates(host: &str, authority: &rcgen::CertifiedIssuer<'_, rcgen::KeyPair>) -> Certificates {
    let own = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    let certificate = params.signed_by(&own, authority).unwrap();
    let (chain, key) = (certificate.pem(), own.serialize_pem());
    Certificates::from_pem(chain.as_bytes(), key.as_bytes(), authority.pem().as_bytes()).unwrap()
}

fn authority() -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// Sends what it was given, and ends when it has heard as much as it was told to wait for.
struct Chatter {
    unsent: VecDeque<Vec<u8>>,
    heard: Vec<u8>,
    wanted: usize,
    end: Option<End>,
}

impl Chatter {
    fn new(says: &[u8], piece_bytes: usize, wanted: usize) -> Mutex<Chatter> {
        let unsent = says.chunks(piece_bytes).map(<[u8]>::to_vec).collect();
        Mutex::new(Chatter { unsent, heard: Vec::new(), wanted, end: None })
    }
}

impl Link for Chatter {
    fn receive(&mut self, bytes: &[u8], _now: Duration) -> Result<(), LinkError> {
        self.heard.extend_from_slice(bytes);
        if self.heard.len() == self.wanted {
            self.end = Some(End::Done);
        }
        Ok(())
    }

    fn send(&mut self, _now: Duration, _bytes_max: usize) -> Result<Vec<Piece>, LinkError> {
        Ok(self.unsent.pop_front().map(Piece::from).into_iter().collect())
    }

    fn next_due(&self) -> Duration {
        Duration::MAX
    }

    fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }
}

fn pattern(length: usize, step: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * step % 251).unwrap()).collect()
}

/// Both ends of a connection, or why there is none.
fn pair(
    accepting: Security,
    connecting: &Security,
    host: &str,
) -> (Result<Channel, ChannelError>, Result<Channel, ChannelError>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("{host}:{}", listener.local_addr().unwrap().port());
    let accepted = std::thread::spawn(move || Channel::accept(listener.accept().unwrap().0, &accepting, &*clock()));
    let connected = Channel::connect(&address, connecting, &*clock());
    (accepted.join().unwrap(), connected)
}

fn talk(security: &Security) {
    let (accepted, connected) = pair(security.clone(), security, "127.0.0.1");
    // Pieces longer than a record, and much in both directions at once.
    let (here, there) = (pattern(3_000_000, 7), pattern(1_234_567, 3));
    let (left, right) = (Chatter::new(&here, 700_000, there.len()), Chatter::new(&there, 999, here.len()));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| drive(accepted.unwrap(), &left, &[], &[], &*clock()).unwrap());
        assert_eq!(drive(connected.unwrap(), &right, &[], &[], &*clock()).unwrap(), End::Done);
        assert_eq!(other.join().unwrap(), End::Done);
    });
    assert!(left.into_inner().unwrap().heard == there);
    assert!(right.into_inner().unwrap().heard == here);
}

#[test]
fn links_talk_both_ways_over_every_protection() {
    talk(&Security::Open);
    talk(&key("sixteen bytes of key"));
    talk(&Security::Tls(certificates("127.0.0.1", &authority())));
}

#[test]
fn a_wrong_key_is_refused_by_both_ends() {
    let (accepted, connected) = pair(key("sixteen bytes of key"), &key("another sixteen bytes"), "127.0.0.1");
    assert!(matches!(accepted.unwrap_err(), ChannelError::Auth(auth::AuthError::WrongKey)));
    assert!(matches!(connected.unwrap_err(), ChannelError::Ended(why) if why.contains("keys may differ")));
}

#[test]
fn protections_that_differ_are_named() {
    for other in [Security::Open, Security::Tls(certificates("127.0.0.1", &authority()))] {
        let (accepted, connected) = pair(key("sixteen bytes of key"), &other, "127.0.0.1");
        assert!(accepted.unwrap_err().to_string().contains("this one by a shared key"));
        assert!(connected.unwrap_err().to_string().contains("protected by a shared key"));
    }
}

#[test]
fn certificates_of_another_authority_or_for_another_host_are_refused() {
    let ours = authority();
    let good = Security::Tls(certificates("127.0.0.1", &ours));
    let (accepted, connected) =
        pair(good.clone(), &Security::Tls(certificates("127.0.0.1", &authority())), "127.0.0.1");
    assert!(accepted.is_err() && connected.is_err());
    let (_, connected) = pair(Security::Tls(certificates("elsewhere", &ours)), &good, "127.0.0.1");
    assert!(connected.unwrap_err().to_string().contains("certificate"));
    let named = |security| certificates("cluster", security).with_name("cluster").unwrap();
    let (accepted, connected) = pair(Security::Tls(named(&ours)), &Security::Tls(named(&ours)), "localhost");
    assert!(accepted.is_ok() && connected.is_ok());
}

#[test]
fn a_tampered_record_ends_the_connection_before_the_link_sees_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Between the two, somebody changes the last byte of what is long enough to be a record.
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let way_in = between.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (near, far) = (between.accept().unwrap().0, TcpStream::connect(address).unwrap());
        let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ended = std::io::copy(&mut back_from, &mut back_to).is_err();
            back_to.shutdown(std::net::Shutdown::Both).unwrap();
        });
        let (mut near, mut far) = (near, far);
        let mut bytes = vec![0; 4096];
        while let Ok(length @ 1..) = near.read(&mut bytes) {
            if length > 100 {
                bytes[length - 1] ^= 1;
            }
            if far.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
    });
    let accepted = std::thread::spawn(move || {
        Channel::accept(listener.accept().unwrap().0, &key("sixteen bytes of key"), &*clock())
    });
    let connected = Channel::connect(&way_in, &key("sixteen bytes of key"), &*clock()).unwrap();
    let (left, right) = (Chatter::new(&[], 1, 1000), Chatter::new(&pattern(1000, 1), 1000, 1));
    let accepted = accepted.join().unwrap().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| drive(connected, &right, &[], &[], &*clock()));
        let error = drive(accepted, &left, &[], &[], &*clock()).unwrap_err();
        assert!(matches!(error, DriveError::Channel(ChannelError::Auth(auth::AuthError::WrongCode))), "{error}");
        other.join().unwrap().unwrap_err();
    });
    assert!(left.into_inner().unwrap().heard.is_empty());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody in between is slow")]
fn what_comes_together_with_the_last_of_a_handshake_is_heard() {
    use std::io::{Read, Write};
    for security in [key("sixteen bytes of key"), Security::Tls(certificates("127.0.0.1", &authority()))] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let between = TcpListener::bind("127.0.0.1:0").unwrap();
        let way_in = between.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut near, mut far) = (between.accept().unwrap().0, TcpStream::connect(address).unwrap());
            let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
            let mut bytes = vec![0; 64 << 10];
            loop {
                // What is sent within a while goes on as one.
                std::thread::sleep(Duration::from_millis(100));
                match near.read(&mut bytes) {
                    Ok(length @ 1..) if far.write_all(&bytes[..length]).is_ok() => {}
                    _ => break,
                }
            }
        });
        let accepting = security.clone();
        let heard = std::thread::spawn(move || {
            let channel = Channel::accept(listener.accept().unwrap().0, &accepting, &*clock()).unwrap();
            Conversation::over(channel).hear(Duration::from_secs(1), &*clock()).unwrap()
        });
        let mut talk = Conversation::connect(&way_in, &security, &*clock()).unwrap();
        talk.say(&Message::AskState).unwrap();
        assert_eq!(heard.join().unwrap(), Message::AskState);
    }
}

#[test]
fn garbage_and_silence_at_the_port_disturb_nobody() {
    use std::io::{Read, Write};
    let (sent, served) = mpsc::channel();
    let serve = move |channel| {
        let mut talk = Conversation::over(channel);
        let message = talk.hear(Duration::from_secs(5), &*clock()).unwrap();
        sent.send(message).unwrap();
    };
    let mut listener = Listener::start("127.0.0.1:0", key("sixteen bytes of key"), clock(), serve).unwrap();
    let address = listener.address();
    let silent = TcpStream::connect(address).unwrap();
    let mut garbage = TcpStream::connect(address).unwrap();
    garbage.write_all(&pattern(10_000, 13)).unwrap();
    // Closed once the first bytes are looked at; the greeting is all that there is to read.
    let mut answer = Vec::new();
    let _reset = garbage.read_to_end(&mut answer).is_err();
    assert!(answer.len() <= auth::GREETING_BYTES);
    let mut talk = Conversation::connect(&address.to_string(), &key("sixteen bytes of key"), &*clock()).unwrap();
    talk.say(&Message::Promote(Promote { unsafely: false })).unwrap();
    assert_eq!(served.recv().unwrap(), Message::Promote(Promote { unsafely: false }));
    listener.stop();
    drop(silent);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

// K-48: nor do they keep anybody away.
#[test]
fn however_many_strangers_come_who_has_the_key_is_served() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let serve = move |channel| {
        let mut talk = Conversation::over(channel);
        while let Ok(message) = talk.hear(Duration::from_secs(20), &*clock()) {
            talk.say(&message).unwrap();
        }
    };
    let security = key("sixteen bytes of key");
    let mut listener = Listener::start("127.0.0.1:0", security.clone(), clock(), serve).unwrap();
    let address = listener.address();
    let connect = || Conversation::connect(&address.to_string(), &security, &*clock());
    let mut before = connect().unwrap();
    // They come and stay, and say nothing.
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in 0..3 {
        let answer = connect().unwrap().ask(&Message::AskState, Duration::from_secs(5), &*clock()).unwrap();
        assert_eq!(answer, Message::AskState);
    }
    // They come, are sent away, and come again.
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut kept: VecDeque<TcpStream> = VecDeque::new();
                while !is_over.load(Ordering::SeqCst) {
                    kept.extend(TcpStream::connect_timeout(&address, Duration::from_secs(1)));
                    kept.drain(..kept.len().saturating_sub(30));
                }
            });
        }
        let served =
            (0..200).find_map(|_| connect().ok()?.ask(&Message::AskState, Duration::from_secs(1), &*clock()).ok());
        let answer = before.ask(&Message::AskState, Duration::from_secs(5), &*clock());
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(served, Some(Message::AskState), "of many tries none succeeds");
        assert_eq!(answer.unwrap(), Message::AskState, "who was there stays");
    });
    listener.stop();
    drop(silent);
}

#[test]
fn beyond_the_loopback_interface_protection_is_required() {
    let error = Listener::start("0.0.0.0:0", Security::Open, clock(), drop).unwrap_err();
    assert!(matches!(error, ListenError::Unprotected(_)));
    let error = Channel::connect("192.0.2.1:9", &Security::Open, &*clock()).unwrap_err();
    assert!(matches!(error, ChannelError::Unprotected(_)));
    drop(Listener::start("0.0.0.0:0", key("sixteen bytes of key"), clock(), drop).unwrap());
}
