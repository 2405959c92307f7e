//! Tokens: traded for a key, taken back, believed from issuers; and forged in every way that we know.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::server::{Answer, Server};
use api::{Issuer, IssuerRules, SigningKeys, Tokens};
use aws_lc_rs::{
    encoding::AsDer,
    rsa::KeySize,
    signature::{Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use queue_core::{
    journal::Role,
    keys::Secret,
    time::{ManualClock, Timestamp},
};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const NOW_S: i64 = NOW.0 / 1_000;
const ISSUER: &str = "https://id.example/";

/// An identity provider with two keys.
struct Provider {
    rsa: EncodingKey,
    ed: EncodingKey,
    key_set: Value,
}

/// What PKCS#8 puts before an RSA key of 2,048 bits, which the library wants bare: two lengths, a version, the algorithm's name.
const PKCS8_HEAD_BYTES: usize = 26;

fn rsa_key(kid: &str) -> (EncodingKey, Value) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = aws_lc_rs::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let n = URL_SAFE_NO_PAD.encode(&public.n);
    let e = URL_SAFE_NO_PAD.encode(&public.e);
    let der = pair.as_der().unwrap();
    let public = json!({"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "n": n, "e": e});
    (EncodingKey::from_rsa_der(&der.as_ref()[PKCS8_HEAD_BYTES..]), public)
}

fn ed_key(kid: &str) -> (EncodingKey, Value) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let signs = EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref());
    (signs, json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "use": "sig", "x": x}))
}

impl Provider {
    fn new() -> Self {
        let ((rsa, rsa_public), (ed, ed_public)) = (rsa_key("rsa-1"), ed_key("ed-1"));
        Self { rsa, ed, key_set: json!({"keys": [rsa_public, ed_public]}) }
    }

    fn issuer(&self, max_role: Role, tenants: &[&str]) -> Issuer {
        let rules = IssuerRules {
            issuer: ISSUER.into(),
            audience: "longshore".into(),
            tenant_claim: "tenant".into(),
            role_claim: "role".into(),
            max_role,
            tenants: tenants.iter().map(|name| (*name).into()).collect(),
        };
        Issuer::new(rules, &self.key_set.to_string()).unwrap()
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "longshore", "sub": "ann", "jti": "t-1", "iat": NOW_S - 10, "nbf": NOW_S - 10,
        "exp": NOW_S + 600, "tenant": "acme", "role": "user",
    })
}

/// The claims with some of them changed; `null` takes one away.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = members.remove(name),
            value => _ = members.insert(name.clone(), value.clone()),
        }
    }
    claims
}

fn signed(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

/// A token whose header says anything, with this signature.
fn pasted(header: &Value, claims: &Value, signature: &[u8]) -> String {
    [header.to_string().as_bytes(), claims.to_string().as_bytes(), signature]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".")
}

struct Place {
    server: Server,
    clock: ManualClock,
    tokens: Arc<Tokens>,
    provider: Provider,
}

/// A server with a signing key of its own, which believes one provider.
async fn place() -> Place {
    let (clock, tokens, provider) = (ManualClock::at(NOW), Arc::new(Tokens::default()), Provider::new());
    tokens.set_signing_keys(SigningKeys::parse(SigningKeys::generate().unwrap().expose_secret()).unwrap());
    tokens.set_issuers(vec![provider.issuer(Role::Analyst, &["acme", "globex"])]);
    let own = tokens.clone();
    let server = Server::start_at(Arc::new(clock.clone()), move |api| api.tokens = own).await;
    Place { server, clock, tokens, provider }
}

async fn get(server: &Server, bearer: &str, path: &str) -> Answer {
    server.send(server.http.get(format!("{}{path}", server.url)).bearer_auth(bearer)).await
}

async fn ask(server: &Server, method: Method, bearer: &str, path: &str, body: Option<&Value>) -> Answer {
    let mut request = server.http.request(method, format!("{}{path}", server.url)).bearer_auth(bearer);
    if let Some(body) = body {
        request = request.json(body);
    }
    server.send(request).await
}

