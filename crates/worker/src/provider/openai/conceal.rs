//! Takes keys and prompts out of what providers say: they like to quote both.

use std::ops::Range;

use serde_json::Value;

/// Length of the pieces by which a quoted prompt is recognised: any quote of twice this length contains one whole
/// piece, and ordinary words of an error are shorter.
const PIECE_BYTES: usize = 24;
/// Longest message that is looked at; what lies beyond is cut before.
const MESSAGE_MAX_BYTES: usize = 4_000;
/// Shortest part of a key that gives it away.
const KEY_PART_BYTES: usize = 8;

/// What stands in place of a prompt.
const PROMPT: &str = "…";
/// What stands in place of a key.
const KEY: &str = "[key]";

/// `message` without parts of `secrets` and without longer quotes from `prompts`.
pub(super) fn conceal<'a>(message: &str, secrets: &[&str], prompts: impl IntoIterator<Item = &'a str>) -> String {
    let message = &message[..message.floor_char_boundary(MESSAGE_MAX_BYTES)];
    let words = message.split_inclusive(char::is_whitespace);
    let without_keys: String = words.map(|word| without_key(word, secrets)).collect();
    without_prompts(without_keys, prompts)
}

/// A word that looks like a key, or shares a beginning or end with one (providers mask the middle), is replaced.
fn without_key(word: &str, secrets: &[&str]) -> String {
    let trimmed = word.trim_end();
    let core = trimmed.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let looks_like_one = core.starts_with("sk-") && core.len() >= KEY_PART_BYTES;
    let is_part = |&secret: &&str| {
        if secret.len() < KEY_PART_BYTES {
            // What some write for servers without keys (`none`, `x`): only the whole word gives it away.
            return core == secret;
        }
        let head = &secret[..secret.floor_char_boundary(KEY_PART_BYTES)];
        let tail = &secret[secret.ceil_char_boundary(secret.len().saturating_sub(KEY_PART_BYTES))..];
        word.contains(head) || word.contains(tail)
    };
    if looks_like_one || secrets.iter().any(is_part) {
        format!("{KEY}{}", &word[trimmed.len()..])
    } else {
        word.to_owned()
    }
}

fn without_prompts<'a>(message: String, prompts: impl IntoIterator<Item = &'a str>) -> String {
    let mut pieces = Vec::new();
    let mut from = 0;
    while from + PIECE_BYTES <= message.len() {
        let to = message.ceil_char_boundary(from + PIECE_BYTES);
        pieces.push(from..to);
        from = to;
    }
    let mut quotes: Vec<Range<usize>> = Vec::new();
    for prompt in prompts {
        let found = pieces.iter().filter_map(|piece| Some((piece, prompt.find(&message[piece.clone()])?)));
        quotes.extend(found.map(|(piece, at)| widened(&message, piece, prompt, at)));
    }
    quotes.sort_by_key(|quote| quote.start);
    let mut kept = String::new();
    let mut at = 0;
    for quote in quotes {
        if quote.start > at || at == 0 {
            kept.push_str(&message[at..quote.start.max(at)]);
            kept.push_str(PROMPT);
        }
        at = at.max(quote.end);
    }
    kept + &message[at..]
}

/// A quoted piece with what is equal before and after it, in the message and in the prompt (where it begins at `at`).
fn widened(message: &str, piece: &Range<usize>, prompt: &str, at: usize) -> Range<usize> {
    let same = |(a, b): &(char, char)| a == b;
    let width = |(a, _): (char, char)| a.len_utf8();
    let before = message[..piece.start].chars().rev().zip(prompt[..at].chars().rev());
    let after = message[piece.end..].chars().zip(prompt[at + piece.len()..].chars());
    let before: usize = before.take_while(same).map(width).sum();
    let after: usize = after.take_while(same).map(width).sum();
    piece.start - before..piece.end + after
}

/// Every longer text of a request body.
pub(super) fn texts_of(body: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    let mut open = vec![body];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) if text.len() >= PIECE_BYTES => found.push(text.as_str()),
            Value::Array(items) => open.extend(items),
            Value::Object(members) => open.extend(members.values()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sk-proj-abcdefghijklmnopqrstuvwx";

    #[test]
    fn keys_are_taken_out_also_where_they_are_masked() {
        let cases = [
            ("Incorrect API key provided: sk-proj-********uvwx. You can", "Incorrect API key provided: [key] You can"),
            ("key=\"lsk_localsecret123\" is bad", "[key] is bad"),
            ("Bearer lsk_loca***", "Bearer [key]"),
            ("another sk-0123456789 too", "another [key] too"),
            ("no key here, ask-me", "no key here, ask-me"),
        ];
        for (message, expected) in cases {
            assert_eq!(conceal(message, &[SECRET, "lsk_localsecret123"], []), expected);
        }
    }

    #[test]
    fn quotes_of_the_prompt_are_taken_out() {
        let prompt = "The patient, Jane Doe of 12 Harbour Street, was seen on the third of May with a fever.";
        let message = format!("Input should be a valid list: got '{prompt}' for messages");
        let kept = conceal(&message, &[], [prompt]);
        assert_eq!(kept, "Input should be a valid list: got '…' for messages");
        let twice = format!("{prompt} and größer {prompt}");
        assert_eq!(conceal(&twice, &[], [prompt, "nothing of this at all, however long"]), "… and größer …");
        let part = format!("near {}", &prompt[10..70]);
        assert_eq!(conceal(&part, &[], [prompt]), "near …");
    }

    #[test]
    fn an_ordinary_message_stays() {
        let message = "This model's maximum context length is 8192 tokens, however you requested 9000 tokens.";
        assert_eq!(conceal(message, &[SECRET], ["Summarise the context of the model in 9000 tokens."]), message);
        assert_eq!(conceal("größer als erlaubt", &[], ["größer"]), "größer als erlaubt");
        assert_eq!(conceal("", &[""], [""]), "");
    }
}
