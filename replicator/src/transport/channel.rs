//! One connection whose other end is known: bytes in, bytes out.
//!
//! It is split into two halves, one for each of two threads: reading never waits for writing. Either is ended from outside by
//! [`Hangup`].

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anchorlog_engine::Clock;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::auth::{self, AuthError, GREETING_BYTES, Greetings, Opener, PROOF_BYTES, Sealer, Side};
use super::limits;
use super::security::{Certificates, Security, host_name};

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("the other end ended the connection{0}")]
    Ended(&'static str),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{0:?} is no address: {1}")]
    Address(String, String),
    #[error("{0} is beyond the loopback interface: a shared key or certificates are needed")]
    Unprotected(SocketAddr),
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ChannelError {
    move |source| ChannelError::Io { what, source }
}

impl ChannelError {
    /// Whether nothing arrived in time; the connection is as it was.
    pub(crate) fn is_timeout(&self) -> bool {
        let timeout = |kind| matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        matches!(self, ChannelError::Io { what: READING, source } if timeout(source.kind()))
    }
}

const READING: &str = "reading";

/// A connection that is protected as was agreed on; its halves are for one thread each.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

impl Channel {
    /// Connects to `address` (host and port) and makes sure of the other end.
    pub(crate) fn connect(address: &str, security: &Security, clock: &dyn Clock) -> Result<Channel, ChannelError> {
        let no_address = |why: &dyn std::fmt::Display| ChannelError::Address(address.to_owned(), why.to_string());
        let all = address.to_socket_addrs().map_err(|error| no_address(&error))?;
        let mut last = no_address(&"nothing is known by this name");
        for one in all {
            if !security.is_enough_for(one) {
                return Err(ChannelError::Unprotected(one));
            }
            match TcpStream::connect_timeout(&one, limits::CONNECT_TIME_MAX) {
                Ok(socket) => {
                    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                    return Channel::greet(socket, Side::Connecting, host.trim_matches(['[', ']']), security, clock);
                }
                Err(error) => last = io_error("connecting")(error),
            }
        }
        Err(last)
    }

    /// Waits for the first byte of whoever connected, and leaves it where it is.
    pub(crate) fn wait_for_word(socket: &TcpStream) -> Result<(), ChannelError> {
        let patience = Some(limits::HANDSHAKE_TIME_MAX);
        let peeked = socket.set_read_timeout(patience).and_then(|()| socket.peek(&mut [0]));
        match peeked.map_err(io_error("waiting for the other end to greet"))? {
            0 => Err(ChannelError::Ended(" without a word")),
            _ => Ok(()),
        }
    }

    /// Makes sure of who connected.
    pub(crate) fn accept(socket: TcpStream, security: &Security, clock: &dyn Clock) -> Result<Channel, ChannelError> {
        Channel::greet(socket, Side::Accepting, "", security, clock)
    }

    fn greet(
        socket: TcpStream,
        us: Side,
        host: &str,
        security: &Security,
        clock: &dyn Clock,
    ) -> Result<Channel, ChannelError> {
        socket.set_nodelay(true).map_err(io_error("setting up a connection"))?;
        let deadline = clock.monotonic() + limits::HANDSHAKE_TIME_MAX;
        let mut line = Timed { socket: &socket, clock, deadline };
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| io_error("drawing a nonce")(io::Error::other(error)))?;
        let ours = auth::greeting(security.protection(), nonce);
        line.send(&ours)?;
        let theirs: [u8; GREETING_BYTES] = line.hear("")?;
        auth::check_greeting(&theirs, security.protection())?;
        let greetings = match us {
            Side::Connecting => Greetings { connecting: ours, accepting: theirs },
            Side::Accepting => Greetings { connecting: theirs, accepting: ours },
        };
        let (opening, sealing) = match security {
            Security::Open => (Opening::Open, Sealing::Open),
            Security::Key(key) => {
                let proof = auth::proof(key, &greetings, us);
                // Who connects proves first: whoever comes by gets nothing to try keys on.
                if us == Side::Connecting {
                    line.send(&proof)?;
                }
                let proven: [u8; PROOF_BYTES] = line.hear(": the shared keys may differ")?;
                auth::check_proof(key, &greetings, us.other(), &proven)?;
                if us == Side::Accepting {
                    line.send(&proof)?;
                }
                let opener = Opener::new(key, &greetings, us);
                (Opening::Key(opener), Sealing::Key(Sealer::new(key, &greetings, us)))
            }
            Security::Tls(certificates) => {
                let tls = Arc::new(Mutex::new(Channel::agree(&mut line, us, host, certificates)?));
                (Opening::Tls { connection: Arc::clone(&tls), is_fresh: true }, Sealing::Tls(tls))
            }
        };
        socket.set_read_timeout(None).map_err(io_error("setting up a connection"))?;
        socket.set_write_timeout(Some(limits::SEND_TIME_MAX)).map_err(io_error("setting up a connection"))?;
        let other = socket.try_clone().map_err(io_error("setting up a connection"))?;
        let incoming = Incoming { socket: other, opening, raw: vec![0; limits::READ_BYTES] };
        Ok(Channel { incoming, outgoing: Outgoing { socket, sealing, raw: Vec::new() } })
    }

    fn agree(
        line: &mut Timed<'_>,
        us: Side,
        host: &str,
        certificates: &Certificates,
    ) -> Result<Connection, ChannelError> {
        let mut connection = match us {
            Side::Connecting => {
                let name = match &certificates.name {
                    Some(name) => name.clone(),
                    None => {
                        host_name(host).map_err(|error| ChannelError::Address(host.to_owned(), error.to_string()))?
                    }
                };
                Connection::Client(ClientConnection::new(Arc::clone(&certificates.connecting), name)?)
            }
            Side::Accepting => Connection::Server(ServerConnection::new(Arc::clone(&certificates.accepting))?),
        };
        connection.set_buffer_limit(None);
        while connection.is_handshaking() {
            connection.complete_io(line).map_err(io_error("agreeing on TLS"))?;
        }
        // What tells the other end that it is let in may still be here.
        while connection.wants_write() {
            connection.write_tls(line).map_err(io_error("agreeing on TLS"))?;
        }
        Ok(connection)
    }

    /// Who is there.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.incoming.socket.peer_addr().ok()
    }

    /// What ends this connection from outside.
    pub(crate) fn hangup(&self) -> Result<Hangup, ChannelError> {
        Hangup::of(&self.incoming.socket).map_err(io_error("setting up a connection"))
    }
}

