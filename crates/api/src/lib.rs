//! The HTTP API: submit, watch, steer and count jobs. Every rejection is an RFC 9457 problem document.
//!
//! It holds no state of its own that matters: a request reads and writes the journal and tells the dispatcher. It
//! never calls a provider and never runs a job. `surface.md` in the design names the routes; `/openapi.json` is
//! generated from this code.

mod access;
mod app;
mod audit;
mod auth;
mod backlog;
mod body;
mod connections;
mod fields;
mod head;
mod headers;
mod health;
mod history;
mod idempotency;
mod json;
mod lately;
mod maintenance;
mod monitor;
mod observe;
mod pace;
mod pages;
mod params;
mod policy;
mod problem;
mod replay;
mod request_limits;
mod routes;
mod serve;
mod settings;
mod shape;
mod signing;
mod stream;
mod submit;
mod ticks;
mod tls;
mod tokens;
mod traced;
mod view;
mod waiters;

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use queue_core::{
    budget::Known,
    credentials::Credentials,
    egress::Allowed,
    ledger::PriceBook,
    limiter::{InForce, Limiter},
    progress::Pulse,
    request_limits::{RequestLimits, Rules},
    retention::Policy,
    route::Routes,
    stores::{Check, Stores},
    upkeep::{Thresholds, Window},
};
use tokio_util::sync::CancellationToken;

pub use monitor::{Monitor, serve_monitor};
pub use pages::{Beside, Pages};
pub use routes::openapi;
pub use serve::{router, serve};
pub use ticks::Clerk;
pub use tls::Tls;
pub use tokens::{Issuer, IssuerRules, SigningKeys, Tokens};

/// Everything that the API works with.
#[derive(Clone)]
pub struct Api {
    /// The stores.
    pub stores: Stores,
    /// Who serves which model: decides a job's target at submit.
    pub routes: Arc<Routes>,
    /// Windows of known models: a prompt that cannot fit is refused at submit.
    pub prices: Arc<PriceBook>,
    /// How targets stand.
    pub limiter: Arc<dyn Limiter>,
    /// What they may take.
    pub limits: Arc<InForce>,
    /// How often keys and tenants may ask.
    pub request_limits: Arc<dyn RequestLimits>,
    /// Whose key a call is made with.
    pub credentials: Arc<Credentials>,
    /// Whose tokens are believed besides keys.
    pub tokens: Arc<Tokens>,
    /// The certificate that is shown; plain text where there is none.
    pub tls: Option<Arc<Tls>>,
    /// What may be spent: a job that cannot fit is refused at submit.
    pub budgets: Arc<Known>,
    /// Whether calls whose price nobody knows are refused where money is limited.
    pub refuse_unpriced: bool,
    /// Things outside that `/health` reports on, each by its name.
    pub checks: Vec<Arc<dyn Check>>,
    /// What `/metrics` renders: the handle of the recorder that the process installed.
    pub metrics: PrometheusHandle,
    /// Whether this process still works: `/livez` is 200 while none of these stands still.
    pub loops: Vec<Arc<Pulse>>,
    /// Fires some time before the server stops: from then on `/readyz` sends clients elsewhere, and each answer ends its connection.
    pub leaving: CancellationToken,
    /// What is served beside the API, such as the dashboard.
    pub pages: Option<Pages>,
    /// Bounds and switches.
    pub settings: Settings,
}

/// Bounds and switches of the API.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether jobs of kind `probe` are accepted.
    pub probe_jobs: bool,
    /// Whether those may end or block the worker that runs them, or take its memory.
    pub probe_faults: bool,
    /// Pages of these origins (`https://app.example`) may call, with a key that they send themselves.
    pub cors_origins: Vec<String>,
    /// Largest body of a bulk submit, in bytes.
    pub max_body_bytes: usize,
    /// Largest payload of one job, in bytes.
    pub max_job_bytes: usize,
    /// How long the server waits for its clients, and for how many.
    pub bounds: Bounds,
    /// Time after which every process obeys a tenant's new credential policy: the answer to whoever sets it waits so long.
    /// Nothing where this process is alone.
    pub policy_settles: Duration,
    /// How often keys and tenants may ask for whom nothing was set: any number, unless it says something.
    pub request_limits: Rules,
    /// Where URLs that users name may lead.
    pub outbound: Allowed,
    /// Whether a place for backups is configured, so that schedulers make them.
    pub backups: bool,
    /// How long what is kept, as the schedulers are told, too.
    pub retention: Policy,
    /// When the journal is looked after, likewise.
    pub window: Window,
    /// Whether an operator has named that window: then it is announced.
    pub announces_window: bool,
    /// When a chore of its upkeep is due, likewise.
    pub upkeep: Thresholds,
    /// The version that `/health` and `/openapi.json` name.
    pub version: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            probe_jobs: false,
            probe_faults: false,
            cors_origins: Vec::new(),
            max_body_bytes: 32 * 1024 * 1024,
            max_job_bytes: 1024 * 1024,
            bounds: Bounds::default(),
            policy_settles: Duration::ZERO,
            request_limits: Rules::default(),
            outbound: Allowed::default(),
            backups: false,
            retention: Policy::default(),
            window: Window::default(),
            announces_window: false,
            upkeep: Thresholds::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// How long the server waits for its clients, and for how many.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Most connections that are open at once. One more gets 503 and is closed.
    pub connections_max: usize,
    /// Longest time until the head of a request has arrived whole, counted from the connection or from the answer before:
    /// it ends connections that are kept alive and not used. Also the longest time for which an answer waits to be read.
    pub head_max: Duration,
    /// Longest time for what a client has begun: a handshake, a head, a pause within a body (408 after it).
    pub slow_max: Duration,
    /// Longest time for a body to arrive whole; 408 after it.
    pub body_max: Duration,
    /// Silence after which an event stream sends a comment, so that nothing between here and the reader takes it for
    /// dead.
    pub heartbeat: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // Twice as many as may stream or poll: those cannot keep short requests out.
            connections_max: 8_192,
            // Longer than load balancers keep an idle connection (60 s is usual): else they would send a request into
            // one that is being closed.
            head_max: Duration::from_secs(75),
            // What is sent at all is sent at once; this is several lost packets in a row.
            slow_max: Duration::from_secs(10),
            // 32 MiB at 5 Mbit/s.
            body_max: Duration::from_secs(60),
            // Proxies and the like give up after 30 s or more.
            heartbeat: Duration::from_secs(15),
        }
    }
}
