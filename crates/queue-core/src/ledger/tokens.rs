//! How many tokens a text is, where nobody who knows has counted: before a call, and after one whose provider did
//! not say.

use tiktoken_rs::{
    CoreBPE, cl100k_base_singleton, o200k_base_singleton,
    tokenizer::{Tokenizer, get_tokenizer},
};

/// Longest text that is counted whole. A larger one is judged by samples, so that no call holds its thread for longer
/// than this one would: callers are async tasks.
const WHOLE_MAX_BYTES: usize = 64 * 1024;

/// Bytes that the tokenizer sees at once: its work on a text without spaces grows with the square of the length.
const PIECE_BYTES: usize = 4 * 1024;

/// Samples of a large text, evenly spread; together they are as long as the longest text that is counted whole.
const SAMPLES: usize = WHOLE_MAX_BYTES / PIECE_BYTES;

/// Tokens of `text` for `model`: counted for OpenAI's models (texts over 64 KiB by samples), for others a third of
/// the ASCII bytes plus one for each other character. Chat messages cost some 8 tokens more each, which the caller adds.
///
/// The first count for a model family loads its vocabulary (measured: 24 MiB for `cl100k`, 44 MiB for `o200k`) and
/// takes that much longer; a process that never counts for OpenAI's models never holds it.
pub fn estimate_tokens(model: &str, text: &str) -> u64 {
    match vocabulary_of(model) {
        None => by_bytes(text),
        Some(vocabulary) if text.len() <= WHOLE_MAX_BYTES => counted(vocabulary, text),
        Some(vocabulary) => sampled(vocabulary, text),
    }
}

fn vocabulary_of(model: &str) -> Option<&'static CoreBPE> {
    // Gateways put the vendor before the name.
    let name = model.rsplit('/').next().unwrap_or(model);
    match get_tokenizer(name) {
        Some(Tokenizer::Cl100kBase) => Some(cl100k_base_singleton()),
        // Harmony differs in its special tokens only, which are not counted here.
        Some(Tokenizer::O200kBase | Tokenizer::O200kHarmony) => Some(o200k_base_singleton()),
        Some(_) => None,
        // A model newer than the list: the current vocabulary is the best guess.
        None if name.starts_with("gpt-") || name.starts_with("chatgpt-") => Some(o200k_base_singleton()),
        None => None,
    }
}

fn by_bytes(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let others = text.chars().filter(|c| !c.is_ascii()).count();
    (ascii.div_ceil(3) + others) as u64
}

fn counted(vocabulary: &CoreBPE, text: &str) -> u64 {
    pieces(text).map(|piece| vocabulary.count_ordinary(piece) as u64).sum()
}

fn sampled(vocabulary: &CoreBPE, text: &str) -> u64 {
    let stride = text.len() / SAMPLES;
    let (mut tokens, mut bytes) = (0, 0);
    for sample in 0..SAMPLES {
        let from = text.floor_char_boundary(sample * stride);
        let to = text.floor_char_boundary(from + PIECE_BYTES);
        let piece = &text[from..to];
        tokens += vocabulary.count_ordinary(piece) as u128;
        bytes += piece.len() as u128;
    }
    u64::try_from((tokens * text.len() as u128).div_ceil(bytes.max(1))).unwrap_or(u64::MAX)
}

/// The text in pieces of at most [`PIECE_BYTES`], cut before a space where there is one: tokens begin there.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = if rest.len() <= PIECE_BYTES {
            rest.len()
        } else {
            let end = rest.floor_char_boundary(PIECE_BYTES);
            rest[..end].rfind(' ').filter(|&at| at > end / 2).unwrap_or(end)
        };
        let (piece, after) = rest.split_at(cut);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_models_are_counted_with_their_vocabulary() {
        // Counts from OpenAI's own cookbook: cl100k and o200k differ on this text.
        assert_eq!(estimate_tokens("gpt-4", "antidisestablishmentarianism"), 6);
        assert_eq!(estimate_tokens("gpt-4o", "antidisestablishmentarianism"), 6);
        assert_eq!(estimate_tokens("gpt-4", "お誕生日おめでとう"), 9);
        assert_eq!(estimate_tokens("gpt-4o", "お誕生日おめでとう"), 8);
        assert_eq!(estimate_tokens("text-embedding-3-small", "2 + 2 = 4"), 7);
        assert_eq!(estimate_tokens("openai/gpt-4o", "2 + 2 = 4"), 7);
        assert_eq!(estimate_tokens("gpt-6-nano", "お誕生日おめでとう"), 8);
    }

    #[test]
    fn other_models_are_judged_by_bytes() {
        assert_eq!(estimate_tokens("smollm2", ""), 0);
        assert_eq!(estimate_tokens("smollm2", "abcd"), 2);
        assert_eq!(estimate_tokens("smollm2", "abcé"), 2);
        assert_eq!(estimate_tokens("smollm2", "日本語"), 3);
    }

    #[test]
    fn special_tokens_in_a_text_are_text() {
        assert!(estimate_tokens("gpt-4o", "<|endoftext|>") > 1);
    }

    #[test]
    fn cutting_a_text_into_pieces_hardly_changes_the_count() {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(1_000);
        let whole = o200k_base_singleton().count_ordinary(&text) as u64;
        assert!(text.len() < WHOLE_MAX_BYTES && text.len() > PIECE_BYTES);
        assert_eq!(estimate_tokens("gpt-4o", &text), whole);
        assert_eq!(pieces(&text).collect::<String>(), text);
    }

    #[test]
    fn a_large_text_is_judged_by_samples() {
        let text = "Größere Texte werden in Stichproben gezählt, 日本語 auch. ".repeat(20_000);
        let whole = o200k_base_singleton().count_ordinary(&text) as f64;
        let estimate = estimate_tokens("gpt-4o", &text) as f64;
        assert!((estimate / whole - 1.0).abs() < 0.02, "{estimate} of {whole}");
    }

    #[test]
    fn a_long_text_of_one_sign_ends() {
        // Quadratic work, or a regex that goes back and forth, would take minutes on these in one piece.
        for unit in ["a", " ", "\n", "é", "\u{1F6A2}"] {
            for bytes in [WHOLE_MAX_BYTES, 10 * 1024 * 1024] {
                let text = unit.repeat(bytes / unit.len());
                assert!(estimate_tokens("gpt-4o", &text) >= 100, "{unit:?}");
            }
        }
    }
}
