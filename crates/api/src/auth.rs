//! Who calls: a bearer key or token on every route below `/v1`. What the caller may do is the table in `access.rs`.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use queue_core::{
    ids::Name,
    job::Job,
    journal::{ApiKey, Grant, JobFilter, JournalError, Ledger, Reads, Role, Within},
    keys::{Opened, Secret, hash_opens},
    request_limits::Rates,
    stores::Stores,
    time::Timestamp,
};

use crate::{
    access,
    app::{App, Shared},
    audit,
    problem::{Cause, Problem},
    request_limits,
    tokens::{Tokens, Verified, believed::Belief},
};

/// Who calls, and what it is bound to. A handler that takes it must not look past it.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Its tenant: whose jobs are submitted when a job names nobody.
    pub(crate) tenant: Name,
    /// What it may do.
    pub(crate) role: Role,
    /// The key's public part, or `sub:…` for the bearer of an issuer's token: what it submits belongs to it, and falls under its
    /// budget.
    pub(crate) key_id: Name,
    /// The token that it came with, if it came with one.
    pub(crate) token: Option<Arc<Verified>>,
    /// The hash of the secret of the key that it came with, if it came with one.
    pub(crate) secret_hash: Option<[u8; 32]>,
    /// What it is narrowed to; empty: all that its role may do.
    pub(crate) grants: Vec<Grant>,
    /// The role whose limits of requests are its own: of a token those of the key that it was made from.
    pub(crate) limited_as: Role,
    /// What was set for its key instead.
    pub(crate) rates: Rates,
    /// When its key ends by itself; of a token the key that it was made from.
    pub(crate) key_ends_at: Option<Timestamp>,
}

impl Caller {
    fn with(key: &ApiKey, secret: &Secret) -> Self {
        Self {
            secret_hash: Some(secret.hash()),
            tenant: key.tenant.clone(),
            role: key.role,
            key_id: Name::from(key.id.as_str()),
            grants: key.grants.clone(),
            token: None,
            limited_as: key.role,
            rates: key.rates,
            key_ends_at: key.expires_at,
        }
    }

    /// Whose idempotency keys its requests use: those of the tenant; of who sees only what it has submitted itself, its own.
    pub(crate) fn owner_of_keys(&self) -> Name {
        match self.role {
            // No name has such a letter.
            Role::User => Name::new(format!("{}\u{1f}{}", self.tenant, self.key_id)),
            _ => self.tenant.clone(),
        }
    }

    fn bearing(token: Arc<Verified>) -> Self {
        let key_id = match &token.key {
            Some(key) => Name::from(key.id.as_str()),
            None => {
                // Subjects are of any length and any letters, and two issuers may have the same.
                let whole = format!("{}\0{}", token.issuer, token.subject);
                Name::new(format!("sub:{}", &blake3::hash(whole.as_bytes()).to_hex()[..32]))
            }
        };
        let (tenant, role, grants) = (token.tenant.clone(), token.role, token.grants.clone());
        Self {
            tenant,
            role,
            key_id,
            grants,
            secret_hash: None,
            token: Some(token),
            limited_as: role,
            rates: Rates::default(),
            key_ends_at: None,
        }
    }

    /// The bearer of a token that was made from this key: both together ask no more often than the key may, and what it makes
    /// ends no later.
    fn limited_by(self, key: &ApiKey) -> Self {
        Self { limited_as: key.role, rates: key.rates, key_ends_at: key.expires_at, ..self }
    }

    /// The tenant outside of which nothing exists for it; `None` for roles over tenants.
    pub(crate) fn bound(&self) -> Option<&Name> {
        self.role.is_tenant_bound().then_some(&self.tenant)
    }

    /// Whose jobs there are for it.
    pub(crate) fn within(&self) -> Within {
        let key_id = (self.role == Role::User).then(|| self.key_id.clone());
        Within { tenant: self.bound().cloned(), key_id }
    }

    /// Whether there is this job for it.
    pub(crate) fn sees(&self, job: &Job) -> bool {
        let Within { tenant, key_id } = self.within();
        tenant.is_none_or(|tenant| tenant == job.tenant) && (key_id.is_none() || key_id == job.key_id)
    }

    /// The filter within what there is for it; `None` where that is nothing.
    pub(crate) fn narrowed(&self, filter: JobFilter) -> Option<JobFilter> {
        let Within { tenant, key_id } = self.within();
        let asked = filter.tenant.as_ref();
        if tenant.is_some() && asked.is_some() && asked != tenant.as_ref() {
            return None;
        }
        Some(JobFilter { tenant: tenant.or(filter.tenant), key_id: key_id.or(filter.key_id), ..filter })
    }

    /// What people ask, as this caller may ask it: behind the store's own wall, if it is bound to a tenant.
    pub(crate) fn reads(&self, app: &App) -> Arc<dyn Reads> {
        let reads = &app.api.stores.reads;
        self.bound().map_or_else(|| reads.clone(), |tenant| reads.bound_to(tenant))
    }

