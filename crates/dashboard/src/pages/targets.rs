//! Targets: what is left of their limits, what refusals have taken, how their breakers stand and why, how fast and how dear they
//! are, and everything that can be done with one.

mod view;

use askama::Template;
use axum::{
    Router,
    extract::Path,
    http::Method,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use self::view::{Account, List, Rule, Rules, Target};
use super::{
    filled::{Asked, Filled, code_of, page_with},
    part::part,
};
use crate::{
    Dashboard,
    client::{Client, Refused, path, query},
    form::{Flash, Posted, done},
    page::Shell,
    viewer::Visit,
};

/// Fields of the limits form.
const LIMIT_FIELDS: [&str; 6] =
    ["target", "requests_per_minute", "tokens_per_minute", "tokens_charged", "concurrency", "tag"];
/// Fields of a pause.
const PAUSE_FIELDS: [&str; 2] = ["until", "reason"];

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/targets", get(list))
        .route("/dashboard/targets/limits", post(limit_pattern))
        .route("/dashboard/targets/{target}", get(show))
        .route("/dashboard/targets/{target}/pause", post(pause))
        .route("/dashboard/targets/{target}/resume", post(resume))
        .route("/dashboard/targets/{target}/breaker", post(breaker))
        .route("/dashboard/targets/{target}/limits", post(limit))
}

fn here(target: &str) -> String {
    path(&["dashboard", "targets", target])
}

#[derive(Template)]
#[template(path = "targets.html")]
struct TargetsPage {
    shell: Shell,
    targets: Vec<Target>,
    accounts: Vec<Account>,
    rules: Vec<Rule>,
    pattern: Filled,
}

async fn list(visit: Visit) -> Result<Response, Refused> {
    let pattern = LIMIT_FIELDS.iter().fold(Filled::new("pattern"), |form, name| form.with(name, ""));
    list_with(visit, pattern).await
}

async fn list_with(visit: Visit, pattern: Filled) -> Result<Response, Refused> {
    let (list, rules) = tokio::try_join!(
        visit.client.get::<List>("/v1/targets"),
        part::<Rules>(&visit, "GET /v1/limits", "/v1/limits"),
    )?;
    let List { targets, accounts } = list;
    let rules = rules.unwrap_or_default().limits;
    Ok(page_with(pattern.code(), visit.shell, |shell| TargetsPage { shell, targets, accounts, rules, pattern }))
}

/// The forms of a target's page.
struct Forms {
    pause: Filled,
    limits: Option<Filled>,
}

impl Default for Forms {
    fn default() -> Self {
        Self { pause: Filled::new("pause"), limits: None }
    }
}

#[derive(Template)]
#[template(path = "target.html")]
struct TargetPage {
    shell: Shell,
    target: Target,
    pause: Filled,
    /// What is set; none while nobody can be asked, or for whom it is not.
    limits: Option<Filled>,
}

impl TargetPage {
    fn pause_at(&self) -> String {
        format!("{}/pause", self.target.href())
    }

    fn jobs_href(&self) -> String {
        let filter = format!("target = {} and state in (ready, scheduled, running)", Value::from(&*self.target.target));
        format!("/dashboard/jobs{}", query(&[("filter", &filter)]))
    }
}

async fn show(visit: Visit, Path(name): Path<String>) -> Result<Response, Refused> {
    page(visit, &name, Forms::default()).await
}

async fn page(visit: Visit, name: &str, forms: Forms) -> Result<Response, Refused> {
    let Visit { viewer, client, shell, .. } = visit;
    let target: Target = client.get(&path(&["v1", "targets", name])).await?;
    let Forms { pause, limits } = forms;
    let limits = match limits {
        None if viewer.may("PUT /v1/limits/{target}") => limits_of(&client, name).await?,
        limits => limits,
    };
    let code = code_of(&[&pause, limits.as_ref().unwrap_or(&pause)]);
    Ok(page_with(code, shell, |shell| TargetPage { shell, target, pause, limits }))
}

