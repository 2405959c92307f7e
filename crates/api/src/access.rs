//! Who may do what: one row for each route, which is enforced before its handler runs and written into the document.
//!
//! **To add a route**, register it in `routes/mod.rs` and add one line to [`TABLE`]: its method and path as they are
//! registered, the least role, the area and act that a key's scopes name, and whom it shows what:
//!
//! ```text
//! on("GET /v1/workers", Operator, "system:read", Everywhere),
//! ```
//!
//! A route without a row refuses everybody, and the tests `permissions` and `isolation` name it. `Own` and `Tenant` are
//! promises of the handler: it takes the [`Caller`], reads jobs by `view::row(app, caller, id)` and everything else by
//! [`Caller::reads`] within [`Caller::within`]. A `{tenant}` in the path is checked here.

use std::{collections::HashMap, sync::LazyLock};

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request},
    http::Method,
};
use queue_core::{
    ids::Name,
    journal::{
        Grant,
        Role::{self, Admin, Analyst, Operator, User},
    },
};
use utoipa::openapi::{
    Content, OpenApi, PathItem, Ref, RefOr, ResponseBuilder, extensions::Extensions, path::Operation,
};

use self::Bound::{Everywhere, Own, Tenant};
use crate::{
    app::Shared,
    auth::Caller,
    problem::{self, Cause, Problem},
    request_limits,
};

/// Whom a route shows what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Jobs: a `user` its own, an `analyst` those of its tenant. What belongs to others is not there (404).
    Own,
    /// Something of a tenant: roles that are bound to one see no other (404).
    Tenant,
    /// Something of all tenants: for roles over them.
    Everywhere,
}

impl Bound {
    fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Tenant => "tenant",
            Self::Everywhere => "everywhere",
        }
    }
}

/// What a route asks of its callers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Method and path.
    route: &'static str,
    /// The least role.
    pub(crate) least: Role,
    /// Area and act.
    pub(crate) scope: &'static str,
    /// Whom it shows what.
    pub(crate) bound: Bound,
}

impl Row {
    /// Whether it is about the caller's own key or token and nothing else: who it is, and that it leaves. No scope is asked for,
    /// so that a key with few of them can find out which.
    pub(crate) fn is_about_oneself(&self) -> bool {
        matches!(self.route, "GET /v1/auth/whoami" | "DELETE /v1/auth/token")
    }
}

const fn on(route: &'static str, least: Role, scope: &'static str, bound: Bound) -> Row {
    Row { route, least, scope, bound }
}

/// The scope of erasing: the only changes that may be made to a tenant that is erased.
const ERASE: &str = "tenants:erase";

