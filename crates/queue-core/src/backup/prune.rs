//! Which backups are kept: the newest of so many days, weeks and months, and always the last one that was checked. One that a check
//! has found damaged takes nobody's place; it stays for as many days as there are daily ones, for whoever looks for the cause.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    BACKUPS_PAGE_MAX, BackupError, BackupId, BackupRow, Backups,
    known::{Known, found},
    manifest::Scope,
    place::Place,
};
use crate::{
    journal::JournalError,
    time::{Clock, DAY_MS, Timestamp},
};

/// Files without a manifest are left alone for so long: somebody may be at work.
const UNFINISHED_MS: i64 = DAY_MS;
/// 1970-01-01 was a Thursday: so many days behind a Monday.
const THURSDAY: i64 = 3;

/// How many backups of each scope are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Days, of each its newest.
    pub daily: usize,
    /// Weeks from Monday to Sunday, UTC.
    pub weekly: usize,
    /// Months, UTC.
    pub monthly: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self { daily: 30, weekly: 13, monthly: 12 }
    }
}

/// What is deleted at a place, and what stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Backups that nothing keeps.
    pub delete: Vec<Known>,
    /// What is left of some that never became any.
    pub unfinished: Vec<BackupId>,
    /// Backups that stay.
    pub keep: BTreeSet<BackupId>,
}

impl Prune {
    /// Looks what `keep` keeps at a place.
    ///
    /// # Errors
    /// Where the place does not answer, or refuses.
    pub async fn plan(place: &Place, keep: Keep, clock: &dyn Clock) -> Result<Self, BackupError> {
        let found = found(place).await?;
        let before = clock.now().plus_ms(-UNFINISHED_MS);
        let unfinished = found.unfinished.into_iter().filter(|(_, last)| last.is_none_or(|last| last < before));
        let kept = kept(&found.good, keep);
        let (stay, go): (Vec<Known>, Vec<Known>) =
            found.good.into_iter().partition(|known| kept.contains(&known.manifest.id));
        let kept_ms = i64::try_from(keep.daily).unwrap_or(i64::MAX).saturating_mul(DAY_MS);
        let looked_at = clock.now().plus_ms(-kept_ms);
        let harmed = found.harmed.into_iter().filter(|known| known.manifest.snapshot_at < looked_at);
        Ok(Self {
            delete: go.into_iter().chain(harmed).collect(),
            unfinished: unfinished.map(|(id, _)| id).collect(),
            keep: stay.iter().map(|known| known.manifest.id).collect(),
        })
    }

    /// Says in the journal which backups are no more, before they are deleted: where this is broken off in between, the next plan
    /// deletes them, or keeps them and says so.
    ///
    /// # Errors
    /// Where the journal does not answer.
    pub async fn say(&self, backups: &dyn Backups, now: Timestamp) -> Result<(), JournalError> {
        let go: BTreeSet<BackupId> = self.delete.iter().map(|known| known.manifest.id).collect();
        let changed = |mut row: BackupRow| {
            let (place_id, is_said) = (row.record.place_id?, row.record.deleted_at.is_some());
            let says = (go.contains(&place_id), self.keep.contains(&place_id));
            row.record.deleted_at = match says {
                (true, _) if !is_said => Some(now),
                (_, true) if is_said => None,
                _ => return None,
            };
            Some(row)
        };
        let mut behind = None;
        loop {
            let page = backups.backups(behind, BACKUPS_PAGE_MAX).await?;
            let Some(last) = page.last() else { return Ok(()) };
            behind = Some((last.ordered_at, last.id));
            for row in page {
                let id = row.id;
                let mut next = changed(row);
                // Somebody else may have changed it since, for instance ordered a check.
                while let Some(row) = next.take()
                    && !backups.change_backup(row).await?
                {
                    next = backups.backup(id).await?.and_then(&changed);
                }
            }
        }
    }

    /// Deletes it. Broken off, it has deleted whole backups, or left some without a manifest, which are none.
    ///
    /// # Errors
    /// Where the place does not answer, or refuses.
    pub async fn carry_out(&self, place: &Place) -> Result<(), BackupError> {
        let ids = self.delete.iter().map(|known| known.manifest.id).chain(self.unfinished.iter().copied());
        for id in ids {
            place.remove(id).await?;
        }
        Ok(())
    }
}

