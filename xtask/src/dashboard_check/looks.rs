//! Every page as people see it, in both widths and both themes; then without script, and by keyboard.

use std::{collections::BTreeSet, fmt::Write, fs};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Check, KEPT, Report,
    browser::{DESKTOP, PHONE, View},
    pages::{Kept, MENU_ONLY, PAGES, Page},
};
use crate::{cluster::KEY, root};

/// What is looked at in the whole check; the short one has half of it.
const VIEWS: [(View, &str); 4] = [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")];
const VIEWS_SHORT: [(View, &str); 2] = [(DESKTOP, "light"), (PHONE, "dark")];
/// Findings of axe-core that may not be.
const AXE: &str = "axe.run(document, {resultTypes: ['violations']}).then((told) => told.violations
    .filter((one) => ['serious', 'critical'].includes(one.impact))
    .map((one) => `${one.impact} ${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(' | ')}`))";

impl Check {
    pub(super) async fn looks(&mut self, axe: &str) -> Result<Report> {
        let mut wrong = self.signed_out(axe).await?;
        self.sign_in(KEY).await?;
        wrong.extend(self.menu().await?);
        let views: &[(View, &str)] = if self.short { &VIEWS_SHORT } else { &VIEWS };
        let (mut pictures, mut index) = (0, String::new());
        for &(view, theme) in views {
            self.browser.view(view, theme).await?;
            for page in PAGES {
                let path = self.scene.path(page.address)?;
                self.open(&path).await?;
                let at = format!("{} ({}, {theme})", page.name, view.name);
                wrong.extend(self.page(page, view).await?.into_iter().map(|line| format!("{at}: {line}")));
                pictures += 1;
                // In the short form accessibility and pictures once a page, in each theme for some.
                if self.short && (pictures % 2 == 0) == (theme == "light") {
                    continue;
                }
                wrong.extend(self.axe(axe).await?.into_iter().map(|line| format!("{at}: axe: {line}")));
                let name = format!("{}-{}-{theme}.png", page.name, view.name);
                fs::write(self.artefacts.join(&name), self.browser.picture(true).await?)?;
                let _ = writeln!(
                    index,
                    "<figure><figcaption>{at}</figcaption><img src=\"{name}\" alt=\"\" loading=\"lazy\"></figure>"
                );
            }
        }
        let style = "body{font-family:sans-serif}figure{display:inline-block;vertical-align:top;margin:8px}img{max-width:600px;border:1px solid}";
        fs::write(
            self.artefacts.join("index.html"),
            format!("<!doctype html><meta charset=\"utf-8\"><title>Pages</title><style>{style}</style>{index}"),
        )?;
        if self.pictures {
            self.keep().await?;
        }
        self.browser.view(DESKTOP, "light").await?;
        wrong.extend(self.by_keyboard().await?);
        wrong.extend(self.without_script().await?);
        Ok(Report {
            seen: format!("{} pages, {pictures} looks, axe-core, menu, keys, without script", PAGES.len()),
            wrong,
        })
    }

    /// The login page, which nobody is signed in for.
    async fn signed_out(&self, axe: &str) -> Result<Vec<String>> {
        self.browser.forget().await?;
        let mut wrong = vec![];
        for (view, theme) in [(DESKTOP, "light"), (PHONE, "dark")] {
            self.browser.view(view, theme).await?;
            self.open("/dashboard/jobs").await?;
            if !self.browser.url().await?.contains("/dashboard/login") {
                wrong.push("without a session one is not asked to sign in".to_owned());
            }
            wrong.extend(self.wide(view).await?);
            wrong.extend(self.axe(axe).await?.into_iter().map(|line| format!("axe: {line}")));
            wrong.extend(self.browser.complaints().await?);
            fs::write(
                self.artefacts.join(format!("login-{}-{theme}.png", view.name)),
                self.browser.picture(true).await?,
            )?;
        }
        Ok(wrong.into_iter().map(|line| format!("login: {line}")).collect())
    }

    /// Each page in the menu has a row.
    async fn menu(&self) -> Result<Vec<String>> {
        let menu: BTreeSet<String> = serde_json::from_value(self.browser.evaluate("__check.menu()").await?)?;
        let known: BTreeSet<&str> = PAGES.iter().map(|page| page.address).chain(MENU_ONLY.iter().copied()).collect();
        let bare = |link: &String| link.split('?').next().unwrap_or_default().to_owned();
        let mut wrong: Vec<String> = menu
            .iter()
            .filter(|link| !known.contains(bare(link).as_str()))
            .map(|link| format!("{link} is in the menu and has no row in PAGES"))
            .collect();
        if menu.is_empty() {
            wrong.push("there is no menu".to_owned());
        }
        let in_menu = PAGES.iter().filter(|page| page.in_menu && !menu.iter().any(|link| bare(link) == page.address));
        wrong.extend(in_menu.map(|page| format!("{} is not in the menu", page.address)));
        Ok(wrong)
    }

