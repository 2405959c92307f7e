//! What is to be done about ticks that have passed.

use serde::{Deserialize, Serialize};

use super::when::Ticks;
use crate::time::Timestamp;

/// A tick that is submitted within this time after its moment was not missed: schedulers restart, and a refusal may pass.
pub const ON_TIME_MS: i64 = 60_000;
/// How far back missed ticks are submitted where a schedule does not say.
pub const WINDOW_DEFAULT_MS: i64 = 60 * 60 * 1_000;
/// How far back they may be: whoever needs more orders a backfill.
pub const WINDOW_MAX_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// Missed ticks that are counted one by one: a week of seconds would be counted for a second.
pub const COUNTED_MAX: usize = 100_000;

/// What becomes of ticks that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissedPolicy {
    /// Nothing.
    Skip,
    /// The newest tick is submitted, where none has come since that is on time.
    Latest,
    /// Each of the window is submitted, oldest first.
    All,
}

impl MissedPolicy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Skip, Self::Latest, Self::All];

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Latest => "latest",
            Self::All => "all",
        }
    }

    /// The policy with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

/// What becomes of ticks that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Which of them are submitted.
    pub policy: MissedPolicy,
    /// How old a tick may be that is: for [`MissedPolicy::All`].
    pub window_ms: i64,
}

impl Default for Missed {
    fn default() -> Self {
        Self { policy: MissedPolicy::Latest, window_ms: WINDOW_DEFAULT_MS }
    }
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Ticks that are to be submitted, oldest first.
    pub runs: Vec<Timestamp>,
    /// Ticks that are let go; at least so many, where they are [`COUNTED_MAX`].
    pub missed: u64,
    /// Ticks up to here are let go, or were dealt with before.
    pub behind: Timestamp,
}

/// What is to be done about the ticks behind `cursor` that have passed: at most `most` are submitted, the others come with
/// the next plan.
pub fn plan(ticks: &Ticks, cursor: Timestamp, now: Timestamp, missed: Missed, most: usize) -> Plan {
    let on_time = now.plus_ms(-ON_TIME_MS);
    let let_go_upto = match missed.policy {
        MissedPolicy::Skip => on_time,
        MissedPolicy::All => now.plus_ms(-missed.window_ms.max(ON_TIME_MS)),
        MissedPolicy::Latest => match newest_missed(ticks, cursor, now) {
            Some(newest) => newest.plus_ms(-1),
            None => on_time,
        },
    };
    let behind = cursor.max(let_go_upto);
    let missed = if behind > cursor { ticks.between(cursor, behind).take(COUNTED_MAX).count() } else { 0 };
    Plan { runs: ticks.between(behind, now).take(most).collect(), missed: missed as u64, behind }
}

/// The newest tick that has passed, where it was missed; `None` where one is on time, or there is none.
fn newest_missed(ticks: &Ticks, cursor: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if ticks.after(cursor.max(now.plus_ms(-ON_TIME_MS))).is_some_and(|tick| tick <= now) {
        return None;
    }
    // Looked for in ever longer times before now: walking from the cursor on might pass millions.
    let mut back_ms = ON_TIME_MS;
    loop {
        back_ms = back_ms.saturating_mul(8);
        let from = cursor.max(now.plus_ms(-back_ms));
        if let Some(newest) = ticks.between(from, now).last() {
            return Some(newest);
        }
        if from == cursor {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::when::When,
        MissedPolicy::{All, Latest, Skip},
        *,
    };

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    fn every(every_ms: i64) -> Ticks {
        When::Every { every_ms, from: NOW.plus_ms(-7 * 24 * 3_600_000) }.ticks().unwrap()
    }

    /// Seconds before now, oldest first.
    fn runs(plan: &Plan) -> Vec<i64> {
        plan.runs.iter().map(|tick| NOW.since_ms(*tick) / 1_000).collect()
    }

    fn of(ticks: &Ticks, since_s: i64, policy: MissedPolicy, window_s: i64) -> (Vec<i64>, u64) {
        let missed = Missed { policy, window_ms: window_s * 1_000 };
        let plan = plan(ticks, NOW.plus_ms(-since_s * 1_000), NOW, missed, 1_000);
        (runs(&plan), plan.missed)
    }

    #[test]
    fn what_is_on_time_is_submitted_whatever_the_policy() {
        for policy in MissedPolicy::ALL {
            assert_eq!(of(&every(20_000), 50, policy, 0), (vec![40, 20, 0], 0), "{policy:?}");
            assert_eq!(of(&every(20_000), 0, policy, 0), (vec![], 0), "{policy:?}");
        }
    }

    #[test]
    fn each_policy_lets_go_what_it_says() {
        let (second, hour) = (every(1_000), every(3_600_000));
        assert_eq!(of(&second, 600, Skip, 0).1, 540);
        assert_eq!(of(&second, 600, Skip, 0).0.len(), 60);
        assert_eq!(of(&second, 600, Latest, 0).1, 540, "the latest is one that is on time");
        assert_eq!(of(&second, 600, All, 300).1, 300);
        assert_eq!(of(&second, 600, All, 3_600), ((0..600).rev().collect(), 0));
        // The last tick was half an hour ago: nothing is on time.
        let later = NOW.plus_ms(1_800_000);
        let at_half = |policy, since_s: i64, window_s: i64| {
            let missed = Missed { policy, window_ms: window_s * 1_000 };
            let plan = plan(&hour, NOW.plus_ms(-since_s * 1_000), later, missed, 10);
            (runs(&plan), plan.missed)
        };
        assert_eq!(at_half(Skip, 7_199, 0), (vec![], 2));
        assert_eq!(at_half(Latest, 7_199, 0), (vec![0], 1));
        assert_eq!(at_half(All, 7_199, 86_400), (vec![3_600, 0], 0));
        assert_eq!(at_half(All, 86_399, 7_200), (vec![3_600, 0], 22));
        assert_eq!(at_half(Latest, 0, 0), (vec![], 0), "what was dealt with is not done again");
    }

    #[test]
    fn a_plan_is_bounded_and_goes_on() {
        let ticks = every(1_000);
        let missed = Missed { policy: All, window_ms: WINDOW_MAX_MS };
        let first = plan(&ticks, NOW.plus_ms(-30_000), NOW, missed, 20);
        let second = plan(&ticks, *first.runs.last().unwrap(), NOW, missed, 20);
        assert_eq!((first.runs.len(), second.runs.len()), (20, 10));
        let week = plan(&ticks, NOW.plus_ms(-WINDOW_MAX_MS), NOW, Missed { policy: Skip, window_ms: 0 }, 20);
        assert_eq!((week.missed, week.behind), (COUNTED_MAX as u64, NOW.plus_ms(-ON_TIME_MS)));
    }

    #[test]
    fn a_tick_once_is_found_however_long_ago() {
        let ticks = When::Once { at: NOW.plus_ms(-5 * 24 * 3_600_000) }.ticks().unwrap();
        let of = |policy| of(&ticks, 6 * 24 * 3_600, policy, 3_600);
        assert_eq!((of(Latest).0.len(), of(Skip), of(All)), (1, (vec![], 1), (vec![], 1)));
    }
}
