//! When the journal is looked after, and when a chore is due.

use queue_core::upkeep::{Thresholds, Window};

use super::file;
use crate::environment::Environment;

/// When the journal is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upkeep {
    /// The window.
    pub(crate) window: Window,
    /// Whether somebody has named it: then it is announced.
    pub(crate) is_named: bool,
    /// When a chore is due.
    pub(crate) thresholds: Thresholds,
}

/// Checks `maintenance_window` and `[upkeep]`.
pub(super) fn upkeep(env: &Environment, window: Option<String>, table: &file::UpkeepTable) -> Result<Upkeep, String> {
    let named = env.get("LONGSHORE_MAINTENANCE_WINDOW").map(str::to_owned).or(window);
    let window = named.as_deref().map(Window::parse).transpose();
    let window = window.map_err(|reason| format!("maintenance_window: {reason}"))?;
    let usual = Thresholds::default();
    let percent = |name: &str, given: Option<u64>, usual: u64| match given.unwrap_or(usual) {
        percent @ 1..=99 => Ok(percent),
        other => Err(format!("upkeep.{name} is {other}; it is between 1 and 99")),
    };
    let least_bytes = table.bloat_least_mib.map_or(usual.bloat_least_bytes, |mib| mib.saturating_mul(1024 * 1024));
    Ok(Upkeep {
        is_named: window.is_some(),
        window: window.unwrap_or_default(),
        thresholds: Thresholds {
            dead_percent: percent("dead_percent", table.dead_percent, usual.dead_percent)?,
            bloat_percent: percent("bloat_percent", table.bloat_percent, usual.bloat_percent)?,
            bloat_least_bytes: least_bytes,
        },
    })
}
