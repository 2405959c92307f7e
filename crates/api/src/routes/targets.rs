//! Targets: whether they may be called, their breakers, and what is left of their limits.

mod lately;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    breaker::{CircuitView, KNOWN_MS, State as Circuit},
    dispatcher::Setting,
    ids::Name,
    journal::{BreakerMode, TargetSettings, Versioned},
    limiter,
    route::{Target, is_no_provider},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::lately::{Lately, LatelyView, PriceView};
use crate::{
    app::{App, Shared},
    audit, body,
    fields::Fields,
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    routes::limits::{StandingView, standing},
    settings::{Pause, check_tag, tag_of},
};

/// Largest body of a change.
pub(crate) const BODY_MAX_BYTES: usize = 16 * 1024;

/// How a breaker stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BreakerView {
    /// Who decides: its calls (`auto`), or an operator (`open`, `close`).
    #[schema(example = "auto")]
    mode: &'static str,
    /// `closed`, `open`, or `half_open`: the next call tries it. Absent while nobody can be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "closed")]
    state: Option<&'static str>,
    /// Until when it is open; then one call tries it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Why it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Calls that tried it and failed since it opened: each doubles the time.
    failed_probes: u32,
    /// Whether the call that tries it is on its way.
    probing: bool,
    /// Calls of the last 30 s that count.
    calls: u32,
    /// Those of them that failed.
    failures: u32,
}

/// A target: what limits, breakers and parking are about.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Target)]
pub(crate) struct TargetView {
    /// `provider:model:credential`.
    target: String,
    /// The provider.
    provider: String,
    /// The model as the provider knows it.
    model: String,
    /// Whose key.
    credential: String,
    /// Whether an operator has paused it.
    paused: bool,
    /// When the pause ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Its breaker.
    breaker: BreakerView,
    /// What is left of its limits; nothing is said while nobody can be asked.
    #[serde(flatten)]
    standing: StandingView,
    /// How its calls went lately; absent where none of the newest 5,000 calls of the last hour was its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    lately: Option<LatelyView>,
    /// What its model costs in the standard tier; absent where nobody knows that.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<PriceView>,
    /// Grows with every change of the settings; 0 before the first.
    version: i64,
}

/// An account that its provider calls exhausted: no model of it is asked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub(crate) struct AccountView {
    /// `provider:*:credential`.
    account: String,
    /// `open`, or `half_open`: the next call tries it.
    state: &'static str,
    /// Until when nobody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// What the provider said.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// All targets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TargetList {
    /// Those that are configured by name, were asked within the last hour, or were set by someone; by name.
    targets: Vec<TargetView>,
    /// Exhausted accounts.
    accounts: Vec<AccountView>,
}

impl TargetView {
    fn new(target: &Target, set: Versioned<TargetSettings>, circuit: Option<&CircuitView>, now: Timestamp) -> Self {
        let Versioned { version, value } = set;
        let pause = Pause { on: value.paused, until: value.paused_until, reason: value.reason }.at(now);
        let state = circuit.map_or(Circuit::Closed, |circuit| circuit.state);
        let state = match value.breaker {
            BreakerMode::Auto => state,
            BreakerMode::Open => Circuit::Open,
            BreakerMode::Close => Circuit::Closed,
        };
        let own = circuit.filter(|_| value.breaker == BreakerMode::Auto);
        Self {
            target: target.name().to_string(),
            provider: target.provider.to_string(),
            model: target.model.to_string(),
            credential: target.credential.to_string(),
            paused: pause.on,
            until: pause.until,
            reason: pause.reason,
            breaker: BreakerView {
                mode: value.breaker.as_str(),
                state: Some(state.as_str()),
                until: own.and_then(|circuit| circuit.until),
                reason: own.and_then(|circuit| circuit.reason.clone()),
                failed_probes: own.map_or(0, |circuit| circuit.failed_probes),
                probing: own.is_some_and(|circuit| circuit.probing),
                calls: circuit.map_or(0, |circuit| circuit.calls),
                failures: circuit.map_or(0, |circuit| circuit.failures),
            },
            standing: StandingView::default(),
            lately: None,
            price: None,
            version,
        }
    }
}

fn untouched() -> Versioned<TargetSettings> {
    Versioned { version: 0, value: TargetSettings::default() }
}

/// The circuits by name; `None` while nobody can be asked.
pub(crate) async fn circuits(app: &App) -> Option<BTreeMap<Name, CircuitView>> {
    match app.api.stores.breakers.list().await {
        Ok(circuits) => Some(circuits.into_iter().map(|view| (view.circuit.clone(), view)).collect()),
        Err(error) => {
            tracing::warn!(%error, "targets are shown without their breakers");
            None
        }
    }
}