/// A key of this role, and its id.
async fn key(server: &Server, tenant: &str, role: Role) -> (String, String) {
    let secret = Secret::generate();
    let row = secret.to_row(tenant.into(), role, "test", server.stores.clock.now());
    server.stores.identity.add_key(row).await.unwrap();
    (secret.reveal(), secret.id().to_owned())
}

async fn traded(server: &Server, key: &str, body: Option<Value>) -> Value {
    ask(server, Method::POST, key, "/v1/auth/token", body.as_ref()).await.expect(200)
}

#[tokio::test]
async fn a_key_buys_a_short_token_that_is_the_key_for_its_time() {
    let Place { server, clock, .. } = place().await;
    let (user, id) = key(&server, "acme", Role::User).await;
    let answer = ask(&server, Method::POST, &user, "/v1/auth/token", None).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let made = answer.expect(200);
    assert_eq!(
        (&made["token_type"], &made["expires_in"], &made["role"]),
        (&json!("Bearer"), &json!(900), &json!("user"))
    );
    let token = made["token"].as_str().unwrap();
    let job = json!({"kind": "probe", "payload": {}, "run_at": NOW.plus_ms(3_600_000).to_string()});
    let own = ask(&server, Method::POST, token, "/v1/jobs", Some(&job)).await.expect(202)["id"].clone();
    let path = format!("/v1/jobs/{}", own.as_str().unwrap());
    // What was submitted with the token is the key's, and the other way round.
    assert_eq!(get(&server, &user, &path).await.expect(200)["tenant"], "acme");
    assert_eq!(get(&server, token, &path).await.expect(200)["id"], own);
    let row =
        server.stores.reads.jobs(&[own.as_str().unwrap().parse().unwrap()]).await.unwrap().pop().unwrap().unwrap();
    assert_eq!(row.key_id, Some(id.as_str().into()));
    get(&server, token, "/v1/queues").await.problem(403);
    // It buys no other, so that it cannot outlive its time.
    ask(&server, Method::POST, token, "/v1/auth/token", None).await.problem(403);
    clock.advance_ms(900_000 + 59_000);
    get(&server, token, &path).await.expect(200);
    clock.advance_ms(1_000);
    get(&server, token, &path).await.problem(401);
}

#[tokio::test]
async fn a_token_may_do_less_than_its_key_and_never_more() {
    let Place { server, .. } = place().await;
    let (operator, _) = key(&server, "acme", Role::Operator).await;
    let less =
        traded(&server, &operator, Some(json!({"role": "analyst", "scopes": ["jobs:read"], "expires_in": "1h"}))).await;
    assert_eq!((&less["role"], &less["expires_in"]), (&json!("analyst"), &json!(3_600)));
    let token = less["token"].as_str().unwrap();
    get(&server, token, "/v1/jobs").await.expect(200);
    get(&server, token, "/v1/queues").await.problem(403);
    get(&server, token, "/v1/costs").await.problem(403);
    for (body, status) in [
        (json!({"role": "admin"}), 403),
        (json!({"role": "root"}), 422),
        (json!({"expires_in": "25h"}), 422),
        (json!({"expires_in": "0s"}), 422),
        (json!({"scopes": []}), 422),
        (json!({"subject": "ann"}), 422),
    ] {
        ask(&server, Method::POST, &operator, "/v1/auth/token", Some(&body)).await.problem(status);
    }
    // Never beyond the end of its key.
    let ending = json!({"name": "ending", "expires_at": NOW.plus_ms(100_000).to_string()});
    let ending = server.post("/v1/keys", &ending).await.expect(201);
    assert_eq!(traded(&server, ending["key"].as_str().unwrap(), None).await["expires_in"], 100);
}

