//! Whether a backup is still what was written.

use std::{io, sync::Arc};

use super::{
    BackupError, BackupId, Identities,
    known::{Harm, Known, find, marked},
    manifest::{Content, Part, VERIFIED, Verified},
    objects,
    pace::Pace,
    place::{Place, file_of},
    seal,
};
use crate::time::{Clock, Timestamp};

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The backup.
    pub known: Known,
    /// When it was checked.
    pub at: Timestamp,
    /// Whether its parts were opened, too; else only their hashes were compared.
    pub opened: bool,
    /// What is wrong, each with the part's name. None: it is good.
    pub damaged: Vec<(String, String)>,
}

/// Reads every part of a backup again, compares it, and opens it where there is a key. A backup that is found good is marked so at its
/// place, and one that is not is marked so, too: no list of good ones has it any more. That a key does not open it is no damage.
///
/// # Errors
/// [`BackupError::NotFound`]; [`BackupError::Damaged`] for the manifest itself; [`BackupError::Failed`] where the place is away, which
/// says nothing of the backup.
pub async fn verify(
    place: &Place,
    id: BackupId,
    identities: Option<&Arc<Identities>>,
    clock: &dyn Clock,
) -> Result<Verdict, BackupError> {
    read_again(place, id, identities, clock, true).await
}

/// Does what [`verify()`] does, and marks only what it finds damaged: a drill marks what has passed.
///
/// # Errors
/// As those of [`verify()`].
pub async fn examine(
    place: &Place,
    id: BackupId,
    identities: Option<&Arc<Identities>>,
    clock: &dyn Clock,
) -> Result<Verdict, BackupError> {
    read_again(place, id, identities, clock, false).await
}

async fn read_again(
    place: &Place,
    id: BackupId,
    identities: Option<&Arc<Identities>>,
    clock: &dyn Clock,
    marks_good: bool,
) -> Result<Verdict, BackupError> {
    let mut known = find(place, id).await?;
    let mut damaged = Vec::new();
    for part in &known.manifest.parts {
        match check_part(place, identities, id, part).await {
            Ok(()) => {}
            Err(BackupError::Damaged { part, reason }) => damaged.push((part, reason)),
            Err(error) => return Err(error),
        }
    }
    let (at, opened) = (clock.now(), identities.is_some());
    if damaged.is_empty() && marks_good {
        // What a drill has found stays beside what a look finds.
        let drill = known.verified.filter(|before| before.restored_at.is_some());
        let none = Verified { at, opened, restored_at: None, recovery_ms: None, lost_ms: None };
        let verified = Verified { at, opened, ..drill.unwrap_or(none) };
        put_mark(place, id, verified).await?;
        known.verified = Some(verified);
    } else if damaged.iter().any(|(_, reason)| reason != seal::NO_KEY) {
        let harm = Harm { at, damaged: damaged.clone() };
        let text = serde_json::to_string(&harm).map_err(|error| BackupError::Failed(error.to_string()))?;
        known.verified = None;
        if let Err(error) = place.put(&file_of(id, VERIFIED), format!("{text}\n").into()).await {
            tracing::error!(%error, backup = %id, "a damaged backup could not be marked as such");
        }
    }
    Ok(Verdict { known, at, opened, damaged })
}

/// Notes beside a backup that it was tried, and is good. One of which a check has found a part damaged stays so until [`verify()`] finds
/// all of it good: a drill need not read every part.
///
/// # Errors
/// Where the place does not take it.
pub async fn mark(place: &Place, id: BackupId, verified: Verified) -> Result<(), BackupError> {
    match marked(place, id).await? {
        (_, Some(_)) => Ok(()),
        (_, None) => put_mark(place, id, verified).await,
    }
}

async fn put_mark(place: &Place, id: BackupId, verified: Verified) -> Result<(), BackupError> {
    let text = serde_json::to_string(&verified).map_err(|error| BackupError::Failed(error.to_string()))?;
    Ok(place.put(&file_of(id, VERIFIED), format!("{text}\n").into()).await?)
}

/// Reads a part back.
pub(super) async fn check_part(
    place: &Place,
    identities: Option<&Arc<Identities>>,
    id: BackupId,
    part: &Part,
) -> Result<(), BackupError> {
    let path = file_of(id, &part.name);
    let Some(identities) = identities else { return seal::check(place, &path, part).await };
    let expected = part.clone();
    seal::open(place, identities, (&path, part), move |plain| {
        let mut counted = Counted { inner: plain, bytes: 0, pace: Pace::new() };
        if expected.content == Content::ObjectsTar {
            objects::read(&mut counted, None)
                .map_err(|error| BackupError::damaged(&expected.name, error.to_string()))?;
        }
        io::copy(&mut counted, &mut io::sink()).map_err(|error| BackupError::Failed(error.to_string()))?;
        match counted.bytes == expected.plain_bytes {
            true => Ok(()),
            false => {
                let reason = format!("{} bytes are in it, and {} went in", counted.bytes, expected.plain_bytes);
                Err(BackupError::damaged(&expected.name, reason))
            }
        }
    })
    .await
}

/// Counts what is read.
struct Counted<'r> {
    inner: &'r mut dyn io::Read,
    bytes: u64,
    pace: Pace,
}

impl io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pace.rest();
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}
