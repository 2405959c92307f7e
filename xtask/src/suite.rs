//! The test command of the README, and the suites that are too heavy for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{faults, root, run, run_with, tidy};

/// Jobs of the sleeping workload, and slots for all of them at once.
const SLEEPING_JOBS: &str = "10000";

/// Everything CI checks.
pub(crate) fn test(tests_only: bool) -> Result<()> {
    if !tests_only {
        run("cargo", &["fmt", "--all", "--check"])?;
        tidy::check()?;
        run("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])?;
        let strict = [("RUSTDOCFLAGS", "--deny warnings")];
        run_with("cargo", &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"], &strict)?;
    }
    run("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"])?;
    faults::run_short()
}

/// Licences, sources and bans; advisories too where `../shared/advisories` holds the snapshot. Nothing is fetched.
pub(crate) fn deny() -> Result<()> {
    let snapshot = root().join("../shared/advisories/advisory-db.tar.xz");
    if !snapshot.exists() {
        println!("no advisory snapshot here: advisories are not checked");
        return run("cargo", &["deny", "--offline", "check", "bans", "licenses", "sources"]);
    }
    let folder = root().join("target/advisories");
    // The folder's name is the one that cargo-deny looks for; it wants a git checkout.
    let checkout = folder.join("advisory-db-3157b0e258782691");
    if !checkout.exists() {
        fs::create_dir_all(&checkout)?;
        let (snapshot, inside) = (snapshot.to_string_lossy(), checkout.to_string_lossy());
        run("tar", &["xJf", &snapshot, "-C", &inside])?;
        run("git", &["-C", &inside, "init", "--quiet"])?;
        run("git", &["-C", &inside, "add", "--all"])?;
        let identity = ["-c", "user.name=xtask", "-c", "user.email=xtask@localhost"];
        run("git", &[&["-C", &inside], &identity[..], &["commit", "--quiet", "--message", "snapshot"]].concat())?;
    }
    let config = folder.join("deny.toml");
    let rules = fs::read_to_string(root().join("deny.toml"))?;
    fs::write(&config, format!("{rules}db-path = {:?}\n", folder.to_string_lossy()))?;
    println!("advisories as of the snapshot in ../shared/advisories (see its README for the date)");
    run("cargo", &["deny", "--offline", "--config", &config.to_string_lossy(), "check"])
}

/// Lets `longshore bench` measure a release build on fresh folders: the sleeping jobs in a process of their own, so
/// that its memory is theirs.
pub(crate) fn bench(jobs: u64) -> Result<()> {
    run("cargo", &["build", "--release", "--locked"])?;
    let binary = release_binary()?;
    let jobs = jobs.to_string();
    measure(&binary, &["--jobs", &jobs, "latency", "submit", "drain", "single"])?;
    measure(&binary, &["--jobs", SLEEPING_JOBS, "sleep"])
}

/// Runs `longshore bench` against a `longshore up` on an empty folder.
fn measure(binary: &Path, arguments: &[&str]) -> Result<()> {
    let data = root().join("target/bench-data");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    fs::create_dir_all(&data)?;
    let address_file = data.join("up.log");
    let log = fs::File::create(&address_file)?;
    let mut server = Command::new(binary)
        .args(["up", "--listen", "127.0.0.1:0", "--slots", SLEEPING_JOBS, "--data"])
        .arg(data.join("store"))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("`longshore up` did not start")?;
    let outcome = wait_for_url(&address_file).and_then(|url| {
        let status = Command::new(binary)
            .args(["bench", "--pid", &server.id().to_string()])
            .args(arguments)
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
