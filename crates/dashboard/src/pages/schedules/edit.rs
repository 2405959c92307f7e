//! The form of a new schedule and of a changed one, with a look at when it would be due.

use askama::Template;
use axum::{
    extract::{Path, Query},
    http::{Method, StatusCode},
    response::Response,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Preview, Schedule, here, whole};
use crate::{
    client::{Client, Refused, path, query},
    form::{Flash, Posted, done},
    page::Shell,
    pages::filled::{Asked, Filled, page_with},
    viewer::Visit,
    words,
};

/// What says when a schedule is due.
const WHEN: [&str; 5] = ["cron", "time_zone", "every", "starting_at", "at"];
/// The other fields that are sent as they are typed.
const TEXTS: [&str; 6] = ["name", "tenant", "overlap", "missed", "missed_window", "description"];
/// All fields of the form.
const FIELDS: [&str; 12] = [
    "name",
    "tenant",
    "cron",
    "time_zone",
    "every",
    "starting_at",
    "at",
    "overlap",
    "missed",
    "missed_window",
    "description",
    "template",
];
/// The job that the form of a new schedule begins with.
const TEMPLATE: &str = "{\n  \"queue\": \"default\",\n  \"kind\": \"llm\",\n  \"operation\": \"nightly-report\",\n  \"payload\": {\n    \
                        \"messages\": [{ \"role\": \"user\", \"content\": \"Write today's report.\" }],\n    \"max_tokens\": 400\n  }\n}";
/// Ticks that a preview shows.
const PREVIEWED: &str = "5";

#[derive(Template)]
#[template(path = "schedule_form.html")]
struct FormPage {
    shell: Shell,
    /// What is changed: its id, name and tag; a new one when absent.
    changed: Option<Changed>,
    form: Filled,
    preview: Option<Preview>,
}

/// The schedule that is changed.
struct Changed {
    id: String,
    name: String,
    tenant: String,
    tag: String,
}

impl FormPage {
    fn action(&self) -> String {
        match &self.changed {
            Some(changed) => format!("{}/edit", here(&changed.id)),
            None => "/dashboard/schedules/new".to_owned(),
        }
    }

    fn back(&self) -> String {
        self.changed.as_ref().map_or_else(|| "/dashboard/schedules".to_owned(), |changed| here(&changed.id))
    }
}

fn page(visit: Visit, changed: Option<Changed>, form: Filled, preview: Option<Preview>) -> Response {
    page_with(form.code(), visit.shell.not_live(), |shell| FormPage { shell, changed, form, preview })
}

/// Fields that an address may fill in: what links of other pages begin with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Given {
    cron: String,
    time_zone: String,
    every: String,
    tenant: String,
}

/// A form is shown to who may send it.
fn check_may(visit: &Visit, route: &str) -> Result<(), Refused> {
    match visit.viewer.may(route) {
        true => Ok(()),
        false => Err(Refused::new(StatusCode::FORBIDDEN, "your role or its scopes do not allow to change schedules")),
    }
}

pub(super) async fn blank(visit: Visit, Query(given): Query<Given>) -> Result<Response, Refused> {
    check_may(&visit, "POST /v1/schedules")?;
    let form = FIELDS.iter().fold(Filled::new("schedule"), |form, name| form.with(name, ""));
    let form = form
        .with("cron", given.cron)
        .with("time_zone", given.time_zone)
        .with("every", given.every)
        .with("tenant", given.tenant)
        .with("overlap", "skip")
        .with("missed", "latest")
        .with("template", TEMPLATE);
    Ok(page(visit, None, form, None))
}

pub(super) async fn create(posted: Posted) -> Result<Response, Refused> {
    if posted.text("do") == Some("preview") {
        return previewed(posted, None).await;
    }
    #[derive(Deserialize)]
    struct Made {
        id: String,
        name: String,
    }
    let sent = match body(&posted) {
        Ok(body) => posted.visit.client.send_text::<Made>(Method::POST, "/v1/schedules", body, None).await,
        Err(refused) => Err(refused),
    };
    match sent {
        Ok(made) => Ok(done(&here(&made.id), Flash::good(format!("{} is scheduled.", made.name)))),
        Err(refused) => {
            let form = Filled::back("schedule", &posted, &FIELDS, refused)?;
            Ok(page(posted.visit, None, form, None))
        }
    }
}

pub(super) async fn form(visit: Visit, Path(id): Path<String>) -> Result<Response, Refused> {
    check_may(&visit, "PATCH /v1/schedules/{id}")?;
    let schedule = whole(&visit.client, &id).await?;
    let template = schedule.template.as_deref().map(|template| words::pretty_json(template.get()));
    let tag = schedule.tag();
    let is_all = schedule.missed == "all";
    let form = Filled::new("schedule")
        .with("name", &*schedule.name)
        .with("tenant", &*schedule.tenant)
        .with_some("cron", schedule.cron)
        .with_some("time_zone", schedule.time_zone)
        .with_some("every", schedule.every)
        .with_some("starting_at", schedule.starting_at)
        .with_some("at", schedule.at)
        .with("overlap", schedule.overlap)
        .with("missed", schedule.missed)
        .with_some("missed_window", is_all.then_some(schedule.missed_window))
        .with_some("description", schedule.description)
        .with_some("template", template);
    let changed = Changed { id: schedule.id, name: schedule.name, tenant: schedule.tenant, tag };
    Ok(page(visit, Some(changed), form, None))
}

