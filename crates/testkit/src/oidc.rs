//! An OpenID provider FOR TESTS ONLY: it asks nobody for a password. It signs as real ones do, checks what they check (client, secret,
//! address of the way back, PKCE, one use of each code), and hands out on command what no client may take.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use form_urlencoded::{Serializer, parse};
use serde_json::{Map, Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::http::{Client, Request};

/// Life of its tokens, in seconds.
const TOKEN_LIFE_S: u64 = 300;

/// How often each of its places was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OidcSeen {
    /// `/.well-known/openid-configuration`.
    pub descriptions: u32,
    /// The key set.
    pub key_sets: u32,
    /// The token endpoint.
    pub codes: u32,
}

/// A throw-away OpenID provider on a port of its own; it ends with this value.
pub struct OidcProvider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

struct State {
    issuer: String,
    client_id: String,
    secret: Option<String>,
    redirect_uri: String,
    people: BTreeMap<String, Value>,
    signed_in: Option<String>,
    /// The first one signs.
    keys: Vec<Key>,
    keys_made: u32,
    codes: HashMap<String, Code>,
    /// Whom access tokens are for; opaque ones where it is nobody.
    access_audience: Option<String>,
    bent: Value,
    is_down: bool,
    seen: OidcSeen,
}

struct Code {
    person: String,
    redirect_uri: String,
    challenge: String,
    nonce: Option<String>,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
}

struct Key {
    kid: String,
    pair: Pair,
}

impl OidcProvider {
    /// Begins to listen, with one client `longshore` whose secret is `test-only-secret`. Nobody is known yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            issuer: format!("http://{address}/test-only"),
            client_id: "longshore".into(),
            secret: Some("test-only-secret".into()),
            redirect_uri: String::new(),
            people: BTreeMap::new(),
            signed_in: None,
            keys: vec![Key::rsa("test-0".into())],
            keys_made: 1,
            codes: HashMap::new(),
            access_audience: None,
            bent: json!({}),
            is_down: false,
            seen: OidcSeen::default(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, shared.clone()));
            }
        });
        Self { address, state, serving }
    }

    /// Its `iss`.
    pub fn issuer(&self) -> String {
        format!("http://{}/test-only", self.address)
    }

    /// Where browsers may be sent back to, whole.
    pub fn allow(&self, redirect_uri: &str) {
        self.state().redirect_uri = redirect_uri.into();
    }

    /// From now on the client has this secret, or is a public one.
    pub fn set_secret(&self, secret: Option<&str>) {
        self.state().secret = secret.map(Into::into);
    }

    /// Knows somebody, of whom its tokens say these claims.
    pub fn know(&self, person: &str, claims: Value) {
        self.state().people.insert(person.into(), claims);
    }

    /// Who has a session with it, and is let through without a question; others choose who they are.
    pub fn sign_in(&self, person: Option<&str>) {
        self.state().signed_in = person.map(Into::into);
    }

    /// Signs with a new key from now on: RS256 and EdDSA in turn. The key before stays in the set.
    pub fn rotate(&self) {
        let mut state = self.state();
        let kid = format!("test-{}", state.keys_made);
        let key = if state.keys_made.is_multiple_of(2) { Key::rsa(kid) } else { Key::ed(kid) };
        state.keys_made += 1;
        state.keys.insert(0, key);
        state.keys.truncate(2);
    }

    /// Whom its access tokens are for: then they are JWTs (RFC 9068). Else they are texts that only it understands.
    pub fn set_access_audience(&self, audience: Option<&str>) {
        self.state().access_audience = audience.map(Into::into);
    }

    /// Puts these claims over those of each token that it makes; `null` takes one away.
    pub fn bend(&self, claims: Value) {
        self.state().bent = claims;
    }

    /// Whether it closes each connection without an answer.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// What it was asked so far.
    pub fn seen(&self) -> OidcSeen {
        self.state().seen
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Key {
    fn rsa(kid: String) -> Self {
        Self { kid, pair: Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())) }
    }

    fn ed(kid: String) -> Self {
        Self { kid, pair: Pair::Ed(Box::new(Ed25519KeyPair::generate().unwrap())) }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ed(_) => "EdDSA",
        }
    }

    fn public(&self) -> Value {
        let mut key = match &self.pair {
            Pair::Rsa(pair) => {
                let [modulus, exponent] = integers(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent)})
            }
            Pair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())})
            }
        };
        key["kid"] = self.kid.clone().into();
        key["alg"] = self.algorithm().into();
        key["use"] = "sig".into();
        key
    }

    fn token(&self, typ: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": self.kid, "typ": typ});
        let [header, claims] = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let said = format!("{header}.{claims}");
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), said.as_bytes(), &mut signature).unwrap();
                signature
            }
            Pair::Ed(pair) => pair.sign(said.as_bytes()).as_ref().to_vec(),
        };
        format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What it answers.
