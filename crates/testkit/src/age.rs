//! Debian's `age`: a second reader of what is encrypted.

use std::process::Command;

/// What to do where it cannot be installed.
const ADVICE: &str = "no `age` here: install it (`apt-get install age`)";

/// Sees to it that `age` is in the path; installs it where the machine has none and we are root.
pub fn install_age() {
    let runs = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if runs("age", &["--version"]) {
        return;
    }
    let apt = |arguments: &[&str]| assert!(runs("apt-get", arguments), "{ADVICE}");
    apt(&["update", "-qq"]);
    apt(&["install", "-y", "-qq", "--no-install-recommends", "age"]);
    assert!(runs("age", &["--version"]), "{ADVICE}");
}
