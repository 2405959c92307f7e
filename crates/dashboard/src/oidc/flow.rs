//! One sign-in from its start to the way back: what binds both to one browser, what is asked of the provider, and what its answer
//! has to say.

use axum::http::HeaderValue;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How long somebody may take at the provider, in seconds: a password, a second factor, a phone that has to be found.
pub(super) const LIFE_S: u32 = 600;
/// Bytes of the secret of a sign-in.
const SEED_BYTES: usize = 32;

/// A sign-in that was begun. Its secret lies in a cookie of the browser that began it, and nowhere else; what the provider and the
/// address bar see is derived from it, so neither can be turned into another.
pub(super) struct Flow {
    seed: [u8; SEED_BYTES],
    /// Where it goes on afterwards.
    pub(super) next: String,
}

impl Flow {
    pub(super) fn begin(next: String) -> Self {
        Self { seed: rand::random(), next }
    }

    fn derived(&self, context: &str) -> String {
        URL_SAFE_NO_PAD.encode(blake3::derive_key(context, &self.seed))
    }

    /// Comes back with the code: whoever was sent a link with somebody else's code has a cookie with another one, or none.
    pub(super) fn state(&self) -> String {
        self.derived("longshore 2026-11 oidc state")
    }

    /// Stands in the ID token, which therefore was made for this sign-in.
    pub(super) fn nonce(&self) -> String {
        self.derived("longshore 2026-11 oidc nonce")
    }

    /// Shown with the code, so that a code that was seen on its way opens nothing (RFC 7636).
    pub(super) fn verifier(&self) -> String {
        self.derived("longshore 2026-11 oidc verifier")
    }

    fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier()))
    }

    /// Where the browser is sent.
    pub(super) fn address(&self, mut endpoint: Url, client_id: &str, redirect_uri: &str, scopes: &str) -> Url {
        endpoint
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", scopes)
            .append_pair("state", &self.state())
            .append_pair("nonce", &self.nonce())
            .append_pair("code_challenge", &self.challenge())
            .append_pair("code_challenge_method", "S256");
        endpoint
    }

    /// What the cookie says.
    pub(super) fn kept(&self) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(self.seed), URL_SAFE_NO_PAD.encode(&self.next))
    }

    /// The sign-in that a cookie tells of.
    pub(super) fn of(kept: &str) -> Option<Self> {
        let (seed, next) = kept.split_once('.')?;
        let seed = URL_SAFE_NO_PAD.decode(seed).ok()?.try_into().ok()?;
        let next = String::from_utf8(URL_SAFE_NO_PAD.decode(next).ok()?).ok()?;
        Some(Self { seed, next: crate::session::way_back(Some(&next)) })
    }
}

/// The cookie of a sign-in. Over https no other site, and none of its own domain, can put one there.
pub(super) fn cookie_name(is_https: bool) -> &'static str {
    if is_https { "__Host-longshore_oidc" } else { "longshore_oidc" }
}

/// Sets it; `Lax`, because the way back begins at the provider.
pub(super) fn cookie(kept: &str, life_s: u32, is_https: bool) -> Option<HeaderValue> {
    let (name, secure) = (cookie_name(is_https), if is_https { "; Secure" } else { "" });
    HeaderValue::try_from(format!("{name}={kept}; HttpOnly; SameSite=Lax; Path=/; Max-Age={life_s}{secure}")).ok()
}

/// Who an ID token says it is for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct IdClaims {
    iss: String,
    aud: Audience,
    azp: Option<String>,
    nonce: Option<String>,
}

/// Whether an ID token was made by this issuer, for this client and this sign-in (OpenID Connect Core 1.0, section 3.1.3.7). It came
/// from the token endpoint itself, so nobody else can have written it, and since it has our nonce it is not an old one. Where it
/// is to be the session, the API checks its signature and times, too.
pub(super) fn check_id_token(token: &str, issuer: &str, client_id: &str, nonce: &str) -> Result<(), &'static str> {
    let claims = claims_of(token).and_then(|claims| serde_json::from_value::<IdClaims>(claims).ok());
    let claims = claims.ok_or("the provider's ID token cannot be read")?;
    if claims.iss != issuer {
        return Err("the provider's ID token was made by somebody else");
    }
    let (is_for_us, is_for_others) = match &claims.aud {
        Audience::One(one) => (one == client_id, false),
        Audience::Many(many) => (many.iter().any(|one| one == client_id), many.len() > 1),
    };
    let is_ours = claims.azp.as_ref().map_or(!is_for_others, |party| party == client_id);
    if !is_for_us || !is_ours {
        return Err("the provider's ID token is for somebody else");
    }
    match claims.nonce {
        Some(said) if said == nonce => Ok(()),
        _ => Err("the provider's ID token is not of this sign-in"),
    }
}