/// Every route below `/v1`.
#[rustfmt::skip] // one line a route
const TABLE: &[Row] = &[
    on("POST /v1/jobs", User, "jobs:submit", Own),
    on("POST /v1/jobs/bulk", User, "jobs:submit", Own),
    on("GET /v1/jobs", User, "jobs:read", Own),
    on("GET /v1/jobs/{id}", User, "jobs:read", Own),
    on("GET /v1/jobs/{id}/payload", User, "jobs:read", Own),
    on("GET /v1/jobs/{id}/result", User, "jobs:read", Own),
    on("GET /v1/jobs/{id}/attempts", User, "jobs:read", Own),
    on("GET /v1/jobs/{id}/calls", User, "jobs:read", Own),
    on("GET /v1/jobs/{id}/events", User, "jobs:read", Own),
    on("GET /v1/jobs/{id}/why", User, "jobs:read", Own),
    on("POST /v1/jobs/{id}/cancel", User, "jobs:write", Own),
    on("PATCH /v1/jobs/{id}", Analyst, "jobs:write", Own),
    on("GET /v1/batches/{id}", User, "jobs:read", Own),
    on("GET /v1/dead-letters", User, "jobs:read", Own),
    on("GET /v1/dead-letters/groups", User, "jobs:read", Own),
    on("GET /v1/dead-letters/{id}", User, "jobs:read", Own),
    on("POST /v1/dead-letters/{id}/redrive", Analyst, "jobs:write", Own),
    on("GET /v1/archives", Operator, "operations:read", Everywhere),
    on("POST /v1/archives/{id}/restore", Operator, "operations:write", Everywhere),

    // A schedule goes on spending when whoever made it is gone, and its template is shown to whoever may change it: for those who
    // see all jobs of their tenant anyway, and not for keys that see only their own.
    on("GET /v1/schedules", Analyst, "schedules:read", Tenant),
    on("POST /v1/schedules", Analyst, "schedules:write", Tenant),
    on("GET /v1/schedules/preview", Analyst, "schedules:read", Tenant),
    on("GET /v1/schedules/{id}", Analyst, "schedules:read", Tenant),
    on("PATCH /v1/schedules/{id}", Analyst, "schedules:write", Tenant),
    on("DELETE /v1/schedules/{id}", Analyst, "schedules:write", Tenant),
    on("POST /v1/schedules/{id}/backfill", Analyst, "schedules:write", Tenant),
    on("DELETE /v1/schedules/{id}/backfill", Analyst, "schedules:write", Tenant),

    on("GET /v1/costs", Analyst, "money:read", Tenant),
    on("GET /v1/tenants/{tenant}/usage", Analyst, "money:read", Tenant),
    on("GET /v1/tenants/{tenant}/budget", Analyst, "money:read", Tenant),
    on("PUT /v1/tenants/{tenant}/budget", Admin, "money:write", Everywhere),
    on("GET /v1/keys/{key}/budget", Analyst, "money:read", Tenant),
    on("PUT /v1/keys/{key}/budget", Admin, "money:write", Everywhere),
    on("GET /v1/budgets", Operator, "money:read", Everywhere),
    on("GET /v1/budget", Operator, "money:read", Everywhere),
    on("PUT /v1/budget", Admin, "money:write", Everywhere),

    on("GET /v1/queues", Operator, "queues:read", Everywhere),
    on("GET /v1/queues/metrics", Operator, "queues:read", Everywhere),
    on("GET /v1/queues/metrics/history", Operator, "queues:read", Everywhere),
    on("GET /v1/queues/{queue}", Operator, "queues:read", Everywhere),
    on("GET /v1/queues/{queue}/inspect", Operator, "queues:read", Everywhere),
    on("PATCH /v1/queues/{queue}", Operator, "queues:write", Everywhere),
    on("GET /v1/targets", Operator, "targets:read", Everywhere),
    on("GET /v1/targets/{target}", Operator, "targets:read", Everywhere),
    on("PATCH /v1/targets/{target}", Operator, "targets:write", Everywhere),
    on("GET /v1/limits", Operator, "targets:read", Everywhere),
    on("GET /v1/limits/{target}", Operator, "targets:read", Everywhere),
    on("PUT /v1/limits/{target}", Operator, "targets:write", Everywhere),
    on("GET /v1/workers", Operator, "system:read", Everywhere),
    on("POST /v1/workers/{id}/drain", Operator, "system:write", Everywhere),
    on("GET /v1/maintenance", Operator, "system:read", Everywhere),
    on("PUT /v1/maintenance", Admin, "system:write", Everywhere),
    on("GET /v1/log-level", Operator, "system:read", Everywhere),
    on("PUT /v1/log-level", Admin, "system:write", Everywhere),
    on("GET /v1/backups", Operator, "backups:read", Everywhere),
    on("POST /v1/backups", Admin, "backups:write", Everywhere),
    on("GET /v1/backups/{id}", Operator, "backups:read", Everywhere),
    on("POST /v1/backups/{id}/verify", Admin, "backups:write", Everywhere),
    on("GET /v1/maintenance/report", Operator, "system:read", Everywhere),
    on("POST /v1/maintenance/run", Operator, "system:write", Everywhere),
    on("GET /v1/retention", Operator, "system:read", Everywhere),
    on("POST /v1/retention/run", Operator, "system:write", Everywhere),
    on("GET /v1/operations", Operator, "operations:read", Everywhere),
    on("POST /v1/operations", Operator, "operations:write", Everywhere),
    on("GET /v1/operations/{id}", Operator, "operations:read", Everywhere),
    on("DELETE /v1/operations/{id}", Operator, "operations:write", Everywhere),

    on("GET /v1/tenants", Operator, "tenants:read", Everywhere),
    on("GET /v1/tenants/{tenant}", Analyst, "tenants:read", Tenant),
    on("PUT /v1/tenants/{tenant}", Admin, "tenants:write", Everywhere),
    on("PATCH /v1/tenants/{tenant}", Admin, "tenants:write", Everywhere),
    on("POST /v1/tenants/{tenant}/erase", Admin, "tenants:erase", Everywhere),
    on("GET /v1/erasures", Admin, "tenants:erase", Everywhere),
    on("POST /v1/erasures", Admin, "tenants:erase", Everywhere),
    on("GET /v1/credentials", Admin, "credentials:read", Everywhere),
    on("POST /v1/credentials/rewrap", Admin, "credentials:write", Everywhere),
    on("GET /v1/tenants/{tenant}/credentials", Admin, "credentials:read", Everywhere),
    on("PUT /v1/tenants/{tenant}/credentials", Admin, "credentials:write", Everywhere),
    on("GET /v1/tenants/{tenant}/credentials/{provider}", Admin, "credentials:read", Everywhere),
    on("PUT /v1/tenants/{tenant}/credentials/{provider}", Admin, "credentials:write", Everywhere),
    on("PATCH /v1/tenants/{tenant}/credentials/{provider}", Admin, "credentials:write", Everywhere),
    on("DELETE /v1/tenants/{tenant}/credentials/{provider}", Admin, "credentials:write", Everywhere),
    on("GET /v1/webhooks", Operator, "webhooks:read", Everywhere),
    on("POST /v1/webhooks", Admin, "webhooks:write", Everywhere),
    on("GET /v1/webhooks/{id}", Operator, "webhooks:read", Everywhere),
    on("PATCH /v1/webhooks/{id}", Admin, "webhooks:write", Everywhere),
    on("DELETE /v1/webhooks/{id}", Admin, "webhooks:write", Everywhere),
    on("POST /v1/webhooks/{id}/rotate-secret", Admin, "webhooks:write", Everywhere),
    on("POST /v1/tenants/{tenant}/signing-secret", Admin, "webhooks:write", Everywhere),
    on("GET /v1/webhook-deliveries", Operator, "webhooks:read", Everywhere),
    on("GET /v1/webhook-deliveries/{id}", Operator, "webhooks:read", Everywhere),
    on("POST /v1/webhook-deliveries/{id}/replay", Operator, "webhooks:replay", Everywhere),

    on("GET /v1/audit", Admin, "audit:read", Everywhere),
    on("GET /v1/audit/heads", Admin, "audit:read", Everywhere),

    on("GET /v1/keys", Admin, "keys:read", Everywhere),
    on("POST /v1/keys", Admin, "keys:write", Everywhere),
    on("DELETE /v1/keys", Admin, "keys:write", Everywhere),
    on("GET /v1/keys/{key}", Admin, "keys:read", Everywhere),
    on("PATCH /v1/keys/{key}", Admin, "keys:write", Everywhere),
    on("DELETE /v1/keys/{key}", Admin, "keys:write", Everywhere),
    on("POST /v1/keys/{key}/rotate", Admin, "keys:write", Everywhere),
    on("GET /v1/auth/whoami", User, "auth:read", Own),
    on("POST /v1/auth/token", User, "auth:token", Own),
    on("DELETE /v1/auth/token", User, "auth:token", Own),
    on("POST /v1/auth/revocations", Admin, "auth:write", Everywhere),
];

