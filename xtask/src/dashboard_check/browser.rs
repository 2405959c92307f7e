//! Debian's Chromium over its driver: as much of WebDriver as the checks need, and the browser's own protocol through the driver's
//! `goog/cdp/execute` for what WebDriver has no word for.
//!
//! Ours because the libraries do not fit: `fantoccini` stands on `webdriver`, whose licence (MPL-2.0) `deny.toml` does not let in, and
//! `thirtyfour` switches `serde_json/preserve_order` on for every crate that is built together with it, also for those that are tested.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::Watchdog;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::Instant,
};

/// Longest wait for the driver to say where it listens, and for one answer of it: a page may load slowly on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at a page that changes by itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for a page to become what it should.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Tallest picture: beyond it a page is cut.
const TALLEST_PX: f64 = 4_000.0;
/// The member under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What is to be read: the text, and the words behind what is shortened. Also where no script may run.
const SAID: &str =
    "[document.body.innerText, ...[...document.querySelectorAll('[title]')].map((one) => one.title)].join('\\n')";
/// What is put into each document before its own scripts.
const WATCH: &str = include_str!("watch.js");

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// `desktop` or `phone`.
    pub(super) name: &'static str,
    pub(super) width_px: u32,
    pub(super) height_px: u32,
}

pub(super) const DESKTOP: View = View { name: "desktop", width_px: 1_280, height_px: 800 };
pub(super) const PHONE: View = View { name: "phone", width_px: 390, height_px: 844 };

/// A browser with one window. It ends with this value.
pub(super) struct Browser {
    http: reqwest::Client,
    session: String,
    driver: Child,
    watchdog: Option<Watchdog>,
}

