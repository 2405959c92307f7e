//! Pages that are served beside the API and ask it in process. This crate does not know them: whoever starts the server brings them.

use std::sync::Arc;

use axum::{Router, http::request::Parts};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Peer,
    observe::{REQUEST_ID, Trail},
};

/// Makes the pages out of what they ask. Their routes have no fallback, and none of the API's paths.
pub type Pages = Arc<dyn Fn(Beside) -> Router + Send + Sync>;

/// What pages beside the API have.
pub struct Beside {
    /// The API with all its layers: whoever asks needs a key or a token, as from outside.
    pub router: Router,
    /// Copies from a request for a page into one for the API who asks, for the audit log, and as which request, for the logs.
    pub carry: fn(&Parts, &mut Parts),
    /// Fires when the server stops: streams end.
    pub stopping: CancellationToken,
}

/// See [`Beside::carry`].
pub(crate) fn carry(from: &Parts, to: &mut Parts) {
    if let Some(peer) = from.extensions.get::<Peer>() {
        to.extensions.insert(*peer);
    }
    let trail = from.extensions.get::<Trail>();
    if let Some(id) = trail.and_then(|trail| trail.request_id.parse().ok()) {
        to.headers.insert(REQUEST_ID, id);
    }
}
