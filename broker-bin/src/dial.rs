//! Connections that this program opens to others: as they are, or by TLS.
//!
//! 1. Files are read at each connection: whoever renews a certificate restarts nothing.
//! 2. Nobody is believed who is not said to be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};

/// Why a connection cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DialError(String);

/// Whom to believe, and what to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The authorities in this file; PEM. Without them whoever answers.
    pub authorities: Option<PathBuf>,
    /// Certificate to show where one is asked for, and its private key; PEM.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// By TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// What it goes by.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(piece),
            Stream::Tls(stream) => stream.read(piece),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

impl Trust {
    /// Puts TLS around a stream. `host`: as it stands in the other side's certificate.
    ///
    /// # Errors
    /// What is wrong with the files, or the name.
    pub(crate) fn wrap(&self, host: &str, stream: TcpStream) -> Result<Stream, DialError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| DialError(format!("{host} is no name that a certificate could have")))?;
        let session = ClientConnection::new(Arc::new(self.config()?), name).map_err(unusable)?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn config(&self) -> Result<ClientConfig, DialError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = match &self.authorities {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(unusable)?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Whoever(provider))),
        };
        match &self.own {
            Some((chain, key)) => {
                let unreadable = |error| DialError(format!("cannot read {}: {error}", key.display()));
                let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
                builder.with_client_auth_cert(certificates(chain)?, key).map_err(unusable)
            }
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

fn unusable(error: impl std::fmt::Display) -> DialError {
    DialError(format!("TLS: {error}"))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let unreadable = |error| DialError(format!("cannot read {}: {error}", path.display()));
    CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)
}

/// Believes whoever answers: for a look at a broker whose authority is not at hand.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
