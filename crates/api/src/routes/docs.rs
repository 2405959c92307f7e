//! `/openapi.json` and the pages at `/docs`, which need no outside address.

use std::sync::{Arc, OnceLock};

use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderValue, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use crate::{
    access,
    app::Shared,
    observe,
    problem::{Cause, Problem},
};

/// What the pages may load: themselves. Their style is set inline by the vendored script.
const CONTENT_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     frame-ancestors 'none'";

/// The routes that are not in the document: the document itself and its pages.
pub(crate) fn routes(document: OpenApi, version: &str) -> Router<Shared> {
    let document = Arc::new(dressed(document, version));
    Router::new()
        .route("/openapi.json", get(move || async move { Json(document) }))
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(page))
        .route("/docs/{*file}", get(page))
}

/// The document with its version, and with what each route asks of its callers.
pub(crate) fn dressed(mut document: OpenApi, version: &str) -> OpenApi {
    document.info.version = version.to_owned();
    access::describe(&mut document);
    document
}

async fn page(request: Request) -> Response {
    let file = request.uri().path().strip_prefix("/docs/").unwrap_or_default().to_owned();
    let found = utoipa_swagger_ui::serve(&file, config()).map_err(|error| {
        tracing::error!(%error, "a page of the documentation cannot be served");
        Problem::new(Cause::Internal, "the page cannot be served")
    });
    match found {
        Ok(Some(found)) => {
            let mut response = found.bytes.into_owned().into_response();
            if let Ok(kind) = HeaderValue::from_str(&found.content_type) {
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
            response
        }
        Ok(None) => observe::no_route(request).await.into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn config() -> Arc<Config<'static>> {
    static CONFIG: OnceLock<Arc<Config<'static>>> = OnceLock::new();
    // The pages would send the document to an online validator otherwise.
    CONFIG.get_or_init(|| Arc::new(Config::from("/openapi.json").validator_url("none"))).clone()
}
