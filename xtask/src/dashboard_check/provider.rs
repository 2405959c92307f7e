//! Signing in with an identity provider where a browser decides what is sent: the provider is on another site (127.0.0.1) than the dashboard
//! (localhost), so `SameSite=Strict` of the session and `form-action` of the policy count for every step.

use std::{fs, net::TcpListener, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::{OidcProvider, Watchdog};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use super::{Check, Report, browser::DESKTOP};

/// The page of a sign-in that came to nothing.
const REFUSED: &str = "document.querySelector('h1')?.innerText === 'You are not signed in'";
/// Longest wait for a fresh `up`, and time between two looks.
const READY_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A `longshore up` that people sign in to with a provider.
struct Place {
    provider: OidcProvider,
    url: String,
    // Goes before the process does.
    _watchdog: Watchdog,
    _up: Child,
    _folder: tempfile::TempDir,
}

impl Place {
    async fn start(longshore: &Path) -> Result<Self> {
        let (provider, folder) = (OidcProvider::start().await, tempfile::tempdir()?);
        // The provider has to know the address before anybody listens there.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (url, issuer) = (format!("http://localhost:{port}"), provider.issuer());
        provider.allow(&format!("{url}/dashboard/oidc/callback"));
        provider.know("ann", json!({"tenant": "acme", "role": "operator"}));
        provider.know("mallory", json!({"tenant": "acme", "role": "admin"}));
        let configured = format!(
            "[[auth.issuers]]\nissuer = \"{issuer}\"\naudience = \"longshore\"\nmax_role = \"operator\"\n\
             [dashboard.oidc]\nissuer = \"{issuer}\"\nclient_id = \"longshore\"\nname = \"Test\"\npublic_url = \"{url}\"\n"
        );
        let file = folder.path().join("longshore.toml");
        fs::write(&file, configured)?;
        let mut command = Command::new(longshore);
        command.arg("up").arg("--config").arg(&file).args(["--listen", &format!("127.0.0.1:{port}")]);
        command.env_clear().env("LONGSHORE_DATA", folder.path().join("data"));
        command.env("LONGSHORE_OIDC_CLIENT_SECRET", "test-only-secret");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let up = command.spawn().context("`longshore up` did not start")?;
        let watchdog = Watchdog::over(up.id().context("it has just been started")?);
        let (ready, began) = (format!("http://127.0.0.1:{port}/readyz"), Instant::now());
        while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
            ensure!(began.elapsed() < READY_MAX, "`longshore up` never became ready");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Self { provider, url, _watchdog: watchdog, _up: up, _folder: folder })
    }
}

impl Check {
    pub(super) async fn provider(&mut self, axe: &str) -> Result<Report> {
        let place = Place::start(&self.longshore).await?;
        self.browser.forget().await?;
        let mut wrong = vec![];
        for (what, came) in [
            ("in", self.in_by_provider(&place, axe).await),
            ("from elsewhere", self.link_from_elsewhere(&place).await),
            ("out", self.out_of_both(&place).await),
            ("refused", self.refused_by_api(&place, axe).await),
        ] {
            match came {
                Ok(lines) => wrong.extend(lines.into_iter().map(|line| format!("{what}: {line}"))),
                Err(error) => wrong.push(format!("{what}: {error:#}")),
            }
        }
        self.browser.forget().await?;
        let seen =
            "in with a provider of another site, from a link elsewhere, anew when a session ends, out of both, refused";
        Ok(Report { seen: seen.to_owned(), wrong })
    }

    /// From a page that wants a session, over the provider, and back to that page, where scripts see no session.
    async fn in_by_provider(&self, place: &Place, axe: &str) -> Result<Vec<String>> {
        self.browser.open(&format!("{}/dashboard/queues", place.url)).await?;
        let mut wrong = self.axe(axe).await?;
        wrong.extend(self.wide(DESKTOP).await?);
        self.browser.click("named", json!(["Sign in with Test"])).await?;
        self.browser.until("the provider asks who one is", "document.title === 'Test provider'").await?;
        self.browser.click("named", json!(["ann"])).await?;
        self.browser.until("one is back", "location.pathname === '/dashboard/queues'").await?;
        let cookies =
            self.browser.devtools("Network.getCookies", json!({"urls": [place.url.clone() + "/dashboard"]})).await?;
        let session = named(&cookies, "longshore_session").context("there is no session")?;
        if (&session["httpOnly"], &session["sameSite"]) != (&json!(true), &json!("Strict")) {
            wrong.push(format!("the session's cookie is within reach: {session}"));
        }
        if named(&cookies, "longshore_oidc").is_some() {
            wrong.push("a sign-in that is over is remembered".to_owned());
        }
        wrong.extend(self.browser.complaints().await?);
        Ok(wrong)
    }

    /// A link on another site leads to the page although no session came with it; a session that has ended begins anew.
    async fn link_from_elsewhere(&self, place: &Place) -> Result<Vec<String>> {
        place.provider.sign_in(Some("ann"));
        self.browser.open(&format!("{}/else", place.provider.issuer())).await?;
        self.browser.evaluate(&format!("location.href = '{}/dashboard/workers'; true", place.url)).await?;
        let before = place.provider.seen().codes;
        self.browser.until("the link leads there", "location.pathname === '/dashboard/workers'").await?;
        ensure!(place.provider.seen().codes == before, "one had to sign in again");
        self.browser
            .devtools(
                "Network.deleteCookies",
                json!({"name": "longshore_session", "url": place.url.clone() + "/dashboard"}),
            )
            .await?;
        self.browser.open(&format!("{}/dashboard/jobs", place.url)).await?;
        self.browser.until("it begins anew", "location.pathname === '/dashboard/jobs'").await?;
        ensure!(place.provider.seen().codes == before + 1, "nobody asked the provider");
        // The page elsewhere is none, and the browser has noted that.
        self.browser.complaints().await?;
        Ok(vec![])
    }

    async fn out_of_both(&self, place: &Place) -> Result<Vec<String>> {
        // It lies behind who one is.
        self.browser.evaluate("__check.unfold(document.querySelector('form[action=\"/dashboard/logout\"]'))").await?;
        self.browser.click("button", json!(["/dashboard/logout", {}, "Sign out"])).await?;
        self.browser.until("one is signed out", "location.pathname === '/dashboard/login'").await?;
        let wrong = self.browser.complaints().await?;
        self.browser.open(&format!("{}/dashboard", place.url)).await?;
        self.browser.until("one is asked", "location.pathname === '/dashboard/login'").await?;
        self.browser.click("named", json!(["Sign in with Test"])).await?;
        self.browser.until("the provider asks anew", "document.title === 'Test provider'").await?;
        Ok(wrong)
    }

    async fn refused_by_api(&self, place: &Place, axe: &str) -> Result<Vec<String>> {
        place.provider.sign_in(Some("mallory"));
        self.browser.open(&format!("{}/dashboard/oidc/start", place.url)).await?;
        self.browser.until("who claims too much is refused", REFUSED).await?;
        let mut wrong = self.axe(axe).await?;
        if !self.browser.text().await?.contains("makes nobody more than `operator`") {
            wrong.push(format!("it does not say why: {}", self.browser.text().await?));
        }
        // The status of that page is a refusal, and the browser has noted that.
        self.browser.complaints().await?;
        Ok(wrong)
    }
}

fn named<'c>(cookies: &'c Value, name: &str) -> Option<&'c Value> {
    cookies["cookies"].as_array()?.iter().find(|cookie| cookie["name"] == name)
}