#[tokio::test]
async fn a_token_ends_with_its_key() {
    let Place { server, .. } = place().await;
    let (user, id) = key(&server, "acme", Role::User).await;
    let bought = async |key: &str| traded(&server, key, None).await["token"].as_str().unwrap().to_owned();
    let first = bought(&user).await;
    get(&server, &first, "/v1/jobs").await.expect(200);
    // A rotation with overlap leaves it alone, as it leaves the secret that bought it; one without ends it, also what was
    // bought in the same second.
    let rotate = format!("/v1/keys/{id}/rotate");
    let next = server.post(&rotate, &json!({"overlap": "1h"})).await.expect(200);
    get(&server, &first, "/v1/jobs").await.expect(200);
    let (former, second) = (bought(&user).await, bought(next["key"].as_str().unwrap()).await);
    let next = server.post(&rotate, &json!({"overlap": "1h"})).await.expect(200);
    for token in [&first, &former] {
        get(&server, token, "/v1/jobs").await.problem(401);
    }
    get(&server, &second, "/v1/jobs").await.expect(200);
    server.post(&rotate, &json!({"overlap": "0s"})).await.expect(200);
    get(&server, &second, "/v1/jobs").await.problem(401);
    ask(&server, Method::POST, next["key"].as_str().unwrap(), "/v1/auth/token", None).await.problem(401);
    let next = server.post(&rotate, &json!({"overlap": "0s"})).await.expect(200);
    let last = bought(next["key"].as_str().unwrap()).await;
    get(&server, &last, "/v1/jobs").await.expect(200);
    server.send(server.request(Method::DELETE, "/v1/keys?tenant=acme")).await.expect(200);
    get(&server, &last, "/v1/jobs").await.problem(401);
}

/// What another process remembers of a key buys nothing once the key has another secret.
#[tokio::test]
async fn a_secret_that_was_replaced_elsewhere_buys_no_token() {
    let Place { server, tokens, .. } = place().await;
    let (user, id) = key(&server, "acme", Role::User).await;
    let other = server.beside_with(|api| api.tokens = tokens).await;
    get(&other, &user, "/v1/jobs").await.expect(200);
    server.post(&format!("/v1/keys/{id}/rotate"), &json!({"overlap": "0s"})).await.expect(200);
    get(&other, &user, "/v1/jobs").await.expect(200);
    ask(&other, Method::POST, &user, "/v1/auth/token", None).await.problem(409);
}

/// Where an issuer's keys are fetched, a token with a new one waits for it, and who makes up names of keys sets nobody going.
#[tokio::test]
async fn a_key_that_is_not_known_yet_is_looked_for_while_its_token_waits() {
    let Place { server, tokens, provider, .. } = place().await;
    let ((fresh, public), (made_up, _)) = (ed_key("ed-2"), ed_key("ed-3"));
    let rotated = Provider { key_set: json!({"keys": [public]}), ..provider };
    tokens.set_issuers(vec![]);
    tokens.begin_fetching(vec![ISSUER.to_owned()]);
    tokens.set_fetched_issuers(vec![]);
    let looks = Arc::new(AtomicUsize::new(0));
    let (counted, fetching) = (looks.clone(), tokens.clone());
    let fetcher = tokio::spawn(async move {
        loop {
            fetching.key_wanted().await;
            counted.fetch_add(1, Ordering::Relaxed);
            fetching.set_fetched_issuers(vec![rotated.issuer(Role::Analyst, &["acme"])]);
        }
    });
    let elsewhere = signed(Algorithm::EdDSA, Some("ed-2"), &fresh, &with(json!({"iss": "https://else.example"})));
    get(&server, &elsewhere, "/v1/jobs").await.problem(401);
    assert_eq!(looks.load(Ordering::Relaxed), 0, "it is of nobody whose keys are fetched");
    let token = signed(Algorithm::EdDSA, Some("ed-2"), &fresh, &claims());
    get(&server, &token, "/v1/jobs").await.expect(200);
    let made_up = signed(Algorithm::EdDSA, Some("ed-3"), &made_up, &claims());
    get(&server, &made_up, "/v1/jobs").await.problem(401);
    assert_eq!(looks.load(Ordering::Relaxed), 1, "once a minute at most");
    fetcher.abort();
}