impl Browser {
    /// Starts a driver on a free port, and a browser without a window on the screen.
    pub(super) async fn start() -> Result<Self> {
        let mut command = Command::new("chromedriver");
        command.args(["--port=0", "--log-level=WARNING"]).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().context("chromedriver did not start")?;
        let watchdog = Some(Watchdog::over(driver.id().context("it has just been started")?));
        let mut lines = BufReader::new(driver.stdout.take().context("its output is piped")?).lines();
        let port = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, port)) = line.split_once("successfully on port ") {
                    return Ok(port.trim_end_matches('.').to_owned());
                }
            }
            bail!("chromedriver ended")
        };
        let port = tokio::time::timeout(START_MAX, port).await.context("chromedriver does not say where it is")??;
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { http, session: base, driver, watchdog };
        let made = browser.ask(Method::POST, "", Some(wanted())).await?;
        let id = made["sessionId"].as_str().context("a session has an id")?;
        browser.session = format!("http://127.0.0.1:{port}/session/{id}");
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": WATCH})).await?;
        Ok(browser)
    }

    /// Closes it in order.
    pub(super) async fn end(mut self) -> Result<()> {
        self.ask(Method::DELETE, "", None).await?;
        self.watchdog = None;
        self.driver.kill().await?;
        Ok(())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| format!("the driver does not answer {path}"))?;
        let status = answer.status();
        let mut told: Value = answer.json().await?;
        let value = told["value"].take();
        ensure!(status.is_success(), "{path}: {}", value["message"].as_str().unwrap_or_default());
        Ok(value)
    }

    /// One command of the browser's own protocol.
    pub(super) async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        let body = json!({"cmd": command, "params": parameters});
        self.ask(Method::POST, "/goog/cdp/execute", Some(body)).await.with_context(|| command.to_owned())
    }

    /// Loads a page and waits until it is there.
    pub(super) async fn open(&self, url: &str) -> Result<()> {
        self.ask(Method::POST, "/url", Some(json!({"url": url}))).await.with_context(|| url.to_owned())?;
        Ok(())
    }

    /// Where it is.
    pub(super) async fn url(&self) -> Result<String> {
        let url = self.ask(Method::GET, "/url", None).await?;
        Ok(url.as_str().context("a URL is text")?.to_owned())
    }

    /// What an expression comes to, once its promise has.
    pub(super) async fn evaluate(&self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut told = self.devtools("Runtime.evaluate", parameters).await?;
        let threw = &told["exceptionDetails"];
        ensure!(threw.is_null(), "{}: {}", threw["text"], threw["exception"]["description"]);
        Ok(told["result"]["value"].take())
    }

    /// Waits until an expression is true.
    pub(super) async fn until(&self, what: &str, expression: &str) -> Result<()> {
        let began = Instant::now();
        while self.evaluate(expression).await? != Value::Bool(true) {
            if began.elapsed() > PATIENCE {
                let text = self.text().await?;
                let text: String = text.chars().take(1_500).collect();
                bail!("it never came true that {what}, at {}:\n{text}", self.url().await?);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// What people read on the page, also where they point at something.
    pub(super) async fn text(&self) -> Result<String> {
        Ok(self.evaluate(SAID).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Runs a function of `watch.js` whose answer is an element, and clicks on it as a person does: it has to be seen, and nothing may
    /// lie over it.
    pub(super) async fn click(&self, found_by: &str, arguments: Value) -> Result<()> {
        let body = json!({"script": format!("return __check.{found_by}(...arguments)"), "args": arguments});
        let element = self.ask(Method::POST, "/execute/sync", Some(body)).await?;
        let id =
            element[ELEMENT].as_str().with_context(|| format!("{found_by}{arguments} finds nothing: {element}"))?;
        self.ask(Method::POST, &format!("/element/{id}/click"), Some(json!({}))).await?;
        Ok(())
    }

    /// Types keys one after the other, wherever the focus is.
    pub(super) async fn press(&self, keys: &str) -> Result<()> {
        let each = keys.chars().flat_map(|key| {
            [json!({"type": "keyDown", "value": key.to_string()}), json!({"type": "keyUp", "value": key.to_string()})]
        });
        let body = json!({"actions": [{"type": "key", "id": "keyboard", "actions": each.collect::<Vec<_>>()}]});
        self.ask(Method::POST, "/actions", Some(body)).await?;
        Ok(())
    }

    /// From now on pages are seen like this.
    pub(super) async fn view(&self, view: View, theme: &str) -> Result<()> {
        let metrics = json!({
            "width": view.width_px, "height": view.height_px, "deviceScaleFactor": 1, "mobile": view == PHONE
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": theme},
                                           {"name": "prefers-reduced-motion", "value": "reduce"}]});
        self.devtools("Emulation.setEmulatedMedia", features).await?;
        Ok(())
    }

    /// Whether pages may run scripts.
    pub(super) async fn scripts(&self, allowed: bool) -> Result<()> {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({"value": !allowed})).await?;
        Ok(())
    }

    /// A PNG of what is seen, or of the whole page.
    pub(super) async fn picture(&self, whole: bool) -> Result<Vec<u8>> {
        let mut parameters = json!({"format": "png"});
        if whole {
            let metrics = self.devtools("Page.getLayoutMetrics", json!({})).await?;
            let size = &metrics["cssContentSize"];
            let height = size["height"].as_f64().unwrap_or_default().min(TALLEST_PX);
            parameters["captureBeyondViewport"] = json!(true);
            parameters["clip"] = json!({"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1});
        }
        let taken = self.devtools("Page.captureScreenshot", parameters).await?;
        Ok(STANDARD.decode(taken["data"].as_str().context("a picture is text")?)?)
    }

    /// What the browser has complained about since the last time: errors of scripts, what the policy refused, what did not load.
    pub(super) async fn complaints(&self) -> Result<Vec<String>> {
        let log = self.ask(Method::POST, "/se/log", Some(json!({"type": "browser"}))).await?;
        let mut all: Vec<String> = log.as_array().into_iter().flatten().filter_map(complaint).collect();
        let seen = self.evaluate("window.__check ? __check.seen.splice(0) : []").await?;
        all.extend(seen.as_array().into_iter().flatten().filter_map(|line| line.as_str().map(str::to_owned)));
        Ok(all)
    }

    /// The cookies of this page, as a header has them.
    pub(super) async fn cookies(&self) -> Result<String> {
        let cookies = self.ask(Method::GET, "/cookie", None).await?;
        let pair = |cookie: &Value| Some(format!("{}={}", cookie["name"].as_str()?, cookie["value"].as_str()?));
        Ok(cookies.as_array().into_iter().flatten().filter_map(pair).collect::<Vec<_>>().join("; "))
    }

    /// Forgets every cookie.
    pub(super) async fn forget(&self) -> Result<()> {
        self.devtools("Network.clearBrowserCookies", json!({})).await?;
        Ok(())
    }
}

/// What the driver is asked for. Dialogs stay open, so that whoever opens one is noticed; root gets no sandbox.
fn wanted() -> Value {
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--force-color-profile=srgb",
        "--hide-scrollbars",
        "--no-first-run",
        "--lang=en-GB",
    ];
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "unhandledPromptBehavior": "ignore",
        "goog:loggingPrefs": {"browser": "ALL"},
        "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
    }}})
}

/// A line of the browser's log that says that something is wrong. Our pages name their icon; where another site's do not, a browser looks
/// for one by itself.
fn complaint(line: &Value) -> Option<String> {
    let looks_for_icon = line["message"].as_str().is_some_and(|message| message.contains("/favicon.ico "));
    let severe = ["SEVERE", "WARNING"].contains(&line["level"].as_str()?) && !looks_for_icon;
    severe.then(|| {
        format!("{}: {}", line["source"].as_str().unwrap_or_default(), line["message"].as_str().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_severe_is_a_complaint() {
        let line = json!({"level": "SEVERE", "source": "security", "message": "inline style"});
        assert_eq!(complaint(&line).unwrap(), "security: inline style");
        assert_eq!(complaint(&json!({"level": "INFO", "source": "console-api", "message": "hello"})), None);
    }
}
