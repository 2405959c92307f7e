//! Where backups lie: a folder, or a bucket of an S3 protocol server.

use std::{
    collections::BTreeMap,
    os::unix::fs::DirBuilderExt,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path,
    prefix::PrefixStore,
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{BackupId, manifest::MANIFEST};
use crate::time::Timestamp;

/// The folder of all backups.
const ROOT: &str = "backups";
/// Bytes of a piece of an upload or download: a few of them are in memory at once, and S3 takes 10,000 of an object.
pub(super) const PIECE_BYTES: usize = 16 * 1024 * 1024;
/// Pieces of one part: what S3 takes. 156 GiB, compressed; a larger journal wants WAL archiving.
const PIECES_MAX: usize = 10_000;
/// Longest time of one request, all of its own tries together: a piece over a slow line.
const REQUEST_MAX: Duration = Duration::from_secs(300);
/// Longest time of one try.
const TRY_MAX: Duration = Duration::from_secs(120);
/// Longest time until a server answers a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Tries of one request behind the first, and for how long: an S3 server that blinks.
const RETRIES_MAX: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(60);
/// Largest manifest that is read.
const SMALL_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why a place did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It is away, full or read-only, or refuses us.
    #[error("{place}: {reason}")]
    Failed {
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
    /// The place that `file:PATH` or `s3://BUCKET/PREFIX` names. `options` are those of the S3 client, by the names of its
    /// environment variables (`aws_access_key_id`, `aws_endpoint_url` …); names that it does not know are left out.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        let path = |rest: &str| PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
        match url.split_once(':') {
            Some(("file", rest)) if !rest.trim_start_matches("//").is_empty() => Self::folder(&path(rest)),
            Some(("s3", rest)) if rest.starts_with("//") && rest.len() > 2 => Self::bucket(&rest[2..], options),
            _ => Err("a place for backups is `file:PATH` or `s3://BUCKET/PREFIX`".to_owned()),
        }
    }

    fn folder(path: &FilePath) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        // Sizes and times are nobody else's business, either.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed(&error))?;
        let folder = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(&error))?;
        Ok(Self { store: Arc::new(folder.with_fsync(true)), shown: format!("file:{}", path.display()) })
    }

    fn bucket(rest: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let client = ClientOptions::new().with_timeout(TRY_MAX).with_connect_timeout(CONNECT_MAX);
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry).with_bucket_name(bucket);
        for (name, value) in options {
            if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.build().map_err(|error| format!("s3://{bucket}: {error}"))?;
        let shown = format!("s3://{}", rest.trim_end_matches('/'));
        let store: Arc<dyn ObjectStore> = match prefix.trim_matches('/') {
            "" => Arc::new(store),
            prefix => {
                let prefix = Path::parse(prefix).map_err(|error| format!("{shown}: {error}"))?;
                Arc::new(PrefixStore::new(store, prefix))
            }
        };
        Ok(Self { store, shown })
    }

    /// Its name, without secrets.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn failed(&self, reason: impl std::fmt::Display) -> PlaceError {
        // What a server says may have many lines.
        let reason = reason.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        PlaceError::Failed { place: self.shown.clone(), reason }
    }

    fn refused(&self, said: impl std::fmt::Display) -> PlaceError {
        self.failed(format!("it refuses us; correct its credentials or rights ({said})"))
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
            let (bytes, is_last) = match pieces.recv().await {
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
        Ok(())
    }
}

fn folder_of(id: BackupId) -> Path {
    Path::from_iter([ROOT, &id.to_string()])
}

/// A file of a backup.
pub(super) fn file_of(id: BackupId, name: &str) -> Path {
    Path::from_iter([ROOT, &id.to_string(), name])
}