/// Targets that the configuration names.
fn configured(app: &App) -> BTreeSet<Name> {
    let routes = &app.api.routes;
    let named = routes.routes.iter().flat_map(|route| &route.models).filter(|model| !model.ends_with('*'));
    let usual = routes.default_model.iter().chain(&routes.default_embedding_model);
    named.chain(usual).filter_map(|model| Some(routes.resolve(model)?.name())).collect()
}

/// Targets that were limited lately; `None` while nobody can be asked.
async fn limited(app: &App) -> Option<Vec<Name>> {
    let limited = app.api.limiter.targets().await;
    limited.inspect_err(|error| tracing::warn!(%error, "targets are shown without their limits")).ok()
}

/// Lists targets with their pauses, breakers and limits.
#[utoipa::path(get, path = "/v1/targets", tag = "targets", security(("key" = [])),
    responses((status = 200, body = TargetList)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<TargetList>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let mut settings = app.api.stores.catalog.targets().await?;
    app.api.limits.learn(&settings);
    let limits = app.api.limits.now();
    let (circuits, limited) = tokio::join!(circuits(&app), limited(&app));
    let (known, now) = (circuits.as_ref(), app.now());
    let mut names = configured(&app);
    names.extend(settings.keys().cloned());
    names.extend(known.into_iter().flat_map(BTreeMap::keys).cloned());
    names.extend(limited.iter().flatten().cloned());
    let accounts = known.into_iter().flat_map(BTreeMap::values).filter(|view| is_account(&view.circuit));
    let accounts = accounts.filter(|view| view.state != Circuit::Closed).map(|view| AccountView {
        account: view.circuit.to_string(),
        state: view.state.as_str(),
        until: view.until,
        reason: view.reason.clone(),
    });
    let accounts = accounts.collect();
    let lately = Lately::of(&app).await?;
    let mut targets = Vec::with_capacity(names.len());
    for name in names {
        let Some(target) = Target::parse(name.as_str()).filter(|target| !target.is_pattern()) else { continue };
        let circuit = known.and_then(|known| known.get(&name));
        let mut view = TargetView::new(&target, settings.remove(&name).unwrap_or_else(untouched), circuit, now);
        view.breaker.state = view.breaker.state.filter(|_| known.is_some());
        // Where the limiter is away, each question would wait for it.
        if limited.is_some() {
            view.standing = standing(&app, &limits, &target).await.unwrap_or_default();
        }
        view.lately = lately.view(&name);
        view.price = PriceView::of(&app, &target);
        targets.push(view);
    }
    Ok(Json(TargetList { targets, accounts }))
}

fn is_account(circuit: &Name) -> bool {
    Target::parse(circuit.as_str()).is_some_and(|target| target.model == "*".into())
}

/// Shows a target.
#[utoipa::path(get, path = "/v1/targets/{target}", tag = "targets", security(("key" = [])), params(
    ("target" = String, Path, description = "`provider:model:credential`; a `/` in it is written `%2F`"),
), responses((status = 200, body = TargetView), (status = 422, body = Document)))]
pub(crate) async fn get(State(app): State<Shared>, Segment(name): Segment, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    show(&app, &named(&app, &name)?).await
}

async fn show(app: &App, target: &Target) -> Result<Response, Problem> {
    let name = target.name();
    let mut settings = app.api.stores.catalog.targets().await?;
    app.api.limits.learn(&settings);
    let settings = settings.remove(&name).unwrap_or_else(untouched);
    let circuits = circuits(app).await;
    let tag = tag_of(settings.version);
    let circuit = circuits.as_ref().and_then(|circuits| circuits.get(&name));
    let mut view = TargetView::new(target, settings, circuit, app.now());
    view.breaker.state = view.breaker.state.filter(|_| circuits.is_some());
    view.standing = standing(app, &app.api.limits.now(), target).await.unwrap_or_default();
    view.lately = Lately::of(app).await?.view(&name);
    view.price = PriceView::of(app, target);
    Ok((StatusCode::OK, [(header::ETAG, tag)], Json(view)).into_response())
}

fn named(app: &App, text: &str) -> Result<Target, Problem> {
    let target = with_known_provider(app, text)?;
    if target.model == "*".into() {
        return Err(Problem::field("/path/target", "names all models of an account; name one model"));
    }
    if target.is_pattern() {
        return Err(Problem::field("/path/target", "is a pattern, which only limits can be set for; name one model"));
    }
    Ok(target)
}

/// The target or pattern of that name, if its provider is configured.
pub(crate) fn with_known_provider(app: &App, text: &str) -> Result<Target, Problem> {
    let providers: Vec<_> = app.api.routes.routes.iter().map(|route| format!("`{}`", route.provider)).collect();
    match Target::parse(text) {
        Some(target)
            if app.api.routes.routes.iter().any(|route| route.provider == target.provider)
                || is_no_provider(&target.provider) =>
        {
            Ok(target)
        }
        Some(target) => {
            let reason = format!("`{}` is no provider; those here are {}", target.provider, providers.join(", "));
            Err(Problem::field("/path/target", reason))
        }
        None => Err(Problem::field(
            "/path/target",
            "is not a target: provider:model:credential, such as openai:gpt-4o:default",
        )),
    }
}

