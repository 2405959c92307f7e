//! `longshore credential …`: tenants' own provider keys, and the master keys that they are kept with.
//!
//! A key is read from a file, a variable or the standard input, never from the command line: that is everybody's to read.

use std::{
    io::{IsTerminal, Read},
    path::PathBuf,
};

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    data,
    environment::Environment,
    failure::{Exit, Failure, Outcome},
    master_keys,
    output::{self, Output, cell, items},
};

/// Longest key that is read from the standard input, in bytes: the server's own bound is below it.
const KEY_MAX_BYTES: u64 = 4_096;

/// What can be done with credentials.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Set a tenant's key for a provider, or replace it; the key comes from the standard input unless named otherwise
    Set {
        /// Whose
        tenant: String,
        /// For whom, as the configuration names the provider
        provider: String,
        /// A file with the key in it
        #[arg(long, value_name = "FILE", conflicts_with = "from_env")]
        from_file: Option<PathBuf>,
        /// A variable with the key in it
        #[arg(long, value_name = "NAME")]
        from_env: Option<String>,
    },
    /// Show which keys a tenant has; the keys themselves are never shown
    List {
        /// Whose
        tenant: String,
    },
    /// Delete a tenant's key for a provider
    Delete {
        /// Whose
        tenant: String,
        /// For whom
        provider: String,
    },
    /// Use a key again that was disabled, and forget its refusals
    Enable {
        /// Whose
        tenant: String,
        /// For whom
        provider: String,
    },
    /// Use a key no more, and keep it
    Disable {
        /// Whose
        tenant: String,
        /// For whom
        provider: String,
        /// Why, for those who ask `job why`
        #[arg(long)]
        reason: Option<String>,
    },
    /// Say what a tenant may do without a usable key of its own
    Policy {
        /// Whose
        tenant: String,
        /// What
        policy: Policy,
    },
    /// Keep all keys with the current master key; may be broken off, and done twice
    Rewrap,
    /// Show which keys cannot be read, and for want of which master key
    Check,
    /// Make a master key: in a new file, before those of one (--add), or on the standard output
    MasterKey(MasterKey),
}

/// How to make a master key.
#[derive(Debug, clap::Args)]
pub(crate) struct MasterKey {
    /// The file, which only its owner may read; without it the key is printed
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Put it before the keys that are in the file: it keeps what is set from now on, and `credential rewrap` the rest
    #[arg(long, requires = "file")]
    add: bool,
}

/// What a tenant without a usable key of its own may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Policy {
    /// Wait for one; the operator's is never used
    OwnOnly,
    /// Use the operator's
    OwnThenDefault,
    /// Use the operator's always
    Default,
}

impl Policy {
    fn word(self) -> &'static str {
        match self {
            Self::OwnOnly => "own_only",
            Self::OwnThenDefault => "own_then_default",
            Self::Default => "default",
        }
    }
}

/// Runs one of those that ask a server.
pub(crate) async fn run(operator: &Operator, env: &Environment, verb: Verb) -> Outcome {
    match verb {
        Verb::Set { tenant, provider, from_file, from_env } => {
            let key = key(env, from_file, from_env, operator.out)?;
            let body = json!({"key": key.expose_secret()});
            change(operator, Method::PUT, &tenant, &provider, Some(&body), "set").await
        }
        Verb::List { tenant } => list(operator, &tenant).await,
        Verb::Delete { tenant, provider } => {
            change(operator, Method::DELETE, &tenant, &provider, None, "deleted").await
        }
        Verb::Enable { tenant, provider } => {
            change(operator, Method::PATCH, &tenant, &provider, Some(&json!({"enabled": true})), "enabled").await
        }
        Verb::Disable { tenant, provider, reason } => {
            let mut body = json!({"enabled": false});
            if let Some(reason) = reason {
                body["reason"] = json!(reason);
            }
            change(operator, Method::PATCH, &tenant, &provider, Some(&body), "disabled").await
        }
        Verb::Policy { tenant, policy } => {
            let body = json!({"credential_policy": policy.word()});
            let answer = operator.client.send_json(Method::PATCH, &["v1", "tenants", &tenant], Some(&body)).await?;
            operator.out.show(&answer.body, || output::line(&format!("{tenant}: {}", policy.word())));
            Ok(Exit::Ok)
        }
        Verb::Rewrap => rewrap(operator).await,
        Verb::Check => check(operator).await,
        Verb::MasterKey(args) => master_key(&args, operator.out),
    }
}

/// The key, from where it is.
fn key(
    env: &Environment,
    file: Option<PathBuf>,
    variable: Option<String>,
    out: Output,
) -> Result<SecretString, Failure> {
    let text = match (file, variable) {
        (Some(path), _) => data::read_small(&path)
            .map_err(|error| Failure::usage(format!("cannot read the key file {}: {error}", path.display())))?,
        (None, Some(name)) => env
            .get(&name)
            .map(str::to_owned)
            .ok_or_else(|| Failure::usage(format!("the variable {name} is not set")))?,
        (None, None) => {
            if std::io::stdin().is_terminal() && !out.json {
                output::note("paste the key and end with Ctrl-D");
            }
            let mut text = String::new();
            std::io::stdin().take(KEY_MAX_BYTES).read_to_string(&mut text)?;
            text
        }
    };
    match text.trim() {
        "" => Err(Failure::usage("the key is empty".to_owned())),
        key => Ok(key.into()),
    }
}

