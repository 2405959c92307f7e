//! `longshore key …`: who may call the API.

use std::path::PathBuf;

use queue_core::time::Timestamp;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    commands::{
        Operator, parse_later,
        rates::{RATES, Rates, rates_of},
    },
    failure::{Exit, Failure, Outcome},
    output::{self, Output, cell, items},
    tokens,
};

/// Most pages that a list reads: 500 keys each.
const PAGES_MAX: usize = 200;

/// What can be done with API keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show keys, without their secrets
    List {
        /// Those of a tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Those that were taken back, too
        #[arg(long)]
        revoked: bool,
    },
    /// Make a key; its secret is shown once
    Create(New),
    /// Give a key another secret, which is shown once; the one before goes on for a while
    Rotate {
        /// Its public part: the 8 characters behind `lsk_`
        id: String,
        /// How long the secret before goes on [default: 24h]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<String>,
    },
    /// Say how often a key may ask, with all tokens that are made from it. What is not named stays as it is
    Limit {
        /// Its public part: the 8 characters behind `lsk_`
        id: String,
        #[command(flatten)]
        rates: Rates,
    },
    /// Take a key back, or all keys of a tenant; what they submitted goes on
    Revoke {
        #[command(flatten)]
        which: Which,
        /// Do it; without it, `--tenant` only shows which keys it would be
        #[arg(long, short)]
        yes: bool,
    },
    /// Trade the caller's key for a token that lives for a short time, for where a key must not be
    Token {
        /// How long it lives, at most 24h
        #[arg(long, value_name = "DURATION", default_value = "15m")]
        expires_in: String,
        /// Less than the key's own role
        #[arg(long)]
        role: Option<String>,
        /// Narrow it to this; several times for several
        #[arg(long = "scope", value_name = "AREA:ACT")]
        scopes: Vec<String>,
    },
    /// Take a token back before its end
    RevokeToken {
        /// Its id, as it says (`jti`)
        jti: String,
        /// Who made it, as it says (`iss`) [default: this installation]
        #[arg(long)]
        issuer: Option<String>,
    },
    /// Make a key that tokens are signed with: in a new file, before those of one (--add), or on the standard output
    SigningKey(SigningKey),
}

/// How to make a signing key.
#[derive(Debug, clap::Args)]
pub(crate) struct SigningKey {
    /// The file, which only its owner may read; without it the key is printed
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Put it before the keys that are in the file: it signs from now on, and tokens of the others are believed
    #[arg(long, requires = "file")]
    add: bool,
}

/// A new key.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// What it is for
    #[arg(long)]
    name: String,
    /// What it may do
    #[arg(long, value_name = "user|analyst|operator|admin", default_value = "user")]
    role: String,
    /// Whose [default: the tenant of the caller's key]
    #[arg(long)]
    tenant: Option<String>,
    /// Narrow it to this, such as `jobs:submit`, `jobs:*` or `*:read`; several times for several
    #[arg(long = "scope", value_name = "AREA:ACT")]
    scopes: Vec<String>,
    /// When it ends by itself: a time, or a duration from now such as 90d
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Requests that it may send in a minute [default: as its role may]
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Jobs that ask model providers and that it may submit in a minute [default: as its role may]
    #[arg(long, value_name = "N")]
    llm_submits_per_minute: Option<u32>,
}

/// Which keys are taken back.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The key with this public part
    id: Option<String>,
    /// All keys of this tenant
    #[arg(long)]
    tenant: Option<String>,
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List { tenant, revoked } => {
            let keys = all(operator, tenant, revoked).await?;
            operator.out.show(&json!({"keys": keys}), || table(&keys));
        }
        Verb::Create(new) => {
            let body = new.body().map_err(Failure::usage)?;
            let answer = operator.client.send_json(Method::POST, &["v1", "keys"], Some(&body)).await?;
            show_secret(operator, &answer.body);
        }
        Verb::Rotate { id, overlap } => {
            let body = overlap.map(|overlap| json!({"overlap": overlap}));
            let path = ["v1", "keys", &id, "rotate"];
            let answer = operator.client.send_json(Method::POST, &path, body.as_ref()).await?;
            show_secret(operator, &answer.body);
            if let (false, Some(until)) = (operator.out.json, answer.body["previous_until"].as_str()) {
                output::note(&format!("the secret before goes on until {until}"));
            }
        }
        Verb::Limit { id, rates } => {
            let path = ["v1", "keys", &id];
            let answer = operator.client.send_json(Method::PATCH, &path, Some(&rates.body())).await?;
            operator.out.show(&answer.body, || output::line(&format!("{id} may ask {}", rates_of(&answer.body))));
        }
        Verb::Revoke { which: Which { id: Some(id), .. }, .. } => {
            operator.client.send_json(Method::DELETE, &["v1", "keys", &id], None).await?;
            operator.out.show(&json!({"revoked": [id]}), || output::line(&format!("{id} opens nothing any more")));
        }
        Verb::Revoke { which: Which { tenant, .. }, yes } => {
            return revoke_all(operator, &tenant.unwrap_or_default(), yes).await;
        }
        Verb::Token { expires_in, role, scopes } => {
            let mut body = json!({"expires_in": expires_in});
            if let Some(role) = role {
                body["role"] = json!(role);
            }
            if !scopes.is_empty() {
                body["scopes"] = json!(scopes);
            }
            let answer = operator.client.send_json(Method::POST, &["v1", "auth", "token"], Some(&body)).await?;
            operator.out.show(&answer.body, || {
                output::line(&cell(&answer.body, "token"));
                let (until, jti) = (cell(&answer.body, "expires_at"), cell(&answer.body, "jti"));
                output::note(&format!("until {until}; `key revoke-token {jti}` ends it before"));
            });
        }
        Verb::RevokeToken { jti, issuer } => {
            let mut body = json!({"jti": jti});
            if let Some(issuer) = issuer {
                body["issuer"] = json!(issuer);
            }
            operator.client.send_json(Method::POST, &["v1", "auth", "revocations"], Some(&body)).await?;
            operator.out.show(&body, || output::line(&format!("{jti} opens nothing any more")));
        }
        Verb::SigningKey(args) => return signing_key(&args, operator.out),
    }
    Ok(Exit::Ok)
}