/// A change to a target's settings. What is absent stays, what is `null` is taken away.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `change` takes apart by hand
pub(crate) struct TargetPatch {
    /// Whether nobody may call it. Calls that run go on; jobs wait, or go on with their fallback.
    paused: Option<bool>,
    /// When the pause ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Why it is paused, for those who ask `why`.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// `open` and `close` hold the breaker so, `auto` leaves it to the calls.
    #[schema(example = "auto")]
    breaker: Option<String>,
}

/// Pauses or resumes a target, or holds its breaker open or closed.
#[utoipa::path(patch, path = "/v1/targets/{target}", tag = "targets", security(("key" = [])), request_body = TargetPatch,
    params(
    ("target" = String, Path, description = "`provider:model:credential`; a `/` in it is written `%2F`"),
    ("If-Match" = Option<String>, Header, description = "`ETag` of the target: refused if it was changed since"),
), responses(
    (status = 200, body = TargetView),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn patch(
    State(app): State<Shared>,
    Segment(name): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let target = named(&app, &name)?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let task = {
        let (app, target, name) = (app.clone(), target.clone(), target.name());
        // In a task of its own: a caller that hangs up must not leave journal and dispatcher apart.
        audit::spawn(async move {
            let one_at_a_time = app.settings_edits.lock().await;
            let held = app.api.stores.catalog.targets().await?.remove(&name).unwrap_or_else(untouched);
            check_tag(&headers, held.version, "target")?;
            audit::before(&held.value);
            let (value, opens) = change(held.value, json::utf8(&body)?, app.now())?;
            let version = app.api.stores.catalog.set_target(&name, value.clone()).await?;
            drop(one_at_a_time);
            tell(&app, &target, Versioned { version, value }, opens).await;
            Ok::<_, Problem>(())
        })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    show(&app, &target).await
}

/// Tells everybody what was set. A failure is the reconciler's. Who lets a target go on also ends what else keeps it: the
/// limiter's block, and the rest of an exhausted account. If this process dies meanwhile, those end by themselves.
async fn tell(app: &App, target: &Target, settings: Versioned<TargetSettings>, opens: bool) {
    let (stores, name) = (&app.api.stores, target.name());
    if let Err(error) = stores.breakers.set(&name, settings.clone()).await {
        tracing::warn!(%error, target = %name, "the breaker gets the target's settings from the reconciler");
    }
    let mut resting = Vec::new();
    if opens {
        if let Err(error) = stores.breakers.close(&target.account()).await {
            tracing::warn!(%error, target = %name, "an exhausted account stays so until its time is over");
        }
        match limiter::lift(&*app.api.limiter, &app.api.limits.now(), target).await {
            Ok(others) => resting = others,
            Err(error) => tracing::warn!(%error, target = %name, "the limiter's block ends by itself"),
        }
        tokio::time::sleep(Duration::from_millis(KNOWN_MS.unsigned_abs())).await;
    }
    if let Err(error) = stores.dispatcher.apply(Setting::Target(name.clone(), settings)).await {
        tracing::warn!(%error, target = %name, "the dispatcher gets the target's settings from the reconciler");
    }
    if opens {
        resting.push(name);
        for name in resting {
            limiter::wake(&*stores.dispatcher, &name).await;
        }
    }
}

/// The settings after a change, and whether it lets the target go on.
fn change(settings: TargetSettings, text: &str, now: Timestamp) -> Result<(TargetSettings, bool), Problem> {
    const KNOWN: [&str; 4] = ["paused", "until", "reason", "breaker"];
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let given = json::take_apart_with_null(text, &KNOWN, &mut fields.errors)?;
    if fields.errors.is_empty() && given.iter().all(Option::is_none) {
        return Err(Problem::field("", format!("names nothing to change: give {}", KNOWN.join(", "))));
    }
    let [paused, until, reason, breaker] = given;
    let pause = Pause { on: settings.paused, until: settings.paused_until, reason: settings.reason };
    let pause = pause.change(&mut fields, [paused, until, reason], now);
    let mode = fields.parsed("breaker", breaker, |text| {
        BreakerMode::parse(text).ok_or_else(|| format!("`{text}` is not a mode; open, close and auto are"))
    });
    fields.finish()?;
    let opens = paused.is_some() && !pause.on || mode == Some(BreakerMode::Close);
    let changed = TargetSettings {
        paused: pause.on,
        paused_until: pause.until,
        reason: pause.reason,
        breaker: mode.unwrap_or(settings.breaker),
        limit: settings.limit,
    };
    Ok((changed, opens))
}
