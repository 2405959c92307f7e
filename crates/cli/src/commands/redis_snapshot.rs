//! `longshore backup redis-snapshot`: what Redis holds at this moment, by its own means, for whoever wants to look at it later.
//!
//! No backup needs it. Everything that Redis knows is made again from the journal at the beginning of a life; a snapshot that is put
//! back beside another state of the journal would only be thrown away.

use std::{io, path::Path, process::Command};

use secrecy::ExposeSecret;
use serde_json::json;

use crate::{
    config::Dispatcher,
    failure::{Exit, Failure, Outcome},
    output::{self, Output},
};

/// Writes a new file.
pub(crate) fn keep(dispatcher: &Dispatcher, file: &Path, out: Output) -> Outcome {
    let Dispatcher::Redis(redis) = dispatcher else {
        return Err(Failure::usage("the dispatcher is the memory of one process: there is no Redis"));
    };
    let refused = || Failure::usage("a snapshot is of one server: the dispatcher's URL must be redis:// or rediss://");
    let mut url: reqwest::Url = redis.url.expose_secret().parse().map_err(|_| refused())?;
    if !matches!(url.scheme(), "redis" | "rediss") {
        return Err(refused());
    }
    if file.exists() {
        return Err(Failure::usage(format!("{} is there already", file.display())));
    }
    let password = url.password().map(str::to_owned);
    let _ = url.set_password(None);
    let mut command = Command::new("redis-cli");
    command.args(["--no-auth-warning", "-u", url.as_str(), "--rdb"]).arg(file);
    if let Some(password) = password {
        // Not as an argument: everybody on the machine sees those.
        command.env("REDISCLI_AUTH", password);
    }
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::error("there is no redis-cli on this machine: install it (`apt-get install redis-tools`)")
        }
        _ => Failure::error(format!("redis-cli: {error}")),
    })?;
    // It says what went wrong and ends well.
    let bytes = std::fs::metadata(file).map(|facts| facts.len()).unwrap_or_default();
    if !output.status.success() || bytes == 0 {
        let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(Failure::error(format!("redis-cli: {said}")));
    }
    out.show(&json!({"file": file, "bytes": bytes}), || {
        output::line(&format!("{} has {bytes} bytes; no restore needs it", file.display()));
    });
    Ok(Exit::Ok)
}
