//! The envelope: each secret is encrypted by a data key of its own (AES-256-GCM), and that by a master key.
//!
//! Both encryptions authenticate whose secret it is, for whom and in which version, so that what was sealed for one row
//! opens in no other. A new master key encrypts data keys anew and touches no secret; master keys that are not the first of
//! the list go on opening what they sealed.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Sealed;

/// What every master key begins with, so that scanners of leaked secrets can know it.
const PREFIX: &str = "lmk_";
/// Bytes of a master key and of a data key.
const KEY_BYTES: usize = 32;
/// Bytes of a master key's hash that name it: 2^48 names are enough for the few keys of an installation.
const ID_BYTES: usize = 6;
/// Master keys at most: the current one, and those before it until everything is rewrapped.
const KEYS_MAX: usize = 16;

/// Whose secret it is: what both encryptions authenticate.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// For whom.
    pub provider: &'a str,
    /// Its version.
    pub version: i64,
}

impl Name<'_> {
    /// The authenticated data of one of the two encryptions. Each part with its length: no two names have the same.
    fn authenticated(&self, what: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [what, self.tenant.as_bytes(), self.provider.as_bytes(), &self.version.to_be_bytes()] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }
}

/// What the encryption of a secret authenticates first, so that neither ciphertext can stand in for the other.
const SECRET: &[u8] = b"longshore credential secret 1";
/// The same for that of a data key.
const DATA_KEY: &[u8] = b"longshore credential data key 1";

/// Why a secret cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no master key here at all.
    #[error("there is no master key here")]
    NoMasterKey,
    /// There is, but not the one that it needs.
    #[error("the master key {0} is not here")]
    Missing(String),
    /// It does not open: it was sealed for another row or version, or it was changed.
    #[error("it was sealed for another credential, or changed since (master key {0})")]
    Forged(String),
    /// The operating system gives no randomness, or the like.
    #[error("it could not be encrypted")]
    Failed,
}

/// The master keys of a process. The first seals, all of them open.
#[derive(Clone, Default)]
pub struct MasterKeys {
    keys: Vec<MasterKey>,
}

#[derive(Clone)]
struct MasterKey {
    id: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl MasterKeys {
    /// A fresh key as text, `lmk_` and 43 characters. Whoever gets it has to keep it.
    pub fn generate() -> Result<SecretString, SealError> {
        let bytes = random::<KEY_BYTES>()?;
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 44));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&bytes[..], &mut text);
        Ok(SecretString::from(text.as_str()))
    }

    /// Reads keys, one a line or separated by spaces; what follows a `#` is for people. The error says which key is wrong,
    /// and not what it is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
        let mut keys: Vec<MasterKey> = Vec::new();
        for (number, word) in words.enumerate() {
            let key = MasterKey::parse(word).map_err(|reason| format!("master key {}: {reason}", number + 1))?;
            if keys.iter().all(|known| known.id != key.id) {
                keys.push(key);
            }
        }
        match keys.len() {
            0 => Err("there is no master key in it".into()),
            many if many > KEYS_MAX => Err(format!("{many} master keys are too many; {KEYS_MAX} are the most")),
            _ => Ok(Self { keys }),
        }
    }

    /// The names of the keys, the current one first.
    pub fn ids(&self) -> Vec<&str> {
        self.keys.iter().map(|key| key.id.as_str()).collect()
    }

    /// The name of the key that seals.
    pub fn current(&self) -> Option<&str> {
        self.keys.first().map(|key| key.id.as_str())
    }

    /// Seals a secret.
    pub fn seal(&self, name: Name<'_>, secret: &SecretString) -> Result<Sealed, SealError> {
        let data_key = random::<KEY_BYTES>()?;
        let ciphertext = encrypt(&data_key, &name.authenticated(SECRET), secret.expose_secret().as_bytes())?;
        let (kek_id, wrapped_key) = self.wrap(name, &data_key)?;
        Ok(Sealed { kek_id, wrapped_key, ciphertext })
    }

    /// Opens a secret.
    pub fn open(&self, name: Name<'_>, sealed: &Sealed) -> Result<SecretString, SealError> {
        let data_key = self.unwrap(name, sealed)?;
        let forged = || SealError::Forged(sealed.kek_id.clone());
        let plain = decrypt(&data_key, &name.authenticated(SECRET), &sealed.ciphertext).ok_or_else(forged)?;
        std::str::from_utf8(&plain).map(SecretString::from).map_err(|_| forged())
    }

    /// Whether a secret is this one's and its master key is here. Opens the data key and not the secret.
    pub fn check(&self, name: Name<'_>, sealed: &Sealed) -> Result<(), SealError> {
        self.unwrap(name, sealed).map(drop)
    }

    /// The same secret with its data key wrapped by the current master key; `None` where that is so already.
    pub fn rewrap(&self, name: Name<'_>, sealed: &Sealed) -> Result<Option<Sealed>, SealError> {
        if self.current() == Some(sealed.kek_id.as_str()) {
            return Ok(None);
        }
        let (kek_id, wrapped_key) = self.wrap(name, &*self.unwrap(name, sealed)?)?;
        Ok(Some(Sealed { kek_id, wrapped_key, ciphertext: sealed.ciphertext.clone() }))
    }

    fn wrap(&self, name: Name<'_>, data_key: &[u8; KEY_BYTES]) -> Result<(String, Vec<u8>), SealError> {
        let master = self.keys.first().ok_or(SealError::NoMasterKey)?;
        Ok((master.id.clone(), encrypt(&master.bytes, &name.authenticated(DATA_KEY), data_key)?))
    }

    fn unwrap(&self, name: Name<'_>, sealed: &Sealed) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
        let kek_id = &sealed.kek_id;
        let missing = || if self.keys.is_empty() { SealError::NoMasterKey } else { SealError::Missing(kek_id.clone()) };
        let master = self.keys.iter().find(|key| key.id == *kek_id).ok_or_else(missing)?;
        let plain = decrypt(&master.bytes, &name.authenticated(DATA_KEY), &sealed.wrapped_key);
        let plain = plain.and_then(|plain| plain[..].try_into().ok());
        plain.map(Zeroizing::new).ok_or_else(|| SealError::Forged(kek_id.clone()))
    }
}

