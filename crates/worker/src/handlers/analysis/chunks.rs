//! The document in pieces of so many tokens, each with its place in bytes.

use queue_core::{
    error::{ErrorClass, JobError},
    payload::analysis::{Analysis, Splitter},
};
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};
use tiktoken_rs::o200k_base_singleton;

/// A piece of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) index: usize,
    /// First byte in the document.
    pub(super) start: usize,
    /// Byte behind the last.
    pub(super) end: usize,
    pub(super) text: String,
}

/// Counts tokens as the newer OpenAI models do: close enough for every model to cut by.
struct Tokens;

impl ChunkSizer for Tokens {
    fn size(&self, chunk: &str) -> usize {
        o200k_base_singleton().encode_ordinary(chunk).len()
    }
}

/// Cuts the document, on a thread where computing for long hurts nobody.
pub(super) async fn cut(payload: &Analysis) -> Result<Vec<Chunk>, JobError> {
    let internal = |message: String| JobError::new(ErrorClass::Internal, "chunk", message);
    let (text, splitter) = (payload.text.clone(), payload.splitter);
    let (size, overlap) = (payload.chunk_size, payload.overlap);
    let chunks = tokio::task::spawn_blocking(move || pieces(&text, splitter, size, overlap))
        .await
        .map_err(|error| internal(error.to_string()))?
        .map_err(internal)?;
    if chunks.is_empty() {
        return Err(JobError::new(ErrorClass::BadRequest, "empty", "the document has no text"));
    }
    if chunks.len() > payload.max_chunks {
        let message =
            format!("the document makes {} chunks; `chunk.max_chunks` is {}", chunks.len(), payload.max_chunks);
        return Err(JobError::new(ErrorClass::BadRequest, "max_chunks", message));
    }
    Ok(chunks)
}

fn pieces(text: &str, splitter: Splitter, size: usize, overlap: usize) -> Result<Vec<Chunk>, String> {
    let config = ChunkConfig::new(size).with_sizer(Tokens).with_overlap(overlap).map_err(|error| error.to_string())?;
    let pieces: Vec<(usize, &str)> = match splitter {
        Splitter::None if text.trim().is_empty() => vec![],
        Splitter::None => vec![(0, text)],
        Splitter::Text => TextSplitter::new(config).chunk_indices(text).collect(),
        Splitter::Markdown => MarkdownSplitter::new(config).chunk_indices(text).collect(),
    };
    let chunk = |(index, (start, piece)): (usize, (usize, &str))| Chunk {
        index,
        start,
        end: start + piece.len(),
        text: piece.to_owned(),
    };
    Ok(pieces.into_iter().enumerate().map(chunk).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_what_stands_at_its_place() {
        let text = "Überschrift\n\nDer Käse ist grün. Das 日本語 auch.\n\n".repeat(40);
        for splitter in [Splitter::Text, Splitter::Markdown, Splitter::None] {
            let chunks = pieces(&text, splitter, 50, 5).unwrap();
            assert!(chunks.len() > 1 || splitter == Splitter::None);
            for chunk in &chunks {
                assert_eq!(&text[chunk.start..chunk.end], chunk.text);
                assert!(splitter == Splitter::None || Tokens.size(&chunk.text) <= 50);
            }
        }
        assert!(pieces(" \n ", Splitter::None, 50, 5).unwrap().is_empty());
    }
}
