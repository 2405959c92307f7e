//! What every witness says of one job, put side by side.

use std::collections::{BTreeMap, HashMap};

use super::{
    super::{
        history::{ClientEvent, Ending, ProviderEvent, Wish},
        tables::{Attempt, Job},
    },
    Evidence, Report, Rule, SAME_MOMENT_US, Stretch,
};

/// One job.
pub(super) struct Case<'a> {
    /// What was asked.
    pub(super) wish: &'a Wish,
    /// The id that the client was told, if it was.
    pub(super) id: Option<&'a str>,
    /// What whoever cancelled it was told.
    pub(super) cancel_won: Option<bool>,
    /// Whether whoever redrove it was told that it lives again.
    pub(super) redriven: Option<bool>,
    /// When its queue was to be resumed after it was seen waiting there, in milliseconds since the Unix epoch.
    pub(super) resumed_at: Option<i64>,
    /// Whether it was seen to be claimed while its queue was said to be paused.
    pub(super) was_claimed: bool,
    /// Its rows: one, if all is well.
    pub(super) rows: Vec<&'a Job>,
    pub(super) attempts: Vec<&'a Attempt>,
    /// Its calls in the order of their arrival.
    pub(super) calls: Vec<Call>,
    pub(super) charges: usize,
    /// Ledger rows that say `yes`.
    pub(super) billed: usize,
    /// Ledger rows that say `maybe`.
    pub(super) maybe: usize,
}

/// One provider call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) began_us: u64,
    pub(super) began_ms: i64,
    /// When and how it ended; `None` if the run was over before.
    pub(super) end: Option<(u64, Ending)>,
}

impl Case<'_> {
    /// Calls that got a whole answer.
    pub(super) fn answered(&self) -> usize {
        self.calls.iter().filter(|call| matches!(call.end, Some((_, Ending::Answered)))).count()
    }

    /// From its first call to its last, with room for a provider that reads a request after its sender was killed.
    pub(super) fn calling(&self) -> Stretch {
        let began = |call: Option<&Call>| call.map_or(0, |call| call.began_us);
        Stretch { from: began(self.calls.first()).saturating_sub(SAME_MOMENT_US), to: began(self.calls.last()) }
    }

    /// How findings name it.
    pub(super) fn name(&self) -> String {
        format!("{} ({:?}, {})", self.wish.mark, self.wish.work, self.id.unwrap_or("no id"))
    }
}

/// All jobs of a run.
pub(super) struct Cases<'a> {
    pub(super) all: Vec<Case<'a>>,
    by_id: HashMap<&'a str, usize>,
}

impl<'a> Cases<'a> {
    /// Puts the evidence side by side, and notes what belongs to nobody.
    pub(super) fn gather(evidence: &'a Evidence, report: &mut Report) -> Self {
        let mut all = wishes(evidence, report);
        let mut by_mark = HashMap::new();
        let mut by_id = HashMap::<&str, usize>::new();
        for (at, case) in all.iter().enumerate() {
            if by_mark.insert(case.wish.mark.as_str(), at).is_some() {
                report.violate(Rule::Witness, format!("the clients have used the mark {} twice", case.wish.mark));
            }
            if let Some(id) = case.id
                && let Some(other) = by_id.insert(id, at)
            {
                let seen = format!("{} and {} were given one id", all[other].name(), case.name());
                report.violate(Rule::Identity, seen);
            }
        }
        report.accepted = by_id.len();
        for call in calls(evidence, report) {
            match by_mark.get(call.0) {
                Some(&at) => all[at].calls.push(call.1),
                None => {
                    report.violate(Rule::Witness, format!("a call with the mark `{}`, which no client knows", call.0))
                }
            }
        }
        let everybody_answered = all.iter().all(|case| case.id.is_some());
        for job in &evidence.tables.jobs {
            match by_id.get(job.id.as_str()) {
                Some(&at) => all[at].rows.push(job),
                // Before its answer a job may exist or not; with every answer given, none is left over.
                None if everybody_answered => {
                    report.violate(
                        Rule::Identity,
                        format!("the journal has a job {} that no client was told of", job.id),
                    );
                }
                None => {}
            }
        }
        for attempt in &evidence.tables.attempts {
            if let Some(&at) = by_id.get(attempt.job_id.as_str()) {
                all[at].attempts.push(attempt);
            }
        }
        for charge in &evidence.tables.charges {
            if let Some(&at) = by_id.get(charge.job_id.as_str()) {
                all[at].charges += 1;
            }
        }
        for spend in &evidence.tables.spend {
            if let Some(&at) = by_id.get(spend.job_id.as_str()) {
                all[at].billed += usize::from(spend.billed == "yes");
                all[at].maybe += usize::from(spend.billed == "maybe");
            }
        }
        told(evidence, &by_id, &mut all);
        Self { all, by_id }
    }

