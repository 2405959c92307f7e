//! The certificate that this server shows, which may change while it runs.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use queue_core::{telemetry, time::Timestamp};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::TlsAcceptor;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// What is agreed on in the handshake (RFC 7301). Not HTTP/2: its client alone decides how much of an answer it takes, so that
/// silence could hold a place for ever without a byte being stuck.
const PROTOCOL: &[u8] = b"http/1.1";
/// Most certificates of one chain: handshakes carry them all.
const CHAIN_MAX: usize = 10;

/// The certificate in use, and what is wrong with the one that should be.
pub struct Tls {
    shown: RwLock<Shown>,
    trouble: Mutex<Option<String>>,
}

/// A certificate with its key, ready for handshakes.
struct Shown {
    config: Arc<ServerConfig>,
    ends_at: Timestamp,
}

impl Tls {
    /// Shows this certificate chain (PEM, the server's own first) with its private key (PEM). TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// What is wrong with the pair, without a word of the key.
    pub fn new(chain: &str, key: &SecretString) -> Result<Self, String> {
        Ok(Self { shown: RwLock::new(Shown::read(chain, key)?), trouble: Mutex::default() })
    }

    /// Shows another pair from now on; open connections stay as they are. A pair that is wrong changes nothing, and
    /// `/health` says so until there is a right one.
    ///
    /// # Errors
    /// What is wrong with the pair.
    pub fn replace(&self, chain: &str, key: &SecretString) -> Result<(), String> {
        let shown = Shown::read(chain, key).inspect_err(|reason| self.not_replaced(reason.clone()))?;
        // What panics while it holds one of these locks has changed nothing.
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.announce();
        Ok(())
    }

    /// When what is shown ends.
    pub fn ends_at(&self) -> Timestamp {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).ends_at
    }

    /// The pair that should be shown is the one that is.
    pub fn still_right(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The pair that should be shown cannot even be read: `/health` says so until there is a right one.
    pub fn not_replaced(&self, reason: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// The gauge that says until when what is shown holds.
    pub(crate) fn announce(&self) {
        let ends_at = self.ends_at();
        metrics::gauge!(telemetry::CERTIFICATE_ENDS).set(ends_at.0 as f64 / 1_000.0);
    }

    /// For the handshake of one connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(shown.config.clone())
    }

    /// Whether clients can be content with what is shown.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), String> {
        if let Some(trouble) = &*self.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(format!("the one before is shown, since the new one is wrong: {trouble}"));
        }
        let ends_at = self.ends_at();
        if now >= ends_at { Err(format!("it has ended at {ends_at}")) } else { Ok(()) }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends_at = self.ends_at();
        f.debug_struct("Tls").field("ends_at", &ends_at).finish_non_exhaustive()
    }
}

impl Shown {
    fn read(chain: &str, key: &SecretString) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("the certificate is not PEM: {error}"))?;
        let own = chain.first().ok_or("the file has no certificate (`-----BEGIN CERTIFICATE-----`)")?;
        if chain.len() > CHAIN_MAX {
            return Err(format!("{} certificates are more than the {CHAIN_MAX} of a chain", chain.len()));
        }
        let ends_at = end_of(own)?;
        // The parser's own words could repeat what it read.
        let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
            .map_err(|_| "the key file has no private key that can be read (`-----BEGIN PRIVATE KEY-----`)")?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map(|config| config.with_no_client_auth())
            // It also checks that the key is the certificate's.
            .and_then(|config| config.with_single_cert(chain, key));
        let mut config = config.map_err(|error| format!("certificate and key cannot be used: {error}"))?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // A configuration remembers its own sessions, so nobody resumes one that began under another certificate.
        Ok(Self { config: Arc::new(config), ends_at })
    }
}

/// The last moment at which clients believe a certificate.
fn end_of(certificate: &CertificateDer<'_>) -> Result<Timestamp, String> {
    let (_, read) = X509Certificate::from_der(certificate).map_err(|error| format!("the certificate: {error}"))?;
    let seconds = read.validity().not_after.timestamp();
    Ok(Timestamp(seconds.saturating_mul(1_000)))
}
