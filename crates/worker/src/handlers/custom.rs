//! `custom`: hands the job to a handler of somebody's own program, by its name.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    error::{ErrorClass, JobError},
    ids::Name,
    payload::custom::Custom as Payload,
};
use serde::de::DeserializeOwned;

use crate::context::{Handler, JobContext};

/// The handlers of one program.
#[derive(Clone, Default)]
pub(super) struct Custom(pub(super) BTreeMap<Name, Arc<dyn Handler>>);

#[async_trait]
impl Handler for Custom {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let payload = Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?;
        let Some(handler) = self.0.get(&payload.handler) else {
            let has: Vec<_> = self.0.keys().map(Name::as_str).collect();
            let message = format!(
                "this worker has no handler `{}`, it has {}; give the jobs of each program a queue of their own",
                payload.handler,
                has.join(", ")
            );
            return Err(JobError::new(ErrorClass::Config, "no_handler", message));
        };
        handler.run(cx).await
    }
}

/// What a `custom` job's handler is told. A payload that does not read so is a final error.
pub fn input<T: DeserializeOwned>(cx: &JobContext) -> Result<T, JobError> {
    let payload = Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?;
    serde_json::from_value(payload.input)
        .map_err(|error| JobError::new(ErrorClass::BadRequest, "payload", format!("/payload/input: {error}")))
}
