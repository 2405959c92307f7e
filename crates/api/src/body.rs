//! Takes a request's body in: the right type, within a bound, within a time.

use std::{io, pin::Pin, time::Duration};

use async_compression::{
    tokio::bufread::{GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderValue, header},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::{
    app::App,
    audit,
    problem::{CONTENT_ENCODING, Cause, Problem},
};

/// How long a body that was refused is read and thrown away, so that its sender gets to see the answer instead of a
/// broken connection.
const DISCARD_MAX: Duration = Duration::from_secs(5);
/// How much of it.
const DISCARD_MAX_BYTES: usize = 64 * 1024 * 1024;
/// First allocation at most: a claimed length alone must not cost memory.
const RESERVE_MAX_BYTES: usize = 64 * 1024;

/// Largest window of a body in zstd, as a power of two: 8 MiB, which is what HTTP allows (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Size of the pieces that come out of a compressed body, in bytes.
const UNPACKED_BYTES: usize = 64 * 1024;

/// Largest body beside a payload.
pub(crate) const SMALL_BODY_MAX_BYTES: usize = 64 * 1024;

/// Media types that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/json`.
    Json,
    /// `application/x-ndjson`.
    Ndjson,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

/// A body in pieces.
type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A body of one of the `allowed` types and at most `max` bytes, once it is unpacked.
pub(crate) async fn take(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    allowed: &[Media],
    max: usize,
) -> Result<(Media, Bytes), Problem> {
    let mut pieces: Pieces = Box::pin(body.into_data_stream().map_err(io::Error::other));
    let (media, encoding) = match encoded(headers).and_then(|encoding| Ok((declared(headers, allowed)?, encoding))) {
        Ok(found) => found,
        Err(problem) => {
            discard(&mut pieces).await;
            return Err(problem);
        }
    };
    let bounds = &app.api.settings.bounds;
    let patience = Patience { whole: bounds.body_max, pause: bounds.slow_max };
    let body = match encoding {
        Encoding::Plain => read(headers, pieces, max, patience).await?,
        packed => {
            // Never closed, so this waits and does not fail; whoever cannot wait so long asks again.
            let place = tokio::time::timeout(patience.whole, app.unpacking.acquire()).await;
            let _place = place
                .map_err(|_| Problem::new(Cause::Busy, "too many compressed bodies are being read").retry_after(1))?;
            read_packed(headers, pieces, packed, max, patience).await?
        }
    };
    audit::asked(&body);
    Ok((media, body))
}

/// A JSON body of at most `max` bytes.
pub(crate) async fn json(app: &App, headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, Problem> {
    let (_, body) = take(app, headers, body, &[Media::Json], max).await?;
    Ok(body)
}

/// A small JSON body; `None` where there is none.
pub(crate) async fn take_if_any(app: &App, headers: &HeaderMap, body: Body) -> Result<Option<Bytes>, Problem> {
    take_if_any_of(app, headers, body, SMALL_BODY_MAX_BYTES).await
}

/// A JSON body of at most `max` bytes; `None` where there is none.
pub(crate) async fn take_if_any_of(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<Option<Bytes>, Problem> {
    // Not by its length alone: a body may come in chunks.
    if body.is_end_stream() || length_of(headers) == Some(0) {
        return Ok(None);
    }
    json(app, headers, body, max).await.map(Some)
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

fn declared(headers: &HeaderMap, allowed: &[Media]) -> Result<Media, Problem> {
    media_type(headers, allowed).map_err(|reason| {
        let names: Vec<_> = allowed.iter().map(|media| media.name()).collect();
        let detail = format!("send the body as {}", names.join(" or "));
        Problem::new(Cause::UnsupportedMediaType, detail).at("/header/Content-Type", reason)
    })
}

fn media_type(headers: &HeaderMap, allowed: &[Media]) -> Result<Media, String> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err("is missing".into());
    };
    let value = value.to_str().map_err(|_| "is not ASCII".to_owned())?;
    let mut parts = value.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    for parameter in parts {
        if !matches!(parameter.to_ascii_lowercase().as_str(), "charset=utf-8" | "charset=\"utf-8\"" | "") {
            return Err(format!("`{parameter}` is not supported; JSON is UTF-8"));
        }
    }
    let media = allowed.iter().copied().find(|media| media.name() == name);
    media.ok_or_else(|| format!("`{name}` is not supported here"))
}

fn encoded(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
    match (given.next().map(HeaderValue::as_bytes), given.next()) {
        (None | Some(b"identity"), None) => Ok(Encoding::Plain),
        (Some(b"gzip" | b"x-gzip"), None) => Ok(Encoding::Gzip),
        (Some(b"zstd"), None) => Ok(Encoding::Zstd),
        _ => {
            let detail = "send the body as it is, or compressed once with gzip or zstd";
            let problem = Problem::new(Cause::UnsupportedMediaType, detail);
            Err(problem.at(CONTENT_ENCODING, "is not one that is taken here"))
        }
    }
}

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// From its head to its end.
    whole: Duration,
    /// From one piece to the next.
    pause: Duration,
}

impl Patience {
    fn is_over(self) -> Problem {
        too_slow(format!("did not arrive within {}", humantime::format_duration(self.whole)))
    }
}

/// Why there is no body.
enum Broken {
    TooLong,
    Paused,
    Lost(io::Error),
}

async fn read(headers: &HeaderMap, mut pieces: Pieces, max: usize, patience: Patience) -> Result<Bytes, Problem> {
    let length = length_of(headers);
    if let Some(length) = length.filter(|length| *length > max) {
        discard(&mut pieces).await;
        return Err(too_large(length, max));
    }
    let reserve = length.unwrap_or(0).min(RESERVE_MAX_BYTES);
    match tokio::time::timeout(patience.whole, collect(&mut pieces, reserve, max, patience.pause)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(broken)) => {
            if matches!(broken, Broken::TooLong) {
                discard(&mut pieces).await;
            }
            Err(broken.problem("cannot be read", max, patience))
        }
        Err(_) => Err(patience.is_over()),
    }
}

