//! Signing in to the dashboard with an identity provider: a real one of ours, over real HTTP, with a browser that keeps cookies.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode, header, redirect::Policy};
use serde_json::{Value, json};
use testkit::OidcProvider;

use crate::installation::{Installation, KEY};

/// Where people find the installation: a proxy that speaks https stands in front of it, as far as it knows.
const PUBLIC: &str = "https://longshore.example";
const SECRET: (&str, &str) = ("LONGSHORE_OIDC_CLIENT_SECRET", "test-only-secret");
/// The cookie of a sign-in that was begun.
const FLOW: &str = "__Host-longshore_oidc";
/// More than any sign-in has.
const STEPS_MAX: usize = 10;

/// As much of a browser as a sign-in needs.
struct Browser {
    http: reqwest::Client,
    public: String,
    place: String,
    jar: BTreeMap<String, String>,
    /// Each cookie as it was set, by its name.
    set: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Page {
    at: String,
    status: StatusCode,
    to: Option<String>,
    text: String,
}

impl Browser {
    fn of(up: &Installation, public: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { http, public: public.into(), place: up.url.clone(), jar: BTreeMap::new(), set: BTreeMap::new() }
    }

    async fn get(&mut self, url: &str) -> Page {
        self.ask(Method::GET, url, None).await
    }

    /// Sends a form from one of our pages.
    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.ask(Method::POST, path, Some(fields)).await
    }

