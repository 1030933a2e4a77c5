//! A connection to a broker, for one command: asks, waits, and has the answer.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CommandError;
use super::wire::TlsArgs;
use crate::config::HostPort;
use crate::dial::Stream;
use crate::features::access::{ACCESS_KEY, SIGNATURE, Secret};
use crate::wire::codes::response as code;
use crate::wire::header::Head;
use crate::wire::{Encoding, Frame, FrameRef, Header, operate};

/// How long a broker may take to be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may be silent while an answer is awaited: more than any broker waits for its disk or its slaves.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its response code.
    pub code: i32,
    /// Its text for people.
    pub remark: String,
    /// Its named fields.
    pub fields: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The answer, if it says that it was done.
    ///
    /// # Errors
    /// What it says else.
    pub fn done(self) -> Result<Answer, CommandError> {
        match self.code {
            code::SUCCESS => Ok(self),
            code::QUERY_NOT_FOUND | code::TOPIC_NOT_EXIST | code::SUBSCRIPTION_GROUP_NOT_EXIST | code::NO_MESSAGE => {
                Err(CommandError::Missing(self.reason()))
            }
            _ => Err(CommandError::Refused(self.reason())),
        }
    }

    fn reason(self) -> String {
        if self.remark.is_empty() { format!("the broker answers with code {}", self.code) } else { self.remark }
    }
}

