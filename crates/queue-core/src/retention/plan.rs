//! What would go now, and what does not and why. The run asks the same questions and does what they say.

use std::collections::BTreeMap;

use super::{Action, Class, Cutoffs, DAY_SLACK_MS, Day, Note, Part, Policy, Rows, STEP_MAX_ROWS, SettledRow, days_end};
use crate::{
    filter::Filter,
    ids::{JobId, Name},
    journal::{JournalError, QueueSettings, Versioned, Within},
    stores::Stores,
    time::{DAY_MS, Timestamp},
};

/// Rows that a plan looks through to count what goes row by row.
const LOOKED_MAX: usize = 100_000;
/// Letters that a plan counts: pages of a list.
const LETTERS_MAX: usize = 10_000;
/// Days of the audit log that a plan looks at.
pub const AUDIT_DAYS_MAX: usize = 400;
/// Days that are held which a plan names one by one.
const HELD_MAX: usize = 50;

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// As far as was counted.
    pub rows: u64,
    /// There may be more.
    pub at_least: bool,
}

/// What does not go, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What: a day, or a class.
    pub what: String,
    /// About how many rows.
    pub rows: u64,
    /// Why.
    pub reason: String,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub class: Class,
    /// How long it is kept, in milliseconds; `None`: for ever, or for as long as it says of itself.
    pub age_ms: Option<i64>,
    /// What happens to what is old.
    pub action: Action,
    /// Tables of days that would be dropped now.
    pub partitions: Option<u64>,
    /// Rows that would go now, those of such tables among them.
    pub rows: Option<Count>,
    /// Bytes on disk that would be free.
    pub bytes: Option<u64>,
    /// When the next would go.
    pub next_at: Option<Timestamp>,
    /// What is old enough, and stays.
    pub held: Vec<Held>,
    /// What went so far.
    pub note: Option<Note>,
}

/// Every class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When this was true.
    pub at: Timestamp,
    /// Nothing goes, for this reason.
    pub hold: Option<String>,
    /// The last day that has its tables already; `None`: this store has none.
    pub ahead_to: Option<Timestamp>,
    /// The classes.
    pub lines: Vec<Line>,
}

/// The days of a part whose tables would be dropped now, and those that are old enough and are held.
pub fn droppable(days: &[Day], part: Part, cutoff: Option<Timestamp>) -> (Vec<Day>, Vec<Held>) {
    let (mut gone, mut held) = (Vec::new(), Vec::new());
    let Some(cutoff) = cutoff else { return (gone, held) };
    for day in days.iter().filter(|day| day.part == part && day.day.plus_ms(DAY_SLACK_MS) <= cutoff) {
        match reason_to_keep(day, cutoff) {
            None => gone.push(*day),
            Some(reason) => held.push(Held { what: date(day.day), rows: day.rows, reason }),
        }
    }
    (gone, held)
}

fn reason_to_keep(day: &Day, cutoff: Timestamp) -> Option<String> {
    let mut reasons = Vec::new();
    for (count, what) in [(day.live, "live"), (day.dead, "dead letters")] {
        if count > 0 {
            let more = if count > 1_000 { "more than " } else { "" };
            reasons.push(format!("{more}{} of its jobs are {what}", count.min(1_000)));
        }
    }
    if let Some(end) = day.last_end.filter(|end| *end >= cutoff) {
        reasons.push(format!("a job of it ended at {end}"));
    }
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

fn date(day: Timestamp) -> String {
    day.to_string().chars().take(10).collect()
}

/// The id below which settled jobs are looked through one by one; `None`: none of them. Where days have tables of their own,
/// younger days wait for these to be dropped whole, unless a queue keeps its jobs for a shorter time than others.
pub fn settled_bound(cutoffs: &Cutoffs, has_days: bool) -> Option<JobId> {
    let others = cutoffs.others.map(|at| if has_days { days_end(at) } else { at });
    let shorter = cutoffs.queues.values().filter(|own| cutoffs.others.is_none_or(|others| **own > others));
    shorter.copied().chain(others).max().map(JobId::first_of)
}

/// Whether a settled job goes row by row now.
pub fn is_old(row: &SettledRow, cutoffs: &Cutoffs) -> bool {
    row.finished_at.zip(cutoffs.for_queue(&row.queue)).is_some_and(|(end, cutoff)| end < cutoff)
}

/// The dead letters that would be archived now, in the words of an operation.
pub fn letters_filter(cutoff: Timestamp) -> String {
    format!("state = dead and finished_at < {cutoff}")
}

/// What would go now of each class. Reads a bounded number of rows; counts that are not exact say so.
///
/// # Errors
/// The journal's.
pub async fn plan(stores: &Stores, policy: &Policy) -> Result<Plan, JournalError> {
    let now = stores.clock.now();
    let days = stores.retention.days(Timestamp(i64::MAX)).await?;
    let queues = stores.catalog.queues().await?;
    let planner = Planner {
        stores,
        policy,
        now,
        cutoffs: Cutoffs::of(policy, &queues, now),
        notes: stores.retention.notes().await?,
        days: days.as_deref(),
        queues: &queues,
    };
    let mut lines = Vec::with_capacity(Class::ALL.len());
    for class in Class::ALL {
        lines.push(planner.line(class).await?);
    }
    let ahead_to = days.iter().flatten().map(|day| day.day).max();
    Ok(Plan { at: now, hold: policy.hold.clone(), ahead_to, lines })
}

struct Planner<'p> {
    stores: &'p Stores,
    policy: &'p Policy,
    now: Timestamp,
    cutoffs: Cutoffs,
    notes: BTreeMap<Class, Note>,
    days: Option<&'p [Day]>,
    queues: &'p BTreeMap<Name, Versioned<QueueSettings>>,
}