    /// The job with this id.
    pub(super) fn by_id(&self, id: &str) -> Option<&Case<'a>> {
        self.all.get(*self.by_id.get(id)?)
    }
}

/// What rivals saw and were told.
fn told(evidence: &Evidence, by_id: &HashMap<&str, usize>, all: &mut [Case<'_>]) {
    let mut waiting: HashMap<&str, &[String]> = HashMap::new();
    let at = |id: &String| by_id.get(id.as_str()).copied();
    for line in &evidence.clients {
        match &line.event {
            ClientEvent::Redriven { id, won } => at(id).into_iter().for_each(|at| all[at].redriven = Some(*won)),
            ClientEvent::Seen { queue, waiting: seen, claimed } => {
                waiting.insert(queue, seen);
                claimed.iter().filter_map(at).for_each(|at| all[at].was_claimed = true);
            }
            ClientEvent::Resuming { queue } => {
                let seen = waiting.remove(queue.as_str()).unwrap_or_default();
                seen.iter().filter_map(at).for_each(|at| all[at].resumed_at = Some(line.wall_ms));
            }
            _ => {}
        }
    }
}

/// Every job that was due, with the id that its client was told.
fn wishes<'a>(evidence: &'a Evidence, report: &mut Report) -> Vec<Case<'a>> {
    let mut ids: HashMap<u64, &Vec<String>> = HashMap::new();
    for line in &evidence.clients {
        if let ClientEvent::Accepted { request, ids: told, .. } = &line.event
            && ids.insert(*request, told).is_some_and(|before| before != told)
        {
            report.violate(Rule::Identity, format!("request {request} was told of two jobs"));
        }
    }
    let mut cancels = HashMap::new();
    for line in &evidence.clients {
        if let ClientEvent::Cancelled { request, won } = line.event {
            cancels.insert(request, won);
        }
    }
    let mut all = Vec::new();
    for line in &evidence.clients {
        let ClientEvent::Due { request, jobs } = &line.event else { continue };
        for (at, wish) in jobs.iter().enumerate() {
            let id = ids.get(request).and_then(|ids| ids.get(at)).map(String::as_str);
            let (rows, attempts, calls) = (vec![], vec![], vec![]);
            let cancel_won = cancels.get(request).copied();
            all.push(Case {
                wish,
                id,
                cancel_won,
                redriven: None,
                resumed_at: None,
                was_claimed: false,
                rows,
                attempts,
                calls,
                charges: 0,
                billed: 0,
                maybe: 0,
            });
        }
    }
    all
}

/// The provider's calls with their marks, in the order of arrival.
fn calls<'a>(evidence: &'a Evidence, report: &mut Report) -> Vec<(&'a str, Call)> {
    let mut calls: BTreeMap<u64, (&str, Call)> = BTreeMap::new();
    for line in &evidence.provider {
        match &line.event {
            ProviderEvent::Began { call, mark } => {
                let began = Call { began_us: line.mono_us, began_ms: line.wall_ms, end: None };
                calls.insert(*call, (mark, began));
            }
            ProviderEvent::Ended { call, how } => match calls.get_mut(call) {
                Some((_, open)) if open.end.is_none() => open.end = Some((line.mono_us, *how)),
                _ => report.violate(Rule::Witness, format!("call {call} ends without having begun, or twice")),
            },
        }
    }
    report.calls = calls.len();
    let mut calls: Vec<_> = calls.into_values().collect();
    calls.sort_by_key(|(_, call)| call.began_us);
    calls
}
