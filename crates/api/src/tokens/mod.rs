//! Tokens: JWTs that this installation has made from a key, or that an issuer has made whom the configuration names.
//!
//! EdDSA and RS256 only, and each key is for one of them: what a token says of its algorithm chooses nothing. A token must say who
//! made it and for whom, whose it is, when it was made and when it ends (at most 24 h later), and its id, by which it can be
//! taken back. Nothing in a token is believed before its signature is right.

mod asking;
pub(crate) mod believed;
mod keys;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header, Validation};
pub use keys::{Issuer, IssuerRules, SigningKeys};
use queue_core::{
    hex,
    ids::Name,
    journal::{ApiKey, Grant, Role},
    time::Timestamp,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::{
    asking::{Asking, WAIT_MAX},
    keys::VerifyingKey,
};

/// Who makes our own tokens, and whom they are for.
pub(crate) const OWN: &str = "longshore";
/// Longest life of a token, from when it was made.
pub(crate) const LIFE_MAX_S: i64 = 24 * 60 * 60;
/// How far clocks may differ.
pub(crate) const LEEWAY_S: i64 = 60;
/// Longest token, in bytes: those of identity providers with many groups have some thousands.
const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// Bytes of the mark of a secret: two of one key do not have the same.
const MARK_BYTES: usize = 8;
/// Longest subject, in bytes.
const SUBJECT_MAX_BYTES: usize = 256;
/// Longest id of a token, in bytes: it is a key of the list of those that were taken back.
pub(crate) const JTI_MAX_BYTES: usize = 128;

/// Whose tokens are believed, and what our own are signed with. Both may change while the API runs.
#[derive(Debug, Default)]
pub struct Tokens {
    trust: RwLock<Arc<Trust>>,
    asking: Asking,
}

#[derive(Clone, Debug, Default)]
struct Trust {
    signing: SigningKeys,
    issuers: Vec<Issuer>,
    /// Those whose keys were fetched.
    fetched: Vec<Issuer>,
}

impl Trust {
    fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.issuers.iter().chain(&self.fetched)
    }
}

/// What a token says, once it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Who made it.
    pub(crate) issuer: String,
    /// Its id.
    pub(crate) jti: String,
    /// Who its bearer is, in the issuer's words.
    pub(crate) subject: String,
    /// Whose.
    pub(crate) tenant: Name,
    /// What it may do.
    pub(crate) role: Role,
    /// What it is narrowed to.
    pub(crate) grants: Vec<Grant>,
    /// The key that it was made from, if it is ours.
    pub(crate) key: Option<Source>,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
}

/// What a token of ours was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The key.
    pub(crate) id: String,
    /// Which of its secrets bought it: [`mark_of`] that.
    pub(crate) mark: String,
}

/// What a token says of the secret that bought it: enough to tell it from the key's other secrets, and nothing to open anything
/// with.
pub(crate) fn mark_of(secret_hash: &[u8; 32]) -> String {
    hex::of(&blake3::derive_key("longshore 2026-11 the secret that bought a token", secret_hash)[..MARK_BYTES])
}

/// A token that was made.
pub(crate) struct Minted {
    /// The token.
    pub(crate) token: String,
    /// Its id.
    pub(crate) jti: String,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
}

impl Tokens {
    /// Signs and believes with these keys from now on.
    pub fn set_signing_keys(&self, signing: SigningKeys) {
        self.change(|trust| trust.signing = signing);
    }

    /// Believes these issuers from now on, and no other but those whose keys are fetched.
    pub fn set_issuers(&self, issuers: Vec<Issuer>) {
        self.change(|trust| trust.issuers = issuers);
    }

    /// Somebody fetches the keys of these issuers from now on, and looks for the first time: a token of theirs whose key is not known
    /// waits for the end of that look, some seconds at most.
    pub fn begin_fetching(&self, issuers: Vec<String>) {
        self.asking.begin(issuers);
    }

    /// Ends when a token of one of those issuers names a key that is not known: at most once a minute.
    pub async fn key_wanted(&self) {
        self.asking.wanted().await;
    }

    /// Whoever fetches keys has looked: believes these issuers from now on, besides those of [`Tokens::set_issuers`].
    pub fn set_fetched_issuers(&self, issuers: Vec<Issuer>) {
        self.change(|trust| trust.fetched = issuers);
        self.asking.looked();
    }

