//! Where Redis is, as an operator writes it.
//!
//! ```text
//! redis://[user:password@]host[:port][/db]                                   one server
//! rediss://...                                                              the same over TLS
//! redis+sentinel://[user:password@]host[:port][,host[:port]...]/name[/db]    the master `name` that Sentinels know
//! redis+cluster://[user:password@]host[:port][,host[:port]...]               a Redis Cluster
//! rediss+sentinel://..., rediss+cluster://...                               the same over TLS
//! ```
//!
//! User and password are percent-encoded and are those of the data servers. Sentinels that want a password get it as
//! `?sentinel_password=...` (and `&sentinel_user=...`), percent-encoded too. The default ports are 6379, and 26379 of
//! a Sentinel.

use std::fmt;

/// Most hosts in an address: more are a mistake, and each is tried in turn.
const HOSTS_MAX: usize = 64;

/// What is behind an address.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// One server.
    Single { url: String },
    /// A master that Sentinels know.
    Sentinel { sentinels: Vec<String>, name: String, data: String, tls: bool },
    /// The nodes of a Cluster to begin with.
    Cluster { nodes: Vec<String> },
}

/// A checked address. Its passwords are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    pub(super) place: Place,
    shown: String,
}

impl RedisAddress {
    /// Reads an address.
    ///
    /// # Errors
    /// Says what is wrong in one line, without repeating the address, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("a Redis address begins with redis://, rediss://, redis+sentinel:// or redis+cluster://".into());
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A `/` or `?` of a password that is not percent-encoded: the rest of it would be shown as a name.
        if path.contains('@') || query.contains('@') {
            return Err("an `@` stands behind the hosts of the Redis address: `/`, `?` and `@` of a password are \
                        percent-encoded"
                .into());
        }
        let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        let hosts: Vec<_> = hosts.split(',').filter(|host| !host.is_empty()).collect();
        if hosts.is_empty() || hosts.len() > HOSTS_MAX {
            return Err(format!("a Redis address names 1 to {HOSTS_MAX} hosts"));
        }
        let parts = Parts { login: &login, hosts: &hosts, path, query };
        let place = match scheme {
            "redis" | "rediss" => parts.single(scheme)?,
            "redis+sentinel" => parts.sentinel("redis")?,
            "rediss+sentinel" => parts.sentinel("rediss")?,
            "redis+cluster" => parts.cluster("redis")?,
            "rediss+cluster" => parts.cluster("rediss")?,
            _ => return Err("the scheme of a Redis address is redis, rediss, redis+sentinel or redis+cluster".into()),
        };
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { place, shown: format!("{scheme}://{}{path}", hosts.join(",")) })
    }
}

impl RedisAddress {
    pub(super) fn is_tls(&self) -> bool {
        self.shown.starts_with("rediss")
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.place, Place::Cluster { .. })
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

struct Parts<'t> {
    login: &'t str,
    hosts: &'t [&'t str],
    path: &'t str,
    query: &'t str,
}

impl Parts<'_> {
    fn single(&self, scheme: &str) -> Result<Place, String> {
        let [host] = self.hosts else {
            return Err("one server is one host; several are redis+sentinel:// or redis+cluster://".into());
        };
        self.options(&[])?;
        let url = format!("{scheme}://{}{host}/{}", self.login, self.path);
        valid(&url)?;
        Ok(Place::Single { url })
    }

    fn sentinel(&self, scheme: &str) -> Result<Place, String> {
        let (name, db) = self.path.split_once('/').unwrap_or((self.path, ""));
        if name.is_empty() {
            return Err(
                "a Sentinel address ends with the name of its master, as in redis+sentinel://host/mymaster".into()
            );
        }
        let options = self.options(&["sentinel_user", "sentinel_password"])?;
        let find = |key| options.iter().find(|(known, _)| *known == key).map_or("", |(_, value)| *value);
        let login = match (find("sentinel_user"), find("sentinel_password")) {
            ("", "") => String::new(),
            (user, password) => format!("{user}:{password}@"),
        };
        let sentinels = self.hosts.iter().map(|host| format!("{scheme}://{login}{}/", with_port(host, 26379)));
        let sentinels: Vec<_> = sentinels.collect();
        let data = format!("{scheme}://{}data/{db}", self.login);
        sentinels.iter().chain([&data]).try_for_each(|url| valid(url))?;
        Ok(Place::Sentinel { sentinels, name: name.to_owned(), data, tls: scheme == "rediss" })
    }

    fn cluster(&self, scheme: &str) -> Result<Place, String> {
        if !matches!(self.path, "" | "0") {
            return Err("a Redis Cluster has only database 0".into());
        }
        self.options(&[])?;
        let nodes: Vec<_> = self.hosts.iter().map(|host| format!("{scheme}://{}{host}/", self.login)).collect();
        nodes.iter().try_for_each(|url| valid(url))?;
        Ok(Place::Cluster { nodes })
    }

    fn options(&self, known: &[&str]) -> Result<Vec<(&str, &str)>, String> {
        let mut options = Vec::new();
        for part in self.query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((key, value)) if known.contains(&key) => options.push((key, value)),
                _ if known.is_empty() => return Err("this form of a Redis address takes no options behind `?`".into()),
                _ => return Err(format!("this form of a Redis address knows the options {}", known.join(", "))),
            }
        }
        Ok(options)
    }
}

fn with_port(host: &str, port: u16) -> String {
    let behind_address = host.rsplit(']').next().unwrap_or(host);
    if behind_address.contains(':') { host.to_owned() } else { format!("{host}:{port}") }
}

fn valid(url: &str) -> Result<(), String> {
    use redis::IntoConnectionInfo;
    // The library's words may repeat the address.
    url.into_connection_info().map(|_| ()).map_err(|_| {
        "the Redis address is not valid: check host, port, database number, and that the password is percent-encoded"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for text in [
            "redis://localhost",
            "redis://:p%40ss@localhost:6380/2",
            "rediss://user:secret@redis.example:6380/0",
            "redis+sentinel://:secret@a,b:26380/mymaster/1?sentinel_password=other",
            "rediss+sentinel://a/mymaster",
            "redis+cluster://user:secret@a:7001,b:7002",
        ] {
            let address = RedisAddress::parse(text).unwrap();
            assert!(!format!("{address} {address:?}").contains("secret"), "{address}");
        }
        let Place::Sentinel { sentinels, name, data, .. } =
            RedisAddress::parse("redis+sentinel://u:p@a,[::1]:5/m/3?sentinel_password=q").unwrap().place
        else {
            panic!("a Sentinel address");
        };
        assert_eq!(sentinels, ["redis://:q@a:26379/", "redis://:q@[::1]:5/"]);
        assert_eq!((name.as_str(), data.as_str()), ("m", "redis://u:p@data/3"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for text in [
            "",
            "localhost:6379",
            "http://secret@localhost",
            "redis://:secret@",
            "redis://:secret@a,b",
            "redis://:secret@localhost/secret",
            "redis://:secret@localhost:secret/0",
            "redis://:secret@localhost?secret=1",
            "redis+sentinel://:secret@a",
            "redis+cluster://:secret@a/4",
            "redis+cluster://:secret@a?tag=one",
            "redis+sentinel://user:6379/secret@a",
            "redis+sentinel://user:6379/m?sentinel_password=secret@a/mymaster",
        ] {
            let error = RedisAddress::parse(text).unwrap_err();
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }
}
