//! A request that comes again with its idempotency key: answered from what was accepted the first time, and not judged
//! again. Its deadline may have passed since, and its model may be gone.

use queue_core::{ids::Name, job::Kind, journal::Answered, state::State, time::Timestamp};
use serde::Deserialize;

use crate::{
    app::App,
    problem::{Cause, Problem},
    shape::Origin,
    submit::{self, AcceptedView, Answer},
};

/// What earlier requests with the key of this one left behind.
#[derive(Debug)]
pub(crate) struct Earlier(Option<Answered>);

impl Earlier {
    /// Looks the key up; a problem if it belongs to another body.
    pub(crate) async fn of(app: &App, origin: &Origin) -> Result<Self, Problem> {
        let Some(request) = &origin.idempotency else { return Ok(Self(None)) };
        match app.api.stores.reads.answered(&request.owner, &request.key).await? {
            Some(answered) if answered.fingerprint != request.fingerprint => Err(submit::key_reused()),
            answered => Ok(Self(answered)),
        }
    }

    /// The first answer to an item of the request, whose text is `text`; `None` for one that was not accepted yet.
    pub(crate) fn answer(&self, item: u32, text: &str) -> Option<Result<Answer, Problem>> {
        let (id, accepted_at) = *self.0.as_ref()?.items.get(&item)?;
        Some(match serde_json::from_str::<Sent>(text) {
            Ok(sent) => Ok(Answer { accepted: sent.view(id, accepted_at), replayed: true }),
            Err(error) => {
                tracing::error!(%error, job_id = %id, "a body whose hash was accepted cannot be read");
                Err(Problem::new(Cause::Internal, "the body of an accepted job cannot be read").about(id))
            }
        })
    }
}

/// The fields of an accepted body that its answer repeats.
#[derive(Debug, Deserialize)]
struct Sent {
    queue: Option<String>,
    kind: Kind,
    run_at: Option<String>,
}

impl Sent {
    fn view(self, id: queue_core::ids::JobId, accepted_at: Timestamp) -> AcceptedView {
        let later = self.run_at.and_then(|text| text.parse::<Timestamp>().ok()).is_some_and(|at| at > accepted_at);
        AcceptedView {
            id,
            state: if later { State::Scheduled } else { State::Ready },
            queue: self.queue.map_or_else(|| Name::from("default"), |queue| Name::from(queue.as_str())),
            kind: self.kind,
        }
    }
}