/// Those that stay.
fn kept(good: &[Known], keep: Keep) -> BTreeSet<BackupId> {
    let mut kept = BTreeSet::new();
    for scope in Scope::ALL {
        let mut of_scope: Vec<&Known> = good.iter().filter(|known| known.manifest.scope == scope).collect();
        of_scope.sort_unstable_by_key(|known| std::cmp::Reverse((known.manifest.snapshot_at, known.manifest.id)));
        for (ladder, most) in [(day as fn(Timestamp) -> i64, keep.daily), (week, keep.weekly), (month, keep.monthly)] {
            let mut newest = BTreeMap::new();
            for known in &of_scope {
                newest.entry(ladder(known.manifest.snapshot_at)).or_insert(known.manifest.id);
            }
            kept.extend(newest.into_values().rev().take(most));
        }
        kept.extend(of_scope.first().map(|known| known.manifest.id));
        // The last one of which more is known than that it was written.
        let checked = of_scope.iter().filter_map(|known| Some((known.verified?.at, known.manifest.id)));
        kept.extend(checked.max().map(|(_, id)| id));
        let tried = of_scope.iter().filter_map(|known| Some((known.verified?.restored_at?, known.manifest.id)));
        kept.extend(tried.max().map(|(_, id)| id));
    }
    kept
}

fn day(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY_MS)
}

fn week(at: Timestamp) -> i64 {
    (day(at) + THURSDAY).div_euclid(7)
}

fn month(at: Timestamp) -> i64 {
    // Text of a moment of ours begins with year and month.
    let text = at.to_string();
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<i64>().ok());
    number(0..4).unwrap_or_default() * 12 + number(5..7).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::backup::manifest::{Cause, FORM, Manifest, Verified};

    fn known(number: u128, at: Timestamp, verified: Option<Timestamp>) -> Known {
        let manifest = Manifest {
            form: FORM,
            id: BackupId(Uuid::from_u128(number)),
            scope: Scope::Database,
            cause: Cause::Schedule,
            reason: None,
            began_at: at,
            snapshot_at: at,
            finished_at: at,
            recipients: vec![],
            opened: true,
            database: None,
            objects: None,
            parts: vec![],
            tools: BTreeMap::new(),
        };
        let verified =
            verified.map(|at| Verified { at, opened: true, restored_at: None, recovery_ms: None, lost_ms: None });
        Known { manifest, verified }
    }

    #[test]
    fn a_year_of_backups_becomes_days_weeks_and_months() {
        let start: Timestamp = "2025-12-01T03:00:00Z".parse().unwrap();
        // Two a day, for a year.
        let at = |half_day: i64| start.plus_ms(half_day * DAY_MS / 2);
        let mut good: Vec<Known> = (0..730).map(|n| known(n as u128, at(n), None)).collect();
        let number = |id: &BackupId| id.0.as_u128() as i64;
        let newest = |kept: &BTreeSet<BackupId>| kept.iter().map(number).max();
        let kept_now = kept(&good, Keep::default());
        // 30 days, 13 weeks and 12 months share their newest days.
        assert!((30 + 8 + 8..=30 + 13 + 12).contains(&kept_now.len()), "{}", kept_now.len());
        assert_eq!(newest(&kept_now), Some(729));
        // Of each of the last days the later one.
        let days = kept_now.iter().map(number).filter(|n| *n >= 729 - 58);
        assert!(days.clone().count() >= 29 && days.clone().all(|n| n % 2 == 1));
        // The last that was checked stays, however old it is, and the newest, whatever is kept.
        good[3].verified =
            Some(Verified { at: at(900), opened: true, restored_at: Some(at(900)), recovery_ms: None, lost_ms: None });
        good[9] = known(9, at(9), Some(at(800)));
        let few = kept(&good, Keep { daily: 0, weekly: 0, monthly: 0 });
        assert_eq!(few.iter().map(number).collect::<Vec<_>>(), [3, 729]);
        good[9] = known(9, at(9), Some(at(901)));
        let few = kept(&good, Keep { daily: 0, weekly: 0, monthly: 0 });
        assert_eq!(few.iter().map(number).collect::<Vec<_>>(), [3, 9, 729], "the last drill stays beside a later look");
    }

    #[test]
    fn weeks_begin_on_mondays_and_months_on_their_first() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(week(at("2026-11-29T23:59:59Z")) + 1, week(at("2026-11-30T00:00:00Z")), "a Monday");
        assert_eq!(month(at("2025-12-31T23:59:59Z")) + 1, month(at("2026-01-01T00:00:00Z")));
    }
}
