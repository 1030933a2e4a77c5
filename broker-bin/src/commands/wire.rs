//! How a command's bytes get to the broker: as they are, or by TLS.

use std::net::TcpStream;
use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use crate::dial::{DialError, Stream, Trust};

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

impl TlsArgs {
    /// Puts TLS around a stream, if it is wanted. `host`: as it stands in the broker's certificate.
    pub(super) fn wrap(&self, host: &str, stream: TcpStream) -> Result<Stream, CommandError> {
        match self.trust()? {
            Some(trust) => trust.wrap(host, stream).map_err(|error: DialError| CommandError::Usage(error.to_string())),
            None => Ok(Stream::Plain(stream)),
        }
    }

    fn trust(&self) -> Result<Option<Trust>, CommandError> {
        let own = self.tls_cert.clone().zip(self.tls_key.clone());
        match &self.tls_ca {
            None if self.tls_unchecked => Ok(Some(Trust { authorities: None, own })),
            None if own.is_some() => {
                Err(CommandError::Usage("whom to believe? give --tls-ca FILE or --tls-unchecked".to_owned()))
            }
            None => Ok(None),
            authorities => Ok(Some(Trust { authorities: authorities.clone(), own })),
        }
    }
}
