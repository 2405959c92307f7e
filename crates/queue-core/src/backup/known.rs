//! What lies at a place: which backups are good, which were checked, and what is no backup.

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{
    BackupError, BackupId,
    manifest::{MANIFEST, Manifest, VERIFIED, Verified},
    place::{Place, PlaceError, file_of},
};
use crate::time::Timestamp;

/// Backups that are looked at side by side.
const LOOKS_MAX: usize = 8;

/// A good backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is.
    pub manifest: Manifest,
    /// When it was last checked and found good, beside the read-back that made it one.
    pub verified: Option<Verified>,
}

/// What lies at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Good backups, newest first.
    pub good: Vec<Known>,
    /// Folders without a manifest, and when something was last written there: somebody is at work, or has died.
    pub unfinished: Vec<(BackupId, Option<Timestamp>)>,
    /// Backups whose manifest cannot be believed, or of which a check has found a part damaged; and why.
    pub damaged: Vec<(BackupId, String)>,
    /// Those of the damaged ones whose manifest can be believed, newest first.
    pub harmed: Vec<Known>,
}

/// What a check has found wrong; it lies where the mark of a good one does, until a later check finds the backup good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Harm {
    /// When.
    pub(super) at: Timestamp,
    /// Each damaged part, and why.
    pub(super) damaged: Vec<(String, String)>,
}

/// Looks at every backup of a place.
///
/// # Errors
/// Where the place does not answer.
pub async fn found(place: &Place) -> Result<Found, BackupError> {
    let ids = place.ids().await?;
    let mut looks = stream::iter(ids.into_iter().map(|id| async move { (id, marked(place, id).await) }))
        .buffer_unordered(LOOKS_MAX);
    let mut found = Found::default();
    while let Some((id, look)) = looks.next().await {
        match look {
            Ok((known, None)) => found.good.push(known),
            Ok((known, Some(Harm { damaged, .. }))) => {
                let parts = damaged.iter().map(|(part, reason)| format!("{part}: {reason}"));
                found.damaged.push((id, parts.collect::<Vec<_>>().join("; ")));
                found.harmed.push(known);
            }
            Err(BackupError::NotFound(_)) => {
                // The first file of one that is being made is not listed yet: its id tells when it was begun.
                let last = place.files(id).await?.into_iter().map(|(_, at)| at).chain(id.made_at()).max();
                found.unfinished.push((id, last));
            }
            Err(BackupError::Damaged { part, reason }) => found.damaged.push((id, format!("{part}: {reason}"))),
            Err(error) => return Err(error),
        }
    }
    drop(looks);
    for known in [&mut found.good, &mut found.harmed] {
        known.sort_unstable_by_key(|known| std::cmp::Reverse((known.manifest.snapshot_at, known.manifest.id)));
    }
    Ok(found)
}

/// Looks at one backup.
///
/// # Errors
/// [`BackupError::NotFound`]: it has no manifest, and is none.
pub async fn find(place: &Place, id: BackupId) -> Result<Known, BackupError> {
    Ok(marked(place, id).await?.0)
}

/// A backup, and what its last check has found wrong.
pub(super) async fn marked(place: &Place, id: BackupId) -> Result<(Known, Option<Harm>), BackupError> {
    let bytes = match place.get(&file_of(id, MANIFEST)).await {
        Ok(bytes) => bytes,
        Err(PlaceError::Missing { .. }) => return Err(BackupError::NotFound(id)),
        Err(error) => return Err(error.into()),
    };
    let manifest = Manifest::read(id, &bytes)?;
    let (verified, harm) = match place.get(&file_of(id, VERIFIED)).await {
        // A mark that cannot be read says nothing.
        Ok(bytes) => (serde_json::from_slice(&bytes).ok(), serde_json::from_slice(&bytes).ok()),
        Err(PlaceError::Missing { .. }) => (None, None),
        Err(error) => return Err(error.into()),
    };
    Ok((Known { manifest, verified }, harm))
}
