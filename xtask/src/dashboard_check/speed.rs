//! How long pages take, and how large what they load is.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::header;
use tokio::time::Instant;

use super::{Check, Report, pages::PAGES};
use crate::{
    bar::Bar,
    cluster::KEY,
    table::{self, figure},
};

/// Milliseconds of a page on the server, as nineteen of twenty loads have it.
const SERVER_MS: Bar = Bar::AtMost(50.0);
/// Milliseconds until a browser on this machine paints something, as half of the loads have it.
const PAINT_MS: Bar = Bar::AtMost(300.0);
/// Bytes of all that pages load, compressed.
const ASSETS_BYTES: Bar = Bar::AtMost(100.0 * 1024.0);
/// Loads of each page.
const LOADS: usize = 20;
const PAINTS: usize = 5;
const LOADS_SHORT: usize = 1;
const PAINTS_SHORT: usize = 0;
/// When the browser painted first; nothing while it has not.
const PAINTED: &str = "performance.getEntriesByName('first-paint')[0]?.startTime ?? null";

impl Check {
    pub(super) async fn speed(&mut self) -> Result<Report> {
        self.sign_in(KEY).await?;
        let session = self.session().await?;
        let (loads, paints) = if self.short { (LOADS_SHORT, PAINTS_SHORT) } else { (LOADS, PAINTS) };
        let (mut rows, mut wrong, mut slowest) = (vec![], vec![], (0.0, ""));
        for page in PAGES {
            let path = self.scene.path(page.address)?;
            let mut times = vec![];
            for _ in 0..loads {
                let began = Instant::now();
                let (status, _) = session.get(&path).await?;
                ensure!(status.is_success(), "{path} is answered {status}");
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            let mut painted = vec![];
            for _ in 0..paints {
                self.open(&path).await?;
                self.browser.until("something is painted", &format!("({PAINTED}) !== null")).await?;
                painted.push(self.browser.evaluate(PAINTED).await?.as_f64().context("a paint has a moment")?);
            }
            let (server, typical) = (at(&mut times, 0.95), at(&mut times, 0.5));
            slowest = if server > slowest.0 { (server, page.name) } else { slowest };
            let mut row = vec![page.name.to_owned(), figure(typical), figure(server)];
            // Few loads of a debug build on a busy machine say nothing: the short form only prints.
            if !self.short {
                let paint = at(&mut painted, 0.5);
                let met = SERVER_MS.is_met(server) && PAINT_MS.is_met(paint);
                if !met {
                    let (server, paint) = (figure(server), figure(paint));
                    wrong.push(format!("{}: {server} ms on the server, first paint after {paint} ms", page.name));
                }
                row.extend([figure(paint), if met { "met" } else { "NOT MET" }.to_owned()]);
            }
            rows.push(row);
        }
        let title = format!(
            "Milliseconds of pages: server time (bar {SERVER_MS} at 19 of 20), first paint (bar {PAINT_MS}), {loads} loads"
        );
        let head = ["PAGE", ">HALF", ">19 OF 20", ">FIRST PAINT", "VERDICT"];
        table::print(&title, if self.short { &head[..3] } else { &head }, rows);
        let (bytes, assets) = self.assets().await?;
        println!("assets, compressed: {} bytes in {assets} files (bar {ASSETS_BYTES})", figure(bytes));
        if !ASSETS_BYTES.is_met(bytes) {
            wrong.push(format!("the assets have {} bytes", figure(bytes)));
        }
        let seen = format!(
            "{} pages {loads} times, the slowest was {} with {} ms; assets {} bytes",
            PAGES.len(),
            slowest.1,
            figure(slowest.0),
            figure(bytes)
        );
        Ok(Report { seen, wrong })
    }

    /// Everything that any page has loaded, as it came over the wire; how many bytes and files.
    async fn assets(&self) -> Result<(f64, usize)> {
        let mut all = BTreeSet::new();
        for page in PAGES.iter().filter(|page| page.in_menu) {
            self.open(page.address).await?;
            let loaded = "[...document.querySelectorAll('link[href], script[src], img[src]')].map((one) => new URL(one.href ?? one.src).href)";
            all.extend(serde_json::from_value::<Vec<String>>(self.browser.evaluate(loaded).await?)?);
        }
        let http = reqwest::Client::new();
        let mut bytes = 0;
        for url in &all {
            ensure!(url.starts_with(&self.scene.url), "{url} is loaded from elsewhere");
            let answer = http.get(url).header(header::ACCEPT_ENCODING, "br, gzip").send().await?.error_for_status()?;
            bytes += answer.bytes().await?.len();
        }
        Ok((bytes as f64, all.len()))
    }
}

/// What this part of the times does not exceed.
fn at(times: &mut [f64], part: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let place = (times.len() as f64 * part).ceil() as usize;
    times.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nineteen_of_twenty_do_not_exceed_it() {
        let mut times: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!((at(&mut times, 0.95), at(&mut times, 0.5)), (19.0, 10.0));
        assert!(at(&mut [], 0.5).is_nan());
    }
}
