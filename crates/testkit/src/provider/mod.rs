//! A provider that speaks the OpenAI wire, written on bare TCP: below HTTP libraries one can send half a head, lie
//! about lengths and reset connections.

mod answer;
mod behaviour;
mod door;
mod schema;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

pub use behaviour::{Behaviour, Hold, Stream, UsageForm, Vectors};
pub use door::{Allowance, Tally};

use door::{Door, Entry};

use crate::http::{self, Client, Request};

/// Longest wait of [`MockProvider::until`]: a test that needs longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A call as the provider saw it.
#[derive(Clone, Debug, Default)]
pub struct SeenCall {
    /// The path, e.g. `/v1/chat/completions`.
    pub path: String,
    /// The `X-Client-Request-Id` header: which call of which job this is.
    pub call_id: Option<String>,
    /// The `Idempotency-Key` header.
    pub idempotency_key: Option<String>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// Every header, with its name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The model that was asked for.
    pub model: String,
    /// The request; `Null` where it was not JSON.
    pub body: Value,
    /// Hash of the request's bytes: equal requests have equal hashes.
    pub body_hash: u64,
    /// The status that was sent; 0 while nothing has been.
    pub status: u16,
    /// Whether a whole and usable answer went out: what a real provider bills.
    pub answered: bool,
    /// Whether the client left before the answer was whole.
    pub dropped: bool,
}

impl SeenCall {
    /// Tokens of prompt and answer, as an honest answer to this chat call tells them.
    pub fn honest_usage(&self) -> (u64, u64) {
        answer::honest_usage(&self.body)
    }
}

/// Decides about each call and sees its end: for a load that is too large to be kept in memory.
pub trait Director: Send + Sync {
    /// A call has arrived: how long it takes and what becomes of it. Calls are numbered from 0 as they arrive.
    fn began(&self, number: u64, call: &SeenCall) -> (Duration, Behaviour);
    /// It is over: `answered` and `dropped` say how.
    fn ended(&self, number: u64, call: &SeenCall);
}

/// A throw-away provider on a port of its own; it ends with this value.
pub struct MockProvider {
    state: Arc<State>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

struct State {
    calls: Mutex<Vec<SeenCall>>,
    changed: watch::Sender<()>,
    script: Mutex<VecDeque<Behaviour>>,
    door: Mutex<Door>,
    /// Calls that are worked on at once; the others wait in line.
    at_once: Mutex<Arc<Semaphore>>,
    latency_ms: AtomicU64,
    token_ms: AtomicU64,
    connections: AtomicU64,
    director: Option<Arc<dyn Director>>,
    directed: AtomicU64,
}

impl MockProvider {
    /// A provider that answers at once.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// A provider that does with each call what `director` says, and keeps none: [`MockProvider::calls`] stays empty.
    pub async fn start_directed(director: Arc<dyn Director>) -> Self {
        Self::start_with(Some(director)).await
    }