enum Answer {
    Json(u16, Value),
    Page(u16, String),
    Redirect(String),
}

/// Answers requests of one connection until it closes.
async fn serve(socket: TcpStream, state: Arc<Mutex<State>>) {
    let mut client = Client::new(socket);
    while let Some(request) = client.request().await {
        let answer = {
            let mut state = state.lock().unwrap();
            if state.is_down {
                return;
            }
            state.answer(&request)
        };
        let sent = match answer {
            Answer::Json(status, body) => client.json(status, &[], &body.to_string()).await,
            Answer::Page(status, text) => {
                client.respond(status, &[], "text/html; charset=utf-8", text.as_bytes()).await
            }
            Answer::Redirect(to) => client.respond(303, &[("location".into(), to)], "text/plain", b"").await,
        };
        if sent.is_err() {
            return;
        }
    }
}

type Form = HashMap<String, String>;

fn form(text: &[u8]) -> Form {
    parse(text).into_owned().collect()
}

fn with_query(address: &str, pairs: &[(&str, &str)]) -> String {
    let query = Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{address}{}{query}", if address.contains('?') { '&' } else { '?' })
}

fn fresh() -> String {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    URL_SAFE_NO_PAD.encode(bytes)
}

fn page(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><title>Test provider</title><link rel=\"icon\" href=\"data:,\"><main><h1>FOR TESTS ONLY</h1>\
         <p>This provider asks nobody for a password.</p>{body}</main></html>"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let query = form(query.as_bytes());
        match path {
            "/test-only/.well-known/openid-configuration" => {
                self.seen.descriptions += 1;
                Answer::Json(200, self.description())
            }
            "/test-only/keys" => {
                self.seen.key_sets += 1;
                Answer::Json(200, json!({"keys": self.keys.iter().map(Key::public).collect::<Vec<_>>()}))
            }
            "/test-only/authorize" => self.authorize(&query),
            "/test-only/token" => {
                self.seen.codes += 1;
                self.trade(request, &form(&request.body))
            }
            "/test-only/logout" => {
                self.signed_in = None;
                match query.get("post_logout_redirect_uri") {
                    Some(back) => Answer::Redirect(back.clone()),
                    None => Answer::Page(200, page("<p>Signed out.</p>")),
                }
            }
            _ => Answer::Page(404, page("<p>There is no such page.</p>")),
        }
    }

    fn description(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/keys"),
            "end_session_endpoint": at("/logout"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "EdDSA"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": true,
        })
    }

    /// Where somebody says who it is: whoever has a session is let through at once.
    fn authorize(&mut self, asked: &Form) -> Answer {
        let said = |name: &str| asked.get(name).map_or("", String::as_str);
        // Before these are right, nobody is sent anywhere.
        if said("client_id") != self.client_id || said("redirect_uri") != self.redirect_uri {
            return Answer::Page(400, page("<p>No such client, or not its address.</p>"));
        }
        let state = said("state").to_owned();
        let back = |more: &[(&str, &str)]| {
            let own = [("state", state.as_str()), ("iss", self.issuer.as_str())];
            Answer::Redirect(with_query(&self.redirect_uri, &[more, &own].concat()))
        };
        let is_whole = said("response_type") == "code"
            && said("scope").split(' ').any(|scope| scope == "openid")
            && said("code_challenge_method") == "S256"
            && said("code_challenge").len() == 43;
        if !is_whole {
            return back(&[("error", "invalid_request"), ("error_description", "code, openid and S256 are needed")]);
        }
        let person = match asked.get("as").or(self.signed_in.as_ref()) {
            None => return Answer::Page(200, self.choice(asked)),
            Some(person) => person.clone(),
        };
        if !self.people.contains_key(&person) {
            return back(&[("error", "access_denied"), ("error_description", "<b>Nobody</b> of that name")]);
        }
        let code = fresh();
        let answer = back(&[("code", &code)]);
        let kept = Code {
            person,
            redirect_uri: said("redirect_uri").into(),
            challenge: said("code_challenge").into(),
            nonce: asked.get("nonce").cloned(),
        };
        self.codes.insert(code, kept);
        answer
    }

    /// A page with a link for everybody that it knows.
    fn choice(&self, asked: &Form) -> String {
        let link = |person: &str| {
            let pairs = asked.iter().filter(|(name, _)| *name != "as").map(|(name, value)| (&**name, &**value));
            let pairs: Vec<_> = pairs.chain([("as", person)]).collect();
            let to = escaped(&with_query(&format!("{}/authorize", self.issuer), &pairs));
            format!("<p><a href=\"{to}\">{}</a></p>", escaped(person))
        };
        page(&self.people.keys().map(|person| link(person)).collect::<String>())
    }

    fn trade(&mut self, request: &Request, asked: &Form) -> Answer {
        let refused =
            |status, error: &str| Answer::Json(status, json!({"error": error, "error_description": "FOR TESTS ONLY"}));
        let said = |name: &str| asked.get(name).map_or("", String::as_str);
        let basic = request.headers.get("authorization").and_then(|value| value.strip_prefix("Basic "));
        let shown = match basic {
            Some(text) => {
                let text = String::from_utf8(STANDARD.decode(text).unwrap_or_default()).unwrap_or_default();
                let decoded =
                    |text: &str| parse(format!("x={text}").as_bytes()).next().map(|(_, value)| value.into_owned());
                text.split_once(':').and_then(|(id, secret)| Some((decoded(id)?, decoded(secret))))
            }
            None => Some((said("client_id").to_owned(), asked.get("client_secret").cloned())),
        };
        if shown != Some((self.client_id.clone(), self.secret.clone())) {
            return refused(401, "invalid_client");
        }
        if said("grant_type") != "authorization_code" {
            return refused(400, "unsupported_grant_type");
        }
        // Gone with its first use, whatever comes of it.
        let Some(code) = self.codes.remove(said("code")) else { return refused(400, "invalid_grant") };
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, said("code_verifier").as_bytes()));
        if code.redirect_uri != said("redirect_uri") || code.challenge != challenge {
            return refused(400, "invalid_grant");
        }
        let id = self.token("JWT", &code, &self.client_id, json!({"nonce": code.nonce}));
        let access = match &self.access_audience {
            Some(audience) => self.token("at+jwt", &code, audience, json!({"client_id": self.client_id})),
            None => fresh(),
        };
        let answer =
            json!({"access_token": access, "id_token": id, "token_type": "Bearer", "expires_in": TOKEN_LIFE_S});
        Answer::Json(200, answer)
    }

    fn token(&self, typ: &str, code: &Code, audience: &str, more: Value) -> String {
        let now = now_s();
        let mut claims = json!({
            "iss": self.issuer, "aud": audience, "sub": code.person, "jti": fresh(), "iat": now, "nbf": now,
            "exp": now + TOKEN_LIFE_S,
        });
        for part in [&self.people[&code.person], &more, &self.bent] {
            put_over(claims.as_object_mut().unwrap(), part);
        }
        self.keys[0].token(typ, &claims)
    }
}

fn put_over(claims: &mut Map<String, Value>, part: &Value) {
    for (name, value) in part.as_object().unwrap() {
        match value {
            Value::Null => _ = claims.remove(name),
            value => _ = claims.insert(name.clone(), value.clone()),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a provider has a clock of its own")]
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The two numbers of a public key of RSA (PKCS#1): a sequence of two integers, each without the zero that keeps it positive.
fn integers(der: &[u8]) -> [&[u8]; 2] {
    let (sequence, _) = element(der);
    let (modulus, rest) = element(sequence);
    let (exponent, _) = element(rest);
    [modulus, exponent].map(|number| number.strip_prefix(&[0]).unwrap_or(number))
}

/// What is in the first element, and what follows it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, from) = match usize::from(der[1]) {
        short @ 0..128 => (short, 2),
        long => {
            let bytes = long - 128;
            (der[2..2 + bytes].iter().fold(0, |length, byte| length * 256 + usize::from(*byte)), 2 + bytes)
        }
    };
    der[from..].split_at(length)
}
