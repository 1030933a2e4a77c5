//! Sets of addresses as the original writes them: `10.0.0.1`, `10.0.*.*`, `10.0.0.1-20`, `10.0.0.{1,2}`, `10.0.0.1,10.0.0.2`, `*`.
//!
//! Ranges and stars may stand for any part, and for the rest when the address ends with them (`10.*`). Of IPv6 the same, in eight parts.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Text that is no set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address; write 10.0.0.1, 10.0.*, 10.0.0.1-20, 10.0.0.{{1,2}}, several with commas, or *")]
pub struct BadAddresses(pub String);

/// Longest text of one.
const TEXT_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
enum One {
    Any,
    V4(Vec<RangeInclusive<u16>>),
    V6(Vec<RangeInclusive<u16>>),
}

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    text: Box<str>,
    any_of: Vec<One>,
}

impl Addresses {
    /// Whether an address is among them.
    #[must_use]
    pub fn hold(&self, address: IpAddr) -> bool {
        let parts = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().map(u16::from).to_vec(),
            IpAddr::V6(address) => address.segments().to_vec(),
        };
        let fits = |ranges: &[RangeInclusive<u16>]| {
            ranges.len() == parts.len() && ranges.iter().zip(&parts).all(|(range, part)| range.contains(part))
        };
        self.any_of.iter().any(|one| match one {
            One::Any => true,
            One::V4(ranges) | One::V6(ranges) => fits(ranges),
        })
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Addresses {
    type Err = BadAddresses;

    fn from_str(text: &str) -> Result<Addresses, BadAddresses> {
        let text = text.trim();
        let bad = || BadAddresses(text.chars().take(80).collect());
        let wanted = (1..=TEXT_BYTES_MAX).contains(&text.len());
        let written = wanted.then(|| written_out(text)).flatten().ok_or_else(bad)?;
        let any_of = written.iter().map(|one| read(one)).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
        Ok(Addresses { text: text.into(), any_of })
    }
}

/// What is meant by commas and braces, one by one.
fn written_out(text: &str) -> Option<Vec<String>> {
    if let Some(inner) = text.strip_suffix('}') {
        let (head, choices) = inner.split_once('{')?;
        return Some(choices.split(',').map(|choice| format!("{head}{}", choice.trim())).collect());
    }
    Some(text.split(',').map(|one| one.trim().to_owned()).collect())
}

fn read(text: &str) -> Option<One> {
    if text == "*" {
        return Some(One::Any);
    }
    if text.contains(':') {
        // Only without stars and ranges may parts be left out.
        if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
            return Some(match IpAddr::V6(address).to_canonical() {
                IpAddr::V4(address) => One::V4(address.octets().map(|part| single(u16::from(part))).to_vec()),
                IpAddr::V6(address) => One::V6(address.segments().map(single).to_vec()),
            });
        }
        return ranges(text, ':', 8, 16, u16::MAX).map(One::V6);
    }
    ranges(text, '.', 4, 10, u16::from(u8::MAX)).map(One::V4)
}

fn single(part: u16) -> RangeInclusive<u16> {
    part..=part
}

fn ranges(text: &str, between: char, count: usize, radix: u32, most: u16) -> Option<Vec<RangeInclusive<u16>>> {
    let mut parts: Vec<&str> = text.split(between).map(str::trim).collect();
    if parts.last() == Some(&"*") {
        while parts.len() < count {
            parts.push("*");
        }
    }
    let number = |text: &str| {
        let digits = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
        u16::from_str_radix(text, radix).ok().filter(|number| digits && *number <= most)
    };
    let range = |part: &&str| {
        if *part == "*" {
            return Some(0..=most);
        }
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (number(from.trim())?, number(to.trim())?);
        (from <= to).then_some(from..=to)
    };
    (parts.len() == count).then(|| parts.iter().map(range).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_the_original_s_hold() {
        for (text, inside, outside) in [
            ("*", &["1.2.3.4", "::1"][..], &[][..]),
            ("*.*.*.*", &["1.2.3.4"], &["2001:db8::1"]),
            ("10.0.0.1", &["10.0.0.1", "::ffff:10.0.0.1"], &["10.0.0.10", "10.0.1.1"]),
            ("192.168.*.*", &["192.168.0.1", "192.168.255.255"], &["192.169.0.1"]),
            ("192.168.0.*", &["192.168.0.1"], &["192.168.1.1"]),
            ("10.*", &["10.1.2.3"], &["11.1.2.3"]),
            ("192.168.0.10-20", &["192.168.0.10", "192.168.0.20"], &["192.168.0.21", "192.168.0.2"]),
            ("192.168.1-2.*", &["192.168.2.9"], &["192.168.3.9"]),
            ("192.168.0.{1,2}", &["192.168.0.1", "192.168.0.2"], &["192.168.0.3", "192.168.0.12"]),
            ("10.0.0.1, 10.0.0.3", &["10.0.0.3"], &["10.0.0.2"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("2001:db8:*:*:*:*:*:*", &["2001:db8::7"], &["2001:db9::7"]),
            ("2001:db8:*", &["2001:db8::7"], &["2001:db9::7"]),
            ("0:0:0:0:0:0:0:1-f", &["::a"], &["::10"]),
        ] {
            let set: Addresses = text.parse().expect(text);
            assert_eq!(set.to_string(), text);
            for (addresses, held) in [(inside, true), (outside, false)] {
                for address in addresses {
                    assert_eq!(set.hold(address.parse().expect("an address")), held, "{address} in {text}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in [
            "",
            " ",
            "10",
            "10.0.0",
            "10.0.0.256",
            "10.0.0.5-1",
            "10.0.0.-1",
            "10.0.0.+1",
            "host",
            "1.2.3.4.5",
            ",",
            "{",
            "}",
            "10.0.0.{1,",
            ":*",
        ] {
            assert!(text.parse::<Addresses>().is_err(), "{text}");
        }
    }
}
