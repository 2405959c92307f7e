//! A step that takes dead letters out of the journal: first they are in objects that were read back, then they go, in the
//! transaction that notes the objects. A crash before it leaves objects that nothing names, and every letter where it was.

use std::{collections::BTreeMap, sync::Arc};

use queue_core::{
    archive::{ArchiveObject, Body, Letter, Objects, ObjectsError},
    bodies::Slip,
    ids::{JobId, Name},
    journal::JournalError,
    operations::{Pick, Step},
};

use super::{Answer, BEAT_EVERY, PAUSE, Stop, Walk};

/// Letters that are read at once: of the largest ones some 30 MiB.
const LETTERS_AT_ONCE: usize = 32;
/// Bytes of payloads and answers from which an object takes no more: what a walk holds in memory.
const OBJECT_BYTES: usize = 8 * 1024 * 1024;

/// Letters for one step.
#[derive(Default)]
struct Taken {
    letters: Vec<Letter>,
    /// Picks that were looked at.
    looked_at: usize,
    /// Those of them that the journal cannot read.
    failed: u64,
}

impl Walk {
    /// Archives these picks, in as many steps as their size asks for.
    pub(super) async fn archive(
        &mut self,
        objects: &Objects,
        mut left: Vec<Pick>,
        skipped: u64,
        behind: Option<JobId>,
    ) -> Result<(), Stop> {
        let mut most = left.len();
        loop {
            let Taken { letters, looked_at, failed } = self.take_letters(&left[..most.min(left.len())]).await?;
            let is_last = looked_at == left.len();
            let there: BTreeMap<JobId, usize> = letters.iter().enumerate().map(|(at, one)| (one.id, at)).collect();
            let picks: Vec<Pick> =
                left[..looked_at].iter().filter(|pick| there.contains_key(&pick.id)).copied().collect();
            let moved = (looked_at - picks.len()) as u64 - failed;
            let (skipped, behind) = match is_last {
                true => (moved + skipped, behind),
                false => (moved, left[..looked_at].last().map(|pick| pick.id)),
            };
            let kept = self.keep(objects, letters).await?;
            let step = Step { picks, objects: kept.clone(), skipped, failed, behind, ..self.beat() };
            match self.try_step(step).await? {
                Answer::Done { entries, changed } => {
                    self.tell(entries, &changed).await;
                    self.describe(objects, &kept).await;
                }
                // The answer was lost: whether they are noted is told by the journal, and not here.
                Answer::Read => {}
                // Something happened to one of them since it was read: what it is now is read, and written anew.
                Answer::Moved => {
                    discard(objects, &kept).await;
                    continue;
                }
                Answer::Refused(_) if looked_at > 1 => {
                    discard(objects, &kept).await;
                    most = looked_at / 2;
                    continue;
                }
                Answer::Refused(error) => {
                    discard(objects, &kept).await;
                    tracing::warn!(%error, operation = %self.operation.id, "a letter is left out");
                    self.step(Step { skipped, failed: 1, behind, ..self.beat() }).await?;
                }
            }
            if is_last {
                return Ok(());
            }
            left.drain(..looked_at);
            most = left.len();
        }
    }

    /// The next letters: some of these picks are not dead any more, or have had another life.
    async fn take_letters(&mut self, picks: &[Pick]) -> Result<Taken, Stop> {
        let (mut taken, mut bytes) = (Taken::default(), 0);
        while taken.looked_at < picks.len() && bytes < OBJECT_BYTES {
            self.beat_if_due().await?;
            let rest = &picks[taken.looked_at..];
            let chunk = &rest[..rest.len().min(LETTERS_AT_ONCE)];
            let letters = match self.read(chunk).await? {
                Some(letters) => letters,
                None => self.read_each(chunk, &mut taken.failed).await?,
            };
            bytes += letters.iter().map(size_of).sum::<usize>();
            taken.letters.extend(letters);
            taken.looked_at += chunk.len();
        }
        Ok(taken)
    }

    /// One by one: a letter that the journal cannot read must not hold up the others. It stays where it is.
    async fn read_each(&mut self, picks: &[Pick], failed: &mut u64) -> Result<Vec<Letter>, Stop> {
        let mut letters = Vec::new();
        for pick in picks {
            match self.read(std::slice::from_ref(pick)).await? {
                Some(letter) => letters.extend(letter),
                None => *failed += 1,
            }
        }
        Ok(letters)
    }

