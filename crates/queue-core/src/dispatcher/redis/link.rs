//! The connection that commands go over: made when needed, dropped when it fails, made again with full jitter.
//!
//! No verb waits for a Redis that is away: while the pause after a failed connection lasts, every command fails at
//! once. Own code instead of the client's `ConnectionManager`, because that has no Sentinel form: after a failover the
//! master has to be asked for anew.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, ServerErrorKind,
    TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection, PubSub},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo},
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    RedisConfig,
    address::Place,
    library::{LIBRARY, Library},
};
use crate::dispatcher::DispatchError;

/// Longest pause between two attempts to connect: short enough that a Redis that is back is used within a moment.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest first pause; it doubles with every failure. The pause itself is anything between nothing and this.
const PAUSE_FIRST: Duration = Duration::from_millis(50);

enum Source {
    Single(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>, Vec<Client>),
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command).await?.extract_error(),
            Self::Cluster(connection) => connection.req_packed_command(command).await?.extract_error(),
        }
    }

    /// Sends to every primary of a Cluster, or to the one server.
    async fn send_to_all(&mut self, command: Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(&command).await?.extract_error(),
            Self::Cluster(connection) => {
                let all = MultipleNodeRoutingInfo::AllMasters;
                let routing = RoutingInfo::MultiNode((all, None));
                connection.route_command(command, routing).await?.extract_error()
            }
        }
    }
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Which connection this is, so that a late failure of an earlier one does not drop it.
    number: u64,
    failures: u32,
    not_before: Option<(Instant, String)>,
}

/// How long Redis may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    pub(crate) respond: Duration,
}

pub(crate) struct Link {
    source: Source,
    state: Mutex<State>,
    patience: Patience,
    /// What is called over it.
    library: &'static Library,
    /// Whether the server has Functions; found out at the first call.
    functions: AtomicBool,
}

impl Link {
    /// A link to the Redis of a configuration. Does not connect yet.
    pub(crate) fn of(config: &RedisConfig) -> RedisResult<Self> {
        let patience = Patience { connect: config.connect_timeout, respond: config.response_timeout };
        Self::new(&config.address.place, patience)
    }

    /// The same link for calls of another library than the dispatcher's.
    pub(crate) fn calling(self, library: &'static Library) -> Self {
        Self { library, ..self }
    }

