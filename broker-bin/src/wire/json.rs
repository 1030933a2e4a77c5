//! The little JSON that headers and bodies need, without building a tree.

use bytes::{BufMut, BytesMut};

/// Deepest nesting that is read over.
pub(super) const DEPTH_MAX: usize = 32;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// High bit of each byte of `word` that equals `byte`. Bytes above a hit may be marked too, so only the lowest mark counts.
const fn marks(word: u64, byte: u8) -> u64 {
    let zeroed = word ^ (ONES * byte as u64);
    zeroed.wrapping_sub(ONES) & !zeroed & HIGHS
}

/// Bytes up to the first quote or backslash, eight at a time: most of a header is strings.
pub(super) fn plain_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let found = marks(word, b'"') | marks(word, b'\\');
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')).map_or(bytes.len(), |more| at + more)
}

/// Bytes up to the first that must be escaped.
fn unescaped_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = marks(word, b'"') | marks(word, b'\\') | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let stops = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    bytes[at..].iter().position(stops).map_or(bytes.len(), |more| at + more)
}

/// Writes a string with its quotes.
pub(super) fn put_string(out: &mut BytesMut, text: &str) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.put_u8(b'"');
    loop {
        let plain = unescaped_bytes(rest);
        out.put_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { break };
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.put_slice(b"\\u00");
                out.put_u8(DIGITS[usize::from(byte >> 4)]);
                out.put_u8(DIGITS[usize::from(byte & 15)]);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.put_u8(b'"');
}

/// The digits of a number, without allocating.
pub(super) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    /// The digits of `value`.
    pub(super) fn new(value: i64) -> Decimal {
        let mut decimal = Decimal { digits: [0; 20], start: 20 };
        let mut rest = value.unsigned_abs();
        loop {
            let digit = u8::try_from(rest % 10).unwrap_or(0);
            decimal.push_front(b'0' + digit);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            decimal.push_front(b'-');
        }
        decimal
    }

    fn push_front(&mut self, byte: u8) {
        // Nineteen digits and a sign fit.
        self.start -= 1;
        self.digits[self.start] = byte;
    }

    /// As bytes of ASCII.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Writes a number.
pub(super) fn put_number(out: &mut BytesMut, value: i64) {
    out.put_slice(Decimal::new(value).bytes());
}

/// Text that is not the JSON that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// Byte at which it shows.
    pub(super) at: usize,
    /// What should stand there.
    pub(super) want: &'static str,
}

/// A string as it stands in the text: without its quotes, and escaped or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawString<'a> {
    /// First byte behind the quote.
    pub(super) start: usize,
    /// The text between the quotes.
    pub(super) raw: &'a str,
    /// Whether there is a backslash in it.
    pub(super) escaped: bool,
}

