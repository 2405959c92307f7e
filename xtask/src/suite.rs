//! The test command of the README, and the suites that are too heavy for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{root, run, run_with, tidy};

/// Everything CI checks.
pub(crate) fn test(tests_only: bool) -> Result<()> {
    if !tests_only {
        run("cargo", &["fmt", "--all", "--check"])?;
        tidy::check()?;
        run("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])?;
        let strict = [("RUSTDOCFLAGS", "--deny warnings")];
        run_with("cargo", &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"], &strict)?;
    }
    run("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"])
}

/// Licences, sources, bans and, where `../shared/advisories` has the snapshot, advisories.
pub(crate) fn deny() -> Result<()> {
    run("cargo", &["deny", "--offline", "check", "bans", "licenses", "sources"])
}

/// Starts a release build on a fresh folder and lets `longshore bench` measure it.
pub(crate) fn bench(jobs: u64) -> Result<()> {
    run("cargo", &["build", "--release", "--locked"])?;
    let binary = release_binary()?;
    let data = root().join("target/bench-data");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    fs::create_dir_all(&data)?;
    let address_file = data.join("up.log");
    let log = fs::File::create(&address_file)?;
    let mut server = Command::new(&binary)
        .args(["up", "--listen", "127.0.0.1:0", "--slots", "10000", "--data"])
        .arg(data.join("store"))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("`longshore up` did not start")?;
    let outcome = wait_for_url(&address_file).and_then(|url| {
        let status = Command::new(&binary)
            .args(["bench", "--jobs", &jobs.to_string(), "--pid", &server.id().to_string()])
            .env("LONGSHORE_URL", url)
            .env("LONGSHORE_DATA", data.join("store"))
            .status()?;
        ensure!(status.success(), "bench failed: {status}");
        Ok(())
    });
    server.kill()?;
    server.wait()?;
    outcome
}

fn release_binary() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let binary = target.join("release/longshore");
    ensure!(binary.exists(), "{} is missing", binary.display());
    Ok(binary)
}

/// `up` prints its address once it listens.
fn wait_for_url(log: &Path) -> Result<String> {
    for _ in 0..200 {
        let text = fs::read_to_string(log)?;
        let url = text.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:"));
        if let Some(url) = url {
            return Ok(url.trim_end_matches(['/', ',', '.']).to_owned());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    bail!("`longshore up` printed no address within 10 s:\n{}", fs::read_to_string(log)?)
}
