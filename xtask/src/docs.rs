//! Documents that tell the truth: links lead somewhere, commands and metrics exist.

use std::fs;

use anyhow::Result;

use crate::root;

/// Checks every tracked Markdown file.
pub(crate) fn check(files: &[String], findings: &mut Vec<String>) -> Result<()> {
    let telemetry = fs::read_to_string(root().join("crates/queue-core/src/telemetry.rs"))?;
    let command_line = command_line_sources(files)?;
    let schema = sources(files, |file| file.starts_with("migrations/"))?;
    for file in files.iter().filter(|file| file.ends_with(".md")) {
        let text = fs::read_to_string(root().join(file))?;
        links(file, &text, findings);
        metrics(file, &text, &telemetry, &schema, findings);
        commands(file, &text, &command_line, findings);
    }
    Ok(())
}

fn command_line_sources(files: &[String]) -> Result<String> {
    sources(files, |file| file.starts_with("crates/cli/src/") || file.starts_with("xtask/src/"))
}

/// The text of all files that are wanted.
fn sources(files: &[String], wanted: impl Fn(&str) -> bool) -> Result<String> {
    let mut all = String::new();
    for file in files.iter().filter(|file| wanted(file)) {
        all.push_str(&fs::read_to_string(root().join(file))?);
    }
    Ok(all)
}

/// `[text](path)` with a relative path must exist.
fn links(file: &str, text: &str, findings: &mut Vec<String>) {
    let folder = root().join(file);
    let folder = folder.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    for part in text.split("](").skip(1) {
        let Some((target, _)) = part.split_once(')') else { continue };
        let path = target.split('#').next().unwrap_or_default();
        let outside = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
        if !outside && !folder.join(path).exists() {
            findings.push(format!("{file}: the link to `{path}` leads nowhere"));
        }
    }
}

/// Every `longshore_…` word must be a metric in the telemetry contract, or a view or role of the schema.
fn metrics(file: &str, text: &str, telemetry: &str, schema: &str, findings: &mut Vec<String>) {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    for name in text.split(|c| !word(c)).filter_map(|name| name.strip_prefix("longshore_")) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let is_made = |what| schema.contains(&format!("CREATE {what} longshore_{name} "));
        if !is_made("VIEW")
            && !is_made("ROLE")
            && !telemetry.contains(&format!("\"{base}\""))
            && !telemetry.contains(&format!("\"{name}\""))
        {
            findings.push(format!("{file}: there is no metric, view or role `longshore_{name}`"));
        }
    }
}

/// In shell blocks, `longshore NOUN` and `cargo xtask VERB` must exist: as a clap variant in the sources.
fn commands(file: &str, text: &str, sources: &str, findings: &mut Vec<String>) {
    for line in shell_lines(text) {
        let words: Vec<_> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            let ours = pair[0].ends_with("longshore") && !pair[0].contains("longshore-") || pair[0] == "xtask";
            let verb = pair[1];
            if !ours || verb.is_empty() || !verb.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
                continue;
            }
            let variant: String = verb
                .split('-')
                .map(|part| {
                    part.chars().next().map(|c| c.to_ascii_uppercase()).into_iter().collect::<String>() + &part[1..]
                })
                .collect();
            if !sources.contains(&format!("{variant} {{"))
                && !sources.contains(&format!("{variant}("))
                && !sources.contains(&format!("{variant},"))
            {
                findings.push(format!("{file}: there is no command `{} {verb}`", pair[0]));
            }
        }
    }
}

/// The lines of the blocks that are fenced as `sh`.
fn shell_lines(text: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(language) = line.trim().strip_prefix("```") {
            inside = !inside && language.starts_with("sh");
        } else if inside {
            lines.push(line);
        }
    }
    lines
}
