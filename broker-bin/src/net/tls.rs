//! TLS on the clients' port: which certificate is shown, whose are believed, and reading them again when their files change.
//!
//! 1. Files that do not fit together change nothing: what was there before goes on to hold, and the log says what is wrong, once.
//! 2. A change holds for connections that begin after it; those that are there stay as they are.
//!
//! Deliberately not here: bytes of a connection (`door.rs`), and what replicas say to each other (`anchorlog-replicator`).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::config::Watched;
use crate::counters::Counters;
use crate::lock::{lock, read, write};

/// Which files, and who may come without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The broker's certificate, with those between it and its authority; PEM.
    pub certificate: PathBuf,
    /// Its private key; PEM.
    pub key: PathBuf,
    /// Authorities; clients must show a certificate of one of them. PEM. Default: clients show none.
    pub client_authorities: Option<PathBuf>,
    /// Whether connections without TLS are closed. Default: they are served as well.
    pub only: bool,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {0}")]
pub struct TlsError(String);

/// What connections that begin with TLS are met with.
#[derive(Debug)]
pub struct Tls {
    only: bool,
    files: Mutex<Watched>,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, which must be good.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn open(options: &TlsOptions) -> Result<Tls, TlsError> {
        let paths = [Some(&options.certificate), Some(&options.key), options.client_authorities.as_ref()];
        let mut files = Watched::new(paths.into_iter().flatten().cloned().collect());
        let failed = |what: String| TlsError(what);
        let texts = files.changed().map_err(|error| failed(error.to_string()))?;
        let texts = texts.ok_or_else(|| failed("nothing was read".to_owned()))?;
        let config = config(&files, &texts)?;
        Ok(Tls { only: options.only, files: Mutex::new(files), config: RwLock::new(config) })
    }

    /// Whether connections without TLS are closed.
    #[must_use]
    pub fn is_only(&self) -> bool {
        self.only
    }

    /// Reads the files again when they changed.
    pub fn look(&self, counters: &Counters) {
        let mut files = lock(&self.files);
        let renewed = match files.changed() {
            Ok(None) => return,
            Ok(Some(texts)) => config(&files, &texts),
            Err(error) => Err(TlsError(error.to_string())),
        };
        match renewed {
            Ok(config) => {
                *write(&self.config) = config;
                counters.certificates_reloaded.add(1);
                tracing::info!("connections that begin from now on see the new certificate");
            }
            Err(error) => {
                counters.certificates_refused.add(1);
                tracing::error!(%error, "the certificate is as it was");
            }
        }
    }

    /// Begins a connection.
    pub(super) fn begin(&self) -> Result<ServerConnection, rustls::Error> {
        let mut session = ServerConnection::new(Arc::clone(&read(&self.config)))?;
        // What is given to it is bounded by whoever gives it.
        session.set_buffer_limit(None);
        Ok(session)
    }
}

fn config(files: &Watched, texts: &[Vec<u8>]) -> Result<Arc<ServerConfig>, TlsError> {
    let named = |place: usize, what: &dyn std::fmt::Display| {
        let path = files.paths().get(place).map(|path| path.display().to_string()).unwrap_or_default();
        TlsError(format!("{path}: {what}"))
    };
    let certificates = |place: usize| {
        let pem = texts.get(place).map(Vec::as_slice).unwrap_or_default();
        let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        match all.map_err(|error| named(place, &error))? {
            none if none.is_empty() => Err(named(place, &"it holds no certificate")),
            all => Ok(all),
        }
    };
    let chain = certificates(0)?;
    let key = texts.get(1).map(Vec::as_slice).unwrap_or_default();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| named(1, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> = if texts.len() > 2 {
        let mut roots = RootCertStore::empty();
        for authority in certificates(2)? {
            roots.add(authority).map_err(|error| named(2, &error))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        builder.build().map_err(|error| named(2, &error))?
    } else {
        WebPkiClientVerifier::no_client_auth()
    };
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| TlsError(error.to_string()))?.with_client_cert_verifier(verifier);
    let config = builder.with_single_cert(chain, key).map_err(|error| named(0, &error))?;
    Ok(Arc::new(config))
}
