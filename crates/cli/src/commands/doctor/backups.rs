//! Whether there is something to restore: the age of the last good backup, of its check, and what is archived of Postgres' log.

use queue_core::{
    backup::{Found, Place, found},
    journal::postgres::Archiving,
    time::{Clock, SystemClock, Timestamp},
};

use super::{Finding, fail, ok, warn};
use crate::config::Backup;

/// Age of a backup beyond which one of the day is missing.
const GOOD_MAX_MS: i64 = 26 * 3_600_000;
/// Age of a check beyond which one of the week is missing.
const CHECKED_MAX_MS: i64 = 8 * 24 * 3_600_000;

/// What lies at the place of backups.
pub(super) async fn backups(backup: Option<&Backup>) -> Vec<Finding> {
    let what = "backups";
    let Some(backup) = backup else {
        let advice = "set `[backup] url` and `recipients`, and `daily_at`; docs/operations.md says how to restore one";
        return vec![warn(what, "none are configured: what is lost with the journal is lost", advice)];
    };
    let advice = "let this machine reach it, and ask again";
    let mut findings = match look(backup.place()).await {
        Err(why) => vec![fail(what, why, advice)],
        Ok(found) => judge(&found, SystemClock.now()),
    };
    let what = "second place";
    findings.push(match backup.offsite().transpose() {
        None => warn(what, "none", "set `[backup] offsite` to a place far from the first"),
        Some(place) => match look(place).await {
            Ok(found) => age(what, &found, SystemClock.now()),
            Err(why) => fail(what, why, advice),
        },
    });
    findings
}

async fn look(place: Result<Place, String>) -> Result<Found, String> {
    found(&place?).await.map_err(|error| error.to_string())
}

fn judge(found: &Found, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![age("backups", found, now)];
    if let Some((id, reason)) = found.damaged.first() {
        let shown = format!("{} cannot be believed, the first is {id}: {reason}", found.damaged.len());
        findings.push(fail(
            "damaged backups",
            shown,
            "find out who changed them, and make another: longshore backup create",
        ));
    }
    let verified = || found.good.iter().filter_map(|known| known.verified);
    let advice = "longshore drill run restores the newest one into a scratch database and tries it";
    let checked = verified().map(|verified| verified.at).max();
    findings.push(match checked {
        None => warn("checked backups", "none was read again since it was made", advice),
        Some(at) if now.since_ms(at) > CHECKED_MAX_MS => {
            warn("checked backups", format!("the last one at {at}"), advice)
        }
        Some(at) => ok("checked backups", format!("the last one at {at}")),
    });
    let drill =
        verified().filter(|verified| verified.restored_at.is_some()).max_by_key(|verified| verified.restored_at);
    findings.push(match drill.and_then(|drill| Some((drill.restored_at?, drill))) {
        None => warn("restore drill", "no backup there was ever restored", advice),
        Some((at, _)) if now.since_ms(at) > CHECKED_MAX_MS => {
            warn("restore drill", format!("the last one at {at}"), advice)
        }
        Some((at, drill)) => {
            let seconds = |ms: Option<i64>| ms.unwrap_or_default() as f64 / 1e3;
            let (recovery, lost) = (seconds(drill.recovery_ms), seconds(drill.lost_ms));
            ok("restore drill", format!("at {at}: recovery time {recovery:.0} s, recovery point {lost:.0} s"))
        }
    });
    findings
}

fn age(what: &str, found: &Found, now: Timestamp) -> Finding {
    let newest = found.good.iter().find(|known| known.manifest.database.is_some());
    let advice = "longshore backup create makes one; `[backup] daily_at` makes one each day";
    match newest.map(|known| known.manifest.snapshot_at) {
        None => warn(what, "there is no good backup of the journal", advice),
        Some(at) if now.since_ms(at) > GOOD_MAX_MS => warn(what, format!("the newest is of {at}"), advice),
        Some(at) => ok(what, format!("{}, the newest of {at}", found.good.len())),
    }
}

/// What is archived of Postgres' log, by which any moment can be restored.
pub(super) fn archiving(archiving: &Archiving) -> Finding {
    let what = "WAL archive";
    let advice = "see `Any moment` in docs/operations.md";
    match archiving {
        Archiving { is_on: false, .. } => {
            warn(what, "archive_mode is off: what is newer than the last backup is lost with the server", advice)
        }
        Archiving { last_archived_at, last_failed_at: Some(failed), .. }
            if last_archived_at.is_none_or(|at| at < *failed) =>
        {
            fail(what, format!("it fails, last at {failed}: the server keeps its log until its disk is full"), advice)
        }
        Archiving { last_archived_at: Some(at), .. } => ok(what, format!("the last segment was archived at {at}")),
        Archiving { last_archived_at: None, .. } => warn(what, "no segment was archived yet", advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    #[test]
    fn an_archive_that_fails_is_told() {
        let at = |ms| Some(Timestamp(ms));
        let told = |is_on, last_archived_at, last_failed_at| {
            archiving(&Archiving { is_on, last_archived_at, last_failed_at }).verdict
        };
        assert_eq!(told(false, at(5), None), Verdict::Warn);
        assert_eq!(told(true, None, None), Verdict::Warn);
        assert_eq!(told(true, at(5), at(6)), Verdict::Fail);
        assert_eq!(told(true, None, at(6)), Verdict::Fail);
        assert_eq!(told(true, at(7), at(6)), Verdict::Ok);
    }

    #[test]
    fn no_backup_is_a_warning() {
        let findings = judge(&Found::default(), Timestamp(0));
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Warn) && findings.len() == 3);
    }
}