    /// `None`: the journal does not understand one of them.
    async fn read(&mut self, picks: &[Pick]) -> Result<Option<Vec<Letter>>, Stop> {
        loop {
            match self.stores.archives.letters(picks).await {
                Ok(letters) => match self.with_bodies(letters).await {
                    Ok(letters) => return Ok(Some(letters)),
                    Err(ObjectsError::Damaged { path, reason }) => {
                        tracing::warn!(path, reason, operation = %self.operation.id, "a letter's payload cannot be read");
                        return Ok(None);
                    }
                    Err(error) => {
                        tracing::warn!(%error, operation = %self.operation.id, "an operation waits for its letters' payloads")
                    }
                },
                Err(JournalError::Corrupt(reason)) => {
                    tracing::warn!(reason, operation = %self.operation.id, "a letter cannot be read");
                    return Ok(None);
                }
                Err(error) => {
                    tracing::warn!(%error, operation = %self.operation.id, "an operation waits for the journal")
                }
            }
            self.pause(PAUSE).await?;
        }
    }

    /// Letters with their payloads, wherever these lie: an archive needs nothing beside itself.
    async fn with_bodies(&self, mut letters: Vec<Letter>) -> Result<Vec<Letter>, ObjectsError> {
        for letter in &mut letters {
            let Ok(kept) = letter.payload.bytes() else { continue };
            if Slip::of(&kept).is_some() {
                letter.payload = Body::from(&*self.stores.bodies.whole(kept).await?);
            }
        }
        Ok(letters)
    }

    /// Writes letters as objects, one for each tenant.
    async fn keep(&mut self, objects: &Objects, letters: Vec<Letter>) -> Result<Vec<ArchiveObject>, Stop> {
        let mut of_tenants: BTreeMap<Name, Vec<Letter>> = BTreeMap::new();
        for letter in letters {
            of_tenants.entry(letter.tenant.clone()).or_default().push(letter);
        }
        let mut kept = Vec::new();
        for letters in of_tenants.into_values() {
            kept.push(self.keep_one(objects, letters.into()).await?);
        }
        Ok(kept)
    }

    async fn keep_one(&mut self, objects: &Objects, letters: Arc<[Letter]>) -> Result<ArchiveObject, Stop> {
        let id = self.operation.id;
        loop {
            // Many small ones take long together, and somebody else would take the operation for left.
            self.beat_if_due().await?;
            let keeping = objects.keep(id, letters.clone());
            tokio::pin!(keeping);
            let kept = loop {
                tokio::select! {
                    kept = &mut keeping => break kept,
                    () = tokio::time::sleep(BEAT_EVERY) => self.stay().await?,
                }
            };
            match kept {
                Ok(object) => return Ok(object),
                Err(error) => {
                    tracing::warn!(%error, operation = %id, "an operation waits for the place of its objects")
                }
            }
            self.pause(PAUSE).await?;
            self.stay().await?;
        }
    }

    async fn beat_if_due(&mut self) -> Result<(), Stop> {
        if self.beaten_at.elapsed() >= BEAT_EVERY { self.stay().await } else { Ok(()) }
    }

    /// Writes manifests beside objects that are part of the archive now. One that cannot be written is missed by nobody but those
    /// who have lost the journal.
    async fn describe(&self, objects: &Objects, kept: &[ArchiveObject]) {
        let (id, order, now) = (self.operation.id, &self.operation.order, self.stores.clock.now());
        for object in kept {
            if let Err(error) = objects.describe(id, order, object, now).await {
                tracing::warn!(%error, operation = %id, object = object.path, "an object has no manifest");
            }
        }
    }
}

/// Deletes objects that are part of no archive: what is in them is in the journal still.
async fn discard(objects: &Objects, kept: &[ArchiveObject]) {
    for object in kept {
        if let Err(error) = objects.discard(object).await {
            tracing::warn!(%error, object = object.path, "a file stays that nothing names");
        }
    }
}

/// About what a letter takes.
fn size_of(letter: &Letter) -> usize {
    letter.payload.len() + letter.memos.iter().map(|memo| memo.body.len()).sum::<usize>()
}
