//! Where two ask for what only one can have: one of them was first, and both were told which.

use super::{
    super::{
        history::ClientEvent,
        scenario::Demands,
        tables::{self, Job},
    },
    Evidence, Report, Rule,
    cases::{Case, Cases},
    rules::is_end,
};

/// A cancel and the job's end.
pub(super) fn cancel(case: &Case<'_>, job: &Job, report: &mut Report) {
    let is_cancelled = job.standing == tables::CANCELLED;
    match case.cancel_won {
        Some(won) if won != is_cancelled => {
            let told = if won { "cancelled" } else { "ended" };
            report.violate(Rule::Race, format!("{} was said to be {told} and stands at {}", case.name(), job.standing));
        }
        Some(true) => report.races.0 += 1,
        Some(false) => report.races.1 += 1,
        // Nobody answered.
        None => {}
    }
}

/// A pause and a claim: what waited while its queue was said to be paused did not start before it was to be resumed. What was
/// claimed before goes on.
pub(super) fn pause(case: &Case<'_>, job: &Job, demands: Demands, report: &mut Report) {
    // Where a store fails meanwhile, what is read may be older than it seems.
    let Some(began_at) = job.began_at.filter(|_| demands.races > 0) else { return };
    match case.resumed_at {
        Some(resumed_at) if began_at < resumed_at => {
            let early_ms = resumed_at - began_at;
            let seen =
                format!("{} waited in a paused queue and started {early_ms} ms before it was resumed", case.name());
            report.violate(Rule::Race, seen);
        }
        Some(_) => report.races.0 += 1,
        None if case.was_claimed => report.races.1 += 1,
        None => {}
    }
}

/// A redrive and an archive: the letter lives again, or it is gone. `job`: its row, if it has one.
pub(super) fn letter(case: &Case<'_>, job: Option<&Job>, demands: Demands, report: &mut Report) {
    let mut ends: Vec<i64> =
        case.attempts.iter().filter(|attempt| is_end(&attempt.outcome)).map(|attempt| attempt.epoch).collect();
    ends.sort_unstable();
    if ends.windows(2).any(|pair| pair[0] == pair[1]) {
        report.violate(Rule::SettledTwice, format!("{} was ended twice at one epoch", case.name()));
    }
    match (case.redriven, job) {
        (_, Some(job)) if job.standing == tables::LIVE => {
            report.violate(Rule::NotDrained, format!("{} is still live", case.name()));
        }
        (Some(true), None) => {
            report.violate(Rule::Race, format!("{} was said to live again and is archived", case.name()))
        }
        (Some(false), Some(job)) => {
            let seen = format!("{} was said to be archived and stands at {}", case.name(), job.standing);
            report.violate(Rule::Race, seen);
        }
        (Some(true), Some(job)) if job.standing != tables::SUCCEEDED => {
            let seen = format!("{} was redriven and ended with standing {}", case.name(), job.standing);
            report.violate(Rule::WrongEnd, seen);
        }
        (None, _) if demands.races > 0 => {
            report.violate(Rule::Race, format!("whoever redrove {} was not told what became of it", case.name()));
        }
        (Some(true), _) => report.races.0 += 1,
        (Some(false), _) => report.races.1 += 1,
        // Nobody answered.
        (None, _) => {}
    }
}

/// Each archive has taken as many letters as it says, as its objects hold, and as are gone. Where a store or an API fails
/// meanwhile, an order whose answer was lost may have come before it and taken them: then it holds for all of them together.
pub(super) fn archives(evidence: &Evidence, cases: &Cases<'_>, demands: Demands, report: &mut Report) {
    let mut all_gone = 0;
    for line in &evidence.clients {
        let ClientEvent::Archived { operation, done, letters } = &line.event else { continue };
        let is_there = |id: &&String| cases.by_id(id).is_some_and(|case| !case.rows.is_empty());
        let gone = letters.len() - letters.iter().filter(is_there).count();
        all_gone += gone as i64;
        let archive = evidence.tables.archives.iter().find(|archive| archive.id == *operation);
        let kept = archive.map_or(0, |archive| archive.letters);
        if demands.races > 0 && (*done != gone as u64 || kept != gone as i64) {
            let seen =
                format!("{operation} says that it took {done} letters, its objects hold {kept}, and {gone} are gone");
            report.violate(Rule::Race, seen);
        }
    }
    let kept: i64 = evidence.tables.archives.iter().map(|archive| archive.letters).sum();
    if kept != all_gone {
        report.violate(Rule::Race, format!("all archives hold {kept} letters, and {all_gone} are gone"));
    }
}
