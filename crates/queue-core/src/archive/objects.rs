//! What lies in a folder or bucket beside the journal. What is in an object of an archive, and what an object's own checksum
//! must say before anything in it is believed.

use std::{
    collections::BTreeMap,
    io::Read,
    path::Path,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{ArchiveObject, Letter};
use crate::{
    bodies::Slip,
    hex,
    ids::{JobId, Name, OperationId},
    ledger::Nanousd,
    location::{Folders, Location},
    operations::{Order, STEP_MAX_JOBS},
    time::Timestamp,
};

/// Most letters of one object: a step's.
pub const OBJECT_MAX_LETTERS: usize = STEP_MAX_JOBS;
/// Most bytes that an object may unfold to: some thousand times what one that was written here does, and less than a process has.
const UNFOLDED_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// Longest time of one request: a few hundred MiB over a slow line.
const REQUEST_MAX: Duration = Duration::from_secs(120);
/// How hard zstd tries: its own default, some 200 MB/s and a tenth of the size for prompts that resemble each other.
const LEVEL: i32 = 3;
/// The folder of all archives.
const ARCHIVES: &str = "archives";
/// The folder of all large bodies.
const BODIES: &str = "bodies";
/// The object that every place has, and what is in it.
const MARK: &str = "longshore-objects.txt";
const MARKED: &str = "Longshore keeps large payloads, results and archives here. Do not delete this file.\n";
/// What the names of objects end in.
const BODY: &str = ".ndjson.zst";
/// What a manifest says of its form.
const FORM: u32 = 1;

/// Why an object cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The place is full, away, or read-only: try again later.
    #[error("objects cannot be kept or read: {0}")]
    Unavailable(String),
    /// There is no such object, or it is not what was written.
    #[error("{path}: {reason}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A place for objects. Cheap to clone.
///
/// A place has a *mark*, an object of that name. A folder without it is a disk that is not mounted, or a mistyped path: nothing is missing
/// there, it is the place that is away.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Whether its mark was seen.
    is_marked: Arc<AtomicBool>,
    /// Whether this process may make the mark.
    may_mark: bool,
}

impl Objects {
    /// A folder, which is made with those that it is in. What it has taken survives a loss of power.
    ///
    /// # Errors
    /// Of the file system.
    pub fn folder(path: &Path) -> Result<Self, String> {
        Self::open(&Location::Folder(path.to_owned()), &BTreeMap::new())
    }

    /// A folder or a bucket, with the options of a bucket's client. Nothing is asked of its server yet.
    ///
    /// # Errors
    /// Says what is wrong with them, or with the folder.
    pub fn open(location: &Location, options: &BTreeMap<String, String>) -> Result<Self, String> {
        Ok(Self { store: location.open(options, Folders::All)?, is_marked: Arc::default(), may_mark: true })
    }

    /// Likewise for a process that is one of many, and must find the place as others have it.
    pub fn of_others(self) -> Self {
        Self { may_mark: false, ..self }
    }

