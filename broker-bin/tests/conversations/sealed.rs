//! TLS on the clients' port: beside plain connections or alone, with and without certificates of clients, renewed while it runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anchorlog::commands::{CommandError, Remote, TlsArgs};
use anchorlog::net::TlsOptions;
use anchorlog::{BrokerOptions, Driver};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::doors::{eventually, pause, write};
use crate::over_every_driver;
use crate::peer::{Peer, frame};
use crate::stage::Stage;

over_every_driver! {
    one_port_serves_both_and_large_messages_come_through_whole,
    who_speaks_no_tls_is_turned_away_where_it_must_and_who_does_where_it_cannot,
    a_client_without_a_certificate_of_the_right_authority_is_turned_away,
    a_certificate_is_renewed_without_a_restart,
    what_begins_like_tls_and_is_none_ends_its_connection_alone,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A directory with certificates.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(crate::stage::store())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `<name>.pem` and `<name>.key`, of this authority, and the authority's own as `<name>.ca`.
    fn issue(&self, name: &str, authority: &Authority) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, authority).expect("signed");
        // In two steps: what does not fit together in between is not taken over.
        write(&self.path(&format!("{name}.ca")), &authority.pem());
        write(&self.path(&format!("{name}.key")), &key.serialize_pem());
        write(&self.path(&format!("{name}.pem")), &certificate.pem());
    }

    fn options(&self, client_authorities: Option<&Path>, only: bool) -> TlsOptions {
        TlsOptions {
            certificate: self.path("broker.pem"),
            key: self.path("broker.key"),
            client_authorities: client_authorities.map(Path::to_owned),
            only,
        }
    }

    fn believing(&self, name: &str) -> TlsArgs {
        TlsArgs { tls_ca: Some(self.path(&format!("{name}.ca"))), ..TlsArgs::default() }
    }
}

fn stage(driver: Driver, tls: TlsOptions) -> Stage {
    Stage::with(driver, |options| BrokerOptions { tls: Some(tls), ..options })
}

fn connect(stage: &Stage, tls: &TlsArgs) -> Result<Remote, CommandError> {
    Remote::connect_by(&stage.broker.address().to_string().parse().expect("an address"), tls)
}