    fn change(&self, change: impl FnOnce(&mut Trust)) {
        let mut trust = self.trust.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut trust));
    }

    fn trust(&self) -> Arc<Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a text has the form of a token.
    pub(crate) fn is_one(text: &str) -> bool {
        text.len() <= TOKEN_MAX_BYTES && text.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// A token that may do what this says, from a key and the secret with this hash; `None` where there is nothing to sign it
    /// with.
    pub(crate) fn mint(
        &self,
        (key, secret_hash): (&ApiKey, &[u8; 32]),
        role: Role,
        grants: &[Grant],
        life_s: i64,
        now: Timestamp,
    ) -> Option<Minted> {
        let trust = self.trust();
        let signer = trust.signing.current()?;
        let (jti, at) = (Uuid::now_v7().simple().to_string(), now.0.div_euclid(1_000));
        let mut claims = json!({
            "iss": OWN, "aud": OWN, "sub": key.id, "key": key.id, "secret": mark_of(secret_hash), "jti": jti, "iat": at, "nbf": at, "exp": at + life_s,
            "tenant": key.tenant.as_str(), "role": role.as_str(),
        });
        if !grants.is_empty() {
            claims["scope"] = grants.iter().map(Grant::as_str).collect::<Vec<_>>().join(" ").into();
        }
        let header = Header { kid: Some(signer.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &claims, &signer.signs).ok()?;
        Some(Minted { token, jti, expires_at: Timestamp((at + life_s) * 1_000) })
    }

    /// What a token says. Where its issuer's keys are fetched and its own is not among them, they are looked at again first, if that was
    /// not done within a minute.
    pub(crate) async fn verify_with_fresh_keys(&self, token: &str, now: Timestamp) -> Result<Verified, String> {
        let mut looks = self.asking.looks();
        if self.stranger(token).is_some_and(|issuer| self.asking.ask(&issuer)) {
            // Whoever waits in vain is refused, as it would have been at once.
            let _ = tokio::time::timeout(WAIT_MAX, looks.changed()).await;
        }
        self.verify(token, now)
    }

    /// The issuer that a token names, if the key that it names is not known to be that issuer's.
    fn stranger(&self, token: &str) -> Option<String> {
        let (kid, named) = (jsonwebtoken::decode_header(token).ok()?.kid?, issuer_of(token)?);
        let is_known = |issuer: &Issuer| issuer.rules.issuer == named && issuer.key(&kid).is_some();
        (!self.trust().issuers().any(is_known)).then_some(named)
    }

    /// What a token says. The error says why it is not believed, and nothing of what stands in it.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, String> {
        let header =
            jsonwebtoken::decode_header(token).map_err(|_| "its header is none of a token that is known here")?;
        if header
            .typ
            .as_deref()
            .is_some_and(|typ| !typ.eq_ignore_ascii_case("jwt") && !typ.eq_ignore_ascii_case("at+jwt"))
        {
            return Err("it is not of the type JWT".into());
        }
        if !says_each_once(token) {
            return Err("it says something twice".into());
        }
        let kid = header.kid.as_deref().ok_or("it does not say which key has signed it (kid)")?;
        let trust = self.trust();
        let own = trust.signing.verifying(kid).map(|key| (key, Rules::own()));
        let others = trust.issuers().filter_map(|issuer| Some((issuer.key(kid)?, Rules::of(issuer))));
        // Two issuers may call their keys alike: whose signature it is decides.
        let mut why = "its key (kid) is not known here".to_owned();
        for (key, rules) in own.into_iter().chain(others) {
            match signed(token, key, &rules) {
                Ok(claims) => return rules.read(&claims, now),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }
}

/// Who a token says has made it: to be asked for keys, and not to be believed.
fn issuer_of(token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    Some(claims.get("iss")?.as_str()?.to_owned())
}

/// Whether header and claims name each member once: of two that are called alike, one reader takes the first and another the last.
fn says_each_once(token: &str) -> bool {
    let once = |part: &str| {
        let text = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Once>(&text).ok()
    };
    token.split('.').take(2).all(|part| once(part).is_some())
}

/// A JSON object that names each of its members once.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, IgnoredAny)) = members.next_entry::<String, IgnoredAny>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(self)
    }
}

