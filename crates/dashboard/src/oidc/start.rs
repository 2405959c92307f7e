//! The way to the provider.

use axum::{
    extract::State,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Redirect, Response},
};

use super::{
    CALLBACK, Oidc,
    callback::Failed,
    flow::{self, Flow, LIFE_S},
    forget_way,
};
use crate::{Dashboard, client::query, form::with_cookies, login};

/// Begins a sign-in: a link, and no form, since browsers hold `form-action` against what a form is redirected to.
pub(super) async fn start(State(dashboard): State<Dashboard>, parts: Parts) -> Response {
    let next = login::next_of(&parts);
    let Some(oidc) = &dashboard.oidc else {
        let login = Redirect::to(&format!("/dashboard/login{}", query(&[("next", &next)])));
        return with_cookies(login.into_response(), [forget_way()]);
    };
    match begun(oidc, next).await {
        Ok(response) => response,
        Err(why) => {
            tracing::warn!(reason = %why, "nobody can sign in with the identity provider");
            Failed::new(StatusCode::BAD_GATEWAY, why).page(oidc, &parts)
        }
    }
}

async fn begun(oidc: &Oidc, next: String) -> Result<Response, String> {
    let flow = Flow::begin(next);
    let endpoint = oidc.description().await?.authorization()?;
    let address = flow.address(endpoint, &oidc.settings.client_id, &oidc.at(CALLBACK), &oidc.settings.scopes.join(" "));
    let cookie = flow::cookie(&flow.kept(), LIFE_S, oidc.is_https()).ok_or("the sign-in has no cookie")?;
    Ok(with_cookies(Redirect::to(address.as_str()).into_response(), [cookie]))
}
