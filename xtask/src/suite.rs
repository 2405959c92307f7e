//! The test command of the README, and the suites that are too heavy for it.

use std::fs;

use anyhow::Result;

use crate::{dashboard_check, economics, faults, root, run, run_with, tidy};

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
    faults::run_short()?;
    economics::run_short()?;
    dashboard_check::run_short()
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