/// The claims of a token that this key has signed, for the issuer's audience.
fn signed(token: &str, key: &VerifyingKey, rules: &Rules<'_>) -> Result<Map<String, Value>, String> {
    let mut validation = Validation::new(key.algorithm);
    validation.set_issuer(&[rules.issuer]);
    validation.set_audience(&[rules.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // Times are ours to check: by the store's clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key.verifies, &validation);
    decoded.map(|token| token.claims).map_err(|error| {
        use jsonwebtoken::errors::ErrorKind;
        match error.kind() {
            ErrorKind::InvalidAlgorithm => "its algorithm is not that of its key".to_owned(),
            ErrorKind::InvalidIssuer => "its issuer is not the one whose key has signed it".to_owned(),
            ErrorKind::InvalidAudience => "it is not for this audience".to_owned(),
            ErrorKind::MissingRequiredClaim(claim) => format!("it does not say `{claim}`"),
            _ => "its signature is not right".to_owned(),
        }
    })
}

/// What is asked of the tokens of one issuer.
struct Rules<'i> {
    issuer: &'i str,
    audience: &'i str,
    tenant_claim: &'i str,
    role_claim: &'i str,
    max_role: Role,
    tenants: &'i [Name],
    is_own: bool,
}

impl<'i> Rules<'i> {
    fn own() -> Rules<'static> {
        Rules {
            issuer: OWN,
            audience: OWN,
            tenant_claim: "tenant",
            role_claim: "role",
            max_role: Role::Admin,
            tenants: &[],
            is_own: true,
        }
    }

    fn of(issuer: &'i Issuer) -> Self {
        let rules = &issuer.rules;
        Self {
            issuer: &rules.issuer,
            audience: &rules.audience,
            tenant_claim: &rules.tenant_claim,
            role_claim: &rules.role_claim,
            max_role: rules.max_role,
            tenants: &rules.tenants,
            is_own: false,
        }
    }

    fn read(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Verified, String> {
        let expires_at = end_of(claims, now)?;
        let text = |name: &str, max: usize| match claims.get(name) {
            Some(Value::String(text)) if (1..=max).contains(&text.len()) && !text.chars().any(char::is_control) => {
                Ok(text.clone())
            }
            _ => Err(format!("its `{name}` is no text of 1 to {max} bytes")),
        };
        // An issuer is one text: a list of them could name several.
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer) {
            return Err("its issuer is not the one whose key has signed it".into());
        }
        let tenant = text(self.tenant_claim, queue_core::ids::NAME_MAX_BYTES)?;
        let tenant = Name::checked(&tenant).map_err(|reason| format!("its `{}` {reason}", self.tenant_claim))?;
        if !self.tenants.is_empty() && !self.tenants.contains(&tenant) {
            return Err("its issuer does not speak for its tenant".into());
        }
        let role =
            Role::parse(&text(self.role_claim, 16)?).ok_or_else(|| format!("its `{}` is no role", self.role_claim))?;
        if role > self.max_role {
            return Err(format!("its issuer makes nobody more than `{}`", self.max_role));
        }
        let grants = match claims.get("scope").filter(|_| self.is_own) {
            None => vec![],
            Some(Value::String(words)) => words.split(' ').map(Grant::parse).collect::<Result<_, _>>()?,
            Some(_) => return Err("its `scope` is no text".into()),
        };
        let source = || {
            Ok::<_, String>(Source {
                id: text("key", queue_core::keys::ID_CHARS)?,
                mark: text("secret", 2 * MARK_BYTES)?,
            })
        };
        let key = self.is_own.then(source).transpose()?;
        let (jti, subject) = (text("jti", JTI_MAX_BYTES)?, text("sub", SUBJECT_MAX_BYTES)?);
        Ok(Verified { issuer: self.issuer.to_owned(), jti, subject, tenant, role, grants, key, expires_at })
    }
}

/// When a token ends that holds now.
fn end_of(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, String> {
    let moment = |name: &str| match claims.get(name) {
        None => Ok(None),
        // Moments before 1970 and after 9999 are nobody's.
        Some(value) => match value.as_i64().filter(|at| (0..=253_402_300_799).contains(at)) {
            Some(at) => Ok(Some(at)),
            None => Err(format!("its `{name}` is no whole number of seconds")),
        },
    };
    let now = now.0.div_euclid(1_000);
    let expires = moment("exp")?.ok_or("it does not say when it ends (exp)")?;
    let issued = moment("iat")?.ok_or("it does not say when it was made (iat)")?;
    let begins = moment("nbf")?.unwrap_or(issued);
    if expires + LEEWAY_S <= now {
        return Err("it has expired".into());
    }
    if begins.max(issued) > now + LEEWAY_S {
        return Err("it is not valid yet".into());
    }
    if expires <= issued || expires - issued > LIFE_MAX_S {
        return Err("it is made for longer than 24 h, or for no time".into());
    }
    Ok(Timestamp(expires * 1_000))
}
