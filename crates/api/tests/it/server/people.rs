//! Callers of every kind, and things that belong to the first of them.

use api::SigningKeys;
use aws_lc_rs::signature::Ed25519KeyPair;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use queue_core::{
    credentials::MasterKeys,
    ids::JobId,
    journal::{ApiKey, Revocation, Role},
    keys::Secret,
    time::{Clock, SystemClock},
};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Answer, Hand, Held, Server};

/// Whoever calls.
#[derive(Clone, Debug)]
pub struct Person {
    pub name: &'static str,
    /// What is sent as bearer; nothing at all without one.
    pub key: Option<String>,
    /// What a valid caller is; `None` for those whom nobody lets in.
    pub standing: Option<(Role, &'static str)>,
}

impl Person {
    pub fn id(&self) -> &str {
        &self.key.as_deref().unwrap()[4..12]
    }
}

/// A server and those who call it. Acme is the tenant that things belong to, Globex is another one.
pub struct People {
    pub server: Server,
    pub hand: Hand,
    pub nobody: Person,
    pub user: Person,
    /// Of Acme, too, with another key.
    pub colleague: Person,
    pub stranger: Person,
    pub analyst: Person,
    pub strange_analyst: Person,
    pub operator: Person,
    pub admin: Person,
    pub expired: Person,
    pub revoked: Person,
    /// With a token that claims to be an admin's, under the name of the key that signs here.
    pub forged: Person,
}

impl People {
    pub async fn meet() -> Self {
        let signing = SigningKeys::parse(SigningKeys::generate().unwrap().expose_secret()).unwrap();
        let kid = signing.ids()[0].to_owned();
        let server = Server::start_with(move |api| {
            api.settings.backups = true;
            api.tokens.set_signing_keys(signing);
            let masters = MasterKeys::parse(MasterKeys::generate().unwrap().expose_secret());
            api.credentials.set_master_keys(Ok(masters.unwrap()));
        })
        .await;
        let add = async |name, tenant: &'static str, role, expires_in_ms: Option<i64>| {
            let (secret, now) = (Secret::generate(), server.stores.clock.now());
            let row = secret.to_row(tenant.into(), role, name, now);
            let row = ApiKey { expires_at: expires_in_ms.map(|ms| now.plus_ms(ms)), ..row };
            server.stores.identity.add_key(row).await.unwrap();
            Person { name, key: Some(secret.reveal()), standing: Some((role, tenant)) }
        };
        let user = add("user", "acme", Role::User, None).await;
        let colleague = add("colleague", "acme", Role::User, None).await;
        let stranger = add("stranger", "globex", Role::User, None).await;
        let analyst = add("analyst", "acme", Role::Analyst, None).await;
        let strange_analyst = add("strange analyst", "globex", Role::Analyst, None).await;
        let operator = add("operator", "default", Role::Operator, None).await;
        let admin = add("admin", "default", Role::Admin, None).await;
        let expired = Person { standing: None, ..add("expired", "default", Role::Admin, Some(-1)).await };
        let revoked = Person { standing: None, ..add("revoked", "default", Role::Admin, None).await };
        let which = Revocation::Key(revoked.id().to_owned());
        server.stores.identity.revoke_keys(which, server.stores.clock.now()).await.unwrap();
        let nobody = Person { name: "nobody", key: None, standing: None };
        let forged = Person { name: "forged", key: Some(forged(&kid, admin.id())), standing: None };
        let hand = Hand::join(&server.stores).await;
        Self {
            server,
            hand,
            nobody,
            user,
            colleague,
            stranger,
            analyst,
            strange_analyst,
            operator,
            admin,
            expired,
            revoked,
            forged,
        }
    }

    /// What a person is answered.
    pub async fn ask(&self, person: &Person, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.server.http.request(method, format!("{}{path}", self.server.url));
        if let Some(key) = &person.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.server.send(request).await
    }

    pub async fn get(&self, person: &Person, path: &str) -> Answer {
        self.ask(person, Method::GET, path, None).await
    }

    /// A job that is due in an hour.
    pub async fn later(&self, person: &Person, fields: Value) -> JobId {
        let mut job = far_job(self);
        job.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = self.ask(person, Method::POST, "/v1/jobs", Some(&job)).await.expect(202);
        answer["id"].as_str().unwrap().parse().unwrap()
    }

    /// A job that a worker holds next.
    async fn now(&self, person: &Person) -> JobId {
        let job = json!({"kind": "probe", "payload": {}, "batch_id": "of-acme", "operation": "secret-of-acme"});
        let answer = self.ask(person, Method::POST, "/v1/jobs", Some(&job)).await.expect(202);
        answer["id"].as_str().unwrap().parse().unwrap()
    }

    /// Claims this job. Others that are due, such as one that was redriven, stay with a worker that says no more.
    async fn claim(&mut self, id: JobId) -> Held {
        loop {
            let held = self.hand.claim().await;
            if held.lease.id == id {
                return held;
            }
        }
    }

    /// A dead letter.
    pub async fn dead(&mut self, person: &Person) -> JobId {
        let id = self.now(person).await;
        let held = self.claim(id).await;
        self.hand.bury(held, "secret-of-acme").await;
        id
    }

    /// A job with a result.
    pub async fn succeeded(&mut self, person: &Person) -> JobId {
        let id = self.now(person).await;
        let held = self.claim(id).await;
        self.hand.succeed(held, &json!({"text": "secret-of-acme"})).await;
        id
    }

    /// Another key of Acme, by its id.
    pub async fn spare_key(&self, tenant: &str) -> String {
        let secret = Secret::generate();
        let row = secret.to_row(tenant.into(), Role::User, "spare", self.server.stores.clock.now());
        self.server.stores.identity.add_key(row).await.unwrap();
        secret.id().to_owned()
    }
}

/// A probe that nobody claims: it is due in an hour.
pub fn far_job(people: &People) -> Value {
    let run_at = people.server.stores.clock.now().plus_ms(3_600_000).to_string();
    json!({"kind": "probe", "payload": {}, "run_at": run_at})
}

/// A token for an admin's key, whole and right but for who signed it.
fn forged(kid: &str, admin: &str) -> String {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref());
    let now = SystemClock.now().0 / 1_000;
    let claims = json!({"iss": "longshore", "aud": "longshore", "sub": admin, "key": admin, "jti": "forged", "iat": now,
                        "nbf": now, "exp": now + 900, "tenant": "default", "role": "admin"});
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}
