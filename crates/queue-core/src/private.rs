//! Texts that are somebody's. Whatever prints them (`{:?}`, `{}`, an error, a log line) prints how long they are and a hash, by which
//! two lines can be seen to be about the same text; who needs the text itself says so.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    ops::Deref,
    sync::LazyLock,
};

use bytes::Bytes;
use serde::Serialize;
use zeroize::Zeroize;

/// Different in each process, so that short texts cannot be found by hashing what they might be.
static SALT: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn describe(what: &str, text: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{what}({} bytes, #{:016x})", text.len(), SALT.hash_one(text))
}

/// What a caller, a model or a service said: a payload, a prompt, an answer. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Prompt(Bytes);

impl Prompt {
    /// The text, for whoever it is meant for.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("prompt", &self.0, f)
    }
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Deref for Prompt {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<T: Into<Bytes>> From<T> for Prompt {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl PartialEq<&str> for Prompt {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl PartialEq<Bytes> for Prompt {
    fn eq(&self, other: &Bytes) -> bool {
        self.0 == *other
    }
}

/// Keeps what a type holds out of what prints it: its name is left.
#[macro_export]
macro_rules! unshown {
    ($($type:ident),+ $(,)?) => {
        $(impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type)).finish_non_exhaustive()
            }
        })+
    };
}

/// A key, a password, a token, on its way to whoever may see it this one time: in JSON it is its text. Overwritten when it is dropped.
/// What a process keeps is a `SecretString`, which prints nothing at all.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for whoever it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("secret", self.0.as_bytes(), f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_hash_are_printed_and_nothing_else() {
        let (one, same) = (Prompt::from("a patient's story"), Prompt::from("a patient's story".to_owned()));
        let printed = format!("{one:?}");
        assert!(printed.starts_with("prompt(17 bytes, #") && printed.len() == 35, "{printed}");
        assert_eq!((format!("{one}"), format!("{same:?}")), (printed.clone(), printed.clone()), "one text, one hash");
        assert_ne!(format!("{:?}", Prompt::from("a patient's death")), printed);
        assert!(one == "a patient's story" && one.bytes() == "a patient's story");
        let secret = Secret::from("sk-0123456789".to_owned());
        let printed = format!("{secret:?} {secret:#?} {secret}");
        assert!(printed.starts_with("secret(13 bytes, #") && !printed.contains("sk-"), "{printed}");
        assert_eq!(secret.reveal(), "sk-0123456789");
    }
}
