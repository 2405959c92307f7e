//! Tenants' own provider keys: which there are, never what they are.

use askama::Template;
use axum::{extract::Path, http::Method, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Forms, here, page};
use crate::{
    client::{Refused, path},
    form::{Flash, Posted, done},
    page::{Shell, html},
    pages::filled::{Asked, Filled},
};

/// Steps of a rewrap that one click takes: each is up to 100 keys.
const STEPS_MAX: usize = 50;

/// The keys of a tenant.
#[derive(Debug, Deserialize)]
pub(super) struct Held {
    pub(super) credentials: Vec<Credential>,
}

/// A tenant's key for a provider, without the key.
#[derive(Debug, Deserialize)]
pub(super) struct Credential {
    pub(super) provider: String,
    pub(super) credential: String,
    pub(super) version: i64,
    pub(super) last4: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) kek_id: String,
    pub(super) readable: bool,
    pub(super) failures: u32,
    pub(super) created_at: String,
    pub(super) rotated_at: String,
    pub(super) last_used_at: Option<String>,
}

impl Credential {
    /// What is told of the key itself.
    pub(super) fn hint(&self) -> String {
        if self.last4.is_empty() { "•••• (short)".to_owned() } else { format!("••••{}", self.last4) }
    }

    /// How it stands.
    pub(super) fn word(&self) -> &str {
        if self.readable { &self.state } else { "unreadable" }
    }
}

/// How the keys of all tenants stand.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    pub(super) credentials: u64,
    pub(super) disabled: u64,
    pub(super) to_rewrap: u64,
    pub(super) unreadable: u64,
    pub(super) unreadable_credentials: Vec<Unread>,
    pub(super) master_keys: Vec<String>,
    pub(super) trouble: Option<String>,
}

/// A key that this server cannot read.
#[derive(Debug, Deserialize)]
pub(super) struct Unread {
    pub(super) tenant: String,
    pub(super) provider: String,
    pub(super) kek_id: String,
    pub(super) reason: String,
}

/// A secret that is shown in this answer and never again.
#[derive(Template)]
#[template(path = "secret.html")]
struct SecretPage {
    shell: Shell,
    title: String,
    what: String,
    /// Their names, and what they are.
    secrets: Vec<(&'static str, String)>,
    back: String,
}

/// The page of secrets: not live, so that nobody asks for it again.
pub(crate) fn told_once(
    shell: Shell,
    title: impl Into<String>,
    what: impl Into<String>,
    secrets: Vec<(&'static str, String)>,
    back: String,
) -> Response {
    html(SecretPage { shell: shell.not_live(), title: title.into(), what: what.into(), secrets, back })
}

fn place(tenant: &str, provider: &str) -> String {
    path(&["v1", "tenants", tenant, "credentials", provider])
}

/// Sets or replaces a key. It goes no further than to the API: a form that was refused comes back without it.
pub(super) async fn set(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().texts(&posted, &["provider", "key"]).body();
    let place = path(&["v1", "tenants", &name, "credentials"]);
    let answer: Result<Value, Refused> = posted.visit.client.send(Method::PUT, &place, Some(&body)).await;
    match answer {
        Ok(_) => Ok(done(&here(&name), Flash::good("The credential is set: calls are made with it within seconds."))),
        Err(refused) => {
            let credential = Filled::back("credential", &posted, &["provider"], refused)?.with("key", "");
            page(posted.visit, &name, Forms { credential: Some(credential), ..Forms::default() }).await
        }
    }
}

pub(super) async fn switch_on(
    Path((name, provider)): Path<(String, String)>,
    posted: Posted,
) -> Result<Response, Refused> {
    let body = json!({ "enabled": true });
    let _: Value = posted.visit.client.send(Method::PATCH, &place(&name, &provider), Some(&body)).await?;
    Ok(done(&here(&name), Flash::good(format!("The credential for {provider} is used again."))))
}

pub(super) async fn switch_off(
    Path((name, provider)): Path<(String, String)>,
    posted: Posted,
) -> Result<Response, Refused> {
    let body = Asked::default().with("enabled", false).texts(&posted, &["reason"]).body();
    let answer: Result<Value, Refused> =
        posted.visit.client.send(Method::PATCH, &place(&name, &provider), Some(&body)).await;
    match answer {
        Ok(_) => Ok(done(&here(&name), Flash::good(format!("The credential for {provider} is used no more.")))),
        Err(refused) => page(posted.visit, &name, Forms::refused(refused)?).await,
    }
}

pub(super) async fn delete(
    Path((name, provider)): Path<(String, String)>,
    posted: Posted,
) -> Result<Response, Refused> {
    let answer: Result<(), Refused> = match posted.confirmed("confirm", &provider) {
        Ok(()) => posted.visit.client.send(Method::DELETE, &place(&name, &provider), None).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => Ok(done(&here(&name), Flash::good(format!("The credential for {provider} is deleted.")))),
        Err(refused) => page(posted.visit, &name, Forms::refused(refused)?).await,
    }
}

/// Wraps all data keys for the current master key, as many as one click may.
pub(super) async fn rewrap(posted: Posted) -> Result<Response, Refused> {
    #[derive(Deserialize)]
    struct Step {
        done: u64,
        left: u64,
        unreadable: u64,
    }
    let mut total = 0;
    for _ in 0..STEPS_MAX {
        let step: Step = posted.visit.client.send(Method::POST, "/v1/credentials/rewrap", None).await?;
        total += step.done;
        if step.left <= step.unreadable {
            let told = format!("{total} keys are wrapped anew; {} cannot be read here.", step.unreadable);
            return Ok(done("/dashboard/tenants", Flash::good(told)));
        }
    }
    Ok(done("/dashboard/tenants", Flash::bad(format!("{total} keys are wrapped anew and some are left: go on."))))
}

/// Gives a tenant another signing secret, or its first.
pub(super) async fn signing_secret(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    #[derive(Deserialize)]
    struct Made {
        secret: String,
        jobs_secret: Option<String>,
        former_until: Option<String>,
    }
    let body = Asked::default().texts(&posted, &["overlap"]).body();
    let place = path(&["v1", "tenants", &name, "signing-secret"]);
    let made: Made = match posted.visit.client.send(Method::POST, &place, Some(&body)).await {
        Ok(made) => made,
        Err(refused) => return page(posted.visit, &name, Forms::refused(refused)?).await,
    };
    let mut secrets = vec![("Messages to the URLs of its jobs", made.secret)];
    secrets.extend(made.jobs_secret.map(|secret| ("Requests of its http jobs", secret)));
    let former = made.former_until.map(|until| format!(" The former one signs beside it until {until}."));
    let what = format!("What is sent for {name} is signed with this from now on.{}", former.unwrap_or_default());
    Ok(told_once(posted.visit.shell, "Signing secret", what, secrets, here(&name)))
}
