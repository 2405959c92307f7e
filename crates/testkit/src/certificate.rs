//! Certificates that sign themselves, for one address.

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

/// A certificate and its key, both PEM. Whoever trusts it trusts a server with that key.
pub struct Certificate {
    /// What a server shows, and what a client trusts.
    pub chain: String,
    /// What only the server has.
    pub key: String,
}

impl Certificate {
    /// A fresh one for `address`, a name or an IP address, until the year 2100.
    pub fn of(address: &str) -> Self {
        Self::until(address, 2100)
    }

    /// Likewise; it ends as `year` begins.
    pub fn until(address: &str, year: i32) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([address.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "longshore test");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        Self { chain: certificate.pem(), key: key.serialize_pem() }
    }
}
