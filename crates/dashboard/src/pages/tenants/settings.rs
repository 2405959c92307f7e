//! What is set for a tenant: its share, its limits, what it may ask for.

use std::collections::BTreeMap;

use axum::{extract::Path, http::Method, response::Response};
use serde_json::Value;

use super::{Forms, Tenant, here, page};
use crate::{
    client::{Refused, path},
    form::{Flash, Posted, done},
    pages::filled::{Asked, Filled},
};

/// The kinds that a tenant may be bound to.
pub(super) const KINDS: [&str; 6] = ["llm", "embedding", "analysis", "http", "custom", "probe"];
/// Fields that are whole numbers.
const NUMBERS: [&str; 5] = ["weight", "backlog_max", "max_tokens", "requests_per_minute", "llm_submits_per_minute"];
/// All fields.
const FIELDS: [&str; 11] = [
    "weight",
    "backlog_max",
    "max_tokens",
    "requests_per_minute",
    "llm_submits_per_minute",
    "kinds",
    "models",
    "aliases",
    "default_model",
    "credential_policy",
    "tag",
];

/// The form with what is set.
pub(super) fn form(tenant: &Tenant) -> Filled {
    let aliases: Vec<_> = tenant.aliases.iter().map(|(name, model)| format!("{name} = {model}")).collect();
    Filled::new("settings")
        .with("weight", tenant.weight.to_string())
        .with_some("backlog_max", tenant.backlog_max)
        .with_some("max_tokens", tenant.max_tokens)
        .with_some("requests_per_minute", tenant.requests_per_minute)
        .with_some("llm_submits_per_minute", tenant.llm_submits_per_minute)
        .with("kinds", tenant.kinds.join(" "))
        .with("models", tenant.models.join("\n"))
        .with("aliases", aliases.join("\n"))
        .with_some("default_model", tenant.default_model.as_ref())
        .with("credential_policy", &*tenant.credential_policy)
        .with("tag", format!("\"{}\"", tenant.version))
}

pub(super) async fn change(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let answer = put(&posted, &name).await;
    match answer {
        Ok(()) => Ok(done(&here(&name), Flash::good(format!("The settings of {name} are set.")))),
        Err(refused) => {
            let settings = Filled::back("settings", &posted, &FIELDS, refused)?;
            page(posted.visit, &name, Forms { settings: Some(settings), ..Forms::default() }).await
        }
    }
}

/// Replaces all settings. The pause is a setting, too, and no field of this form: it stays as it is, which the tag holds fast.
async fn put(posted: &Posted, name: &str) -> Result<(), Refused> {
    let place = path(&["v1", "tenants", name]);
    let aliases = aliases(posted.text("aliases").unwrap_or_default())?;
    let held: Tenant = posted.visit.client.get(&place).await?;
    let mut asked = Asked::default()
        .numbers(posted, &NUMBERS)
        .texts(posted, &["default_model", "credential_policy"])
        .words(posted, "models")
        .ticked(posted, "kinds");
    if !aliases.is_empty() {
        asked = asked.with("aliases", serde_json::to_value(aliases).unwrap_or_default());
    }
    if held.paused {
        asked = asked.with("paused", true);
        for (field, value) in [("until", held.until), ("reason", held.reason)] {
            if let Some(value) = value {
                asked = asked.with(field, value);
            }
        }
    }
    let tag = posted.required("tag")?;
    posted.visit.client.send_if::<Value>(Method::PUT, &place, Some(&asked.body()), tag).await.map(|_| ())
}

/// One name in a line, and behind `=` the model that it stands for.
fn aliases(text: &str) -> Result<BTreeMap<&str, &str>, Refused> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut aliases = BTreeMap::new();
    for line in lines {
        let Some((name, model)) = split(line) else {
            return Err(Refused::field("aliases", format!("`{line}` is not `name = model`")));
        };
        if aliases.insert(name, model).is_some() {
            return Err(Refused::field("aliases", format!("`{name}` is named twice")));
        }
    }
    Ok(aliases)
}

fn split(line: &str) -> Option<(&str, &str)> {
    let (name, model) = line.split_once('=')?;
    Some((name.trim(), model.trim())).filter(|(name, model)| !name.is_empty() && !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_lines() {
        let read = aliases("fast = gpt-4o-mini\r\n\n big=openai/gpt-4o ").unwrap();
        assert_eq!(read, BTreeMap::from([("big", "openai/gpt-4o"), ("fast", "gpt-4o-mini")]));
        for text in ["fast", "= model", "fast =", "a = b\na = c"] {
            assert_eq!(aliases(text).unwrap_err().at("/aliases").len(), 1, "{text}");
        }
    }

    #[test]
    fn the_form_says_what_is_set() {
        let tenant = Tenant {
            weight: 3,
            kinds: vec!["llm".into(), "http".into()],
            aliases: BTreeMap::from([("fast".into(), "m".into())]),
            version: 7,
            ..Tenant::default()
        };
        let form = form(&tenant);
        assert_eq!((form.text("weight"), form.text("aliases"), form.text("tag")), ("3", "fast = m", "\"7\""));
        assert!(form.has("kinds", "http") && !form.has("kinds", "probe") && form.is("backlog_max", ""));
    }
}
