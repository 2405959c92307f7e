//! Where backups lie: a folder or a bucket, and pieces on their way to it and back.

use std::{
    collections::BTreeMap,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{BackupId, manifest::MANIFEST};
use crate::{
    location::{Folders, Location},
    time::Timestamp,
};

/// The folder of all backups.
const ROOT: &str = "backups";
/// Bytes of a piece of an upload or download: a few of them are in memory at once, and S3 takes 10,000 of an object.
pub(super) const PIECE_BYTES: usize = 16 * 1024 * 1024;
/// Pieces of one part: what S3 takes. 156 GiB, compressed; a larger journal wants WAL archiving.
const PIECES_MAX: usize = 10_000;
/// Longest time of one request, all of its own tries together: a piece over a slow line.
const REQUEST_MAX: Duration = Duration::from_secs(300);
/// Longest wait for the next piece of an upload: whatever writes it has stopped.
const STALL_MAX: Duration = Duration::from_secs(900);
/// Largest manifest that is read.
const SMALL_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why a place did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It is away, full or read-only.
    #[error("{place}: {reason}")]
    Failed {
        /// The place, without secrets.
        place: String,
        /// What it said.
        reason: String,
    },
    /// It refuses our credentials: asking again does not help.
    #[error("{place}: {reason}")]
    Refused {
        /// The place, without secrets.
        place: String,
        /// What it said.
        reason: String,
    },
    /// There is no such file.
    #[error("{place}: {path} is not there")]
    Missing {
        /// The place.
        place: String,
        /// The file.
        path: String,
    },
}

/// A place for backups. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
    shown: String,
    /// Of a folder: where it is.
    folder: Option<PathBuf>,
}

/// A piece of an upload.
pub(super) enum Piece {
    /// More follow.
    More(Bytes),
    /// The last one: without it the upload is given up.
    Last(Bytes),
}

/// What was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) bytes: u64,
    pub(super) sha256: [u8; 32],
}

