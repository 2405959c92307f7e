//! What somebody should look at, worst first: each says what is wrong, since or until when, and where to go.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{
    Targets,
    money::{Budgets, NEARLY},
};
use crate::{
    pages::{
        history::History,
        queues::{OLD_S, Queues},
        workers::Workers,
    },
    words,
};

/// Alarms that are shown: one cause has many of them, and the first few name it.
const SHOWN_MAX: usize = 10;
/// Share of jobs that die, of those that end, from which something is wrong with more than single jobs.
const DYING: f64 = 0.1;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tone {
    Warn,
    Bad,
}

/// Something to look at.
#[derive(Clone, Debug)]
pub(super) struct Alarm {
    tone: Tone,
    /// What is wrong.
    pub(super) title: String,
    /// More of it.
    pub(super) text: String,
    /// Where to go.
    pub(super) href: String,
    /// What is there.
    pub(super) link: &'static str,
}

impl Alarm {
    /// Its class.
    pub(super) fn tone(&self) -> &'static str {
        match self.tone {
            Tone::Bad => "bad",
            Tone::Warn => "warn",
        }
    }
}

/// Whether jobs are taken at all.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Maintenance {
    on: bool,
    since: Option<String>,
    reason: Option<String>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Alarm>);

impl Found {
    fn add(&mut self, tone: Tone, title: impl Into<String>, text: impl Into<String>, way: (&'static str, String)) {
        let (link, href) = way;
        self.0.push(Alarm { tone, title: title.into(), text: text.into(), href, link });
    }

    /// The worst, and how many more there are.
    pub(super) fn worst_first(self) -> (Vec<Alarm>, usize) {
        let mut alarms = self.0;
        alarms.sort_by_key(|alarm| std::cmp::Reverse(alarm.tone));
        let more = alarms.len().saturating_sub(SHOWN_MAX);
        alarms.truncate(SHOWN_MAX);
        (alarms, more)
    }

    /// No jobs are taken.
    pub(super) fn maintenance(&mut self, maintenance: Option<&Maintenance>) {
        let Some(maintenance) = maintenance.filter(|maintenance| maintenance.on) else { return };
        let since =
            maintenance.since.as_deref().map(|at| format!(" since {} UTC", words::minute(at))).unwrap_or_default();
        let reason = maintenance.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let text = format!("Submits are refused and workers claim nothing{since}{reason}.");
        self.add(Tone::Bad, "Maintenance is on.", text, ("Maintenance", "/dashboard/backups".into()));
    }

    /// Nobody works, or somebody was lost.
    pub(super) fn workers(&mut self, queues: Option<&Queues>, workers: Option<&Workers>) {
        let Some(workers) = workers else { return };
        let here = || ("Workers", "/dashboard/workers".to_owned());
        let waiting: u64 = queues.map_or(0, |queues| queues.queues.iter().map(|queue| queue.metrics.waiting).sum());
        if workers.claiming().next().is_none() {
            let wait = match waiting {
                0 => "No job waits for one.".to_owned(),
                some => format!("{} wait.", words::plural(some, "job")),
            };
            let tone = if waiting > 0 { Tone::Bad } else { Tone::Warn };
            let draining = workers.workers.iter().filter(|worker| worker.alive).count() as u64;
            let why = match draining {
                0 => "None is alive.".to_owned(),
                some => format!("{} drain.", words::plural(some, "worker")),
            };
            self.add(tone, "No worker claims jobs.", format!("{why} {wait}"), here());
        }
        let lost: Vec<_> = workers.workers.iter().filter(|worker| !worker.alive).map(|worker| &*worker.host).collect();
        if let Some(first) = lost.first() {
            let title = format!("{} lost.", words::plural(lost.len() as u64, "worker"));
            let others = if lost.len() > 1 { " and others" } else { "" };
            let text = format!("{first}{others} cannot be heard; the jobs went back to their queues.");
            self.add(Tone::Warn, title, text, here());
        }
    }

    /// Queues that stand or grow old.
    pub(super) fn queues(&mut self, queues: Option<&Queues>, unserved: &BTreeSet<String>) {
        for queue in queues.map(|queues| queues.queues.as_slice()).unwrap_or_default() {
            let here = || ("Queue", queue.href());
            let held = queue.metrics.waiting + queue.metrics.parked;
            if unserved.contains(&queue.queue) {
                let text = format!(
                    "{} wait, the oldest for {}; workers serve other queues or kinds.",
                    words::plural(queue.metrics.waiting, "job"),
                    queue.oldest()
                );
                self.add(Tone::Bad, format!("No worker serves {}.", queue.queue), text, here());
            } else if queue.paused {
                let until =
                    queue.until.as_deref().map(|at| format!(" until {} UTC", words::minute(at))).unwrap_or_default();
                let reason = queue.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                let text = format!("{} wait{until}{reason}.", words::plural(held, "job"));
                self.add(Tone::Warn, format!("{} is paused.", queue.queue), text, here());
            } else if queue.metrics.waiting > 0 && queue.metrics.oldest_ready_seconds >= OLD_S {
                let tone = if queue.tone() == "bad" { Tone::Bad } else { Tone::Warn };
                let text = format!(
                    "The oldest of {} has waited {}.",
                    words::plural(queue.metrics.waiting, "job"),
                    queue.oldest()
                );
                self.add(tone, format!("{} is behind.", queue.queue), text, here());
            }
        }
    }

    /// Providers that are not asked.
    pub(super) fn targets(&mut self, targets: Option<&Targets>) {
        let Some(targets) = targets else { return };
        let tail = |until: &Option<String>, reason: &Option<String>| {
            let until = until.as_deref().map(|at| format!(" until {} UTC", words::minute(at))).unwrap_or_default();
            let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{until}{reason}")
        };
        for target in &targets.targets {
            let here = ("Target", target.href());
            let name = &target.target;
            match target.breaker_word() {
                "open" => {
                    let text = format!(
                        "Its calls failed: it is not asked{}.",
                        tail(&target.breaker.until, &target.breaker.reason)
                    );
                    self.add(Tone::Bad, format!("The breaker of {name} is open."), text, here);
                }
                _ if target.paused => {
                    let text = format!("An operator has said so{}.", tail(&target.until, &target.reason));
                    self.add(Tone::Warn, format!("{name} is paused."), text, here);
                }
                _ if target.blocked_until.is_some() => {
                    let text =
                        format!("It has asked for patience{}.", tail(&target.blocked_until, &target.blocked_reason));
                    self.add(Tone::Warn, format!("{name} is not asked."), text, here);
                }
                _ => {}
            }
        }
        for account in &targets.accounts {
            let text = format!("No model of it is asked{}.", tail(&account.until, &account.reason));
            let title = format!("The account {} is exhausted.", account.account);
            self.add(Tone::Bad, title, text, ("Targets", "/dashboard/targets".into()));
        }
    }

    /// Budgets that are spent, or nearly.
    pub(super) fn budgets(&mut self, budgets: Option<&Budgets>) {
        let Some(budgets) = budgets else { return };
        for line in budgets.lines().filter(|line| line.share >= NEARLY) {
            let (tone, what) =
                if line.share >= 1.0 { (Tone::Bad, "is spent") } else { (Tone::Warn, "is nearly spent") };
            let text = format!("{}; then {}.", line.words(), line.consequence());
            self.add(tone, format!("The budget of {} {what}.", line.scope()), text, ("Budget", line.href()));
        }
    }

    /// Jobs die in numbers.
    pub(super) fn errors(&mut self, history: Option<&History>) {
        if let Some(rate) = history.and_then(History::error_rate).filter(|rate| *rate >= DYING) {
            let text = format!("Of the jobs that ended in the last minutes, {} died.", words::percent(rate));
            self.add(Tone::Bad, "Many jobs die.", text, ("Dead letters", "/dashboard/dead-letters".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(of: impl FnOnce(&mut Found)) -> Vec<(String, String)> {
        let mut found = Found::default();
        of(&mut found);
        let (alarms, _) = found.worst_first();
        alarms.into_iter().map(|alarm| (alarm.tone().to_owned(), alarm.title)).collect()
    }

    fn read<T: for<'de> Deserialize<'de>>(text: &str) -> T {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn nobody_works() {
        let queues: Queues = read(r#"{"queues":[{"queue":"llm","metrics":{"waiting":5}}]}"#);
        let none: Workers = read(r#"{"workers":[]}"#);
        let lost: Workers = read(r#"{"workers":[{"host":"a","alive":false},{"host":"b","alive":true,"slots":1}]}"#);
        let draining: Workers = read(r#"{"workers":[{"host":"a","alive":true,"draining":true}]}"#);
        let of = |workers: &Workers| found(|found| found.workers(Some(&queues), Some(workers)));
        assert_eq!(of(&none), [("bad".into(), "No worker claims jobs.".into())]);
        assert_eq!(of(&draining), [("bad".into(), "No worker claims jobs.".into())]);
        assert_eq!(of(&lost), [("warn".into(), "1 worker lost.".into())]);
        let idle = found(|found| found.workers(Some(&Queues::default()), Some(&none)));
        assert_eq!(idle, [("warn".into(), "No worker claims jobs.".into())], "nothing waits");
        assert!(found(|found| found.workers(Some(&queues), None)).is_empty(), "not known is no alarm");
    }

    #[test]
    fn the_worst_stands_first() {
        let queues: Queues = read(
            r#"{"queues":[
            {"queue":"a","paused":true,"metrics":{"waiting":1}},
            {"queue":"b","metrics":{"waiting":1,"oldest_ready_seconds":400}},
            {"queue":"c","metrics":{"waiting":1,"oldest_ready_seconds":10}}]}"#,
        );
        let targets: Targets = read(
            r#"{"targets":[{"target":"x","breaker":{"state":"closed"}},{"target":"y","breaker":{"state":"open"}},
            {"target":"z","paused":true,"breaker":{"state":"closed"}}],"accounts":[]}"#,
        );
        let alarms = found(|found| {
            found.queues(Some(&queues), &BTreeSet::from(["c".to_owned()]));
            found.targets(Some(&targets));
        });
        let titles: Vec<_> = alarms.iter().map(|(tone, title)| format!("{tone} {title}")).collect();
        assert_eq!(
            titles,
            [
                "bad b is behind.",
                "bad No worker serves c.",
                "bad The breaker of y is open.",
                "warn a is paused.",
                "warn z is paused."
            ]
        );
    }

    #[test]
    fn a_budget_alarms_before_it_is_spent() {
        let budgets = |spent: &str| -> Budgets {
            read(&format!(
                r#"{{"budgets":[{{"scope":"tenant:acme","limits":[{{"measure":"usd","period":"day","limit":"5","spent":"{spent}"}}]}}]}}"#
            ))
        };
        let of = |spent: &str| found(|found| found.budgets(Some(&budgets(spent))));
        assert!(of("3.9").is_empty());
        assert_eq!(of("4"), [("warn".into(), "The budget of tenant acme is nearly spent.".into())]);
        assert_eq!(of("5"), [("bad".into(), "The budget of tenant acme is spent.".into())]);
    }
}
