//! The test command of the README, and the suites that are too heavy for it.

use anyhow::Result;

use crate::{dashboard_check, economics, faults, run, run_with, tidy};

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
