//! What a request or answer says about itself: its code, its number, and named fields.
//!
//! 1. Reading costs at most one allocation for a usual header, whatever the number of its fields.
//! 2. Fields are text, whichever JSON type they came as; null is absent; the last of several with one name counts.
//! 3. An answer is written in the encoding of its request, with every key that some client family insists on.
//!
//! | Key | Binary | Meaning |
//! |---|---|---|
//! | `code` | i16 | what is asked, or how it went |
//! | `language` | u8 | the sender's |
//! | `version` | i16 | the sender's, as an ordinal of releases |
//! | `opaque` | i32 | the asker's number for this exchange |
//! | `flag` | i32 | bit 0 answer, bit 1 one way |
//! | `remark` | i32 + n | text for people |
//! | `extFields` | i32 + n of (i16 + n, i32 + n) | named fields |
//!
//! Source: wire notes, sections 1.2 to 1.4, 1.7 and 1.8.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::frame::{Encoding, FrameRef, HEADER_BYTES_MAX, PREFIX_BYTES};
use super::json::{Decimal, RawString, Reader, Unreadable, put_number, put_string, unescape};
use crate::limits::FRAME_BYTES_MAX;

/// The version that answers carry: RocketMQ 5.3.3. Clients look at it before they use what newer brokers offer.
pub const VERSION: i32 = 479;
/// Most fields that a header may have; clients send fewer than forty.
pub const FIELD_COUNT_MAX: usize = 1024;
/// Bit of `flag`: this is an answer.
pub const FLAG_RESPONSE: i32 = 1;
/// Bit of `flag`: no answer is wanted.
pub const FLAG_ONEWAY: i32 = 2;

/// Fields that are kept without allocating.
const INLINE_FIELDS: usize = 20;
/// Set in a span that lies in the header's own text rather than in the input.
const OWNED: u32 = 1 << 31;

/// What a client says it is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum Language {
    #[default]
    Java,
    Cpp,
    DotNet,
    Python,
    Delphi,
    Erlang,
    Ruby,
    /// One of those that have no name, or whose name is new.
    Other,
    Http,
    Go,
    Php,
    Oms,
    Rust,
    NodeJs,
}

const LANGUAGES: [(Language, &str); 14] = [
    (Language::Java, "JAVA"),
    (Language::Cpp, "CPP"),
    (Language::DotNet, "DOTNET"),
    (Language::Python, "PYTHON"),
    (Language::Delphi, "DELPHI"),
    (Language::Erlang, "ERLANG"),
    (Language::Ruby, "RUBY"),
    (Language::Other, "OTHER"),
    (Language::Http, "HTTP"),
    (Language::Go, "GO"),
    (Language::Php, "PHP"),
    (Language::Oms, "OMS"),
    (Language::Rust, "RUST"),
    (Language::NodeJs, "NODE_JS"),
];

impl Language {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        LANGUAGES[usize::from(self.code())].1
    }

    /// Its number in the binary form.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The language of that name; [`Language::Other`] when it is not known.
    #[must_use]
    pub fn from_name(name: &str) -> Language {
        LANGUAGES.iter().find(|(_, known)| *known == name).map_or(Language::Other, |(language, _)| *language)
    }

    /// The language of that number; [`Language::Other`] when it is not known.
    #[must_use]
    pub fn from_code(code: u8) -> Language {
        LANGUAGES.get(usize::from(code)).map_or(Language::Other, |(language, _)| *language)
    }
}

/// A header that cannot be read. Nothing can be answered, because whom to answer is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// JSON that is none.
    #[error("header is unreadable at byte {at}: {want} is wanted")]
    Unreadable {
        /// Byte of the header.
        at: usize,
        /// What should stand there.
        want: &'static str,
    },
    /// A number that is none, or does not fit 32 bits.
    #[error("header's {name} is {found:?}; a number is wanted")]
    NotANumber {
        /// Which key.
        name: &'static str,
        /// The beginning of what stands there.
        found: String,
    },
    /// There is no code.
    #[error("header has no code")]
    NoCode,
    /// More fields than [`FIELD_COUNT_MAX`].
    #[error("header has more than {FIELD_COUNT_MAX} fields")]
    TooManyFields,
}

impl From<Unreadable> for HeaderError {
    fn from(Unreadable { at, want }: Unreadable) -> HeaderError {
        HeaderError::Unreadable { at, want }
    }
}