async fn change(
    operator: &Operator,
    method: Method,
    tenant: &str,
    provider: &str,
    body: Option<&Value>,
    done: &str,
) -> Outcome {
    let path = ["v1", "tenants", tenant, "credentials", provider];
    let answer = operator.client.send_json(method, &path, body).await?;
    operator.out.show(&answer.body, || output::line(&format!("the key of {tenant} for {provider} is {done}")));
    Ok(Exit::Ok)
}

async fn list(operator: &Operator, tenant: &str) -> Outcome {
    let body = operator.client.get(&["v1", "tenants", tenant, "credentials"], &[]).await?;
    operator.out.show(&body, || {
        let row = |one: &Value| {
            let names = ["provider", "state", "last4", "version", "kek_id", "readable", "failures", "rotated_at"];
            let mut cells: Vec<String> = names.map(|name| cell(one, name)).into();
            cells.push(cell(one, "last_used_at"));
            cells.push(output::plain(&cell(one, "reason")));
            cells
        };
        let headers =
            ["PROVIDER", "STATE", "ENDS IN", ">VERSION", "MASTER KEY", "READABLE", ">REFUSED", "SET", "USED", "REASON"];
        output::table(&headers, items(&body, "credentials").iter().map(row).collect());
        output::line(&format!("policy: {}", cell(&body, "credential_policy")));
    });
    Ok(Exit::Ok)
}

/// Asks for one bounded step after the other, until nothing is left but what cannot be read.
async fn rewrap(operator: &Operator) -> Outcome {
    let number = |body: &Value, name: &str| body.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (mut done, mut idle) = (0, 0);
    loop {
        let step = operator.client.send_json(Method::POST, &["v1", "credentials", "rewrap"], None).await?.body;
        done += number(&step, "done");
        let (left, unreadable) = (number(&step, "left"), number(&step, "unreadable"));
        // Somebody else may be at it as well; but a server that never does anything is not asked for ever.
        idle = if number(&step, "done") == 0 { idle + 1 } else { 0 };
        if left > unreadable && idle < IDLE_STEPS_MAX {
            continue;
        }
        let master_key = cell(&step, "master_key");
        let told = json!({"done": done, "left": left, "unreadable": unreadable, "master_key": master_key});
        operator.out.show(&told, || {
            output::line(&format!("{done} keys more are kept with the master key {master_key} now"));
            if left > 0 {
                output::line(&format!("{left} are not, {unreadable} of them cannot be read; see `credential check`"));
            }
        });
        return Ok(if left > 0 { Exit::Partial } else { Exit::Ok });
    }
}

/// Steps of a rewrap in a row that did nothing.
const IDLE_STEPS_MAX: u32 = 10;

async fn check(operator: &Operator) -> Outcome {
    let body = operator.client.get(&["v1", "credentials"], &[]).await?;
    let unread = items(&body, "unreadable_credentials");
    operator.out.show(&body, || {
        let pairs = ["credentials", "disabled", "to_rewrap", "unreadable"];
        let mut pairs: Vec<(&str, String)> = pairs.map(|name| (name, cell(&body, name))).into();
        let names: Vec<_> = items(&body, "master_keys").iter().filter_map(Value::as_str).collect();
        pairs.push(("master keys", names.join(", ")));
        pairs.push(("trouble", cell(&body, "trouble")));
        output::fields(&pairs);
        if !unread.is_empty() {
            let row = |one: &Value| ["tenant", "provider", "kek_id", "reason"].map(|name| cell(one, name)).to_vec();
            output::table(&["TENANT", "PROVIDER", "MASTER KEY", "WHY"], unread.iter().map(row).collect());
        }
    });
    Ok(if unread.is_empty() && cell(&body, "trouble").is_empty() { Exit::Ok } else { Exit::Error })
}

/// Makes a master key. Asks no server.
pub(crate) fn master_key(args: &MasterKey, out: Output) -> Outcome {
    match (&args.file, args.add) {
        (None, _) => {
            let (key, name) = master_keys::fresh()?;
            let shown = key.expose_secret();
            out.show(&json!({"master_key": shown, "kek_id": name}), || output::line(shown));
        }
        (Some(path), false) => {
            let name = master_keys::create(path)?;
            let told = json!({"file": path.display().to_string(), "master_keys": [name]});
            out.show(&told, || {
                output::line(&format!("{}: master key {name}; keep a copy of it elsewhere", path.display()));
            });
        }
        (Some(path), true) => {
            let names = master_keys::add(path)?;
            out.show(&json!({"file": path.display().to_string(), "master_keys": names}), || {
                output::line(&format!(
                    "{}: master keys {}; the first one keeps what is set from now on, `longshore credential rewrap` the rest",
                    path.display(),
                    names.join(", ")
                ));
            });
        }
    }
    Ok(Exit::Ok)
}