impl Planner<'_> {
    async fn line(&self, class: Class) -> Result<Line, JournalError> {
        let age_ms = self.policy.age_ms(class);
        let mut line = Line {
            class,
            age_ms,
            action: Action::Keep,
            partitions: None,
            rows: None,
            bytes: None,
            next_at: None,
            held: vec![],
            note: self.notes.get(&class).copied(),
        };
        match class {
            Class::Jobs => self.jobs(&mut line).await?,
            Class::Payloads => self.part(&mut line, &[Part::Payloads, Part::Memos], Rows::Payloads).await?,
            Class::Errors => self.part(&mut line, &[Part::Errors], Rows::Errors).await?,
            Class::Results => {
                // Its own time is the job's.
                line.action = Action::Delete;
                self.pile(&mut line, Rows::Results, self.now, 0).await?;
            }
            Class::DeadLetters => self.letters(&mut line).await?,
            Class::IdempotencyKeys => self.by_age(&mut line, Rows::IdempotencyKeys).await?,
            Class::CostDetails => self.by_age(&mut line, Rows::CostDetails).await?,
            Class::WebhookDeliveries => self.by_age(&mut line, Rows::WebhookDeliveries).await?,
            Class::Audit => self.audit(&mut line).await?,
            Class::Operations | Class::Events | Class::Caches => line.action = Action::Expire,
            Class::Archives => {
                let reason = "until the tenant is erased, or somebody deletes the objects".to_owned();
                line.held.push(Held { what: "archived dead letters".to_owned(), rows: 0, reason });
            }
        }
        line.held.truncate(HELD_MAX);
        Ok(line)
    }

    async fn jobs(&self, line: &mut Line) -> Result<(), JournalError> {
        let rows = self.rest_of_jobs().await?;
        match self.days {
            None => {
                line.action = Action::Delete;
                line.rows = Some(rows);
            }
            Some(days) => self.of_days(line, days, &[Part::Jobs], self.cutoffs.of_all(), rows),
        }
        for (queue, own) in self.queues.iter().filter_map(|(queue, of)| Some((queue, of.value.retention_ms?))) {
            let longer = self.policy.jobs_ms.is_some_and(|age| own > age.unsigned_abs());
            let reason = match longer {
                true => {
                    format!("is kept for {} d, and with it the days that have its jobs", own / DAY_MS.unsigned_abs())
                }
                false => format!("is kept for {} h; its jobs go row by row", own / 3_600_000),
            };
            line.held.push(Held { what: format!("queue {queue}"), rows: 0, reason });
        }
        Ok(())
    }

    fn of_days(&self, line: &mut Line, days: &[Day], parts: &[Part], cutoff: Option<Timestamp>, rest: Count) {
        line.action = Action::DropPartition;
        let (mut rows, mut bytes, mut tables) = (rest.rows, 0, 0);
        for (at, part) in parts.iter().enumerate() {
            let (gone, held) = droppable(days, *part, cutoff);
            tables += gone.len() as u64;
            rows += gone.iter().map(|day| day.rows).sum::<u64>();
            bytes += gone.iter().map(|day| day.bytes).sum::<u64>();
            // What holds one table of a day holds the others.
            if at == 0 {
                line.held.extend(held);
            }
        }
        (line.partitions, line.bytes) = (Some(tables), Some(bytes));
        line.rows = Some(Count { rows, at_least: rest.at_least });
        let young =
            |day: &&Day| parts.contains(&day.part) && cutoff.is_some_and(|at| day.day.plus_ms(DAY_SLACK_MS) > at);
        let first = days.iter().filter(young).map(|day| day.day).min();
        line.next_at = first.zip(cutoff).map(|(day, at)| day.plus_ms(DAY_SLACK_MS + self.now.since_ms(at)));
    }

    /// Settled jobs that go row by row.
    async fn rest_of_jobs(&self) -> Result<Count, JournalError> {
        let Some(below) = settled_bound(&self.cutoffs, self.days.is_some()) else { return Ok(Count::default()) };
        let dropped: Vec<Day> = droppable(self.days.unwrap_or_default(), Part::Jobs, self.cutoffs.of_all()).0;
        let goes_with_its_day = |id: JobId| {
            dropped.iter().any(|day| (JobId::first_of(day.day)..JobId::first_of(day.day.plus_ms(DAY_MS))).contains(&id))
        };
        let (mut count, mut after, mut looked) = (Count::default(), None, 0);
        loop {
            let page = self.stores.retention.settled(after, below, STEP_MAX_ROWS).await?;
            count.rows +=
                page.iter().filter(|row| is_old(row, &self.cutoffs) && !goes_with_its_day(row.id)).count() as u64;
            looked += page.len();
            after = page.last().map(|row| row.id);
            if page.len() < STEP_MAX_ROWS {
                return Ok(count);
            }
            if looked >= LOOKED_MAX {
                return Ok(Count { at_least: true, ..count });
            }
        }
    }

    async fn part(&self, line: &mut Line, parts: &[Part], rows: Rows) -> Result<(), JournalError> {
        match self.days {
            Some(days) => {
                let cutoff = self.policy.cutoff(line.class, self.now);
                self.of_days(line, days, parts, cutoff, Count::default());
                Ok(())
            }
            None => self.by_age(line, rows).await,
        }
    }

    async fn by_age(&self, line: &mut Line, rows: Rows) -> Result<(), JournalError> {
        let Some(age_ms) = line.age_ms else { return Ok(()) };
        line.action = Action::Delete;
        self.pile(line, rows, self.now.plus_ms(-age_ms), age_ms).await
    }

    async fn pile(&self, line: &mut Line, rows: Rows, before: Timestamp, age_ms: i64) -> Result<(), JournalError> {
        let pile = self.stores.retention.pile(rows, before).await?;
        line.rows = Some(Count { rows: pile.old, at_least: pile.old >= super::COUNT_MAX as u64 });
        line.next_at = pile.oldest.map(|at| at.plus_ms(age_ms));
        Ok(())
    }

    async fn letters(&self, line: &mut Line) -> Result<(), JournalError> {
        let Some(cutoff) = self.policy.cutoff(Class::DeadLetters, self.now) else { return Ok(()) };
        let groups = self.stores.reads.dead_groups(None, &Within::default()).await?;
        let first = groups.iter().map(|group| group.first_seen).min();
        // Mostly none is old enough, and nobody has to walk through all of them to find that out.
        let count = match first.is_some_and(|first| first < cutoff) {
            true => count_letters(self.stores, &letters_filter(cutoff), self.now).await?,
            false => Count::default(),
        };
        line.next_at = first.map(|at| at.plus_ms(self.now.since_ms(cutoff)));
        if self.stores.objects.is_some() {
            (line.action, line.rows) = (Action::Archive, Some(count));
            return Ok(());
        }
        line.rows = Some(Count::default());
        if count.rows > 0 {
            let reason =
                "there is no place for archives: set `[objects] url`, or delete them (`dlq delete`)".to_owned();
            line.held.push(Held { what: "dead letters".to_owned(), rows: count.rows, reason });
        }
        Ok(())
    }

    async fn audit(&self, line: &mut Line) -> Result<(), JournalError> {
        let Some(cutoff) = self.policy.cutoff(Class::Audit, self.now) else { return Ok(()) };
        let days = self.stores.audit.audit_days(AUDIT_DAYS_MAX).await?;
        let old = days.iter().filter(|head| is_old_day(head.day, cutoff));
        // A day's rows are numbered from 1 on.
        let rows = old.map(|head| head.seq.unsigned_abs()).sum();
        line.next_at = days
            .first()
            .map(|head| Timestamp(i64::from(head.day) * DAY_MS).plus_ms(DAY_MS + self.now.since_ms(cutoff)));
        if self.stores.objects.is_some() {
            let at_least = days.last().is_some_and(|head| days.len() >= AUDIT_DAYS_MAX && is_old_day(head.day, cutoff));
            (line.action, line.rows) = (Action::Export, Some(Count { rows, at_least }));
        } else {
            line.rows = Some(Count::default());
            if rows > 0 {
                let reason = "there is no place to export them to before they go: set `[objects] url`".to_owned();
                line.held.push(Held { what: "audit rows".to_owned(), rows, reason });
            }
        }
        Ok(())
    }
}