/// One of the original's requests.
#[derive(Clone, Debug)]
pub struct Query {
    code: i32,
    fields: Vec<(&'static str, String)>,
}

impl Query {
    /// A request without fields.
    #[must_use]
    pub fn new(code: i32) -> Query {
        Query { code, fields: Vec::new() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Query {
        self.fields.push((name, value.to_string()));
        self
    }
}

/// A connection.
#[derive(Debug)]
pub struct Remote {
    broker: String,
    stream: Stream,
    input: BytesMut,
    asked: i32,
    /// The account that signs.
    signer: Option<(String, Secret)>,
}

impl Remote {
    /// Connects to a broker.
    ///
    /// # Errors
    /// When nobody is there.
    pub fn connect(broker: &HostPort) -> Result<Remote, CommandError> {
        Remote::connect_by(broker, &TlsArgs::default())
    }

    /// Connects to a broker, by TLS where that is wanted.
    ///
    /// # Errors
    /// When nobody is there, or TLS cannot be spoken with what was given.
    pub fn connect_by(broker: &HostPort, tls: &TlsArgs) -> Result<Remote, CommandError> {
        let no_answer =
            |error: std::io::Error| CommandError::NoAnswer { broker: broker.to_string(), what: error.to_string() };
        let address = broker.resolve().map_err(no_answer)?;
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(no_answer)?;
        stream.set_nodelay(true).map_err(no_answer)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(no_answer)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(no_answer)?;
        let stream = tls.wrap(&broker.host, stream)?;
        Ok(Remote { broker: broker.to_string(), stream, input: BytesMut::new(), asked: 0, signer: None })
    }

    /// Signs all that is asked.
    #[must_use]
    pub fn signed_by(self, name: &str, secret: Secret) -> Remote {
        Remote { signer: Some((name.to_owned(), secret)), ..self }
    }

    /// Asks, whatever the answer says.
    ///
    /// # Errors
    /// When there is none.
    pub fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Result<Answer, CommandError> {
        let mut out = BytesMut::new();
        let opaque = self.write(&mut out, code, fields, body)?;
        self.send(&out)?;
        self.answer(opaque)
    }

    /// The same for a request that was put together.
    ///
    /// # Errors
    /// As [`Remote::ask`].
    pub fn put(&mut self, query: Query) -> Result<Answer, CommandError> {
        Ok(self.put_all(vec![query])?.pop().unwrap_or_default())
    }

    /// Asks several things at once; answers stand in the order of what was asked.
    ///
    /// # Errors
    /// As for [`Remote::ask_all_json`].
    pub fn put_all(&mut self, queries: Vec<Query>) -> Result<Vec<Answer>, CommandError> {
        let mut out = BytesMut::new();
        let mut opaques = Vec::with_capacity(queries.len());
        for Query { code, fields } in &queries {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            opaques.push(self.write(&mut out, *code, &fields, &[])?);
        }
        self.send(&out)?;
        self.answers(&opaques)
    }

    /// Asks in JSON, and reads what was told.
    ///
    /// # Errors
    /// When there is no answer, or it says that it was not done.
    pub fn ask_json<T: DeserializeOwned>(&mut self, code: i32, ask: &impl Serialize) -> Result<T, CommandError> {
        let answer = self.ask(code, &[], &operate::write(ask))?.done()?;
        operate::read(&answer.body).map_err(|error| self.no_answer(format!("an answer that {error}")))
    }

    /// Asks several things at once; answers stand in the order of what was asked.
    ///
    /// # Errors
    /// When there is no answer to one of them. What those after it said is not known then.
    pub fn ask_all_json(&mut self, code: i32, asks: &[impl Serialize]) -> Result<Vec<Answer>, CommandError> {
        let mut out = BytesMut::new();
        let opaques: Vec<i32> =
            asks.iter().map(|ask| self.write(&mut out, code, &[], &operate::write(ask))).collect::<Result<_, _>>()?;
        self.send(&out)?;
        self.answers(&opaques)
    }

    fn write(
        &mut self,
        out: &mut BytesMut,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<i32, CommandError> {
        self.asked += 1;
        let mut frame = Head::request(Encoding::Json, code, self.asked).encode(out);
        for (name, value) in fields {
            frame.field(name, value);
        }
        if let Some((name, secret)) = &self.signer {
            let fields = [fields, &[(ACCESS_KEY, name.as_str())]].concat();
            frame.field(ACCESS_KEY, name);
            frame.field(SIGNATURE, &secret.sign(&fields, body));
        }
        frame.finish(body).map_err(|error| CommandError::Usage(error.to_string()))?;
        Ok(self.asked)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        self.stream.write_all(bytes).map_err(|error| self.no_answer(error.to_string()))
    }

    fn answer(&mut self, wanted: i32) -> Result<Answer, CommandError> {
        loop {
            let (opaque, answer) = self.receive()?;
            if opaque == wanted {
                return Ok(answer);
            }
        }
    }

    fn answers(&mut self, opaques: &[i32]) -> Result<Vec<Answer>, CommandError> {
        let mut answers = BTreeMap::new();
        while answers.len() < opaques.len() {
            let (opaque, answer) = self.receive()?;
            if opaques.contains(&opaque) {
                answers.insert(opaque, answer);
            }
        }
        // They were numbered in order.
        Ok(answers.into_values().collect())
    }

    /// The next answer. What the broker asks of its clients is passed over.
    fn receive(&mut self) -> Result<(i32, Answer), CommandError> {
        loop {
            let frame = Frame::split(&mut self.input).map_err(|error| self.no_answer(error.to_string()))?;
            let Some(frame) = frame else {
                self.read_more()?;
                continue;
            };
            let shape = FrameRef { encoding: frame.encoding, header: &frame.header, body: &frame.body };
            let header = Header::of(&shape).map_err(|error| self.no_answer(error.to_string()))?;
            if header.is_response() {
                let fields = header.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                let remark = header.remark().unwrap_or_default().to_owned();
                return Ok((header.opaque, Answer { code: header.code, remark, fields, body: frame.body.to_vec() }));
            }
        }
    }

    fn read_more(&mut self) -> Result<(), CommandError> {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(self.no_answer("it closed the connection; is it an Anchorlog broker?".to_owned())),
            Ok(count) => {
                self.input.extend_from_slice(&piece[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(self.no_answer(format!("nothing within {} s", ANSWER_TIMEOUT.as_secs())))
            }
            Err(error) => Err(self.no_answer(error.to_string())),
        }
    }

    fn no_answer(&self, what: String) -> CommandError {
        CommandError::NoAnswer { broker: self.broker.clone(), what }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A peer that answers what it is told to, and closes.
    fn peer(answer: Vec<u8>) -> HostPort {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut asked = [0; 1024];
            let _count = stream.read(&mut asked).expect("a request");
            stream.write_all(&answer).expect("it reads");
        });
        HostPort { host: "127.0.0.1".to_owned(), port }
    }

    fn frame(head: Head<'_>, body: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        head.encode(&mut out).finish(body).expect("small");
        out.to_vec()
    }

    #[test]
    fn an_answer_is_found_among_what_else_the_broker_says() {
        let notice = frame(Head::request(Encoding::Json, 40, 1).oneway(), b"");
        let other = frame(Head::response(Encoding::Json, 0, 77), b"other");
        let wanted = frame(Head::response(Encoding::Json, 22, 1).with_remark("nothing there"), b"");
        let mut remote = Remote::connect(&peer([notice, other, wanted].concat())).expect("it listens");
        let answer = remote.ask(30_001, &[], b"{}").expect("an answer");
        assert_eq!((answer.code, &*answer.remark), (22, "nothing there"));
        assert!(matches!(answer.done(), Err(CommandError::Missing(_))));
    }

    #[test]
    fn whatever_is_no_answer_is_said_to_be_none() {
        for (answer, part) in [(vec![], "closed"), (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "frame announces")] {
            let error = Remote::connect(&peer(answer)).expect("it listens").ask(1, &[], b"").expect_err("no broker");
            assert!(error.to_string().contains(part) && error.exit_code() == 2, "{error}");
        }
        let nobody = HostPort { host: "127.0.0.1".to_owned(), port: 1 };
        assert_eq!(Remote::connect(&nobody).expect_err("nobody").exit_code(), 2);
    }
}
