//! Takes a request's body in: the right type, within a bound, within a time.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::{
    app::App,
    audit,
    problem::{Cause, Problem},
};

/// How long a body that was refused is read and thrown away, so that its sender gets to see the answer instead of a
/// broken connection.
const DISCARD_MAX: Duration = Duration::from_secs(5);
/// How much of it.
const DISCARD_MAX_BYTES: usize = 64 * 1024 * 1024;
/// First allocation at most: a claimed length alone must not cost memory.
const RESERVE_MAX_BYTES: usize = 64 * 1024;

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

/// A body of one of the `allowed` types and at most `max` bytes.
pub(crate) async fn take(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    allowed: &[Media],
    max: usize,
) -> Result<(Media, Bytes), Problem> {
    let mut pieces = body.into_data_stream();
    let media = match declared(headers, allowed) {
        Ok(media) => media,
        Err(reason) => {
            discard(&mut pieces).await;
            let names: Vec<_> = allowed.iter().map(|media| media.name()).collect();
            let detail = format!("send the body as {}", names.join(" or "));
            return Err(Problem::new(Cause::UnsupportedMediaType, detail).at("/header/Content-Type", reason));
        }
    };
    let body = read(headers, pieces, max, app.api.settings.bounds.body_max).await?;
    audit::asked(&body);
    Ok((media, body))
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
    let length = headers.get(header::CONTENT_LENGTH);
    if length.is_none_or(|length| length == "0") && !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(None);
    }
    let (_, body) = take(app, headers, body, &[Media::Json], max).await?;
    Ok(Some(body))
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

fn declared(headers: &HeaderMap, allowed: &[Media]) -> Result<Media, String> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes());
    if !matches!(encoding, None | Some(b"identity")) {
        return Err("compressed bodies (Content-Encoding) are not supported".into());
    }
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

async fn read(
    headers: &HeaderMap,
    mut pieces: BodyDataStream,
    max: usize,
    arrival_max: Duration,
) -> Result<Bytes, Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = length.filter(|length| *length > max) {
        discard(&mut pieces).await;
        return Err(too_large(length, max));
    }
    let reserve = length.unwrap_or(0).min(RESERVE_MAX_BYTES);
    match tokio::time::timeout(arrival_max, collect(&mut pieces, reserve, max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            discard(&mut pieces).await;
            Err(too_large(max + 1, max))
        }
        Ok(Err(error)) => {
            Err(Problem::new(Cause::BadRequest, "the body broke off").at("", format!("cannot be read: {error}")))
        }
        Err(_) => {
            let reason = format!("did not arrive within {}", humantime::format_duration(arrival_max));
            Err(Problem::new(Cause::Timeout, "the body took too long").at("", reason))
        }
    }
}

/// The whole body; `None` when it is longer than `max`.
async fn collect(pieces: &mut BodyDataStream, reserve: usize, max: usize) -> Result<Option<Bytes>, axum::Error> {
    let Some(first) = pieces.next().await.transpose()? else { return Ok(Some(Bytes::new())) };
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await.transpose()? {
        if all.is_empty() {
            // Most bodies come in one piece and need no copy; this one does.
            all.reserve(reserve.max(first.len() + piece.len()));
            all.extend_from_slice(&first);
        }
        if all.len() + piece.len() > max {
            return Ok(None);
        }
        all.extend_from_slice(&piece);
    }
    Ok(match all.is_empty() {
        true if first.len() > max => None,
        true => Some(first),
        false => Some(all.freeze()),
    })
}

/// Reads on and keeps nothing, for a while.
async fn discard(pieces: &mut BodyDataStream) {
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

fn too_large(bytes: usize, max: usize) -> Problem {
    let reason = format!("is {bytes} bytes long or more; the limit is {max}");
    Problem::new(Cause::TooLarge, "the body is too large").at("", reason)
}
