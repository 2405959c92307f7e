//! Large bodies: a payload or result above a size lies in an object, and the journal keeps where.
//!
//! What the journal keeps of it is a *slip*: a zero byte, with which no JSON text begins, and then path, checksum and size. An object is
//! written before the row that names it, under a name that no other ever had; so a crash in between leaves an object that nothing
//! names, and nothing ever comes to name it later. A scheduler collects those. Where the place for objects is away, a body goes into
//! the journal whole, whatever its size: a job is not refused, and an answer not thrown away, because a bucket is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    archive::{Objects, ObjectsError},
    ids::{JobId, Name},
};

/// From how many bytes on a body lies in an object, unless configured.
pub const LARGE_BYTES: usize = 256 * 1024;
/// What a slip begins with.
const MARK: u8 = 0;

/// Which body of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What was submitted.
    Payload,
    /// What its handler returned.
    Result,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Result => "result",
        }
    }
}

/// What the journal keeps of a body that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slip {
    /// The object, below the place of all objects.
    pub path: String,
    /// Of the object as it is kept.
    #[serde(with = "crate::hex::sha256")]
    pub sha256: [u8; 32],
    /// The body's size.
    pub bytes: usize,
}

impl Slip {
    /// The slip in what the journal has; `None`: that is the body itself.
    pub fn of(kept: &[u8]) -> Option<Self> {
        let slip = kept.strip_prefix(&[MARK])?;
        serde_json::from_slice(slip).ok()
    }

    fn kept(&self) -> Bytes {
        let mut kept = vec![MARK];
        // Text and numbers: writing them to a buffer cannot fail.
        let _ = serde_json::to_writer(&mut kept, self);
        kept.into()
    }
}

/// The size of the body that is kept so.
pub fn len(kept: &[u8]) -> usize {
    Slip::of(kept).map_or(kept.len(), |slip| slip.bytes)
}

/// Puts large bodies out of the journal and gets them back. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bodies {
    objects: Option<Objects>,
    large_bytes: usize,
}

impl Bodies {
    /// Bodies of `large_bytes` and more go there; `None`: none does, and those that did cannot be read.
    pub fn new(objects: Option<Objects>, large_bytes: usize) -> Self {
        Self { objects, large_bytes }
    }

    /// Whether this body does not go into the journal.
    pub fn is_large(&self, body: &[u8]) -> bool {
        self.objects.is_some() && body.len() >= self.large_bytes
    }

    /// What the journal is to keep of a body, whose object is written if it is large.
    pub async fn keep(&self, tenant: &Name, id: JobId, part: Part, body: Bytes) -> Bytes {
        let Some(objects) = self.objects.as_ref().filter(|_| self.is_large(&body)) else { return body };
        let name = format!("{}-{}", part.as_str(), Uuid::now_v7());
        match objects.keep_body(tenant, id, &name, body.clone()).await {
            Ok(slip) => slip.kept(),
            Err(error) => {
                tracing::warn!(%error, job_id = %id, part = part.as_str(), "a large body goes into the journal");
                body
            }
        }
    }

    /// The body of what the journal has.
    ///
    /// # Errors
    /// [`ObjectsError::Damaged`] where the object is gone or is not what was written.
    pub async fn whole(&self, kept: Bytes) -> Result<Bytes, ObjectsError> {
        let Some(slip) = Slip::of(&kept) else { return Ok(kept) };
        match &self.objects {
            Some(objects) => objects.body(&slip).await,
            None => Err(ObjectsError::Unavailable(format!(
                "{} is out of reach: give this process `[objects] url`, as the others have it",
                slip.path
            ))),
        }
    }

    /// Deletes the object of a body that came into no journal. One that stays is collected later.
    pub async fn discard(&self, kept: &[u8]) {
        let (Some(objects), Some(slip)) = (&self.objects, Slip::of(kept)) else { return };
        if let Err(error) = objects.delete(&slip.path).await {
            tracing::debug!(%error, "a body that nothing names waits to be collected");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(folder: &std::path::Path) -> Bodies {
        Bodies::new(Some(Objects::folder(folder).unwrap()), 100)
    }

    #[tokio::test]
    async fn a_large_body_lies_outside_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (bodies, tenant, id) = (bodies(folder.path()), Name::from("a/b c"), JobId::generate());
        let small = bodies.keep(&tenant, id, Part::Payload, Bytes::from(vec![b' '; 99])).await;
        assert_eq!((Slip::of(&small), small.len()), (None, 99));
        let large = Bytes::from(vec![b'x'; 100]);
        let kept = bodies.keep(&tenant, id, Part::Result, large.clone()).await;
        assert!(kept.len() < 300 && len(&kept) == 100, "{kept:?}");
        assert_eq!(bodies.whole(kept.clone()).await.unwrap(), large);
        let again = bodies.keep(&tenant, id, Part::Result, large.clone()).await;
        assert_ne!(Slip::of(&again).unwrap().path, Slip::of(&kept).unwrap().path, "no name comes twice");
        bodies.discard(&kept).await;
        assert!(matches!(bodies.whole(kept).await, Err(ObjectsError::Damaged { .. })));
        let blind = Bodies::new(None, 100);
        assert!(matches!(blind.whole(again).await, Err(ObjectsError::Unavailable(_))));
        assert_eq!(blind.keep(&tenant, id, Part::Payload, large.clone()).await, large);
    }

    #[tokio::test]
    async fn what_is_not_what_was_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = bodies(folder.path());
        let kept = bodies.keep(&"acme".into(), JobId::generate(), Part::Payload, Bytes::from(vec![b'x'; 500])).await;
        let file = folder.path().join(Slip::of(&kept).unwrap().path);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let Err(ObjectsError::Damaged { reason, .. }) = bodies.whole(kept).await else { panic!("believed") };
        assert!(reason.contains("SHA-256"), "{reason}");
    }

    #[tokio::test]
    async fn a_place_that_is_not_the_others_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::folder(folder.path()).unwrap();
        let worker = Bodies::new(Some(objects.clone().of_others()), 100);
        let (tenant, id, body) = (Name::from("acme"), JobId::generate(), Bytes::from(vec![b'x'; 200]));
        let slip = Slip { path: "bodies/acme/gone.zst".to_owned(), sha256: [0; 32], bytes: 200 };
        assert_eq!(worker.keep(&tenant, id, Part::Result, body.clone()).await, body, "it goes into the journal");
        assert!(matches!(worker.whole(slip.kept()).await, Err(ObjectsError::Unavailable(_))));
        objects.mark().await.unwrap();
        assert!(Slip::of(&worker.keep(&tenant, id, Part::Result, body).await).is_some());
        assert!(matches!(worker.whole(slip.kept()).await, Err(ObjectsError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_place_that_is_away_costs_nothing_but_room_in_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = bodies(&folder.path().join("objects"));
        std::fs::remove_dir_all(folder.path().join("objects")).unwrap();
        std::fs::write(folder.path().join("objects"), "a file").unwrap();
        let large = Bytes::from(vec![b'x'; 500]);
        assert_eq!(bodies.keep(&"acme".into(), JobId::generate(), Part::Payload, large.clone()).await, large);
    }
}