/// Bytes of the input, or of the header's own text.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Field {
    name: Span,
    value: Span,
}

/// A header that was read. It borrows what did not need to be changed.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// What is asked, or how it went.
    pub code: i32,
    /// What the sender is written in.
    pub language: Language,
    /// The sender's version, as an ordinal of releases.
    pub version: i32,
    /// The asker's number for this exchange.
    pub opaque: i32,
    /// [`FLAG_RESPONSE`] and [`FLAG_ONEWAY`].
    pub flag: i32,
    /// How it was written, and so how its answer is to be written.
    pub encoding: Encoding,
    remark: Option<Span>,
    has_fields: bool,
    input: Cow<'a, str>,
    /// What had to be unescaped, or copied because it is not text as a whole.
    own: String,
    /// For fields with a name of one letter: the place of the last one, plus one.
    letters: [u16; 26],
    field_count: usize,
    inline: [Field; INLINE_FIELDS],
    spilled: Vec<Field>,
}

impl<'a> Header<'a> {
    /// Reads a header.
    ///
    /// Bytes that are not UTF-8 become U+FFFD. Unknown keys and languages are accepted, and whatever is absent is 0 or empty.
    ///
    /// # Errors
    /// When it cannot be read or has no code. The connection is of no further use.
    pub fn decode(encoding: Encoding, bytes: &'a [u8]) -> Result<Header<'a>, HeaderError> {
        let mut header = Header {
            code: 0,
            language: Language::Java,
            version: 0,
            opaque: 0,
            flag: 0,
            encoding,
            remark: None,
            has_fields: false,
            input: Cow::Borrowed(""),
            own: String::new(),
            letters: [0; 26],
            field_count: 0,
            inline: [Field::default(); INLINE_FIELDS],
            spilled: Vec::new(),
        };
        match encoding {
            // Frames are far below 2 GiB, so spans fit; this holds for any other caller too.
            _ if bytes.len() > HEADER_BYTES_MAX => return Err(unreadable(HEADER_BYTES_MAX, "a shorter header")),
            // Asked in this order, because the lossy way is several times slower even where nothing is lost.
            Encoding::Json => match std::str::from_utf8(bytes) {
                Ok(text) => {
                    header.input = Cow::Borrowed(text);
                    header.read_json(text)?;
                }
                Err(_) => {
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    header.read_json(&text)?;
                    header.input = Cow::Owned(text);
                }
            },
            Encoding::Binary => header.read_binary(bytes)?,
        }
        Ok(header)
    }

    /// Reads the header of a frame.
    ///
    /// # Errors
    /// As [`Header::decode`].
    pub fn of(frame: &FrameRef<'a>) -> Result<Header<'a>, HeaderError> {
        Header::decode(frame.encoding, frame.header)
    }

    /// Whether this is an answer.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether no answer is wanted.
    #[must_use]
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// Text for people.
    #[must_use]
    pub fn remark(&self) -> Option<&str> {
        self.remark.map(|span| self.text(span))
    }

    /// Whether there were fields, be it none of them: an empty object is not the same as nothing.
    #[must_use]
    pub fn has_fields(&self) -> bool {
        self.has_fields
    }

    /// The field's text, when it is there and not null.
    #[must_use]
    #[inline]
    pub fn field(&self, name: &str) -> Option<&str> {
        if let [letter @ b'a'..=b'z'] = name.as_bytes() {
            let place = usize::from(self.letters[usize::from(letter - b'a')]);
            return self.nth(place.checked_sub(1)?).map(|field| self.text(field.value));
        }
        (0..self.field_count)
            .rev()
            .filter_map(|place| self.nth(place))
            .find(|field| field.name.len as usize == name.len() && self.text(field.name) == name)
            .map(|field| self.text(field.value))
    }

    /// All fields in the order in which they came.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.field_count)
            .filter_map(|place| self.nth(place))
            .map(|field| (self.text(field.name), self.text(field.value)))
    }

    #[inline]
    fn nth(&self, place: usize) -> Option<Field> {
        match place.checked_sub(INLINE_FIELDS) {
            None => self.inline.get(place).copied(),
            Some(place) => self.spilled.get(place).copied(),
        }
    }

    #[inline]
    fn text(&self, span: Span) -> &str {
        let text = if span.start & OWNED == 0 { &*self.input } else { &*self.own };
        let start = (span.start & !OWNED) as usize;
        // Spans are made from slices of the same text, so they always lie in it.
        text.get(start..start + span.len as usize).unwrap_or_default()
    }

    fn push(&mut self, name: Span, name_text: &[u8], value: Span) -> Result<(), HeaderError> {
        if self.field_count == FIELD_COUNT_MAX {
            return Err(HeaderError::TooManyFields);
        }
        let field = Field { name, value };
        match self.inline.get_mut(self.field_count) {
            Some(slot) => *slot = field,
            None => self.spilled.push(field),
        }
        self.field_count += 1;
        if let [letter @ b'a'..=b'z'] = name_text {
            self.letters[usize::from(letter - b'a')] = u16::try_from(self.field_count).unwrap_or(0);
        }
        Ok(())
    }

    fn own_since(&self, start: usize) -> Result<Span, HeaderError> {
        span(start, self.own.len() - start).map(|span| Span { start: span.start | OWNED, ..span })
    }

    fn keep(&mut self, string: RawString<'_>) -> Result<Span, HeaderError> {
        if !string.escaped {
            return span(string.start, string.raw.len());
        }
        let start = self.own.len();
        unescape(string, &mut self.own)?;
        self.own_since(start)
    }

    fn read_json(&mut self, text: &str) -> Result<(), HeaderError> {
        let mut reader = Reader::new(text);
        let mut code = None;
        reader.expect(b'{', "an object")?;
        if !reader.take(b'}') {
            loop {
                let key = reader.string()?;
                reader.expect(b':', "a colon")?;
                match key.raw {
                    "code" => code = number(&mut reader, "code")?.or(code),
                    "opaque" => self.opaque = number(&mut reader, "opaque")?.unwrap_or(0),
                    "flag" => self.flag = number(&mut reader, "flag")?.unwrap_or(0),
                    "version" => self.version = number(&mut reader, "version")?.unwrap_or(0),
                    "language" => {
                        let value = scalar(&mut reader)?;
                        self.language = value.map_or(Language::Other, |value| Language::from_name(value.raw));
                    }
                    "remark" => {
                        self.remark = match scalar(&mut reader)? {
                            Some(value) => Some(self.keep(value)?),
                            None => None,
                        };
                    }
                    "extFields" => self.read_json_fields(&mut reader)?,
                    _ => {
                        reader.skip()?;
                    }
                }
                if !reader.take(b',') {
                    break;
                }
            }
            reader.expect(b'}', "a comma or the end of the object")?;
        }
        reader.end()?;
        self.code = code.ok_or(HeaderError::NoCode)?;
        Ok(())
    }

    fn read_json_fields(&mut self, reader: &mut Reader<'_>) -> Result<(), HeaderError> {
        if reader.peek() == Some(b'n') {
            reader.bare()?;
            return Ok(());
        }
        self.has_fields = true;
        reader.expect(b'{', "an object of fields")?;
        if reader.take(b'}') {
            return Ok(());
        }
        loop {
            if let Some([name, behind_name, value, behind_value]) = reader.plain_pair() {
                let text = reader.bytes().get(name..behind_name).unwrap_or_default();
                self.push(span(name, behind_name - name)?, text, span(value, behind_value - value)?)?;
                if !reader.take(b',') {
                    break;
                }
                continue;
            }
            let name = reader.string()?;
            reader.expect(b':', "a colon")?;
            if let Some(value) = scalar(reader)? {
                let value = self.keep(value)?;
                let name_span = self.keep(name)?;
                self.push(name_span, name.raw.as_bytes(), value)?;
            }
            if !reader.take(b',') {
                break;
            }
        }
        Ok(reader.expect(b'}', "a comma or the end of the fields")?)
    }

    fn read_binary(&mut self, bytes: &[u8]) -> Result<(), HeaderError> {
        let mut input = Binary { bytes, at: 0 };
        self.code = i32::from(i16::from_be_bytes(input.take("a code")?));
        let [language] = input.take("a language")?;
        self.language = Language::from_code(language);
        self.version = i32::from(i16::from_be_bytes(input.take("a version")?));
        self.opaque = i32::from_be_bytes(input.take("an opaque")?);
        self.flag = i32::from_be_bytes(input.take("a flag")?);
        let length = i32::from_be_bytes(input.take("a remark's length")?);
        let remark = input.slice(i64::from(length), "a remark as long as it says")?;
        if !remark.is_empty() {
            self.remark = Some(self.copy(remark)?);
        }
        let length = i32::from_be_bytes(input.take("the fields' length")?);
        let fields = input.slice(i64::from(length), "fields as long as they say")?;
        if input.at != bytes.len() {
            return Err(unreadable(input.at, "nothing more"));
        }
        self.has_fields = !fields.is_empty();
        self.own.reserve(fields.len());
        let mut entries = Binary { bytes, at: input.at - fields.len() };
        while entries.at < bytes.len() {
            let length = i16::from_be_bytes(entries.take("a name's length")?);
            let name = entries.slice(i64::from(length), "a name as long as it says")?;
            let length = i32::from_be_bytes(entries.take("a value's length")?);
            let value = entries.slice(i64::from(length), "a value as long as it says")?;
            let (name_span, value) = (self.copy(name)?, self.copy(value)?);
            self.push(name_span, name, value)?;
        }
        Ok(())
    }

    fn copy(&mut self, bytes: &[u8]) -> Result<Span, HeaderError> {
        let start = self.own.len();
        self.own.push_str(&String::from_utf8_lossy(bytes));
        self.own_since(start)
    }
}

fn unreadable(at: usize, want: &'static str) -> HeaderError {
    HeaderError::Unreadable { at, want }
}

fn span(start: usize, len: usize) -> Result<Span, HeaderError> {
    match (u32::try_from(start), u32::try_from(len)) {
        (Ok(start), Ok(len)) if start < OWNED => Ok(Span { start, len }),
        _ => Err(unreadable(start, "a shorter header")),
    }
}

/// Takes a value as text; `None` for null. Objects and lists stay as they are written.
#[inline]
fn scalar<'a>(reader: &mut Reader<'a>) -> Result<Option<RawString<'a>>, Unreadable> {
    match reader.peek() {
        Some(b'"') => reader.string().map(Some),
        Some(b'{' | b'[') => reader.skip().map(Some),
        _ => reader.bare().map(|value| (value.raw != "null").then_some(value)),
    }
}

