//! A request as handlers see it.

use std::net::SocketAddr;
use std::str::FromStr;

use crate::features::access::Pass;
use crate::features::outcome::Reply;
use crate::net::ConnectionId;
use crate::wire::Header;
use crate::wire::codes::response as code;

/// A field that is missing or is not what it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// It is not there.
    #[error("the request lacks the field {0}")]
    Missing(&'static str),
    /// It cannot be read.
    #[error("the request's field {name} is {found:?}; {want} is wanted")]
    Unreadable {
        /// Which field.
        name: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        want: &'static str,
    },
}

impl From<FieldError> for Reply {
    fn from(error: FieldError) -> Reply {
        Reply::failure(code::SYSTEM_ERROR, error.to_string())
    }
}

/// A request, with what is known of whoever sent it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its header.
    pub header: &'a Header<'a>,
    /// Its body.
    pub body: &'a [u8],
    /// Which connection it came by.
    pub connection: ConnectionId,
    /// Who is at its other end.
    pub peer: SocketAddr,
    /// What whoever sent it may do; everything, where nobody is asked who he is.
    pub pass: Option<&'a Pass>,
}

/// The first client version that knows [`code::INVALID_PARAMETER`].
const VERSION_5_0_0: i32 = 413;

impl<'a> Request<'a> {
    /// What whoever sent it may do, for a part of its handler that goes on elsewhere.
    #[must_use]
    pub fn pass(&self) -> Pass {
        self.pass.cloned().unwrap_or_default()
    }

    /// A text field that may be there.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.header.field(name)
    }

    /// A text field that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn required(&self, name: &'static str) -> Result<&'a str, FieldError> {
        self.header.field(name).ok_or(FieldError::Missing(name))
    }

    /// A number that may be there.
    ///
    /// # Errors
    /// When it is there and no number of this kind.
    pub fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, FieldError> {
        let Some(text) = self.header.field(name) else {
            return Ok(None);
        };
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let unreadable = |_| FieldError::Unreadable { name, found: text.chars().take(40).collect(), want: "a number" };
        text.parse().map(Some).map_err(unreadable)
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn required_number<T: FromStr>(&self, name: &'static str) -> Result<T, FieldError> {
        self.number(name)?.ok_or(FieldError::Missing(name))
    }

    /// A switch; off when it is not there. Old clients write `1`.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        self.header.field(name).is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true"))
    }

    /// The code that this client knows for a parameter out of range.
    #[must_use]
    pub fn invalid_parameter(&self, remark: impl Into<std::borrow::Cow<'static, str>>) -> Reply {
        let known = self.header.version >= VERSION_5_0_0;
        Reply::failure(if known { code::INVALID_PARAMETER } else { code::SYSTEM_ERROR }, remark)
    }
}
