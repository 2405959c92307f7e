//! What a Redis must be before work is entrusted to it.

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::{address::RedisAddress, link::Link};

/// The oldest server whose commands the scripts use.
const OLDEST: (u32, u32) = (6, 2);

/// Why Redis was refused, in one line that says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing answers.
    #[error("Redis at {address} cannot be reached ({why}); start it, or correct the host and port of its address")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// Wrong user or password.
    #[error("Redis at {0} refuses the user name or password; correct them in its address")]
    Password(String),
    /// No such database.
    #[error("Redis at {0} has no database of that number; correct the number behind the `/` in its address")]
    Database(String),
    /// The user lacks rights.
    #[error(
        "Redis at {address} does not let this user do what is needed ({why}); grant the commands and keys, as in \
         ACL SETUSER name ~* &* +@all -@dangerous +info +function +script"
    )]
    Rights {
        /// Where.
        address: String,
        /// What it said.
        why: String,
    },
    /// TLS does not come about.
    #[error(
        "Redis at {address} does not speak TLS as expected ({why}); rediss:// needs its TLS port and a trusted certificate"
    )]
    Tls {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// It is there, but not in the form that the address says.
    #[error(
        "Redis at {address} is not what its address says ({why}); write redis:// for one server, \
         redis+sentinel://host/master for the master that Sentinels know, redis+cluster:// for a Cluster"
    )]
    Form {
        /// Where.
        address: String,
        /// What it said.
        why: String,
    },
    /// Too old.
    #[error("Redis at {address} has version {version}; upgrade it to 6.2 at least (7 or later is better)")]
    Version {
        /// Where.
        address: String,
        /// Its version.
        version: String,
    },
    /// It may evict.
    #[error(
        "Redis at {address} has maxmemory-policy {policy} and would forget jobs when its memory is full; set it with \
         CONFIG SET maxmemory-policy noeviction and in redis.conf (caches belong in another Redis), or allow eviction"
    )]
    Evicts {
        /// Where.
        address: String,
        /// Its policy.
        policy: String,
    },
    /// A replica.
    #[error("Redis at {0} is a read-only replica; give the address of its primary, or a redis+sentinel:// address")]
    Replica(String),
}

impl OpenError {
    /// What an error means at the start.
    pub(super) fn of(address: &RedisAddress, error: &RedisError) -> Self {
        let (at, why) = (address.to_string(), error.to_string());
        let said = |text: &str| why.contains(text);
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Password(at),
            _ if said("WRONGPASS") || said("NOAUTH") || said("invalid password") || said("without any password") => {
                Self::Password(at)
            }
            _ if said("DB index") || said("invalid DB") => Self::Database(at),
            ErrorKind::MasterNameNotFoundBySentinel => Self::Form { address: at, why },
            _ if said("cluster support disabled") || said("not point to a sentinel") => Self::Form { address: at, why },
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Rights { address: at, why },
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::Replica(at),
            _ if said("NOPERM") => Self::Rights { address: at, why },
            _ if said("certificate") || said("InvalidContentType") || said("handshake") || said("corrupt message") => {
                Self::Tls { address: at, why }
            }
            _ if error.is_connection_refusal() => Self::Unreachable { address: at, why },
            // A server without TLS waits for the end of what it takes for a command, or hangs up.
            _ if address.is_tls() && (error.is_timeout() || error.is_connection_dropped() || said("timed out")) => {
                Self::Tls { address: at, why }
            }
            _ if !address.is_tls() && error.is_connection_dropped() => {
                Self::Unreachable { address: at, why: format!("{why}, as a TLS port does, which wants rediss://") }
            }
            _ => Self::Unreachable { address: at, why },
        }
    }
}

/// Asks the server (each primary of a Cluster) what it is, and refuses what would lose work. Returns what one of them said.
pub(super) async fn check(link: &Link, address: &RedisAddress, allow_eviction: bool) -> Result<String, OpenError> {
    let told = link.send_to_each(redis::cmd("INFO")).await.map_err(|error| OpenError::of(address, &error))?;
    let told: Vec<String> = told.iter().filter_map(text).collect();
    for info in &told {
        check_one(info, link, address, allow_eviction).await?;
    }
    Ok(told.into_iter().next().unwrap_or_default())
}

async fn check_one(info: &str, link: &Link, address: &RedisAddress, allow_eviction: bool) -> Result<(), OpenError> {
    let at = || address.to_string();
    if let Some(version) = field(info, "redis_version").filter(|version| is_too_old(version)) {
        return Err(OpenError::Version { address: at(), version: version.to_owned() });
    }
    let mode = field(info, "redis_mode").unwrap_or_default();
    if mode == "sentinel" || mode == "cluster" && !address.is_cluster() {
        return Err(OpenError::Form { address: at(), why: format!("it runs as a {mode}") });
    }
    if field(info, "role") == Some("slave") {
        return Err(OpenError::Replica(at()));
    }
    match field(info, "maxmemory_policy") {
        Some(policy) => judge(policy, address, allow_eviction),
        None => match configured(link).await {
            Some(policy) => judge(&policy, address, allow_eviction),
            None => {
                tracing::warn!(
                    redis = %address,
                    "Redis hides its maxmemory-policy; make sure that it is noeviction, or it forgets jobs when it is full"
                );
                Ok(())
            }
        },
    }
}

fn judge(policy: &str, address: &RedisAddress, allow_eviction: bool) -> Result<(), OpenError> {
    if policy == "noeviction" || allow_eviction {
        return Ok(());
    }
    Err(OpenError::Evicts { address: address.to_string(), policy: policy.to_owned() })
}

/// The policy by `CONFIG GET`; `None` where that is hidden or renamed, as hosted services do.
pub(super) async fn configured(link: &Link) -> Option<String> {
    setting(link, "maxmemory-policy").await
}

/// A setting by `CONFIG GET`, where that is allowed.
pub(super) async fn setting(link: &Link, name: &str) -> Option<String> {
    let asked = redis::cmd("CONFIG").arg("GET").arg(name).to_owned();
    let answer = link.send(&asked).await.ok()?;
    redis::from_redis_value::<Vec<String>>(answer).ok()?.into_iter().nth(1)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// A line `name:value` of `INFO`.
pub(super) fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_its_lines() {
        let info = "# Server\r\nredis_version:6.0.16\r\nrole:slave\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert_eq!(field(info, "redis_version"), Some("6.0.16"));
        assert_eq!(field(info, "maxmemory_policy"), Some("allkeys-lru"));
        assert_eq!(field(info, "maxmemory"), None);
        assert!(is_too_old("6.0.16") && is_too_old("5.9.1"));
        assert!(!is_too_old("6.2.0") && !is_too_old("7.0.15") && !is_too_old("255.255.255"));
    }
}