/// Whether all of a UTC day, counted from 1970, lies before this moment.
pub fn is_old_day(day: i32, cutoff: Timestamp) -> bool {
    (i64::from(day) + 1) * DAY_MS <= cutoff.0
}

/// How many dead letters such a filter means.
async fn count_letters(stores: &Stores, filter: &str, now: Timestamp) -> Result<Count, JournalError> {
    let filter = Filter::parse(filter, now).map_err(|error| JournalError::Corrupt(error.to_string()))?;
    let mut narrowed = filter.narrowed();
    let mut count = Count::default();
    loop {
        let found = stores.find(&filter, &narrowed, crate::journal::PAGE_MAX_ROWS).await?;
        count.rows += found.jobs.len() as u64;
        if found.next.is_none() {
            return Ok(count);
        }
        if count.rows >= LETTERS_MAX as u64 {
            return Ok(Count { at_least: true, ..count });
        }
        narrowed.before = found.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_goes_when_all_of_it_has_ended_for_long_enough() {
        let now = Timestamp(1_000 * DAY_MS);
        let day = |number: i64| Day {
            part: Part::Jobs,
            day: Timestamp(number * DAY_MS),
            rows: 10,
            bytes: 100,
            last_end: None,
            live: 0,
            dead: 0,
        };
        let cutoff = Some(now.plus_ms(-90 * DAY_MS));
        let late = Day { last_end: cutoff, ..day(900) };
        let early = Day { last_end: cutoff.map(|at| at.plus_ms(-1)), ..day(901) };
        let busy = Day { live: 1, dead: 1_001, ..day(902) };
        let days = [late, early, busy, day(908), day(909), Day { part: Part::Memos, ..day(800) }];
        let (gone, held) = droppable(&days, Part::Jobs, cutoff);
        assert_eq!(gone, [early, day(908)], "the 909th day has ended, and jobs of it may end a day later");
        let reasons: Vec<_> = held.iter().map(|one| &*one.reason).collect();
        assert_eq!(reasons.len(), 2);
        assert!(reasons[0].starts_with("a job of it ended at"), "{reasons:?}");
        assert_eq!(reasons[1], "1 of its jobs are live, more than 1000 of its jobs are dead letters");
        assert_eq!(droppable(&days, Part::Jobs, None), (vec![], vec![]));
    }

    #[test]
    fn rows_are_looked_through_where_days_do_not_do() {
        let (now, day) =
            (Timestamp(1_000 * DAY_MS + 5), |number: i64| Some(JobId::first_of(Timestamp(number * DAY_MS))));
        let mut cutoffs = Cutoffs { others: Some(now.plus_ms(-90 * DAY_MS)), queues: BTreeMap::new() };
        assert_eq!(settled_bound(&cutoffs, true), day(909));
        assert_eq!(settled_bound(&cutoffs, false), cutoffs.others.map(JobId::first_of));
        cutoffs.queues.insert("long".into(), Timestamp(5));
        assert_eq!(settled_bound(&cutoffs, true), day(909));
        cutoffs.queues.insert("short".into(), Timestamp(990 * DAY_MS));
        assert_eq!(settled_bound(&cutoffs, true), day(990));
        cutoffs.others = None;
        assert_eq!(settled_bound(&cutoffs, true), day(990));
    }
}
