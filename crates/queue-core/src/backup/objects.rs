//! Archives within a backup: a tar of all files below the place of objects, whose last file is an index with their hashes. A tar,
//! so that `age --decrypt | zstd --decompress | tar --extract` brings them back without us.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read, Write},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::{BackupError, manifest::ObjectsFacts, seal::hash_of};
use crate::{archive::Objects, hex};

/// The last file of the tar.
const INDEX: &str = "index.json";
/// Most objects of one tar: the index is in memory.
const OBJECTS_MAX: usize = 1_000_000;
/// Largest object that is put back: those that are written here are read whole, too.
const OBJECT_MAX_BYTES: u64 = 1024 * 1024 * 1024;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Indexed {
    bytes: u64,
    sha256: String,
}

fn failed(error: &dyn std::fmt::Display) -> BackupError {
    BackupError::Failed(error.to_string())
}

/// Writes the tar. Called on a thread that may block, within a runtime.
pub(super) fn write(objects: &Objects, out: &mut dyn Write, runtime: &Handle) -> Result<ObjectsFacts, BackupError> {
    let mut tar = tar::Builder::new(out);
    let (mut index, mut facts) = (BTreeMap::new(), ObjectsFacts::default());
    let paths = runtime.block_on(objects.paths()).map_err(|error| failed(&error))?;
    if paths.len() > OBJECTS_MAX {
        return Err(BackupError::Refused(format!("{} objects are too many for one backup", paths.len())));
    }
    for path in paths {
        // One that was deleted since (its tenant was erased) is none of this backup.
        let Some(body) = runtime.block_on(objects.file(&path)).map_err(|error| failed(&error))? else { continue };
        append(&mut tar, &path, &body)?;
        facts.objects += 1;
        facts.bytes += body.len() as u64;
        index.insert(path, Indexed { bytes: body.len() as u64, sha256: hex::of(&Sha256::digest(&body)) });
    }
    let index = serde_json::to_vec(&index).map_err(|error| failed(&error))?;
    append(&mut tar, INDEX, &index)?;
    tar.finish().map_err(|error| failed(&error))?;
    Ok(facts)
}

fn append(tar: &mut tar::Builder<&mut dyn Write>, path: &str, body: &[u8]) -> Result<(), BackupError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(body.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    tar.append_data(&mut header, path, Cursor::new(body)).map_err(|error| failed(&error))
}

/// Reads the tar and compares every file with the index; puts them back where somebody says so.
pub(super) fn read(tar: &mut dyn Read, into: Option<(&Objects, &Handle)>) -> Result<ObjectsFacts, BackupError> {
    let broken = |error: io::Error| failed(&error);
    let mut archive = tar::Archive::new(tar);
    let (mut found, mut index) = (BTreeMap::new(), None);
    let mut facts = ObjectsFacts::default();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if path == INDEX {
            index = Some(serde_json::from_reader(&mut entry).map_err(|error| failed(&error))?);
            continue;
        }
        let indexed = match into {
            None => {
                let (bytes, sha256) = hash_of(&mut entry).map_err(broken)?;
                Indexed { bytes, sha256: hex::of(&sha256) }
            }
            Some((objects, runtime)) => {
                let mut body = Vec::new();
                entry.take(OBJECT_MAX_BYTES).read_to_end(&mut body).map_err(broken)?;
                let indexed = Indexed { bytes: body.len() as u64, sha256: hex::of(&Sha256::digest(&body)) };
                runtime.block_on(objects.put_back(&path, body.into())).map_err(|error| failed(&error))?;
                indexed
            }
        };
        facts.objects += 1;
        facts.bytes += indexed.bytes;
        found.insert(path, indexed);
    }
    if index.as_ref() != Some(&found) {
        return Err(failed(&"its files are not those of its index"));
    }
    Ok(facts)
}
