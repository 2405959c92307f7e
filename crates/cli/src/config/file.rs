//! `longshore.toml` as it is written. Every key is optional; an unknown one is an error.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use queue_core::{
    credentials::CredentialPolicy,
    job::Kind,
    limiter::{Away, Charges},
    time::parse_duration,
    traces::Attempts,
};
use serde::{Deserialize, Deserializer, de::Error};

/// The whole file. `deploy/longshore.example.toml` documents every key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) listen: Option<String>,
    pub(crate) metrics_listen: Option<String>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) journal: Option<Store<JournalTable>>,
    pub(crate) dispatcher: Option<Store<DispatcherTable>>,
    pub(crate) cache: Cache,
    pub(crate) objects: ObjectsTable,
    #[serde(rename = "admin_key")]
    _admin_key: Option<NotHere>,
    pub(crate) admin_key_file: Option<PathBuf>,
    pub(crate) log: Option<LogFormat>,
    pub(crate) stop_wait: Option<Seconds>,
    pub(crate) probe_jobs: Option<bool>,
    pub(crate) probe_faults: Option<bool>,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) prices_file: Option<PathBuf>,
    pub(crate) provider: Provider,
    pub(crate) providers: Vec<ProviderEntry>,
    pub(crate) worker: Worker,
    pub(crate) tenants: BTreeMap<String, Tenant>,
    pub(crate) credentials: Credentials,
    pub(crate) auth: Auth,
    pub(crate) dashboard: DashboardTable,
    pub(crate) tls: TlsTable,
    pub(crate) budget: BudgetTable,
    pub(crate) backup: BackupTable,
    pub(crate) webhooks: Webhooks,
    pub(crate) request_limits: RequestLimits,
    pub(crate) retention: RetentionTable,
    pub(crate) maintenance_window: Option<String>,
    pub(crate) upkeep: UpkeepTable,
    pub(crate) traces: TracesTable,
}

/// A store: its URL alone, or a table with the URL in it and more.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a URL, or a table with the key `url` and others that are known")]
pub(crate) enum Store<Table> {
    Url(String),
    Table(Table),
}

/// `[journal]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalTable {
    pub(crate) url: Option<String>,
    pub(crate) pool_size: Option<u32>,
    pub(crate) pool_acquire_timeout: Option<Seconds>,
    pub(crate) pool_recycle: Option<Seconds>,
    pub(crate) statement_timeout: Option<Seconds>,
}

/// `[dispatcher]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DispatcherTable {
    pub(crate) url: Option<String>,
    pub(crate) allow_eviction: Option<bool>,
}

/// `[cache]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cache {
    pub(crate) url: Option<String>,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) scope: Option<CacheScope>,
    pub(crate) vectors_ttl: Option<Seconds>,
}

/// `[objects]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ObjectsTable {
    pub(crate) url: Option<String>,
    pub(crate) large_bytes: Option<usize>,
}

/// `[traces]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TracesTable {
    pub(crate) attempts: Option<Attempts>,
}

/// Who finds an answer that was paid for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CacheScope {
    Tenant,
    Global,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[provider]`: the one provider of a small set-up, and the models of jobs that name none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Provider {
    pub(crate) url: Option<String>,
    #[serde(rename = "key")]
    _key: Option<NotHere>,
    pub(crate) key_env: Option<String>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) default_model: Option<String>,
    pub(crate) embedding_model: Option<String>,
}

/// One of `[[providers]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderEntry {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) kind: ProviderKind,
    pub(crate) url: Option<String>,
    #[serde(rename = "key")]
    _key: Option<NotHere>,
    pub(crate) key_env: Option<String>,
    pub(crate) key_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) models: Vec<String>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) connect_timeout: Option<Seconds>,
    pub(crate) first_byte_timeout: Option<Seconds>,
    pub(crate) chunk_timeout: Option<Seconds>,
    pub(crate) include_usage: Option<bool>,
    pub(crate) first_token: Option<Seconds>,
    pub(crate) tokens_per_second: Option<u32>,
    pub(crate) requests_per_minute: Option<u64>,
    pub(crate) tokens_per_minute: Option<u64>,
    pub(crate) tokens_charged: Option<Charges>,
    pub(crate) limiter_away: Option<Away>,
    #[serde(default)]
    pub(crate) limits: Vec<ModelLimit>,
    #[serde(default)]
    pub(crate) embedding: EmbeddingEntry,
}

/// `[providers.embedding]`: how its embedding jobs travel together.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EmbeddingEntry {
    pub(crate) together: Option<bool>,
    pub(crate) inputs_max: Option<usize>,
    pub(crate) tokens_max: Option<u64>,
    pub(crate) wait: Option<Seconds>,
    pub(crate) calls_max: Option<usize>,
}

/// One of `[[providers.limits]]`: what some models of the provider may take instead of what it says for all.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelLimit {
    pub(crate) model: String,
    pub(crate) requests_per_minute: Option<u64>,
    pub(crate) tokens_per_minute: Option<u64>,
    pub(crate) tokens_charged: Option<Charges>,
    pub(crate) limiter_away: Option<Away>,
}

/// What speaks behind a provider's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProviderKind {
    /// The OpenAI wire: OpenAI, Azure, vLLM, llama.cpp, Ollama, LiteLLM …
    #[default]
    Openai,
    /// Built in; invents answers and says so.
    Simulated,
}

