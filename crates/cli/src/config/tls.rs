//! Whether the API speaks TLS, and with which certificate.

use std::path::PathBuf;

use super::file;
use crate::environment::Environment;

/// The files of a certificate, which are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The certificate chain, PEM.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM.
    pub(crate) key: PathBuf,
}

impl TlsFiles {
    /// What is wrong with the pair, and where it is.
    pub(crate) fn say(&self, why: &str) -> String {
        format!("{} with {}: {why}", self.certificate.display(), self.key.display())
    }
}

/// Both files or none.
pub(super) fn files(env: &Environment, file: file::TlsTable) -> Result<Option<TlsFiles>, String> {
    let named = |variable, file: Option<PathBuf>| env.get(variable).map(PathBuf::from).or(file);
    let certificate = named("LONGSHORE_TLS_CERTIFICATE_FILE", file.certificate_file);
    match (certificate, named("LONGSHORE_TLS_KEY_FILE", file.key_file)) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (Some(_), None) => Err("tls.certificate_file wants tls.key_file beside it".into()),
        (None, Some(_)) => Err("tls.key_file wants tls.certificate_file beside it".into()),
    }
}
