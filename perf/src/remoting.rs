//! RocketMQ's remoting protocol from the client's side: connections, and requests that are waited for.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anchorlog::wire::header::Head;
use anchorlog::wire::{Encoding, FrameRef, Header};
use bytes::BytesMut;

use crate::error::PerfError;

/// How long an answer may take.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn failed(peer: &str, what: &'static str) -> impl FnOnce(io::Error) -> PerfError {
    let peer = peer.to_owned();
    move |source| PerfError::Connection { peer, what, source }
}

pub(crate) fn connect(peer: &str) -> Result<TcpStream, PerfError> {
    let mut last = io::Error::new(ErrorKind::NotFound, "no address");
    for address in peer.to_socket_addrs().map_err(failed(peer, "looking up the address"))? {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(failed(peer, "switching delays off"))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(failed(peer, "connecting")(last))
}

/// Bytes that have arrived and are not understood yet.
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { bytes: vec![0; 128 << 10], start: 0, end: 0 }
    }

    /// Reads once. Fewer bytes than there was room for mean that no more are there.
    pub(crate) fn fill(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
        let room = self.bytes.len() - self.end;
        match stream.read(&mut self.bytes[self.end..]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the broker closed the connection")),
            Ok(read) => {
                self.end += read;
                Ok(read == room)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Gives every whole frame to `take`.
    pub(crate) fn frames(
        &mut self,
        mut take: impl FnMut(&FrameRef<'_>) -> Result<(), PerfError>,
    ) -> Result<(), PerfError> {
        loop {
            let frame = FrameRef::parse(&self.bytes[self.start..self.end]);
            let Some(frame) = frame.map_err(|error| PerfError::Broker(error.to_string()))? else { return Ok(()) };
            take(&frame)?;
            self.start += frame.total_bytes();
        }
    }
}

/// Code and number of an answer. Success is skimmed; anything else is read with care.
pub(crate) fn skim(frame: &FrameRef<'_>) -> Result<(i32, i32), PerfError> {
    let quick = match frame.encoding {
        Encoding::Json => number_behind(frame.header, b"\"code\":").zip(number_behind(frame.header, b"\"opaque\":")),
        Encoding::Binary => None,
    };
    if let Some((0, opaque)) = quick {
        return Ok((0, opaque));
    }
    let header = Header::of(frame).map_err(|error| PerfError::Broker(error.to_string()))?;
    Ok((header.code, header.opaque))
}

/// The same; nothing for what the broker asks of its own accord.
pub(crate) fn skim_answer(frame: &FrameRef<'_>) -> Result<Option<(i32, i32)>, PerfError> {
    let (code, opaque) = skim(frame)?;
    if code == 0 {
        // No request has that code.
        return Ok(Some((code, opaque)));
    }
    let header = Header::of(frame).map_err(|error| PerfError::Broker(error.to_string()))?;
    Ok(header.is_response().then_some((code, opaque)))
}

fn number_behind(text: &[u8], key: &[u8]) -> Option<i32> {
    let first = *key.get(1)?;
    let mut from = 0;
    // The first letter of a key is rare in a header; comparing whole keys only there is most of what makes this quick.
    let behind = loop {
        let at = from + text[from..].iter().position(|byte| *byte == first)?;
        if at > 0 && text[at - 1..].starts_with(key) {
            break at - 1 + key.len();
        }
        from = at + 1;
    };
    let digits = text[behind..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number: Option<i32>, digit| {
        number.unwrap_or(0).checked_mul(10)?.checked_add(i32::from(digit - b'0'))
    })
}

/// An answer that was waited for.
pub(crate) struct Answer {
    /// How it went.
    pub(crate) code: i32,
    remark: String,
    fields: BTreeMap<String, String>,
    /// What came with it.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn number(&self, field: &str) -> Result<u64, PerfError> {
        self.fields.get(field).and_then(|text| text.parse().ok()).ok_or_else(|| {
            PerfError::Broker(format!("an answer without {field} (code {}, {})", self.code, self.remark))
        })
    }

    pub(crate) fn ok(self, what: &str) -> Result<Answer, PerfError> {
        if self.code == 0 {
            Ok(self)
        } else {
            Err(PerfError::Broker(format!("{what} was answered with code {}: {}", self.code, self.remark)))
        }
    }
}

/// A connection for requests that are not measured.
pub(crate) struct Caller {
    peer: String,
    stream: TcpStream,
    inbox: Inbox,
    opaque: i32,
}

impl Caller {
    pub(crate) fn connect(peer: &str) -> Result<Caller, PerfError> {
        Caller::on(connect(peer)?, peer)
    }

    /// On a connection that is there; nobody else reads from it meanwhile.
    pub(crate) fn on(stream: TcpStream, peer: &str) -> Result<Caller, PerfError> {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed(peer, "setting a time limit"))?;
        Ok(Caller { peer: peer.to_owned(), stream, inbox: Inbox::new(), opaque: 0 })
    }

    /// Sends; answers the request's number.
    pub(crate) fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Result<i32, PerfError> {
        self.opaque += 1;
        let frame = encode(Head::request(Encoding::Json, code, self.opaque), fields, body)?;
        self.stream.write_all(&frame).map_err(failed(&self.peer, "sending"))?;
        Ok(self.opaque)
    }

    /// Waits for some answers.
    pub(crate) fn answers(&mut self) -> Result<Vec<(i32, Answer)>, PerfError> {
        let mut answers = Vec::new();
        while answers.is_empty() {
            self.inbox.fill(&mut self.stream).map_err(failed(&self.peer, "waiting for an answer"))?;
            self.inbox.frames(|frame| {
                let header = Header::of(frame).map_err(|error| PerfError::Broker(error.to_string()))?;
                if header.is_response() {
                    let fields = header.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                    let remark = header.remark().unwrap_or_default().to_owned();
                    answers
                        .push((header.opaque, Answer { code: header.code, remark, fields, body: frame.body.to_vec() }));
                }
                Ok(())
            })?;
        }
        Ok(answers)
    }

    pub(crate) fn call(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Result<Answer, PerfError> {
        let asked = self.ask(code, fields, body)?;
        loop {
            if let Some((_, answer)) = self.answers()?.into_iter().find(|(opaque, _)| *opaque == asked) {
                return Ok(answer);
            }
        }
    }
}

pub(crate) fn encode(head: Head<'_>, fields: &[(&str, &str)], body: &[u8]) -> Result<BytesMut, PerfError> {
    let mut frame = BytesMut::new();
    let mut encoder = head.encode(&mut frame);
    encoder.fields();
    for (name, value) in fields {
        encoder.field(name, value);
    }
    encoder.finish(body).map_err(|error| PerfError::Broker(error.to_string()))?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_skimmed_right() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            for (code, remark) in [(0, None), (14, Some("\"code\":0 is what it is not, \"opaque\":1 neither"))] {
                let mut frame = BytesMut::new();
                let mut encoder = Head::response(encoding, code, 1_000_000_042).with_remark(remark).encode(&mut frame);
                encoder.field("msgId", "7F00000100002A9F0000000000001000").number("queueOffset", 77);
                encoder.finish(b"").expect("it can be encoded");
                let frame = FrameRef::parse(&frame).expect("a frame").expect("a whole frame");
                assert_eq!(skim(&frame).expect("an answer"), (code, 1_000_000_042));
            }
        }
    }

    #[test]
    fn what_the_broker_asks_is_no_answer() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            let mut bytes = BytesMut::new();
            Head::request(encoding, 40, 3).oneway().encode(&mut bytes).finish(b"").expect("it can be encoded");
            Head::response(encoding, 19, 4).encode(&mut bytes).finish(b"").expect("it can be encoded");
            let asked = FrameRef::parse(&bytes).expect("a frame").expect("a whole frame");
            assert_eq!(skim_answer(&asked).expect("a header"), None);
            let answer = FrameRef::parse(&bytes[asked.total_bytes()..]).expect("a frame").expect("a whole frame");
            assert_eq!(skim_answer(&answer).expect("a header"), Some((19, 4)));
        }
    }

    #[test]
    fn frames_that_arrive_in_pieces_are_put_together() {
        let mut stream = BytesMut::new();
        for opaque in 0..3 {
            Head::response(Encoding::Json, 0, opaque).encode(&mut stream).finish(b"body").expect("it can be encoded");
        }
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        for piece in stream.chunks(7) {
            inbox.fill(&mut &*piece).expect("bytes");
            inbox
                .frames(|frame| {
                    seen.push(skim(frame)?.1);
                    Ok(())
                })
                .expect("frames");
        }
        assert_eq!(seen, [0, 1, 2]);
    }
}