#[inline]
fn number(reader: &mut Reader<'_>, name: &'static str) -> Result<Option<i32>, HeaderError> {
    match reader.plain_number() {
        Some(number) => Ok(Some(number)),
        None => any_number(reader, name),
    }
}

fn any_number(reader: &mut Reader<'_>, name: &'static str) -> Result<Option<i32>, HeaderError> {
    let Some(value) = scalar(reader)? else { return Ok(None) };
    match value.raw.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(HeaderError::NotANumber { name, found: value.raw.chars().take(40).collect() }),
    }
}

/// A binary header from some byte on.
struct Binary<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Binary<'a> {
    fn take<const N: usize>(&mut self, want: &'static str) -> Result<[u8; N], HeaderError> {
        let found = self.bytes[self.at..].first_chunk::<N>().ok_or_else(|| unreadable(self.at, want))?;
        self.at += N;
        Ok(*found)
    }

    fn slice(&mut self, length: i64, want: &'static str) -> Result<&'a [u8], HeaderError> {
        let found = usize::try_from(length).ok().and_then(|length| self.bytes[self.at..].get(..length));
        let found = found.ok_or_else(|| unreadable(self.at, want))?;
        self.at += found.len();
        Ok(found)
    }
}

/// A frame that the protocol cannot express. Nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Larger than a frame may be.
    #[error("frame would have {bytes} bytes, {FRAME_BYTES_MAX} are the most")]
    FrameTooLong {
        /// Bytes with the length word.
        bytes: usize,
    },
    /// The code, version, or the name of a field does not fit the binary form.
    #[error("{what} does not fit a binary header")]
    NotBinary {
        /// What does not fit.
        what: &'static str,
    },
}

