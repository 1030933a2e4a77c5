//! What members trust each other by. Chosen once for all of them; without anything, they talk over the loopback interface alone.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::auth::{Protection, SharedKey};

/// How members make sure of each other. All of them need the same.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all. Refused for every address but the loopback interface's.
    Open,
    /// Each proves that it holds the same key, and every byte is proven to be from there. Nothing is hidden.
    Key(SharedKey),
    /// Each shows a certificate of the same authority; everything is hidden.
    Tls(Certificates),
}

impl Security {
    pub(crate) const fn protection(&self) -> Protection {
        match self {
            Security::Open => Protection::Open,
            Security::Key(_) => Protection::Key,
            Security::Tls(_) => Protection::Tls,
        }
    }

    /// Whether this is enough for `address`: unprotected members talk over the loopback interface alone.
    #[must_use]
    pub fn is_enough_for(&self, address: SocketAddr) -> bool {
        !matches!(self, Security::Open) || address.ip().to_canonical().is_loopback()
    }
}

/// A certificate of one's own and those that are believed, for [`Security::Tls`].
#[derive(Clone)]
pub struct Certificates {
    pub(crate) accepting: Arc<ServerConfig>,
    pub(crate) connecting: Arc<ClientConfig>,
    /// The name that every member's certificate is for; without one, the host part of the address that is connected to.
    pub(crate) name: Option<ServerName<'static>>,
}

/// Certificates were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The text is not what it should be.
    #[error("reading {what}: {why}")]
    Text {
        /// Which of the texts.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The certificates do not fit together.
    #[error("certificates: {0}")]
    Tls(#[from] rustls::Error),
    /// No name.
    #[error("{0:?} is no host name")]
    Name(String),
}

impl Certificates {
    /// From PEM texts: the chain of this member's certificate, its private key, and the authorities that are believed, for
    /// members who connect and members who accept alike.
    ///
    /// # Errors
    /// When a text holds nothing of its kind, or key and certificate do not fit.
    pub fn from_pem(chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<Certificates, CertificateError> {
        let text = |what, why: &dyn std::fmt::Display| CertificateError::Text { what, why: why.to_string() };
        let list = |pem: &[u8], what| -> Result<Vec<CertificateDer<'static>>, CertificateError> {
            let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            let all = all.map_err(|error| text(what, &error))?;
            if all.is_empty() { Err(text(what, &"it holds no certificate")) } else { Ok(all) }
        };
        let chain = list(chain, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| text("the private key", &error))?;
        let mut roots = RootCertStore::empty();
        for authority in list(authorities, "the authorities")? {
            roots.add(authority)?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let verifier = verifier.map_err(|error| text("the authorities", &error))?;
        let accepting = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let mut accepting =
            accepting.with_client_cert_verifier(verifier).with_single_cert(chain.clone(), key.clone_key())?;
        // A connection lasts for days: nothing to resume.
        accepting.send_tls13_tickets = 0;
        let connecting = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
        let connecting = connecting.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        Ok(Certificates { accepting: Arc::new(accepting), connecting: Arc::new(connecting), name: None })
    }

    /// The name that every member's certificate is for. Default: the host part of the address that is connected to.
    ///
    /// # Errors
    /// When it is no host name.
    pub fn with_name(mut self, name: &str) -> Result<Certificates, CertificateError> {
        self.name = Some(host_name(name)?);
        Ok(self)
    }
}

/// `host` as certificates name it.
pub(crate) fn host_name(host: &str) -> Result<ServerName<'static>, CertificateError> {
    ServerName::try_from(host.to_owned()).map_err(|_| CertificateError::Name(host.to_owned()))
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprotected_members_talk_over_loopback_alone() {
        let key = Security::Key(SharedKey::new(b"sixteen bytes of key").unwrap());
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("10.1.2.3:1", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(Security::Open.is_enough_for(address), loopback, "{address}");
            assert!(key.is_enough_for(address));
        }
    }

    #[test]
    fn certificates_that_are_none_are_refused_by_name() {
        let error = Certificates::from_pem(b"nothing", b"", b"").unwrap_err();
        assert_eq!(error.to_string(), "reading the certificate: it holds no certificate");
    }
}