/// Makes a key that tokens are signed with; asks no server.
pub(crate) fn signing_key(SigningKey { file, add }: &SigningKey, out: Output) -> Outcome {
    let Some(path) = file else {
        let (key, name) = tokens::fresh()?;
        out.show(&json!({"key": key.expose_secret(), "kid": name}), || output::line(key.expose_secret()));
        return Ok(Exit::Ok);
    };
    let names = if *add { tokens::add(path)? } else { vec![tokens::create(path)?] };
    out.show(&json!({"file": path, "kids": names}), || {
        output::line(&format!("{} signs from now on ({})", names.first().map_or("", String::as_str), path.display()));
    });
    Ok(Exit::Ok)
}

impl New {
    fn body(self) -> Result<Value, String> {
        let mut body = json!({"name": self.name, "role": self.role});
        if let Some(tenant) = self.tenant {
            body["tenant"] = json!(tenant);
        }
        if !self.scopes.is_empty() {
            body["scopes"] = json!(self.scopes);
        }
        let rates = [(RATES[0], self.requests_per_minute), (RATES[1], self.llm_submits_per_minute)].into_iter();
        rates.filter_map(|(name, rate)| Some((name, rate?))).for_each(|(name, rate)| body[name] = json!(rate));
        if let Some(expires) = self.expires {
            let at: Timestamp = parse_later(&expires)?;
            body["expires_at"] = json!(at);
        }
        Ok(body)
    }
}

/// Every page of a list.
async fn all(operator: &Operator, tenant: Option<String>, revoked: bool) -> Result<Vec<Value>, Failure> {
    let (mut keys, mut cursor) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let query = [
            ("tenant", tenant.clone()),
            ("revoked", revoked.then(|| "true".to_owned())),
            ("limit", Some("500".to_owned())),
            ("cursor", cursor),
        ];
        let page = operator.client.get(&["v1", "keys"], &query).await?;
        keys.extend_from_slice(items(&page, "keys"));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(keys)
}

/// The secret alone on stdout, so that it can be piped to where it is kept.
fn show_secret(operator: &Operator, made: &Value) {
    operator.out.show(made, || {
        output::line(&cell(made, "key"));
        let (id, role, tenant) = (cell(made, "id"), cell(made, "role"), cell(made, "tenant"));
        output::note(&format!("key {id}: {role} of {tenant}. Keep it now; it is not shown again."));
    });
}

async fn revoke_all(operator: &Operator, tenant: &str, yes: bool) -> Outcome {
    if !yes {
        let keys = all(operator, Some(tenant.to_owned()), false).await?;
        let ids: Vec<String> = keys.iter().map(|key| cell(key, "id")).collect();
        operator.out.show(&json!({"dry_run": true, "tenant": tenant, "would_revoke": ids}), || {
            table(&keys);
            output::note(&format!("{} keys would be taken back; --yes does it", keys.len()));
        });
        return Ok(Exit::Ok);
    }
    let request = operator.client.request(Method::DELETE, &["v1", "keys"], &[("tenant", Some(tenant.to_owned()))]);
    let answer = operator.client.send(request).await?;
    operator.out.show(&answer.body, || {
        let ids = cell(&answer.body, "revoked");
        output::line(&if ids.is_empty() { format!("{tenant} had no key left") } else { format!("revoked: {ids}") });
    });
    Ok(Exit::Ok)
}

fn table(keys: &[Value]) {
    let names = ["id", "name", "role", "tenant", "scopes", "state", "expires_at", "last_used_at"];
    let row = |key: &Value| names.map(|name| cell(key, name)).into();
    let headers = ["ID", "NAME", "ROLE", "TENANT", "SCOPES", "STATE", "EXPIRES", "LAST USED"];
    output::table(&headers, keys.iter().map(row).collect());
}
