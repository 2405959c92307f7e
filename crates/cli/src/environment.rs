//! The environment, read once: no other file asks the operating system for a variable.

use std::{collections::BTreeMap, path::Path};

use crate::{data, failure::Failure};

/// Variables of ours that exist; any other `LONGSHORE_…` is a mistake and is refused.
pub(crate) const KNOWN: &[&str] = &[
    "LONGSHORE_ADMIN_KEY",
    "LONGSHORE_ADMIN_KEY_FILE",
    "LONGSHORE_AUTH_SIGNING_KEY_FILE",
    "LONGSHORE_BACKUP_IDENTITY_FILE",
    "LONGSHORE_BACKUP_OFFSITE",
    "LONGSHORE_BACKUP_RECIPIENTS",
    "LONGSHORE_BACKUP_URL",
    "LONGSHORE_CACHE",
    "LONGSHORE_CACHE_FILE",
    "LONGSHORE_CA_FILE",
    "LONGSHORE_CONFIG",
    "LONGSHORE_CORS_ORIGINS",
    "LONGSHORE_CREDENTIALS_MASTER_KEY_FILE",
    "LONGSHORE_DASHBOARD",
    "LONGSHORE_DATA",
    "LONGSHORE_DISPATCHER",
    "LONGSHORE_DISPATCHER_FILE",
    "LONGSHORE_JOURNAL",
    "LONGSHORE_JOURNAL_FILE",
    "LONGSHORE_KEY",
    "LONGSHORE_KEY_FILE",
    "LONGSHORE_LISTEN",
    "LONGSHORE_LOG",
    "LONGSHORE_MASTER_KEY",
    "LONGSHORE_METRICS_LISTEN",
    "LONGSHORE_OBJECTS_URL",
    "LONGSHORE_OIDC_CLIENT_SECRET",
    "LONGSHORE_OIDC_CLIENT_SECRET_FILE",
    "LONGSHORE_PRICES_FILE",
    "LONGSHORE_PROBE_FAULTS",
    "LONGSHORE_PROBE_JOBS",
    "LONGSHORE_PROFILE",
    "LONGSHORE_PROVIDER_DEFAULT_MODEL",
    "LONGSHORE_PROVIDER_EMBEDDING_MODEL",
    "LONGSHORE_PROVIDER_URL",
    #[cfg(feature = "sabotage")]
    "LONGSHORE_SABOTAGE",
    "LONGSHORE_SIGNING_KEY",
    "LONGSHORE_STOP_WAIT",
    "LONGSHORE_TLS_CERTIFICATE_FILE",
    "LONGSHORE_TLS_KEY_FILE",
    "LONGSHORE_TRACES_ATTEMPTS",
    "LONGSHORE_URL",
    "LONGSHORE_WEBHOOKS_ALLOW_HTTP",
    "LONGSHORE_WEBHOOKS_ALLOW_NETWORKS",
    "LONGSHORE_WORKER_DRAIN",
    "LONGSHORE_WORKER_KINDS",
    "LONGSHORE_WORKER_QUEUES",
    "LONGSHORE_WORKER_SLOTS",
];

/// Those that are secrets as a whole.
const SECRET: &[&str] = &[
    "LONGSHORE_ADMIN_KEY",
    "LONGSHORE_KEY",
    "LONGSHORE_MASTER_KEY",
    "LONGSHORE_OIDC_CLIENT_SECRET",
    "LONGSHORE_SIGNING_KEY",
];

/// A URL without user, password and query, any of which may be a secret; anything else as it is.
pub(crate) fn without_secrets(text: &str) -> String {
    if !text.contains("://") {
        return text.to_owned();
    }
    match reqwest::Url::parse(text) {
        Ok(mut url) => {
            // Refused where there is no host: then there is no user.
            let _ = url.set_password(None);
            let _ = url.set_username("");
            url.set_query(None);
            url.to_string()
        }
        // Several hosts with ports, for one: nobody knows where its password ends.
        Err(_) if text.contains(['@', '?']) => "(a URL with secrets)".to_owned(),
        Err(_) => text.to_owned(),
    }
}

/// A text without what stands between `://` and `@` in it: a URL that is refused where it stands may be one with a password.
pub(crate) fn without_logins(text: &str) -> String {
    let mut parts = text.split("://");
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        told.push_str("://");
        let end = part.find(|c: char| c.is_whitespace() || "\"'`".contains(c)).unwrap_or(part.len());
        let (address, rest) = part.split_at(end);
        match address.rsplit_once('@') {
            Some((_, behind)) => told.extend(["…@", behind]),
            None => told.push_str(address),
        }
        told.push_str(rest);
    }
    told
}

