//! `embedding`: one vector for each input, in the order of the inputs.

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{error::JobError, payload::embedding::Embedding as Payload};
use serde::Serialize;

use crate::context::{Durability, Handler, JobContext};

pub(super) struct Embedding;

#[derive(Serialize)]
struct Vectors<'a> {
    model: &'a str,
    provider: Option<String>,
    dimensions: usize,
    vectors: &'a [Vec<f32>],
}

#[async_trait]
impl Handler for Embedding {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let payload = Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?;
        let model = payload.model.as_deref().or_else(|| cx.default_embedding_model()).unwrap_or_default().to_owned();
        let Payload { input, dimensions, .. } = payload;
        let answer = cx.embed("embed", 0, &model, input, dimensions, Durability::WithSettle).await?;
        super::encoded(&Vectors {
            model: &answer.model,
            provider: cx.provider_of(&model),
            dimensions: answer.vectors.first().map_or(0, Vec::len),
            vectors: &answer.vectors,
        })
    }
}
