//! The keys behind tokens: our own, and those of issuers.

use std::{collections::HashMap, fmt};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use queue_core::{ids::Name, journal::Role};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// What every signing key begins with, so that scanners of leaked secrets can know it.
const PREFIX: &str = "ltk_";
/// Bytes of a key.
const SEED_BYTES: usize = 32;
/// Most signing keys at once: one that signs, and those whose tokens still live.
const SIGNING_MAX: usize = 8;
/// Most keys of an issuer that are kept.
const ISSUER_KEYS_MAX: usize = 32;
/// Shortest RSA key that is believed, in bytes of its modulus.
const RSA_MIN_BYTES: usize = 256;

/// A public key, and the one algorithm that it is for.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    pub(super) verifies: DecodingKey,
}

/// One of our own keys.
#[derive(Clone)]
pub(super) struct SigningKey {
    pub(super) kid: String,
    pub(super) signs: EncodingKey,
    verifies: VerifyingKey,
}

/// The installation's own keys: the first one signs, tokens of all are believed. They come from a file or the environment, the
/// same for every API process, and are never shown.
#[derive(Clone, Default)]
pub struct SigningKeys {
    keys: Vec<SigningKey>,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl SigningKeys {
    /// A fresh key as text, `ltk_` and 43 characters. Whoever gets it has to keep it.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<SecretString, String> {
        let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
        aws_lc_rs::rand::fill(&mut seed[..]).map_err(|_| "the system has no randomness".to_owned())?;
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 44));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&seed[..], &mut text);
        Ok(SecretString::from(text.as_str()))
    }

    /// Reads keys, one a line or separated by spaces; what follows a `#` is for people.
    ///
    /// # Errors
    /// Says which key is wrong, and not what it is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
        let read =
            |(at, word): (usize, &str)| SigningKey::parse(word).map_err(|why| format!("signing key {}: {why}", at + 1));
        let keys: Vec<SigningKey> = words.enumerate().map(read).collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err("there is no signing key in it".into()),
            many if many > SIGNING_MAX => Err(format!("{many} signing keys are too many; {SIGNING_MAX} are the most")),
            _ => Ok(Self { keys }),
        }
    }

    /// The names of the keys (`kid`), the one that signs first.
    pub fn ids(&self) -> Vec<&str> {
        self.keys.iter().map(|key| key.kid.as_str()).collect()
    }

    pub(super) fn current(&self) -> Option<&SigningKey> {
        self.keys.first()
    }

    pub(super) fn verifying(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.iter().find(|key| key.kid == kid).map(|key| &key.verifies)
    }
}

impl SigningKey {
    fn parse(word: &str) -> Result<Self, String> {
        let form = || format!("a signing key reads `{PREFIX}` and 43 characters");
        let text = word.strip_prefix(PREFIX).ok_or_else(form)?;
        let seed = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| form())?);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| form())?;
        let private = pair.to_pkcs8().map_err(|_| "it cannot be used for Ed25519".to_owned())?;
        let public = pair.public_key().as_ref();
        // The public key's own hash: a name that tells processes with different keys apart.
        let kid = blake3::hash(public).to_hex()[..16].to_owned();
        let verifies = VerifyingKey { algorithm: Algorithm::EdDSA, verifies: DecodingKey::from_ed_der(public) };
        Ok(Self { kid, signs: EncodingKey::from_ed_der(private.as_ref()), verifies })
    }
}

/// Somebody else whose tokens are believed, and how far.
#[derive(Clone, Debug)]
pub struct IssuerRules {
    /// Its `iss`.
    pub issuer: String,
    /// What its `aud` must name.
    pub audience: String,
    /// The claim with the tenant's name.
    pub tenant_claim: String,
    /// The claim with the role's word.
    pub role_claim: String,
    /// The most that it makes anybody.
    pub max_role: Role,
    /// Tenants that it speaks for; empty: all.
    pub tenants: Vec<Name>,
}

/// An issuer with its public keys.
#[derive(Clone)]
pub struct Issuer {
    pub(super) rules: IssuerRules,
    keys: HashMap<String, VerifyingKey>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("rules", &self.rules).field("keys", &self.keys.keys()).finish()
    }
}

