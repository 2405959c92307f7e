//! What a process was told, for a backup of the configuration: the file, the environment and the flags, without secrets.

use std::path::Path;

use serde_json::{Value, json};

use super::{Flags, read_bounded};
use crate::environment::{Environment, without_secrets};

/// File, environment and flags in the order in which they count, the later ones more. What they do not say is as it is shipped.
pub(super) fn told(flags: &Flags, env: &Environment, path: Option<&Path>) -> Result<Value, String> {
    let text = path.map(read_bounded).transpose().map_err(|error| error.to_string())?;
    let flags = json!({
        "listen": flags.listen,
        "journal": flags.journal.as_deref().map(without_secrets),
        "dispatcher": flags.dispatcher.as_deref().map(without_secrets),
        "slots": flags.slots,
        "provider_url": flags.provider_url.as_deref().map(without_secrets),
        "default_model": flags.default_model,
        "embedding_model": flags.embedding_model,
    });
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "file": path,
        "file_text": text.as_deref().map(text_without_secrets),
        "environment": env.ours(),
        "flags": flags,
    }))
}

/// The file's text: no secret stands in it but in a URL.
fn text_without_secrets(text: &str) -> String {
    text.split('"').map(without_secrets).collect::<Vec<_>>().join("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_configuration_has_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("longshore.toml");
        let text = "listen = \"127.0.0.1:1\"\njournal = \"postgres://me:hidden@db/q?password=hidden\" # ours\n";
        std::fs::write(&file, text).unwrap();
        let env = Environment::of(&[
            ("LONGSHORE_KEY", "hidden"),
            ("LONGSHORE_CACHE", "redis://:hidden@cache:6379"),
            ("OPENAI_API_KEY", "hidden"),
            ("LONGSHORE_LISTEN", "127.0.0.1:2"),
        ]);
        let flags = Flags { dispatcher: Some("redis://u:hidden@host".to_owned()), ..Flags::default() };
        let told = told(&flags, &env, Some(&file)).unwrap();
        assert!(!told.to_string().contains("hidden"), "{told:#}");
        let kept = told["file_text"].as_str().unwrap();
        assert_eq!(kept, "listen = \"127.0.0.1:1\"\njournal = \"postgres://db/q\" # ours\n");
        assert_eq!(told["environment"]["LONGSHORE_LISTEN"], "127.0.0.1:2");
        assert_eq!(told["environment"]["LONGSHORE_CACHE"], "redis://cache:6379");
    }
}
