//! What a part goes through on its way out and back: zstd, age, pieces.
//!
//! Compression and encryption take a processor for a while and read and write as programs do, so they run on a thread of their own,
//! which hands pieces to the upload and takes them from the download over a channel of one: the slower side decides.

use std::{
    fmt,
    io::{self, BufReader, Read, Write},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use object_store::path::Path;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    BackupError,
    manifest::{Content, Part},
    pace::{Pace, Paced},
    place::{PIECE_BYTES, Piece, Place, PlaceError},
};
use crate::hex;

/// How hard zstd tries: its own default, some 200 MB/s.
const LEVEL: i32 = 3;
/// zstd's window of what was written here is 2 MiB; a file that wants more memory than this is none of ours.
const WINDOW_LOG_MAX: u32 = 27;
/// Fewest recipients: whoever loses the one key has no backup.
const RECIPIENTS_MIN: usize = 2;
/// Pieces between the two sides.
const PIECES_WAITING: usize = 1;

/// How long a writer whose upload has ended may take to notice.
const BROKEN_MAX: Duration = Duration::from_secs(30);

/// What is said of a part that is encrypted to others.
pub(super) const NO_KEY: &str =
    "no identity that was given opens it; `backup list --json` says to whom it is encrypted";

/// Who can open what is written.
pub struct Recipients {
    keys: Vec<age::x25519::Recipient>,
    names: Vec<String>,
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.names).finish()
    }
}

impl Recipients {
    /// Public keys as `age-keygen` prints them, two different ones at the least.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let mut names: Vec<String> = texts.iter().map(|text| text.trim().to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        let key = |name: &String| {
            // A secret key in the place of a public one, or glued to it, is not told on: it has a `-`.
            let is_public = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            let named = if name.starts_with("age1") && is_public(name) { name } else { "a text" };
            let wrong =
                |_| format!("`{named}` is not a recipient of age: `age-keygen` prints one, `age1…`, as `Public key`");
            name.parse().map_err(wrong)
        };
        let keys = names.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.len() < RECIPIENTS_MIN {
            return Err(format!(
                "backups are encrypted to at least {RECIPIENTS_MIN} different recipients, one of which is kept elsewhere, and \
                 {} is named: make another with `age-keygen`",
                keys.len()
            ));
        }
        Ok(Self { keys, names })
    }

    /// As they were named.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    fn encryptor(&self) -> io::Result<age::Encryptor> {
        age::Encryptor::with_recipients(self.keys.iter().map(|key| key as &dyn age::Recipient))
            .map_err(io::Error::other)
    }
}

/// What opens backups.
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} identities", self.0.len())
    }
}

impl Identities {
    /// Secret keys as `age-keygen` writes them into a file.
    ///
    /// # Errors
    /// Says what would be right, without the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "this is not an identity file of age: `age-keygen -o FILE` makes one".to_owned();
        let file = age::IdentityFile::from_buffer(text.as_bytes()).map_err(|_| wrong())?;
        let identities = file.into_identities().map_err(|_| wrong())?;
        if identities.is_empty() { Err(wrong()) } else { Ok(Self(identities)) }
    }

    fn open<R: io::BufRead>(&self, sealed: R) -> Result<age::stream::StreamReader<R>, age::DecryptError> {
        let identities = self.0.iter().map(|identity| &**identity as &dyn age::Identity);
        age::Decryptor::new_buffered(sealed)?.decrypt(identities)
    }
}

/// Cuts what is written into pieces, and hashes it.
struct Pieces {
    waiting: BytesMut,
    to: mpsc::Sender<Piece>,
    hasher: Sha256,
    bytes: u64,
}

impl Pieces {
    fn to(to: mpsc::Sender<Piece>) -> Self {
        Self { waiting: BytesMut::with_capacity(PIECE_BYTES), to, hasher: Sha256::new(), bytes: 0 }
    }

