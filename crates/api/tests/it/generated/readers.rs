//! How a generated input becomes a request, and what must hold of the answer.

use std::{
    io::Write,
    sync::{Arc, LazyLock},
};

use api::{Api, Issuer, IssuerRules, SigningKeys, Tls, Tokens};
use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use queue_core::{
    journal::Role,
    keys::Secret,
    time::{ManualClock, Timestamp},
};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use testkit::Certificate;
use tokio::{io::AsyncWriteExt, runtime::Runtime};
use tower::ServiceExt;

use crate::server::{Server, contract};

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const NOW_S: i64 = NOW.0 / 1_000;
const LEEWAY_S: i64 = 60;
const ISSUER: &str = "https://id.example/";
/// Longest answer that is read: a page of the largest list is far below.
const ANSWER_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Fixed, so that the inputs that are signed by it or changed from it are the same in every run.
const SEED: [u8; 32] = [7; 32];
const KEY: &str = "lsk_testtest_0123456789abcdefghijABCDEFGHIJ0123456789abc";
const GOOD: &str = r#"{"kind":"probe","payload":{}}"#;

/// The router of a server, and what it believes.
pub(super) struct Fed {
    runtime: Runtime,
    router: Router,
    server: Server,
    signs: Ed25519KeyPair,
    /// What opens the door.
    bearers: Vec<String>,
    packed: [Vec<u8>; 2],
}

fn rules() -> IssuerRules {
    IssuerRules {
        issuer: ISSUER.into(),
        audience: "longshore".into(),
        tenant_claim: "tenant".into(),
        role_claim: "role".into(),
        max_role: Role::Analyst,
        tenants: vec!["acme".into(), "globex".into()],
    }
}

fn signed(signs: &Ed25519KeyPair, header: &str, claims: &str) -> String {
    let what = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = URL_SAFE_NO_PAD.encode(signs.sign(what.as_bytes()));
    format!("{what}.{signature}")
}

