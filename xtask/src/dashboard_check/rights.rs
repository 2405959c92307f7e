//! Who sees which button, and what posts are answered that no button of theirs makes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{
    Check, Report,
    acts::ACTS,
    pages::PAGES,
    session::{Form, Session, Source},
};
use crate::cluster::KEY;

/// What needs no token: it changes nothing of the installation, and a post from elsewhere is refused all the same.
const WITHOUT_TOKEN: [&str; 2] = ["/dashboard/login", "/dashboard/theme"];
/// What everybody may, and what would end the session that asks.
const FOR_ALL: [&str; 2] = ["/dashboard/theme", "/dashboard/logout"];
/// How the addresses end of what cannot be taken back, or stops work: each wants a reason, or the name or number of what it does that to.
const GRAVE: &[&str] =
    &["/cancel", "/delete", "/revoke", "/erase", "/pause", "/start", "/each", "/maintenance", "/restore"];
/// The fields for that.
const GRAVE_FIELDS: [&str; 2] = ["reason", "confirm"];
/// Who looks: what the scene calls the key, and whether it may change nothing at all.
const VIEWERS: [(&str, bool); 4] = [("reader", true), ("user", false), ("analyst", false), ("operator", false)];
/// Who looks in the short form.
const VIEWERS_SHORT: [(&str, bool); 2] = [VIEWERS[0], VIEWERS[1]];

/// What somebody is offered, by address and words of the button.
type Offered = BTreeMap<(String, String), Form>;

impl Check {
    pub(super) async fn rights(&mut self) -> Result<Report> {
        self.sign_in(KEY).await?;
        let (all, mut wrong) = self.offered("admin").await?;
        let actions: BTreeSet<&str> = all.values().map(|form| form.action.as_str()).collect();
        wrong.extend(self.forged(&all).await?);
        wrong.extend(self.grave(&all).await?);
        let policy = self.session().await?.policy("/dashboard").await?;
        if policy.contains("unsafe") || !policy.contains("default-src 'none'") {
            wrong.push(format!("the policy is {policy}"));
        }
        let viewers: &[(&str, bool)] = if self.short { &VIEWERS_SHORT } else { &VIEWERS };
        for &(viewer, only_reads) in viewers {
            wrong.extend(self.viewer(viewer, only_reads, &all).await?);
        }
        let seen = format!(
            "{} buttons of {} actions, forged in 5 ways, and {} other viewers",
            all.len(),
            actions.len(),
            viewers.len()
        );
        Ok(Report { seen, wrong })
    }

    /// Everything that the present viewer can post from any page, and pages in its menu that are not there.
    async fn offered(&self, viewer: &str) -> Result<(Offered, Vec<String>)> {
        let (mut all, mut wrong) = (Offered::new(), vec![]);
        let session = self.session().await?;
        let menu = self.menu_of(&session.get("/dashboard").await?.1).await?;
        for page in PAGES {
            let path = self.scene.path(page.address)?;
            let (status, html) = session.get(&path).await?;
            let told = menu.contains(page.address) || viewer == "admin";
            match status.as_u16() {
                200 => {}
                403 | 404 if !told => continue,
                // Whoever is bound to a tenant is led to it.
                303 => continue,
                other => {
                    wrong.push(format!("{viewer}: {path} is answered {other}"));
                    continue;
                }
            }
            for form in self.forms_of(&html).await? {
                all.entry((form.action.clone(), form.words.clone())).or_insert(form);
            }
        }
        Ok((all, wrong))
    }

    /// Posts of an admin's session that no page of ours made.
    async fn forged(&self, all: &Offered) -> Result<Vec<String>> {
        let session = self.session().await?;
        let mut wrong = vec![];
        for form in all.values() {
            let without: Vec<_> = form.fields.iter().filter(|(name, _)| name != "csrf").cloned().collect();
            let mut other = without.clone();
            other.push(("csrf".to_owned(), "0".repeat(64)));
            let mut tries = vec![
                ("from another site", session.post(&form.action, &form.fields, Source::CrossSite).await?),
                ("from another origin", session.post(&form.action, &form.fields, Source::OtherOrigin).await?),
            ];
            if !WITHOUT_TOKEN.contains(&form.action.as_str()) {
                tries.push(("from nowhere", session.post(&form.action, &form.fields, Source::Nowhere).await?));
                tries.push(("without a token", session.post(&form.action, &without, Source::SameOrigin).await?));
                tries.push(("with another token", session.post(&form.action, &other, Source::SameOrigin).await?));
            }
            let passed = tries.into_iter().filter(|(_, status)| status.as_u16() != 403);
            wrong.extend(passed.map(|(how, status)| format!("a post {how} to {} is answered {status}", form.action)));
        }
        Ok(wrong)
    }