impl MasterKey {
    fn parse(word: &str) -> Result<Self, String> {
        let wrong = || format!("a master key reads `{PREFIX}` and 43 letters, digits, `-` and `_`");
        let text = word.strip_prefix(PREFIX).ok_or_else(wrong)?;
        let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?);
        let bytes: [u8; KEY_BYTES] = decoded[..].try_into().map_err(|_| wrong())?;
        let bytes = Zeroizing::new(bytes);
        // From the key itself: a key that was copied wrongly is another one, and is told apart.
        let hash = Sha256::new().chain_update(b"longshore master key 1").chain_update(&bytes[..]).finalize();
        let id = crate::hex::of(&hash[..ID_BYTES]);
        Ok(Self { id, bytes })
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, SealError> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(&mut bytes[..]).map_err(|_| SealError::Failed)?;
    Ok(bytes)
}

fn cipher(key: &[u8; KEY_BYTES]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

/// A random nonce of 96 bits, then ciphertext and tag. A data key encrypts once, a master key once for each secret and
/// rewrap: far from the 2^32 for which random nonces are good.
fn encrypt(key: &[u8; KEY_BYTES], authenticated: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = random::<NONCE_LEN>()?;
    let mut whole = nonce.to_vec();
    let mut text = plain.to_vec();
    let sealing = cipher(key).ok_or(SealError::Failed)?;
    // In place: what was plain is overwritten.
    sealing
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(authenticated), &mut text)
        .map_err(|_| SealError::Failed)?;
    whole.append(&mut text);
    Ok(whole)
}

