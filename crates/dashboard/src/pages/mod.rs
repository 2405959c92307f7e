//! The pages, one file each. `routes()` of each names its addresses; all are asked for by a [`Visit`](crate::viewer::Visit) and
//! answered by a template.

mod audit;
mod backups;
mod budgets;
mod costs;
mod dead_letters;
mod filled;
mod history;
mod job;
mod jobs;
mod keys;
mod operations;
mod overview;
mod part;
mod queues;
mod schedules;
mod targets;
mod tenants;
mod webhooks;
mod workers;

use axum::{Router, routing::any};

use crate::{Dashboard, guard};

/// All of them.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .merge(overview::routes())
        .merge(queues::routes())
        .merge(jobs::routes())
        .merge(job::routes())
        .merge(dead_letters::routes())
        .merge(operations::routes())
        .merge(workers::routes())
        .merge(schedules::routes())
        .merge(costs::routes())
        .merge(targets::routes())
        .merge(tenants::routes())
        .merge(webhooks::routes())
        .merge(audit::routes())
        .merge(backups::routes())
        .route("/dashboard/{*rest}", any(guard::no_page))
        .method_not_allowed_fallback(guard::no_method)
}
