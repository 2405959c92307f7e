//! The flight recorder of the embedded mode: which handlers had started when the process died.
//!
//! Written without fsync: it has to survive the process, not the power. A torn or unknown record ends the reading.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use uuid::Uuid;

use crate::{
    dispatcher::{DispatchError, Lease},
    ids::{Epoch, JobId, Nonce},
    time::Timestamp,
};

const RECORD_BYTES: usize = 48;
const STARTED: u8 = 1;
const ENDED: u8 = 2;
/// The file is begun anew when it is longer: a busy worker writes about 100 bytes a job.
const FILE_MAX_BYTES: u64 = 8 << 20;

/// A handler that had started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Started {
    pub(super) lease: Lease,
    pub(super) at: Timestamp,
    pub(super) suspect: bool,
}

pub(super) struct LeaseFile {
    file: File,
    bytes: u64,
    buffer: Vec<u8>,
}

impl LeaseFile {
    /// Opens the file and returns what had started and not ended in the process before.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Started>), DispatchError> {
        let open = || -> std::io::Result<_> {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok((file, text))
        };
        let (file, text) =
            open().map_err(|error| DispatchError::Unavailable(format!("{}: {error}", path.display())))?;
        let mut open = HashMap::new();
        for record in text.chunks_exact(RECORD_BYTES) {
            let Some((started, end)) = decode(record) else {
                tracing::warn!("the lease file has a broken record; what follows it is not read");
                break;
            };
            if end {
                open.remove(&started.lease);
            } else {
                open.insert(started.lease, started);
            }
        }
        let this = Self { file, bytes: text.len() as u64, buffer: Vec::new() };
        Ok((this, open.into_values().collect()))
    }

    pub(super) fn start(&mut self, started: &Started) {
        encode(&mut self.buffer, STARTED, started);
    }

    pub(super) fn end(&mut self, lease: Lease) {
        encode(&mut self.buffer, ENDED, &Started { lease, at: Timestamp(0), suspect: false });
    }

    /// Writes what has gathered; `open` is what has started and not ended, for the case that the file begins anew.
    pub(super) fn flush<'a>(&mut self, open: impl FnOnce() -> Vec<Started> + 'a) {
        if self.buffer.is_empty() {
            return;
        }
        let done = if self.bytes > FILE_MAX_BYTES { self.rewrite(open()) } else { self.append() };
        self.buffer.clear();
        if let Err(error) = done {
            tracing::warn!(%error, "the lease file was not written: a poison job may take longer to be convicted");
        }
    }

    fn append(&mut self) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(&self.buffer)?;
        self.bytes += self.buffer.len() as u64;
        Ok(())
    }

    fn rewrite(&mut self, open: Vec<Started>) -> std::io::Result<()> {
        self.buffer.clear();
        for started in &open {
            encode(&mut self.buffer, STARTED, started);
        }
        self.bytes = 0;
        self.append()?;
        self.file.set_len(self.bytes)
    }
}

fn encode(buffer: &mut Vec<u8>, what: u8, started: &Started) {
    let Started { lease, at, suspect } = started;
    let from = buffer.len();
    buffer.extend_from_slice(lease.id.as_bytes());
    buffer.extend_from_slice(&lease.epoch.0.to_le_bytes());
    buffer.extend_from_slice(&lease.nonce.0.to_le_bytes());
    buffer.extend_from_slice(&at.0.to_le_bytes());
    buffer.extend_from_slice(&[what, u8::from(*suspect)]);
    buffer.resize(from + RECORD_BYTES - 1, 0);
    let sum = buffer[from..].iter().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    buffer.push(sum);
}

fn decode(record: &[u8]) -> Option<(Started, bool)> {
    let (body, sum) = record.split_at(RECORD_BYTES - 1);
    if body.iter().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte)) != sum[0] {
        return None;
    }
    let number = |at: usize| body.get(at..at + 8)?.try_into().ok().map(i64::from_le_bytes);
    let lease = Lease {
        id: JobId(Uuid::from_slice(body.get(..16)?).ok()?),
        epoch: Epoch(number(16)?),
        nonce: Nonce(number(24)? as u64),
    };
    let end = match *body.get(40)? {
        STARTED => false,
        ENDED => true,
        _ => return None,
    };
    Some((Started { lease, at: Timestamp(number(32)?), suspect: body.get(41) == Some(&1) }, end))
}
