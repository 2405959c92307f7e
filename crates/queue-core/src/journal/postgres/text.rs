//! Texts that people send, as Postgres can keep them: its `text` holds every character but NUL.
//!
//! NUL becomes two characters that begin with [`ESCAPE`], and so does the escape character itself; everything else
//! stays as it is, so that texts can be read with `psql`, searched and sorted.

use std::borrow::Cow;

/// "Data link escape": a control character that was made for this.
const ESCAPE: char = '\u{10}';
/// Follows the escape for a NUL.
const NUL: char = '\u{1}';
/// Follows the escape for the escape itself.
const ITSELF: char = '\u{2}';

/// The text as it is stored.
pub(super) fn kept(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len() + 2);
    for character in text.chars() {
        match character {
            '\0' => kept.extend([ESCAPE, NUL]),
            ESCAPE => kept.extend([ESCAPE, ITSELF]),
            other => kept.push(other),
        }
    }
    Cow::Owned(kept)
}

/// The text as it is stored, where there is one.
pub(super) fn kept_if_any(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| kept(text))
}

/// The text as it was sent.
pub(super) fn sent(kept: &str) -> Cow<'_, str> {
    if !kept.contains(ESCAPE) {
        return Cow::Borrowed(kept);
    }
    let mut sent = String::with_capacity(kept.len());
    let mut characters = kept.chars();
    while let Some(character) = characters.next() {
        sent.push(match character {
            ESCAPE => match characters.next() {
                Some(NUL) => '\0',
                _ => ESCAPE,
            },
            other => other,
        });
    }
    Cow::Owned(sent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(kept("grüße 🦀\n"), Cow::Borrowed("grüße 🦀\n")));
        assert_eq!(kept("a\0b"), "a\u{10}\u{1}b");
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in r"[\x00\x01\x02\x10ab]{0,12}") {
            let stored = kept(&text).into_owned();
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(sent(&stored), text);
        }
    }
}
