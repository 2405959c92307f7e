//! Stores that cannot be worked with: each is one line that says what to do, exit code 2, and nothing else.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

use crate::installation::refused;
use testkit::{PostgresServer, RedisSentinel, RedisServer};

/// Fine in every row that is not about it.
struct Fine {
    journal: String,
    redis: RedisServer,
}

impl Fine {
    fn new() -> Self {
        let journal = PostgresServer::shared().database();
        let migrate = ["migrate", "--journal", &journal];
        let done = Command::new(env!("CARGO_BIN_EXE_longshore")).args(migrate).env_clear().output().unwrap();
        assert!(done.status.success(), "{done:?}");
        Self { journal, redis: RedisServer::start() }
    }

    /// Every verb that opens stores refuses this journal in the same words.
    fn journal_is_refused(&self, case: &str, journal: &str, words: &[&str]) {
        let redis = self.redis.url();
        for verb in [&["serve", "api"][..], &["serve", "worker"], &["serve", "scheduler"], &["up"]] {
            let line = refused(&[verb, &["--journal", journal, "--dispatcher", &redis]].concat(), &[]);
            assert_words(case, &line, words);
        }
    }

    /// Likewise for a dispatcher.
    fn dispatcher_is_refused(&self, case: &str, dispatcher: &str, words: &[&str]) {
        for verb in [&["serve", "worker"][..], &["up"]] {
            let line = refused(&[verb, &["--journal", &self.journal, "--dispatcher", dispatcher]].concat(), &[]);
            assert_words(case, &line, words);
        }
    }
}

fn assert_words(case: &str, line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{case}: `{word}` is not in\n{line}");
    }
}

