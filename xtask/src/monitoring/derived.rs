//! Files that follow from others: the table of `docs/metrics.md` from the sources, Grafana's dashboards from
//! `deploy/monitoring/dashboards.toml`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};

use super::{contract, dashboards};
use crate::root;

const PAGE: &str = "docs/metrics.md";
/// The line that the generated table begins with.
const HEAD: &str = "| metric | type | unit | labels | what it is |";

/// Writes them.
pub(crate) fn write() -> Result<()> {
    let folder = root().join(dashboards::FOLDER);
    fs::create_dir_all(&folder)?;
    let files = files()?;
    for old in dashboards::on_disk()? {
        if !files.contains_key(&old) {
            fs::remove_file(root().join(&old))?;
        }
    }
    for (path, text) in &files {
        fs::write(root().join(path), text)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// What they should contain, by path.
pub(super) fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = dashboards::files()?;
    files.insert(PAGE.into(), page(&fs::read_to_string(root().join(PAGE))?)?);
    Ok(files)
}

/// The page with its table made anew; what stands around it is written by hand.
fn page(text: &str) -> Result<String> {
    let (before, rest) = text.split_once(HEAD).with_context(|| format!("{PAGE} has no line `{HEAD}`"))?;
    let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
    let mut table = format!("{HEAD}\n|---|---|---|---|---|\n");
    for metric in contract::metrics()? {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        table += &format!("| `{}` | {} | {} | {labels} | {} |\n", metric.name, metric.kind, metric.unit, metric.help);
    }
    Ok(format!("{before}{table}\n{after}"))
}
