//! Sizes, times and addresses as people write them.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// Text that is no size, time or address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(pub String);

/// Splits `64MiB` into 64 and `MiB`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.replace('_', "").parse().ok()?, unit.trim()))
}

/// A number of bytes: `4096`, `64MiB`, `1GiB`, `10MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let unreadable =
            || UnitError(format!("{text:?} is no size; write bytes, or a number with KiB, MiB, GiB or TiB"));
        let (number, unit) = number_and_unit(text).ok_or_else(unreadable)?;
        let factor = match unit {
            "" => 1,
            _ => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(unreadable)?.1,
        };
        number.checked_mul(factor).map(ByteSize).ok_or_else(|| UnitError(format!("{text:?} is too large")))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: u64| self.0 != 0 && self.0.is_multiple_of(factor);
        match SIZES[..4].iter().find(|(_, factor)| fits(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A length of time: `10ms`, `2s`, `500us`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const PERIODS: [(&str, u64); 5] = [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1)];

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Period, UnitError> {
        let unreadable = || UnitError(format!("{text:?} is no time; write a number with us, ms, s, m or h"));
        let (number, unit) = number_and_unit(text).ok_or_else(unreadable)?;
        let (_, factor) = PERIODS.iter().find(|(name, _)| *name == unit).ok_or_else(unreadable)?;
        let micros = number.checked_mul(*factor).ok_or_else(|| UnitError(format!("{text:?} is too long")))?;
        Ok(Period(Duration::from_micros(micros)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let fits = |factor: u64| micros != 0 && micros.is_multiple_of(u128::from(factor));
        match PERIODS.iter().find(|(_, factor)| fits(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", micros / u128::from(*factor)),
            None => write!(f, "{micros}us"),
        }
    }
}

/// `host:port`; the host is a name or an address, an IPv6 one in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Several of them, separated by `;` or `,`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPorts(pub Vec<HostPort>);

impl FromStr for HostPorts {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<HostPorts, UnitError> {
        let parts = text.split([';', ',']).map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(HostPorts)
    }
}

impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(HostPort::to_string).collect();
        f.write_str(&parts.join(";"))
    }
}

impl HostPort {
    /// The address to use; of several, an IPv4 one, because not every client can dial others.
    ///
    /// # Errors
    /// When the name means nothing to this machine.
    pub fn resolve(&self) -> std::io::Result<SocketAddr> {
        let mut found: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        found.first().copied().ok_or_else(|| std::io::Error::other(format!("{} has no address", self.host)))
    }
}

impl FromStr for HostPort {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<HostPort, UnitError> {
        let unreadable = || UnitError(format!("{text:?} is no address; write HOST:PORT, or [IPv6]:PORT"));
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(unreadable)?;
        let port = port.parse().map_err(|_| unreadable())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if host.is_empty() || (bare.is_none() && host.contains(':')) {
            return Err(unreadable());
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_times_and_addresses_are_read_as_people_write_them() {
        for (text, bytes) in [("4096", 4096), ("64MiB", 64 << 20), ("1 GiB", 1 << 30), ("10mb", 10_000_000), ("0", 0)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for (text, micros) in [("10ms", 10_000), ("2 s", 2_000_000), ("500us", 500), ("1h", 3_600_000_000)] {
            assert_eq!(text.parse(), Ok(Period(Duration::from_micros(micros))), "{text}");
        }
        for (text, host, port) in [("127.0.0.1:9876", "127.0.0.1", 9876), ("[::1]:0", "::1", 0), ("name:1", "name", 1)]
        {
            assert_eq!(text.parse(), Ok(HostPort { host: host.to_owned(), port }), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_a_hint() {
        for text in ["", "MiB", "-1", "1.5GiB", "64 miles", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for text in ["", "10", "ms", "1day"] {
            assert!(text.parse::<Period>().expect_err(text).0.contains("ms"), "{text}");
        }
        for text in ["", "9876", ":9876", "host:", "host:65536", "::1:80", "[]:1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_written(bytes in any::<u64>(), micros in 0..u64::MAX / 2, port in any::<u16>()) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
            let period = Period(Duration::from_micros(micros));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
            let host = HostPort { host: "::1".to_owned(), port };
            prop_assert_eq!(host.to_string().parse(), Ok(host.clone()));
            let both = HostPorts(vec![host, HostPort { host: "name".to_owned(), port: 1 }]);
            prop_assert_eq!(both.to_string().parse(), Ok(both));
        }
    }
}
