//! `anchorlog probe`: asks a running broker whether it is healthy, or ready, as its monitors do: for a supervisor that can only start a
//! program, in a container that has no other one.
//!
//! Exit codes: 0 it is; 1 it is not, or nobody answered in time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::Args;

use crate::config::HostPort;

/// Exit code of a broker that is not what was asked for.
pub const IT_IS_NOT: u8 = 1;

/// How long an answer may take: shorter than the patience of who asks.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Arguments of `anchorlog probe`.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    /// Where the broker tells its monitors (--metrics-listen)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9877")]
    pub at: HostPort,

    /// Whether a send would be taken now, and not only whether a restart would not help
    #[arg(long)]
    pub ready: bool,
}

/// Prints what the broker says of itself.
///
/// # Errors
/// When it cannot be asked.
pub fn run(args: &ProbeArgs, out: &mut impl Write) -> io::Result<u8> {
    let (status, said) = ask(args)?;
    writeln!(out, "{}", said.trim_end())?;
    Ok(if status == 200 { 0 } else { IT_IS_NOT })
}

fn ask(args: &ProbeArgs) -> io::Result<(u16, String)> {
    let to = args.at.resolve()?;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = if args.ready { "/ready" } else { "/health" };
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", args.at)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, format!("{} does not speak HTTP", args.at));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(not_http)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(not_http)?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What a program finds out where somebody listens who answers so.
    fn probed(answer: &'static str, ready: bool) -> (io::Result<u8>, String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("an address").to_string().parse().expect("an address");
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody asks");
            let mut asked = [0; 512];
            let count = stream.read(&mut asked).expect("it asks");
            stream.write_all(answer.as_bytes()).expect("it listens");
            String::from_utf8_lossy(&asked[..count]).into_owned()
        });
        let mut out = Vec::new();
        let code = run(&ProbeArgs { at, ready }, &mut out);
        (code, String::from_utf8(out).expect("text"), other.join().expect("no panic"))
    }

    #[test]
    fn what_the_broker_says_decides_the_exit_code() {
        let (code, out, asked) = probed("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n", false);
        assert_eq!((code.expect("answered"), &*out), (0, "ok\n"));
        assert!(asked.starts_with("GET /health HTTP/1.1\r\n"), "{asked}");
        let (code, out, asked) = probed("HTTP/1.1 503 Service Unavailable\r\n\r\ntoo few slaves\n", true);
        assert_eq!((code.expect("answered"), &*out), (IT_IS_NOT, "too few slaves\n"));
        assert!(asked.starts_with("GET /ready HTTP/1.1\r\n"), "{asked}");
    }

    #[test]
    fn who_does_not_speak_http_is_no_broker() {
        for answer in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 oh no\r\n\r\n"] {
            assert!(probed(answer, false).0.is_err(), "{answer:?}");
        }
    }
}