/// Reads JSON from its beginning, value by value.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads this text.
    pub(super) fn new(text: &'a str) -> Reader<'a> {
        Reader { text, at: 0 }
    }

    /// All of the text.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// An error here.
    pub(super) fn unreadable(&self, want: &'static str) -> Unreadable {
        Unreadable { at: self.at, want }
    }

    /// The next byte that is no blank.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        match self.text.as_bytes().get(self.at) {
            // Most clients write no blanks.
            Some(&byte) if byte > b' ' => Some(byte),
            _ => self.peek_behind_blanks(),
        }
    }

    #[cold]
    fn peek_behind_blanks(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
        self.at += blanks;
        rest.get(blanks).copied()
    }

    /// Takes `byte` when it is next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes `byte`, or fails.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8, want: &'static str) -> Result<(), Unreadable> {
        if self.take(byte) { Ok(()) } else { Err(self.unreadable(want)) }
    }

    /// Takes a string. Control characters may stand in it as they are.
    #[inline]
    pub(super) fn string(&mut self) -> Result<RawString<'a>, Unreadable> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            self.at += plain_bytes(&bytes[self.at..]);
            match bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') if self.at + 1 < bytes.len() => {
                    escaped = true;
                    // Whatever is escaped, one byte of it cannot end the string.
                    self.at += 2;
                }
                _ => {
                    self.at = bytes.len();
                    return Err(self.unreadable("the end of a string"));
                }
            }
        }
        let raw = self.text.get(start..self.at).ok_or(Unreadable { at: start, want: "a string" })?;
        self.at += 1;
        Ok(RawString { start, raw, escaped })
    }

    /// Takes `"name":"value"` as nearly every field is written, without blanks and escapes: where name and value begin and end.
    ///
    /// Anything else is left to the other readers, and so is saying what is wrong with it: `None`, and nothing taken.
    #[inline]
    pub(super) fn plain_pair(&mut self) -> Option<[usize; 4]> {
        let bytes = self.text.as_bytes();
        let name = self.at + 1;
        let behind_name = name + plain_bytes(bytes.get(name..)?);
        let value = behind_name + 3;
        if bytes[self.at] != b'"' || bytes.get(behind_name..value)? != b"\":\"" {
            return None;
        }
        let behind_value = value + plain_bytes(&bytes[value..]);
        if bytes.get(behind_value) != Some(&b'"') {
            return None;
        }
        self.at = behind_value + 1;
        Some([name, behind_name, value, behind_value])
    }

    /// Takes a number of at most nine digits with the comma or brace behind it still to come; otherwise `None`, and nothing taken.
    #[inline]
    pub(super) fn plain_number(&mut self) -> Option<i32> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let (sign, digits) = match rest.split_first()? {
            (b'-', digits) => (-1, digits),
            _ => (1, rest),
        };
        let length = digits.iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&length) || !matches!(digits.get(length), Some(b',' | b'}')) {
            return None;
        }
        let number = digits[..length].iter().fold(0, |number, digit| number * 10 + i32::from(digit - b'0'));
        self.at += rest.len() - digits.len() + length;
        Some(sign * number)
    }

    /// Takes a number or one of the words `true`, `false` and `null`.
    pub(super) fn bare(&mut self) -> Result<RawString<'a>, Unreadable> {
        self.peek();
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let length = rest.iter().position(|byte| !is_bare(byte)).unwrap_or(rest.len());
        let raw = &self.text[start..start + length];
        let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if !is_number && !matches!(raw, "true" | "false" | "null") {
            return Err(self.unreadable("a value"));
        }
        self.at += length;
        Ok(RawString { start, raw, escaped: false })
    }

    /// Takes any value and says where it stood.
    pub(super) fn skip(&mut self) -> Result<RawString<'a>, Unreadable> {
        self.peek();
        let start = self.at;
        let mut open = [0u8; DEPTH_MAX];
        let mut depth = 0;
        loop {
            match self.peek() {
                Some(opening @ (b'{' | b'[')) => {
                    let Some(slot) = open.get_mut(depth) else {
                        return Err(self.unreadable("less nesting"));
                    };
                    *slot = if opening == b'{' { b'}' } else { b']' };
                    depth += 1;
                    self.at += 1;
                }
                Some(closing @ (b'}' | b']')) if depth > 0 && open[depth - 1] == closing => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => self.at += 1,
                Some(b'"') => {
                    self.string()?;
                }
                _ => {
                    self.bare()?;
                }
            }
            if depth == 0 {
                let raw = self.text.get(start..self.at).ok_or(Unreadable { at: start, want: "a value" })?;
                return Ok(RawString { start, raw, escaped: false });
            }
        }
    }

    /// Fails unless nothing but blanks follows.
    pub(super) fn end(&mut self) -> Result<(), Unreadable> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unreadable("nothing more")) }
    }
}

