//! API keys: made (their secret is shown once), looked at, rotated, limited and taken back.

use askama::Template;
use axum::{
    Router,
    extract::Path,
    http::Method,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    budgets::{self, Budget},
    filled::{Asked, Filled, code_of, page_with},
    part::part,
    tenants::{self, Forms, told_once},
};
use crate::{
    Dashboard,
    client::{Refused, path, query},
    form::{Flash, Posted, done},
    page::Shell,
    viewer::{Viewer, Visit},
};

/// Roles, each of which may do what those before it may.
const ROLES: [&str; 4] = ["user", "analyst", "operator", "admin"];
/// Fields of a new key.
const FIELDS: [&str; 6] = ["name", "role", "scopes", "expires_at", "requests_per_minute", "llm_submits_per_minute"];
/// How often a key may ask.
const RATES: [&str; 2] = ["requests_per_minute", "llm_submits_per_minute"];

pub(super) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/keys/{key}", get(find))
        .route("/dashboard/tenants/{tenant}/keys", post(create))
        .route("/dashboard/tenants/{tenant}/revoke-keys", post(revoke_all))
        .route("/dashboard/tenants/{tenant}/keys/{key}", get(show))
        .route("/dashboard/tenants/{tenant}/keys/{key}/rotate", post(rotate))
        .route("/dashboard/tenants/{tenant}/keys/{key}/limits", post(limit))
        .route("/dashboard/tenants/{tenant}/keys/{key}/budget", post(set_budget))
        .route("/dashboard/tenants/{tenant}/keys/{key}/revoke", post(revoke))
}

/// A page of keys.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) keys: Vec<Key>,
    pub(super) next_cursor: Option<String>,
}

/// An API key, without its secret.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: String,
    pub(super) tenant: String,
    pub(super) scopes: Vec<String>,
    pub(super) state: String,
    pub(super) created_at: String,
    pub(super) expires_at: Option<String>,
    pub(super) rotated_at: Option<String>,
    pub(super) previous_until: Option<String>,
    pub(super) revoked_at: Option<String>,
    pub(super) last_used_at: Option<String>,
    pub(super) requests_per_minute: Option<u64>,
    pub(super) llm_submits_per_minute: Option<u64>,
}

impl Key {
    pub(super) fn href(&self) -> String {
        here(&self.tenant, &self.id)
    }

    pub(super) fn is_active(&self) -> bool {
        self.state == "active"
    }
}

/// Keys that can be used before those that cannot, the last used first.
pub(super) fn in_order(mut keys: Vec<Key>) -> Vec<Key> {
    // Times of the API sort as text.
    keys.sort_by(|a, b| b.is_active().cmp(&a.is_active()).then_with(|| b.last_used_at.cmp(&a.last_used_at)));
    keys
}

/// The roles that a caller may give.
pub(super) fn roles_below(role: &str) -> Vec<&'static str> {
    let most = ROLES.iter().position(|known| *known == role).unwrap_or(0);
    ROLES[..=most].to_vec()
}

/// The form of a new key. It ends no later than the viewer's own.
pub(super) fn blank(viewer: &Viewer) -> Filled {
    let form = FIELDS.iter().fold(Filled::new("key"), |form, name| form.with(name, ""));
    form.with("role", "user").with_some("expires_at", viewer.expires_at.as_ref())
}

fn here(tenant: &str, key: &str) -> String {
    path(&["dashboard", "tenants", tenant, "keys", key])
}

/// The page of a key whose tenant the address does not say.
async fn find(visit: Visit, Path(id): Path<String>) -> Result<Response, Refused> {
    let key: Key = visit.client.get(&path(&["v1", "keys", &id])).await?;
    Ok(Redirect::to(&key.href()).into_response())
}

/// A key with its secret.
#[derive(Deserialize)]
struct Made {
    key: String,
    id: String,
    name: String,
    role: String,
    previous_until: Option<String>,
}

async fn create(Path(tenant): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default()
        .with("tenant", &*tenant)
        .texts(&posted, &["name", "role"])
        .words(&posted, "scopes")
        .moment(&posted, "expires_at")
        .numbers(&posted, &RATES);
    match posted.visit.client.send::<Made>(Method::POST, "/v1/keys", Some(&body.body())).await {
        Ok(made) => {
            let title = format!("Key {} for {tenant}", made.id);
            let what = format!("{} ({}) can be used now.", made.name, made.role);
            let back = here(&tenant, &made.id);
            Ok(told_once(posted.visit.shell, title, what, vec![("Key", made.key)], back))
        }
        Err(refused) => {
            let key = Filled::back("key", &posted, &FIELDS, refused)?;
            tenants::page(posted.visit, &tenant, Forms::key(key)).await
        }
    }
}

async fn revoke_all(Path(tenant): Path<String>, posted: Posted) -> Result<Response, Refused> {
    #[derive(Deserialize)]
    struct Revoked {
        revoked: Vec<String>,
    }
    let answer = match posted.confirmed("confirm", &tenant) {
        Ok(()) => {
            let place = format!("/v1/keys{}", query(&[("tenant", &tenant)]));
            posted.visit.client.send::<Revoked>(Method::DELETE, &place, None).await
        }
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(Revoked { revoked }) => {
            let told = format!("{} of {tenant} taken back.", crate::words::plural(revoked.len() as u64, "key"));
            Ok(done(&tenants::here(&tenant), Flash::good(told)))
        }
        Err(refused) => tenants::page(posted.visit, &tenant, Forms::refused(refused)?).await,
    }
}

