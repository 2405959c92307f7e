//! The certificate that the API shows: read from the files that the configuration names, and again when they have changed, so
//! that it is renewed while the process runs.

use std::{sync::Arc, time::Duration};

use api::Tls;
use queue_core::time::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{Config, TlsFiles, read_bounded},
    failure::Failure,
};

/// Time between two looks at the files: they are small, and a look costs microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads certificate and key, and notices when they change.
pub(crate) struct Reader {
    files: TlsFiles,
    tls: Arc<Tls>,
    /// What is shown.
    last: Pair,
    /// Asks for a look at once, as servers have it; unheard, it would end the process.
    hangup: Signal,
}

struct Pair {
    chain: String,
    key: SecretString,
}

impl Reader {
    /// Reads what the configuration names, if it names anything, for the first time: whoever starts with files that are not there or
    /// wrong is told.
    pub(crate) fn of(config: &Config) -> Result<Option<Self>, Failure> {
        config.tls.clone().map(Self::start).transpose()
    }

    fn start(files: TlsFiles) -> Result<Self, Failure> {
        let last = read(&files).map_err(Failure::usage)?;
        let tls = Tls::new(&last.chain, &last.key).map_err(|why| Failure::usage(files.say(&why)))?;
        Ok(Self { files, tls: Arc::new(tls), last, hangup: signal(SignalKind::hangup())? })
    }

    /// What the API shows.
    pub(crate) fn tls(&self) -> Arc<Tls> {
        self.tls.clone()
    }

    /// Tells the pair, if it is not that of the last time. One that is wrong leaves the one that was there.
    fn look(&mut self) -> Result<(), String> {
        let pair = read(&self.files).inspect_err(|why| self.tls.not_replaced(why.clone()))?;
        if pair.chain == self.last.chain && pair.key.expose_secret() == self.last.key.expose_secret() {
            self.tls.still_right();
            return Ok(());
        }
        self.tls.replace(&pair.chain, &pair.key).map_err(|why| self.files.say(&why))?;
        tracing::info!(certificate = ?self.tls, "another certificate is shown");
        self.last = pair;
        Ok(())
    }

    /// Looks again and again, for as long as it is polled.
    pub(crate) async fn keep(mut self) {
        let mut told = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = self.hangup.recv() => {}
            }
            let trouble = self.look().err();
            if let Some(trouble) = trouble.as_ref().filter(|trouble| told.as_ref() != Some(*trouble)) {
                tracing::error!(%trouble, "the certificate that was shown before stays");
            }
            told = trouble;
        }
    }
}

/// When the certificate in these files ends, as far as this process may read them.
pub(crate) fn end_of(files: &TlsFiles) -> Option<Timestamp> {
    let pair = read(files).inspect_err(|why| tracing::debug!(why, "a certificate is not watched")).ok()?;
    let tls = Tls::new(&pair.chain, &pair.key);
    tls.inspect_err(|why| tracing::debug!(why, "a certificate is not watched")).ok().map(|tls| tls.ends_at())
}

fn read(files: &TlsFiles) -> Result<Pair, String> {
    let chain = read_bounded(&files.certificate);
    let chain = chain.map_err(|error| format!("the certificate {}: {error}", files.certificate.display()))?;
    let key = read_bounded(&files.key);
    let key = key.map_err(|error| format!("the key of the certificate, {}: {error}", files.key.display()))?;
    Ok(Pair { chain, key: key.into() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_pair_that_is_wrong_is_refused_at_the_start_and_later_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = TlsFiles { certificate: path("tls.crt"), key: path("tls.key") };
        let refused = |files: &TlsFiles| Reader::start(files.clone()).err().unwrap().message;
        assert!(refused(&files).contains("tls.crt"));
        let (one, other) = (testkit::Certificate::of("127.0.0.1"), testkit::Certificate::of("127.0.0.1"));
        fs::write(&files.certificate, &one.chain).unwrap();
        fs::write(&files.key, "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n").unwrap();
        let trouble = refused(&files);
        assert!(trouble.contains("tls.key") && !trouble.contains("hush"), "{trouble}");
        fs::write(&files.key, &other.key).unwrap();
        assert!(refused(&files).contains("cannot be used"), "the key is another certificate's");
        fs::write(&files.key, &one.key).unwrap();
        let mut reader = Reader::start(files.clone()).unwrap();
        reader.look().unwrap();
        fs::write(&files.certificate, &other.chain).unwrap();
        assert!(reader.look().is_err());
        assert_eq!(reader.last.chain, one.chain);
        fs::write(&files.key, &other.key).unwrap();
        reader.look().unwrap();
        assert_eq!(reader.last.chain, other.chain);
        fs::remove_file(&files.key).unwrap();
        assert!(reader.look().unwrap_err().contains("tls.key"));
    }
}