impl Issuer {
    /// An issuer whose public keys stand in a JSON Web Key Set: Ed25519 (for EdDSA) and RSA of 2,048 bits or more (for RS256), each
    /// with a `kid`. Keys of other kinds are left out.
    ///
    /// # Errors
    /// It is no key set, it holds private keys, or there is no key in it that can be used.
    pub fn new(rules: IssuerRules, key_set: &str) -> Result<Self, String> {
        if rules.issuer == super::OWN {
            return Err(format!("`{}` is the issuer of this installation's own tokens", super::OWN));
        }
        let raw: serde_json::Value = serde_json::from_str(key_set).map_err(|_| "it is no JSON".to_owned())?;
        let listed = raw["keys"].as_array().ok_or("it is no JSON Web Key Set: there is no array `keys`")?;
        if listed.iter().any(|key| key.get("d").is_some() || key.get("k").is_some()) {
            return Err("it holds private or shared keys; only public ones belong into it".into());
        }
        let set: JwkSet = serde_json::from_str(key_set).map_err(|_| "its keys cannot be read".to_owned())?;
        let mut keys = HashMap::new();
        for (kid, key) in set.keys.iter().filter_map(usable).take(ISSUER_KEYS_MAX) {
            if keys.insert(kid.clone(), key).is_some() {
                return Err(format!("two of its keys are called `{kid}`"));
            }
        }
        if keys.is_empty() {
            return Err("none of its keys has a kid and is for EdDSA or RS256".into());
        }
        Ok(Self { rules, keys })
    }

    pub(super) fn key(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.get(kid)
    }
}

/// A key that can be used, with its name.
fn usable(key: &Jwk) -> Option<(String, VerifyingKey)> {
    let common = &key.common;
    if common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &key.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
            let length = modulus.iter().skip_while(|byte| **byte == 0).count();
            (length >= RSA_MIN_BYTES).then_some(Algorithm::RS256)?
        }
        _ => return None,
    };
    let is_for = |named: &KeyAlgorithm| match algorithm {
        Algorithm::EdDSA => *named == KeyAlgorithm::EdDSA,
        _ => *named == KeyAlgorithm::RS256,
    };
    if common.key_algorithm.as_ref().is_some_and(|named| !is_for(named)) {
        return None;
    }
    let verifies = DecodingKey::from_jwk(key).ok()?;
    Some((common.key_id.clone()?, VerifyingKey { algorithm, verifies }))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn signing_keys_are_read_and_never_shown() {
        let (a, b) = (SigningKeys::generate().unwrap(), SigningKeys::generate().unwrap());
        let text = format!("# keys\n{}\n{} # old\n", a.expose_secret(), b.expose_secret());
        let keys = SigningKeys::parse(&text).unwrap();
        assert_eq!(keys.ids().len(), 2);
        assert_eq!(SigningKeys::parse(b.expose_secret()).unwrap().ids(), keys.ids()[1..]);
        assert!(!format!("{keys:?}").contains(&a.expose_secret()[4..]));
        for wrong in ["", "# nothing", "lmk_abc", "ltk_abc", "ltk_!", &format!("{}x", a.expose_secret())] {
            let error = SigningKeys::parse(wrong).unwrap_err();
            assert!(!error.contains(&a.expose_secret()[4..]), "{error}");
        }
    }

    #[test]
    fn a_key_set_is_believed_for_its_public_keys_only() {
        let rules = || IssuerRules {
            issuer: "https://id.example/".into(),
            audience: "longshore".into(),
            tenant_claim: "tenant".into(),
            role_claim: "role".into(),
            max_role: Role::Analyst,
            tenants: vec![],
        };
        let ed = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let named =
            |name: &str, value: &str| ed.replace("\"kid\":\"a\"", &format!("\"kid\":\"a\",\"{name}\":\"{value}\""));
        let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        assert!(Issuer::new(rules(), &set(&[ed])).is_ok());
        assert!(Issuer::new(rules(), &set(&[&named("alg", "EdDSA")])).is_ok());
        let short = r#"{"kty":"RSA","kid":"r","e":"AQAB","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri"}"#;
        for wrong in [
            "[]".to_owned(),
            "{}".to_owned(),
            set(&[]),
            set(&[&ed.replace("\"kid\":\"a\",", "")]),
            set(&[&named("d", "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")]),
            set(&[&named("use", "enc")]),
            set(&[&named("alg", "RS256")]),
            set(&[ed, ed]),
            set(&[short]),
            set(&[r#"{"kty":"oct","kid":"s","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}"#]),
        ] {
            assert!(Issuer::new(rules(), &wrong).is_err(), "{wrong}");
        }
        assert!(Issuer::new(IssuerRules { issuer: "longshore".into(), ..rules() }, &set(&[ed])).is_err());
    }
}