    /// What is grave wants a reason or the name, and does nothing without.
    async fn grave(&self, all: &Offered) -> Result<Vec<String>> {
        let session = self.session().await?;
        let mut wrong = vec![];
        let is_grave =
            |form: &&Form| GRAVE.iter().any(|end| form.action.ends_with(end)) && !form.words.starts_with("Count");
        for form in all.values().filter(is_grave) {
            if !form.fields.iter().any(|(name, _)| GRAVE_FIELDS.contains(&name.as_str())) {
                wrong.push(format!("{} \"{}\" wants no reason and no name", form.action, form.words));
                continue;
            }
            let mut fields = form.fields.clone();
            fields.retain(|(name, _)| !GRAVE_FIELDS.contains(&name.as_str()));
            let status = session.post(&form.action, &fields, Source::SameOrigin).await?;
            if status != 422 {
                wrong.push(format!("{} without a reason and a name is answered {status}", form.action));
            }
        }
        Ok(wrong)
    }

    /// One viewer: none of its buttons is answered 403, and what it is not offered is.
    async fn viewer(&self, viewer: &str, only_reads: bool, all: &Offered) -> Result<Vec<String>> {
        self.sign_in(self.scene.name(viewer)?).await?;
        let (own, mut wrong) = self.offered(viewer).await?;
        let session = self.session().await?;
        let token = Session::token(&own.values().cloned().collect::<Vec<_>>())?;
        for form in all.values().filter(|form| !FOR_ALL.contains(&form.action.as_str()) && changes(form)) {
            if own.values().any(|one| one.action == form.action) {
                continue;
            }
            let (mut fields, is_filled) = self.filled(form)?;
            fields.retain(|(name, _)| name != "csrf");
            fields.push(("csrf".to_owned(), token.clone()));
            let status = session.post(&form.action, &fields, Source::SameOrigin).await?;
            let refused = match status.as_u16() {
                403 => true,
                // What belongs to other tenants is not there for whoever is bound to one.
                404 => !only_reads,
                // What is not filled in is told before anybody is asked.
                409 | 422 => !is_filled,
                _ => false,
            };
            if !refused {
                let Form { action, words, .. } = form;
                wrong.push(format!("{viewer}: {action} \"{words}\", which it is not offered, is answered {status}"));
            }
        }
        for form in own.values().filter(|form| !FOR_ALL.contains(&form.action.as_str())) {
            if only_reads && changes(form) {
                wrong.push(format!("{viewer}: is offered {} \"{}\"", form.action, form.words));
                continue;
            }
            let status = session.post(&form.action, &form.fields, Source::SameOrigin).await?;
            if status == 403 {
                wrong.push(format!(
                    "{viewer}: {} \"{}\", which it is offered, is answered 403",
                    form.action, form.words
                ));
            }
        }
        Ok(wrong)
    }
}

impl Check {
    /// A form's fields, filled in where a row of `ACTS` says how, and whether one does.
    fn filled(&self, form: &Form) -> Result<(Vec<(String, String)>, bool)> {
        let mut fields = form.fields.clone();
        for act in ACTS.iter().filter(|act| form.words.contains(act.button)) {
            if self.scene.path(act.form)? != form.action {
                continue;
            }
            for (name, value) in act.fields {
                fields.retain(|(known, _)| known != name);
                fields.push(((*name).to_owned(), self.scene.words(value)?));
            }
            return Ok((fields, true));
        }
        Ok((fields, false))
    }
}

/// Whether a form does more than look: a preview is posted because what it shows is long.
fn changes(form: &Form) -> bool {
    form.words != "Preview"
}
