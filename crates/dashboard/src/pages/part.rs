//! Parts of a page, each for who may read it. Those that do not need each other are asked for at once.

use serde::de::DeserializeOwned;

use crate::{client::Refused, viewer::Visit};

/// What the API has at `place`, if the viewer may call `route`.
pub(crate) async fn part<T: DeserializeOwned>(visit: &Visit, route: &str, place: &str) -> Result<Option<T>, Refused> {
    match visit.viewer.may(route) {
        true => visit.client.get(place).await.map(Some),
        false => Ok(None),
    }
}