/// The variables of this process, or those that a test sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process; those that are not UTF-8 are none of ours.
    pub(crate) fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// These variables and no others.
    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    /// A variable's value; an empty one counts as not set, as compose files write it.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// A secret: the variable's value, or what stands in the file that `NAME_FILE` says, as containers are given secrets. Spaces and
    /// line breaks around it are no part of it.
    pub(crate) fn secret(&self, name: &str) -> Result<Option<String>, String> {
        let by_file = format!("{name}_FILE");
        let path = match (self.get(name), self.get(&by_file)) {
            (Some(_), Some(_)) => return Err(format!("{name} and {by_file} are both set: keep one of them")),
            (Some(value), None) => return Ok(Some(value.to_owned())),
            (None, None) => return Ok(None),
            (None, Some(path)) => path,
        };
        data::read_secret(Path::new(path)).map(Some).map_err(|reason| format!("{by_file}: {path} {reason}"))
    }

    /// The variables whose names begin so, in small letters, with their values.
    pub(crate) fn beginning(&self, prefix: &str) -> BTreeMap<String, String> {
        let named = self.0.keys().filter(|name| name.starts_with(prefix));
        named.filter_map(|name| Some((name.to_lowercase(), self.get(name)?.to_owned()))).collect()
    }

    /// The variables of ours that are set, without the values of those that hold secrets.
    pub(crate) fn ours(&self) -> BTreeMap<String, String> {
        let ours = self.0.keys().filter(|name| KNOWN.contains(&name.as_str()));
        let shown = |name: &String| {
            let value = self.get(name)?;
            let is_secret = SECRET.contains(&name.as_str());
            Some((name.clone(), if is_secret { "(secret)".to_owned() } else { without_secrets(value) }))
        };
        ours.filter_map(shown).collect()
    }

    /// Refuses variables that look like ours and are not: a misspelt setting must not be silently the default.
    pub(crate) fn reject_unknown(&self) -> Result<(), Failure> {
        let strange = |name: &&String| {
            name.starts_with("LONGSHORE_") && !KNOWN.contains(&name.as_str()) && !is_service_link(name)
        };
        match self.0.keys().find(strange) {
            Some(name) => Err(Failure::usage(format!(
                "the environment variable {name} means nothing to longshore; known are {}",
                KNOWN.join(", ")
            ))),
            None => Ok(()),
        }
    }
}

/// Kubernetes gives every pod `LONGSHORE_PORT_8080_TCP_ADDR` and the like when a service is called `longshore`.
fn is_service_link(name: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_taken_out_of_whatever_is_said() {
        for (said, told) in [
            ("`redis://:hush@a:1,b:2/3` is no `file:PATH`", "`redis://…@a:1,b:2/3` is no `file:PATH`"),
            ("string \"postgres://me:h@u/sh@db/q\", expected", "string \"postgres://…@db/q\", expected"),
            ("http://a/b and https://u@c:1", "http://a/b and https://…@c:1"),
            ("me@here: no URL", "me@here: no URL"),
            ("a://", "a://"),
        ] {
            assert_eq!(without_logins(said), told);
        }
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_a_service_link_is_not() {
        assert!(Environment::of(&[("LONGSHORE_LISTEN", "x"), ("PATH", "y")]).reject_unknown().is_ok());
        assert!(Environment::of(&[("LONGSHORE_PORT_8080_TCP_ADDR", "10.0.0.1")]).reject_unknown().is_ok());
        assert!(Environment::of(&[("LONGSHORE_API_SERVICE_HOST", "10.0.0.1")]).reject_unknown().is_ok());
        let error = Environment::of(&[("LONGSHORE_LISTN", "x")]).reject_unknown().unwrap_err();
        assert!(error.message.contains("LONGSHORE_LISTN"), "{error}");
    }

    #[test]
    fn a_secret_is_a_variable_or_a_file_and_never_both() {
        let folder = tempfile::tempdir().unwrap();
        let (file, empty) = (folder.path().join("secret"), folder.path().join("empty"));
        std::fs::write(&file, "postgres://u:hidden@h/db\n").unwrap();
        std::fs::write(&empty, "\n").unwrap();
        let secret = |value: &str, path: &Path| {
            let path = path.to_str().unwrap();
            Environment::of(&[("LONGSHORE_JOURNAL", value), ("LONGSHORE_JOURNAL_FILE", path)])
                .secret("LONGSHORE_JOURNAL")
        };
        assert_eq!(secret("", &file).unwrap().as_deref(), Some("postgres://u:hidden@h/db"));
        assert_eq!(secret("x", Path::new("")).unwrap().as_deref(), Some("x"));
        assert_eq!(secret("", Path::new("")), Ok(None));
        assert!(secret("x", &file).unwrap_err().contains("both"));
        assert!(secret("", &empty).unwrap_err().contains("is empty"));
        assert!(secret("", &folder.path().join("gone")).unwrap_err().contains("LONGSHORE_JOURNAL_FILE"));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        assert_eq!(Environment::of(&[("LONGSHORE_URL", " ")]).get("LONGSHORE_URL"), None);
    }
}
