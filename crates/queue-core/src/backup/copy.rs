//! The second destination: every part as it lies at the first, read back there, and then the manifest.

use object_store::path::Path;
use tokio::sync::mpsc;

use super::{
    BackupError,
    create::publish,
    manifest::{Manifest, Part},
    place::{Piece, Place, file_of},
    seal,
};

/// Pieces between download and upload.
const PIECES_WAITING: usize = 1;

/// Copies a good backup to another place, where it is good once this has returned. Doing it again does it again.
///
/// # Errors
/// What failed, or which part lies at the first place no more as it was written.
pub async fn copy(from: &Place, to: &Place, manifest: &Manifest) -> Result<(), BackupError> {
    for part in &manifest.parts {
        let path = file_of(manifest.id, &part.name);
        pass(from, to, &path, part).await?;
        seal::check(to, &path, part).await?;
    }
    publish(to, manifest).await
}

async fn pass(from: &Place, to: &Place, path: &Path, part: &Part) -> Result<(), BackupError> {
    let (read, mut pieces) = mpsc::channel(PIECES_WAITING);
    let (write, written) = mpsc::channel(PIECES_WAITING);
    let last = part.bytes;
    // The last piece is told by the size: one that is cut off is never the last, and its upload is given up.
    let passing = async move {
        let mut passed = 0;
        while let Some(piece) = pieces.recv().await {
            passed += bytes::Bytes::len(&piece) as u64;
            let piece = if passed == last { Piece::Last(piece) } else { Piece::More(piece) };
            if write.send(piece).await.is_err() {
                return;
            }
        }
    };
    let (fetched, (), uploaded) = tokio::join!(from.fetch(path, Some(read)), passing, to.upload(path, written));
    seal::judge(part, fetched)?;
    Ok(uploaded?)
}