/// Unpacks while it reads, and stops at `max`: what would come after that is never unpacked.
async fn read_packed(
    headers: &HeaderMap,
    mut pieces: Pieces,
    encoding: Encoding,
    max: usize,
    patience: Patience,
) -> Result<Bytes, Problem> {
    if let Some(length) = length_of(headers).filter(|length| *length > max) {
        discard(&mut pieces).await;
        return Err(too_large(length, max));
    }
    let collected = {
        let packed = StreamReader::new(&mut pieces);
        let mut unpacked: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + '_>> = match encoding {
            Encoding::Zstd => {
                let bound = [DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)];
                let mut decoder = ZstdDecoder::with_params(packed, &bound);
                // Files that were compressed one by one may follow each other.
                decoder.multiple_members(true);
                Box::pin(ReaderStream::with_capacity(decoder, UNPACKED_BYTES))
            }
            Encoding::Gzip | Encoding::Plain => {
                let mut decoder = GzipDecoder::new(packed);
                decoder.multiple_members(true);
                Box::pin(ReaderStream::with_capacity(decoder, UNPACKED_BYTES))
            }
        };
        tokio::time::timeout(patience.whole, collect(&mut unpacked, 0, max, patience.pause)).await
    };
    match collected {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(broken)) => {
            if matches!(broken, Broken::TooLong) {
                discard(&mut pieces).await;
            }
            Err(broken.problem("cannot be unpacked", max, patience))
        }
        Err(_) => Err(patience.is_over()),
    }
}

fn length_of(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

/// The whole body.
async fn collect<S>(pieces: &mut S, reserve: usize, max: usize, pause: Duration) -> Result<Bytes, Broken>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let Some(first) = next(pieces, pause).await? else { return Ok(Bytes::new()) };
    if first.len() > max {
        return Err(Broken::TooLong);
    }
    let mut all = BytesMut::new();
    while let Some(piece) = next(pieces, pause).await? {
        if all.is_empty() {
            // Most bodies come in one piece and need no copy; this one does.
            all.reserve(reserve.max(first.len() + piece.len()));
            all.extend_from_slice(&first);
        }
        if all.len() + piece.len() > max {
            return Err(Broken::TooLong);
        }
        all.extend_from_slice(&piece);
        // Very much may come out of one small piece: others have their turn meanwhile.
        tokio::task::coop::consume_budget().await;
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

async fn next<S>(pieces: &mut S, pause: Duration) -> Result<Option<Bytes>, Broken>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    match tokio::time::timeout(pause, pieces.next()).await {
        Ok(piece) => piece.transpose().map_err(Broken::Lost),
        Err(_) => Err(Broken::Paused),
    }
}

impl Broken {
    fn problem(self, what: &str, max: usize, patience: Patience) -> Problem {
        match self {
            Self::Lost(error) => {
                Problem::new(Cause::BadRequest, "the body broke off").at("", format!("{what}: {error}"))
            }
            Self::TooLong => too_large(max + 1, max),
            Self::Paused => {
                let pause = humantime::format_duration(patience.pause);
                too_slow(format!("nothing more arrived within {pause}"))
            }
        }
    }
}

/// Reads on and keeps nothing, for a while.
async fn discard(pieces: &mut Pieces) {
    let all = async {
        let mut left = DISCARD_MAX_BYTES;
        while let Some(Ok(piece)) = pieces.next().await {
            let Some(rest) = left.checked_sub(piece.len()) else { return };
            left = rest;
        }
    };
    // Either way the answer is the same: what was not read ends with the connection.
    let _ = tokio::time::timeout(DISCARD_MAX, all).await;
}

fn too_slow(reason: String) -> Problem {
    Problem::new(Cause::Timeout, "the body took too long").at("", reason)
}

fn too_large(bytes: usize, max: usize) -> Problem {
    let reason = format!("is {bytes} bytes long or more; the limit is {max}");
    Problem::new(Cause::TooLarge, "the body is too large").at("", reason)
}
