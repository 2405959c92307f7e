//! What tokens are signed with, and whose are believed: read from where the configuration says, and again when that has changed,
//! so that keys rotate while processes run.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use api::{Issuer, IssuerRules, SigningKeys, Tokens};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::{KeySetPlace, KeySource, read_bounded},
    data::{self, DataFolder},
    failure::Failure,
};

/// The file of `up`, in its data folder.
const FILE: &str = "signing.key";
/// Time between two looks at the files: they are small, and a look costs microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads keys from files, and notices when they change.
pub(crate) struct Reader {
    signing: KeySource,
    issuers: Vec<(IssuerRules, PathBuf)>,
    tokens: Arc<Tokens>,
    last: Option<Read>,
}

/// What was read: the signing keys, and each issuer's key set.
struct Read {
    signing: Option<SecretString>,
    sets: Vec<String>,
}

impl Reader {
    /// Reads for the first time: whoever starts with keys that are not there or wrong is told.
    pub(crate) fn start(
        signing: KeySource,
        issuers: &[(IssuerRules, KeySetPlace)],
        tokens: Arc<Tokens>,
    ) -> Result<Self, Failure> {
        let in_file = |(rules, place): &(IssuerRules, KeySetPlace)| match place {
            KeySetPlace::File(path) => Some((rules.clone(), path.clone())),
            KeySetPlace::Url(_) | KeySetPlace::Discovered => None,
        };
        let issuers = issuers.iter().filter_map(in_file).collect();
        let mut reader = Self { signing, issuers, tokens, last: None };
        reader.look().map_err(Failure::usage)?;
        Ok(reader)
    }

    /// Tells the keys, if they are not those of the last time. What cannot be read leaves those that were there.
    fn look(&mut self) -> Result<(), String> {
        let read = self.read()?;
        let is_same = |last: &Read| {
            last.sets == read.sets
                && last.signing.as_ref().map(ExposeSecret::expose_secret)
                    == read.signing.as_ref().map(ExposeSecret::expose_secret)
        };
        if self.last.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let signing = match &read.signing {
            Some(text) => SigningKeys::parse(text.expose_secret()).map_err(|why| format!("{}: {why}", self.place()))?,
            None => SigningKeys::default(),
        };
        let issuer = |((rules, path), set): (&(IssuerRules, PathBuf), &String)| {
            Issuer::new(rules.clone(), set).map_err(|why| format!("{}: {why}", path.display()))
        };
        let issuers = self.issuers.iter().zip(&read.sets).map(issuer).collect::<Result<Vec<_>, _>>()?;
        tracing::info!(signing_keys = ?signing, issuers = issuers.len(), "keys of tokens were read; the first one signs");
        self.tokens.set_signing_keys(signing);
        self.tokens.set_issuers(issuers);
        self.last = Some(read);
        Ok(())
    }

    fn read(&self) -> Result<Read, String> {
        let signing = match &self.signing {
            KeySource::Unnamed => None,
            KeySource::Given(text) => Some(text.clone()),
            KeySource::File(path) => Some(read(path)?),
        };
        let set = |(_, path): &(IssuerRules, PathBuf)| {
            read_bounded(path).map_err(|error| format!("the key set {}: {error}", path.display()))
        };
        Ok(Read { signing, sets: self.issuers.iter().map(set).collect::<Result<_, _>>()? })
    }

    fn place(&self) -> String {
        match &self.signing {
            KeySource::File(path) => path.display().to_string(),
            KeySource::Given(_) | KeySource::Unnamed => "LONGSHORE_SIGNING_KEY".to_owned(),
        }
    }

    /// Looks again and again, for as long as it is polled.
    pub(crate) async fn keep(mut self) {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let trouble = self.look().err();
            if let Some(trouble) = trouble.as_ref().filter(|trouble| told.as_ref() != Some(*trouble)) {
                tracing::warn!(%trouble, "the keys of tokens that were read before stay");
            }
            told = trouble;
        }
    }
}

fn read(path: &Path) -> Result<SecretString, String> {
    let text = data::read_small(path);
    text.map(SecretString::from).map_err(|error| format!("the signing key file {}: {error}", path.display()))
}

/// The signing keys of `up`: those of the configuration, else those of its data folder, where the first start makes one.
pub(crate) fn of_up(named: &KeySource, folder: &DataFolder) -> Result<KeySource, Failure> {
    if !matches!(named, KeySource::Unnamed) {
        return Ok(named.clone());
    }
    let path = folder.file(FILE);
    if !path.exists() {
        create(&path)?;
    }
    Ok(KeySource::File(path))
}

/// Writes a fresh key into a new file that only its owner may read; one that is there is not touched. Returns its name.
pub(crate) fn create(path: &Path) -> Result<String, Failure> {
    let (key, name) = fresh()?;
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{}", key.expose_secret())?;
        file.sync_all()
    })();
    written.map_err(failed(path))?;
    Ok(name)
}

/// Puts a fresh key before those of a file: it signs from now on, and tokens of the others are believed. Whoever reads the file
/// meanwhile reads it as it was or as it is. Returns the names of all of them.
pub(crate) fn add(path: &Path) -> Result<Vec<String>, Failure> {
    let before = read(path).map_err(Failure::error)?;
    let (key, _) = fresh()?;
    let text = SecretString::from(format!("{}\n{}", key.expose_secret(), before.expose_secret().trim_end()));
    let keys = SigningKeys::parse(text.expose_secret());
    let keys = keys.map_err(|why| Failure::error(format!("{}: {why}", path.display())))?;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let replaced = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        writeln!(file, "{}", text.expose_secret())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if replaced.is_err() {
        // What is left of it holds a key that nothing was signed with.
        let _ = std::fs::remove_file(&beside);
    }
    replaced.map_err(failed(path))?;
    Ok(keys.ids().into_iter().map(str::to_owned).collect())
}

/// A fresh key and its name.
pub(crate) fn fresh() -> Result<(SecretString, String), Failure> {
    let key = SigningKeys::generate().map_err(Failure::error)?;
    let name = SigningKeys::parse(key.expose_secret()).map_err(Failure::error)?.ids().concat();
    Ok((key, name))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::error(format!("cannot write the signing key file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_rotate_in_their_file_and_stay_when_it_is_spoilt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let source = KeySource::File(path.clone());
        let start = || Reader::start(source.clone(), &[], Arc::default());
        assert!(start().is_err(), "it is not there yet");
        let first = create(&path).unwrap();
        assert!(create(&path).unwrap_err().message.contains("exists"));
        assert_eq!(data::open_to_others(&path).unwrap(), 0);
        let mut reader = start().unwrap();
        let both = add(&path).unwrap();
        assert_eq!((both.len(), &both[1]), (2, &first));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        reader.look().unwrap();
        let ids = |reader: &Reader| {
            let text = reader.last.as_ref().unwrap().signing.as_ref().unwrap().expose_secret().to_owned();
            SigningKeys::parse(&text).unwrap().ids().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ids(&reader), both);
        std::fs::write(&path, "ltk_hush").unwrap();
        let trouble = reader.look().unwrap_err();
        assert!(!trouble.contains("hush"), "{trouble}");
        assert_eq!(ids(&reader), both);
    }
}
