//! Every action of `acts.rs`, clicked as a person does it: its effect has to be seen in the API and on the page. And one bulk redrive from
//! the dry run over its progress to its end by hand.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::{
    Check, Report,
    acts::{ACTS, Act, Shown},
};
use crate::cluster::KEY;

impl Check {
    pub(super) async fn actions(&mut self) -> Result<Report> {
        self.sign_in(KEY).await?;
        let (mut wrong, mut done) = (vec![], 0);
        for act in ACTS.iter().filter(|act| !self.short || act.is_main) {
            match self.act(act).await {
                Ok(()) => done += 1,
                Err(error) => {
                    self.picture_of(&act.name.replace(' ', "-")).await;
                    wrong.push(format!("{}: {error:#}", act.name));
                }
            }
            wrong.extend(
                self.browser
                    .complaints()
                    .await?
                    .into_iter()
                    .filter(|line| !is_refusal(line))
                    .map(|line| format!("{}: {line}", act.name)),
            );
        }
        self.sign_in(KEY).await?;
        if let Err(error) = self.bulk_redrive().await {
            self.picture_of("bulk-redrive").await;
            wrong.push(format!("bulk redrive: {error:#}"));
        }
        Ok(Report { seen: format!("{done} actions and a bulk redrive from dry run to abort"), wrong })
    }

    async fn act(&self, act: &Act) -> Result<()> {
        let (page, form) = (self.scene.path(act.page)?, self.scene.path(act.form)?);
        self.open(&page).await?;
        let mut fields = Map::new();
        for (name, value) in act.fields {
            fields.insert((*name).to_owned(), Value::String(self.scene.words(value)?));
        }
        self.browser.evaluate("window.__before = true").await?;
        self.browser.click("button", json!([form, fields, act.button])).await?;
        self.browser.until("the page came back", "!window.__before && document.readyState === 'complete'").await?;
        if let Some((path, pointer, wanted)) = act.effect {
            let (path, wanted) = (self.scene.path(path)?, self.scene.words(wanted)?);
            let is_so = |told: &Value| told.pointer(pointer).is_some_and(|value| agrees(value, &wanted));
            let seen = self.scene.until(&path, is_so).await;
            if let Err(error) = seen {
                let text: String = self.browser.text().await?.chars().take(500).collect();
                bail!("{pointer} is not {wanted}: {error:#}; the page says: {}", text.replace('\n', " / "));
            }
        }
        match act.shown {
            Shown::There(words) => self.shows(&self.scene.words(words)?).await,
            Shown::Gone(words) => {
                let words = json!(self.scene.words(words)?);
                self.browser
                    .until(&format!("{words} is gone"), &format!("!document.body.innerText.includes({words})"))
                    .await
            }
        }
    }

    /// Waits until the page says this, in any case of letters.
    pub(super) async fn shows(&self, words: &str) -> Result<()> {
        let lower = json!(words.to_lowercase());
        let expression = format!("document.body.innerText.toLowerCase().includes({lower})");
        self.browser.until(&format!("the page says \"{words}\""), &expression).await
    }

    /// The dry run of a group, its redrive at a low rate with a cap, progress, and an abort in the middle.
    async fn bulk_redrive(&self) -> Result<()> {
        let group = self.scene.path("/dashboard/dead-letters/{signature}")?;
        self.open(&group).await?;
        let before = self.letters().await?;
        ensure!(before > 10, "{before} letters are too few to stop in the middle");
        let fields = json!({"action": "redrive", "rate_per_s": "2", "max_cost_usd": "5"});
        self.browser.click("button", json!(["/dashboard/dead-letters/operate", fields, ""])).await?;
        // The dry run tells how many and what it may cost, before anything is done.
        self.browser.until("it leads to its dry run", "location.pathname.startsWith('/dashboard/operations/')").await?;
        self.shows(&format!("type {before}")).await?;
        ensure!(self.letters().await? == before, "the dry run has changed something");
        let here = self.browser.evaluate("location.pathname").await?;
        let here = here.as_str().context("a page has a path")?;
        let reason = "the provider has mended it";
        for (typed, outcome) in [("1".to_owned(), "the page comes back"), (before.to_string(), "it begins")] {
            ensure!(self.letters().await? == before, "another number was typed, and it has begun");
            let fields = json!({"confirm": typed, "reason": reason, "rate_per_s": "2", "max_cost_usd": "5"});
            self.browser.evaluate("window.__before = true").await?;
            self.browser.click("button", json!([format!("{here}/start"), fields, ""])).await?;
            self.browser.until(outcome, "!window.__before && document.readyState === 'complete'").await?;
        }
        let url = self.browser.url().await?;
        let path = url.split('?').next().unwrap_or_default();
        ensure!(
            !path.ends_with(here),
            "the right number was typed, and it has not begun: {}",
            self.browser.text().await?
        );
        let id = path.rsplit('/').next().unwrap_or_default();
        let path = format!("/v1/operations/{id}");
        self.scene.until(&path, |operation| operation["done"].as_u64() >= Some(4)).await?;
        // Its progress comes without a reload.
        self.browser.evaluate("window.__before = true").await?;
        self.shows("running").await?;
        let abort = self.forms().await?;
        let abort =
            abort.iter().find(|form| form.action.ends_with("/abort")).context("no abort of a running operation")?;
        self.browser.click("button", json!([abort.action, {}, abort.words])).await?;
        let ended = self.scene.until(&path, |operation| operation["state"] == "aborted").await?;
        let done = ended["done"].as_u64().unwrap_or_default();
        ensure!(done < before, "nothing was left to stop: {ended}");
        self.shows("aborted").await
    }

    /// Dead letters of the cause that is redriven.
    async fn letters(&self) -> Result<u64> {
        let groups = self.scene.get("/v1/dead-letters/groups").await?;
        let signature = self.scene.name("signature")?;
        let all = groups["groups"].as_array().context("groups are a list")?;
        Ok(all.iter().filter(|group| group["signature"] == signature).filter_map(|group| group["count"].as_u64()).sum())
    }

    /// What it looked like when something was wrong.
    async fn picture_of(&self, name: &str) {
        if let Ok(picture) = self.browser.picture(true).await {
            // The failure itself is told in any case.
            let _ = std::fs::write(self.artefacts.join(format!("failed-{name}.png")), picture);
        }
    }
}

/// Whether a value of the API is what a row says: text as it is, anything else as JSON, `~` for a part of it.
fn agrees(value: &Value, wanted: &str) -> bool {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    wanted.strip_prefix('~').map_or(text == wanted, |part| text.contains(part))
}

/// A page that says what was wrong with a form has a status of 4xx, which the browser notes.
fn is_refusal(line: &str) -> bool {
    line.starts_with("network:") && line.contains("status of 422")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_compared_as_text_or_in_part() {
        assert!(agrees(&json!(true), "true") && agrees(&json!("open"), "open") && agrees(&json!(null), "null"));
        assert!(agrees(&json!({"keys": ["night shift"]}), "~night shift") && !agrees(&json!("opened"), "open"));
    }
}
