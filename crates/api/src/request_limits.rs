//! How often keys and tenants may ask: around every keyed route, once it is known who calls.
//!
//! A request takes from the limits of its key and its tenant before its handler runs. Submits are the exception: how many of their
//! jobs ask model providers is known once the body was read, and all of a request is taken in one step, so [`Charge::pay`] is called
//! by the handler. One that ends before that (its body is wrong, it may not submit) is charged behind it.
//!
//! Each answer says how its limits stand, as `RateLimit` and `RateLimit-Policy`
//! (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>, draft 11). A name that a request cannot prove is
//! charged to nobody: who is not known (401) takes from no one's limits.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    response::{IntoResponse, Response},
};
use queue_core::{
    ids::Name,
    journal::{JournalError, Role},
    request_limits::{Answer, Asker, Draw, Level, Measure, Rates},
    telemetry,
};
use utoipa::openapi::{
    self, RefOr,
    header::HeaderBuilder,
    schema::{Object, ObjectBuilder, Type},
};

use crate::{
    app::{App, Shared},
    auth::Caller,
    problem::{Cause, Problem},
};

/// What each limit lets pass.
pub(crate) const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// How each limit stands.
pub(crate) const STANDING: HeaderName = HeaderName::from_static("ratelimit");
/// When a request that could not be counted may come again: the store is asked again after about that long.
const AWAY_RETRY_S: u32 = 2;

/// What one request takes from the limits of its caller.
#[derive(Debug)]
pub(crate) struct Charge {
    tenant: Name,
    key: Name,
    role: Role,
    of_key: Rates,
    of_tenant: Rates,
    /// What it came to, once it was paid.
    paid: Mutex<Option<Paid>>,
}

#[derive(Clone, Debug, Default)]
struct Paid {
    draws: Vec<Draw>,
    answer: Option<Answer>,
}

/// Jobs that ask model providers which a request may submit.
#[derive(Debug)]
pub(crate) struct Granted {
    /// So many of them.
    pub(crate) jobs: u32,
    /// Why not more, if it asked for more.
    pub(crate) refusal: Option<Problem>,
}

impl Charge {
    async fn of(app: &App, caller: &Caller) -> Result<Self, JournalError> {
        let of_tenant = if caller.limited_as.is_tenant_bound() {
            app.policy().await?.rates(&caller.tenant)
        } else {
            Rates::default()
        };
        Ok(Self {
            tenant: caller.tenant.clone(),
            key: caller.key_id.clone(),
            role: caller.limited_as,
            of_key: caller.rates,
            of_tenant,
            paid: Mutex::default(),
        })
    }

    /// What a tick of a schedule takes: as a submit of whoever made it would, bound to the schedule's tenant.
    pub(crate) async fn unattended(app: &App, tenant: &Name, key: &Name) -> Result<Self, JournalError> {
        let identity = &*app.api.stores.identity;
        let of_key = app.keys.key(identity, key.as_str()).await?.map(|(key, _)| key.rates).unwrap_or_default();
        let of_tenant = app.policy().await?.rates(tenant);
        Ok(Self {
            tenant: tenant.clone(),
            key: key.clone(),
            role: Role::Analyst,
            of_key,
            of_tenant,
            paid: Mutex::default(),
        })
    }

    fn draws(&self, app: &App, jobs: (u32, u32)) -> Vec<Draw> {
        let Self { tenant, key, role, of_key, of_tenant, .. } = self;
        let asker = Asker { tenant, key, role: *role, of_key: *of_key, of_tenant: *of_tenant };
        app.api.settings.request_limits.draws(asker, jobs)
    }

    /// Takes one request, and of so many jobs that ask model providers as many as there is room for: at least `least`, else
    /// nothing is taken and the request is refused.
    pub(crate) async fn pay(&self, app: &App, (least, most): (u32, u32)) -> Result<Granted, Problem> {
        let draws = self.draws(app, (least, most));
        if draws.is_empty() {
            self.note(Paid::default());
            return Ok(Granted { jobs: most, refusal: None });
        }
        match app.api.request_limits.take(&draws).await {
            Ok(answer) => {
                let (admitted, jobs) = (answer.admitted, answer.jobs.unwrap_or(most));
                let refusal = (!admitted || jobs < most).then(|| refused(&draws, &answer));
                self.note(Paid { draws, answer: Some(answer) });
                match refusal {
                    Some(problem) if !admitted => Err(problem),
                    refusal => Ok(Granted { jobs, refusal }),
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a request is refused because its limit cannot be asked");
                self.note(Paid { draws, answer: None });
                let detail = "how often the caller has asked cannot be counted now; ask again in a moment";
                Err(Problem::new(Cause::Unavailable, detail).retry_after(AWAY_RETRY_S))
            }
        }
    }

    /// Refuses a request of which it is known without asking that it would be refused.
    fn check(&self, app: &App) -> Result<(), Problem> {
        let draws = self.draws(app, (0, 0));
        let Some(answer) = app.api.request_limits.refuses(&draws).filter(|_| !draws.is_empty()) else { return Ok(()) };
        let problem = refused(&draws, &answer);
        self.note(Paid { draws, answer: Some(answer) });
        Err(problem)
    }

    fn note(&self, paid: Paid) {
        *self.paid.lock().unwrap_or_else(PoisonError::into_inner) = Some(paid);
    }

    fn paid(&self) -> Option<Paid> {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells how the limits stand.
    fn tell(&self, headers: &mut HeaderMap) {
        let Some(Paid { draws, answer }) = self.paid() else { return };
        let (mut policies, mut standings) = (String::new(), String::new());
        for (at, draw) in draws.iter().enumerate() {
            let (name, quota) = (draw.meter.name(), draw.quota);
            // Writing to a string cannot fail.
            let _ = write!(
                policies,
                "{}\"{name}\";q={};w=60;longshore-burst={}",
                separator(&policies),
                quota.per_minute,
                quota.burst
            );
            let Some((answer, level)) = answer.as_ref().and_then(|answer| Some((answer, answer.levels[at]?))) else {
                continue;
            };
            // Beside Retry-After, what does not stand in the way would only name an earlier moment.
            if !answer.admitted && level.wait_us == 0 {
                continue;
            }
            let _ = write!(standings, "{}\"{name}\";r={}", separator(&standings), level.left);
            if level.next_us > 0 {
                let _ = write!(standings, ";t={}", seconds(level.next_us));
            }
        }
        for (name, value) in [(POLICY, policies), (STANDING, standings)] {
            // Names, numbers and punctuation: it is a header value, if there is anything to say.
            if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(&value)) {
                headers.insert(name, value);
            }
        }
    }
}

fn separator(before: &str) -> &'static str {
    if before.is_empty() { "" } else { ", " }
}