impl Fed {
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let signs = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
        let x = URL_SAFE_NO_PAD.encode(signs.public_key().as_ref());
        let set =
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "ed-1", "alg": "EdDSA", "use": "sig", "x": x}]});
        let tokens = Arc::new(Tokens::default());
        tokens.set_signing_keys(SigningKeys::parse(&format!("ltk_{}", URL_SAFE_NO_PAD.encode(SEED))).unwrap());
        tokens.set_issuers(vec![Issuer::new(rules(), &set.to_string()).unwrap()]);
        let mut same: Option<Api> = None;
        let server = runtime.block_on(Server::start_at(Arc::new(ManualClock::at(NOW)), |api| {
            api.tokens = tokens;
            same = Some(api.clone());
        }));
        let claims = json!({
            "iss": ISSUER, "aud": "longshore", "sub": "ann", "jti": "t-0", "iat": NOW_S - 10, "exp": NOW_S + 600, "tenant": "acme",
            "role": "user",
        });
        let token = signed(&signs, r#"{"alg":"EdDSA","kid":"ed-1"}"#, &claims.to_string());
        let key = Secret::parse(KEY).unwrap().to_row("acme".into(), Role::Admin, "fixed", NOW);
        runtime.block_on(server.stores.identity.add_key(key)).unwrap();
        let bearers = vec![KEY.to_owned(), token];
        let packed = runtime.block_on(async {
            let mut gzip = GzipEncoder::new(Vec::new());
            gzip.write_all(GOOD.as_bytes()).await.unwrap();
            gzip.shutdown().await.unwrap();
            let mut zstd = ZstdEncoder::new(Vec::new());
            zstd.write_all(GOOD.as_bytes()).await.unwrap();
            zstd.shutdown().await.unwrap();
            [gzip.into_inner(), zstd.into_inner()]
        });
        Self { runtime, router: api::router(same.unwrap()), server, signs, bearers, packed }
    }

    /// The answer's status and body; it is none of ours to break.
    fn ask(&self, request: Request<Body>) -> (StatusCode, String) {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            let (head, body) = answer.into_parts();
            (head, to_bytes(body, ANSWER_MAX_BYTES).await.unwrap())
        });
        let (head, body) = answer;
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_ne!(head.status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}: {text}");
        let media = head.headers.get(header::CONTENT_TYPE).map_or("", |media| media.to_str().unwrap());
        // What is packed for its reader is no text.
        if !head.headers.contains_key(header::CONTENT_ENCODING) {
            contract::check(&method, &path, head.status, media, &text);
        }
        (head.status, text)
    }

    fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        let bearer = format!("Bearer {}", self.server.key);
        Request::builder().method(method).uri(path).header(header::AUTHORIZATION, bearer)
    }

    fn send(&self, method: Method, path: &str, media: &str, body: Vec<u8>) -> (StatusCode, String) {
        self.ask(self.request(method, path).header(header::CONTENT_TYPE, media).body(Body::from(body)).unwrap())
    }

    /// What was accepted has an id and can be read.
    pub(super) fn job(&self, input: &[u8]) -> bool {
        let (status, text) = self.send(Method::POST, "/v1/jobs", "application/json", input.to_vec());
        if !status.is_success() {
            // 503: without a master key no webhook could be signed.
            assert!(status.is_client_error() || status == 503, "{status}: {text}");
            let told: Value = serde_json::from_str(&text).unwrap();
            assert!(
                status == 503 || told["errors"].as_array().is_some_and(|errors| !errors.is_empty()),
                "refused without a word: {told}"
            );
            return false;
        }
        let told: Value = serde_json::from_str(&text).unwrap();
        let (status, text) = self.ask(
            self.request(Method::GET, &format!("/v1/jobs/{}", told["id"].as_str().unwrap()))
                .body(Body::empty())
                .unwrap(),
        );
        assert_eq!(status, 200, "{text}");
        true
    }

    /// As an array, or as one line for each job.
    pub(super) fn bulk(&self, input: &[u8]) -> bool {
        let lines = serde_json::from_slice::<Vec<Box<RawValue>>>(input).ok().filter(|_| input.len() % 2 == 1);
        let (media, body) = match lines {
            Some(lines) => {
                let mut body = Vec::new();
                for line in lines {
                    writeln!(body, "{}", line.get().replace('\n', " ")).unwrap();
                }
                ("application/x-ndjson", body)
            }
            None => ("application/json", input.to_vec()),
        };
        let (status, _) = self.send(Method::POST, "/v1/jobs/bulk", media, body);
        status.is_success()
    }

    /// A body to any route that the input names.
    pub(super) fn change(&self, input: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Change<'a> {
            route: String,
            #[serde(borrow)]
            body: &'a RawValue,
        }

        let Ok(change) = serde_json::from_slice::<Change<'_>>(input) else { return false };
        let Some((method, path)) = change.route.split_once(' ') else { return false };
        let Ok(method) = method.parse::<Method>() else { return false };
        if path.parse::<Uri>().is_err()
            || path.contains("/maintenance")
            || method == Method::DELETE
            || method == Method::CONNECT
        {
            return false;
        }
        let (status, _) = self.send(method, path, "application/json", change.body.get().as_bytes().to_vec());
        status.is_success()
    }

    pub(super) fn query(&self, input: &[u8]) -> bool {
        let Ok(uri) = Uri::try_from(input) else { return false };
        // Streams do not end by themselves, and the pages of the document are no API.
        if uri.path().ends_with("/events")
            || uri.path().starts_with("/docs")
            || uri.authority().is_some()
            || !uri.path().starts_with('/')
        {
            return false;
        }
        let uri = uri.to_string();
        let (status, _) = self.ask(self.request(Method::GET, &uri).body(Body::empty()).unwrap());
        status.is_success()
    }

    pub(super) fn bearers(&self) -> &[String] {
        &self.bearers
    }

    /// Nothing but the key and the token opens it, to the letter.
    pub(super) fn bearer(&self, input: &[u8]) -> bool {
        let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", input].concat()) else { return false };
        let request =
            Request::builder().uri("/v1/jobs?limit=1").header(header::AUTHORIZATION, value).body(Body::empty());
        let (status, text) = self.ask(request.unwrap());
        let is_known = |sent: &[u8]| self.bearers.iter().any(|known| known.as_bytes() == sent);
        assert!(status.is_success() || !is_known(input), "{status}: {text}");
        assert!(!status.is_success() || is_known(input.trim_ascii()), "{input:?} opens the door");
        status.is_success()
    }

    /// A good signature is not all: what passes is from the issuer, for us, of its tenants, and has not ended.
    pub(super) fn claims(&self, input: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Parts<'a> {
            #[serde(borrow)]
            header: &'a RawValue,
            #[serde(borrow)]
            claims: &'a RawValue,
        }

        let Ok(parts) = serde_json::from_slice::<Parts<'_>>(input) else { return false };
        let bearer = format!("Bearer {}", signed(&self.signs, parts.header.get(), parts.claims.get()));
        let request =
            Request::builder().uri("/v1/jobs?limit=1").header(header::AUTHORIZATION, bearer).body(Body::empty());
        let (status, text) = self.ask(request.unwrap());
        if !status.is_success() {
            assert!(status.is_client_error(), "{status}: {text}");
            return false;
        }
        let [header, claims] =
            [parts.header, parts.claims].map(|part| serde_json::from_str::<Value>(part.get()).unwrap());
        assert_eq!((&header["alg"], &header["kid"], &claims["iss"]), (&json!("EdDSA"), &json!("ed-1"), &json!(ISSUER)));
        assert!(
            claims["aud"] == "longshore"
                || claims["aud"].as_array().is_some_and(|all| all.contains(&json!("longshore")))
        );
        assert!(claims["tenant"] == "acme" || claims["tenant"] == "globex", "{claims}");
        assert!(claims["role"] == "user" || claims["role"] == "analyst", "{claims}");
        assert!(claims["exp"].as_f64().unwrap() >= (NOW_S - LEEWAY_S) as f64, "{claims}");
        true
    }

    pub(super) fn head(&self, input: &[u8]) -> bool {
        let mut request = self.request(Method::POST, "/v1/jobs");
        for line in input.split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let name = HeaderName::from_bytes(line[..colon].trim_ascii());
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                request = request.header(name, value);
            }
        }
        let Ok(request) = request.body(Body::from(GOOD)) else { return false };
        self.ask(request).0.is_success()
    }

    /// A packed body with some bytes changed, or cut off.
    pub(super) fn packed(&self, input: &[u8]) -> bool {
        let (encoding, good) = [("gzip", &self.packed[0]), ("zstd", &self.packed[1])][input.len() % 2];
        let mut body = good.clone();
        for change in input.chunks_exact(2).take(4).filter(|_| !input.starts_with(b"(no")) {
            let at = usize::from(change[0]) % body.len();
            match change[1] {
                0..16 => body.truncate(at.max(1)),
                16..32 => body.extend_from_slice(&input[..input.len().min(64)]),
                other => body[at] ^= other,
            }
        }
        let request = self.request(Method::POST, "/v1/jobs").header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::CONTENT_ENCODING, encoding).body(Body::from(body)).unwrap();
        self.ask(request).0.is_success()
    }
}

/// No private key is ever believed.
pub(super) fn key_set(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input).into_owned();
    let _ = SigningKeys::parse(&text);
    Issuer::new(rules(), &text).is_ok()
}

/// Between a chain and its key in the corpus.
const KEY_FOLLOWS: &str = "%KEY%";
static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| Certificate::of("127.0.0.1"));

pub(super) fn certificates() -> String {
    format!("{}\n{KEY_FOLLOWS}\n{}", CERTIFICATE.chain, CERTIFICATE.key)
}

/// No error repeats a line of the key.
pub(super) fn certificate(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input).into_owned();
    let (chain, key) = text.split_once(KEY_FOLLOWS).unwrap_or((&text, ""));
    match Tls::new(chain, &SecretString::from(key)) {
        Ok(_) => true,
        Err(reason) => {
            let told = key.lines().find(|line| line.len() > 40 && reason.contains(line));
            assert!(told.is_none(), "{reason}");
            false
        }
    }
}
