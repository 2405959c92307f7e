//! The dashboard as a browser gets it: who is let in, what each sees, and that nobody does by a page what the API would refuse.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, form},
    installation::{Installation, KEY, PATIENCE},
};

/// Most pages that are looked at: a page that makes addresses without end is an error.
const PAGES_MAX: usize = 150;
/// What no page of ours may contain: the policy would not run it, and nobody should have written it.
const NEVER: [&str; 6] = [" style=", " onclick=", " onload=", " onsubmit=", "<script>", "javascript:"];
/// Markup that somebody put wherever the API takes words.
const HOSTILE: &str = "\"><img src=x onerror=alert(1)>";

/// The values of an attribute, in their order.
fn attributes(html: &str, name: &str) -> Vec<String> {
    let start = format!(" {name}=\"");
    let ends = html.split(start.as_str()).skip(1).filter_map(|rest| rest.split('"').next());
    ends.map(read).collect()
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    attributes(tag, name).into_iter().next()
}

/// Text as it was before it was escaped.
fn read(text: &str) -> String {
    let pairs = [
        ("&#34;", "\""),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#60;", "<"),
        ("&lt;", "<"),
        ("&#62;", ">"),
        ("&gt;", ">"),
    ];
    let text = pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    text.replace("&#38;", "&").replace("&amp;", "&")
}

/// A form of a page, filled in as far as its page fills it; `x` in each other field.
#[derive(Clone, Debug)]
struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

fn forms(html: &str) -> Vec<Form> {
    let posts = html.split("<form ").skip(1).filter(|form| form.split('>').next().unwrap().contains("method=\"post\""));
    let read = |form: &str| {
        let form = form.split("</form>").next().unwrap();
        let tags = form
            .split('<')
            .filter(|tag| ["input ", "select ", "textarea ", "button "].iter().any(|name| tag.starts_with(name)));
        let fields = tags.filter_map(|tag| {
            let tag = tag.split('>').next().unwrap();
            Some((
                attribute(tag, "name")?,
                attribute(tag, "value").filter(|value| !value.is_empty()).unwrap_or("x".into()),
            ))
        });
        Form { action: attribute(&format!(" {form}"), "action").unwrap(), fields: fields.collect() }
    };
    posts.map(read).collect()
}

