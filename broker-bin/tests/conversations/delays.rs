//! Delays over a real socket and a real clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anchorlog::Driver;

use crate::over_every_driver;
use crate::peer::{Peer, Record, pull_fields};
use crate::stage::Stage;

over_every_driver! {
    a_delayed_message_wakes_the_pull_that_waits_for_it,
    what_is_pending_survives_a_restart,
}

#[expect(clippy::disallowed_methods, reason = "a message asks for a time of the real clock")]
fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("small")
}

/// Waits for the queue's next message.
pub(crate) fn wait_for(peer: &mut Peer, topic: &str, queue: i64, offset: i64) -> Record {
    let fields = pull_fields("g", topic, queue, offset, 2 + 4, "*");
    peer.ask(11, &fields, &[]).expect(0).records().remove(0)
}

/// K-85 aside, the promise is 100 ms; a machine that builds meanwhile may need more, never less than the delay.
fn a_delayed_message_wakes_the_pull_that_waits_for_it(driver: Driver) {
    let stage = Stage::new(driver);
    let (mut producer, mut consumer) = (stage.peer(), stage.peer());
    producer.send_message("T1", 0, b"first", "").expect(0);
    let at_ms = now_ms() + 700;
    producer.send_message("T1", 0, b"timed", &format!("TIMER_DELIVER_MS\u{1}{at_ms}\u{2}TAGS\u{1}A\u{2}")).expect(0);
    let sent_ms = now_ms();
    producer.send_message("T1", 1, b"level", "DELAY\u{1}1\u{2}").expect(0);
    let timed = wait_for(&mut consumer, "T1", 0, 1);
    assert!(now_ms() >= at_ms);
    assert_eq!((&*timed.body, timed.property("TAGS"), timed.queue_offset), (&b"timed"[..], Some("A"), 1));
    assert_eq!(timed.property("TIMER_DELIVER_MS"), Some(&*at_ms.to_string()));
    let level = wait_for(&mut consumer, "T1", 1, 0);
    assert!(now_ms() >= sent_ms + 1000);
    assert_eq!((level.property("DELAY"), level.property("REAL_TOPIC")), (Some("1"), Some("T1")));
    assert_eq!((level.property("REAL_QID"), stage.broker.counts().messages_delivered), (Some("1"), 2));
}

fn what_is_pending_survives_a_restart(driver: Driver) {
    let mut stage = Stage::new(driver);
    let at_ms = now_ms() + 1200;
    let mut peer = stage.peer();
    for body in [b"a", b"b"] {
        peer.send_message("T1", 0, body, &format!("TIMER_DELIVER_MS\u{1}{at_ms}\u{2}")).expect(0);
    }
    for _ in 0..2 {
        stage = stage.restart(driver);
        stage.peer().pull("g", "T1", 0, 0).expect(19);
    }
    let mut peer = stage.peer();
    assert_eq!(wait_for(&mut peer, "T1", 0, 0).body, b"a");
    assert_eq!(wait_for(&mut peer, "T1", 0, 1).body, b"b");
    stage = stage.restart(driver);
    assert!(stage.peer().anything(Duration::from_millis(100)).is_none());
    assert_eq!(stage.peer().pull("g", "T1", 0, 0).expect(0).records().len(), 2, "each once");
}