fn decrypt(key: &[u8; KEY_BYTES], authenticated: &[u8], whole: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, text) = whole.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = Zeroizing::new(text.to_vec());
    let plain = cipher(key)?.open_in_place(nonce, Aad::from(authenticated), &mut text).ok()?.len();
    text.truncate(plain);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET_TEXT: &str = "sk-canary-0123456789";
    const ACME: Name<'_> = Name { tenant: "acme", provider: "openai", version: 3 };

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|_| MasterKeys::generate().unwrap().expose_secret().to_owned()).collect()
    }

    fn opened(keys: &MasterKeys, name: Name<'_>, sealed: &Sealed) -> Result<String, SealError> {
        keys.open(name, sealed).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn what_is_sealed_opens_and_shows_nothing() {
        let master = MasterKeys::parse(&keys(1)[0]).unwrap();
        let sealed = master.seal(ACME, &SECRET_TEXT.into()).unwrap();
        assert_eq!(opened(&master, ACME, &sealed).unwrap(), SECRET_TEXT);
        let again = master.seal(ACME, &SECRET_TEXT.into()).unwrap();
        assert!(
            again.ciphertext != sealed.ciphertext && again.wrapped_key != sealed.wrapped_key,
            "fresh keys and nonces"
        );
        let secret = master.open(ACME, &sealed).unwrap();
        for shown in [format!("{sealed:?}"), format!("{master:?}"), format!("{secret:?}")] {
            assert!(!shown.contains("canary") && !shown.contains(PREFIX), "{shown}");
        }
        assert!(!sealed.ciphertext.windows(6).any(|bytes| bytes == b"canary"));
    }

    #[test]
    fn a_swapped_row_does_not_open() {
        let master = MasterKeys::parse(&keys(1)[0]).unwrap();
        let sealed = master.seal(ACME, &SECRET_TEXT.into()).unwrap();
        let forged = Err(SealError::Forged(sealed.kek_id.clone()));
        for other in [
            Name { tenant: "globex", ..ACME },
            Name { provider: "azure", ..ACME },
            Name { version: 4, ..ACME },
            // The same letters, cut elsewhere.
            Name { tenant: "acmeo", provider: "penai", ..ACME },
        ] {
            assert_eq!(opened(&master, other, &sealed), forged, "{other:?}");
            assert!(master.rewrap(other, &Sealed { kek_id: "x".into(), ..sealed.clone() }).is_err());
        }
        // The data key of one row and the ciphertext of another; the two parts exchanged; a changed bit; nothing at all.
        let other = master.seal(ACME, &"other".into()).unwrap();
        let mut bent = sealed.clone();
        bent.ciphertext[20] ^= 1;
        for wrong in [
            Sealed { wrapped_key: other.wrapped_key.clone(), ..sealed.clone() },
            Sealed { wrapped_key: sealed.ciphertext.clone(), ciphertext: sealed.wrapped_key.clone(), ..sealed.clone() },
            bent,
            Sealed { ciphertext: vec![], ..sealed.clone() },
            Sealed { wrapped_key: vec![0; 11], ..sealed.clone() },
        ] {
            assert_eq!(opened(&master, ACME, &wrong), forged);
        }
    }

    #[test]
    fn a_new_master_key_takes_over_and_touches_no_secret() {
        let [old, new] = &keys(2)[..] else { panic!("two keys") };
        let before = MasterKeys::parse(old).unwrap();
        let sealed = before.seal(ACME, &SECRET_TEXT.into()).unwrap();
        let both = MasterKeys::parse(&format!("# new\n{new}\n{old} # until all is rewrapped\n")).unwrap();
        assert_eq!(both.ids().len(), 2);
        assert_eq!(opened(&both, ACME, &sealed).unwrap(), SECRET_TEXT, "the old one still opens");
        let rewrapped = both.rewrap(ACME, &sealed).unwrap().unwrap();
        assert_eq!(rewrapped.ciphertext, sealed.ciphertext);
        assert_eq!(both.rewrap(ACME, &rewrapped).unwrap(), None, "twice is once");
        let after = MasterKeys::parse(new).unwrap();
        assert_eq!(opened(&after, ACME, &rewrapped).unwrap(), SECRET_TEXT);
        assert_eq!(opened(&after, ACME, &sealed), Err(SealError::Missing(before.current().unwrap().to_owned())));
        assert_eq!(opened(&MasterKeys::default(), ACME, &sealed), Err(SealError::NoMasterKey));
        assert_eq!(MasterKeys::default().seal(ACME, &"x".into()).err(), Some(SealError::NoMasterKey));
    }

    #[test]
    fn what_is_no_master_key_is_refused_without_being_repeated() {
        let good = &keys(1)[0];
        for text in ["", "# nothing", "lmk_", "lmk_hush", &good[4..], &good[..46], &format!("{good}x")] {
            let error = MasterKeys::parse(text).unwrap_err();
            assert!(!error.contains("hush") && (text.len() < 10 || !error.contains(&text[4..])), "{error}");
        }
        let error = MasterKeys::parse(&format!("{good} lmk_hush")).unwrap_err();
        assert!(error.contains("master key 2"), "{error}");
        assert_eq!(MasterKeys::parse(&format!("{good} {good}")).unwrap().ids().len(), 1);
    }
}
