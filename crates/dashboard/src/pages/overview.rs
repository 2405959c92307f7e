//! The first page.

use askama::Template;
use axum::{Router, response::Response, routing::get};

use crate::{
    Dashboard,
    client::Refused,
    page::{Shell, html},
    viewer::Visit,
};

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
}

/// Its address.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new().route("/dashboard", get(overview))
}

async fn overview(visit: Visit) -> Result<Response, Refused> {
    Ok(html(OverviewPage { shell: visit.shell }))
}