    async fn start_with(director: Option<Arc<dyn Director>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            calls: Mutex::default(),
            changed: watch::Sender::new(()),
            script: Mutex::default(),
            door: Mutex::default(),
            at_once: Mutex::new(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))),
            latency_ms: AtomicU64::new(0),
            token_ms: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            director,
            directed: AtomicU64::new(0),
        });
        let serving = tokio::spawn(serve(listener, state.clone()));
        Self { state, address, serving }
    }

    /// Its base URL, ending in `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Waits this long before each answer.
    pub fn set_latency_ms(&self, ms: u64) {
        self.state.latency_ms.store(ms, Ordering::SeqCst);
    }

    /// Works on so many calls at once; others that were let in wait in line, as they do inside a server.
    pub fn set_calls_at_once(&self, calls: usize) {
        *locked(&self.state.at_once) = Arc::new(Semaphore::new(calls));
    }

    /// Waits this long between two tokens of a stream.
    pub fn set_token_ms(&self, ms: u64) {
        self.state.token_ms.store(ms, Ordering::SeqCst);
    }

    /// How the next calls are treated, one each; after them, and before, as the model's name says (see
    /// [`Behaviour::of_model`]), else with an answer.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        locked(&self.state.script).extend(behaviours);
    }

    /// Lets each key in as far as `allowance` says, from now on and with full buckets; nothing is counted yet. `None`: everybody.
    /// Also over HTTP: `POST /admin/door` with `{"requests_per_minute","tokens_per_minute","burst_s"}`, `{"pause_s"}` or
    /// `{"unpaid"}`; `GET` tells what [`MockProvider::tally`] does.
    pub fn enforce(&self, allowance: Option<Allowance>) {
        locked(&self.state.door).set(allowance);
    }

    /// The next call is refused with `Retry-After`, and so is every other until then.
    pub fn pause_next(&self, pause: Duration) {
        locked(&self.state.door).pause_next(pause);
    }

    /// Whether every call is refused for want of money.
    pub fn set_unpaid(&self, unpaid: bool) {
        locked(&self.state.door).set_unpaid(unpaid);
    }

    /// Who was let in since the last [`MockProvider::enforce`].
    pub fn tally(&self) -> Tally {
        locked(&self.state.door).tally.clone()
    }

    /// Every call for an answer so far, in the order of arrival. Lists of models and health are not counted.
    pub fn calls(&self) -> Vec<SeenCall> {
        locked(&self.state.calls).clone()
    }

    /// How many calls got a whole answer.
    pub fn answered(&self) -> usize {
        locked(&self.state.calls).iter().filter(|call| call.answered).count()
    }

    /// How many connections have been made.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How often each call was answered, by call id: more than once means that somebody paid twice.
    pub fn charges(&self) -> BTreeMap<String, usize> {
        let mut charges = BTreeMap::new();
        for call in locked(&self.state.calls).iter().filter(|call| call.answered) {
            *charges.entry(call.call_id.clone().unwrap_or_default()).or_default() += 1;
        }
        charges
    }

    /// Waits until `holds` is true of the calls.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&[SeenCall]) -> bool) {
        let mut changed = self.state.changed.subscribe();
        let wait = async {
            while !holds(&self.calls()) {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "waited in vain until {what}: {:?}", self.calls());
    }
}

impl Drop for MockProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl State {
    fn next_behaviour(&self, model: &str) -> Behaviour {
        locked(&self.script).pop_front().or_else(|| Behaviour::of_model(model)).unwrap_or(Behaviour::Answer)
    }

    fn enter(&self, call: &SeenCall) -> Entry {
        let key = call.authorization.as_deref().unwrap_or_default();
        locked(&self.door).enter(key, &call.body, call.path.ends_with("/embeddings"), Instant::now())
    }

    /// Notes a call and returns its number.
    fn see(&self, call: SeenCall) -> usize {
        let mut calls = locked(&self.calls);
        calls.push(call);
        let number = calls.len() - 1;
        drop(calls);
        self.changed.send_replace(());
        number
    }

    fn note(&self, number: usize, change: impl FnOnce(&mut SeenCall)) {
        change(&mut locked(&self.calls)[number]);
        self.changed.send_replace(());
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap()
}

/// Connections end with the listener: they belong to its task.
async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        while connections.try_join_next().is_some() {}
        connections.spawn(converse(socket, state.clone()));
    }
}