static BY_ROUTE: LazyLock<HashMap<(&'static str, &'static str), &'static Row>> =
    LazyLock::new(|| TABLE.iter().filter_map(|row| Some((row.route.split_once(' ')?, row))).collect());

/// The row of a route; none for one that nobody has decided about.
fn row_of(method: &str, path: &str) -> Option<&'static Row> {
    // What answers GET answers HEAD, too.
    let method = if method == "HEAD" { "GET" } else { method };
    BY_ROUTE.get(&(method, path)).copied()
}

/// The routes that a caller may call at all: what there is behind them for it, each decides.
pub(crate) fn open_to(caller: &Caller) -> Vec<&'static str> {
    TABLE.iter().filter(|row| caller.may(row).is_ok()).map(|row| row.route).collect()
}

/// The request, if its caller may make it.
pub(crate) async fn permitted(app: &Shared, caller: &Caller, request: Request) -> Result<Request, Problem> {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let Some(row) = row_of(request.method().as_str(), &path) else {
        tracing::error!(method = %request.method(), path, "a route has no row in the table of permissions");
        return Err(Problem::new(Cause::Forbidden, "nobody may do this: the route has no permission yet"));
    };
    caller.may(row)?;
    let changes = ![Method::GET, Method::HEAD].contains(request.method()) && row.scope != ERASE;
    if !path.contains("{tenant}") || (caller.bound().is_none() && !changes) {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let params = RawPathParams::from_request_parts(&mut parts, app)
        .await
        .map_err(|error| Problem::new(Cause::BadRequest, "the path cannot be read").at("/path", error.body_text()))?;
    if let Some((_, named)) = params.iter().find(|(name, _)| *name == "tenant") {
        if caller.bound().is_some_and(|tenant| tenant.as_str() != named) {
            return Err(Problem::no_tenant(named));
        }
        if changes {
            app.policy().await?.check_tenant(&Name::from(named))?;
        }
    }
    Ok(Request::from_parts(parts, body))
}

/// The words that a scope may consist of, as the table has them.
pub(crate) fn check_grant(text: &str) -> Result<Grant, String> {
    let grant = Grant::parse(text)?;
    let means_something = TABLE.iter().any(|row| Grant::parse(row.scope).is_ok_and(|scope| grant.covers(&scope)));
    if means_something {
        return Ok(grant);
    }
    let mut known: Vec<_> = TABLE.iter().map(|row| row.scope).collect();
    known.sort_unstable();
    known.dedup();
    Err(format!("`{text}` is no scope; there are {}, and `*` for either part", known.join(", ")))
}

/// Writes the table into the document: `x-longshore-role`, `x-longshore-scope`, `x-longshore-bound`, and the answers that
/// every route has.
pub(crate) fn describe(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            if let Some(row) = row_of(method.as_str(), path) {
                let words = [
                    ("x-longshore-role", row.least.as_str()),
                    ("x-longshore-scope", row.scope),
                    ("x-longshore-bound", row.bound.as_str()),
                ];
                operation.extensions.get_or_insert_default().merge(Extensions::from_iter(words));
                let needed = format!("the caller's role or scopes are not enough: `{}`, `{}`", row.least, row.scope);
                let (has_names, has_body) = (path.contains('{'), operation.request_body.is_some());
                for (status, description, applies) in [
                    ("400", "the request cannot be read", true),
                    ("401", "no key, or one that is not valid", true),
                    ("403", &*needed, true),
                    ("404", "there is no such thing, or not for the caller", has_names),
                    ("408", "the body took too long to arrive", has_body),
                    ("413", "the body is too large", has_body),
                    ("414", "the address is too long", true),
                    ("415", "the body is of another media type or encoding", has_body),
                    ("422", "a parameter or a field is wrong; `errors` says which, and why", true),
                    ("429", "the key or the tenant asks too often", true),
                    ("431", "the headers are too many or too large", true),
                    ("500", "something is broken on our side", true),
                    ("503", "not now; `Retry-After` says when", true),
                ] {
                    let responses = &mut operation.responses.responses;
                    if applies && !responses.contains_key(status) {
                        let response = ResponseBuilder::new()
                            .description(description)
                            .content(problem::MEDIA_TYPE, Content::new(Some(Ref::from_schema_name("Problem"))));
                        responses.insert(status.to_owned(), RefOr::T(response.build()));
                    }
                }
                request_limits::describe(&mut operation.responses.responses);
            }
            name_problems(operation);
        }
    }
}

