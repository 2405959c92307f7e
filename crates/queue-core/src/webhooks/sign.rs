//! Signatures of messages, as standardwebhooks.com has them: HMAC-SHA256 over `id.timestamp.body`, in base64, one for each
//! secret that is valid, so that receivers can change theirs without losing a message.

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{
    egress::{HeaderMap, HeaderName, HeaderValue},
    time::Timestamp,
};

/// What every signing secret begins with.
const PREFIX: &str = "whsec_";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// A fresh secret as text, `whsec_` and base64. `None`: the operating system gives no randomness.
pub fn generate() -> Option<SecretString> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    rand::fill(&mut bytes[..]).ok()?;
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 44));
    text.push_str(PREFIX);
    STANDARD.encode_string(&bytes[..], &mut text);
    Some(SecretString::from(text.as_str()))
}

/// The secret that a tenant's `http` jobs are signed with. Whoever may submit jobs chooses what they say: signed with the
/// secret of our own messages, they could pass for them.
pub fn for_jobs(secret: &SecretString) -> Option<SecretString> {
    let key = Zeroizing::new(STANDARD.decode(secret.expose_secret().strip_prefix(PREFIX)?).ok()?);
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), b"longshore http jobs 1");
    Some(SecretString::from(format!("{PREFIX}{}", STANDARD.encode(derived))))
}

/// The value of `webhook-signature`: one signature for each secret. A secret that is none signs nothing.
pub fn signature(secrets: &[SecretString], id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let mut signatures = Vec::new();
    for secret in secrets {
        let Some(encoded) = secret.expose_secret().strip_prefix(PREFIX) else { continue };
        let Ok(key) = STANDARD.decode(encoded).map(Zeroizing::new) else { continue };
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
        context.update(format!("{id}.{timestamp_s}.").as_bytes());
        context.update(body);
        signatures.push(format!("v1,{}", STANDARD.encode(context.sign())));
    }
    signatures.join(" ")
}

/// The headers of a signed message of JSON. `None`: nothing of it can stand in a header.
pub fn request_headers(secrets: &[SecretString], id: &str, at: Timestamp, body: &[u8]) -> Option<HeaderMap> {
    let timestamp_s = at.0 / 1_000;
    let values = [
        ("content-type", "application/json".to_owned()),
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp_s.to_string()),
        ("webhook-signature", signature(secrets, id, timestamp_s, body)),
    ];
    let header = |(name, value): (&'static str, String)| {
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
    };
    values.into_iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // The example of the Standard Webhooks specification's reference libraries.
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = signature(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_valid_secret_signs() {
        let secrets = [generate().unwrap(), generate().unwrap()];
        let both = signature(&secrets, "msg_1", 7, b"x");
        let each: Vec<_> = secrets.iter().map(|one| signature(std::slice::from_ref(one), "msg_1", 7, b"x")).collect();
        assert_eq!(both, each.join(" "));
        assert_ne!(each[0], each[1]);
        assert_eq!(signature(&["no secret".into()], "msg_1", 7, b"x"), "");
    }
}