    async fn ask(&mut self, method: Method, url: &str, form: Option<&[(&str, &str)]>) -> Page {
        let at = if url.starts_with('/') { format!("{}{url}", self.public) } else { url.to_owned() };
        let own = at.strip_prefix(&self.public).map(str::to_owned);
        let address = own.as_ref().map_or(at.clone(), |path| format!("{}{path}", self.place));
        let mut request = self.http.request(method, address);
        if own.is_some() {
            let cookies: Vec<_> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        if let Some(fields) = form {
            let mut text = reqwest::Url::parse("http://form").unwrap();
            text.query_pairs_mut().extend_pairs(fields);
            request = request
                .header("sec-fetch-site", "same-origin")
                .header(header::ORIGIN, &self.public)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(text.query().unwrap().to_owned());
        }
        let answer = request.send().await.unwrap();
        if own.is_some() {
            for line in answer.headers().get_all(header::SET_COOKIE) {
                self.keep(line.to_str().unwrap());
            }
        }
        let said = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let refreshed = said(header::REFRESH).map(|text| text.strip_prefix("0; url=").unwrap().to_owned());
        let (status, to) = (answer.status(), said(header::LOCATION).or(refreshed));
        Page { at, status, to, text: answer.text().await.unwrap() }
    }

    fn keep(&mut self, line: &str) {
        let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
        self.set.insert(name.into(), line.into());
        if line.contains("Max-Age=0") {
            self.jar.remove(name);
        } else {
            self.jar.insert(name.into(), value.into());
        }
    }

    /// Goes where it is sent, until a page stands still.
    async fn follow(&mut self, url: &str) -> Vec<Page> {
        let mut seen = vec![self.get(url).await];
        while let Some(to) = seen.last().unwrap().to.clone() {
            assert!(
                seen.len() < STEPS_MAX,
                "round and round: {:?}",
                seen.iter().map(|page| &page.at).collect::<Vec<_>>()
            );
            let page = self.get(&to).await;
            seen.push(page);
        }
        seen
    }

    /// Signs in, and returns the last page.
    async fn sign_in(&mut self, next: &str) -> Page {
        self.follow(&format!("/dashboard/oidc/start?next={next}")).await.pop().unwrap()
    }

    /// As far as the address that the provider sends it back to, which it does not open.
    async fn half_way(&mut self) -> String {
        let start = self.get("/dashboard/oidc/start").await;
        self.get(&start.to.unwrap()).await.to.unwrap()
    }

    fn session(&self) -> Option<&String> {
        self.jar.get("longshore_session")
    }

    /// What the token of the session says, and its type.
    fn claims(&self) -> (Value, Value) {
        let part = |at: usize| {
            let part = self.session().unwrap().split('.').nth(at).unwrap();
            serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        (part(1), part(0)["typ"].clone())
    }
}

/// A page as a person reads it: characters that stand for others, stood for.
fn read(page: &Page) -> String {
    let marks = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    marks.iter().fold(page.text.clone(), |text, (written, meant)| text.replace(written, meant))
}

fn configured(folder: &Path, provider: &OidcProvider, public: &str, more: &str) -> String {
    let (file, issuer) = (folder.join("longshore.toml"), provider.issuer());
    let text = format!(
        "[[auth.issuers]]\nissuer = \"{issuer}\"\naudience = \"longshore\"\nmax_role = \"operator\"\n{more}\n\
         [dashboard.oidc]\nissuer = \"{issuer}\"\nclient_id = \"longshore\"\nname = \"Test <i>&\"\npublic_url = \"{public}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    provider.allow(&format!("{public}/dashboard/oidc/callback"));
    provider.know("ann", json!({"tenant": "acme", "role": "operator"}));
    provider.sign_in(Some("ann"));
    file.to_str().unwrap().to_owned()
}

async fn installed(folder: &Path) -> (OidcProvider, Installation) {
    let provider = OidcProvider::start().await;
    let file = configured(folder, &provider, PUBLIC, "");
    let up = Installation::start_in(&folder.join("data"), &["--config", &file], &[SECRET]).await;
    (provider, up)
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_provider_knows_is_signed_in_once_and_signed_out_at_both() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, up) = installed(folder.path()).await;
    let mut browser = Browser::of(&up, PUBLIC);
    let login = browser.get("/dashboard/login?next=/dashboard/queues").await;
    assert!(read(&login).contains("Sign in with Test <i>&") && !login.text.contains("<i>"), "{}", login.text);
    assert!(login.text.contains("/dashboard/oidc/start?next=%2Fdashboard%2Fqueues"), "{}", login.text);

    let seen = browser.follow("/dashboard/oidc/start?next=/dashboard/queues").await;
    let places: Vec<&str> = seen.iter().map(|page| page.at.split('?').next().unwrap()).collect();
    let expected = [
        &format!("{PUBLIC}/dashboard/oidc/start"),
        &format!("{}/authorize", provider.issuer()),
        &format!("{PUBLIC}/dashboard/oidc/callback"),
        &format!("{PUBLIC}/dashboard/queues"),
    ];
    assert_eq!(places, expected, "{seen:#?}");
    assert_eq!(seen[3].status, StatusCode::OK);
    // The way back is a page: after a redirect from elsewhere a browser would not send the session.
    assert_eq!(seen[2].status, StatusCode::OK);
    let session = &browser.set["longshore_session"];
    for flag in ["; HttpOnly", "; SameSite=Strict", "; Secure", "; Path=/dashboard", "; Max-Age="] {
        assert!(session.contains(flag), "{flag}: {session}");
    }
    assert!(browser.set[FLOW].contains("Max-Age=0"), "its one use is over");
    let (claims, typ) = browser.claims();
    assert_eq!((&claims["sub"], &claims["aud"], &typ), (&json!("ann"), &json!("longshore"), &json!("JWT")));
    assert_eq!(provider.seen().descriptions, 2, "one for the keys of tokens, one for signing in");

    // A sign-in that was begun is out of reach of scripts and other sites, and its way back stays here.
    for next in ["//evil.example/", "https://evil.example/dashboard", "/dashboard/%5C%5Cevil"] {
        let mut other = Browser::of(&up, PUBLIC);
        assert_eq!(other.sign_in(next).await.at, format!("{PUBLIC}/dashboard"), "{next}");
    }
    let mut other = Browser::of(&up, PUBLIC);
    other.get("/dashboard/oidc/start").await;
    for flag in ["; HttpOnly", "; SameSite=Lax", "; Secure", "; Path=/", "; Max-Age=600"] {
        assert!(other.set[FLOW].contains(flag), "{flag}: {}", other.set[FLOW]);
    }
    assert_eq!(provider.seen().descriptions, 2, "it is believed for an hour");

    // A session that has ended begins anew without a question.
    browser.jar.remove("longshore_session");
    let seen = browser.follow("/dashboard/workers").await;
    assert_eq!((seen.len(), seen[0].status), (5, StatusCode::SEE_OTHER), "{seen:#?}");
    assert_eq!(seen[4].at, format!("{PUBLIC}/dashboard/workers"));

    // An access token that is made for us is what the API is asked with.
    provider.set_access_audience(Some("longshore"));
    browser.sign_in("").await;
    assert_eq!(browser.claims().1, "at+jwt");
    provider.set_access_audience(Some("https://graph.example"));
    browser.sign_in("").await;
    assert_eq!(browser.claims().1, "JWT", "one that is made for somebody else is not");

    let token = browser.session().unwrap().clone();
    let home = browser.get("/dashboard").await;
    let csrf = home.text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let forged = browser.post("/dashboard/logout", &[("csrf", "forged")]).await;
    assert_eq!((forged.status, browser.session()), (StatusCode::FORBIDDEN, Some(&token)));
    let out = browser.post("/dashboard/logout", &[("csrf", &csrf)]).await;
    let place = out.to.unwrap();
    assert!(place.starts_with(&format!("{}/logout?client_id=longshore&", provider.issuer())), "{place}");
    assert!(!place.contains(&token) && browser.session().is_none());
    assert_eq!(browser.follow(&place).await.pop().unwrap().at, format!("{PUBLIC}/dashboard/login"));
    let revoked = reqwest::Client::new().get(format!("{}/v1/auth/whoami", up.url)).bearer_auth(&token).send().await;
    assert_eq!(revoked.unwrap().status(), StatusCode::UNAUTHORIZED);
    let seen = browser.follow("/dashboard").await;
    assert_eq!(seen.last().unwrap().at.split('?').next().unwrap(), format!("{PUBLIC}/dashboard/login"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_of_this_sign_in_or_not_believed_signs_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, up) = installed(folder.path()).await;
    let mut browser = Browser::of(&up, PUBLIC);

    // Somebody else's code, sent as a link: into a browser without a sign-in, and into one with its own.
    let link = browser.half_way().await;
    let mut other = Browser::of(&up, PUBLIC);
    let refused = other.get(&link).await;
    assert_eq!((refused.status, other.session()), (StatusCode::BAD_REQUEST, None));
    other.half_way().await;
    let words = "/dashboard/oidc/callback?state=x&error=e&error_description=call+this+number";
    for forged in [&*link, words, "/dashboard/oidc/callback?code=x", "/dashboard/oidc/callback"] {
        let refused = other.get(forged).await;
        assert_eq!((refused.status, other.session()), (StatusCode::BAD_REQUEST, None), "{forged}");
        assert!(refused.text.contains("was not begun in this browser") && !refused.text.contains("call this number"));
    }
    assert!(other.jar.contains_key(FLOW), "its own sign-in goes on");

    // The same code twice.
    let flow = browser.jar[FLOW].clone();
    assert_eq!(browser.get(&link).await.status, StatusCode::OK);
    let codes = provider.seen().codes;
    let mut again = Browser::of(&up, PUBLIC);
    assert_eq!(again.get(&link).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(provider.seen().codes, codes, "without its cookie it is not even tried");
    again.jar.insert(FLOW.into(), flow);
    let replayed = again.get(&link).await;
    assert_eq!((replayed.status, again.session()), (StatusCode::BAD_REQUEST, None));
    assert!(replayed.text.contains("invalid_grant"), "{}", replayed.text);
    // A code without the browser's own secret.
    let mut thief = Browser::of(&up, PUBLIC);
    let own = thief.half_way().await;
    let stolen = browser.half_way().await;
    let with = |link: &str, name: &str| {
        let pairs = reqwest::Url::parse(link).unwrap();
        pairs.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned()
    };
    let mixed = own.replace(&with(&own, "code"), &with(&stolen, "code"));
    assert!(thief.get(&mixed).await.text.contains("invalid_grant"));
    let mut other = Browser::of(&up, PUBLIC);
    let elsewhere = other.half_way().await.replace("test-only", "else");
    assert!(other.get(&elsewhere).await.text.contains("of another provider"));

    for (bent, status, word) in [
        (json!({"nonce": "somebody's"}), StatusCode::BAD_REQUEST, "not of this sign-in"),
        (json!({"nonce": null}), StatusCode::BAD_REQUEST, "not of this sign-in"),
        (json!({"aud": "else"}), StatusCode::BAD_REQUEST, "for somebody else"),
        (json!({"iss": "https://else.example"}), StatusCode::BAD_REQUEST, "made by somebody else"),
        (json!({"exp": 1_000_000_300, "iat": 1_000_000_000, "nbf": null}), StatusCode::FORBIDDEN, "it has expired"),
        (json!({"role": "admin"}), StatusCode::FORBIDDEN, "more than `operator`"),
        (json!({"role": "janitor"}), StatusCode::FORBIDDEN, "is no role"),
        (json!({"tenant": null}), StatusCode::FORBIDDEN, "its `tenant`"),
        (json!({"groups": "g".repeat(5_000)}), StatusCode::FORBIDDEN, "are the most that browsers keep"),
    ] {
        provider.bend(bent.clone());
        let mut browser = Browser::of(&up, PUBLIC);
        let refused = browser.sign_in("").await;
        let text = read(&refused);
        assert_eq!((refused.status, browser.session()), (status, None), "{bent}: {text}");
        assert!(text.contains(word), "{bent}: {text}");
        assert!(!browser.jar.contains_key(FLOW) && !browser.jar.contains_key("longshore_way"), "{bent}");
    }
    provider.bend(json!({"groups": "g".repeat(2_800)}));
    assert_eq!(browser.sign_in("").await.status, StatusCode::OK);
    assert!(browser.jar.contains_key("longshore_session_2"), "a longer token goes on in a second cookie");
    provider.bend(json!({}));
    assert_eq!(browser.sign_in("").await.status, StatusCode::OK);
    assert!(!browser.jar.contains_key("longshore_session_2"), "of which nothing is left");

    // What the provider says is text.
    provider.sign_in(Some("mallory"));
    let refused = Browser::of(&up, PUBLIC).sign_in("").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(!refused.text.contains("<b>Nobody") && refused.text.contains("Nobody"), "{}", refused.text);
    // A secret that is no longer right is the operator's affair, and said so.
    provider.sign_in(Some("ann"));
    provider.set_secret(Some("another"));
    let refused = Browser::of(&up, PUBLIC).sign_in("").await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
    assert!(refused.text.contains("invalid_client") && !refused.text.contains(SECRET.1), "{}", refused.text);
    assert!(!up.log().contains(SECRET.1) && !up.log().contains("eyJ"), "no secret and no token in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_and_providers_go_away_without_anybody_being_locked_out() {
    let folder = tempfile::tempdir().unwrap();
    let provider = OidcProvider::start().await;
    provider.set_secret(None);
    provider.set_down(true);
    let keys = format!("keys_url = \"{}/keys\"", provider.issuer());
    let public = "http://127.0.0.1:9";
    let file = configured(folder.path(), &provider, public, &keys);
    // It starts, and waits for nobody.
    let up = Installation::start_in(&folder.path().join("data"), &["--config", &file], &[]).await;
    let mut browser = Browser::of(&up, public);
    let refused = browser.sign_in("").await;
    assert_eq!((refused.status, browser.session()), (StatusCode::BAD_GATEWAY, None));
    let by_key = browser.post("/dashboard/login", &[("secret", KEY), ("next", "/dashboard")]).await;
    assert_eq!((by_key.status, by_key.to.as_deref()), (StatusCode::SEE_OTHER, Some("/dashboard")), "{}", by_key.text);
    assert_eq!(browser.get("/dashboard").await.status, StatusCode::OK);

    provider.set_down(false);
    // Of itself: a token that asks for keys uses up its minute.
    up.until("keys are fetched", async |up| up.log().contains("the keys of an issuer were fetched")).await;
    up.until("the provider is asked again", async |up| {
        let mut browser = Browser::of(up, public);
        browser.sign_in("").await.status == StatusCode::OK && browser.session().is_some()
    })
    .await;
    let mut browser = Browser::of(&up, public);
    browser.get("/dashboard/oidc/start").await;
    let flow = &browser.set["longshore_oidc"];
    assert!(flow.contains("; HttpOnly") && !flow.contains("Secure"), "over http within this machine: {flow}");

    // A key that is not known yet is looked for while its token waits.
    let before = provider.seen().key_sets;
    provider.rotate();
    let mut browser = Browser::of(&up, public);
    assert_eq!(browser.sign_in("").await.status, StatusCode::OK, "{}", up.log());
    assert_eq!((browser.session().is_some(), provider.seen().key_sets), (true, before + 1));
    // But not for each that somebody makes up.
    provider.rotate();
    let refused = Browser::of(&up, public).sign_in("").await;
    assert_eq!((refused.status, provider.seen().key_sets), (StatusCode::FORBIDDEN, before + 1));
    assert!(refused.text.contains("is not known here"), "{}", refused.text);
    assert_eq!(browser.get("/dashboard").await.status, StatusCode::OK, "the key before is believed as before");
}