/// A socket with a deadline for all that is said on it.
struct Timed<'a> {
    socket: &'a TcpStream,
    clock: &'a dyn Clock,
    deadline: Duration,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.checked_sub(self.clock.monotonic()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.write_all(bytes).map_err(io_error("greeting the other end"))
    }

    fn hear<const N: usize>(&mut self, perhaps: &'static str) -> Result<[u8; N], ChannelError> {
        let mut bytes = [0; N];
        match self.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                Err(ChannelError::Ended(perhaps))
            }
            Err(error) => Err(io_error("hearing from the other end")(error)),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buf)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends a connection: whoever reads or writes it comes back with an error.
#[derive(Debug)]
pub(crate) struct Hangup(TcpStream);

impl Hangup {
    pub(crate) fn of(socket: &TcpStream) -> io::Result<Hangup> {
        socket.try_clone().map(Hangup)
    }

    pub(crate) fn hang_up(&self) {
        // It may have ended by itself.
        let _already_ended = self.0.shutdown(Shutdown::Both).is_err();
    }
}

/// What comes in.
#[derive(Debug)]
pub(crate) struct Incoming {
    socket: TcpStream,
    opening: Opening,
    raw: Vec<u8>,
}

#[derive(Debug)]
enum Opening {
    Open,
    Key(Opener),
    Tls {
        connection: Arc<Mutex<Connection>>,
        /// What came together with the last of the handshake was not looked at yet.
        is_fresh: bool,
    },
}