    /// Makes sure that this is the place, and makes it one if this process may.
    ///
    /// # Errors
    /// [`ObjectsError::Unavailable`].
    pub async fn mark(&self) -> Result<(), ObjectsError> {
        if self.is_marked.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.file(MARK).await?.is_none() {
            if !self.may_mark {
                let reason =
                    format!("there is no `{MARK}` in it: is this what the API keeps objects in, and is it mounted?");
                return Err(ObjectsError::Unavailable(reason));
            }
            self.put(MARK, MARKED.into(), PutMode::Overwrite).await?;
        }
        self.is_marked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Writes letters of one tenant as a new object of an archive, reads it back, and reads the letters out of it. What it
    /// returns is to be committed, and then [`Objects::describe`]d; what is not is to be [`Objects::discard`]ed.
    ///
    /// # Errors
    /// [`ObjectsError::Damaged`]: what was read back is not what was written.
    pub async fn keep(&self, id: OperationId, letters: Arc<[Letter]>) -> Result<ArchiveObject, ObjectsError> {
        let folded = letters.clone();
        let (body, mut object) = blocking(move || fold(&folded)).await??;
        let file = format!("{}{BODY}", Uuid::now_v7());
        // Names of tenants are any text: what no path can have is written as `%2F` is.
        object.path = [&*below(ARCHIVES, &object.tenant), &id.to_string(), &file].join("/");
        self.put(&object.path, body, PutMode::Create).await?;
        // What lies there is soon all that there is of them.
        if self.letters(&object).await? != *letters {
            let reason = "what is read out of it is not what was written".to_owned();
            return Err(ObjectsError::Damaged { path: object.path, reason });
        }
        Ok(object)
    }

    /// Writes a manifest beside an object that is part of its archive now: for whoever has the objects and no journal.
    ///
    /// # Errors
    /// The object is none the worse for it.
    pub async fn describe(
        &self,
        id: OperationId,
        order: &Order,
        object: &ArchiveObject,
        now: Timestamp,
    ) -> Result<(), ObjectsError> {
        let manifest = json!({
            "form": FORM, "archive": id, "object": object, "filter": order.filter, "reason": order.reason,
            "asked_by": order.asked_by, "written_at": now,
        });
        self.put(&manifest_of(&object.path), format!("{manifest:#}\n").into(), PutMode::Create).await
    }

    /// Writes lines as an object, compressed, reads it back, and returns its SHA-256. One of this name is an earlier try's, and is written over.
    ///
    /// # Errors
    /// [`ObjectsError::Damaged`]: what was read back is not what was written.
    pub async fn keep_lines(&self, path: &str, lines: Vec<u8>) -> Result<[u8; 32], ObjectsError> {
        let body = compressed(lines.into()).await?;
        let written = Sha256::digest(&body).into();
        self.put(path, body, PutMode::Overwrite).await?;
        self.read(path, written).await?;
        Ok(written)
    }

    /// Deletes an object that is part of no archive.
    ///
    /// # Errors
    /// Then it is a file that nothing names.
    pub async fn discard(&self, object: &ArchiveObject) -> Result<(), ObjectsError> {
        self.delete(&object.path).await
    }

    /// Deletes an object; one that is not there is as good.
    ///
    /// # Errors
    /// It may be there still.
    pub async fn delete(&self, path: &str) -> Result<(), ObjectsError> {
        let path = path_of(path)?;
        match in_time(self.store.delete(&path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Writes a body of a job under a name that no other has, compressed. It is part of nothing until its slip is committed.
    pub(crate) async fn keep_body(
        &self,
        tenant: &Name,
        id: JobId,
        name: &str,
        body: Bytes,
    ) -> Result<Slip, ObjectsError> {
        self.mark().await?;
        let bytes = body.len();
        let folded = compressed(body).await?;
        let path = [&*below(BODIES, tenant), &id.to_string(), name].join("/") + ".zst";
        let sha256 = Sha256::digest(&folded).into();
        self.put(&path, folded, PutMode::Create).await?;
        Ok(Slip { path, sha256, bytes })
    }

    /// The body that a slip is of.
    pub(crate) async fn body(&self, slip: &Slip) -> Result<Bytes, ObjectsError> {
        let folded = match self.read(&slip.path, slip.sha256).await {
            Ok(folded) => folded,
            Err(damaged) => {
                self.mark().await?;
                return Err(damaged);
            }
        };
        let bytes = slip.bytes;
        let body = blocking(move || zstd::bulk::decompress(&folded, bytes)).await?;
        let body = body.ok().filter(|body| body.len() == bytes);
        let damaged =
            || ObjectsError::Damaged { path: slip.path.clone(), reason: format!("does not unfold to {bytes} bytes") };
        body.map(Bytes::from).ok_or_else(damaged)
    }

    /// Bodies that were written before a moment, in any order: where each is, of which job, and when it was written.
    pub fn bodies(&self, before: Timestamp) -> BoxStream<'static, Result<(String, JobId, Timestamp), ObjectsError>> {
        self.written_before(BODIES, before)
    }

    /// Objects of archives that were written before a moment, in any order: where each is, of which archive, and when it was written.
    pub fn archived(
        &self,
        before: Timestamp,
    ) -> BoxStream<'static, Result<(String, OperationId, Timestamp), ObjectsError>> {
        // Manifests go with what they describe.
        let is_told =
            |found: &Result<(String, _, _), _>| found.as_ref().map_or(true, |(path, ..)| path.ends_with(BODY));
        Box::pin(self.written_before(ARCHIVES, before).filter(move |found| std::future::ready(is_told(found))))
    }

    /// Files below a folder that were written before a moment, each in a folder that is named by an id.
    fn written_before<I: FromStr + Send + 'static>(
        &self,
        folder: &str,
        before: Timestamp,
    ) -> BoxStream<'static, Result<(String, I, Timestamp), ObjectsError>> {
        let found = move |file: ObjectMeta| {
            let written = Timestamp(file.last_modified.timestamp_millis());
            let path = file.location.to_string();
            let id = path.rsplit('/').nth(1).and_then(|id| id.parse().ok());
            id.filter(|_| written < before).map(|id| Ok((path, id, written)))
        };
        let files = self.store.list(Some(&object_store::path::Path::from(folder)));
        Box::pin(files.filter_map(move |file| {
            std::future::ready(match file {
                Ok(file) => found(file),
                Err(error) => Some(Err(unavailable(error))),
            })
        }))
    }

