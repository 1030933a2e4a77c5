//! A client of a few lines, with a codec of its own: it sends, it pulls, and it knows how long it waited.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Clients give up after this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) const TOPIC: &str = "PAIR";

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Code(i64),
    /// The connection ended, or there was none.
    Gone,
    /// There was a connection, and no answer in time.
    Nothing,
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    opaque: i64,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, input: Vec::new(), opaque: 0 })
    }

    /// A send as Java's clients write it.
    pub(crate) fn send(&mut self, queue: usize, body: &[u8]) -> Told {
        let fields = json!({
            "a": "producers", "b": TOPIC, "c": "TBW102", "d": "4", "e": queue.to_string(), "f": "0",
            "g": "1700000000000", "h": "0", "i": "", "j": "0", "k": "false", "l": "0", "m": "false",
        });
        match self.ask(310, &fields, body) {
            Ok((code, _)) => Told::Code(code),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Told::Nothing,
            Err(_) => Told::Gone,
        }
    }

    /// The bodies of the next messages of a queue, and the offset behind them.
    pub(crate) fn pull(&mut self, queue: usize, offset: i64) -> io::Result<(Vec<String>, i64)> {
        let fields = json!({
            "consumerGroup": "readers", "topic": TOPIC, "queueId": queue.to_string(), "queueOffset": offset.to_string(),
            "maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
            "subscription": "*", "subVersion": "0", "expressionType": "TAG",
        });
        let (code, body) = self.ask(11, &fields, b"")?;
        let mut bodies = Vec::new();
        let mut rest = if code == 0 { &body[..] } else { &[] };
        while !rest.is_empty() {
            let u32_at = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
            let (size, body_bytes) = (u32_at(0), u32_at(84));
            bodies.push(String::from_utf8(rest[88..88 + body_bytes].to_vec()).unwrap());
            rest = &rest[size..];
        }
        let next = offset + i64::try_from(bodies.len()).unwrap();
        Ok((bodies, next))
    }

    fn ask(&mut self, code: i64, fields: &Value, body: &[u8]) -> io::Result<(i64, Vec<u8>)> {
        self.opaque += 1;
        let header = json!({
            "code": code, "extFields": fields, "flag": 0, "language": "JAVA", "opaque": self.opaque,
            "serializeTypeCurrentRPC": "JSON", "version": 479,
        });
        let header = header.to_string();
        let mut bytes = u32::try_from(4 + header.len() + body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.write_all(&bytes)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((header, body)) = self.take()
                && header["opaque"] == json!(self.opaque)
            {
                return Ok((header["code"].as_i64().unwrap(), body));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut piece = [0; 64 << 10];
            match self.stream.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn take(&mut self) -> Option<(Value, Vec<u8>)> {
        let length = u32::from_be_bytes(*self.input.first_chunk::<4>()?) as usize;
        if self.input.len() < 4 + length {
            return None;
        }
        let header_end = 8 + (u32::from_be_bytes(self.input[4..8].try_into().unwrap()) & 0xFF_FFFF) as usize;
        let header = serde_json::from_slice(&self.input[8..header_end]).unwrap();
        let body = self.input[header_end..4 + length].to_vec();
        self.input.drain(..4 + length);
        Some((header, body))
    }
}

/// Everything that can be read there, and how often.
pub(crate) fn read_all(address: SocketAddr) -> io::Result<BTreeMap<String, usize>> {
    let mut client = Client::connect(address)?;
    let mut all = BTreeMap::new();
    for queue in 0..4 {
        let mut offset = 0;
        loop {
            let (bodies, next) = client.pull(queue, offset)?;
            if bodies.is_empty() {
                break;
            }
            bodies.into_iter().for_each(|body| *all.entry(body).or_insert(0) += 1);
            offset = next;
        }
    }
    Ok(all)
}