#[tokio::test]
async fn whoever_asks_is_told_who_it_is_and_what_it_may() {
    let Place { server, .. } = place().await;
    let (analyst, id) = key(&server, "acme", Role::Analyst).await;
    let told = get(&server, &analyst, "/v1/auth/whoami").await.expect(200);
    assert_eq!((&told["key_id"], &told["tenant"], &told["role"]), (&json!(id), &json!("acme"), &json!("analyst")));
    assert_eq!((&told["scopes"], told.get("expires_at")), (&json!([]), None));
    let may = |told: &Value, route: &str| told["may"].as_array().unwrap().contains(&json!(route));
    assert!(
        may(&told, "PATCH /v1/jobs/{id}") && may(&told, "GET /v1/costs") && !may(&told, "GET /v1/queues"),
        "{told}"
    );

    // No scope is needed to find out which one has.
    let token = traded(&server, &analyst, Some(json!({"scopes": ["money:read"], "expires_in": "1h"}))).await;
    let narrow = get(&server, token["token"].as_str().unwrap(), "/v1/auth/whoami").await.expect(200);
    assert_eq!((&narrow["key_id"], &narrow["scopes"]), (&json!(id), &json!(["money:read"])));
    assert_eq!(narrow["expires_at"], token["expires_at"]);
    let open = [
        "GET /v1/costs",
        "GET /v1/keys/{key}/budget",
        "GET /v1/tenants/{tenant}/budget",
        "GET /v1/tenants/{tenant}/usage",
    ];
    let own = ["DELETE /v1/auth/token", "GET /v1/auth/whoami"];
    let mut routes: Vec<_> = narrow["may"].as_array().unwrap().iter().map(|route| route.as_str().unwrap()).collect();
    routes.sort_unstable();
    let mut wanted = [&open[..], &own].concat();
    wanted.sort_unstable();
    assert_eq!(routes, wanted);
    get(&server, "no-key", "/v1/auth/whoami").await.problem(401);
}

#[tokio::test]
async fn a_token_is_taken_back_for_good() {
    let Place { server, tokens, .. } = place().await;
    let (user, _) = key(&server, "acme", Role::User).await;
    let signed_out = traded(&server, &user, None).await["token"].as_str().unwrap().to_owned();
    get(&server, &signed_out, "/v1/jobs").await.expect(200);
    assert_eq!(ask(&server, Method::DELETE, &signed_out, "/v1/auth/token", None).await.status.as_u16(), 204);
    get(&server, &signed_out, "/v1/jobs").await.problem(401);
    ask(&server, Method::DELETE, &user, "/v1/auth/token", None).await.problem(422);
    // Nobody needs a scope to give up what it has.
    let narrow =
        traded(&server, &user, Some(json!({"scopes": ["jobs:read"]}))).await["token"].as_str().unwrap().to_owned();
    assert_eq!(ask(&server, Method::DELETE, &narrow, "/v1/auth/token", None).await.status.as_u16(), 204);
    get(&server, &narrow, "/v1/jobs").await.problem(401);

    let stolen = traded(&server, &user, None).await;
    let token = stolen["token"].as_str().unwrap();
    get(&server, token, "/v1/jobs").await.expect(200);
    server.post("/v1/auth/revocations", &json!({})).await.problem(422);
    let answer = server.post("/v1/auth/revocations", &json!({"jti": stolen["jti"]})).await;
    assert_eq!(answer.status.as_u16(), 204);
    get(&server, token, "/v1/jobs").await.problem(401);
    // Another process over the same journal has seen neither, and believes what this one signs.
    let other = server.beside_with(|api| api.tokens = tokens).await;
    get(&other, token, "/v1/jobs").await.problem(401);
    get(&other, &signed_out, "/v1/jobs").await.problem(401);
    let live = traded(&server, &user, None).await["token"].as_str().unwrap().to_owned();
    get(&other, &live, "/v1/jobs").await.expect(200);
}

