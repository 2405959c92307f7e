//! Debian packages that tests need, on a machine that has none of them.

use std::{
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// Tests that run side by side may want different packages at once, and apt lets one in.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Installs a package where what it brings is not there yet.
pub fn install(package: &str, is_there: impl Fn() -> bool) {
    if is_there() {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if is_there() {
        return;
    }
    let apt = |arguments: &[&str]| runs("apt-get", &[&["-qq", "-o", "DPkg::Lock::Timeout=300"], arguments].concat());
    let install = || apt(&["install", "-y", "--no-install-recommends", package]);
    let installed = install() || apt(&["update"]) && install();
    assert!(
        installed && is_there(),
        "what `{package}` brings is not here and could not be installed: `apt-get install {package}`, or run as root"
    );
}

/// Whether a program is there and ends well.
pub fn runs(program: &str, arguments: &[&str]) -> bool {
    let ran =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}