/// `[worker]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Worker {
    pub(crate) slots: Option<usize>,
    pub(crate) queues: Option<Vec<String>>,
    pub(crate) kinds: Option<Vec<String>>,
    pub(crate) drain: Option<Seconds>,
    pub(crate) timeouts: BTreeMap<Kind, Seconds>,
}

/// One of `[tenants.NAME]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tenant {
    pub(crate) backlog_max: Option<u64>,
    pub(crate) weight: Option<u32>,
    pub(crate) credential_policy: Option<CredentialPolicy>,
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) llm_submits_per_minute: Option<u32>,
}

/// `[request_limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RequestLimits {
    pub(crate) burst: Option<Seconds>,
    pub(crate) when_away: Option<Away>,
    pub(crate) llm_when_away: Option<Away>,
    pub(crate) user: Rates,
    pub(crate) analyst: Rates,
    pub(crate) operator: Rates,
    pub(crate) admin: Rates,
    pub(crate) each_tenant: Rates,
}

/// What may be done in a minute.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rates {
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) llm_submits_per_minute: Option<u32>,
}

/// `[credentials]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Credentials {
    #[serde(rename = "master_key")]
    _master_key: Option<NotHere>,
    pub(crate) master_key_file: Option<PathBuf>,
}

/// `[auth]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    #[serde(rename = "signing_key")]
    _signing_key: Option<NotHere>,
    pub(crate) signing_key_file: Option<PathBuf>,
    pub(crate) issuers: Vec<AuthIssuer>,
}

/// One of `[[auth.issuers]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthIssuer {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) keys_file: Option<PathBuf>,
    pub(crate) keys_url: Option<String>,
    pub(crate) tenant_claim: Option<String>,
    pub(crate) role_claim: Option<String>,
    pub(crate) max_role: Option<String>,
    #[serde(default)]
    pub(crate) tenants: Vec<String>,
}

/// `[dashboard]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DashboardTable {
    pub(crate) enabled: Option<bool>,
    pub(crate) oidc: Option<OidcTable>,
}

/// `[dashboard.oidc]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OidcTable {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    #[serde(rename = "client_secret")]
    _client_secret: Option<NotHere>,
    pub(crate) client_secret_file: Option<PathBuf>,
    pub(crate) public_url: String,
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) name: Option<String>,
}

/// `[tls]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsTable {
    pub(crate) certificate_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
}

/// `[webhooks]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Webhooks {
    pub(crate) allow_http: Option<bool>,
    pub(crate) allow_networks: Vec<String>,
}

/// `[budget]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BudgetTable {
    pub(crate) unknown_price: Option<UnknownPrice>,
    pub(crate) default_price: Option<DefaultPrice>,
    pub(crate) each_tenant: EachTenant,
}

/// `[backup]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BackupTable {
    pub(crate) url: Option<String>,
    pub(crate) offsite: Option<String>,
    pub(crate) recipients: Vec<String>,
    pub(crate) identity_file: Option<PathBuf>,
    pub(crate) daily_at: Option<String>,
    pub(crate) drill: Option<bool>,
    pub(crate) scratch: Option<String>,
    pub(crate) keep_daily: Option<usize>,
    pub(crate) keep_weekly: Option<usize>,
    pub(crate) keep_monthly: Option<usize>,
}

/// What happens to calls whose price nobody knows, where money is limited.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnknownPrice {
    Refuse,
    Allow,
}

/// The price of models that have none, in pico-USD a token.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DefaultPrice {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// `[budget.each_tenant]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EachTenant {
    pub(crate) day_usd: Option<String>,
    pub(crate) month_usd: Option<String>,
    pub(crate) day_tokens: Option<u64>,
    pub(crate) month_tokens: Option<u64>,
    pub(crate) at_limit: Option<String>,
    pub(crate) degrade_to: Option<String>,
}

/// `[retention]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetentionTable {
    pub(crate) jobs: Option<Kept>,
    pub(crate) payloads: Option<Kept>,
    pub(crate) errors: Option<Kept>,
    pub(crate) dead_letters: Option<Kept>,
    pub(crate) idempotency_keys: Option<Kept>,
    pub(crate) cost_details: Option<Kept>,
    pub(crate) audit: Option<Kept>,
    pub(crate) webhook_deliveries: Option<Kept>,
    pub(crate) hold: Option<String>,
}

/// `[upkeep]`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpkeepTable {
    pub(crate) dead_percent: Option<u64>,
    pub(crate) bloat_percent: Option<u64>,
    pub(crate) bloat_least_mib: Option<u64>,
}

/// How long something is kept: a duration such as `90d`, or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    For(Duration),
    Forever,
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match &*String::deserialize(deserializer)? {
            "forever" => Ok(Self::Forever),
            text => parse_duration(text).map(Self::For).map_err(D::Error::custom),
        }
    }
}

/// A duration such as `30s` or `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// The place of a secret that must not stand in this file.
#[derive(Debug)]
struct NotHere;

impl<'de> Deserialize<'de> for NotHere {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(
            "a secret does not belong into this file: name an environment variable (`key_env`, LONGSHORE_ADMIN_KEY, \
             LONGSHORE_MASTER_KEY, LONGSHORE_SIGNING_KEY, LONGSHORE_OIDC_CLIENT_SECRET) or a file of its own (`key_file`, \
             `admin_key_file`, `master_key_file`, `signing_key_file`, `client_secret_file`)",
        ))
    }
}