    /// What holds of every page: it is there, says what it is about, fits, and the browser has nothing to complain of.
    async fn page(&self, page: &Page, view: View) -> Result<Vec<String>> {
        let text = self.browser.text().await?;
        let folded = text.to_lowercase();
        let mut wrong = vec![];
        for words in page.shows {
            let words = self.scene.words(words)?;
            if !folded.contains(&words.to_lowercase()) {
                wrong.push(format!("does not show \"{words}\""));
            }
        }
        let headings = self.browser.evaluate("document.querySelectorAll('h1').length").await?;
        if headings != 1 {
            wrong.push(format!("{headings} headings of the first order"));
        }
        wrong.extend(self.wide(view).await?);
        wrong.extend(self.browser.complaints().await?);
        if !wrong.is_empty() && wrong.iter().any(|line| line.contains("does not show")) {
            wrong.push(format!("it says: {}", text.chars().take(300).collect::<String>().replace('\n', " / ")));
        }
        Ok(wrong)
    }

    pub(super) async fn wide(&self, view: View) -> Result<Vec<String>> {
        let found = self.browser.evaluate(&format!("__check.wide({})", view.width_px)).await?;
        let lines: Vec<String> = serde_json::from_value(found)?;
        Ok(if lines.is_empty() {
            vec![]
        } else {
            vec![format!("wider than {} px: {}", view.width_px, lines.join(" "))]
        })
    }

    pub(super) async fn axe(&self, axe: &str) -> Result<Vec<String>> {
        if self.browser.evaluate("typeof axe").await? == "undefined" {
            self.browser.evaluate(&format!("{axe};0")).await?;
        }
        Ok(serde_json::from_value(self.browser.evaluate(AXE).await?)?)
    }

    /// The pictures of the documents, of what one sees without scrolling. Taken last: by then charts have something to show.
    async fn keep(&self) -> Result<()> {
        let folder = root().join(KEPT);
        fs::create_dir_all(&folder)?;
        for page in PAGES {
            let Some(Kept { name, view, theme, from }) = &page.kept else { continue };
            self.browser.view(*view, theme).await?;
            self.open(&self.scene.path(page.address)?).await?;
            let heading =
                format!("[...document.querySelectorAll('h2, h3')].find((one) => one.innerText.includes('{from}'))");
            if !from.is_empty() {
                self.browser.evaluate(&format!("{heading}.scrollIntoView()")).await?;
            }
            let picture = self.browser.picture(false).await?;
            fs::write(folder.join(format!("{name}.png")), picture).with_context(|| format!("{name} cannot be kept"))?;
        }
        Ok(())
    }

    async fn by_keyboard(&self) -> Result<Vec<String>> {
        self.open("/dashboard").await?;
        let mut wrong = vec![];
        self.browser.press("?").await?;
        let opened = self.browser.until("`?` shows the keys", "__check.shown('dialog[open], [role=dialog]')").await;
        wrong.extend(opened.err().map(|error| format!("{error:#}")));
        // Escape.
        self.browser.press("\u{e00c}").await?;
        for (keys, path) in [("gj", "/dashboard/jobs"), ("gq", "/dashboard/queues"), ("go", "/dashboard")] {
            self.browser.press(keys).await?;
            let came = self
                .browser
                .until(&format!("{keys} leads to {path}"), &format!("location.pathname === '{path}'"))
                .await;
            wrong.extend(came.err().map(|error| format!("{error:#}")));
        }
        self.open("/dashboard/jobs").await?;
        self.browser.press("/").await?;
        let focused = self
            .browser
            .until(
                "`/` leads to the filter",
                "document.activeElement.localName === 'input' || document.activeElement.localName === 'textarea'",
            )
            .await;
        wrong.extend(focused.err().map(|error| format!("{error:#}")));
        Ok(wrong)
    }

    /// Every page reads, and says nothing else, where scripts are not allowed.
    async fn without_script(&self) -> Result<Vec<String>> {
        self.browser.scripts(false).await?;
        let mut wrong = vec![];
        for page in PAGES.iter().filter(|page| !self.short || page.in_menu) {
            self.open(&self.scene.path(page.address)?).await?;
            let folded = self.browser.text().await?.to_lowercase();
            for words in page.shows {
                let words = self.scene.words(words)?;
                if !folded.contains(&words.to_lowercase()) {
                    wrong.push(format!("{} without script does not show \"{words}\"", page.name));
                }
            }
            let ran =
                self.browser.evaluate("Boolean(document.querySelector('#pause-updates, #pause[type=button]'))").await?;
            if ran != Value::Bool(false) {
                wrong.push(format!("{}: scripts ran although they were forbidden", page.name));
            }
        }
        self.browser.scripts(true).await?;
        Ok(wrong)
    }
}
