//! Upkeep of the journal: fresh statistics, rows that nobody can see any more, indexes that have grown beyond what is in them.
//!
//! What is done follows from what the store's own statistics say, and at the least once a week for what has changed at all. One chore is done
//! at a time over all processes, in the window that operators have named, and each says what it came to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, iter,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{self, AuditEntry},
    journal::JournalError,
    stores::Stores,
    telemetry,
    time::{DAY_MS, Timestamp},
};

/// What the audit log calls it.
pub const ACTION: &str = "UPKEEP";
/// Tables and indexes that are told: the largest ones.
pub const TOLD_MAX: usize = 50;
/// Chores of one run: what is left is left to the next one.
pub const CHORES_MAX: usize = 500;
/// How long a chore that failed is not tried again: what was in its way may take as long as a backup.
const AGAIN_MS: i64 = 30 * 60 * 1_000;
/// Longest time of one chore; a window that ends before ends it.
pub const CHORE_MAX: Duration = Duration::from_secs(4 * 60 * 60);
/// A table with fewer changes than this is left to autovacuum between the weekly floors.
const LEAST_ROWS: u64 = 10_000;
/// What has changed is looked after once in so long, whatever its numbers say.
const FLOOR_MS: i64 = 7 * DAY_MS;

/// When a chore is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Part of a table's rows that are dead, in percent.
    pub dead_percent: u64,
    /// Part of an index that is for nothing, in percent.
    pub bloat_percent: u64,
    /// Indexes below this size are left alone, in bytes.
    pub bloat_least_bytes: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { dead_percent: 20, bloat_percent: 30, bloat_least_bytes: 100 * 1024 * 1024 }
    }
}

/// Something that is done to the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "chore", content = "on", rename_all = "snake_case")]
pub enum Chore {
    /// What an index that was built anew has left is dropped.
    DropLeftover(String),
    /// A table's dead rows are cleared, and its statistics are made anew.
    Vacuum(String),
    /// A table's statistics are made anew.
    Analyze(String),
    /// An index is built anew, beside whoever uses it.
    Reindex(String),
    /// The store refreshes what it knows of its own tables.
    Optimize,
    /// The store looks whether all of it is whole.
    Check,
    /// Pages that nothing is in go back to the disk.
    Shrink,
}

impl Chore {
    /// The word of the API and of metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::DropLeftover(_) => "drop_leftover",
            Self::Vacuum(_) => "vacuum",
            Self::Analyze(_) => "analyze",
            Self::Reindex(_) => "reindex",
            Self::Optimize => "optimize",
            Self::Check => "check",
            Self::Shrink => "shrink",
        }
    }

    /// The table or index; nothing for a chore of the whole store.
    pub fn on(&self) -> Option<&str> {
        match self {
            Self::DropLeftover(name) | Self::Vacuum(name) | Self::Analyze(name) | Self::Reindex(name) => Some(name),
            Self::Optimize | Self::Check | Self::Shrink => None,
        }
    }
}

impl fmt::Display for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on() {
            Some(on) => write!(f, "{} {on}", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

/// A table, as the store's statistics have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// Its name.
    pub name: String,
    /// Rows that can be seen, about.
    pub rows: u64,
    /// Rows that nobody can see any more, about.
    pub dead: u64,
    /// Rows that have changed since its statistics were made.
    pub changed: u64,
    /// Bytes on disk, with indexes.
    pub bytes: u64,
    /// When its dead rows were last cleared, by anybody.
    pub vacuumed_at: Option<Timestamp>,
    /// When its statistics were last made.
    pub analyzed_at: Option<Timestamp>,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexState {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Of these, about how many are for nothing; 0 where nobody can tell.
    pub bloat_bytes: u64,
    /// It cannot be used, and nobody is building it: whoever built it anew has died.
    pub is_leftover: bool,
}

/// What there is to know of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// Tables, largest first. None where the store keeps no such statistics.
    pub tables: Vec<TableState>,
    /// Their indexes, largest first.
    pub indexes: Vec<IndexState>,
    /// Bytes on disk, in all.
    pub bytes: u64,
    /// Of these, bytes that nothing is in, where the store knows.
    pub free_bytes: Option<u64>,
    /// Whether these can go back to the disk.
    pub can_shrink: bool,
    /// Why this process cannot look after them; they are shown all the same.
    pub missing_right: Option<String>,
    /// Somebody is at it.
    pub is_busy: bool,
}

/// A chore that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What.
    pub chore: Chore,
    /// Why.
    pub reason: String,
    /// Bytes that it is about.
    pub bytes: u64,
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tended {
    /// It was done.
    Done {
        /// Bytes before it.
        before_bytes: u64,
        /// Bytes after it.
        after_bytes: u64,
    },
    /// Another process does a chore: nothing was done.
    Busy,
}

/// A chore that was done, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What.
    pub chore: Chore,
    /// Bytes before it.
    pub before_bytes: u64,
    /// Bytes after it.
    pub after_bytes: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Why it was not done.
    pub error: Option<String>,
}

