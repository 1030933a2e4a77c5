//! A connection to a name server: asks, and waits for the answers, but never for long.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use bytes::BytesMut;

use super::Door;
use crate::config::HostPort;
use crate::dial::Stream;
use crate::features::access::{ACCESS_KEY, SIGNATURE};
use crate::limits;
use crate::wire::codes::response as code;
use crate::wire::header::Head;
use crate::wire::{Encoding, Frame, FrameRef, Header};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) code: i32,
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

impl<'a> Question<'a> {
    /// One without a body.
    pub(super) fn new(code: i32, fields: &'a [(&'a str, &'a str)]) -> Question<'a> {
        Question { code, fields, body: &[] }
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) code: i32,
    remark: String,
    fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether it says that it was done.
    pub(super) fn done(&self) -> io::Result<()> {
        match self.code {
            code::SUCCESS => Ok(()),
            other => Err(io::Error::other(format!("it answered {other}: {}", self.remark))),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    door: Door,
    input: BytesMut,
    opaque: i32,
}

impl Connection {
    pub(super) fn new(to: &HostPort, door: &Door) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&to.resolve()?, limits::REGISTER_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limits::REGISTER_TIMEOUT))?;
        stream.set_write_timeout(Some(limits::REGISTER_TIMEOUT))?;
        let stream = match &door.tls {
            Some(trust) => trust.wrap(&to.host, stream).map_err(io::Error::other)?,
            None => Stream::Plain(stream),
        };
        Ok(Connection { stream, door: door.clone(), input: BytesMut::new(), opaque: 0 })
    }

    /// Whether the other side has ended it.
    pub(super) fn is_closed(&self) -> bool {
        let socket = self.stream.socket();
        let looked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
        let open = match looked {
            Ok(bytes) => bytes > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        !open || socket.set_nonblocking(false).is_err()
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&mut self, question: &Question<'_>) -> io::Result<Answer> {
        let mut answers = self.ask_all(std::slice::from_ref(question))?;
        answers.pop().ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// Asks several things at once; answers stand in the order of what was asked.
    pub(super) fn ask_all(&mut self, questions: &[Question<'_>]) -> io::Result<Vec<Answer>> {
        let mut out = BytesMut::new();
        let first = if self.opaque > i32::MAX / 2 { 1 } else { self.opaque + 1 };
        self.opaque = first;
        for question in questions {
            let mut frame = Head::request(Encoding::Json, question.code, self.opaque).encode(&mut out);
            for (name, value) in question.fields {
                frame.field(name, value);
            }
            if let Some((name, secret)) = &self.door.signer {
                let signed = [question.fields, &[(ACCESS_KEY, name.as_str())]].concat();
                frame.field(ACCESS_KEY, name);
                frame.field(SIGNATURE, &secret.sign(&signed, question.body));
            }
            frame.finish(question.body).map_err(io::Error::other)?;
            self.opaque += 1;
        }
        self.stream.write_all(&out)?;
        let mut answers: Vec<Option<Answer>> = vec![None; questions.len()];
        while answers.iter().any(Option::is_none) {
            let (opaque, answer) = self.receive()?;
            let place = opaque.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            if let Some(slot) = place.and_then(|place| answers.get_mut(place)) {
                *slot = Some(answer);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// The next answer. What the name server asks of brokers is passed over.
    fn receive(&mut self) -> io::Result<(i32, Answer)> {
        loop {
            let Some(frame) = Frame::split(&mut self.input).map_err(io::Error::other)? else {
                let mut piece = [0; 16 << 10];
                match self.stream.read(&mut piece)? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    count => self.input.extend_from_slice(&piece[..count]),
                }
                continue;
            };
            let shape = FrameRef { encoding: frame.encoding, header: &frame.header, body: &frame.body };
            let header = Header::of(&shape).map_err(io::Error::other)?;
            if header.is_response() {
                let fields = header.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                let remark = header.remark().unwrap_or_default().to_owned();
                return Ok((header.opaque, Answer { code: header.code, remark, fields, body: frame.body.to_vec() }));
            }
        }
    }
}