/// Every page that is reached by links, with its text.
async fn crawl(browser: &Browser<'_>) -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut waiting = VecDeque::from(["/dashboard".to_owned()]);
    // Of pages that differ by their query alone, the first few; of things of one sort, too.
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut known = BTreeSet::from(["/dashboard".to_owned()]);
    while let Some(path) = waiting.pop_front() {
        let page = browser.get(&path).await;
        if page.status == StatusCode::SEE_OTHER && page.to.starts_with("/dashboard/") && !page.to.contains("/login") {
            if known.insert(page.to.clone()) {
                waiting.push_back(page.to);
            }
            continue;
        }
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        assert_eq!(page.headers[header::CACHE_CONTROL], "no-store", "{path}");
        assert_eq!(page.headers[header::REFERRER_POLICY], "same-origin", "{path}");
        let kind = page.headers[header::CONTENT_TYPE].to_str().unwrap();
        if !kind.starts_with("text/html") {
            // What somebody submitted, as it is: never as a page.
            assert!(path.contains("/raw/") && kind.starts_with("application/json"), "{path}: {kind}");
            assert_eq!(page.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            continue;
        }
        for never in NEVER {
            assert!(!page.text.contains(never), "{path} has {never}:\n{}", page.text);
        }
        assert!(!page.text.contains("<img src=x"), "{path} has markup of a user:\n{}", page.text);
        assert_eq!(page.text.matches("<h1").count(), 1, "{path}");
        for href in attributes(&page.text, "href") {
            let href = href.split('#').next().unwrap().to_owned();
            let is_ours = href.starts_with("/dashboard") && !href.starts_with("/dashboard/assets/");
            if is_ours && known.insert(href.clone()) {
                let place = href.split('?').next().unwrap();
                let segments: Vec<_> = place.split('/').skip(1).collect();
                let kind = segments.iter().take(2).copied().collect::<Vec<_>>().join("/") + &segments.len().to_string();
                let seen = kinds.entry(kind).or_default();
                *seen += 1;
                if *seen <= 6 {
                    waiting.push_back(href);
                }
            }
        }
        pages.insert(path, page.text);
        assert!(pages.len() <= PAGES_MAX, "{:?}", pages.keys());
    }
    pages
}

/// Something of everything, with markup where the API takes words.
async fn seed(up: &Installation) {
    up.put("/v1/tenants/acme", &json!({"weight": 2})).await;
    up.put("/v1/tenants/acme/budget", &json!({"day_usd": "5.00"})).await;
    let done = up.probe(json!({"sleep_ms": 1})).await;
    up.ended(&done).await;
    let dead = json!({"kind": "probe", "tenant": "acme", "queue": "night", "payload": {"fail": "permanent", "pad": HOSTILE},
        "tags": [HOSTILE], "unique_key": HOSTILE});
    let dead = up.submit(&dead).await;
    up.ended(&dead).await;
    up.patch("/v1/queues/night", &json!({"paused": true, "reason": HOSTILE})).await;
    let template = json!({"kind": "probe", "payload": {"pad": HOSTILE}});
    let schedule = json!({"name": "nightly", "cron": "30 3 * * *", "template": template});
    up.post("/v1/schedules", &schedule).await;
    let count = json!({"action": "redrive", "filter": "state = dead", "dry_run": true, "reason": HOSTILE});
    up.post("/v1/operations", &count).await;
    up.patch("/v1/targets/simulated:simulated-chat:default", &json!({"paused": true, "reason": HOSTILE})).await;
}

/// Changes that were made, by the audit log.
async fn changes(up: &Installation) -> usize {
    let audit = up.get("/v1/audit?limit=500").await;
    let is_change = |row: &&Value| {
        !row["action"].as_str().unwrap().starts_with("GET ")
            && row["status"].as_u64().is_some_and(|status| status < 300)
    };
    audit["rows"].as_array().unwrap().iter().filter(is_change).count()
}

async fn token(up: &Installation, role: &str, scopes: &[&str]) -> String {
    let mut wish = json!({"name": role, "tenant": "acme", "role": role});
    if !scopes.is_empty() {
        wish["scopes"] = json!(scopes);
    }
    let key = up.post("/v1/keys", &wish).await;
    let secret = key["key"].as_str().unwrap().to_owned();
    let browser = Browser::of(up, "");
    let login = browser.request(Method::POST, "/dashboard/login").header("sec-fetch-site", "same-origin");
    let page = browser.sent(form(login, &[("secret", &secret), ("next", "/dashboard/jobs")])).await;
    assert_eq!((page.status, &*page.to), (StatusCode::SEE_OTHER, "/dashboard/jobs"), "{}", page.text);
    let cookies = page.headers.get_all(header::SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap());
    let cookie = cookies.into_iter().find(|cookie| cookie.starts_with("longshore_session=")).unwrap();
    assert!(!cookie.contains(&secret), "the key is forgotten: {cookie}");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/dashboard", "Max-Age="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    cookie["longshore_session=".len()..].split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_does_more_by_a_page_than_by_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(&folder.path().join("data"), &[]).await;
    seed(&up).await;
    let admin = Browser::of(&up, &token(&up, "admin", &[]).await);
    let pages = crawl(&admin).await;
    let menu = [
        "queues",
        "jobs",
        "dead-letters",
        "operations",
        "workers",
        "schedules",
        "costs",
        "targets",
        "tenants",
        "audit",
        "backups",
    ];
    for page in menu {
        assert!(pages.contains_key(&format!("/dashboard/{page}")), "{page} is not in the menu: {:?}", pages.keys());
    }
    let actions: BTreeMap<String, Form> = pages
        .values()
        .flat_map(|page| forms(page))
        .filter(|form| form.action != "/dashboard/theme")
        .map(|form| (form.action.clone(), form))
        .collect();
    assert!(actions.len() > 10, "{:?}", actions.keys());
    let before = changes(&up).await;

    // Who sees everything and may change nothing is offered nothing, and gets nowhere with what others are offered.
    let reader = Browser::of(&up, &token(&up, "admin", &["*:read", "auth:token"]).await);
    for (path, page) in crawl(&reader).await {
        for form in forms(&page) {
            let harmless = ["/dashboard/theme", "/dashboard/logout"].contains(&form.action.as_str());
            assert!(harmless, "{path} offers {} to who may only read", form.action);
        }
    }
    for Form { action, fields } in actions.values().filter(|form| form.action != "/dashboard/logout") {
        let given: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // From nowhere; from elsewhere; from here, with the mark of another session; from here, by who may not.
        let forged = form(admin.request(Method::POST, action), &given);
        assert_eq!(admin.sent(forged).await.status, StatusCode::FORBIDDEN, "{action}");
        let foreign = admin.request(Method::POST, action).header("sec-fetch-site", "cross-site");
        assert_eq!(admin.sent(form(foreign, &given)).await.status, StatusCode::FORBIDDEN, "{action}");
        let marked = reader.request(Method::POST, action).header("sec-fetch-site", "same-origin");
        assert_eq!(reader.sent(form(marked, &given)).await.status, StatusCode::FORBIDDEN, "{action}");
        let own: Vec<_> = given.iter().filter(|(name, _)| *name != "csrf").copied().collect();
        let refused = reader.post("/dashboard", action, &own).await;
        // A field of the form may be looked at first.
        let is_refused = matches!(refused.status.as_u16(), 403 | 404 | 422);
        assert!(is_refused, "{action}: {} to {} {}", refused.status, refused.to, refused.text);
    }
    let after = changes(&up).await;
    assert_eq!(after, before + 2, "what is more is the key of who may only read, and its token");

    for role in ["user", "analyst", "operator"] {
        let browser = Browser::of(&up, &token(&up, role, &[]).await);
        let pages = crawl(&browser).await;
        assert_eq!(pages.contains_key("/dashboard/queues"), role == "operator", "{role}: {:?}", pages.keys());
        assert!(!pages.contains_key("/dashboard/audit"), "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_shows_what_changes_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(&folder.path().join("data"), &[]).await;
    up.ended(&up.probe(json!({"sleep_ms": 1})).await).await;
    let nobody = Browser::of(&up, "");

    let root = nobody.request(Method::GET, "/").header(header::ACCEPT, "text/html,*/*;q=0.8");
    assert_eq!(nobody.sent(root).await.to, "/dashboard");
    let script = nobody.get("/").await;
    assert!(
        script.status == StatusCode::NOT_FOUND && script.text.contains("urn:longshore:problem:"),
        "{}",
        script.text
    );
    let page = nobody.get("/dashboard/jobs?state=dead").await;
    assert_eq!(page.to, "/dashboard/login?next=%2Fdashboard%2Fjobs%3Fstate%3Ddead");
    let linked = nobody.request(Method::GET, "/dashboard/jobs").header("sec-fetch-site", "cross-site");
    let again = nobody.sent(linked).await;
    assert_eq!(again.headers["refresh"], "0; url=/dashboard/jobs", "a link from elsewhere comes without the cookie");
    let login = nobody.get(&page.to).await;
    assert_eq!(
        attributes(&login.text, "value").iter().filter(|value| *value == "/dashboard/jobs?state=dead").count(),
        1
    );
    for name in attributes(&login.text, "href").into_iter().chain(attributes(&login.text, "src")) {
        if name.starts_with("/dashboard/assets/") {
            let asset = nobody.get(&name).await;
            assert_eq!(asset.headers[header::CACHE_CONTROL], "public, max-age=31536000, immutable", "{name}");
        }
    }

    let sent = |secret: &str| {
        let request = nobody.request(Method::POST, "/dashboard/login").header("sec-fetch-site", "same-origin");
        nobody.sent(form(request, &[("secret", secret), ("next", "//evil.example")]))
    };
    let wrong = sent("lsk_testtest_0000000000000000000000000000000000000000000").await;
    assert!(wrong.status == StatusCode::UNAUTHORIZED && wrong.text.contains("role=\"alert\""), "{}", wrong.text);
    assert_eq!(sent("a b").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let right = sent(KEY).await;
    assert_eq!((right.status, &*right.to), (StatusCode::SEE_OTHER, "/dashboard"));
    let forged = nobody.sent(form(nobody.request(Method::POST, "/dashboard/login"), &[("secret", KEY)])).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);

    let session = token(&up, "operator", &[]).await;
    let browser = Browser::of(&up, &session);
    let request = browser.request(Method::GET, "/dashboard/live?at=%2Fdashboard%2Fqueues%2Fdefault");
    let mut live = Events::of(request.send().await.unwrap());
    let (name, page) = live.next().await;
    assert!(name == "page" && page.starts_with("<main") && !page.contains("deploy of the night"), "{name}: {page}");
    let paused = [("for", "1h"), ("reason", "deploy of the night")];
    let unsaid = browser.post("/dashboard/queues/default", "/dashboard/queues/default/pause", &[("for", "1h")]).await;
    assert_eq!(unsaid.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", unsaid.text);
    let done = browser.post("/dashboard/queues/default", "/dashboard/queues/default/pause", &paused).await;
    assert_eq!((done.status, &*done.to), (StatusCode::SEE_OTHER, "/dashboard/queues/default"), "{}", done.text);
    let note = done.headers[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let cookies = format!("longshore_session={session}; {note}");
    let told = browser.sent(browser.request_with(Method::GET, &done.to, &cookies)).await;
    assert!(told.text.contains("default is paused: what runs goes on"), "{}", told.text);
    assert!(told.headers[header::SET_COOKIE].to_str().unwrap().starts_with("longshore_flash=;"), "told once");
    let (name, page) = live.next().await;
    assert!(name == "page" && page.contains("deploy of the night"), "{name}: {page}");
    assert_eq!(up.get("/v1/queues/default").await["reason"], "deploy of the night");
    let row = &up.get("/v1/audit?limit=1").await["rows"][0];
    assert_eq!(
        (&row["action"], &row["address"]),
        (&json!("PATCH /v1/queues/{queue}"), &json!("127.0.0.0/24")),
        "{row}"
    );
    assert_eq!(row["request_id"], done.headers["x-request-id"].to_str().unwrap(), "the browser's own: {row}");

    let out = browser.post("/dashboard", "/dashboard/logout", &[]).await;
    assert_eq!(out.to, "/dashboard/login");
    assert!(browser.get("/dashboard").await.to.starts_with("/dashboard/login"), "the token was taken back");
    let (name, _) = live.next().await;
    assert_eq!(name, "gone");
    let dark = nobody.request(Method::POST, "/dashboard/theme").header("sec-fetch-site", "same-origin");
    let dark = nobody.sent(form(dark, &[("theme", "dark"), ("next", "/dashboard/jobs")])).await;
    assert!(
        dark.to == "/dashboard/jobs"
            && dark.headers[header::SET_COOKIE].to_str().unwrap().contains("longshore_theme=dark")
    );
}

/// The events of a stream.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self { response, text: String::new() }
    }

    /// The next one with a name, and its data.
    async fn next(&mut self) -> (String, String) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let lines = |name: &str| {
                    let lines = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                    lines.collect::<Vec<_>>().join("\n")
                };
                let found = (lines("event:"), lines("data:"));
                self.text = rest.to_owned();
                if !found.0.is_empty() {
                    return found;
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("an event").unwrap();
            self.text.push_str(&String::from_utf8_lossy(&chunk.expect("the stream goes on")));
        }
    }
}