/// The forms of a key's page.
#[derive(Default)]
struct KeyForms {
    limits: Option<Filled>,
    budget: Option<Filled>,
    rotate: Option<Filled>,
    revoke: Option<Filled>,
}

#[derive(Template)]
#[template(path = "key.html")]
struct KeyPage {
    shell: Shell,
    key: Key,
    budget: Option<Budget>,
    limits: Filled,
    budget_form: Filled,
    rotate: Filled,
    revoke: Filled,
}

impl KeyPage {
    /// An address below the key's.
    fn at(&self, what: &str) -> String {
        format!("{}/{what}", self.key.href())
    }

    fn tenant_href(&self) -> String {
        tenants::here(&self.key.tenant)
    }

    fn audit_href(&self) -> String {
        format!("/dashboard/audit{}", query(&[("actor", &self.key.id)]))
    }
}

async fn show(visit: Visit, Path((_, id)): Path<(String, String)>) -> Result<Response, Refused> {
    page(visit, &id, KeyForms::default()).await
}

async fn page(visit: Visit, id: &str, forms: KeyForms) -> Result<Response, Refused> {
    let (place, budgeted) = (path(&["v1", "keys", id]), path(&["v1", "keys", id, "budget"]));
    let (key, budget) = tokio::try_join!(
        visit.client.get::<Key>(&place),
        part::<Budget>(&visit, "GET /v1/keys/{key}/budget", &budgeted),
    )?;
    let KeyForms { limits, budget: budget_form, rotate, revoke } = forms;
    let limits = limits.unwrap_or_else(|| {
        Filled::new("limits")
            .with_some("requests_per_minute", key.requests_per_minute)
            .with_some("llm_submits_per_minute", key.llm_submits_per_minute)
    });
    let budget_form = budget_form.unwrap_or_else(|| budget.clone().unwrap_or_default().form("budget"));
    let rotate = rotate.unwrap_or_else(|| Filled::new("rotate").with("overlap", "24h"));
    let revoke = revoke.unwrap_or_else(|| Filled::new("revoke"));
    let code = code_of(&[&limits, &budget_form, &rotate, &revoke]);
    Ok(page_with(code, visit.shell, |shell| KeyPage { shell, key, budget, limits, budget_form, rotate, revoke }))
}

async fn rotate(Path((tenant, id)): Path<(String, String)>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().texts(&posted, &["overlap"]).body();
    let place = path(&["v1", "keys", &id, "rotate"]);
    match posted.visit.client.send::<Made>(Method::POST, &place, Some(&body)).await {
        Ok(made) => {
            let what = match made.previous_until {
                Some(until) => format!("The former secret opens beside this one until {until}."),
                None => "The former secret opens nothing any more.".to_owned(),
            };
            let title = format!("New secret of key {id}");
            Ok(told_once(posted.visit.shell, title, what, vec![("Key", made.key)], here(&tenant, &id)))
        }
        Err(refused) => {
            let rotate = Filled::back("rotate", &posted, &["overlap"], refused)?;
            page(posted.visit, &id, KeyForms { rotate: Some(rotate), ..KeyForms::default() }).await
        }
    }
}

async fn limit(Path((tenant, id)): Path<(String, String)>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().numbers_or_null(&posted, &RATES).body();
    match posted.visit.client.send::<Key>(Method::PATCH, &path(&["v1", "keys", &id]), Some(&body)).await {
        Ok(_) => Ok(done(&here(&tenant, &id), Flash::good("The limits of the key are set."))),
        Err(refused) => {
            let limits = Filled::back("limits", &posted, &RATES, refused)?;
            page(posted.visit, &id, KeyForms { limits: Some(limits), ..KeyForms::default() }).await
        }
    }
}

async fn set_budget(Path((tenant, id)): Path<(String, String)>, posted: Posted) -> Result<Response, Refused> {
    let place = path(&["v1", "keys", &id, "budget"]);
    match budgets::set(&posted.visit.client, &place, "budget", &posted).await? {
        None => Ok(done(&here(&tenant, &id), Flash::good("The budget of the key is set."))),
        Some(form) => page(posted.visit, &id, KeyForms { budget: Some(form), ..KeyForms::default() }).await,
    }
}

async fn revoke(Path((tenant, id)): Path<(String, String)>, posted: Posted) -> Result<Response, Refused> {
    let answer = match posted.confirmed("confirm", &id) {
        Ok(()) => posted.visit.client.send(Method::DELETE, &path(&["v1", "keys", &id]), None).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => {
            Ok(done(&here(&tenant, &id), Flash::good(format!("Key {id} is taken back: it opens nothing any more."))))
        }
        Err(refused) => {
            let revoke = Filled::back("revoke", &posted, &["confirm"], refused)?;
            page(posted.visit, &id, KeyForms { revoke: Some(revoke), ..KeyForms::default() }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_offered_a_role_above_its_own() {
        assert_eq!(roles_below("analyst"), ["user", "analyst"]);
        assert_eq!(roles_below("admin").len(), 4);
        assert_eq!(roles_below("somebody new"), ["user"]);
    }

    #[test]
    fn keys_in_use_come_first() {
        let key = |id: &str, state: &str, used: Option<&str>| Key {
            id: id.into(),
            state: state.into(),
            last_used_at: used.map(Into::into),
            ..Key::default()
        };
        let keys = in_order(vec![
            key("never", "active", None),
            key("gone", "revoked", Some("2026-11-30T10:00:00Z")),
            key("old", "active", Some("2026-11-01T10:00:00Z")),
            key("new", "active", Some("2026-11-29T10:00:00Z")),
        ]);
        assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["new", "old", "never", "gone"]);
    }
}
