//! What lies at a place: which backups are good, which were checked, and what is no backup.

use futures::{StreamExt, stream};

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
    /// Backups whose manifest cannot be believed, and why.
    pub damaged: Vec<(BackupId, String)>,
}

/// Looks at every backup of a place.
///
/// # Errors
/// Where the place does not answer.
pub async fn found(place: &Place) -> Result<Found, BackupError> {
    let ids = place.ids().await?;
    let mut looks =
        stream::iter(ids.into_iter().map(|id| async move { (id, find(place, id).await) })).buffer_unordered(LOOKS_MAX);
    let mut found = Found::default();
    while let Some((id, look)) = looks.next().await {
        match look {
            Ok(known) => found.good.push(known),
            Err(BackupError::NotFound(_)) => {
                let last = place.files(id).await?.into_iter().map(|(_, at)| at).max();
                found.unfinished.push((id, last));
            }
            Err(BackupError::Damaged { reason, .. }) => found.damaged.push((id, reason)),
            Err(error) => return Err(error),
        }
    }
    drop(looks);
    found.good.sort_unstable_by_key(|known| std::cmp::Reverse((known.manifest.snapshot_at, known.manifest.id)));
    Ok(found)
}

/// Looks at one backup.
///
/// # Errors
/// [`BackupError::NotFound`]: it has no manifest, and is none.
pub async fn find(place: &Place, id: BackupId) -> Result<Known, BackupError> {
    let bytes = match place.get(&file_of(id, MANIFEST)).await {
        Ok(bytes) => bytes,
        Err(PlaceError::Missing { .. }) => return Err(BackupError::NotFound(id)),
        Err(error) => return Err(error.into()),
    };
    let manifest = Manifest::read(id, &bytes)?;
    let verified = match place.get(&file_of(id, VERIFIED)).await {
        // A mark that cannot be read says nothing.
        Ok(bytes) => serde_json::from_slice(&bytes).ok(),
        Err(PlaceError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Known { manifest, verified })
}