    /// The money, likewise.
    pub(crate) fn ledger(&self, app: &App) -> Arc<dyn Ledger> {
        let ledger = &app.api.stores.ledger;
        self.bound().map_or_else(|| ledger.clone(), |tenant| ledger.bound_to(tenant))
    }

    /// The stores, with [`Caller::reads`].
    pub(crate) fn stores(&self, app: &App) -> Stores {
        Stores { reads: self.reads(app), ..app.api.stores.clone() }
    }

    /// Whether a row of the table lets it pass.
    pub(crate) fn may(&self, row: &access::Row) -> Result<(), Problem> {
        if self.role < row.least {
            let detail = format!("this needs the role `{}`, and the caller has `{}`", row.least, self.role);
            return Err(Problem::new(Cause::Forbidden, detail));
        }
        if row.is_about_oneself() {
            return Ok(());
        }
        let is_granted = |grant: &Grant| Grant::parse(row.scope).is_ok_and(|scope| grant.covers(&scope));
        if !self.grants.is_empty() && !self.grants.iter().any(is_granted) {
            let detail = format!("this needs the scope `{}`, which the caller's key does not have", row.scope);
            return Err(Problem::new(Cause::Forbidden, detail));
        }
        Ok(())
    }

    /// The end of its own key, if something that ends then would outlive it.
    pub(crate) fn outlived_by(&self, end: Option<Timestamp>) -> Option<Timestamp> {
        self.key_ends_at.filter(|own| end.is_none_or(|end| end > *own))
    }

    /// Refuses to hand out more than the caller itself has.
    pub(crate) fn check_hands_out(&self, role: Role, grants: &[Grant]) -> Result<(), Problem> {
        if role > self.role {
            let detail = format!("a key of role `{role}` is more than the caller's own role `{}`", self.role);
            return Err(Problem::new(Cause::Forbidden, detail).at("/role", "is above the caller's role"));
        }
        let is_own = |grant: &Grant| self.grants.iter().any(|own| own.covers(grant));
        if !self.grants.is_empty() && (grants.is_empty() || !grants.iter().all(is_own)) {
            let detail = "the caller's key has scopes, and a key with others would be more than it";
            return Err(Problem::new(Cause::Forbidden, detail).at("/scopes", "are not all among the caller's"));
        }
        Ok(())
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(Cause::Internal, "a handler runs without anybody having asked who calls"))
    }
}

/// Lets a request pass whose caller is known and may make it, and tells the handler who calls. What came of it stands in the
/// audit log.
pub(crate) async fn require(State(app): State<Shared>, request: Request, next: Next) -> Response {
    audit::watch(app, request, |app, request| admit(app, request, next)).await
}

async fn admit(app: Shared, request: Request, next: Next) -> Response {
    match caller_of(&app, request.headers()).await {
        Ok(caller) => {
            audit::by(&caller);
            if let Err(problem) = check_tenant(&app, &caller).await {
                return problem.into_response();
            }
            request_limits::around(&app, &caller, request, async |request| {
                match access::permitted(&app, &caller, request).await {
                    Ok(mut request) => {
                        request.extensions_mut().insert(caller.clone());
                        next.run(request).await
                    }
                    Err(problem) => problem.into_response(),
                }
            })
            .await
        }
        Err(Refusal::Missing) => challenge(
            Problem::new(Cause::Unauthorized, "send the header `Authorization: Bearer lsk_…`, or a token")
                .at("/header/Authorization", "is missing"),
            "Bearer realm=\"longshore\"",
        ),
        Err(Refusal::Invalid(reason)) => challenge(
            Problem::new(Cause::Unauthorized, "the key or token is not valid").at("/header/Authorization", reason),
            "Bearer realm=\"longshore\", error=\"invalid_token\"",
        ),
        Err(Refusal::Other(problem)) => problem.into_response(),
    }
}

/// Refuses callers of a tenant that was erased: their key may have been believed a moment ago, and an issuer may go on making tokens.
async fn check_tenant(app: &App, caller: &Caller) -> Result<(), Problem> {
    // Roles over tenants are nobody's tenant's: an issuer may have all of them in one that is erased.
    if caller.bound().is_none() {
        return Ok(());
    }
    // A journal that is away refuses by itself what needs it.
    let Ok(policy) = app.policy().await else { return Ok(()) };
    if let Some(pseudonym) = policy.pseudonym(&caller.tenant) {
        audit::under(&caller.tenant, pseudonym);
    }
    policy.check_tenant(&caller.tenant)
}

enum Refusal {
    Missing,
    Invalid(String),
    Other(Problem),
}

fn bearer_of(headers: &HeaderMap) -> Result<&str, Refusal> {
    let header = headers.get(header::AUTHORIZATION).ok_or(Refusal::Missing)?;
    let text = header.to_str().map_err(|_| Refusal::Invalid("is not ASCII".into()))?;
    let (scheme, bearer) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Invalid("the scheme is not `Bearer`".into()));
    }
    Ok(bearer.trim())
}