/// The journal's upkeep.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// What there is to know. Reads statistics, and no rows.
    async fn store_state(&self) -> Result<StoreState, JournalError>;

    /// Does a chore within this time. [`JournalError::Unavailable`] where something is locked for long. A crash in the middle leaves the store as
    /// it was, or an index that is [`Chore::DropLeftover`] for the next one; whoever is not waited for any more ends.
    async fn tend(&self, chore: &Chore, within: Duration) -> Result<Tended, JournalError>;

    /// The clock of the store's server; `None`: it has none of its own.
    async fn server_now(&self) -> Result<Option<Timestamp>, JournalError>;
}

/// What is due, in the order in which it is done.
pub fn due(state: &StoreState, thresholds: &Thresholds, now: Timestamp) -> Vec<Due> {
    let mut all = Vec::new();
    for index in state.indexes.iter().filter(|index| index.is_leftover) {
        let (chore, reason) = (Chore::DropLeftover(index.name.clone()), "it was left half built".to_owned());
        all.push(Due { chore, reason, bytes: index.bytes });
    }
    all.extend(state.tables.iter().filter_map(|table| of_table(table, thresholds, now)));
    for index in state.indexes.iter().filter(|index| !index.is_leftover) {
        let percent = index.bloat_bytes * 100 / index.bytes.max(1);
        if index.bytes >= thresholds.bloat_least_bytes && percent >= thresholds.bloat_percent {
            let (chore, reason) = (Chore::Reindex(index.name.clone()), format!("{percent} % of it are for nothing"));
            all.push(Due { chore, reason, bytes: index.bytes });
        }
    }
    if let Some(free) = state.free_bytes {
        all.push(Due { chore: Chore::Optimize, reason: "in each window".to_owned(), bytes: state.bytes });
        all.push(Due { chore: Chore::Check, reason: "in each window".to_owned(), bytes: state.bytes });
        if state.can_shrink && free * 100 / state.bytes.max(1) >= thresholds.dead_percent {
            let percent = free * 100 / state.bytes.max(1);
            all.push(Due { chore: Chore::Shrink, reason: format!("nothing is in {percent} % of it"), bytes: free });
        }
    }
    all.truncate(CHORES_MAX);
    all
}

fn of_table(table: &TableState, thresholds: &Thresholds, now: Timestamp) -> Option<Due> {
    let due = |chore: fn(String) -> Chore, reason: String| {
        Some(Due { chore: chore(table.name.clone()), reason, bytes: table.bytes })
    };
    let percent = table.dead * 100 / (table.rows + table.dead).max(1);
    if table.dead >= LEAST_ROWS && percent >= thresholds.dead_percent {
        return due(Chore::Vacuum, format!("{percent} % of its rows are dead"));
    }
    let is_long_ago = |at: Option<Timestamp>| at.is_none_or(|at| now.since_ms(at) >= FLOOR_MS);
    if table.dead > 0 && is_long_ago(table.vacuumed_at) {
        return due(Chore::Vacuum, "it has dead rows and was not vacuumed for a week".to_owned());
    }
    let never = table.analyzed_at.is_none() && table.rows > 0;
    if never || (table.changed > 0 && is_long_ago(table.analyzed_at)) {
        return due(Chore::Analyze, "it has changed and was not analyzed for a week".to_owned());
    }
    None
}