#[tokio::test]
async fn signing_keys_rotate_while_tokens_live() {
    let Place { server, tokens, .. } = place().await;
    let texts = [SigningKeys::generate().unwrap(), SigningKeys::generate().unwrap()];
    let [old, new] = [&texts[0], &texts[1]].map(|text| text.expose_secret().to_owned());
    let (user, _) = key(&server, "acme", Role::User).await;
    tokens.set_signing_keys(SigningKeys::parse(&old).unwrap());
    let first = traded(&server, &user, None).await["token"].as_str().unwrap().to_owned();
    tokens.set_signing_keys(SigningKeys::parse(&format!("{new}\n{old}")).unwrap());
    let second = traded(&server, &user, None).await["token"].as_str().unwrap().to_owned();
    for token in [&first, &second] {
        get(&server, token, "/v1/jobs").await.expect(200);
    }
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    assert_ne!(kid(&first), kid(&second));
    // Without any key there are no tokens, and keys go on.
    tokens.set_signing_keys(SigningKeys::default());
    ask(&server, Method::POST, &user, "/v1/auth/token", None).await.problem(503);
    get(&server, &user, "/v1/jobs").await.expect(200);
}

#[tokio::test]
async fn tokens_of_an_issuer_are_believed_within_its_bounds() {
    let Place { server, provider, .. } = place().await;
    let own = |sub: &str, role: &str, tenant: &str| {
        let claims = with(json!({"sub": sub, "role": role, "tenant": tenant, "jti": format!("{sub}-{role}-{tenant}")}));
        signed(Algorithm::RS256, Some("rsa-1"), &provider.rsa, &claims)
    };
    let job = json!({"kind": "probe", "payload": {}, "run_at": NOW.plus_ms(3_600_000).to_string()});
    let ann = own("ann", "user", "acme");
    let id = ask(&server, Method::POST, &ann, "/v1/jobs", Some(&job)).await.expect(202)["id"].clone();
    let path = format!("/v1/jobs/{}", id.as_str().unwrap());
    // The same person with another token, a colleague, an analyst, a stranger of the same name.
    let again = signed(Algorithm::EdDSA, Some("ed-1"), &provider.ed, &with(json!({"jti": "t-2"})));
    get(&server, &again, &path).await.expect(200);
    get(&server, &own("bob", "user", "acme"), &path).await.problem(404);
    get(&server, &own("eve", "analyst", "acme"), &path).await.expect(200);
    get(&server, &own("ann", "user", "globex"), &path).await.problem(404);
    // Audiences may be several; times may differ by a minute.
    for (changes, status) in [
        (json!({"aud": ["other", "longshore"]}), 200),
        (json!({"iat": NOW_S - 600, "nbf": null, "exp": NOW_S - 59}), 200),
        (json!({"nbf": NOW_S + 60}), 200),
        (json!({"nbf": null}), 200),
        (json!({"iat": NOW_S - 10, "exp": NOW_S - 10 + 86_400}), 200),
    ] {
        let mut claims = with(changes.clone());
        claims["jti"] = changes.to_string().chars().take(100).collect::<String>().into();
        let token = signed(Algorithm::EdDSA, Some("ed-1"), &provider.ed, &claims);
        let answer = get(&server, &token, &path).await;
        assert_eq!(answer.status.as_u16(), status, "{changes}: {}", answer.text);
    }
    // One of them can be taken back by its id.
    let answer = server.post("/v1/auth/revocations", &json!({"jti": "t-2", "issuer": ISSUER})).await;
    assert_eq!(answer.status.as_u16(), 204);
    get(&server, &again, &path).await.problem(401);
    get(&server, &ann, &path).await.expect(200);
}

