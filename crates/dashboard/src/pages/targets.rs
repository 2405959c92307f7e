use axum::Router;

use crate::Dashboard;

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
}