/// What was tried in a window: nothing is done twice, and what failed is tried again later.
#[derive(Clone, Debug, Default)]
pub struct Tried(BTreeMap<Chore, Option<Timestamp>>);

impl Tried {
    fn may_try(&self, chore: &Chore, now: Timestamp) -> bool {
        match self.0.get(chore) {
            None => true,
            Some(failed_at) => failed_at.is_some_and(|at| now.since_ms(at) >= AGAIN_MS),
        }
    }
}

/// Does what is due, one chore after the other, until `until`, and looks anew before each; stops where somebody else is at it. What was done
/// is in the log, in the metrics and in the audit log.
///
/// # Errors
/// Of the look; what was done before is noted.
pub async fn perform(
    stores: &Stores,
    thresholds: &Thresholds,
    until: Timestamp,
    actor: &str,
    tried: &mut Tried,
    shutdown: &CancellationToken,
) -> Result<usize, JournalError> {
    let mut performed = 0;
    while performed < CHORES_MAX {
        let (now, state) = (stores.clock.now(), stores.upkeep.store_state().await?);
        metrics::gauge!(telemetry::JOURNAL_BYTES).set(state.bytes as f64);
        let left = until.since_ms(now);
        if left <= 0 || state.is_busy || state.missing_right.is_some() || shutdown.is_cancelled() {
            break;
        }
        let next = due(&state, thresholds, now).into_iter().find(|due| tried.may_try(&due.chore, now));
        let Some(Due { chore, reason, .. }) = next else { break };
        let within = Duration::from_millis(left.unsigned_abs()).min(CHORE_MAX);
        let began = std::time::Instant::now();
        let tended = tokio::select! {
            () = shutdown.cancelled() => Err(JournalError::Unavailable("the process was stopped".into())),
            tended = stores.upkeep.tend(&chore, within) => tended,
        };
        let took_ms = began.elapsed().as_millis() as u64;
        let (before_bytes, after_bytes, error) = match tended {
            Ok(Tended::Busy) => break,
            Ok(Tended::Done { before_bytes, after_bytes }) => (before_bytes, after_bytes, None),
            Err(error) => (0, 0, Some(error.to_string())),
        };
        match &error {
            None => tracing::info!(%chore, reason, before_bytes, after_bytes, took_ms, "the journal was looked after"),
            Some(error) => tracing::warn!(error, %chore, reason, "a chore is left to another time"),
        }
        let outcome = if error.is_none() { "done" } else { "failed" };
        metrics::counter!(telemetry::UPKEEP_CHORES, "chore" => chore.as_str(), "outcome" => outcome).increment(1);
        metrics::counter!(telemetry::UPKEEP_FREED, "chore" => chore.as_str())
            .increment(before_bytes.saturating_sub(after_bytes));
        tried.0.insert(chore.clone(), error.is_some().then_some(now));
        note(stores, &Done { chore, before_bytes, after_bytes, took_ms, error }, actor).await;
        performed += 1;
    }
    Ok(performed)
}

async fn note(stores: &Stores, done: &Done, actor: &str) {
    let Done { chore, before_bytes, after_bytes, took_ms, error } = done;
    let detail = json!({
        "chore": chore.as_str(), "on": chore.on(), "before_bytes": before_bytes, "after_bytes": after_bytes,
        "took_ms": took_ms, "error": error,
    });
    let entry = AuditEntry::by_itself(actor, ACTION, "/v1/maintenance", &detail, stores.clock.now());
    let status = if error.is_none() { entry.status } else { 503 };
    audit::note(&*stores.audit, AuditEntry { status, ..entry }).await;
}

/// When chores may be done that others notice: some hours of some days of the week, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Monday is 0.
    days: BTreeSet<u8>,
    begin_ms: i64,
    end_ms: i64,
}

