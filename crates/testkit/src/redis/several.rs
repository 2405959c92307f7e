//! Servers that belong together: a Cluster of three primaries, and a primary with a replica and a Sentinel.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::{RedisServer, free_port};

/// Hash slots of a Cluster.
const SLOTS: u32 = 16_384;
/// Longest wait until servers have found each other; it takes a second or two.
const AGREE_MAX: Duration = Duration::from_secs(30);
/// Name of the primary that the Sentinel watches.
const NAME: &str = "longshore";

/// Three primaries that share the hash slots.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts it, and waits until every node takes commands.
    pub fn start() -> Self {
        let ready = "Ready to accept connections";
        let start = |_| {
            let bus = free_port();
            let server = RedisServer::start_as(ready, |_, _| {
                let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port"];
                options.map(str::to_owned).into_iter().chain([bus.to_string()]).collect()
            });
            (server, bus)
        };
        let started: Vec<_> = (0..3).map(start).collect();
        let part = SLOTS.div_ceil(started.len() as u32);
        for (n, (node, _)) in started.iter().enumerate() {
            let first = n as u32 * part;
            let last = (first + part).min(SLOTS) - 1;
            let given = node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            assert_eq!(given, "+OK");
        }
        let (seed, bus) = &started[0];
        for (node, _) in &started[1..] {
            let met = node.command(&["CLUSTER", "MEET", "127.0.0.1", &seed.port().to_string(), &bus.to_string()]);
            assert_eq!(met, "+OK");
        }
        let nodes: Vec<_> = started.into_iter().map(|(node, _)| node).collect();
        until("the Cluster does not come about", || {
            nodes.iter().all(|node| {
                let info = node.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
        });
        Self { nodes }
    }

    /// Its address.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }
}

/// A primary, its replica, and a Sentinel that watches them.
#[derive(Debug)]
pub struct RedisSentinel {
    sentinel: RedisServer,
    primary: RedisServer,
    _replica: RedisServer,
}

impl RedisSentinel {
    /// Starts them, and waits until the Sentinel knows both.
    pub fn start() -> Self {
        let primary = RedisServer::start();
        let port = primary.port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
        let sentinel = RedisServer::start_as("+monitor master", |own, folder| {
            let file = folder.join("sentinel.conf");
            let text = format!(
                "port {own}\nsentinel monitor {NAME} 127.0.0.1 {port} 1\nsentinel down-after-milliseconds {NAME} 1000\n\
                 sentinel failover-timeout {NAME} 5000\n"
            );
            std::fs::write(&file, text).expect("the Sentinel's file cannot be written");
            vec![file.to_string_lossy().into_owned(), "--sentinel".into()]
        });
        let all = Self { sentinel, primary, _replica: replica };
        until("the replica does not come about", || {
            all.primary.command(&["INFO", "replication"]).contains("state=online")
                && all.sentinel.command(&["INFO", "sentinel"]).contains("slaves=1")
        });
        all
    }

    /// Their address.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{NAME}", self.sentinel.port())
    }

    /// Makes the replica the primary, and waits until the Sentinel says so.
    pub fn fail_over(&self) {
        // Refused for a moment after the start, until the Sentinel has heard of the replica's health.
        until("the Sentinel does not fail over", || self.sentinel.command(&["SENTINEL", "FAILOVER", NAME]) == "+OK");
        let was = format!("address=127.0.0.1:{},", self.primary.port());
        until("the failover does not end", || !self.sentinel.command(&["INFO", "sentinel"]).contains(&was));
    }
}

/// Waits for a state that nobody tells of.
fn until(failure: &str, mut is_there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < AGREE_MAX, "{failure}");
        sleep(Duration::from_millis(20));
    }
}
