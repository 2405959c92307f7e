//! Webhooks: who is told of what, what was sent and answered, and sending it again.

use askama::Template;
use axum::{
    Router,
    extract::{Path, Query},
    http::Method,
    response::Response,
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    filled::{Asked, Filled, code_of, or_empty, page_with},
    tenants::told_once,
};
use crate::{
    Dashboard,
    client::{Refused, path, query},
    form::{Flash, Posted, done},
    page::{Shell, html},
    viewer::Visit,
    words,
};

/// The address of the list.
const HERE: &str = "/dashboard/webhooks";
/// What can be told.
const EVENTS: [&str; 9] = [
    "job.succeeded",
    "job.dead",
    "job.cancelled",
    "budget.alert",
    "breaker.opened",
    "breaker.closed",
    "credential.disabled",
    "alert.raised",
    "alert.cleared",
];
/// Fields of a new endpoint, and of a changed one.
const FIELDS: [&str; 4] = ["url", "events", "tenant", "description"];
/// How deliveries stand.
const STATES: [&str; 4] = ["pending", "delivered", "failed", "dropped"];

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route(HERE, get(list).post(create))
        .route("/dashboard/webhooks/{id}", get(show))
        .route("/dashboard/webhooks/{id}/change", post(change))
        .route("/dashboard/webhooks/{id}/on", post(switch_on))
        .route("/dashboard/webhooks/{id}/off", post(switch_off))
        .route("/dashboard/webhooks/{id}/rotate", post(rotate))
        .route("/dashboard/webhooks/{id}/delete", post(delete))
        .route("/dashboard/webhooks/deliveries/{id}", get(delivery))
        .route("/dashboard/webhooks/deliveries/{id}/replay", post(replay))
}

/// A receiver of webhooks.
#[derive(Clone, Debug, Deserialize)]
struct Webhook {
    id: String,
    tenant: Option<String>,
    url: String,
    events: Vec<String>,
    enabled: bool,
    reason: Option<String>,
    description: Option<String>,
    version: i64,
    created_at: String,
}

/// One event for one receiver.
#[derive(Debug, Deserialize)]
struct Delivery {
    id: String,
    webhook: Option<String>,
    url: Option<String>,
    tenant: Option<String>,
    event: String,
    job: Option<String>,
    at: String,
    state: String,
    attempts: u32,
    next_attempt_at: Option<String>,
    last: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Deliveries {
    deliveries: Vec<Delivery>,
    next_cursor: Option<String>,
}

impl Webhook {
    fn href(&self) -> String {
        here(&self.id)
    }

    fn state(&self) -> &'static str {
        if self.enabled { "on" } else { "off" }
    }

    /// What it is told of, in words.
    fn told(&self) -> String {
        if self.events.len() == EVENTS.len() { "every event".to_owned() } else { self.events.join(", ") }
    }

    fn form(&self) -> Filled {
        Filled::new("webhook")
            .with("url", &*self.url)
            .with("events", self.events.join(" "))
            .with_some("description", self.description.as_ref())
            .with("tag", format!("\"{}\"", self.version))
    }
}

impl Delivery {
    fn href(&self) -> String {
        path(&["dashboard", "webhooks", "deliveries", &self.id])
    }

    fn job_href(&self) -> Option<String> {
        self.job.as_ref().map(|job| path(&["dashboard", "jobs", job]))
    }

    fn webhook_href(&self) -> Option<String> {
        self.webhook.as_ref().map(|webhook| here(webhook))
    }

    /// When it is tried again, where it is.
    fn next_try(&self, now: &Timestamp) -> Option<String> {
        let next = self.next_attempt_at.as_deref()?;
        let is_due = words::timestamp(next).is_some_and(|at| at <= *now);
        Some(if is_due { "is due".to_owned() } else { format!("tried again {}", words::ago(next, now)) })
    }

    /// The `webhook-id` of its message.
    fn message_id(&self) -> String {
        format!("msg_{}", self.id.replace('-', ""))
    }

    /// Where it goes.
    fn receiver(&self) -> &str {
        self.url.as_deref().unwrap_or("(its endpoint is gone)")
    }
}

fn here(id: &str) -> String {
    path(&["dashboard", "webhooks", id])
}

/// What deliveries are narrowed by.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    state: String,
    tenant: String,
    job: String,
    cursor: String,
}

impl Wanted {
    fn at(&self, base: &str, webhook: &str, cursor: &str) -> String {
        let pairs = [
            ("webhook", webhook),
            ("state", &self.state),
            ("tenant", &self.tenant),
            ("job", &self.job),
            ("cursor", cursor),
        ];
        format!("{base}{}", query(&pairs))
    }

