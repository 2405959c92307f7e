//! What a process was told, for a backup of the configuration: the file, the environment and the flags, without secrets.

use std::path::Path;

use serde_json::{Value, json};

use super::{Flags, read_bounded};
use crate::environment::{Environment, without_secrets};

/// What a secret begins with in a text that is no URL, such as libpq's `host=… password=…`.
const SECRET: [&str; 3] = ["password=", "secret=", "key="];

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
        "file_text": text.as_deref().map(text_without_secrets).transpose()?,
        "environment": env.ours(),
        "flags": flags,
    }))
}

/// What the file says: no secret stands in it but in a URL. Its comments may have been values once, and are left out.
fn text_without_secrets(text: &str) -> Result<String, String> {
    let mut table: toml::Table = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    table.iter_mut().for_each(|(_, value)| hide(value));
    toml::to_string(&table).map_err(|error| error.to_string())
}

fn hide(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => {
            let shown = without_secrets(text);
            let is_secret = SECRET.iter().any(|word| shown.to_lowercase().contains(word));
            *text = if is_secret { "(secret)".to_owned() } else { shown };
        }
        toml::Value::Array(values) => values.iter_mut().for_each(hide),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| hide(value)),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_configuration_has_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("longshore.toml");
        let text = "listen = \"127.0.0.1:1\"\njournal = \"postgres://me:hidden@db/q?password=hidden\" # ours\n\
                    # dispatcher = \"redis://:hidden@host\"\n\
                    [backup]\nscratch = 'postgres://me:hidden@db/s'\noffsite = 's3://bucket/prefix'\n\
                    [[provider]]\nurl = \"\"\"\nhttps://me:hidden@host/v1?key=hidden\"\"\"\n\
                    [other]\nlist = ['postgres:///db?host=/run&password=hidden', 'host=db password=hidden', \
                    'postgres://me:hidden@one:1,two:2/db']\n";
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
        let kept: toml::Table = toml::from_str(kept).unwrap();
        assert_eq!((kept["listen"].as_str(), kept["journal"].as_str()), (Some("127.0.0.1:1"), Some("postgres://db/q")));
        assert_eq!(kept["backup"]["scratch"].as_str(), Some("postgres://db/s"));
        assert_eq!(kept["backup"]["offsite"].as_str(), Some("s3://bucket/prefix"));
        assert_eq!(kept["other"]["list"][0].as_str(), Some("postgres:///db"));
        assert_eq!(told["environment"]["LONGSHORE_LISTEN"], "127.0.0.1:2");
        assert_eq!(told["environment"]["LONGSHORE_CACHE"], "redis://cache:6379");
    }
}
