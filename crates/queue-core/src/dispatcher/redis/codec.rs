//! How entries, leases and answers travel: packed, so that a batch is one argument and one answer.
//!
//! Numbers are big-endian. Epochs and times travel as doubles, which is what Lua computes with; they are exact up to
//! 2^53, and what lies beyond (no clock and no epoch does) is held at that bound.

use std::collections::HashMap;

use redis::Value;
use uuid::Uuid;

use crate::{
    dispatcher::{Ack, Claim, DispatchError, Entry, Held, Lease, Place, tracks::Track},
    ids::{Epoch, JobId, Name, Nonce, SessionId},
    journal::{Blame, Recovery, Token},
    time::Timestamp,
};

/// Largest integer that a double holds exactly.
const EXACT_MAX: i64 = 1 << 53;
/// Bytes of the record of a held job: rank, lane, suspicion, run_at, epoch, nonce, session, flags, started_at.
const RECORD_BYTES: usize = 1 + 4 + 1 + 8 + 8 + 16 + 8 + 1 + 8;
/// Bytes of a claim, a lost lease and a place in an answer.
const CLAIM_BYTES: usize = 16 + RECORD_BYTES + 2;
const LOST_BYTES: usize = 16 + 8 + 8 + 1 + 16 + 1 + 8;
const PLACE_BYTES: usize = 1 + 8 + 16 + 1 + 8;

/// An answer that is not of the agreed form: of a Redis that something else writes to.
pub(crate) fn strange() -> DispatchError {
    DispatchError::Unavailable("Redis gave an answer of a form that this version does not know".into())
}

fn double(number: i64) -> [u8; 8] {
    (number.clamp(-EXACT_MAX, EXACT_MAX) as f64).to_be_bytes()
}

/// Writes a batch, and numbers the lanes that its entries name, each with each concurrency key.
#[derive(Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    lanes: Vec<Vec<u8>>,
    numbers: HashMap<(Name, Name, Name, Option<Name>), u16>,
}

impl Batch {
    pub(super) fn entry(&mut self, entry: &Entry) {
        let lane = (entry.queue.clone(), entry.tenant.clone(), entry.target.clone(), entry.key.clone());
        let next = self.numbers.len() as u16;
        let lanes = &mut self.lanes;
        let number = *self.numbers.entry(lane).or_insert_with_key(|(queue, tenant, target, key)| {
            lanes.extend([queue, tenant, target].map(|name| name.as_str().as_bytes().to_vec()));
            if let (Some(key), Some(target)) = (key, lanes.last_mut()) {
                target.push(0);
                target.extend_from_slice(key.as_str().as_bytes());
            }
            next
        });
        self.text.extend_from_slice(entry.id.as_bytes());
        self.text.extend_from_slice(&double(entry.epoch.0));
        self.text.extend_from_slice(&double(entry.run_at.0));
        self.text.extend_from_slice(&[entry.priority, Track::of(entry).number(), entry.suspicion.number()]);
        self.text.extend_from_slice(&number.to_be_bytes());
    }

    pub(super) fn held(&mut self, held: &Held) {
        self.entry(&held.entry);
        self.text.extend_from_slice(&held.lease.nonce.0.to_be_bytes());
        self.text.push(u8::from(held.started_at.is_some()));
        self.text.extend_from_slice(&double(held.started_at.map_or(0, |at| at.0)));
    }

    pub(super) fn ack(&mut self, ack: &Ack) {
        self.text.extend_from_slice(&lease(&ack.lease));
        self.text.push(u8::from(ack.next.is_some()));
        if let Some(next) = &ack.next {
            self.entry(next);
        }
    }

    /// The batch, then three names a lane; a concurrency key stands behind the third one and a NUL.
    pub(super) fn into_args(self) -> impl Iterator<Item = Vec<u8>> {
        std::iter::once(self.text).chain(self.lanes)
    }
}

fn lease(lease: &Lease) -> [u8; 32] {
    let mut text = [0; 32];
    text[..16].copy_from_slice(lease.id.as_bytes());
    text[16..24].copy_from_slice(&double(lease.epoch.0));
    text[24..].copy_from_slice(&lease.nonce.0.to_be_bytes());
    text
}

pub(super) fn leases(leases: &[Lease]) -> Vec<u8> {
    leases.iter().flat_map(lease).collect()
}