/// Appends what an escaped string stands for. A half of a surrogate pair on its own becomes U+FFFD.
pub(super) fn unescape(string: RawString<'_>, out: &mut String) -> Result<(), Unreadable> {
    let mut rest = string.raw;
    let fail = |rest: &str| Unreadable { at: string.start + string.raw.len() - rest.len(), want: "a known escape" };
    // What is written is never longer than what is read.
    out.reserve(rest.len());
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(&kind) = rest.as_bytes().get(1) else { return Err(fail(rest)) };
        let plain = match kind {
            b'"' | b'\\' | b'/' | b'\'' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{C}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = unit(rest).ok_or_else(|| fail(rest))?;
                rest = &rest[6..];
                let pair =
                    unit(rest).filter(|second| (0xD800..0xDC00).contains(&first) && (0xDC00..0xE000).contains(second));
                match pair {
                    Some(second) => {
                        rest = &rest[6..];
                        let code = 0x1_0000 + (u32::from(first - 0xD800) << 10) + u32::from(second - 0xDC00);
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    None => out.push(char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER)),
                }
                continue;
            }
            _ => return Err(fail(rest)),
        };
        out.push(plain);
        rest = &rest[2..];
    }
    out.push_str(rest);
    Ok(())
}

/// The UTF-16 unit that `\uXXXX` at the start of `text` stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.as_bytes().first_chunk::<4>()?;
    digits.iter().try_fold(0u16, |unit, &digit| {
        let value = char::from(digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> String {
        let mut out = BytesMut::new();
        put_string(&mut out, text);
        String::from_utf8(out.to_vec()).expect("text")
    }

    fn read(text: &str) -> Result<String, Unreadable> {
        let mut reader = Reader::new(text);
        let string = reader.string()?;
        reader.end()?;
        let mut out = String::new();
        unescape(string, &mut out)?;
        Ok(out)
    }

    #[test]
    fn escapes_are_read_and_raw_control_characters_too() {
        assert_eq!(read(r#""a\u0001b\u0002\n\/\"\\""#).expect("good"), "a\u{1}b\u{2}\n/\"\\");
        assert_eq!(read("\"a\u{1}b\"").expect("good"), "a\u{1}b");
        assert_eq!(read(r#""\ud83d\ude00 \ud83d \ude00""#).expect("good"), "\u{1F600} \u{FFFD} \u{FFFD}");
        for bad in [r#""abc"#, r#""\q""#, r#""\u00g0""#, r#""\u00"#, r#""\"#, r#""\é""#, r#""\u12é4""#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_skipped_whole_and_deep_ones_refused() {
        let mut reader = Reader::new(r#" {"a":[1,true,{"b":"}"}],"c":null} ,"#);
        assert_eq!(reader.skip().expect("a value").raw, r#"{"a":[1,true,{"b":"}"}],"c":null}"#);
        assert!(reader.take(b','));
        assert!(Reader::new(&"[".repeat(DEPTH_MAX + 1)).skip().is_err());
        assert!(Reader::new("[}").skip().is_err());
        assert!(Reader::new("nil").skip().is_err());
    }

    proptest! {
        #[test]
        fn a_written_string_reads_back(text in any::<String>()) {
            let json = written(&text);
            prop_assert_eq!(read(&json).expect("good"), text.clone());
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("strict"), text);
        }

        #[test]
        fn numbers_are_written_as_the_standard_library_does(value in any::<i64>()) {
            let (decimal, text) = (Decimal::new(value), value.to_string());
            prop_assert_eq!(decimal.bytes(), text.as_bytes());
        }

        #[test]
        fn a_plain_number_is_what_the_standard_library_reads(text in "-?[0-9]{0,11}[,} ]") {
            let mut reader = Reader::new(&text);
            if let Some(number) = reader.plain_number() {
                let (digits, behind) = text.split_at(text.len() - 1);
                prop_assert_eq!(digits.parse(), Ok(number));
                prop_assert!(reader.take(behind.as_bytes()[0]));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            black_box(read(&text).is_ok());
            black_box(read(&format!("\"{text}")).is_ok());
            black_box(Reader::new(&text).skip().is_ok());
        }

        #[test]
        fn quotes_are_found_eight_bytes_at_a_time(bytes in prop::collection::vec(prop::sample::select(&b"a\"\\\x80\x21\x23\x5b\xff"[..]), 0..40)) {
            let slow = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(bytes.len());
            prop_assert_eq!(plain_bytes(&bytes), slow);
        }
    }
}
