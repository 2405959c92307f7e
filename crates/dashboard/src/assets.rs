//! The stylesheet, the script and the mark in the tab: in the binary, at addresses that change with their content.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// A file that pages name.
struct Asset {
    stem: &'static str,
    ending: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset {
        stem: "app",
        ending: "css",
        media_type: "text/css; charset=utf-8",
        text: include_str!("../assets/app.css"),
    },
    Asset {
        stem: "app",
        ending: "js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("../assets/app.js"),
    },
    Asset { stem: "mark", ending: "svg", media_type: "image/svg+xml", text: include_str!("../assets/mark.svg") },
];

/// Letters of the hash in an address.
const HASH_LETTERS: usize = 12;

/// Their names, with the hash of what is in them.
static NAMES: LazyLock<[String; 3]> = LazyLock::new(|| {
    ASSETS.each_ref().map(|asset| {
        let hash = blake3::hash(asset.text.as_bytes()).to_hex();
        format!("{}-{}.{}", asset.stem, &hash[..HASH_LETTERS], asset.ending)
    })
});

/// The stylesheet's address.
pub(crate) fn css() -> String {
    format!("/dashboard/assets/{}", NAMES[0])
}

/// The script's address.
pub(crate) fn js() -> String {
    format!("/dashboard/assets/{}", NAMES[1])
}

/// The mark's address.
pub(crate) fn mark() -> String {
    format!("/dashboard/assets/{}", NAMES[2])
}

/// Serves one of them. Whoever asks for the name of another version, from a page that was open during an upgrade, finds nothing
/// and loads the page anew.
pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    let found = NAMES.iter().zip(&ASSETS).find(|(known, _)| **known == name);
    let Some((_, asset)) = found else { return StatusCode::NOT_FOUND.into_response() };
    let headers =
        [(header::CONTENT_TYPE, asset.media_type), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, asset.text).into_response()
}