impl Incoming {
    /// How long [`Incoming::read`] waits. Default: for ever.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) -> Result<(), ChannelError> {
        self.socket.set_read_timeout(patience).map_err(io_error("setting up a connection"))
    }

    /// Waits for bytes and adds what is proven of them to `out`, which may be nothing yet.
    pub(crate) fn read(&mut self, out: &mut Vec<u8>) -> Result<(), ChannelError> {
        if let Opening::Tls { connection, is_fresh } = &mut self.opening
            && std::mem::take(is_fresh)
        {
            let before = out.len();
            unpack(&mut connection.lock().expect("no holder panics"), out)?;
            if out.len() > before {
                return Ok(());
            }
        }
        let length = loop {
            match self.socket.read(&mut self.raw) {
                Ok(0) => return Err(ChannelError::Ended("")),
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(io_error(READING)(source)),
            }
        };
        let mut raw = &self.raw[..length];
        match &mut self.opening {
            Opening::Open => out.extend_from_slice(raw),
            Opening::Key(opener) => opener.open(raw, out)?,
            Opening::Tls { connection, .. } => {
                let mut connection = connection.lock().expect("no holder panics");
                while !raw.is_empty() {
                    connection.read_tls(&mut raw).map_err(io_error("taking TLS apart"))?;
                    unpack(&mut connection, out)?;
                }
            }
        }
        Ok(())
    }
}

/// What is proven of what arrived is added to `out`.
fn unpack(connection: &mut Connection, out: &mut Vec<u8>) -> Result<(), ChannelError> {
    let state = connection.process_new_packets()?;
    let start = out.len();
    out.resize(start + state.plaintext_bytes_to_read(), 0);
    connection.reader().read_exact(&mut out[start..]).map_err(io_error("taking TLS apart"))?;
    if state.peer_has_closed() { Err(ChannelError::Ended("")) } else { Ok(()) }
}

/// What goes out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    socket: TcpStream,
    sealing: Sealing,
    raw: Vec<u8>,
}

#[derive(Debug)]
enum Sealing {
    Open,
    Key(Sealer),
    Tls(Arc<Mutex<Connection>>),
}

impl Outgoing {
    /// Sends `pieces` as they are, without copying them, where nothing has to be hidden.
    pub(crate) fn write<T: AsRef<[u8]>>(&mut self, pieces: &[T]) -> Result<(), ChannelError> {
        let mut record: Vec<&[u8]> = Vec::with_capacity(pieces.len());
        let mut room = limits::RECORD_BYTES_MAX;
        for piece in pieces {
            let mut rest = piece.as_ref();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(room));
                record.push(now);
                room -= now.len();
                rest = later;
                if room == 0 {
                    self.write_record(&record)?;
                    record.clear();
                    room = limits::RECORD_BYTES_MAX;
                }
            }
        }
        if record.is_empty() { Ok(()) } else { self.write_record(&record) }
    }

    /// There will be nothing more; what comes in is still heard.
    pub(crate) fn finish(&self) {
        // It may have ended by itself.
        let _already_ended = self.socket.shutdown(Shutdown::Write).is_err();
    }

    fn write_record(&mut self, pieces: &[&[u8]]) -> Result<(), ChannelError> {
        let payload = pieces.iter().map(|piece| IoSlice::new(piece));
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(pieces.len() + 2);
        let (head, code);
        match &mut self.sealing {
            Sealing::Open => slices.extend(payload),
            Sealing::Key(sealer) => {
                (head, code) = sealer.seal(pieces);
                slices.push(IoSlice::new(&head));
                slices.extend(payload);
                slices.push(IoSlice::new(&code));
            }
            Sealing::Tls(connection) => {
                self.raw.clear();
                let mut connection = connection.lock().expect("no holder panics");
                for piece in pieces {
                    connection.writer().write_all(piece).map_err(io_error("sending"))?;
                }
                while connection.wants_write() {
                    connection.write_tls(&mut self.raw).map_err(io_error("sending"))?;
                }
                slices.push(IoSlice::new(&self.raw));
            }
        }
        send_all(&mut self.socket, &mut slices)
    }
}

/// Sends all of `slices`, each as far as the kernel takes it at a time.
fn send_all(socket: &mut TcpStream, mut slices: &mut [IoSlice<'_>]) -> Result<(), ChannelError> {
    while !slices.is_empty() {
        match socket.write_vectored(slices) {
            Ok(0) => return Err(ChannelError::Ended("")),
            Ok(sent) => IoSlice::advance_slices(&mut slices, sent),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(io_error("sending")(source)),
        }
    }
    Ok(())
}