/// Rounded up: who comes then is not early.
fn seconds(us: u64) -> u32 {
    u32::try_from(us.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// The refusal of a request, or of those of its jobs for which there was no room.
fn refused(draws: &[Draw], answer: &Answer) -> Problem {
    // A bulk that passes without some of its jobs waits for one more of them.
    let wait = |draw: &Draw, level: &Level| match answer.admitted {
        false => level.wait_us,
        true if draw.meter.measure == Measure::LlmSubmits && level.left == 0 => level.next_us,
        true => 0,
    };
    let asked = draws.iter().zip(&answer.levels);
    let waits = asked.filter_map(|(draw, level)| Some((draw, wait(draw, level.as_ref()?))).filter(|(_, us)| *us > 0));
    let waits: Vec<(&Draw, u64)> = waits.collect();
    let violated: Vec<&'static str> = waits.iter().map(|(draw, _)| draw.meter.name()).collect();
    for limit in &violated {
        metrics::counter!(telemetry::HTTP_RATE_LIMITED, "limit" => *limit).increment(1);
    }
    let longest = waits.iter().max_by_key(|(_, us)| *us);
    let after = longest.map_or(1, |(_, us)| seconds(*us)).max(1);
    let may = longest.map_or_else(String::new, |(draw, _)| {
        let who = if draw.meter.key.is_some() { "the key" } else { "the tenant" };
        let what = match draw.meter.measure {
            Measure::Requests => "requests",
            Measure::LlmSubmits => "jobs that ask model providers",
        };
        format!("{who} may send {} {what} a minute, and has; ", draw.quota.per_minute)
    });
    let detail = format!("{may}come again in {after} s");
    Problem::new(Cause::RateLimited, detail).retry_after(after).violating(violated)
}

/// Handles a request within its caller's limits.
pub(crate) async fn around<F>(
    app: &Shared,
    caller: &Caller,
    mut request: Request,
    handle: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let charge = match Charge::of(app, caller).await {
        Ok(charge) => Arc::new(charge),
        Err(error) => return Problem::from(error).into_response(),
    };
    let submits = is_submit(&request);
    let admitted = match charge.check(app) {
        Ok(()) if submits => Ok(()),
        Ok(()) => charge.pay(app, (0, 0)).await.map(|_| ()),
        refused => refused,
    };
    let mut response = match admitted {
        Ok(()) => {
            request.extensions_mut().insert(charge.clone());
            handle(request).await
        }
        Err(problem) => problem.into_response(),
    };
    if charge.paid().is_none()
        && let Err(problem) = charge.pay(app, (0, 0)).await
    {
        // Nothing was submitted: a handler pays before it does.
        response = problem.into_response();
    }
    charge.tell(response.headers_mut());
    response
}

/// Whether the handler pays, because only it knows what for.
fn is_submit(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    request.method() == Method::POST && matches!(path, Some("/v1/jobs" | "/v1/jobs/bulk"))
}

/// Writes into the document what every answer of a keyed route says of its caller's limits.
pub(crate) fn describe(responses: &mut BTreeMap<String, RefOr<openapi::Response>>) {
    for (status, response) in responses {
        let RefOr::T(response) = response else { continue };
        if status != "429" && !status.starts_with('2') {
            continue;
        }
        let mut header = |name: &str, description: &str, schema: Object| {
            let header = HeaderBuilder::new().description(Some(description)).schema(Some(schema)).build();
            response.headers.entry(name.to_owned()).or_insert(RefOr::T(header));
        };
        let text = || ObjectBuilder::new().schema_type(Type::String).build();
        header(
            "RateLimit-Policy",
            "each limit that counts this request: `\"key_requests\";q=100;w=60;longshore-burst=100`",
            text(),
        );
        header(
            "RateLimit",
            "how each stands: `\"key_requests\";r=57;t=1`, what is left and the seconds until it is more",
            text(),
        );
        if status == "429" {
            let whole = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build();
            header("Retry-After", "seconds after which it passes, if nobody else asks", whole);
        }
    }
}