impl Place {
    /// The place that a URL names, with the options of a bucket's client, see [`Location`]. A folder is made, but not what it is in: a disk
    /// that is not mounted must not have its backups on another one.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        let location = Location::parse(url).map_err(|reason| format!("a place for backups: {reason}"))?;
        let store = location.open(options, Folders::Last)?;
        Ok(Self { store, shown: location.to_string(), folder: location.folder().map(FilePath::to_owned) })
    }

    /// Its name, without secrets.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn failed(&self, reason: impl std::fmt::Display) -> PlaceError {
        PlaceError::Failed { place: self.shown.clone(), reason: one_line(reason) }
    }

    fn refused(&self, said: impl std::fmt::Display) -> PlaceError {
        let reason = one_line(format!("it refuses us; correct its credentials or rights ({said})"));
        PlaceError::Refused { place: self.shown.clone(), reason }
    }

    fn said(&self, path: &Path, error: object_store::Error) -> PlaceError {
        match error {
            object_store::Error::NotFound { .. } => {
                PlaceError::Missing { place: self.shown.clone(), path: path.to_string() }
            }
            object_store::Error::PermissionDenied { source, .. }
            | object_store::Error::Unauthenticated { source, .. } => self.refused(source),
            // A list that is refused says so in its text alone.
            other if other.to_string().contains("403 Forbidden") => self.refused(other),
            other => self.failed(other),
        }
    }

    async fn ask<T>(
        &self,
        path: &Path,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, PlaceError> {
        match tokio::time::timeout(REQUEST_MAX, request).await {
            Ok(answer) => answer.map_err(|error| self.said(path, error)),
            Err(_) => Err(self.failed(format!("no answer within {REQUEST_MAX:?}"))),
        }
    }

    /// Takes the pieces of a new file. It is there as a whole, once this has returned, or not at all.
    pub(super) async fn upload(&self, path: &Path, mut pieces: mpsc::Receiver<Piece>) -> Result<(), PlaceError> {
        let mut upload = self.ask(path, self.store.put_multipart(path)).await?;
        let taken = self.take(path, &mut *upload, &mut pieces).await;
        match taken {
            Ok(()) => self.ask(path, upload.complete()).await.map(drop),
            Err(error) => {
                // Whoever is away cannot be told to forget it; lifecycle rules of buckets do.
                let _ = self.ask(path, upload.abort()).await;
                Err(error)
            }
        }
    }

    async fn take(
        &self,
        path: &Path,
        upload: &mut dyn MultipartUpload,
        pieces: &mut mpsc::Receiver<Piece>,
    ) -> Result<(), PlaceError> {
        for _ in 0..PIECES_MAX {
            let Ok(piece) = tokio::time::timeout(STALL_MAX, pieces.recv()).await else {
                return Err(self.failed(format!("nothing more came to be written within {STALL_MAX:?}")));
            };
            let (bytes, is_last) = match piece {
                Some(Piece::More(bytes)) => (bytes, false),
                Some(Piece::Last(bytes)) => (bytes, true),
                None => return Err(self.failed("what was to be written has broken off")),
            };
            self.ask(path, upload.put_part(PutPayload::from_bytes(bytes))).await?;
            if is_last {
                return Ok(());
            }
        }
        Err(self.failed(format!("{path} is larger than {PIECES_MAX} pieces of {PIECE_BYTES} bytes")))
    }

    /// Reads a file, piece by piece, and hashes it. Pieces go to `to` for as long as somebody takes them.
    pub(super) async fn fetch(&self, path: &Path, to: Option<mpsc::Sender<Bytes>>) -> Result<Fetched, PlaceError> {
        let size = self.ask(path, self.store.head(path)).await?.size;
        let (mut hasher, mut at, mut to) = (Sha256::new(), 0, to);
        while at < size {
            let end = size.min(at + PIECE_BYTES as u64);
            let bytes = self.ask(path, self.store.get_range(path, at..end)).await?;
            if bytes.is_empty() {
                return Err(self.failed(format!("{path} ends at {at} of {size} bytes")));
            }
            at += bytes.len() as u64;
            hasher.update(&bytes);
            if let Some(taker) = &to
                && taker.send(bytes).await.is_err()
            {
                to = None;
            }
        }
        Ok(Fetched { bytes: size, sha256: hasher.finalize().into() })
    }

    /// Writes a small file at once, over one that is there.
    pub(super) async fn put(&self, path: &Path, body: Bytes) -> Result<(), PlaceError> {
        self.ask(path, self.store.put(path, PutPayload::from_bytes(body))).await.map(drop)
    }

    /// Reads a small file.
    pub(super) async fn get(&self, path: &Path) -> Result<Bytes, PlaceError> {
        let size = self.ask(path, self.store.head(path)).await?.size;
        if size > SMALL_MAX_BYTES {
            return Err(self.failed(format!("{path} has {size} bytes, and should be small")));
        }
        self.ask(path, async { self.store.get(path).await?.bytes().await }).await
    }

    /// The folders of backups, good or not.
    pub(super) async fn ids(&self) -> Result<Vec<BackupId>, PlaceError> {
        let root = Path::from(ROOT);
        let listed = self.ask(&root, self.store.list_with_delimiter(Some(&root))).await?;
        let mut ids: Vec<BackupId> =
            listed.common_prefixes.iter().filter_map(|prefix| prefix.filename()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The files of a backup, and when each was written.
    pub(super) async fn files(&self, id: BackupId) -> Result<Vec<(Path, Timestamp)>, PlaceError> {
        let folder = folder_of(id);
        let files = self.store.list(Some(&folder)).try_collect::<Vec<_>>();
        let files = self.ask(&folder, files).await?;
        let at = |file: &object_store::ObjectMeta| Timestamp(file.last_modified.timestamp_millis());
        Ok(files.into_iter().map(|file| (file.location.clone(), at(&file))).collect())
    }

    /// Deletes all files of a backup, the manifest first: what is deleted by halves is none.
    pub(super) async fn remove(&self, id: BackupId) -> Result<(), PlaceError> {
        let manifest = file_of(id, MANIFEST);
        match self.ask(&manifest, self.store.delete(&manifest)).await {
            Ok(()) | Err(PlaceError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        for (path, _) in self.files(id).await? {
            match self.ask(&path, self.store.delete(&path)).await {
                Ok(()) | Err(PlaceError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // A folder may have more than files of ours: what is left of a write that was killed has another name, and is not listed.
        let Some(folder) = self.folder.as_ref().map(|folder| folder.join(ROOT).join(id.to_string())) else {
            return Ok(());
        };
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
        match removed.map_err(|error| self.failed(error))? {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }
}

/// What a server says may have many lines.
fn one_line(said: impl std::fmt::Display) -> String {
    said.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn folder_of(id: BackupId) -> Path {
    Path::from_iter([ROOT, &id.to_string()])
}

/// A file of a backup.
pub(super) fn file_of(id: BackupId, name: &str) -> Path {
    Path::from_iter([ROOT, &id.to_string(), name])
}