async fn caller_of(app: &App, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let (bearer, now) = (bearer_of(headers)?, app.now());
    if Tokens::is_one(bearer) {
        let stores = &app.api.stores;
        let belief = app.believed.look(&app.api.tokens, &app.keys, stores, bearer, now).await;
        return match belief.map_err(|error| Refusal::Other(error.into()))? {
            Belief::Bearer(token) => bearer_of_token(app, token).await,
            Belief::Refused(reason) => Err(Refusal::Invalid(format!("the token is not valid: {reason}"))),
        };
    }
    let secret = Secret::parse(bearer).map_err(Refusal::Invalid)?;
    let opened = app.keys.find(&*app.api.stores.identity, &secret, now).await;
    match opened.map_err(|error| Refusal::Other(error.into()))? {
        Opened::Key(key) => {
            if app.keys.is_to_be_noted(&key, now) {
                let (identity, key) = (app.api.stores.identity.clone(), key.clone());
                // Nobody waits for it: about one a minute for each key.
                tokio::spawn(async move {
                    if let Err(error) = identity.note_key_used(&key.id, now).await {
                        tracing::debug!(%error, "the use of a key is not written down");
                    }
                });
            }
            Ok(Caller::with(&key, &secret))
        }
        Opened::Nothing => Err(Refusal::Invalid("no such key".into())),
        Opened::Expired(at) => Err(Refusal::Invalid(format!("the key has expired at {at}"))),
        Opened::Revoked(at) => Err(Refusal::Invalid(format!("the key was revoked at {at}"))),
    }
}

async fn bearer_of_token(app: &App, token: Arc<Verified>) -> Result<Caller, Refusal> {
    let Some(source) = &token.key else { return Ok(Caller::bearing(token)) };
    let found =
        app.keys.key(&*app.api.stores.identity, &source.id).await.map_err(|error| Refusal::Other(error.into()))?;
    match found {
        Some((key, _)) => Ok(Caller::bearing(token).limited_by(&key)),
        None => Err(Refusal::Invalid("the token is not valid: its key is gone".into())),
    }
}

/// Whether a caller that was let in a while ago would still be let in: its key or token opens what it did.
pub(crate) async fn is_still_let_in(app: &App, caller: &Caller) -> Result<bool, JournalError> {
    let (stores, now) = (&app.api.stores, app.now());
    match (&caller.token, &caller.secret_hash) {
        (Some(token), _) => app.believed.still_holds(&app.keys, stores, token, now).await,
        (None, Some(hash)) => {
            let found = app.keys.key(&*stores.identity, caller.key_id.as_str()).await?;
            Ok(found.is_some_and(|(key, _)| key.is_usable(now) && hash_opens(hash, &key, now)))
        }
        (None, None) => Ok(false),
    }
}

fn challenge(problem: Problem, how: &'static str) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(how));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, grants: &[&str]) -> Caller {
        let grants = grants.iter().map(|text| Grant::parse(text).unwrap()).collect();
        Caller {
            tenant: "acme".into(),
            role,
            key_id: "abcd1234".into(),
            grants,
            secret_hash: None,
            token: None,
            limited_as: role,
            rates: Rates::default(),
            key_ends_at: None,
        }
    }

    #[test]
    fn nothing_that_is_asked_for_widens_what_there_is() {
        let asked = |tenant: Option<&str>| JobFilter { tenant: tenant.map(Into::into), ..JobFilter::default() };
        for role in [Role::User, Role::Analyst] {
            let caller = caller(role, &[]);
            assert!(caller.narrowed(asked(Some("globex"))).is_none());
            for tenant in [None, Some("acme")] {
                let filter = caller.narrowed(asked(tenant)).unwrap();
                assert_eq!(filter.tenant, Some("acme".into()));
                assert_eq!(filter.key_id.is_some(), role == Role::User);
            }
        }
        let over = caller(Role::Operator, &[]);
        assert_eq!(over.narrowed(asked(Some("globex"))).unwrap().tenant, Some("globex".into()));
        assert_eq!(over.within(), Within::default());
    }

    #[test]
    fn nobody_hands_out_more_than_it_has() {
        let all = caller(Role::Admin, &[]);
        all.check_hands_out(Role::Admin, &[]).unwrap();
        assert!(caller(Role::Operator, &[]).check_hands_out(Role::Admin, &[]).is_err());
        let keys = caller(Role::Admin, &["keys:*", "jobs:read"]);
        let grants = |texts: &[&str]| texts.iter().map(|text| Grant::parse(text).unwrap()).collect::<Vec<_>>();
        keys.check_hands_out(Role::Admin, &grants(&["keys:write", "jobs:read"])).unwrap();
        for more in [&[][..], &["jobs:*"], &["keys:read", "money:read"], &["*:*"]] {
            assert!(keys.check_hands_out(Role::User, &grants(more)).is_err(), "{more:?}");
        }
    }
}
