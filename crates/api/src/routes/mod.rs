//! The routes, by what they are about, and the document that is generated from them.

mod archives;
mod audit;
mod backups;
mod batches;
mod budgets;
mod bulk;
mod costs;
mod credentials;
mod dead_letters;
mod deliveries;
pub(crate) mod docs;
mod erasures;
mod events;
pub(crate) mod health;
mod history;
mod inspect;
mod jobs;
mod keys;
mod limits;
mod list;
mod log_level;
mod maintenance;
mod metrics;
mod operations;
pub(crate) mod queues;
mod retention;
mod schedules;
mod steer;
mod targets;
mod tenants;
mod tokens;
mod upkeep;
mod usage;
mod webhooks;
mod whoami;
mod why;
mod workers;

use axum::middleware;
use queue_core::traces;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::Shared, auth, problem, traced};

#[derive(OpenApi)]
#[openapi(
    info(title = "Longshore", description = "A durable job queue and worker runtime for LLM work."),
    modifiers(&Bearer),
    components(schemas(problem::Document)),
    tags(
        (name = "jobs", description = "Submit jobs, look at them, wait for them, steer them."),
        (name = "schedules", description = "Jobs that are submitted by the clock."),
        (name = "queues", description = "Depths, pauses and limits."),
        (name = "targets", description = "Providers' models: pauses and breakers."),
        (name = "tenants", description = "Whose jobs they are."),
        (name = "keys", description = "Who may call this API. What each role may do stands at every route as `x-longshore-role`."),
        (name = "credentials", description = "Tenants' own provider keys, which can be set and never read."),
        (name = "dead letters", description = "Jobs that ended without a result."),
        (name = "operations", description = "One thing done to many jobs: at a rate, abortable, and whoever dies."),
        (name = "backups", description = "Backups and drills that schedulers carry out."),
        (name = "webhooks", description = "Who is told of what, and what was delivered."),
        (name = "audit", description = "What was done by whom, in a chain of hashes."),
        (name = "money", description = "What was spent, and on what."),
        (name = "system", description = "Workers, health, metrics and this document."),
    )
)]
struct Described;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("lsk_<id>_<secret>, or a JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The OpenAPI 3.1 document of every route, as `/openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    docs::dressed(open().merge(keyed()).into_openapi(), env!("CARGO_PKG_VERSION"))
}

/// Every documented route; those below `/v1` behind a key.
pub(crate) fn all(app: &Shared) -> OpenApiRouter<Shared> {
    let keyed = match traces::is_on() {
        true => keyed().route_layer(middleware::from_fn(traced::submits)),
        false => keyed(),
    };
    open().merge(keyed.route_layer(middleware::from_fn_with_state(app.clone(), auth::require)))
}

fn open() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::startupz))
        .routes(routes!(health::health))
        .routes(routes!(metrics::metrics))
}

fn keyed() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list::list, jobs::submit))
        .routes(routes!(bulk::submit))
        .routes(routes!(jobs::get, steer::patch))
        .routes(routes!(jobs::payload))
        .routes(routes!(jobs::result))
        .routes(routes!(jobs::attempts))
        .routes(routes!(jobs::calls))
        .routes(routes!(events::events))
        .routes(routes!(why::why))
        .routes(routes!(steer::cancel))
        .routes(routes!(queues::list))
        .routes(routes!(queues::metrics))
        .routes(routes!(history::history))
        .routes(routes!(queues::get, queues::patch))
        .routes(routes!(inspect::inspect))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::groups))
        .routes(routes!(dead_letters::get))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(archives::list))
        .routes(routes!(archives::restore))
        .routes(routes!(backups::list, backups::create))
        .routes(routes!(backups::get))
        .routes(routes!(backups::verify))
        .routes(routes!(operations::list, operations::begin))
        .routes(routes!(operations::get, operations::abort))
        .routes(routes!(batches::get))
        .routes(routes!(schedules::list, schedules::create))
        .routes(routes!(schedules::preview))
        .routes(routes!(schedules::get, schedules::patch, schedules::delete))
        .routes(routes!(schedules::backfill::begin, schedules::backfill::end))
        .routes(routes!(costs::costs))
        .routes(routes!(targets::list))
        .routes(routes!(targets::get, targets::patch))
        .routes(routes!(tenants::list))
        .routes(routes!(tenants::get, tenants::put, tenants::patch))
        .routes(routes!(erasures::erase))
        .routes(routes!(erasures::list, erasures::replay))
        .routes(routes!(budgets::list))
        .routes(routes!(budgets::get_all, budgets::put_all))
        .routes(routes!(budgets::get_tenant, budgets::put_tenant))
        .routes(routes!(budgets::get_key, budgets::put_key))
        .routes(routes!(keys::list, keys::create, keys::revoke_all))
        .routes(routes!(keys::get, keys::patch, keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(whoami::whoami))
        .routes(routes!(tokens::create, tokens::end))
        .routes(routes!(tokens::revoke))
        .routes(routes!(usage::usage))
        .routes(routes!(credentials::of_tenant, credentials::put_named))
        .routes(routes!(credentials::get, credentials::put, credentials::patch, credentials::delete))
        .routes(routes!(credentials::report))
        .routes(routes!(credentials::rewrap))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::get, webhooks::patch, webhooks::delete))
        .routes(routes!(webhooks::rotate_secret))
        .routes(routes!(webhooks::rotate_of_tenant))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::get))
        .routes(routes!(deliveries::replay))
        .routes(routes!(audit::list))
        .routes(routes!(audit::heads))
        .routes(routes!(workers::list))
        .routes(routes!(workers::drain))
        .routes(routes!(maintenance::get, maintenance::put))
        .routes(routes!(log_level::get, log_level::put))
        .routes(routes!(upkeep::report))
        .routes(routes!(upkeep::run))
        .routes(routes!(retention::get))
        .routes(routes!(retention::run))
        .routes(routes!(limits::list))
        .routes(routes!(limits::get, limits::put))
}