/// Rejections are problem documents: handlers say only what is in them.
fn name_problems(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if status.starts_with(['4', '5'])
            && let Some(content) = response.content.shift_remove("application/json")
        {
            response.content.insert(problem::MEDIA_TYPE.to_owned(), content);
        }
    }
}

/// The operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, item.get.as_mut()),
        (Method::PUT, item.put.as_mut()),
        (Method::POST, item.post.as_mut()),
        (Method::DELETE, item.delete.as_mut()),
        (Method::PATCH, item.patch.as_mut()),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_stands_for_one_documented_route() {
        let mut document = crate::routes::openapi();
        let mut documented = Vec::new();
        for (path, item) in &mut document.paths.paths {
            for (method, _) in operations(item).filter(|_| path.starts_with("/v1")) {
                assert!(row_of(method.as_str(), path).is_some(), "{method} {path} has no row in `access::TABLE`");
                documented.push(format!("{method} {path}"));
            }
        }
        for row in TABLE {
            let found = documented.iter().filter(|route| *route == row.route).count();
            assert_eq!(found, 1, "{} is no route", row.route);
            assert_eq!(TABLE.iter().filter(|other| other.route == row.route).count(), 1, "{} twice", row.route);
        }
    }

    #[test]
    fn what_is_of_all_tenants_is_for_roles_over_them() {
        for row in TABLE {
            assert_eq!(row.bound == Everywhere, !row.least.is_tenant_bound(), "{}", row.route);
            assert!(Grant::parse(row.scope).is_ok(), "{}", row.route);
        }
    }

    #[test]
    fn scopes_are_words_of_the_table() {
        for text in ["jobs:read", "jobs:*", "*:read", "*:*"] {
            assert!(check_grant(text).is_ok(), "{text}");
        }
        for text in ["jobs:rewrap", "money:submit", "cars:*", "*:drive", "jobs"] {
            assert!(check_grant(text).is_err(), "{text}");
        }
    }
}
