//! Full buffers: the log's, and those of clients that do not read.

use std::time::Duration;

use anchorlog::Driver;
use serde_json::json;

use crate::over_every_driver;
use crate::peer::{Peer, pull_fields, send_fields};
use crate::stage::Stage;

over_every_driver! {
    more_than_the_log_buffer_holds_is_taken_in_order,
    a_reader_that_does_not_read_delays_nobody,
    many_connections_send_at_once,
}

fn more_than_the_log_buffer_holds_is_taken_in_order(driver: Driver) {
    let stage = Stage::new(driver);
    let peer = stage.peer();
    let mut writer = Peer::connect(stage.broker.address());
    drop(peer);
    // Sixteen times the log buffer, without waiting for answers.
    let body = vec![b'x'; 64 << 10];
    let requests: Vec<_> = (0..256).map(|_| writer.request(310, &send_fields("T1", 0, ""), &body, 0)).collect();
    let opaques: Vec<_> = requests.iter().map(|(_, opaque)| *opaque).collect();
    let mut stream = writer.stream.try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        for (bytes, _) in requests {
            stream.write_all(&bytes).expect("the broker reads on");
        }
    });
    for (opaque, offset) in opaques.into_iter().zip(0..) {
        assert_eq!(writer.answer(opaque).expect(0).number("queueOffset"), offset);
    }
    sending.join().expect("no panic");
}

fn a_reader_that_does_not_read_delays_nobody(driver: Driver) {
    let stage = Stage::new(driver);
    let mut producer = stage.peer();
    for _ in 0..8 {
        producer.send_message("T1", 0, &vec![b'x'; 30 << 10], "").expect(0);
    }
    let mut deaf = stage.peer();
    // 240 KiB each, and it reads none of them.
    let pulls: Vec<_> = (0..400).map(|_| deaf.request(11, &pull_fields("g", "T1", 0, 0, 4, "*"), &[], 0)).collect();
    let opaques: Vec<_> = pulls.iter().map(|(_, opaque)| *opaque).collect();
    let mut stream = deaf.stream.try_clone().expect("a second handle");
    let asking = std::thread::spawn(move || {
        use std::io::Write;
        for (bytes, _) in pulls {
            stream.write_all(&bytes).expect("the broker reads on");
        }
    });
    for _ in 0..50 {
        producer.send_message("T1", 1, b"y", "").expect(0);
    }
    let pulled = stage.broker.counts().messages_pulled;
    assert!(pulled < 400 * 8, "{pulled} messages lie in memory for somebody who does not read");
    // It was not forgotten: everything comes when it reads.
    for opaque in opaques {
        assert_eq!(deaf.answer(opaque).expect(0).records().len(), 8);
    }
    asking.join().expect("no panic");
    assert_eq!(stage.broker.counts().slow_readers, 0);
}

fn many_connections_send_at_once(driver: Driver) {
    let stage = Stage::new(driver);
    stage.peer().send_message("T1", 0, b"x", "").expect(0);
    let address = stage.broker.address();
    let threads: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                let mut peer = Peer::connect(address);
                let opaques: Vec<_> = (0..200).map(|_| peer.send(310, &send_fields("T1", 1, ""), b"x")).collect();
                let offsets: Vec<_> =
                    opaques.into_iter().map(|opaque| peer.answer(opaque).expect(0).number("queueOffset")).collect();
                assert!(offsets.is_sorted(), "one connection's sends keep their order");
                offsets
            })
        })
        .collect();
    let mut offsets: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..3200).collect::<Vec<_>>());
    let asked = json!({"topic": "T1", "queueId": "1"});
    assert_eq!(stage.peer().ask(30, &asked, &[]).expect(0).number("offset"), 3200);
    assert!(stage.peer().anything(Duration::from_millis(1)).is_none());
}
