//! Whose tokens are believed, and what our own are signed with.

use std::path::PathBuf;

use api::{IssuerRules, SigningKeys};
use dashboard::oidc::{Line, checked_url};
use queue_core::{ids::Name, journal::Role};
use reqwest::Url;
use secrecy::SecretString;

use super::file;
use crate::environment::Environment;

/// Where keys are that this process keeps to itself.
#[derive(Clone, Debug, Default)]
pub(crate) enum KeySource {
    /// Nobody said: `up` keeps one in its data folder.
    #[default]
    Unnamed,
    /// In the environment.
    Given(SecretString),
    /// In this file, which is read again when it changes.
    File(PathBuf),
}

/// Where an issuer's public keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySetPlace {
    /// In this file, which is read again when it changes.
    File(PathBuf),
    /// At this address.
    Url(Url),
    /// Where the issuer says itself (`/.well-known/openid-configuration`).
    Discovered,
}

/// Signing keys that are in the environment have to be right.
pub(super) fn signing_keys(env: &Environment, file: Option<PathBuf>) -> Result<KeySource, String> {
    if let Some(keys) = env.get("LONGSHORE_SIGNING_KEY") {
        SigningKeys::parse(keys).map_err(|reason| format!("LONGSHORE_SIGNING_KEY: {reason}"))?;
        return Ok(KeySource::Given(keys.into()));
    }
    let file = env.get("LONGSHORE_AUTH_SIGNING_KEY_FILE").map(PathBuf::from).or(file);
    Ok(file.map_or(KeySource::Unnamed, KeySource::File))
}

/// The issuers, each with the place of its public keys.
pub(super) fn issuers(listed: Vec<file::AuthIssuer>) -> Result<Vec<(IssuerRules, KeySetPlace)>, String> {
    let read = |one: file::AuthIssuer| {
        let place = format!("auth.issuers: `{}`", one.issuer);
        let keys = match (one.keys_file, one.keys_url) {
            (Some(_), Some(_)) => {
                return Err(format!("{place}: keys_file and keys_url are both set: keep one of them"));
            }
            (Some(file), None) => KeySetPlace::File(file),
            (None, Some(url)) => {
                KeySetPlace::Url(checked_url(&url).map_err(|reason| format!("{place}: keys_url: {reason}"))?)
            }
            (None, None) => {
                Line::to(&one.issuer).map_err(|reason| {
                    format!("{place}: {reason}; with keys_file or keys_url, it need not be asked for its keys")
                })?;
                KeySetPlace::Discovered
            }
        };
        let role = |word: String| {
            let known = || Role::ALL.map(Role::as_str).join(", ");
            Role::parse(&word).ok_or_else(|| format!("{place}: max_role is `{word}`; roles are {}", known()))
        };
        let tenant =
            |name: &String| Name::checked(name).map_err(|reason| format!("{place}: tenants: `{name}` {reason}"));
        if one.issuer.is_empty() || one.audience.is_empty() {
            return Err(format!("{place}: issuer and audience must not be empty"));
        }
        // Whoever may make admins is trusted with everything: that is said, not assumed.
        let max_role = one.max_role.map(role).transpose()?.unwrap_or(Role::Analyst);
        if !one.tenants.is_empty() && !max_role.is_tenant_bound() {
            let most = Role::Analyst;
            return Err(format!(
                "{place}: `{max_role}` is a role over all tenants; with `tenants`, max_role is at most `{most}`"
            ));
        }
        let rules = IssuerRules {
            tenants: one.tenants.iter().map(tenant).collect::<Result<_, _>>()?,
            max_role,
            issuer: one.issuer,
            audience: one.audience,
            tenant_claim: one.tenant_claim.unwrap_or_else(|| "tenant".to_owned()),
            role_claim: one.role_claim.unwrap_or_else(|| "role".to_owned()),
        };
        Ok((rules, keys))
    };
    listed.into_iter().map(read).collect()
}
