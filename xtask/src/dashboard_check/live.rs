//! What comes without a reload: numbers that change, tokens that stream, an API that is killed and comes back.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Check, Report};
use crate::cluster::KEY;

/// Whether the banner of trouble is seen.
const TROUBLE: &str = "__check.shown('#trouble')";
/// A mark that a reload would take away.
const MARK: &str = "window.__stays = true";

impl Check {
    pub(super) async fn live(&mut self) -> Result<Report> {
        self.sign_in(KEY).await?;
        let mut wrong = vec![];
        for (what, came) in [
            ("numbers", self.numbers().await),
            ("tokens", self.tokens().await),
            ("an API that is killed", self.killed().await),
        ] {
            wrong.extend(came.err().map(|error| format!("{what}: {error:#}")));
        }
        Ok(Report { seen: "numbers change, tokens stream, a killed API is told and heals".to_owned(), wrong })
    }

    /// A queue that nobody has named before appears in the list, and a queue's own page counts on.
    async fn numbers(&self) -> Result<()> {
        self.open("/dashboard/queues").await?;
        self.browser.evaluate(MARK).await?;
        let row = "[...document.querySelectorAll('main tr')].some((row) => row.innerText.trim().startsWith('live'))";
        ensure!(self.browser.evaluate(row).await? == false, "the queue is there before it is named");
        let job = json!({"queue": "live", "kind": "probe", "payload": {}});
        self.scene.submit(&vec![job.clone(); 7]).await?;
        self.browser.until("a new queue comes into the list", row).await?;
        self.stays().await?;
        self.open("/dashboard/queues/live").await?;
        self.browser.evaluate(MARK).await?;
        self.scene.submit(&vec![job; 91]).await?;
        self.browser.until("98 jobs are counted", "document.querySelector('main').innerText.includes('98')").await?;
        self.browser.press("p").await?;
        self.browser.until("one can pause", "document.querySelector('#live').innerText.includes('Paused')").await?;
        self.browser.press("p").await?;
        self.browser.until("and go on", "document.querySelector('#live').innerText === 'Live'").await?;
        self.stays().await
    }

    /// The answer of a running job grows.
    async fn tokens(&self) -> Result<()> {
        self.open(&self.scene.path("/dashboard/jobs/{job_streams}")?).await?;
        self.browser.evaluate(MARK).await?;
        let length = "(document.querySelector('[data-stream]')?.textContent ?? '').trim().length";
        self.browser.until("tokens come", &format!("{length} > 0")).await?;
        self.browser.evaluate(&format!("window.__length = {length}; true")).await?;
        self.browser.until("more of them come", &format!("{length} > window.__length")).await?;
        self.stays().await
    }

    /// The page says that it is no longer live, and goes on by itself when the API is there again.
    async fn killed(&mut self) -> Result<()> {
        self.open("/dashboard").await?;
        self.browser.evaluate(MARK).await?;
        ensure!(self.browser.evaluate(TROUBLE).await? == false, "there is a banner while all is well");
        let api = self.scene.api;
        self.scene.cluster.kill(api).await?;
        let told = self.browser.until("a killed API is told", TROUBLE).await;
        if self.pictures {
            let folder = crate::root().join(super::KEPT);
            std::fs::write(folder.join("api-gone.png"), self.browser.picture(false).await?)?;
        }
        self.scene.cluster.restart(api).await?;
        self.scene.cluster.ready(api).await?;
        told?;
        self.browser.until("it heals", &format!("!{TROUBLE}")).await?;
        self.stays().await?;
        // The browser has noted each try.
        self.browser.complaints().await?;
        Ok(())
    }

    async fn stays(&self) -> Result<()> {
        ensure!(self.browser.evaluate("window.__stays === true").await? == true, "the page was loaded anew");
        Ok(())
    }
}
