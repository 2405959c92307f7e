//! The flight recorder of the embedded mode: which handlers had started and not ended when the process died, so that
//! a job that kills its process is convicted although memory forgets who ran.
//!
//! An append-only log of records, written without fsync: it has to survive the process (kill -9), not the power. One
//! write for each call that starts or ends something. When it has grown it is begun anew beside itself and renamed.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{
    dispatcher::{DispatchError, Lease, Suspicion},
    ids::{Epoch, JobId, Nonce, SessionId},
    time::Timestamp,
};

/// A record and its header take one cache line each.
const RECORD_BYTES: usize = 64;
/// The checksum, at a record's end.
const SUM_BYTES: usize = 4;
/// First record of a file: its name and the version of what follows.
const HEADER: &[u8; 16] = b"longshore lease2";
/// The file is begun anew beyond this: about 32,000 jobs, which a busy worker writes in seconds, at a cost of
/// microseconds as only what runs is written again.
const FILE_MAX_BYTES: u64 = 4 << 20;
/// Unless what runs fills more than a quarter of it: then it may grow to this many times that.
const FILE_MAX_SPREAD: u64 = 4;

/// A handler that had started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Started {
    pub(super) lease: Lease,
    pub(super) session: SessionId,
    pub(super) at: Timestamp,
    pub(super) suspicion: Suspicion,
}

/// What the file is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Record {
    Start(Started),
    End(Lease),
}

const START: u8 = 1;
const END: u8 = 2;

pub(super) struct LeaseFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// What has started and not ended.
    live: HashMap<JobId, Started>,
    /// The last write failed: the next one begins the file anew from `live`, so nothing stays missing.
    broken: bool,
}

impl LeaseFile {
    /// Opens the file and returns what had started and not ended in the process before. Records that do not read are
    /// left out, with a warning.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Started>), DispatchError> {
        let unavailable = |error: std::io::Error| DispatchError::Unavailable(format!("{}: {error}", path.display()));
        let live = read(path).map_err(unavailable)?;
        let orphans = live.values().copied().collect();
        let (file, bytes) = write_anew(path, &live).map_err(unavailable)?;
        Ok((Self { path: path.to_owned(), file, bytes, live, broken: false }, orphans))
    }

    /// Writes records in their order. A failure weakens the conviction of a poison job and nothing else.
    pub(super) fn write(&mut self, records: &[Record]) {
        let mut text = Vec::with_capacity(records.len() * RECORD_BYTES);
        for record in records {
            match record {
                Record::Start(started) => {
                    self.live.insert(started.lease.id, *started);
                }
                Record::End(lease) => {
                    if self.live.get(&lease.id).is_some_and(|started| started.lease == *lease) {
                        self.live.remove(&lease.id);
                    }
                }
            }
            encode(&mut text, record);
        }
        let live_bytes = (self.live.len() * RECORD_BYTES) as u64;
        let grown = self.bytes + text.len() as u64 > FILE_MAX_BYTES.max(live_bytes * FILE_MAX_SPREAD);
        let written = if self.broken || grown { self.begin_anew() } else { self.append(&text) };
        match &written {
            Ok(()) if self.broken => tracing::info!("the lease file is written again"),
            Err(error) if !self.broken => {
                tracing::warn!(%error, "the lease file was not written: a poison job may take longer to be convicted");
            }
            Ok(()) | Err(_) => {}
        }
        self.broken = written.is_err();
    }

    fn append(&mut self, text: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(text, self.bytes)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn begin_anew(&mut self) -> std::io::Result<()> {
        (self.file, self.bytes) = write_anew(&self.path, &self.live)?;
        Ok(())
    }
}

/// Writes a file of what runs beside the old one, and puts it in its place: a crash in between leaves the old one.
fn write_anew(path: &Path, live: &HashMap<JobId, Started>) -> std::io::Result<(File, u64)> {
    let mut text = HEADER.to_vec();
    text.resize(RECORD_BYTES, 0);
    for started in live.values() {
        encode(&mut text, &Record::Start(*started));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&beside)?;
    file.write_all_at(&text, 0)?;
    std::fs::rename(&beside, path)?;
    Ok((file, text.len() as u64))
}

fn read(path: &Path) -> std::io::Result<HashMap<JobId, Started>> {
    let mut live = HashMap::new();
    let mut text = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(live),
        Err(error) => return Err(error),
    };
    if text.is_empty() {
        return Ok(live);
    }
    let (records, torn) = text.as_chunks::<RECORD_BYTES>();
    let Some((_, records)) = records.split_first().filter(|(header, _)| header.starts_with(HEADER)) else {
        tracing::warn!(path = %path.display(), "this is no lease file of this version; it is begun anew");
        return Ok(live);
    };
    let mut broken = usize::from(!torn.is_empty());
    for record in records {
        match decode(record) {
            Some(Record::Start(started)) => {
                live.insert(started.lease.id, started);
            }
            Some(Record::End(lease)) => {
                if live.get(&lease.id).is_some_and(|started: &Started| started.lease == lease) {
                    live.remove(&lease.id);
                }
            }
            None => broken += 1,
        }
    }
    if broken > 0 {
        tracing::warn!(path = %path.display(), broken, "records of the lease file do not read and are left out");
    }
    Ok(live)
}

/// Layout: id 16, epoch 8, nonce 8, session 16, start 8, what 1, suspicion 1, unused 2, checksum 4; little endian.
fn encode(text: &mut Vec<u8>, record: &Record) {
    let nobody = SessionId(Uuid::nil());
    let (what, Started { lease, session, at, suspicion }) = match record {
        Record::Start(started) => (START, *started),
        Record::End(lease) => {
            (END, Started { lease: *lease, session: nobody, at: Timestamp(0), suspicion: Suspicion::None })
        }
    };
    let from = text.len();
    text.extend_from_slice(lease.id.as_bytes());
    text.extend_from_slice(&lease.epoch.0.to_le_bytes());
    text.extend_from_slice(&lease.nonce.0.to_le_bytes());
    text.extend_from_slice(session.0.as_bytes());
    text.extend_from_slice(&at.0.to_le_bytes());
    text.extend_from_slice(&[what, suspicion.number(), 0, 0]);
    let sum = checksum(&text[from..]);
    text.extend_from_slice(&sum.to_le_bytes());
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<Record> {
    let (body, sum) = record.split_at(RECORD_BYTES - SUM_BYTES);
    if checksum(body).to_le_bytes() != sum {
        return None;
    }
    let number = |at: usize| body.get(at..at + 8)?.try_into().ok().map(i64::from_le_bytes);
    let uuid = |at: usize| Uuid::from_slice(body.get(at..at + 16)?).ok();
    let lease = Lease { id: JobId(uuid(0)?), epoch: Epoch(number(16)?), nonce: Nonce(number(24)?.cast_unsigned()) };
    match *body.get(56)? {
        START => Some(Record::Start(Started {
            lease,
            session: SessionId(uuid(32)?),
            at: Timestamp(number(48)?),
            suspicion: Suspicion::numbered(*body.get(57)?)?,
        })),
        END => Some(Record::End(lease)),
        _ => None,
    }
}

/// FNV-1a: it has to notice a torn or overwritten record, not an attacker.
fn checksum(body: &[u8]) -> u32 {
    body.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