pub(super) async fn change(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let schedule = whole(&posted.visit.client, &id).await?;
    // What was read when the form was made: somebody else's change meanwhile is not written over.
    let tag = posted.text("tag").unwrap_or_default().to_owned();
    let (name, tenant) = (schedule.name.clone(), schedule.tenant.clone());
    let changed = Changed { id: id.clone(), name, tenant, tag: tag.clone() };
    if posted.text("do") == Some("preview") {
        return previewed(posted, Some(changed)).await;
    }
    let sent = match changed_body(&posted, &schedule) {
        Ok(body) => {
            let place = path(&["v1", "schedules", &id]);
            posted.visit.client.send_text::<Value>(Method::PATCH, &place, body, Some(&tag)).await
        }
        Err(refused) => Err(refused),
    };
    match sent {
        Ok(_) => Ok(done(&here(&id), Flash::good("The schedule is changed."))),
        Err(refused) => {
            let form = Filled::back("schedule", &posted, &FIELDS, refused)?;
            Ok(page(posted.visit, Some(changed), form, None))
        }
    }
}

async fn previewed(posted: Posted, changed: Option<Changed>) -> Result<Response, Refused> {
    match preview(&posted.visit.client, &posted).await {
        Ok(preview) => {
            let form = Filled::posted("schedule", &posted, &FIELDS);
            Ok(page(posted.visit, changed, form, Some(preview)))
        }
        Err(refused) => {
            let form = Filled::back("schedule", &posted, &FIELDS, refused)?;
            Ok(page(posted.visit, changed, form, None))
        }
    }
}

async fn preview(client: &Client, posted: &Posted) -> Result<Preview, Refused> {
    let [cron, time_zone, every, starting_at, at] = WHEN.map(|name| (name, posted.text(name).unwrap_or_default()));
    let asked = query(&[cron, time_zone, every, starting_at, at, ("count", PREVIEWED)]);
    client.get(&format!("/v1/schedules/preview{asked}")).await
}

/// The body of a new schedule, with its template as it was typed: reading it would round its numbers.
fn body(posted: &Posted) -> Result<String, Refused> {
    let asked = Asked::default().texts(posted, &TEXTS).texts(posted, &WHEN);
    with_template(asked.body(), Some(posted.required("template")?))
}

/// The body of a change. What says when is left out where it is as it was: a schedule begins anew with it, and a moment that has
/// passed is refused. So is a template: who sends one has its jobs submitted for himself.
fn changed_body(posted: &Posted, before: &Schedule) -> Result<String, Refused> {
    let names: Vec<_> = TEXTS.into_iter().filter(|name| *name != "tenant").collect();
    let mut asked = Asked::default().texts(posted, &names);
    let typed = WHEN.map(|name| posted.text(name).unwrap_or_default());
    if typed != when_of(before) {
        asked = asked.texts(posted, &WHEN);
        if posted.text("cron").is_some() && posted.text("time_zone").is_none() {
            // An empty field says UTC, and not the zone that there was.
            asked = asked.with("time_zone", "UTC");
        }
    }
    if posted.text("description").is_none() {
        asked = asked.with("description", Value::Null);
    }
    let template = posted.required("template")?;
    let shown = before.template.as_deref().map(|template| words::pretty_json(template.get())).unwrap_or_default();
    let is_same = lines(template).eq(lines(&shown));
    with_template(asked.body(), (!is_same).then_some(template))
}

/// What says when a schedule is due, as its form shows it.
fn when_of(schedule: &Schedule) -> [&str; 5] {
    let Schedule { cron, time_zone, every, starting_at, at, .. } = schedule;
    [cron, time_zone, every, starting_at, at].map(|text| text.as_deref().unwrap_or_default())
}

/// Browsers send line ends of their own.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.trim().lines()
}

/// A body as text, with the template in it to the letter.
fn with_template(body: Value, template: Option<&str>) -> Result<String, Refused> {
    let Some(template) = template else { return Ok(body.to_string()) };
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(template) {
        return Err(Refused::field("template", format!("is not JSON: {error}")));
    }
    let text = body.to_string();
    let rest = text.strip_prefix('{').unwrap_or(&text);
    let comma = if rest == "}" { "" } else { "," };
    Ok(format!("{{\"template\":{template}{comma}{rest}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_travel_to_the_letter() {
        let template = r#"{"b": 1.10, "a": 12345678901234567890123}"#;
        let body = with_template(json!({ "name": "n" }), Some(template)).unwrap();
        assert_eq!(body, format!("{{\"template\":{template},\"name\":\"n\"}}"));
        assert_eq!(with_template(json!({}), Some("{}")).unwrap(), r#"{"template":{}}"#);
        assert_eq!(with_template(json!({ "name": "n" }), None).unwrap(), r#"{"name":"n"}"#);
    }

    #[test]
    fn what_is_no_json_cannot_break_out_of_its_place() {
        for text in ["{", r#"{},"paused":true"#, "", r#"1}{"#] {
            let refused = with_template(json!({}), Some(text)).unwrap_err();
            assert!(refused.at("/template").len() == 1 && refused.status == 422, "{text}");
        }
    }

    #[test]
    fn line_ends_are_no_change() {
        assert!(lines("{\r\n  \"a\": 1\r\n}\r\n").eq(lines("{\n  \"a\": 1\n}")));
    }
}