    fn send(&mut self, piece: fn(Bytes) -> Piece) -> io::Result<()> {
        let full = std::mem::replace(&mut self.waiting, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        self.hasher.update(&full);
        self.bytes += full.len() as u64;
        // The upload has ended: what it says is the reason.
        self.to.blocking_send(piece(full)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waiting.len() == PIECE_BYTES {
            self.send(Piece::More)?;
        }
        let taken = bytes.len().min(PIECE_BYTES - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts what goes through.
struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What a sealed part came to: its size before and after, and its hash.
struct Sealed {
    plain_bytes: u64,
    bytes: u64,
    sha256: [u8; 32],
}

fn seal<T>(
    recipients: &Recipients,
    to: mpsc::Sender<Piece>,
    write: impl FnOnce(&mut dyn Write) -> Result<T, BackupError>,
) -> Result<(T, Sealed), BackupError> {
    let failed = |error: io::Error| BackupError::Failed(error.to_string());
    let age = recipients.encryptor().and_then(|age| age.wrap_output(Pieces::to(to))).map_err(failed)?;
    let zstd = zstd::Encoder::new(age, LEVEL).map_err(failed)?;
    let mut counted = Counted { inner: Paced { inner: zstd, pace: Pace::new() }, bytes: 0 };
    let value = write(&mut counted)?;
    let Counted { inner: Paced { inner: zstd, .. }, bytes: plain_bytes } = counted;
    let mut pieces = zstd.finish().and_then(age::stream::StreamWriter::finish).map_err(failed)?;
    pieces.send(Piece::Last).map_err(failed)?;
    Ok((value, Sealed { plain_bytes, bytes: pieces.bytes, sha256: pieces.hasher.finalize().into() }))
}

/// Writes a part: what `write` writes, compressed and encrypted. It is not read back here.
pub(super) async fn put<T: Send + 'static>(
    place: &Place,
    recipients: &Arc<Recipients>,
    (path, name, content): (&Path, &str, Content),
    write: impl FnOnce(&mut dyn Write) -> Result<T, BackupError> + Send + 'static,
) -> Result<(T, Part), BackupError> {
    let (to, pieces) = mpsc::channel(PIECES_WAITING);
    let recipients = recipients.clone();
    let mut sealing = spawn_blocking(move || seal(&recipients, to, write));
    let uploaded = place.upload(path, pieces).await;
    // Whoever writes notices at its next piece that the upload has ended. One that stands still is left behind: it ends with what
    // it reads from.
    let sealed = match (&uploaded, tokio::time::timeout(BROKEN_MAX, &mut sealing).await) {
        (_, Ok(sealed)) => sealed,
        (Err(error), Err(_)) => return Err(error.clone().into()),
        (Ok(()), Err(_)) => sealing.await,
    };
    let sealed = sealed.map_err(|error| BackupError::Failed(error.to_string()))?;
    // Where both failed: an upload that failed broke the pipe of the other, and one that broke off says nothing itself.
    let (value, sealed) = match (sealed, uploaded) {
        (Ok(sealed), Ok(())) => sealed,
        (Ok(_), Err(error)) => return Err(error.into()),
        (Err(BackupError::Failed(reason)), Err(error))
            if reason.contains("broken pipe") || reason.contains("Broken pipe") =>
        {
            return Err(error.into());
        }
        (Err(error), _) => return Err(error),
    };
    let Sealed { plain_bytes, bytes, sha256 } = sealed;
    Ok((value, Part { name: name.to_owned(), content, bytes, plain_bytes, sha256: hex::of(&sha256) }))
}

/// Pieces of a download, as a program reads.
struct Downloaded {
    from: mpsc::Receiver<Bytes>,
    at_hand: Bytes,
}

impl Read for Downloaded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at_hand.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.at_hand = piece,
                None => return Ok(0),
            }
        }
        let taken = buffer.len().min(self.at_hand.len());
        self.at_hand.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}

/// Remembers what broke.
struct Watched<R> {
    inner: R,
    broke: Option<String>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|error| self.broke = Some(error.to_string()))
    }
}

fn unseal<T>(
    identities: &Identities,
    part: &Part,
    from: mpsc::Receiver<Bytes>,
    read: impl FnOnce(&mut dyn Read) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let damaged = |error: &dyn fmt::Display| BackupError::damaged(&part.name, error.to_string());
    let sealed = BufReader::new(Downloaded { from, at_hand: Bytes::new() });
    let opened = identities.open(sealed).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys => damaged(&NO_KEY),
        other => damaged(&format!("age: {other}")),
    })?;
    let mut plain = zstd::Decoder::new(opened).map_err(|error| damaged(&error))?;
    plain.window_log_max(WINDOW_LOG_MAX).map_err(|error| damaged(&error))?;
    let mut watched = Watched { inner: plain, broke: None };
    let read = read(&mut watched);
    // Whatever its reader made of it: this is why.
    if let Some(reason) = watched.broke {
        return Err(damaged(&reason));
    }
    let (value, mut plain) = (read?, watched.inner);
    // The last piece of age's stream says that it is the last: a part that ends too early fails here.
    let rest = io::copy(&mut plain, &mut io::sink()).map_err(|error| damaged(&error))?;
    if rest > 0 {
        return Err(damaged(&format!("{rest} bytes stand behind its end")));
    }
    Ok(value)
}

/// Reads a part back and compares its size and hash with those that were written.
pub(super) async fn check(place: &Place, path: &Path, part: &Part) -> Result<(), BackupError> {
    judge(part, place.fetch(path, None).await)
}

/// Reads a part back, compares it, and opens it for `read`. What was read is worth nothing before this has returned.
pub(super) async fn open<T: Send + 'static>(
    place: &Place,
    identities: &Arc<Identities>,
    (path, part): (&Path, &Part),
    read: impl FnOnce(&mut dyn Read) -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let (to, from) = mpsc::channel(PIECES_WAITING);
    let opening = {
        let (identities, part) = (identities.clone(), part.clone());
        spawn_blocking(move || unseal(&identities, &part, from, read))
    };
    let fetched = place.fetch(path, Some(to)).await;
    let opened = opening.await.map_err(|error| BackupError::Failed(error.to_string()))?;
    // What lies there is told before what age makes of it.
    judge(part, fetched)?;
    opened
}

pub(super) fn judge(part: &Part, fetched: Result<super::place::Fetched, PlaceError>) -> Result<(), BackupError> {
    let damaged = |reason: String| Err(BackupError::damaged(&part.name, reason));
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(PlaceError::Missing { .. }) => return damaged("it is not there".to_owned()),
        Err(error) => return Err(error.into()),
    };
    if fetched.bytes != part.bytes {
        return damaged(format!("it has {} bytes, and {} were written", fetched.bytes, part.bytes));
    }
    let found = hex::of(&fetched.sha256);
    if found != part.sha256 {
        return damaged(format!("its SHA-256 is {found}, and {} was written", part.sha256));
    }
    Ok(())
}

/// Hashes what goes through, for files within a part.
pub(super) fn hash_of(reader: &mut dyn Read) -> io::Result<(u64, [u8; 32])> {
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok((bytes, hasher.finalize().into()))
}