pub(super) fn ids(ids: &[JobId]) -> Vec<u8> {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

/// Reads fields of a fixed form one after the other.
struct Fields<'t>(&'t [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DispatchError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(strange)?;
        self.0 = rest;
        Ok(*head)
    }

    fn double(&mut self) -> Result<i64, DispatchError> {
        self.take().map(|bytes| f64::from_be_bytes(bytes) as i64)
    }

    fn flag(&mut self) -> Result<bool, DispatchError> {
        self.take::<1>().map(|[byte]| byte == 1)
    }

    fn uuid(&mut self) -> Result<Uuid, DispatchError> {
        self.take().map(Uuid::from_bytes)
    }

    fn started_at(&mut self) -> Result<Option<Timestamp>, DispatchError> {
        let started = self.flag()?;
        let at = self.double()?;
        Ok(started.then_some(Timestamp(at)))
    }
}

fn each<T>(
    text: &[u8],
    bytes: usize,
    read: impl Fn(&mut Fields<'_>) -> Result<T, DispatchError>,
) -> Result<Vec<T>, DispatchError> {
    text.chunks(bytes).map(|chunk| read(&mut Fields(chunk))).collect()
}

pub(super) fn claims(text: &[u8], queues: &[Name]) -> Result<Vec<Claim>, DispatchError> {
    each(text, CLAIM_BYTES, |fields| {
        let id = JobId(fields.uuid()?);
        let [_rank, _lane_and_suspicion @ ..] = fields.take::<6>()?;
        let (ready_at, epoch) = (Timestamp(fields.double()?), Epoch(fields.double()?));
        let nonce = Nonce(u64::from_be_bytes(fields.take()?));
        let _session = fields.uuid()?;
        let _unmarked = fields.take::<9>()?;
        let queue = queues.get(usize::from(u16::from_be_bytes(fields.take()?))).ok_or_else(strange)?.clone();
        Ok(Claim { lease: Lease { id, epoch, nonce }, queue, ready_at })
    })
}

pub(super) fn recoveries(text: &[u8]) -> Result<Vec<Recovery>, DispatchError> {
    each(text, LOST_BYTES, |fields| {
        let token = Token { id: JobId(fields.uuid()?), epoch: Epoch(fields.double()?) };
        let nonce = Nonce(u64::from_be_bytes(fields.take()?));
        let blame = match fields.take()? {
            [0] => Blame::Nobody,
            [1] => Blame::Shared,
            [2] => Blame::Alone,
            _ => return Err(strange()),
        };
        let session = SessionId(fields.uuid()?);
        Ok(Recovery { token, nonce, blame, session, started_at: fields.started_at()? })
    })
}

pub(super) fn sessions(text: &[u8]) -> Result<Vec<SessionId>, DispatchError> {
    each(text, 16, |fields| Ok(SessionId(fields.uuid()?)))
}

pub(super) fn places(text: &[u8]) -> Result<Vec<Place>, DispatchError> {
    each(text, PLACE_BYTES, |fields| {
        let [kind] = fields.take()?;
        let epoch = Epoch(fields.double()?);
        let session = SessionId(fields.uuid()?);
        let started_at = fields.started_at()?;
        match kind {
            0 => Ok(Place::Unknown),
            1 => Ok(Place::Waiting { epoch }),
            2 => Ok(Place::Leased { epoch, session, started_at }),
            _ => Err(strange()),
        }
    })
}

/// The parts of an answer.
pub(crate) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    pub(crate) fn new(value: Value) -> Result<Self, DispatchError> {
        match value {
            Value::Array(parts) => Ok(Self(parts.into_iter())),
            _ => Err(strange()),
        }
    }

    pub(crate) fn value(&mut self) -> Result<Value, DispatchError> {
        self.0.next().ok_or_else(strange)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, DispatchError> {
        bytes(self.value()?)
    }

    pub(crate) fn text(&mut self) -> Result<String, DispatchError> {
        String::from_utf8(self.bytes()?).map_err(|_| strange())
    }

    pub(crate) fn name(&mut self) -> Result<Name, DispatchError> {
        self.text().map(Name::new)
    }

    pub(super) fn session(&mut self) -> Result<SessionId, DispatchError> {
        Uuid::from_slice(&self.bytes()?).map(SessionId).map_err(|_| strange())
    }

    pub(crate) fn number(&mut self) -> Result<i64, DispatchError> {
        number(&self.value()?).ok_or_else(strange)
    }

    /// A moment, or `None` where there is none.
    pub(crate) fn moment(&mut self) -> Result<Option<Timestamp>, DispatchError> {
        match self.value()? {
            Value::BulkString(text) if text.is_empty() => Ok(None),
            part => number(&part).map(|ms| Some(Timestamp(ms))).ok_or_else(strange),
        }
    }

    pub(crate) fn rest(self) -> impl Iterator<Item = Value> {
        self.0
    }
}

pub(super) fn bytes(value: Value) -> Result<Vec<u8>, DispatchError> {
    match value {
        Value::BulkString(text) => Ok(text),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(strange()),
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}