/// A token of ours that was good and is not any more: because it was taken back, or because its key was revoked.
async fn spent(server: &Server, with_its_key: bool) -> String {
    let (user, id) = key(server, "acme", Role::User).await;
    let made = traded(server, &user, None).await;
    let token = made["token"].as_str().unwrap().to_owned();
    get(server, &token, "/v1/jobs").await.expect(200);
    let answer = if with_its_key {
        server.send(server.request(Method::DELETE, &format!("/v1/keys/{id}"))).await
    } else {
        server.post("/v1/auth/revocations", &json!({"jti": made["jti"]})).await
    };
    assert_eq!(answer.status.as_u16(), 204);
    token
}

/// A token of these very texts, well signed.
fn raw_signed(header: &str, claims: &str, key: &EncodingKey) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

/// The same texts as they should be are believed: so it is for what they say twice that they are not.
#[tokio::test]
async fn a_token_that_says_each_thing_once_is_believed() {
    let Place { server, provider, .. } = place().await;
    let token = raw_signed(r#"{"alg":"EdDSA","kid":"ed-1"}"#, &claims().to_string(), &provider.ed);
    get(&server, &token, "/v1/jobs").await.expect(200);
}

/// Every way to forge a token that we know of. Each is refused, and says nothing of what stands in it.
#[tokio::test]
async fn forged_tokens_are_refused() {
    let Place { server, provider, tokens, .. } = place().await;
    let (_, admin) = key(&server, "default", Role::Admin).await;
    let (strange_ed, strange_public) = ed_key("ed-1");
    let (taken_back, orphaned) = (spent(&server, false).await, spent(&server, true).await);
    let (strange_rsa, _) = rsa_key("rsa-1");
    let good = signed(Algorithm::EdDSA, Some("ed-1"), &provider.ed, &claims());
    get(&server, &good, "/v1/jobs").await.expect(200);
    let parts: Vec<&str> = good.split('.').collect();
    let ed = |claims: &Value| signed(Algorithm::EdDSA, Some("ed-1"), &provider.ed, claims);
    let changed = |name: &str, value: Value| ed(&with(json!({name: value})));
    let without = |name: &str| ed(&with(json!({name: null})));
    let hmac =
        |secret: &[u8]| signed(Algorithm::HS256, Some("ed-1"), &EncodingKey::from_secret(secret).unwrap(), &claims());
    let public_ed = URL_SAFE_NO_PAD.decode(provider.key_set["keys"][1]["x"].as_str().unwrap()).unwrap();
    let public_rsa = provider.key_set["keys"][0]["n"].as_str().unwrap().as_bytes().to_vec();
    let admin_claims =
        with(json!({"iss": "longshore", "key": admin, "sub": admin, "role": "admin", "tenant": "default"}));
    let none = |name: &str| pasted(&json!({"alg": name, "typ": "JWT", "kid": "ed-1"}), &claims(), b"");
    let said = |header: Value| pasted(&header, &claims(), &URL_SAFE_NO_PAD.decode(parts[2]).unwrap());
    let mut bent = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    bent[10] ^= 1;
    let own_kid = {
        let (user, _) = key(&server, "acme", Role::User).await;
        let token = traded(&server, &user, None).await["token"].as_str().unwrap().to_owned();
        jsonwebtoken::decode_header(&token).unwrap().kid.unwrap()
    };
    let rows: Vec<(&str, String)> = vec![
        ("no algorithm", none("none")),
        ("no algorithm, in capitals", none("NONE")),
        ("no algorithm, mixed", none("nOnE")),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("a changed signature", format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(&bent))),
        ("other claims under a good signature", {
            let more = URL_SAFE_NO_PAD.encode(with(json!({"role": "admin"})).to_string());
            format!("{}.{more}.{}", parts[0], parts[2])
        }),
        ("a stranger's Ed25519 key", signed(Algorithm::EdDSA, Some("ed-1"), &strange_ed, &claims())),
        ("a stranger's RSA key", signed(Algorithm::RS256, Some("rsa-1"), &strange_rsa, &claims())),
        ("a stranger's key, as ours", signed(Algorithm::EdDSA, Some(&own_kid), &strange_ed, &admin_claims)),
        ("the issuer's key, as ours", signed(Algorithm::EdDSA, Some("ed-1"), &provider.ed, &admin_claims)),
        ("the public Ed25519 key as a shared secret", hmac(&public_ed)),
        ("the public RSA key as a shared secret", hmac(&public_rsa)),
        ("another RSA algorithm", signed(Algorithm::RS512, Some("rsa-1"), &provider.rsa, &claims())),
        ("RSA with padding of another kind", signed(Algorithm::PS256, Some("rsa-1"), &provider.rsa, &claims())),
        ("RSA under the name of the Ed25519 key", signed(Algorithm::RS256, Some("ed-1"), &provider.rsa, &claims())),
        ("Ed25519 under the name of the RSA key", signed(Algorithm::EdDSA, Some("rsa-1"), &provider.ed, &claims())),
        ("no kid", signed(Algorithm::EdDSA, None, &provider.ed, &claims())),
        ("an unknown kid", signed(Algorithm::EdDSA, Some("ed-2"), &provider.ed, &claims())),
        ("a kid that is a path", signed(Algorithm::EdDSA, Some("../../etc/passwd"), &provider.ed, &claims())),
        ("a key of its own in the header", {
            let (signs, public) = ed_key("mine");
            let mut header = Header { kid: Some("mine".into()), ..Header::new(Algorithm::EdDSA) };
            header.jwk = serde_json::from_value(public).ok();
            header.jku = Some("https://evil.example/keys.json".into());
            jsonwebtoken::encode(&header, &claims(), &signs).unwrap()
        }),
        ("an extension that must be understood", {
            let mut header = Header { kid: Some("ed-1".into()), ..Header::new(Algorithm::EdDSA) };
            header.crit = Some(vec!["exp".into()]);
            jsonwebtoken::encode(&header, &claims(), &provider.ed).unwrap()
        }),
        ("a stranger's key that the header brings along", {
            let mut header = Header { kid: Some("ed-1".into()), ..Header::new(Algorithm::EdDSA) };
            header.x5u = Some("https://evil.example/cert.pem".into());
            header.x5c = Some(vec!["bm90IGEgY2VydGlmaWNhdGU=".into()]);
            header.jwk = serde_json::from_value(strange_public.clone()).ok();
            jsonwebtoken::encode(&header, &claims(), &strange_ed).unwrap()
        }),
        ("a claim twice", {
            let text = claims().to_string().replacen('{', "{\"role\":\"analyst\",", 1);
            raw_signed(r#"{"alg":"EdDSA","kid":"ed-1"}"#, &text, &provider.ed)
        }),
        ("a member of the header twice", {
            raw_signed(r#"{"alg":"none","alg":"EdDSA","kid":"ed-1"}"#, &claims().to_string(), &provider.ed)
        }),
        ("a name of its key twice", {
            raw_signed(r#"{"alg":"EdDSA","kid":"rsa-1","kid":"ed-1"}"#, &claims().to_string(), &provider.ed)
        }),
        ("claims that are a list", raw_signed(r#"{"alg":"EdDSA","kid":"ed-1"}"#, "[]", &provider.ed)),
        ("one that was taken back", taken_back),
        ("one whose key was revoked", orphaned),
        ("another type", {
            let header =
                Header { typ: Some("dpop+jwt".into()), kid: Some("ed-1".into()), ..Header::new(Algorithm::EdDSA) };
            jsonwebtoken::encode(&header, &claims(), &provider.ed).unwrap()
        }),
        ("a header that is no JSON", format!("{}.{}.{}", URL_SAFE_NO_PAD.encode("x"), parts[1], parts[2])),
        ("a header of another algorithm", said(json!({"alg": "ES256", "kid": "ed-1"}))),
        ("expired", ed(&with(json!({"iat": NOW_S - 600, "nbf": null, "exp": NOW_S - 60})))),
        ("not valid yet", changed("nbf", json!(NOW_S + 61))),
        ("made in the future", ed(&with(json!({"iat": NOW_S + 61, "nbf": null, "exp": NOW_S + 900})))),
        ("for more than 24 h", changed("exp", json!(NOW_S - 10 + 86_401))),
        ("for ever", changed("exp", json!(253_402_300_799_i64))),
        ("an end that is a text", changed("exp", json!((NOW_S + 600).to_string()))),
        ("an end that is a fraction", changed("exp", json!(NOW_S as f64 + 600.5))),
        ("an end before its beginning", ed(&with(json!({"iat": NOW_S + 50, "exp": NOW_S + 40})))),
        ("no end", without("exp")),
        ("no beginning", without("iat")),
        ("no issuer", without("iss")),
        ("another issuer", changed("iss", json!("https://evil.example/"))),
        ("several issuers", changed("iss", json!([ISSUER, "longshore"]))),
        ("no audience", without("aud")),
        ("another audience", changed("aud", json!("shop"))),
        ("no subject", without("sub")),
        ("no id", without("jti")),
        ("no tenant", without("tenant")),
        ("a tenant that is no name", changed("tenant", json!("a b"))),
        ("a tenant that its issuer does not speak for", changed("tenant", json!("default"))),
        ("no role", without("role")),
        ("a made-up role", changed("role", json!("root"))),
        ("more than its issuer makes anybody", changed("role", json!("admin"))),
        ("several roles", changed("role", json!(["user", "admin"]))),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{good}.x")),
        ("longer than any", format!("{good}{}", "A".repeat(9_000))),
    ];
    assert!(rows.len() >= 20);
    for (name, token) in &rows {
        for path in ["/v1/jobs", "/v1/keys"] {
            let answer = get(&server, token, path).await;
            let problem = answer.problem(401);
            assert!(answer.header("www-authenticate").contains("invalid_token"), "{name}");
            for secret in ["ann", ISSUER, "acme"] {
                assert!(!problem.to_string().contains(secret), "{name} tells {secret}: {problem}");
            }
        }
    }
    // The good one is still good: none of these was refused for another's sake.
    get(&server, &good, "/v1/jobs").await.expect(200);
    tokens.set_issuers(vec![]);
    let unseen = signed(Algorithm::EdDSA, Some("ed-1"), &provider.ed, &with(json!({"jti": "t-9"})));
    get(&server, &unseen, "/v1/jobs").await.problem(401);
}

/// Installations whose signing keys differ do not believe each other; processes that share them do, and a key that was revoked
/// through one has no token at another that has not looked before.
#[tokio::test]
async fn a_token_is_for_its_installation() {
    let (here, there) = (place().await, place().await);
    let (user, id) = key(&here.server, "acme", Role::User).await;
    let token = traded(&here.server, &user, None).await["token"].as_str().unwrap().to_owned();
    get(&there.server, &token, "/v1/jobs").await.problem(401);
    let tokens = here.tokens.clone();
    let beside = here.server.beside_with(|api| api.tokens = tokens).await;
    get(&beside, &token, "/v1/jobs").await.expect(200);
    let path = format!("/v1/keys/{id}");
    assert_eq!(here.server.send(here.server.request(Method::DELETE, &path)).await.status.as_u16(), 204);
    get(&here.server, &token, "/v1/jobs").await.problem(401);
    let later = here.server.beside_with(|api| api.tokens = here.tokens.clone()).await;
    get(&later, &token, "/v1/jobs").await.problem(401);
}
