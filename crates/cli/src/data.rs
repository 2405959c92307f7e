//! The data folder of `longshore up`: who may read it, which process holds it, and what the CLI finds in it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Where the data is when nobody says otherwise: beside the shell that started it.
pub(crate) const DATA_DEFAULT: &str = "longshore-data";

/// The admin key as text, readable by its owner only.
const KEY_FILE: &str = "admin.key";

/// Held by the process that serves the folder; tells others who that is.
const LOCK_FILE: &str = "up.lock";

/// Longest lock or key file that is read: ours are far shorter, and a wrong path may name anything.
const SMALL_FILE_MAX_BYTES: u64 = 4_096;

/// Who holds a data folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Its process.
    pub(crate) pid: u32,
    /// Where it listens, once it does.
    pub(crate) url: Option<String>,
}

/// A data folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    lock: File,
}

impl DataFolder {
    /// Creates the folder (mode 0700) where it is missing and takes it, or says who has it.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, error: io::Error| Failure::error(format!("{what} {}: {error}", path.display()));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed("cannot create the data folder", error))?;
        let path = path.canonicalize().map_err(|error| failed("cannot use the data folder", error))?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(|error| failed("cannot write to the data folder", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Failure::error(held_by_another(&path))),
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock the data folder", error)),
        }
        let mut folder = Self { path, lock };
        folder.announce(None)?;
        Ok(folder)
    }

    /// A file of the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the admin key is or will be.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.file(KEY_FILE)
    }

    /// Tells the CLI, and whoever wants the folder too, where this process listens.
    pub(crate) fn announce(&mut self, url: Option<String>) -> Result<(), Failure> {
        let holder = serde_json::to_vec(&Holder { pid: std::process::id(), url }).map_err(io::Error::from)?;
        self.rewrite(&holder)?;
        Ok(())
    }

    /// Keeps the admin key for the CLI, readable by its owner only.
    pub(crate) fn keep_key(&self, key: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.key_file())?;
        writeln!(file, "{key}")?;
        file.sync_all()
    }

    fn rewrite(&mut self, content: &[u8]) -> io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(content)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // A file that names nobody is what a clean end leaves; after a crash the next start overwrites it.
        let _ = self.rewrite(b"");
    }
}

fn held_by_another(path: &Path) -> String {
    let whose = match holder(path) {
        Some(Holder { pid, url: Some(url) }) => format!("process {pid}, which listens on {url}"),
        Some(Holder { pid, url: None }) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    format!("the data folder {} is held by {whose}; stop it, or choose another folder with --data", path.display())
}

/// Who serves the folder, as far as its lock file tells.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    let text = read_small(&path.join(LOCK_FILE)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Where the process listens that serves this folder.
pub(crate) fn running_url(path: &Path) -> Option<String> {
    holder(path)?.url
}

/// The admin key that `up` keeps in the folder, if it does.
pub(crate) fn stored_key(path: &Path) -> Result<Option<String>, Failure> {
    let file = path.join(KEY_FILE);
    match read_small(&file) {
        Ok(text) if text.trim().is_empty() => Err(Failure::error(format!("the key file {} is empty", file.display()))),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::error(format!("cannot read the key file {}: {error}", file.display()))),
    }
}

/// The text of a file that holds one secret or one line.
pub(crate) fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SMALL_FILE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// The secret that stands in a file of its own; spaces and line breaks around it are not part of it.
pub(crate) fn read_secret(path: &Path) -> Result<String, String> {
    let text = read_small(path).map_err(|error| format!("cannot be read: {error}"))?;
    match text.trim() {
        "" => Err("is empty".to_owned()),
        secret => Ok(secret.to_owned()),
    }
}

/// The permission bits of a file or folder that others than its owner have; 0 is private.
pub(crate) fn open_to_others(path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(path)?.permissions().mode() & 0o077)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_and_says_who() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mut first = DataFolder::take(&path).unwrap();
        first.announce(Some("http://127.0.0.1:9".into())).unwrap();
        assert_eq!(open_to_others(&path).unwrap(), 0);
        let error = DataFolder::take(&path).unwrap_err().message;
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("http://127.0.0.1:9"), "{error}");
        assert_eq!(running_url(&path).as_deref(), Some("http://127.0.0.1:9"));
        drop(first);
        assert_eq!(running_url(&path), None);
        DataFolder::take(&path).unwrap();
    }

    #[test]
    fn the_key_is_kept_for_its_owner_only_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::take(dir.path()).unwrap();
        assert_eq!(stored_key(dir.path()).unwrap(), None);
        folder.keep_key("lsk_x").unwrap();
        assert_eq!(stored_key(dir.path()).unwrap().as_deref(), Some("lsk_x"));
        assert_eq!(open_to_others(&folder.key_file()).unwrap(), 0);
        assert!(folder.keep_key("lsk_y").is_err());
    }
}
