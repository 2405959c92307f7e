//! `embedding`: one vector for each input, in the order of the inputs.

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    error::{ErrorClass, JobError},
    payload::embedding::Embedding as Payload,
};
use serde::Serialize;

use crate::context::{Durability, Handler, JobContext};

pub(super) struct Embedding;

/// Vectors as a result shows them: numbers are written straight from their buffers.
#[derive(Serialize)]
pub(super) struct Vectors<'a> {
    pub(super) model: &'a str,
    pub(super) provider: Option<String>,
    pub(super) dimensions: usize,
    pub(super) vectors: &'a [Vec<f32>],
}

#[async_trait]
impl Handler for Embedding {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let payload = Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?;
        let model = payload.model.as_deref().or_else(|| cx.default_embedding_model()).unwrap_or_default().to_owned();
        let Payload { input, dimensions, .. } = payload;
        let inputs = input.len();
        let answer = cx.embed("embed", 0, &model, input, dimensions, Durability::WithSettle).await?;
        check(&answer.vectors, inputs)?;
        super::encoded(&Vectors {
            model: &answer.model,
            provider: cx.provider_of(&model),
            dimensions: answer.vectors.first().map_or(0, Vec::len),
            vectors: &answer.vectors,
        })
    }
}

/// Refuses vectors that cannot be those of `inputs` texts.
pub(super) fn check(vectors: &[Vec<f32>], inputs: usize) -> Result<(), JobError> {
    let invalid = |message: String| Err(JobError::new(ErrorClass::InvalidOutput, "vectors", message));
    if vectors.len() != inputs {
        return invalid(format!("{} vectors for {inputs} inputs", vectors.len()));
    }
    let dimensions = vectors.first().map_or(0, Vec::len);
    if dimensions == 0 || vectors.iter().any(|vector| vector.len() != dimensions) {
        return invalid("the vectors are empty or of different lengths".to_owned());
    }
    // JSON has no word for what is not a number.
    if vectors.iter().flatten().any(|number| !number.is_finite()) {
        return invalid("a vector holds what is not a number".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_cannot_be_right_are_refused() {
        assert!(check(&[vec![0.5, 1.0], vec![0.0, -1.0]], 2).is_ok());
        let nan = vec![vec![f32::NAN]];
        for (vectors, inputs) in [(vec![], 1), (vec![vec![]], 1), (vec![vec![1.0], vec![1.0, 2.0]], 2), (nan, 1)] {
            assert_eq!(check(&vectors, inputs).unwrap_err().class, ErrorClass::InvalidOutput);
        }
    }
}
