//! Signatures of requests: HMAC-SHA1 over the values of the fields, in the order of their names, and the body behind them.
//!
//! Source: wire notes, section 2.16; golden signatures of the Java and Go clients are among the tests.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// The field that holds the signature. It does not sign itself.
pub const SIGNATURE: &str = "Signature";
/// The field that names the account.
pub const ACCESS_KEY: &str = "AccessKey";
/// A field that clients before 5.0 add behind their signature.
const ADDED_LATER: &str = "_UNIQUE_KEY_QUERY";

/// What an account signs with. Never shown.
#[derive(Clone)]
pub struct Secret {
    text: Box<str>,
    mac: Hmac<Sha1>,
}

impl Secret {
    /// A secret from its text.
    ///
    /// # Panics
    /// Never: the code takes keys of any length.
    #[must_use]
    pub fn new(text: &str) -> Secret {
        let mac = Hmac::new_from_slice(text.as_bytes()).expect("a key may have any length");
        Secret { text: text.into(), mac }
    }

    /// Its text, to be kept.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Signs a request.
    #[must_use]
    pub fn sign(&self, fields: &[(&str, &str)], body: &[u8]) -> String {
        BASE64_STANDARD.encode(self.code(fields.iter().copied(), body, "").finalize().into_bytes())
    }

    /// Whether this is the signature of a request with these fields, in a time that does not depend on where it differs.
    #[must_use]
    pub fn signs<'a>(
        &self,
        fields: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        body: &[u8],
        signature: &str,
    ) -> bool {
        let Ok(signature) = BASE64_STANDARD.decode(signature.trim()) else { return false };
        let is = |left_out: &str| self.code(fields.clone(), body, left_out).verify_slice(&signature).is_ok();
        is("") || (fields.clone().any(|(name, _)| name == ADDED_LATER) && is(ADDED_LATER))
    }

    fn code<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a str)>, body: &[u8], left_out: &str) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        for value in signed_values(fields, left_out) {
            mac.update(value.as_bytes());
        }
        mac.update(body);
        mac
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.text == other.text
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The values that are signed, in the order of their names. Of several fields with one name the last counts, as it does everywhere.
fn signed_values<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>, left_out: &str) -> Vec<&'a str> {
    let mut fields: Vec<_> = fields.filter(|(name, _)| *name != SIGNATURE && *name != left_out).collect();
    fields.sort_by_key(|(name, _)| *name);
    let counts = |place: &usize| fields.get(place + 1).is_none_or(|(next, _)| *next != fields[*place].0);
    (0..fields.len()).filter(counts).map(|place| fields[place].1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(secret: &str, fields: &[(&str, &str)], body: &[u8], signature: &str) -> bool {
        Secret::new(secret).signs(fields.iter().copied(), body, signature)
    }

    /// As `AclUtils.calSignature` of rocketmq-client 5.3.3 has it, and `calculateSignature` of rocketmq-client-go 2.1.2.
    #[test]
    fn a_text_is_signed_as_the_clients_sign_it() {
        let signature = Secret::new("adiaushdiaushd").sign(&[], b"Hello RocketMQ Client ACL Feature");
        assert_eq!(signature, "tAb/54Rwwcq+pbH8Loi7FWX4QSQ=");
    }

    /// As rocketmq-client 5.3.3 (Java) signs a send, and a question for a route with a security token.
    #[test]
    fn what_a_real_client_signed_is_signed() {
        let send = [
            ("AccessKey", "producer1"),
            ("a", "pg"),
            ("b", "T1"),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "2"),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", "KEYS\u{1}k\u{2}"),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
            ("Signature", "CaAI8tq/MlIPv8+AcF8PrVIWyI8="),
        ];
        assert!(signs("s3cret-key-of-producer1", &send, "grüße".as_bytes(), "CaAI8tq/MlIPv8+AcF8PrVIWyI8="));
        let route = [("AccessKey", "producer1"), ("SecurityToken", "token"), ("topic", "T1")];
        assert!(signs("s3cret-key-of-producer1", &route, b"", "wrXPFseKRM4F0kfG1i1879PhvRA="));
    }

    #[test]
    fn what_is_signed_is_every_value_in_the_order_of_the_names_and_then_the_body() {
        let secret = Secret::new("secret-key");
        let whole = secret.sign(&[], b"keyT1onebody");
        let fields = [("topic", "T1"), ("z", "one"), (SIGNATURE, "x"), (ACCESS_KEY, "key")];
        assert!(secret.signs(fields.iter().copied(), b"body", &whole));
        for (fields, body) in [
            (&[("topic", "T2"), ("z", "one"), (ACCESS_KEY, "key")][..], &b"body"[..]),
            (&[("topic", "T1"), ("z", "one"), (ACCESS_KEY, "key")], b"bodY"),
            (&[("topic", "T1"), (ACCESS_KEY, "key")], b"body"),
            (&[("topic", "T1"), ("z", "one"), ("more", "m"), (ACCESS_KEY, "key")], b"body"),
        ] {
            assert!(!signs("secret-key", fields, body, &whole), "{fields:?}");
        }
        assert!(!signs("another-key", &[("a", "keyT1one")], b"body", &whole));
        for bad in ["", "=", "AAAA", "not base64!", &whole[..whole.len() - 4]] {
            assert!(!signs("secret-key", &[("a", "keyT1one")], b"body", bad), "{bad}");
        }
    }

    #[test]
    fn of_two_fields_with_one_name_the_last_is_signed_as_it_is_the_last_that_counts() {
        let signature = Secret::new("secret").sign(&[("topic", "T1")], b"");
        assert!(signs("secret", &[("topic", "other"), ("topic", "T1")], b"", &signature));
        assert!(!signs("secret", &[("topic", "T1"), ("topic", "other")], b"", &signature));
    }

    #[test]
    fn what_old_clients_add_behind_their_signature_may_be_signed_or_not() {
        let (with, without) = (&[("a", "1"), (ADDED_LATER, "true")], &[("a", "1")]);
        for signed in [&with[..], without] {
            assert!(signs("secret", with, b"", &Secret::new("secret").sign(signed, b"")), "{signed:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "Secret(..)");
    }
}