/// The form with what is set for exactly this target.
async fn limits_of(client: &Client, name: &str) -> Result<Option<Filled>, Refused> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Set {
        requests_per_minute: Option<u64>,
        tokens_per_minute: Option<u64>,
        tokens_charged: Option<String>,
        concurrency: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Known {
        #[serde(default)]
        set: Set,
        version: i64,
    }
    let Known { set, version } = match client.get(&path(&["v1", "limits", name])).await {
        Ok(known) => known,
        // The limiter's store is away: the page says so at the meters.
        Err(refused) if refused.status == 503 => return Ok(None),
        Err(refused) => return Err(refused),
    };
    let form = Filled::new("limits")
        .with_some("requests_per_minute", set.requests_per_minute)
        .with_some("tokens_per_minute", set.tokens_per_minute)
        .with_some("tokens_charged", set.tokens_charged)
        .with_some("concurrency", set.concurrency)
        .with("tag", format!("\"{version}\""));
    Ok(Some(form))
}

async fn change(posted: &Posted, name: &str, body: &Value) -> Result<(), Refused> {
    posted.visit.client.send(Method::PATCH, &path(&["v1", "targets", name]), Some(body)).await
}

async fn pause(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().with("paused", true).texts(&posted, &["reason"]).moment(&posted, "until").body();
    let reason = posted.required("reason").map(|_| ());
    let answer = match reason {
        Ok(()) => change(&posted, &name, &body).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => Ok(done(&here(&name), Flash::good(format!("{name} is paused: nobody calls it.")))),
        Err(refused) => {
            let pause = Filled::back("pause", &posted, &PAUSE_FIELDS, refused)?;
            page(posted.visit, &name, Forms { pause, ..Forms::default() }).await
        }
    }
}

async fn resume(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    change(&posted, &name, &json!({ "paused": false })).await?;
    Ok(done(&here(&name), Flash::good(format!("{name} may be called again, and its blocks are lifted."))))
}

async fn breaker(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let mode = posted.required("mode")?;
    change(&posted, &name, &json!({ "breaker": mode })).await?;
    let told = match mode {
        "open" => "The breaker is held open: nobody calls the target.",
        "close" => "The breaker is held closed: the target is called, whatever its calls come to.",
        _ => "The breaker is left to the calls.",
    };
    Ok(done(&here(&name), Flash::good(told)))
}

async fn set_limit(posted: &Posted, name: &str) -> Result<(), Refused> {
    let asked = Asked::default()
        .numbers(posted, &["requests_per_minute", "tokens_per_minute", "concurrency"])
        .texts(posted, &["tokens_charged"]);
    let (place, body) = (path(&["v1", "limits", name]), asked.body());
    match posted.text("tag") {
        Some(tag) => posted.visit.client.send_if(Method::PUT, &place, Some(&body), tag).await,
        None => posted.visit.client.send(Method::PUT, &place, Some(&body)).await,
    }
}

async fn limit(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    match set_limit(&posted, &name).await {
        Ok(()) => Ok(done(&here(&name), Flash::good("The limits are set; every worker hears of it within seconds."))),
        Err(refused) => {
            let limits = Some(Filled::back("limits", &posted, &LIMIT_FIELDS, refused)?);
            page(posted.visit, &name, Forms { limits, ..Forms::default() }).await
        }
    }
}

async fn limit_pattern(posted: Posted) -> Result<Response, Refused> {
    let answer = match posted.required("target") {
        Ok(name) => set_limit(&posted, name).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => {
            Ok(done("/dashboard/targets", Flash::good("The limit is set; every worker hears of it within seconds.")))
        }
        Err(refused) => {
            let pattern = Filled::back("pattern", &posted, &LIMIT_FIELDS, refused)?;
            list_with(posted.visit, pattern).await
        }
    }
}
