//! From the leader's append to the follower's ack.

use std::time::Duration;

use anchorlog_engine::Lsn;
use anchorlog_replicator::NotAdmitted;

use crate::pair::{Pair, TWO_COPIES, append, body, bytes_from, config, payloads};

#[test]
fn what_is_acknowledged_is_durable_on_both_and_the_logs_are_the_same_bytes() {
    let mut pair = Pair::new(config(TWO_COPIES));
    assert_eq!(pair.leader.admission(), Err(NotAdmitted::Missing { in_sync: 0, copies: 2 }), "nobody follows yet");
    pair.settle();
    assert_eq!(pair.leader.admission(), Ok(()), "{:?}", pair.leader.status(pair.now()));
    for number in 0..60 {
        let len = 100 + usize::try_from(number % 7).unwrap() * 900;
        let end = append(&pair.a.engine, "orders", &body(number, len));
        assert!(pair.a.engine.watermarks().acked < end);
        pair.settle();
        assert!(pair.a.engine.watermarks().acked >= end, "{:?}", pair.leader.status(pair.now()));
        assert!(pair.b.engine.watermarks().durable >= end);
    }
    pair.pass(Duration::from_millis(600));
    assert_eq!(bytes_from(&pair.b.engine, Lsn::ZERO), bytes_from(&pair.a.engine, Lsn::ZERO));
    assert_eq!(payloads(&pair.b.engine, "orders"), payloads(&pair.a.engine, "orders"));
    assert_eq!(payloads(&pair.b.engine, "orders").len(), 60);
}
