//! The master keys of tenants' own provider keys: read from where the configuration says, and again when that has changed, so
//! that a key can be replaced, and a wrong one put right, while processes run.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use queue_core::credentials::{Credentials, MasterKeys};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::MasterKeySource,
    data::{self, DataFolder},
    failure::Failure,
};

/// The file of `up`, in its data folder.
const FILE: &str = "master.key";
/// Time between two looks at the file: it is small, and a look costs microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads master keys, and notices when they change.
pub(crate) struct Reader {
    source: MasterKeySource,
    last: Option<Result<SecretString, String>>,
}

impl Reader {
    pub(crate) fn new(source: MasterKeySource) -> Self {
        Self { source, last: None }
    }

    /// Tells the keys, if they are not those of the last time. A file that is away keeps those that were in it: a mount that
    /// hangs for a moment must not stop anybody's jobs.
    pub(crate) fn tell(&mut self, credentials: &Credentials) {
        let text = match &self.source {
            MasterKeySource::Unnamed => return,
            MasterKeySource::Given(text) => Ok(text.clone()),
            MasterKeySource::File(path) => read(path),
        };
        if self.last.as_ref().is_some_and(|last| is_same(last, &text)) {
            return;
        }
        let keys = text.as_ref().map_err(String::clone).and_then(|text| self.parse(text));
        match (&keys, &self.last) {
            (Ok(keys), _) => tracing::info!(master_keys = ?keys, "master keys were read; the first one seals"),
            (Err(trouble), Some(Ok(_))) if text.is_err() => {
                tracing::warn!(%trouble, "the master keys that were read before stay");
                self.last = Some(text);
                return;
            }
            (Err(trouble), _) => tracing::error!(%trouble, "there are no master keys"),
        }
        credentials.set_master_keys(keys);
        self.last = Some(text);
    }

    fn parse(&self, text: &SecretString) -> Result<MasterKeys, String> {
        let place = match &self.source {
            MasterKeySource::File(path) => path.display().to_string(),
            MasterKeySource::Given(_) | MasterKeySource::Unnamed => "LONGSHORE_MASTER_KEY".to_owned(),
        };
        MasterKeys::parse(text.expose_secret()).map_err(|reason| format!("{place}: {reason}"))
    }

    /// Looks again and again, for as long as it is polled.
    pub(crate) async fn keep(&mut self, credentials: &Credentials) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.tell(credentials);
        }
    }
}

fn is_same(last: &Result<SecretString, String>, now: &Result<SecretString, String>) -> bool {
    match (last, now) {
        (Ok(last), Ok(now)) => last.expose_secret() == now.expose_secret(),
        (Err(last), Err(now)) => last == now,
        _ => false,
    }
}

/// The text of a file of master keys.
pub(crate) fn read(path: &Path) -> Result<SecretString, String> {
    let text = data::read_small(path);
    text.map(SecretString::from).map_err(|error| format!("the master key file {}: {error}", path.display()))
}

/// The master keys of `up`: those of the configuration, else those of its data folder, where the first start makes one. Not
/// where keys of tenants are there that need another: making one would only hide that theirs is missing.
pub(crate) fn of_up(
    named: &MasterKeySource,
    folder: &DataFolder,
    credentials: &Credentials,
) -> Result<MasterKeySource, Failure> {
    if !matches!(named, MasterKeySource::Unnamed) {
        return Ok(named.clone());
    }
    let path = folder.file(FILE);
    if !path.exists() && credentials.report().credentials == 0 {
        create(&path)?;
    }
    Ok(MasterKeySource::File(path))
}

/// Writes a fresh key into a new file that only its owner may read; one that is there is not touched. Returns its name.
pub(crate) fn create(path: &Path) -> Result<String, Failure> {
    let (key, name) = fresh()?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed(path))?;
    write_whole(&mut file, key.expose_secret()).map_err(failed(path))?;
    Ok(name)
}

/// Puts a fresh key before those of a file: it seals from now on, they go on opening what they sealed. Whoever reads the file
/// meanwhile reads it as it was or as it is. Returns the names of all of them.
pub(crate) fn add(path: &Path) -> Result<Vec<String>, Failure> {
    let before = read(path).map_err(Failure::error)?;
    let (key, _) = fresh()?;
    let text = SecretString::from(format!("{}\n{}", key.expose_secret(), before.expose_secret().trim_end()));
    let keys = MasterKeys::parse(text.expose_secret())
        .map_err(|reason| Failure::error(format!("{}: {reason}", path.display())))?;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let replaced = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        write_whole(&mut file, text.expose_secret())?;
        fs::rename(&beside, path)
    })();
    if replaced.is_err() {
        // What is left of it holds a key that nothing was sealed with.
        let _ = fs::remove_file(&beside);
    }
    replaced.map_err(failed(path))?;
    Ok(keys.ids().into_iter().map(str::to_owned).collect())
}

/// A fresh key and its name.
pub(crate) fn fresh() -> Result<(SecretString, String), Failure> {
    let key = MasterKeys::generate().map_err(|error| Failure::error(error.to_string()))?;
    let keys = MasterKeys::parse(key.expose_secret()).map_err(Failure::error)?;
    let name = keys.current().unwrap_or_default().to_owned();
    Ok((key, name))
}

fn write_whole(file: &mut File, text: &str) -> io::Result<()> {
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::error(format!("cannot write the master key file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(path: &Path) -> Vec<String> {
        let keys = MasterKeys::parse(read(path).unwrap().expose_secret()).unwrap();
        keys.ids().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_file_gets_a_key_once_and_others_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        assert!(add(&path).is_err(), "there is none yet");
        let first = create(&path).unwrap();
        assert!(create(&path).unwrap_err().message.contains("exists"));
        assert_eq!(data::open_to_others(&path).unwrap(), 0);
        let both = add(&path).unwrap();
        assert_eq!((both.len(), &both[1]), (2, &first));
        assert_eq!(ids(&path), both);
        assert_eq!(data::open_to_others(&path).unwrap(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn keys_are_read_again_when_they_change_and_stay_when_they_are_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let credentials = Credentials::none();
        let mut reader = Reader::new(MasterKeySource::File(path.clone()));
        let mut told = || {
            reader.tell(&credentials);
            let report = credentials.report();
            (report.master_keys.clone(), report.trouble.is_some())
        };
        assert_eq!(told(), (vec![], true), "it is not there yet");
        let first = create(&path).unwrap();
        assert_eq!(told(), (vec![first.clone()], false));
        let both = add(&path).unwrap();
        assert_eq!(told(), (both.clone(), false));
        fs::remove_file(&path).unwrap();
        assert_eq!(told(), (both, false));
        fs::write(&path, "lmk_hush").unwrap();
        assert_eq!(told(), (vec![], true), "what is in it is what counts");
        assert!(!credentials.report().trouble.clone().unwrap().contains("hush"));
    }
}