#[test]
fn a_postgres_that_cannot_be_worked_with_says_what_to_do() {
    let (server, fine) = (PostgresServer::shared(), Fine::new());
    let name = fine.journal.rsplit('/').next().unwrap();
    server.run(name, "CREATE ROLE reader LOGIN PASSWORD 'right'; CREATE ROLE nobody_knows LOGIN");
    server.run(name, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader");
    let as_reader = |password: &str| format!("postgres://reader:{password}@127.0.0.1:{}/{name}", server.port());
    let standby = PostgresServer::start_standby();
    let rows = [
        ("nobody there", "postgres://u:hidden@127.0.0.1:1/none".to_owned(), &["127.0.0.1:1", "start it"][..]),
        ("wrong password", as_reader("hidden"), &["refuses the login", "correct the user and password"]),
        ("wrong database", server.url("nowhere"), &["nowhere", "createdb"]),
        ("no TLS there", format!("{}?sslmode=require", fine.journal), &["TLS", "sslmode"]),
        ("a standby", standby.url("postgres"), &["only reads", "primary"]),
        (
            "only reads",
            format!("{}?options=-cdefault_transaction_read_only=on", fine.journal),
            &["only reads", "primary"],
        ),
        ("old", of_an_old_postgres(server), &["13.12 is too old", "14"]),
        ("not an address", "postgres://u:hidden@127.0.0.1:port/none".to_owned(), &["postgres://user:password@host"]),
    ];
    for (case, journal, words) in rows {
        fine.journal_is_refused(case, &journal, words);
    }
    // `up` migrates, for which it needs other rights.
    let stores = ["--journal", &as_reader("right"), "--dispatcher", &fine.redis.url()];
    for role in ["api", "worker", "scheduler"] {
        assert_words(
            "may not write",
            &refused(&[&["serve", role], &stores[..]].concat(), &[]),
            &["lacks rights", "grant"],
        );
    }
    let empty = server.database();
    let empty_as_reader = as_reader("right").replace(name, empty.rsplit('/').next().unwrap());
    let line = refused(&["up", "--journal", &empty_as_reader], &[]);
    assert_words("may not create", &line, &["lacks rights", "grant"]);
}

/// A database in which Postgres tells an old version.
fn of_an_old_postgres(server: &PostgresServer) -> String {
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    server.run(
        name,
        "CREATE SCHEMA old;
         CREATE FUNCTION old.current_setting(asked text) RETURNS text LANGUAGE sql AS $$
             SELECT CASE asked WHEN 'server_version_num' THEN '130012' WHEN 'server_version' THEN '13.12'
                               ELSE pg_catalog.current_setting(asked) END $$;",
    );
    server.run(name, &format!("ALTER DATABASE {name} SET search_path = old, pg_catalog, public"));
    url
}

#[test]
fn a_redis_that_cannot_be_worked_with_says_what_to_do() {
    let fine = Fine::new();
    let reader = ["--user", "reader", "on", ">right", "~*", "&*", "+@read", "+@connection", "+info"];
    let locked = RedisServer::start_with(&[&["--requirepass", "right"], &reader[..]].concat());
    let port = locked.port();
    let primary = fine.redis.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &primary]);
    let evicting = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let sentinel = RedisSentinel::start();
    let bus = free_port().to_string();
    let node = RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let folder = tempfile::tempdir().unwrap();
    let (_with_tls, tls_port) = redis_with_tls(folder.path());
    let plain = fine.redis.port();
    let rows = [
        ("nobody there", "redis://:hidden@127.0.0.1:1".to_owned(), &["127.0.0.1:1", "cannot be reached"][..]),
        ("no password", format!("redis://127.0.0.1:{port}"), &["user name or password"]),
        ("wrong password", format!("redis://:hidden@127.0.0.1:{port}"), &["user name or password"]),
        ("a password where none is", format!("redis://:hidden@127.0.0.1:{plain}"), &["user name or password"]),
        ("wrong database", format!("redis://127.0.0.1:{plain}/99"), &["no database of that number"]),
        ("missing rights", format!("redis://reader:right@127.0.0.1:{port}"), &["ACL SETUSER"]),
        ("TLS to a plain port", format!("rediss://127.0.0.1:{plain}"), &["TLS"]),
        ("plain to a TLS port", format!("redis://127.0.0.1:{tls_port}"), &["rediss://"]),
        ("an unknown certificate", format!("rediss://127.0.0.1:{tls_port}"), &["TLS", "certificate"]),
        ("a replica", replica.url(), &["read-only replica", "primary"]),
        ("evicts", evicting.url(), &["allkeys-lru", "noeviction"]),
        ("old", of_an_old_redis(plain), &["5.0", "6.2"]),
        ("no Cluster", format!("redis+cluster://127.0.0.1:{plain}"), &["write redis:// for one server"]),
        ("a Cluster", node.url(), &["redis+cluster:// for a Cluster"]),
        ("no Sentinel", format!("redis+sentinel://127.0.0.1:{plain}/mymaster"), &["redis+sentinel://host/master"]),
        ("an unknown master", sentinel.url().replace("/longshore", "/other"), &["redis+sentinel://host/master"]),
        ("not an address", "redis://:hidden@127.0.0.1:port".to_owned(), &["not valid"]),
    ];
    for (case, dispatcher, words) in rows {
        fine.dispatcher_is_refused(case, &dispatcher, words);
    }
}

/// A Redis that speaks TLS with a certificate that nobody trusts, and its port.
fn redis_with_tls(folder: &Path) -> (RedisServer, u16) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = free_port();
    let options = ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let more = ["--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"];
    (RedisServer::start_with(&[&options[..], &more].concat()), port)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A Redis that tells an old version: a real one behind a wire that changes one number.
fn of_an_old_redis(port: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || carry(client, to_server));
            thread::spawn(move || carry(server, to_client));
        }
    });
    url
}

/// The version stands in the first bytes of its answer, and its length stays.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let version = b"redis_version:";
    let mut bytes = [0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let bytes = &mut bytes[..read];
        if let Some(at) = bytes.windows(version.len()).position(|window| window == version) {
            bytes[at + version.len()] = b'5';
        }
        if to.write_all(bytes).is_err() {
            return;
        }
    }
}