/// What a frame to be written begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// How to write it.
    pub encoding: Encoding,
    /// What is asked, or how it went.
    pub code: i32,
    /// What the sender is written in.
    pub language: Language,
    /// The sender's version.
    pub version: i32,
    /// The asker's number for this exchange.
    pub opaque: i32,
    /// [`FLAG_RESPONSE`] and [`FLAG_ONEWAY`].
    pub flag: i32,
    /// Text for people.
    pub remark: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// An answer to the request with this number, in its encoding.
    #[must_use]
    pub fn response(encoding: Encoding, code: i32, opaque: i32) -> Head<'a> {
        Head { flag: FLAG_RESPONSE, ..Head::request(encoding, code, opaque) }
    }

    /// A request of ours. It says `JAVA`, because not every client knows other names.
    #[must_use]
    pub fn request(encoding: Encoding, code: i32, opaque: i32) -> Head<'a> {
        Head { encoding, code, language: Language::Java, version: VERSION, opaque, flag: 0, remark: None }
    }

    /// The same, wanting no answer.
    #[must_use]
    pub fn oneway(self) -> Head<'a> {
        Head { flag: self.flag | FLAG_ONEWAY, ..self }
    }

    /// The same with text for people.
    #[must_use]
    pub fn with_remark(self, remark: impl Into<Option<&'a str>>) -> Head<'a> {
        Head { remark: remark.into(), ..self }
    }

    /// Begins a frame behind what is in `out`.
    pub fn encode(self, out: &'a mut BytesMut) -> FrameEncoder<'a> {
        FrameEncoder::new(self, out)
    }
}

/// A frame being written: first its fields, then [`FrameEncoder::finish`].
///
/// JSON keys stand in the order in which the original writes them; no client cares, but recordings compare well.
#[derive(Debug)]
#[must_use = "a frame that is not finished leaves half of one in the buffer"]
pub struct FrameEncoder<'a> {
    head: Head<'a>,
    out: &'a mut BytesMut,
    start: usize,
    /// Where the length of the binary fields stands.
    fields_at: usize,
    fields_open: bool,
    error: Option<EncodeError>,
}

