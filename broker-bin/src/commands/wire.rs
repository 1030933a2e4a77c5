//! How a command's bytes get to the broker: as they are, or by TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};

use super::CommandError;

/// Whether to speak TLS, and whom to believe.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// Speak TLS, and believe the authorities in this file; PEM
    #[arg(long, value_name = "FILE", global = true)]
    pub tls_ca: Option<PathBuf>,

    /// Speak TLS, and believe whoever answers
    #[arg(long, global = true, conflicts_with = "tls_ca")]
    pub tls_unchecked: bool,

    /// Certificate to show to the broker; PEM
    #[arg(long, value_name = "FILE", global = true, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key; PEM
    #[arg(long, value_name = "FILE", global = true, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// A stream to the broker.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
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

impl TlsArgs {
    /// Puts TLS around a stream, if it is wanted. `host`: as it stands in the broker's certificate.
    pub(super) fn wrap(&self, host: &str, stream: TcpStream) -> Result<Stream, CommandError> {
        let Some(config) = self.config()? else { return Ok(Stream::Plain(stream)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| CommandError::Usage(format!("{host} is no name that a certificate could have")))?;
        let session = ClientConnection::new(Arc::new(config), name).map_err(unusable)?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    fn config(&self) -> Result<Option<ClientConfig>, CommandError> {
        if self.tls_ca.is_none() && !self.tls_unchecked && self.tls_cert.is_none() {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = match &self.tls_ca {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(unusable)?;
                }
                builder.with_root_certificates(roots)
            }
            None if self.tls_unchecked => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Whoever(provider)))
            }
            None => {
                return Err(CommandError::Usage("whom to believe? give --tls-ca FILE or --tls-unchecked".to_owned()));
            }
        };
        let config = match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => {
                let unreadable = |error| CommandError::Usage(format!("cannot read {}: {error}", key.display()));
                let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
                builder.with_client_auth_cert(certificates(chain)?, key).map_err(unusable)?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Some(config))
    }
}

fn unusable(error: impl std::fmt::Display) -> CommandError {
    CommandError::Usage(format!("TLS: {error}"))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, CommandError> {
    let unreadable = |error| CommandError::Usage(format!("cannot read {}: {error}", path.display()));
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