impl Default for Window {
    /// The night to Sunday's morning.
    fn default() -> Self {
        Self { days: BTreeSet::from([6]), begin_ms: 2 * 3_600_000, end_ms: 6 * 3_600_000 }
    }
}

/// How early a window is announced.
const ANNOUNCED_MS: i64 = DAY_MS;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const WEEK_MS: i64 = 7 * DAY_MS;
/// 1970-01-01 was a Thursday.
const FIRST_DAY: i64 = 3;

impl Window {
    /// Reads `Sun 02:00-06:00`, `Sat,Sun 22:00-02:00`, or `02:00-04:00` for every day.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().strip_suffix(" UTC").unwrap_or(text);
        let wrong = || format!("`{text}` is no window such as \"Sun 02:00-06:00\" or \"02:00-04:00\" (UTC)");
        let (days, hours) = text.trim().rsplit_once(' ').unwrap_or(("", text.trim()));
        let day = |word: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(word.trim())).map(|day| day as u8);
        let days: BTreeSet<u8> = match days {
            "" => (0..7).collect(),
            some => some.split(',').map(|word| day(word).ok_or_else(wrong)).collect::<Result<_, _>>()?,
        };
        let (begin, end) = hours.split_once('-').ok_or_else(wrong)?;
        let moment = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
            ((0..24).contains(&hour) && (0..60).contains(&minute)).then(|| (hour * 60 + minute) * 60_000)
        };
        let (begin_ms, end_ms) = moment(begin).zip(moment(end)).ok_or_else(wrong)?;
        if begin_ms == end_ms {
            return Err(wrong());
        }
        // One that ends earlier than it begins ends on the next day.
        let end_ms = if end_ms < begin_ms { end_ms + DAY_MS } else { end_ms };
        Ok(Self { days, begin_ms, end_ms })
    }

    /// The window that is open at this moment, or else the next one: begin and end.
    pub fn next(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let today = now.start_of_day();
        let of = |day: Timestamp| {
            let weekday = (day.0.div_euclid(DAY_MS) + FIRST_DAY).rem_euclid(7) as u8;
            self.days.contains(&weekday).then(|| (day.plus_ms(self.begin_ms), day.plus_ms(self.end_ms)))
        };
        // From yesterday on: it may reach over midnight.
        let found = (-1..=7).filter_map(|days| of(today.plus_ms(days * DAY_MS))).find(|(_, end)| *end > now);
        found.unwrap_or((now.plus_ms(WEEK_MS), now.plus_ms(WEEK_MS)))
    }

    /// The window that is open at this moment, and those that begin within a day: so early they are announced.
    pub fn announced(&self, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let behind = |(_, end): &(Timestamp, Timestamp)| Some(self.next(*end));
        let all = iter::successors(Some(self.next(now)), behind);
        all.take_while(|(begin, _)| begin.since_ms(now) <= ANNOUNCED_MS).collect()
    }

    /// Until when it is open at this moment, if it is.
    pub fn open_until(&self, now: Timestamp) -> Option<Timestamp> {
        let (begin, end) = self.next(now);
        (begin <= now).then_some(end)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days.len() < DAYS.len() {
            let days: Vec<_> = self.days.iter().map(|day| DAYS[usize::from(*day) % DAYS.len()]).collect();
            write!(f, "{} ", days.join(","))?;
        }
        let hour = |ms: i64| format!("{:02}:{:02}", ms / 3_600_000 % 24, ms / 60_000 % 60);
        write!(f, "{}-{} UTC", hour(self.begin_ms), hour(self.end_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_of_days_and_hours() {
        let window = Window::parse("Sun 02:00-06:00").unwrap();
        assert_eq!(window, Window::default());
        // 2026-11-29 is a Sunday.
        assert_eq!(window.open_until(at("2026-11-29T02:00:00Z")), Some(at("2026-11-29T06:00:00Z")));
        for closed in ["2026-11-29T01:59:59Z", "2026-11-29T06:00:00Z", "2026-11-30T03:00:00Z"] {
            assert_eq!(window.open_until(at(closed)), None, "{closed}");
        }
        assert_eq!(window.next(at("2026-11-29T07:00:00Z")), (at("2026-12-06T02:00:00Z"), at("2026-12-06T06:00:00Z")));
        let night = Window::parse("sat,Sun 22:30-01:00").unwrap();
        assert_eq!(night.open_until(at("2026-11-30T00:30:00Z")), Some(at("2026-11-30T01:00:00Z")), "Sunday's");
        assert_eq!(night.next(at("2026-11-30T01:00:00Z")).0, at("2026-12-05T22:30:00Z"));
        let begins = |now| night.announced(at(now)).into_iter().map(|(begin, _)| begin).collect::<Vec<_>>();
        assert_eq!(begins("2026-11-28T22:30:00Z"), ["2026-11-28T22:30:00Z", "2026-11-29T22:30:00Z"].map(at));
        assert_eq!(begins("2026-12-04T22:29:59Z"), []);
        assert_eq!(
            Window::parse("02:00-04:00").unwrap().next(at("2026-11-30T05:00:00Z")).0,
            at("2026-12-01T02:00:00Z")
        );
        for (text, shown) in [("Sun 02:00-06:00", "Sun 02:00-06:00 UTC"), ("2:00-4:00 UTC", "02:00-04:00 UTC")] {
            assert_eq!(Window::parse(text).unwrap().to_string(), shown);
        }
        for wrong in ["", "Sunday 02:00-06:00", "02:00", "02:00-02:00", "25:00-26:00", "02:60-03:00"] {
            assert!(Window::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn chores_follow_from_statistics() {
        let now = Timestamp(1_000 * DAY_MS);
        let ago = |days: i64| Some(now.plus_ms(-days * DAY_MS));
        let table = |name: &str| TableState {
            name: name.into(),
            rows: 100_000,
            dead: 0,
            changed: 0,
            bytes: 1_000,
            vacuumed_at: ago(100),
            analyzed_at: ago(100),
        };
        let index = |name: &str, bytes: u64, bloat_bytes: u64| IndexState {
            name: name.into(),
            table: "jobs".into(),
            bytes,
            bloat_bytes,
            is_leftover: false,
        };
        let large = 200 * 1024 * 1024;
        let state = StoreState {
            tables: vec![
                table("still"),
                TableState { dead: 50_000, vacuumed_at: ago(1), ..table("dying") },
                TableState { dead: 5, vacuumed_at: ago(8), ..table("rested") },
                TableState { dead: 5, vacuumed_at: ago(6), analyzed_at: ago(1), changed: 9, ..table("young") },
                TableState { changed: 1, analyzed_at: ago(8), ..table("changed") },
                TableState { analyzed_at: None, ..table("new") },
            ],
            indexes: vec![
                index("fat", large, large / 2),
                index("lean", large, large / 10),
                index("small", 1_000, 900),
                IndexState { is_leftover: true, ..index("jobs_pkey_ccnew", 10, 0) },
            ],
            ..StoreState::default()
        };
        let chores: Vec<String> =
            due(&state, &Thresholds::default(), now).iter().map(|due| due.chore.to_string()).collect();
        let expected = [
            "drop_leftover jobs_pkey_ccnew",
            "vacuum dying",
            "vacuum rested",
            "analyze changed",
            "analyze new",
            "reindex fat",
        ];
        assert_eq!(chores, expected);
        let file = StoreState { bytes: 1_000, free_bytes: Some(500), can_shrink: true, ..StoreState::default() };
        let chores: Vec<_> = due(&file, &Thresholds::default(), now).into_iter().map(|due| due.chore).collect();
        assert_eq!(chores, [Chore::Optimize, Chore::Check, Chore::Shrink]);
        let mut tried = Tried::default();
        tried.0.insert(Chore::Optimize, None);
        tried.0.insert(Chore::Check, Some(now));
        let may_try = |chore: &Chore, after_ms| tried.may_try(chore, now.plus_ms(after_ms));
        assert!(!may_try(&Chore::Optimize, FLOOR_MS), "it was done");
        assert!(!may_try(&Chore::Check, AGAIN_MS - 1) && may_try(&Chore::Check, AGAIN_MS));
    }
}