    /// Does not connect yet.
    pub(super) fn new(place: &Place, patience: Patience) -> RedisResult<Self> {
        // The client takes the process' provider and panics when there is none. An error means that one is set.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let source = match place {
            Place::Single { url } => Source::Single(Box::new(Client::open(url.as_str())?)),
            Place::Sentinel { sentinels, name, data, tls } => {
                let settings = data.as_str().into_connection_info()?.redis_settings().clone();
                let mut node = SentinelNodeConnectionInfo::default().set_redis_connection_info(settings);
                if *tls {
                    node = node.set_tls_mode(TlsMode::Secure);
                }
                let sentinels = sentinels.iter().map(String::as_str).collect();
                let client = SentinelClient::build(sentinels, name.clone(), Some(node), SentinelServerType::Master)?;
                Source::Sentinel(Box::new(Mutex::new(client)))
            }
            Place::Cluster { nodes } => {
                let urls = nodes.iter().map(String::as_str);
                let client = ClusterClient::builder(urls)
                    .connection_timeout(patience.connect)
                    .response_timeout(patience.respond)
                    .retries(3)
                    .build()?;
                let each = nodes.iter().map(|url| Client::open(url.as_str())).collect::<RedisResult<_>>()?;
                Source::Cluster(Box::new(client), each)
            }
        };
        Ok(Self { source, state: Mutex::default(), patience, library: &LIBRARY, functions: AtomicBool::new(true) })
    }

    /// Whether a server knows who listens: in a Cluster each node only knows its own listeners.
    pub(super) fn sees_closed_connections(&self) -> bool {
        !matches!(self.source, Source::Cluster(..))
    }

    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let Patience { connect, respond } = self.patience;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(Some(respond));
        match &self.source {
            Source::Single(client) => {
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
            }
            Source::Sentinel(client) => {
                client.lock().await.get_async_connection_with_config(&config).await.map(Connection::One)
            }
            Source::Cluster(client, _) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }

    /// A connection for messages. The messages of a Cluster reach every node.
    pub(crate) async fn messages(&self) -> RedisResult<PubSub> {
        let connect = async {
            match &self.source {
                Source::Single(client) => client.get_async_pubsub().await,
                Source::Sentinel(client) => {
                    let master = client.lock().await.async_get_client().await?;
                    master.get_async_pubsub().await
                }
                Source::Cluster(_, nodes) => {
                    let mut result =
                        Err((ErrorKind::ClusterConnectionNotFound, "no node of the Cluster answers").into());
                    for node in nodes {
                        match timeout(self.patience.connect, node.get_async_pubsub()).await {
                            Ok(Ok(messages)) => return Ok(messages),
                            Ok(Err(error)) => result = Err(error),
                            Err(_) => {}
                        }
                    }
                    result
                }
            }
        };
        // Sentinels are asked one after the other, and so are nodes: each has its own time.
        timeout(self.patience.connect * 4, connect).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// A connection, and its number.
    async fn connection(&self) -> RedisResult<(Connection, u64)> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.number));
        }
        if let Some((until, why)) = &state.not_before
            && Instant::now() < *until
        {
            return Err((ErrorKind::Io, "the connection is down", why.clone()).into());
        }
        let connected = timeout(self.patience.connect * 4, self.connect()).await.unwrap_or_else(|_| Err(too_slow()));
        match connected {
            Ok(connection) => {
                state.number += 1;
                (state.failures, state.not_before) = (0, None);
                state.connection = Some(connection.clone());
                Ok((connection, state.number))
            }
            Err(error) => {
                let pause = pause_after(state.failures);
                state.failures = state.failures.saturating_add(1);
                state.not_before = Some((Instant::now() + pause, error.to_string()));
                Err(error)
            }
        }
    }

    async fn fail(&self, number: u64, error: &RedisError) {
        let server = match error.kind() {
            ErrorKind::Server(kind) => Some(kind),
            _ => None,
        };
        // A master that became a replica is no longer the one to talk to.
        let moved = matches!(server, Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown));
        if server.is_some() && !moved {
            return;
        }
        let mut state = self.state.lock().await;
        // A Cluster's connection mends itself, node by node.
        if state.number == number && !matches!(state.connection, Some(Connection::Cluster(_))) {
            state.connection = None;
        }
    }

    /// Sends one command.
    pub(crate) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let (mut connection, number) = self.connection().await?;
        let sent = timeout(self.patience.respond, connection.send(command)).await;
        let answer = sent.unwrap_or_else(|_| Err(too_slow()));
        if let Err(error) = &answer {
            self.fail(number, error).await;
        }
        answer
    }

    /// Sends one command to every primary.
    pub(super) async fn send_to_all(&self, command: Cmd) -> RedisResult<Value> {
        let (mut connection, number) = self.connection().await?;
        let sent = timeout(self.patience.respond, connection.send_to_all(command)).await;
        let answer = sent.unwrap_or_else(|_| Err(too_slow()));
        if let Err(error) = &answer {
            self.fail(number, error).await;
        }
        answer
    }

    /// Sends one command to every primary, and returns what each answered.
    pub(super) async fn send_to_each(&self, command: Cmd) -> RedisResult<Vec<Value>> {
        Ok(match self.send_to_all(command).await? {
            Value::Map(answers) => answers.into_iter().map(|(_, answer)| answer).collect(),
            answer => vec![answer],
        })
    }

    /// Calls the library. One that is not there (a new server, or one that restarted empty) is loaded first.
    pub(crate) async fn call(&self, keys: &[&str], args: &[Vec<u8>]) -> RedisResult<Value> {
        match self.send(&self.invocation(keys, args)).await {
            Err(error) if is_unloaded(&error) => {
                self.load().await?;
                self.send(&self.invocation(keys, args)).await
            }
            answer => answer,
        }
    }

    fn invocation(&self, keys: &[&str], args: &[Vec<u8>]) -> Cmd {
        let mut command = if self.functions.load(Ordering::Relaxed) {
            redis::cmd("FCALL").arg(&self.library.name).to_owned()
        } else {
            redis::cmd("EVALSHA").arg(self.library.script.get_hash()).to_owned()
        };
        command.arg(keys.len()).arg(keys).arg(args).to_owned()
    }

    /// Loads the library as a Function, or as a script where there are no Functions or no right to them.
    pub(super) async fn load(&self) -> RedisResult<()> {
        let load = redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(&self.library.function).to_owned();
        match self.send_to_all(load).await {
            Ok(_) => {
                self.functions.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if lacks_functions(&error) => {
                self.functions.store(false, Ordering::Relaxed);
                let load = redis::cmd("SCRIPT").arg("LOAD").arg(&self.library.script_text).to_owned();
                self.send_to_all(load).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }
}

fn too_slow() -> RedisError {
    (ErrorKind::Io, "Redis did not answer in time").into()
}

/// Full jitter: anything between nothing and a bound that doubles.
pub(crate) fn pause_after(failures: u32) -> Duration {
    let bound = PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    bound.mul_f64(rand::random::<f64>())
}

fn is_unloaded(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        || error
            .detail()
            .is_some_and(|detail| detail.contains("Function not found") || detail.contains("unknown command"))
}

fn lacks_functions(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.detail().is_some_and(|detail| detail.contains("unknown command"))
}

/// What the verbs return for a failure. `LSGEN` is the library's own error.
pub(crate) fn failure(error: &RedisError) -> DispatchError {
    if error.code() == Some("LSGEN") {
        return DispatchError::WrongGeneration;
    }
    DispatchError::Unavailable(error.to_string())
}
