//! `embedding`: one vector for each input, in the order of the inputs.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use queue_core::{
    error::{ErrorClass, JobError},
    payload::embedding::Embedding as Payload,
};
use serde::Serialize;

use super::structured::{self, Calls};
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
        let wish = Wish { model: &model, dimensions, tries: 1, durability: Durability::WithSettle };
        let Embedded { vectors, model: by } =
            embed(cx, &wish, "embed".to_owned(), input, &Calls::up_to(u32::MAX)).await?;
        check(&vectors, inputs)?;
        super::encoded(&Vectors {
            model: &by,
            provider: cx.provider_of(&model),
            dimensions: vectors.first().map_or(0, Vec::len),
            vectors: &vectors,
        })
    }
}

/// What is asked of an embedding model, whatever the inputs.
pub(super) struct Wish<'a> {
    pub(super) model: &'a str,
    pub(super) dimensions: Option<u32>,
    pub(super) tries: u32,
    pub(super) durability: Durability,
}

/// Vectors, and the model that made them in the provider's words.
pub(super) struct Embedded {
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) model: String,
}

/// Asks for vectors; inputs that are too many for one request are halved until they are not.
pub(super) fn embed<'a>(
    cx: &'a JobContext,
    wish: &'a Wish<'a>,
    step: String,
    mut input: Vec<String>,
    calls: &'a Calls,
) -> BoxFuture<'a, Result<Embedded, JobError>> {
    async move {
        calls.take()?;
        let ask = || cx.embed(&step, 0, wish.model, input.clone(), wish.dimensions, wish.durability);
        match structured::again(cx, wish.model, wish.tries, ask).await {
            Ok(answer) => Ok(Embedded { vectors: answer.vectors, model: answer.model }),
            Err(error) if error.class == ErrorClass::BatchSplit && input.len() > 1 => {
                let behind = input.split_off(input.len().div_ceil(2));
                // Of several answers none may be lost with the next one's failure.
                let halves = Wish { durability: Durability::Now, ..*wish };
                let mut all = embed(cx, &halves, format!("{step}/0"), input, calls).await?;
                all.vectors.extend(embed(cx, &halves, format!("{step}/1"), behind, calls).await?.vectors);
                Ok(all)
            }
            Err(error) => Err(error),
        }
    }
    .boxed()
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
