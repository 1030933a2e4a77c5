//! What is no frame, no request, or no request that is offered.

use anchorlog::Driver;
use serde_json::json;

use crate::over_every_driver;
use crate::peer::frame;
use crate::stage::Stage;

over_every_driver! {
    c15_a_binary_header_is_answered_in_kind,
    c16_bytes_that_are_no_frame_close_their_connection_only,
    c17_an_unknown_code_is_said_to_be_unknown,
    frames_may_be_torn_and_coalesced_anywhere,
}

fn c15_a_binary_header_is_answered_in_kind(driver: Driver) {
    use std::io::Read;
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"x", "").expect(0);
    let request =
        "0000002601000022006900 01df0000000700000000000000000000000d0005746f706963000000025431".replace(' ', "");
    let request: Vec<u8> =
        (0..request.len()).step_by(2).map(|at| u8::from_str_radix(&request[at..at + 2], 16).expect("hex")).collect();
    peer.raw(&request);
    let mut prefix = [0; 8];
    peer.stream.read_exact(&mut prefix).expect("an answer");
    let length = u32::from_be_bytes(prefix[..4].try_into().expect("four bytes")) as usize;
    assert_eq!(prefix[4], 1, "in the encoding of its request");
    let mut rest = vec![0; length - 4];
    peer.stream.read_exact(&mut rest).expect("all of it");
    // Code, language, version, opaque, flag.
    assert_eq!(rest[..13], [0, 0, 0, 0x01, 0xDF, 0, 0, 0, 7, 0, 0, 0, 1]);
    let header_length = (u32::from_be_bytes(prefix[4..].try_into().expect("four bytes")) & 0xFF_FFFF) as usize;
    let route: serde_json::Value = serde_json::from_slice(&rest[header_length..]).expect("a route");
    assert_eq!(route["queueDatas"][0]["perm"], 6);
}

fn c16_bytes_that_are_no_frame_close_their_connection_only(driver: Driver) {
    let stage = Stage::new(driver);
    let mut witness = stage.peer();
    let bad: [&[u8]; 6] = [
        &[2, 0, 0, 0],
        &[0, 0, 0, 9, 0, 0, 0, 200, 1, 2, 3, 4, 5],
        &[0, 0, 0, 9, 7, 0, 0, 5, 1, 2, 3, 4, 5],
        &[0xFF; 64],
        b"GET / HTTP/1.1\r\n\r\n",
        &frame(b"{\"code\":", b""),
    ];
    for bytes in bad {
        let mut peer = stage.peer();
        // What came before it is answered.
        peer.ask(105, &json!({"topic": "TBW102"}), &[]).expect(0);
        peer.raw(bytes);
        assert!(peer.sees_close(), "{bytes:?}");
        witness.ask(105, &json!({"topic": "TBW102"}), &[]).expect(0);
    }
    assert_eq!(stage.broker.counts().bad_frames, 6);
}

fn c17_an_unknown_code_is_said_to_be_unknown(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let answer = peer.ask(9999, &json!({}), &[]).expect(3);
    assert!(answer.remark().contains("9999"));
    peer.send_oneway(9999, &json!({}), &[]);
    // An answer to nothing that was asked is not answered.
    let (bytes, _) = peer.request(0, &json!({}), &[], 1);
    peer.raw(&bytes);
    assert!(peer.anything(std::time::Duration::from_millis(200)).is_none());
}

fn frames_may_be_torn_and_coalesced_anywhere(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let mut stream = Vec::new();
    let mut opaques = Vec::new();
    for i in 0..20u8 {
        let fields = crate::peer::send_fields("T1", 0, "");
        let (bytes, opaque) = peer.request(310, &fields, &[b'a' + i], 0);
        stream.extend(bytes);
        opaques.push(opaque);
    }
    let (head, tail) = stream.split_at(stream.len() / 3);
    for piece in head.chunks(7) {
        peer.raw(piece);
    }
    peer.raw(tail);
    for (opaque, offset) in opaques.into_iter().zip(0..) {
        assert_eq!(peer.answer(opaque).expect(0).number("queueOffset"), offset);
    }
    let records = peer.pull("g", "T1", 0, 0).expect(0).records();
    assert!(records.iter().zip(b'a'..).all(|(record, body)| record.body == [body]));
}