impl<'a> FrameEncoder<'a> {
    fn new(head: Head<'a>, out: &'a mut BytesMut) -> FrameEncoder<'a> {
        let start = out.len();
        // Enough for an answer to a send, so that it is written without growing in between.
        out.reserve(320);
        out.put_bytes(0, PREFIX_BYTES);
        let mut error = None;
        match head.encoding {
            Encoding::Json => {
                out.put_slice(b"{\"code\":");
                put_number(out, i64::from(head.code));
            }
            Encoding::Binary => {
                let not_binary = |what| EncodeError::NotBinary { what };
                let code = i16::try_from(head.code).map_err(|_| not_binary("the code"));
                let version = i16::try_from(head.version).map_err(|_| not_binary("the version"));
                let remark = head.remark.unwrap_or_default();
                let remark_bytes = i32::try_from(remark.len()).map_err(|_| not_binary("the remark"));
                error = code.err().or(version.err()).or(remark_bytes.err());
                out.put_i16(code.unwrap_or(0));
                out.put_u8(head.language.code());
                out.put_i16(version.unwrap_or(0));
                out.put_i32(head.opaque);
                out.put_i32(head.flag);
                out.put_i32(remark_bytes.unwrap_or(0));
                out.put_slice(remark.as_bytes());
            }
        }
        let fields_at = out.len();
        if head.encoding == Encoding::Binary {
            out.put_i32(0);
        }
        FrameEncoder { head, out, start, fields_at, fields_open: false, error }
    }

    /// Writes an object of fields even if none follows: clients that read fields of an answer want one.
    pub fn fields(&mut self) -> &mut Self {
        if !self.fields_open && self.head.encoding == Encoding::Json {
            self.out.put_slice(b",\"extFields\":{");
        }
        self.fields_open = true;
        self
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: &str) -> &mut Self {
        match self.head.encoding {
            Encoding::Json => {
                self.json_name(name);
                put_string(self.out, value);
            }
            Encoding::Binary => self.binary_field(name, value.as_bytes()),
        }
        self
    }

    /// Adds a field that is a number; on the wire it is text all the same.
    pub fn number(&mut self, name: &str, value: i64) -> &mut Self {
        let decimal = Decimal::new(value);
        match self.head.encoding {
            Encoding::Json => {
                self.json_name(name);
                self.out.put_u8(b'"');
                self.out.put_slice(decimal.bytes());
                self.out.put_u8(b'"');
            }
            Encoding::Binary => self.binary_field(name, decimal.bytes()),
        }
        self
    }

    /// Adds a field that is true or false.
    pub fn switch(&mut self, name: &str, value: bool) -> &mut Self {
        self.field(name, if value { "true" } else { "false" })
    }

    fn json_name(&mut self, name: &str) {
        if self.fields_open && self.out.last() != Some(&b'{') {
            self.out.put_u8(b',');
        }
        self.fields();
        put_string(self.out, name);
        self.out.put_u8(b':');
    }

    fn binary_field(&mut self, name: &str, value: &[u8]) {
        let (Ok(name_bytes), Ok(value_bytes)) = (i16::try_from(name.len()), i32::try_from(value.len())) else {
            self.error.get_or_insert(EncodeError::NotBinary { what: "a field" });
            return;
        };
        self.out.put_i16(name_bytes);
        self.out.put_slice(name.as_bytes());
        self.out.put_i32(value_bytes);
        self.out.put_slice(value);
    }

    /// Ends the frame with this body.
    ///
    /// # Errors
    /// When the protocol cannot express it; the buffer is as it was before.
    pub fn finish(self, body: &[u8]) -> Result<(), EncodeError> {
        self.finish_with(|out| out.put_slice(body))
    }

    /// Ends the frame with what `body` appends.
    ///
    /// # Errors
    /// As [`FrameEncoder::finish`].
    pub fn finish_with(mut self, body: impl FnOnce(&mut BytesMut)) -> Result<(), EncodeError> {
        let header_bytes = self.finish_header();
        body(self.out);
        let total_bytes = self.out.len() - self.start;
        self.finish_prefix(header_bytes, total_bytes)
    }

    /// Ends the frame for a body of this many bytes, which the caller writes behind it.
    ///
    /// # Errors
    /// As [`FrameEncoder::finish`].
    pub fn finish_before(mut self, body_bytes: usize) -> Result<(), EncodeError> {
        let header_bytes = self.finish_header();
        self.finish_prefix(header_bytes, PREFIX_BYTES + header_bytes + body_bytes)
    }

    fn finish_header(&mut self) -> usize {
        let out = &mut *self.out;
        match self.head.encoding {
            Encoding::Json => {
                if self.fields_open {
                    out.put_u8(b'}');
                }
                out.put_slice(b",\"flag\":");
                put_number(out, i64::from(self.head.flag));
                out.put_slice(b",\"language\":\"");
                out.put_slice(self.head.language.name().as_bytes());
                out.put_slice(b"\",\"opaque\":");
                put_number(out, i64::from(self.head.opaque));
                if let Some(remark) = self.head.remark {
                    out.put_slice(b",\"remark\":");
                    put_string(out, remark);
                }
                out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
                put_number(out, i64::from(self.head.version));
                out.put_u8(b'}');
            }
            Encoding::Binary => {
                let length = out.len() - self.fields_at - 4;
                match u32::try_from(length) {
                    Ok(length) => out[self.fields_at..self.fields_at + 4].copy_from_slice(&length.to_be_bytes()),
                    Err(_) => self.error = self.error.or(Some(EncodeError::NotBinary { what: "the fields" })),
                }
            }
        }
        self.out.len() - self.start - PREFIX_BYTES
    }

    fn finish_prefix(self, header_bytes: usize, total_bytes: usize) -> Result<(), EncodeError> {
        let too_long = EncodeError::FrameTooLong { bytes: total_bytes };
        let words = match (u32::try_from(total_bytes - 4), u32::try_from(header_bytes)) {
            _ if self.error.is_some() => Err(self.error.unwrap_or(too_long)),
            (Ok(length), Ok(header)) if total_bytes <= FRAME_BYTES_MAX => Ok((length, header)),
            _ => Err(too_long),
        };
        match words {
            Ok((length, header)) => {
                let prefix = &mut self.out[self.start..self.start + PREFIX_BYTES];
                prefix[..4].copy_from_slice(&length.to_be_bytes());
                prefix[4..].copy_from_slice(&header.to_be_bytes());
                prefix[4] = self.head.encoding.byte();
                Ok(())
            }
            Err(error) => {
                self.out.truncate(self.start);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> Result<Header<'_>, HeaderError> {
        Header::decode(Encoding::Json, text.as_bytes())
    }

    #[test]
    fn fields_are_text_whatever_they_came_as() {
        let header = json(
            r#" { "extFields" : {"a":"x","queueId":3,"e":-1,"unitMode":false,"f":null,"z":{"k":[1,"}"]},"i":"TAGS\u0001A\u0002"},
            "code":310,"unknown":[{"code":1}],"language":"COBOL","opaque":7,"flag":2,"remark":""} "#,
        )
        .expect("good");
        assert_eq!((header.code, header.opaque, header.version), (310, 7, 0));
        assert!(header.is_oneway() && !header.is_response() && header.has_fields());
        assert_eq!((header.language, header.remark()), (Language::Other, Some("")));
        assert_eq!(header.field("a"), Some("x"));
        assert_eq!(header.field("queueId"), Some("3"));
        assert_eq!(header.field("e"), Some("-1"));
        assert_eq!(header.field("unitMode"), Some("false"));
        assert_eq!(header.field("f"), None);
        assert_eq!(header.field("z"), Some(r#"{"k":[1,"}"]}"#));
        assert_eq!(header.field("i"), Some("TAGS\u{1}A\u{2}"));
        assert_eq!((header.field("b"), header.field("topic")), (None, None));
        assert_eq!(header.fields().count(), 6);
    }

    #[test]
    fn the_last_of_several_fields_with_one_name_counts() {
        let header = json(r#"{"code":"10","extFields":{"a":"1","topic":"1","a":"2","topic":"2"}}"#).expect("good");
        assert_eq!((header.code, header.field("a"), header.field("topic")), (10, Some("2"), Some("2")));
    }

    #[test]
    fn missing_null_and_empty_fields_differ_only_where_it_matters() {
        for (text, has) in [
            (r#"{"code":34}"#, false),
            (r#"{"code":34,"extFields":null,"remark":null}"#, false),
            (r#"{"code":34,"extFields":{}}"#, true),
        ] {
            let header = json(text).expect("good");
            assert_eq!((header.has_fields(), header.fields().count(), header.remark()), (has, 0, None), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_cost_only_themselves() {
        let bytes = b"{\"code\":1,\"extFields\":{\"a\":\"x\xFFy\\u0001\",\"b\":\"\x01\"}}";
        let header = Header::decode(Encoding::Json, bytes).expect("good");
        assert_eq!((header.field("a"), header.field("b")), (Some("x\u{FFFD}y\u{1}"), Some("\u{1}")));
    }

    #[test]
    fn headers_that_make_no_sense_are_refused() {
        for text in [
            "",
            "{",
            "[]",
            "{}",
            "{\"code\":}",
            "{\"code\":1",
            "{\"code\":1}x",
            "{\"code\":1,}",
            "{\"code\":1 \"flag\":0}",
            "{\"code\":\"x\"}",
            "{\"code\":1.5}",
            "{\"code\":99999999999}",
            "{\"code\":1,\"opaque\":true}",
            "{\"code\":1,\"extFields\":[]}",
            "{\"code\":1,\"extFields\":{\"a\"}}",
            "{\"code\":1,\"extFields\":{\"a\":\"\\q\"}}",
        ] {
            assert!(json(text).is_err(), "{text}");
        }
        let many: Vec<_> = (0..=FIELD_COUNT_MAX).map(|n| format!("\"n{n}\":1")).collect();
        let text = format!("{{\"code\":1,\"extFields\":{{{}}}}}", many.join(","));
        assert_eq!(json(&text).expect_err("too many"), HeaderError::TooManyFields);
        assert!(json(&format!("{{\"code\":1,\"x\":{}", "[".repeat(100_000))).is_err());
    }

    #[test]
    fn more_fields_than_are_kept_inline_are_found_too() {
        let many: Vec<_> = (0..100).map(|n| format!("\"n{n}\":\"{n}\"")).collect();
        let text = format!("{{\"code\":1,\"extFields\":{{{},\"q\":\"last\"}}}}", many.join(","));
        let header = json(&text).expect("good");
        assert_eq!((header.field("n0"), header.field("n99"), header.field("q")), (Some("0"), Some("99"), Some("last")));
    }

    #[test]
    fn languages_have_one_name_and_one_number() {
        for (language, name) in LANGUAGES {
            assert_eq!((Language::from_name(name), language.name()), (language, name));
            assert_eq!(Language::from_code(language.code()), language);
        }
        assert_eq!(Language::from_code(99), Language::Other);
    }

    #[test]
    fn what_cannot_be_expressed_leaves_the_buffer_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        let pop = Head::request(Encoding::Binary, 200_050, 1).encode(&mut out);
        assert_eq!(pop.finish(b""), Err(EncodeError::NotBinary { what: "the code" }));
        let mut long = Head::request(Encoding::Binary, 1, 1).encode(&mut out);
        long.field(&"n".repeat(40_000), "v");
        assert_eq!(long.finish(b""), Err(EncodeError::NotBinary { what: "a field" }));
        let large = Head::response(Encoding::Json, 0, 1).encode(&mut out);
        assert!(matches!(large.finish_before(FRAME_BYTES_MAX), Err(EncodeError::FrameTooLong { .. })));
        assert_eq!(&out[..], b"before");
    }

    prop_compose! {
        fn any_encoding()(binary in any::<bool>()) -> Encoding {
            if binary { Encoding::Binary } else { Encoding::Json }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            encoding in any_encoding(), code in any::<i16>(), opaque in any::<i32>(), flag in 0..4i32, language in 0..14u8,
            version in any::<i16>(), remark in prop::option::of("\\PC{1,20}"), with_fields in any::<bool>(),
            fields in prop::collection::vec(("[a-z]{1,3}", any::<String>()), 0..30), number in any::<i64>(),
            body in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let head = Head {
                encoding, code: code.into(), language: Language::from_code(language), version: version.into(), opaque, flag,
                remark: remark.as_deref(),
            };
            let mut out = BytesMut::from(&b"before"[..]);
            let mut frame = head.encode(&mut out);
            if with_fields {
                frame.fields();
                for (name, value) in &fields {
                    frame.field(name, value);
                }
                frame.number("Number", number).switch("Switch", true);
            }
            frame.finish(&body).expect("it fits");
            let frame = FrameRef::parse(&out[6..]).expect("a frame").expect("a whole one");
            prop_assert_eq!((frame.total_bytes(), frame.body), (out.len() - 6, &body[..]));
            let header = Header::of(&frame).expect("good");
            prop_assert_eq!((header.code, header.version, header.opaque), (head.code, head.version, opaque));
            prop_assert_eq!((header.flag, header.language, header.remark()), (flag, head.language, remark.as_deref()));
            prop_assert_eq!(header.has_fields(), with_fields);
            if with_fields {
                let number = number.to_string();
                let mut all: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                all.extend([("Number", number.as_str()), ("Switch", "true")]);
                prop_assert_eq!(header.fields().collect::<Vec<_>>(), all.clone());
                for (name, _) in &all {
                    let last = all.iter().rev().find(|(other, _)| other == name).map(|(_, value)| *value);
                    prop_assert_eq!(header.field(name), last);
                }
            }
        }

        #[test]
        fn written_json_is_what_a_strict_reader_takes(
            code in any::<i32>(), remark in prop::option::of(any::<String>()),
            fields in prop::collection::btree_map(any::<String>(), any::<String>(), 0..6),
        ) {
            let mut out = BytesMut::new();
            let mut frame = Head::response(Encoding::Json, code, 9).with_remark(remark.as_deref()).encode(&mut out);
            frame.fields();
            for (name, value) in &fields {
                frame.field(name, value);
            }
            frame.finish(b"").expect("it fits");
            let value: serde_json::Value = serde_json::from_slice(&out[PREFIX_BYTES..]).expect("strict JSON");
            let mut wanted = serde_json::json!({
                "code": code, "extFields": fields, "flag": 1, "language": "JAVA", "opaque": 9,
                "serializeTypeCurrentRPC": "JSON", "version": 479,
            });
            if let Some(remark) = remark {
                wanted["remark"] = remark.into();
            }
            prop_assert_eq!(value, wanted);
        }

        #[test]
        fn any_bytes_are_a_header_or_an_error(encoding in any_encoding(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            black_box(Header::decode(encoding, &bytes).map(|header| header.fields().count()).is_ok());
        }

        #[test]
        fn damage_to_a_good_header_never_panics(
            encoding in any_encoding(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut out = BytesMut::new();
            let mut frame = Head::request(encoding, 310, 7).with_remark("why\u{1}").encode(&mut out);
            frame.field("a", "group").field("i", "TAGS\u{1}A\u{2}").number("e", -1);
            frame.finish(b"").expect("it fits");
            let mut header = out[PREFIX_BYTES..].to_vec();
            let at = at.index(header.len());
            header[at] = byte;
            header.truncate(cut.index(header.len()) + 1);
            black_box(Header::decode(encoding, &header).map(|header| header.fields().map(|(name, _)| name.len()).sum::<usize>()).is_ok());
        }

        #[test]
        fn json_that_a_strict_reader_takes_reads_the_same(
            fields in prop::collection::btree_map("[a-zA-Z]{1,8}", any::<String>(), 0..25), pretty in any::<bool>(),
        ) {
            let value = serde_json::json!({"code": 11, "extFields": fields, "opaque": -5});
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.expect("JSON");
            let header = json(&text).expect("good");
            prop_assert_eq!(header.fields().count(), fields.len());
            for (name, value) in &fields {
                prop_assert_eq!(header.field(name), Some(value.as_str()));
            }
        }
    }
}