    fn form(&self, refused: Option<Refused>) -> Filled {
        let form =
            Filled::new("filter").with("state", &*self.state).with("tenant", &*self.tenant).with("job", &*self.job);
        form.with_problem(refused)
    }
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    shell: Shell,
    webhooks: Vec<Webhook>,
    filter: Filled,
    deliveries: Option<Vec<Delivery>>,
    next: String,
    first: String,
    form: Filled,
}

impl WebhooksPage {
    fn events(&self) -> [&'static str; 9] {
        EVENTS
    }

    fn states(&self) -> [&'static str; 4] {
        STATES
    }
}

fn blank() -> Filled {
    let form = FIELDS.iter().fold(Filled::new("webhook"), |form, name| form.with(name, ""));
    form.with("events", EVENTS.join(" "))
}

async fn list(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refused> {
    list_with(visit, wanted, blank()).await
}

async fn list_with(visit: Visit, wanted: Wanted, form: Filled) -> Result<Response, Refused> {
    #[derive(Deserialize)]
    struct All {
        webhooks: Vec<Webhook>,
    }
    let Visit { viewer, client, shell, .. } = visit;
    let all: All = client.get("/v1/webhooks").await?;
    let (page, refused) = match viewer.may("GET /v1/webhook-deliveries") {
        true => or_empty::<Deliveries>(client.get(&wanted.at("/v1/webhook-deliveries", "", &wanted.cursor)).await)?,
        false => (Deliveries::default(), None),
    };
    let deliveries = viewer.may("GET /v1/webhook-deliveries").then_some(page.deliveries);
    let next = page.next_cursor.map(|cursor| wanted.at(HERE, "", &cursor)).unwrap_or_default();
    let first = if wanted.cursor.is_empty() { String::new() } else { wanted.at(HERE, "", "") };
    let (filter, webhooks) = (wanted.form(refused), all.webhooks);
    let code = code_of(&[&form, &filter]);
    Ok(page_with(code, shell, |shell| WebhooksPage { shell, webhooks, filter, deliveries, next, first, form }))
}

/// An endpoint with its secret.
#[derive(Deserialize)]
struct Made {
    id: String,
    secret: String,
}

async fn create(posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().texts(&posted, &["url", "tenant", "description"]).ticked(&posted, "events").body();
    match posted.visit.client.send::<Made>(Method::POST, "/v1/webhooks", Some(&body)).await {
        Ok(made) => {
            let secrets = vec![("Signing secret", made.secret)];
            let what = "Its messages are signed with this.";
            Ok(told_once(posted.visit.shell, "Webhook", what, secrets, here(&made.id)))
        }
        Err(refused) => {
            let form = Filled::back("webhook", &posted, &FIELDS, refused)?;
            list_with(posted.visit, Wanted::default(), form).await
        }
    }
}

#[derive(Template)]
#[template(path = "webhook.html")]
struct WebhookPage {
    shell: Shell,
    webhook: Webhook,
    deliveries: Option<Vec<Delivery>>,
    next: String,
    form: Filled,
    refused: Option<Refused>,
}

impl WebhookPage {
    fn events(&self) -> [&'static str; 9] {
        EVENTS
    }
}

async fn show(visit: Visit, Path(id): Path<String>, Query(wanted): Query<Wanted>) -> Result<Response, Refused> {
    page(visit, &id, wanted, None, None).await
}

async fn page(
    visit: Visit,
    id: &str,
    wanted: Wanted,
    form: Option<Filled>,
    refused: Option<Refused>,
) -> Result<Response, Refused> {
    let Visit { viewer, client, shell, .. } = visit;
    let webhook: Webhook = client.get(&path(&["v1", "webhooks", id])).await?;
    let mut next = String::new();
    let deliveries = match viewer.may("GET /v1/webhook-deliveries") {
        true => {
            let asked = wanted.at("/v1/webhook-deliveries", id, &wanted.cursor);
            let page: Deliveries = client.get(&asked).await?;
            next = page.next_cursor.map(|cursor| wanted.at(&here(id), "", &cursor)).unwrap_or_default();
            Some(page.deliveries)
        }
        false => None,
    };
    let form = form.unwrap_or_else(|| webhook.form());
    let code = refused.as_ref().map_or_else(|| form.code(), Refused::code);
    Ok(page_with(code, shell, |shell| WebhookPage { shell, webhook, deliveries, next, form, refused }))
}

/// The page again with what was refused to one of its small forms.
async fn refused_page(visit: Visit, id: &str, refused: Refused) -> Result<Response, Refused> {
    match refused.is_correctable() {
        true => page(visit, id, Wanted::default(), None, Some(refused)).await,
        false => Err(refused),
    }
}

async fn change(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let description = posted.text("description").map_or(Value::Null, Value::from);
    let asked =
        Asked::default().texts(&posted, &["url"]).with("events", posted.all("events")).with("description", description);
    let tag = posted.text("tag").unwrap_or("*");
    let place = path(&["v1", "webhooks", &id]);
    let answer: Result<Value, Refused> =
        posted.visit.client.send_if(Method::PATCH, &place, Some(&asked.body()), tag).await;
    match answer {
        Ok(_) => Ok(done(&here(&id), Flash::good("The webhook is changed."))),
        Err(refused) => {
            let form = Filled::back("webhook", &posted, &["url", "events", "description", "tag"], refused)?;
            page(posted.visit, &id, Wanted::default(), Some(form), None).await
        }
    }
}

async fn switch_on(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = json!({ "enabled": true });
    let _: Value = posted.visit.client.send(Method::PATCH, &path(&["v1", "webhooks", &id]), Some(&body)).await?;
    Ok(done(&here(&id), Flash::good("The webhook is told of what happens from now on.")))
}

async fn switch_off(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().with("enabled", false).texts(&posted, &["reason"]).body();
    let answer: Result<Value, Refused> = match posted.required("reason") {
        Ok(_) => posted.visit.client.send(Method::PATCH, &path(&["v1", "webhooks", &id]), Some(&body)).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(_) => Ok(done(&here(&id), Flash::good("The webhook is off; what waited for it is dropped."))),
        Err(refused) => refused_page(posted.visit, &id, refused).await,
    }
}

async fn rotate(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    #[derive(Deserialize)]
    struct Rotated {
        secret: String,
        former_until: Option<String>,
    }
    let body = Asked::default().texts(&posted, &["overlap"]).body();
    let place = path(&["v1", "webhooks", &id, "rotate-secret"]);
    match posted.visit.client.send::<Rotated>(Method::POST, &place, Some(&body)).await {
        Ok(rotated) => {
            let until = rotated.former_until.map(|until| format!(" The former one signs beside it until {until}."));
            let what = format!("Messages are signed with this from now on.{}", until.unwrap_or_default());
            let secrets = vec![("Signing secret", rotated.secret)];
            Ok(told_once(posted.visit.shell, "New signing secret", what, secrets, here(&id)))
        }
        Err(refused) => refused_page(posted.visit, &id, refused).await,
    }
}

async fn delete(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let place = path(&["v1", "webhooks", &id]);
    let webhook: Webhook = posted.visit.client.get(&place).await?;
    let answer: Result<(), Refused> = match posted.confirmed("confirm", &webhook.url) {
        Ok(()) => posted.visit.client.send(Method::DELETE, &place, None).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => Ok(done(HERE, Flash::good("The webhook is deleted; what waited for it is dropped."))),
        Err(refused) => refused_page(posted.visit, &id, refused).await,
    }
}

/// A delivery with its message and its attempts.
#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(flatten)]
    delivery: Delivery,
    body: Option<String>,
    history: Vec<Attempt>,
}

