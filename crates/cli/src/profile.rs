//! Profiles: the installations that somebody operates, each by a name, in `~/.config/longshore/config.toml`.
//!
//! ```toml
//! default = "staging"                    # used where nobody names another
//!
//! [profiles.staging]
//! url = "https://longshore.staging.example"
//! key_file = "staging.key"               # beside this file unless absolute; or key_env = "STAGING_KEY"
//! ca_file = "staging-ca.pem"             # whose certificates are believed, where no public authority signs them
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde::Deserialize;

use crate::{data, environment::Environment, failure::Failure};

/// Where profiles are, below the folder of the user's configuration.
const FILE: &str = "longshore/config.toml";

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    default: Option<String>,
    profiles: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    url: String,
    key_file: Option<PathBuf>,
    key_env: Option<String>,
    ca_file: Option<PathBuf>,
}

/// An installation that somebody operates.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Its address.
    pub(crate) url: String,
    /// The key that it gets.
    pub(crate) key: Option<SecretString>,
    /// Whose certificates are believed instead of those of this machine.
    pub(crate) ca_file: Option<PathBuf>,
}

/// The profile that is `named`, or the default one; `None` where neither is there.
pub(crate) fn find(named: Option<&str>, env: &Environment) -> Result<Option<Profile>, Failure> {
    let Some(path) = path(env) else {
        return match named {
            Some(name) => Err(Failure::usage(format!("there is no profile `{name}`: HOME is not set"))),
            None => Ok(None),
        };
    };
    let failed = |reason: String| Failure::usage(format!("{}: {reason}", path.display()));
    let text = match data::read_small(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error.to_string())),
    };
    // Its message alone: the line may hold what somebody took for the place of a key.
    let mut file: File = toml::from_str(&text).map_err(|error| failed(error.message().to_owned()))?;
    let Some(name) = named.map(str::to_owned).or_else(|| file.default.take()) else { return Ok(None) };
    let known: Vec<_> = file.profiles.keys().cloned().collect();
    let Some(entry) = file.profiles.remove(&name) else {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(failed(format!("there is no profile `{name}`; there are: {known}")));
    };
    let beside = |file: &Path| path.parent().unwrap_or(Path::new("")).join(file);
    let key = match (&entry.key_file, &entry.key_env) {
        (Some(_), Some(_)) => return Err(failed(format!("the profile `{name}` has both key_file and key_env"))),
        (Some(file), None) => {
            let file = beside(file);
            let key = data::read_small(&file).map_err(|error| failed(format!("{}: {error}", file.display())))?;
            Some(key.trim().into())
        }
        (None, Some(variable)) => match env.get(variable) {
            Some(key) => Some(key.into()),
            None => return Err(failed(format!("the profile `{name}` wants its key in {variable}, which is not set"))),
        },
        (None, None) => None,
    };
    Ok(Some(Profile { url: entry.url, key, ca_file: entry.ca_file.as_deref().map(beside) }))
}

fn path(env: &Environment) -> Option<PathBuf> {
    let config = env.get("XDG_CONFIG_HOME").map(PathBuf::from);
    Some(config.or_else(|| Some(Path::new(env.get("HOME")?).join(".config")))?.join(FILE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use secrecy::ExposeSecret;

    use super::*;

    fn written(text: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("longshore")).unwrap();
        std::fs::write(home.path().join(FILE), text).unwrap();
        home
    }

    fn found(text: &str, named: Option<&str>) -> Result<Option<Profile>, Failure> {
        let home = written(text);
        std::fs::write(home.path().join("longshore/a.key"), "lsk_of_a\n").unwrap();
        let env = Environment::of(&[("XDG_CONFIG_HOME", home.path().to_str().unwrap()), ("B_KEY", "lsk_of_b")]);
        find(named, &env)
    }

    const TWO: &str = "default = \"a\"\n[profiles.a]\nurl = \"http://a\"\nkey_file = \"a.key\"\n\
                       [profiles.b]\nurl = \"http://b\"\nkey_env = \"B_KEY\"\n[profiles.c]\nurl = \"http://c\"\nkey_env = \"C_KEY\"";

    #[test]
    fn a_profile_has_an_address_and_a_key() {
        for (named, url, key) in [(None, "http://a", "lsk_of_a"), (Some("b"), "http://b", "lsk_of_b")] {
            let profile = found(TWO, named).unwrap().unwrap();
            assert_eq!((profile.url.as_str(), profile.key.unwrap().expose_secret()), (url, key));
        }
        assert!(found("[profiles.a]\nurl = \"http://a\"", None).unwrap().is_none(), "nobody is the default");
        assert!(find(None, &Environment::of(&[])).unwrap().is_none(), "no home, no profiles");
        let nowhere = Environment::of(&[("HOME", "/nowhere")]);
        assert!(find(None, &nowhere).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_said_and_no_key_repeated() {
        for (text, named, says) in [
            (TWO, Some("d"), "there are: a, b, c"),
            (TWO, Some("c"), "C_KEY"),
            ("[profiles.a]\nurl = \"http://a\"\nkey = \"lsk_secret\"", Some("a"), "unknown field `key`"),
            ("[profiles.a]\nurl = \"u\"\nkey_file = \"f\"\nkey_env = \"E\"", Some("a"), "both"),
            ("[profiles.a]\nurl = \"u\"\nkey_file = \"missing\"", Some("a"), "missing"),
            ("default = \"gone\"", None, "there are: none"),
        ] {
            let failure = found(text, named).unwrap_err().to_string();
            assert!(failure.contains(says) && !failure.contains("lsk_secret"), "{failure}");
        }
    }
}
