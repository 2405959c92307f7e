//! The document in pieces of so many tokens, each with its place in bytes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use queue_core::{
    error::{ErrorClass, JobError},
    ledger::estimate_tokens,
    payload::analysis::{Analysis, Cut, Splitter},
};
use text_splitter::{ChunkConfig, MarkdownSplitter, TextSplitter, TryChunkSizer};

/// A piece of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) index: usize,
    /// First byte in the document.
    pub(super) start: usize,
    /// Byte behind the last.
    pub(super) end: usize,
}

impl Chunk {
    /// The chunk's text.
    pub(super) fn text<'d>(&self, document: &'d str) -> &'d str {
        document.get(self.start..self.end).unwrap_or_default()
    }
}

impl Chunk {
    /// Its two halves, parted at white space where there is some near the middle; `None` where it is too short.
    pub(super) fn halves(&self, document: &str) -> Option<[Self; 2]> {
        let text = self.text(document);
        if text.len() < HALVED_MIN_BYTES {
            return None;
        }
        let middle = text.floor_char_boundary(text.len() / 2);
        let near = text[..middle].rfind(char::is_whitespace).filter(|at| *at > middle / 2);
        let at = self.start + near.unwrap_or(middle);
        Some([Self { end: at, ..*self }, Self { start: at, ..*self }])
    }
}

/// Shortest chunk that is halved: less would not be what does not fit.
const HALVED_MIN_BYTES: usize = 64;

/// Counts tokens for a model until it is told to stop: cutting a large document takes seconds.
struct Tokens<'a> {
    model: &'a str,
    stop: &'a AtomicBool,
}

struct Stopped;

impl TryChunkSizer for Tokens<'_> {
    type Error = Stopped;

    fn try_size(&self, chunk: &str) -> Result<usize, Stopped> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        Ok(usize::try_from(estimate_tokens(self.model, chunk)).unwrap_or(usize::MAX))
    }
}

/// Tells the cutting thread that nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Cuts the document for `model`, on a thread where computing for long hurts nobody.
pub(super) async fn cut(payload: &Arc<Analysis>, model: &str) -> Result<Vec<Chunk>, JobError> {
    let stop = Arc::new(AtomicBool::new(false));
    let _guard = StopOnDrop(stop.clone());
    let (document, model) = (payload.clone(), model.to_owned());
    let cutting = tokio::task::spawn_blocking(move || pieces(&document.text, document.cut, &model, &stop));
    let failed = |message: String| JobError::new(ErrorClass::Internal, "chunk", message);
    let chunks = cutting.await.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
    if chunks.is_empty() {
        return Err(JobError::new(ErrorClass::BadRequest, "empty", "the document has no text"));
    }
    let most = payload.cut.max_chunks;
    if chunks.len() > most {
        let message = format!("the document makes more than the {most} chunks of `chunk.max_chunks`");
        return Err(JobError::new(ErrorClass::Permanent, "max_chunks", message));
    }
    Ok(chunks)
}

/// The chunks, at most one more than are allowed.
fn pieces(text: &str, cut: Cut, model: &str, stop: &AtomicBool) -> Result<Vec<Chunk>, String> {
    let config = ChunkConfig::new(cut.size)
        .with_sizer(Tokens { model, stop })
        .with_overlap(cut.overlap)
        .map_err(|error| error.to_string())?;
    let most = cut.max_chunks.saturating_add(1);
    let pieces: Result<Vec<(usize, &str)>, Stopped> = match cut.splitter {
        Splitter::None => Ok(if text.trim().is_empty() { vec![] } else { vec![(0, text)] }),
        Splitter::Text => TextSplitter::new(config).try_chunk_indices(text).take(most).collect(),
        Splitter::Markdown => MarkdownSplitter::new(config).try_chunk_indices(text).take(most).collect(),
    };
    let pieces = pieces.map_err(|Stopped| "cutting the document was stopped".to_owned())?;
    let chunk = |(index, (start, piece)): (usize, (usize, &str))| Chunk { index, start, end: start + piece.len() };
    Ok(pieces.into_iter().enumerate().map(chunk).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_into(text: &str, splitter: Splitter, size: usize, overlap: usize, model: &str) -> Vec<Chunk> {
        let cut = Cut { size, overlap, splitter, max_chunks: 1_000_000 };
        pieces(text, cut, model, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn chunks_lie_in_order_at_characters_and_hold_all_but_white_space() {
        let text = "# Überschrift\n\nDer Käse.\n\nDas 日本語.\n\n👩‍👩‍👧\u{0}\n\n".repeat(40);
        for (splitter, overlap) in
            [(Splitter::Text, 0), (Splitter::Text, 20), (Splitter::Markdown, 0), (Splitter::Markdown, 30)]
        {
            for model in ["small", "gpt-4o"] {
                let chunks = cut_into(&text, splitter, 50, overlap, model);
                assert!(chunks.len() > 5);
                let mut end = 0;
                for (index, chunk) in chunks.iter().enumerate() {
                    assert_eq!(chunk.index, index);
                    let piece = text.get(chunk.start..chunk.end).expect("offsets lie at characters");
                    assert_eq!(piece, chunk.text(&text));
                    assert!(estimate_tokens(model, piece) <= 50);
                    let between = text.get(end.min(chunk.start)..chunk.start).unwrap();
                    assert!(between.trim().is_empty(), "lost: {between:?}");
                    end = chunk.end;
                }
                assert!(text[end..].trim().is_empty());
                let overlapping = chunks.windows(2).any(|pair| pair[1].start < pair[0].end);
                assert_eq!(overlapping, overlap > 0, "{splitter:?} {overlap} {model}");
            }
        }
    }

    #[test]
    fn an_uncut_document_is_one_chunk_and_an_empty_one_is_none() {
        assert_eq!(cut_into(" a ", Splitter::None, 16, 0, "small"), vec![Chunk { index: 0, start: 0, end: 3 }]);
        for splitter in [Splitter::None, Splitter::Text, Splitter::Markdown] {
            assert!(cut_into(" \n\t ", splitter, 16, 0, "small").is_empty());
        }
    }

    #[test]
    fn a_chunk_is_halved_at_white_space_or_at_a_character() {
        let text = format!("{} {}", "ü".repeat(40), "word ".repeat(12));
        let whole = Chunk { index: 7, start: 0, end: text.len() };
        let [left, right] = whole.halves(&text).unwrap();
        assert_eq!((left.start, left.end, right.start, right.end), (0, right.start, left.end, text.len()));
        assert!(text.is_char_boundary(left.end));
        let even = "word ".repeat(40);
        let [left, _] = Chunk { index: 0, start: 5, end: even.len() }.halves(&even).unwrap();
        assert!(even[left.end..].starts_with(' '));
        assert_eq!(Chunk { index: 0, start: 0, end: 63 }.halves(&even), None);
    }

    #[test]
    fn cutting_ends_at_its_bound_and_when_nobody_waits() {
        let text = "word ".repeat(10_000);
        let cut = Cut { size: 16, overlap: 0, splitter: Splitter::Text, max_chunks: 3 };
        assert_eq!(pieces(&text, cut, "small", &AtomicBool::new(false)).unwrap().len(), 4);
        assert!(pieces(&text, cut, "small", &AtomicBool::new(true)).is_err());
    }
}