/// Sends a message and reads it back.
fn round_trip(remote: &mut Remote, body: &[u8], place: usize) -> Result<(), CommandError> {
    let send = [("a", "p"), ("b", "T1"), ("c", "TBW102"), ("d", "4"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0")];
    remote.ask(310, &[&send[..], &[("i", ""), ("j", "0")]].concat(), body)?.done()?;
    assert!(pull(remote, place)? == body, "as it was sent");
    Ok(())
}

/// Waits for the message at a place.
fn pull(remote: &mut Remote, place: usize) -> Result<Vec<u8>, CommandError> {
    let place = place.to_string();
    let pull = [
        ("consumerGroup", "g"),
        ("topic", "T1"),
        ("queueId", "0"),
        ("queueOffset", &*place),
        ("maxMsgNums", "1"),
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "5000"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    let answer = remote.ask(11, &pull, b"")?.done()?;
    let mut records = anchorlog::wire::message::records(&answer.body);
    Ok(records.next().expect("a record").expect("whole").body.to_vec())
}

fn one_port_serves_both_and_large_messages_come_through_whole(driver: Driver) {
    let files = Files::new();
    files.issue("broker", &authority());
    let stage = stage(driver, files.options(None, false));
    let mut sealed = connect(&stage, &files.believing("broker")).expect("it listens");
    let bytes: Vec<u8> = (0..900u32 << 10).map(|place| place.to_le_bytes()[place as usize % 3]).collect();
    for (place, length) in [1, 16 << 10, (16 << 10) + 1, 900 << 10].into_iter().enumerate() {
        round_trip(&mut sealed, &bytes[..length], place).expect("through TLS");
    }
    let mut plain = stage.peer();
    assert_eq!(plain.pull("g", "T1", 0, 0).expect(0).records()[0].body, bytes[..1]);
    // Many answers at once wait for a reader that is slower than they come.
    let asks: Vec<_> = (0..200).map(|_| anchorlog::commands::Query::new(21)).collect();
    assert_eq!(sealed.put_all(asks).expect("answers").len(), 200);
    // A held pull is answered when something comes.
    let address = stage.broker.address();
    let sender = std::thread::spawn(move || {
        pause();
        Peer::connect(address).send_message("T1", 0, b"late", "").code()
    });
    assert!(pull(&mut sealed, 4).expect("through TLS") == b"late");
    assert_eq!(sender.join().expect("no panic"), 0);
    stage.broker.stop().expect("a clean stop");
}

fn who_speaks_no_tls_is_turned_away_where_it_must_and_who_does_where_it_cannot(driver: Driver) {
    let files = Files::new();
    files.issue("broker", &authority());
    let guarded = stage(driver, files.options(None, true));
    let mut plain = guarded.peer();
    plain.raw(&frame(br#"{"code":105,"opaque":1}"#, b""));
    assert!(plain.sees_close());
    round_trip(&mut connect(&guarded, &files.believing("broker")).expect("it listens"), b"x", 0).expect("through TLS");
    assert_eq!(guarded.broker.counts().connections_turned_away, 1);
    let open = Stage::new(driver);
    let error = connect(&open, &files.believing("broker")).and_then(|mut remote| round_trip(&mut remote, b"x", 0));
    assert!(matches!(error, Err(CommandError::NoAnswer { .. })), "{error:?}");
    assert_eq!(open.peer().send_message("T1", 0, b"x", "").code(), 0);
    assert_eq!(open.broker.counts().connections_turned_away, 1);
}

fn a_client_without_a_certificate_of_the_right_authority_is_turned_away(driver: Driver) {
    let files = Files::new();
    let (ours, theirs) = (authority(), authority());
    files.issue("broker", &authority());
    files.issue("friend", &ours);
    files.issue("stranger", &theirs);
    let stage = stage(driver, files.options(Some(&files.path("friend.ca")), true));
    let shows = |name: &str| TlsArgs {
        tls_cert: Some(files.path(&format!("{name}.pem"))),
        tls_key: Some(files.path(&format!("{name}.key"))),
        ..files.believing("broker")
    };
    for tls in [files.believing("broker"), shows("stranger")] {
        let outcome = connect(&stage, &tls).and_then(|mut remote| round_trip(&mut remote, b"x", 0));
        assert!(matches!(outcome, Err(CommandError::NoAnswer { .. })), "{outcome:?}");
    }
    round_trip(&mut connect(&stage, &shows("friend")).expect("it listens"), b"x", 0).expect("a friend");
}

fn a_certificate_is_renewed_without_a_restart(driver: Driver) {
    let files = Files::new();
    files.issue("broker", &authority());
    let stage = stage(driver, files.options(None, true));
    let before = files.believing("broker");
    let mut old = connect(&stage, &before).expect("it listens");
    round_trip(&mut old, b"x", 0).expect("through TLS");
    write(&files.path("broker.key"), "no key");
    eventually("it is noticed", || stage.broker.counts().certificates_refused > 0);
    round_trip(&mut connect(&stage, &before).expect("it listens"), b"x", 1).expect("the old one holds");
    let kept = files.path("kept.ca");
    write(&kept, &std::fs::read_to_string(files.path("broker.ca")).expect("readable"));
    files.issue("broker", &authority());
    eventually("it is taken over", || stage.broker.counts().certificates_reloaded > 0);
    round_trip(&mut connect(&stage, &files.believing("broker")).expect("it listens"), b"x", 2).expect("the new one");
    let outdated = TlsArgs { tls_ca: Some(kept), ..TlsArgs::default() };
    let outcome = connect(&stage, &outdated).and_then(|mut remote| round_trip(&mut remote, b"x", 3));
    assert!(outcome.is_err(), "who believes the old authority alone does not believe this");
    round_trip(&mut old, b"x", 3).expect("a connection that was there goes on");
}

fn what_begins_like_tls_and_is_none_ends_its_connection_alone(driver: Driver) {
    let files = Files::new();
    files.issue("broker", &authority());
    let stage = stage(driver, files.options(None, false));
    for garbage in [&b"\x16\x03\x01\xFF\xFFgarbage"[..], b"\x16", &[0x16; 3000]] {
        let mut peer = stage.peer();
        peer.raw(garbage);
        if garbage.len() > 1 {
            // Some of it may still be a record that is not whole: more of it is not.
            peer.stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a time-out");
            let _any = std::io::Write::write_all(&mut peer.stream, &[0xFF; 70_000]);
            assert!(peer.sees_close(), "{garbage:?}");
        }
    }
    round_trip(&mut connect(&stage, &files.believing("broker")).expect("it listens"), b"x", 0).expect("through TLS");
    assert_eq!(stage.peer().send_message("T1", 0, b"x", "").code(), 0);
}