/// An attempt of a delivery.
#[derive(Debug, Deserialize)]
struct Attempt {
    at: String,
    duration_ms: i64,
    status: Option<u16>,
    answer: Option<String>,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage {
    shell: Shell,
    detail: Detail,
}

async fn delivery(visit: Visit, Path(id): Path<String>) -> Result<Response, Refused> {
    let Visit { client, shell, .. } = visit;
    let detail: Detail = client.get(&path(&["v1", "webhook-deliveries", &id])).await?;
    Ok(html(DeliveryPage { shell, detail }))
}

async fn replay(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let place = path(&["v1", "webhook-deliveries", &id, "replay"]);
    let _: Value = posted.visit.client.send(Method::POST, &place, None).await?;
    let here = path(&["dashboard", "webhooks", "deliveries", &id]);
    Ok(done(&here, Flash::good("It is sent again: the same message with the same id.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_events_are_told_as_such() {
        let webhook = |events: &[&str]| Webhook {
            id: "i".into(),
            tenant: None,
            url: "https://x".into(),
            events: events.iter().map(|event| (*event).to_owned()).collect(),
            enabled: true,
            reason: None,
            description: None,
            version: 1,
            created_at: String::new(),
        };
        assert_eq!(webhook(&EVENTS).told(), "every event");
        assert_eq!(webhook(&["job.dead", "budget.alert"]).told(), "job.dead, budget.alert");
        assert!(webhook(&["job.dead"]).form().has("events", "job.dead"));
    }

    #[test]
    fn pages_of_deliveries_keep_their_filter() {
        let wanted = Wanted { state: "failed".into(), ..Wanted::default() };
        assert_eq!(wanted.at("/x", "w", "d3"), "/x?webhook=w&state=failed&cursor=d3");
    }
}