/// What a token says, believed by nobody yet.
fn claims_of(token: &str) -> Option<Value> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// Whether a token has the form of one of this issuer's: what else a provider hands out means nothing to the API.
pub(super) fn names_issuer(token: &str, issuer: &str) -> bool {
    claims_of(token).is_some_and(|claims| claims["iss"] == *issuer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sign_in_is_kept_in_its_cookie_and_told_by_parts() {
        let flow = Flow::begin("/dashboard/jobs?state=dead".into());
        let again = Flow::of(&flow.kept()).unwrap();
        assert_eq!((again.state(), again.nonce(), again.verifier()), (flow.state(), flow.nonce(), flow.verifier()));
        assert_eq!(again.next, "/dashboard/jobs?state=dead");
        assert_ne!(flow.state(), Flow::begin("/dashboard".into()).state());
        // 43 characters are the least that RFC 7636 allows.
        assert_eq!(flow.verifier().len(), 43);
        let parts = [flow.state(), flow.nonce(), flow.verifier(), flow.challenge()];
        assert!(
            parts.iter().enumerate().all(|(at, part)| !parts[..at].contains(part) && !flow.kept().contains(&**part))
        );
        for wrong in ["", ".", "abc.abc", "a.b.c"] {
            assert!(Flow::of(wrong).is_none(), "{wrong}");
        }
        let elsewhere =
            format!("{}.{}", URL_SAFE_NO_PAD.encode([7; SEED_BYTES]), URL_SAFE_NO_PAD.encode("//evil.example/"));
        assert_eq!(Flow::of(&elsewhere).unwrap().next, "/dashboard");
    }

    #[test]
    fn the_provider_is_asked_for_a_code_with_a_challenge() {
        let flow = Flow::begin("/dashboard".into());
        let endpoint = "https://id.example/auth?tenant=x".parse().unwrap();
        let url = flow.address(endpoint, "me & you", "https://l.example/dashboard/oidc/callback", "openid email");
        let pairs: Vec<_> = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        let said =
            |name: &str| pairs.iter().filter(|(one, _)| one == name).map(|(_, value)| &**value).collect::<Vec<_>>();
        assert_eq!(
            (said("tenant"), said("client_id"), said("response_type")),
            (vec!["x"], vec!["me & you"], vec!["code"])
        );
        assert_eq!((said("scope"), said("code_challenge_method")), (vec!["openid email"], vec!["S256"]));
        assert!(!url.as_str().contains(&flow.verifier()));
        let known = URL_SAFE_NO_PAD.encode(Sha256::digest("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert_eq!(known, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "the example of RFC 7636, appendix B");
    }

    #[test]
    fn an_id_token_is_of_this_issuer_client_and_sign_in() {
        let token = |claims: Value| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let check = |claims: Value| check_id_token(&token(claims), "https://id.example", "us", "n");
        let good = json!({"iss": "https://id.example", "aud": "us", "nonce": "n"});
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        check(good.clone()).unwrap();
        check(with("aud", json!(["us"]))).unwrap();
        let mut both = with("aud", json!(["us", "them"]));
        both["azp"] = "us".into();
        check(both).unwrap();
        for wrong in [
            with("iss", json!("https://else.example")),
            with("aud", json!("them")),
            with("aud", json!([])),
            with("aud", json!(["us", "them"])),
            with("azp", json!("them")),
            with("nonce", json!("m")),
            with("nonce", Value::Null),
            json!({}),
        ] {
            assert!(check(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(check_id_token("opaque", "https://id.example", "us", "n").is_err());
    }

    #[test]
    fn the_cookie_of_a_sign_in_is_out_of_reach() {
        let plain = cookie("abc", LIFE_S, false).unwrap();
        assert_eq!(plain, "longshore_oidc=abc; HttpOnly; SameSite=Lax; Path=/; Max-Age=600");
        let over_tls = cookie("abc", LIFE_S, true).unwrap();
        assert_eq!(over_tls, "__Host-longshore_oidc=abc; HttpOnly; SameSite=Lax; Path=/; Max-Age=600; Secure");
    }
}