    /// Deletes all that is kept of a tenant, and returns how many files that were.
    ///
    /// # Errors
    /// Some of it may be there still.
    pub async fn erase(&self, tenant: &Name) -> Result<u64, ObjectsError> {
        let mut erased = 0;
        for folder in [ARCHIVES, BODIES] {
            let below = path_of(&below(folder, tenant))?;
            let mut files = self.store.list(Some(&below));
            while let Some(file) = in_time(files.try_next()).await.map_err(unavailable)? {
                in_time(self.store.delete(&file.location)).await.map_err(unavailable)?;
                erased += 1;
            }
        }
        Ok(erased)
    }

    /// Every file, by path: what a backup copies.
    ///
    /// # Errors
    /// Where the place does not answer.
    pub(crate) async fn paths(&self) -> Result<Vec<String>, ObjectsError> {
        let unavailable = |error: object_store::Error| ObjectsError::Unavailable(error.to_string());
        let (mut paths, mut files) = (Vec::new(), self.store.list(None));
        while let Some(file) = in_time(files.try_next()).await.map_err(unavailable)? {
            paths.push(file.location.to_string());
        }
        paths.sort_unstable();
        Ok(paths)
    }

    /// A file as it lies there; `None`: it was deleted.
    ///
    /// # Errors
    /// Where the place does not answer.
    pub(crate) async fn file(&self, path: &str) -> Result<Option<Bytes>, ObjectsError> {
        let path = path_of(path)?;
        match in_time(async { self.store.get(&path).await?.bytes().await }).await {
            Ok(body) => Ok(Some(body)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Puts a file of a backup back. One that is there is left alone if it is the same.
    ///
    /// # Errors
    /// [`ObjectsError::Damaged`]: another one is there.
    pub(crate) async fn put_back(&self, path: &str, body: Bytes) -> Result<(), ObjectsError> {
        match self.file(path).await? {
            None => self.put(path, body, PutMode::Create).await,
            Some(there) if there == body => Ok(()),
            Some(_) => {
                Err(ObjectsError::Damaged { path: path.to_owned(), reason: "another file is there already".to_owned() })
            }
        }
    }

    /// The letters of an object, once its checksum, their number and their tenant are what the journal has noted.
    ///
    /// # Errors
    /// [`ObjectsError::Damaged`] where one of these is not.
    pub async fn letters(&self, object: &ArchiveObject) -> Result<Vec<Letter>, ObjectsError> {
        let body = self.read(&object.path, object.sha256).await?;
        let damaged = |reason: String| ObjectsError::Damaged { path: object.path.clone(), reason };
        let letters = blocking(move || unfold(&body)).await?.map_err(damaged)?;
        if letters.len() as u64 != object.letters {
            return Err(damaged(format!("{} letters, and there were {}", letters.len(), object.letters)));
        }
        match letters.iter().find(|letter| letter.tenant != object.tenant) {
            Some(letter) => Err(damaged(format!("{} is of another tenant than its object", letter.id))),
            None => Ok(letters),
        }
    }

    async fn read(&self, path: &str, sha256: [u8; 32]) -> Result<Bytes, ObjectsError> {
        let damaged = |reason: String| ObjectsError::Damaged { path: path.to_owned(), reason };
        let body = self.bytes(path).await?;
        let found: [u8; 32] = Sha256::digest(&body).into();
        if found != sha256 {
            let (found, noted) = (hex::of(&found), hex::of(&sha256));
            return Err(damaged(format!("its SHA-256 is {found}, and {noted} was written")));
        }
        Ok(body)
    }

    async fn bytes(&self, path: &str) -> Result<Bytes, ObjectsError> {
        let missing = || ObjectsError::Damaged { path: path.to_owned(), reason: "it is not there".to_owned() };
        self.file(path).await?.ok_or_else(missing)
    }

    async fn put(&self, path: &str, body: Bytes, mode: PutMode) -> Result<(), ObjectsError> {
        let (path, options) = (path_of(path)?, PutOptions { mode, ..PutOptions::default() });
        let put = self.store.put_opts(&path, PutPayload::from_bytes(body), options);
        in_time(put).await.map(drop).map_err(unavailable)
    }
}

fn unavailable(error: object_store::Error) -> ObjectsError {
    ObjectsError::Unavailable(error.to_string())
}

/// Where everything of this kind is that a tenant has.
fn below(folder: &str, tenant: &Name) -> String {
    object_store::path::Path::from_iter([folder, tenant.as_str()]).to_string()
}

/// Where the manifest of an archive's object is.
pub fn manifest_of(path: &str) -> String {
    format!("{}.json", path.strip_suffix(BODY).unwrap_or(path))
}

fn path_of(path: &str) -> Result<object_store::path::Path, ObjectsError> {
    let damaged = |error: object_store::path::Error| ObjectsError::Damaged {
        path: path.to_owned(),
        reason: format!("no object can have this name: {error}"),
    };
    object_store::path::Path::parse(path).map_err(damaged)
}

async fn in_time<T>(request: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    match tokio::time::timeout(REQUEST_MAX, request).await {
        Ok(answer) => answer,
        Err(_) => {
            let source = format!("no answer within {REQUEST_MAX:?}").into();
            Err(object_store::Error::Generic { store: "objects", source })
        }
    }
}

/// Compression takes a processor for a while.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ObjectsError> {
    spawn_blocking(work).await.map_err(|error| ObjectsError::Unavailable(error.to_string()))
}

async fn compressed(body: Bytes) -> Result<Bytes, ObjectsError> {
    let folded = blocking(move || zstd::bulk::compress(&body, LEVEL)).await?;
    folded.map(Bytes::from).map_err(|error| ObjectsError::Unavailable(error.to_string()))
}

/// Letters as they are kept, a line each, and what is noted of them.
fn fold(letters: &[Letter]) -> Result<(Bytes, ArchiveObject), ObjectsError> {
    let mut lines = Vec::new();
    let failed = |error: &dyn std::fmt::Display| ObjectsError::Unavailable(error.to_string());
    for letter in letters {
        serde_json::to_writer(&mut lines, letter).map_err(|error| failed(&error))?;
        lines.push(b'\n');
    }
    let body = zstd::bulk::compress(&lines, LEVEL).map_err(|error| failed(&error))?;
    let cost = letters.iter().map(|letter| letter.sums.cost_nanousd.0).fold(0, i64::saturating_add);
    let ends = || letters.iter().map(|letter| letter.finished_at);
    let object = ArchiveObject {
        path: String::new(),
        tenant: letters.first().map_or_else(|| Name::from(""), |letter| letter.tenant.clone()),
        sha256: Sha256::digest(&body).into(),
        bytes: body.len() as u64,
        letters: letters.len() as u64,
        calls: letters.iter().map(|letter| letter.sums.calls).sum(),
        cost_nanousd: Nanousd(cost),
        first_ended_at: ends().min().unwrap_or_default(),
        last_ended_at: ends().max().unwrap_or_default(),
        restored: false,
    };
    Ok((body.into(), object))
}

fn unfold(body: &[u8]) -> Result<Vec<Letter>, String> {
    let decoder = zstd::stream::Decoder::new(body).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    decoder.take(UNFOLDED_MAX_BYTES + 1).read_to_end(&mut lines).map_err(|error| error.to_string())?;
    if lines.len() as u64 > UNFOLDED_MAX_BYTES {
        return Err(format!("it unfolds to more than {UNFOLDED_MAX_BYTES} bytes"));
    }
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read =
        |(at, line): (usize, &[u8])| serde_json::from_slice(line).map_err(|error| format!("line {}: {error}", at + 1));
    lines.enumerate().map(read).collect()
}
