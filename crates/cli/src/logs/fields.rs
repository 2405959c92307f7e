//! The fields that a line of the log may have. Whoever logs something new adds its name here, and asks first whether it may hold a
//! prompt, a key, or anything else that is somebody's; a test names fields that are missing. `timestamp`, `level`, `message` and `module`
//! are the line's own.

/// Members that stand in front, in this order.
pub(super) const FIRST: [&str; 4] = ["request_id", "trace_id", "job_id", "tenant"];

/// The others. Words of users are among them where users name things (queues, operations, models), and what a store or a provider
/// says of a failure, from which prompts and keys were taken out where it was read.
#[rustfmt::skip] // sorted, and as many on a line as there is room
const OTHERS: &[&str] = &[
    "action", "actor", "after_bytes", "after_ms", "again", "alert", "attempt", "backup", "before_bytes", "begun",
    "broken", "budget", "by", "bytes", "calls", "certificate", "check", "chore", "circuit", "claims", "class", "client",
    "clock", "code", "cost_usd", "day", "deleted", "detail", "done", "drain", "drop_ms", "dropped", "duration_ms",
    "enabled", "endpoint", "epoch", "error", "error_class", "error_code", "event", "failed", "failures", "files",
    "filter", "from", "given_up", "is_credible", "issuer", "issuers", "jobs", "kept", "key_id", "keys", "kind", "lane",
    "life", "limit", "maintenance", "master_keys", "method", "model", "object", "objects", "on", "operation",
    "operations", "order", "other", "outcome", "owner", "panic", "part", "partitions", "path", "pause_ms", "paused",
    "percent", "period", "problem", "provider", "pseudonym", "queue", "reason", "redis", "requests", "role", "route",
    "rows", "schedule", "scope", "seconds", "signing_keys", "skipped", "spent", "state", "status", "step", "subject",
    "table", "target", "tenants", "ticks", "to", "tokens", "tokens_in", "tokens_out", "took_ms", "trouble", "until",
    "usage", "version", "wait_ms", "webhook", "webhook_id", "what", "why", "workers",
];

/// Whether a line may have it.
pub(super) fn is_allowed(name: &str) -> bool {
    FIRST.contains(&name) || OTHERS.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::{Path, PathBuf},
    };

    use super::*;

    /// What begins an event or a span in our sources.
    const MACROS: [&str; 10] = [
        "tracing::trace!(",
        "tracing::debug!(",
        "tracing::info!(",
        "tracing::warn!(",
        "tracing::error!(",
        "tracing::trace_span!(",
        "tracing::debug_span!(",
        "tracing::info_span!(",
        "tracing::warn_span!(",
        "tracing::error_span!(",
    ];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The arguments of a macro whose opening parenthesis is behind `text`, up to its message.
    fn arguments(text: &str) -> Vec<String> {
        let (mut found, mut one, mut depth, mut quoted) = (Vec::new(), String::new(), 0, false);
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' if quoted => {
                    letters.next();
                }
                '"' => {
                    quoted = !quoted;
                    one.push('"');
                }
                _ if quoted => {}
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => break,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => found.push(std::mem::take(&mut one)),
                _ if depth == 0 => one.push(letter),
                _ => {}
            }
        }
        found.push(one);
        found.into_iter().map(|one| one.trim().to_owned()).take_while(|one| !one.starts_with('"')).collect()
    }

    /// `name = value`, `%name`, `?name` or `name`.
    fn name_of(argument: &str) -> String {
        let name = argument.split('=').next().unwrap_or_default().trim();
        name.trim_start_matches(['%', '?']).to_owned()
    }

    #[test]
    fn every_field_of_our_events_and_spans_is_listed() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = Vec::new();
        for member in ["api", "cli", "queue-core", "scheduler", "worker"] {
            sources(&crates.join(member).join("src"), &mut files);
        }
        let (mut used, mut missing) = (BTreeSet::new(), Vec::new());
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for start in MACROS.iter().flat_map(|name| product.match_indices(name).map(|(at, _)| at + name.len())) {
                for name in arguments(&product[start..]).iter().map(|argument| name_of(argument)) {
                    if name.is_empty() {
                        continue;
                    }
                    if !is_allowed(&name) {
                        missing.push(format!("{}: {name}", file.display()));
                    }
                    used.insert(name);
                }
            }
        }
        assert!(missing.is_empty(), "fields that are not listed are not written: {missing:#?}");
        assert!(used.len() > 100, "the sources are read: {used:?}");
        let unused: Vec<_> = OTHERS.iter().filter(|name| !used.contains(**name)).collect();
        assert!(unused.is_empty(), "nobody logs them: {unused:?}");
        assert!(OTHERS.is_sorted());
    }
}