/// Answers the requests of one connection until either side leaves it.
async fn converse(socket: TcpStream, state: Arc<State>) {
    let _ = socket.set_nodelay(true);
    let mut client = Client::new(socket);
    while let Some(request) = client.request().await {
        let stays = match request.path.as_str() {
            "/v1/chat/completions" | "/v1/embeddings" => answer_call(&mut client, &state, &request).await,
            "/v1/models" => client.json(200, &[], r#"{"object":"list","data":[{"id":"mock-chat"}]}"#).await,
            "/admin/door" => administer(&mut client, &state, &request).await,
            "/health" => client.json(200, &[], r#"{"status":"ok"}"#).await,
            _ => client.json(404, &[], r#"{"error":{"message":"no such path","type":"invalid_request_error"}}"#).await,
        };
        if stays.is_err() {
            return;
        }
    }
}

async fn answer_call(client: &mut Client, state: &State, request: &Request) -> Result<(), http::Gone> {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let model = body.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
    let header = |name: &str| request.headers.get(name).cloned();
    let call = SeenCall {
        path: request.path.clone(),
        call_id: header("x-client-request-id"),
        idempotency_key: header("idempotency-key"),
        authorization: header("authorization"),
        headers: request.headers.clone(),
        model,
        body_hash: answer::hash_of(&request.body),
        body: body.clone(),
        ..SeenCall::default()
    };
    if let Some(director) = &state.director {
        return answer_directed(client, state, director.as_ref(), call).await;
    }
    let entry = state.enter(&call);
    let behaviour = match &entry {
        Entry::Refused(refusal) => refusal.clone(),
        Entry::Admitted(_) => state.next_behaviour(&call.model),
    };
    let number = state.see(call);
    let latency = Duration::from_millis(state.latency_ms.load(Ordering::SeqCst));
    let began = |status| state.note(number, |call| call.status = status);
    let treated = Treated { latency: entry.latency(latency), behaviour, limits: entry.headers() };
    let ended = act(client, state, &request.path, &body, treated, &began).await;
    state.note(number, |call| mark_end(call, &ended));
    after(ended)
}

async fn answer_directed(
    client: &mut Client,
    state: &State,
    director: &dyn Director,
    mut call: SeenCall,
) -> Result<(), http::Gone> {
    let number = state.directed.fetch_add(1, Ordering::SeqCst);
    let entry = state.enter(&call);
    let (latency, directed) = director.began(number, &call);
    let behaviour = match &entry {
        Entry::Refused(refusal) => refusal.clone(),
        Entry::Admitted(_) => directed,
    };
    let treated = Treated { latency: entry.latency(latency), behaviour, limits: entry.headers() };
    let status = AtomicU16::new(0);
    let began = |sent| status.store(sent, Ordering::SeqCst);
    let ended = act(client, state, &call.path, &call.body, treated, &began).await;
    call.status = status.into_inner();
    mark_end(&mut call, &ended);
    director.ended(number, &call);
    after(ended)
}

async fn act(
    client: &mut Client,
    state: &State,
    path: &str,
    body: &Value,
    treated: Treated<'_>,
    began: &(dyn Fn(u16) + Send + Sync),
) -> Result<behaviour::Ended, http::Gone> {
    let pace = Duration::from_millis(state.token_ms.load(Ordering::SeqCst));
    let at_once = locked(&state.at_once).clone();
    // Never closed. A client that leaves while it waits in line is noticed when its turn comes.
    let _turn = at_once.acquire().await.map_err(|_| http::Gone)?;
    client.wait(treated.latency).await?;
    treated.behaviour.act(client, path, body, pace, treated.limits, began).await
}

/// What becomes of a call.
struct Treated<'a> {
    latency: Duration,
    behaviour: Behaviour,
    limits: &'a [(String, String)],
}

impl Entry {
    /// A refusal comes at once.
    fn latency(&self, of_answers: Duration) -> Duration {
        if matches!(self, Self::Admitted(_)) { of_answers } else { Duration::ZERO }
    }

    fn headers(&self) -> &[(String, String)] {
        if let Self::Admitted(headers) = self { headers } else { &[] }
    }
}

async fn administer(client: &mut Client, state: &State, request: &Request) -> Result<(), http::Gone> {
    let told = match serde_json::from_slice::<Value>(&request.body) {
        Ok(order) => door::told(&mut locked(&state.door), &order),
        // Without an order: only a look.
        Err(_) if request.body.is_empty() => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    let (status, text) = match told {
        Ok(()) => (200, door::tell(&locked(&state.door).tally).to_string()),
        Err(reason) => (400, serde_json::json!({"error": {"message": reason}}).to_string()),
    };
    client.json(status, &[], &text).await
}

fn mark_end(call: &mut SeenCall, ended: &Result<behaviour::Ended, http::Gone>) {
    match ended {
        Ok(behaviour::Ended::Answered) => call.answered = true,
        Ok(behaviour::Ended::Unanswered | behaviour::Ended::Closed) => {}
        Err(http::Gone) => call.dropped = true,
    }
}

fn after(ended: Result<behaviour::Ended, http::Gone>) -> Result<(), http::Gone> {
    match ended? {
        behaviour::Ended::Closed => Err(http::Gone),
        behaviour::Ended::Answered | behaviour::Ended::Unanswered => Ok(()),
    }
}
