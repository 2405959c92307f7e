//! The promises, one function each.

use std::time::Duration;

use super::{
    super::{
        history::{ClientEvent, Ending, InjectorEvent, Race, Store, Work},
        scenario::Demands,
        tables::{self, Attempt, Job},
    },
    Evidence, Faults, Report, Restart, Rule, SAME_MOMENT_US, Stretch,
    cases::{Call, Case, Cases},
    races,
};

/// A process that is started while a store is away refuses to start within this time.
const REFUSAL_MAX_US: u64 = 20_000_000;
/// Workers that must have died with a job before it may be called poison.
const POISON_KILLS: usize = 3;
/// Processes that such a job costs: three, and one more where another suspect died with it in the third.
const POISON_DEATHS_MAX: usize = 4;
/// Processes that a job costs which never yields: one for each attempt that it has, and as many as a killer where it froze some.
const SPIN_DEATHS_MAX: usize = 2 + POISON_DEATHS_MAX;
/// How a worker ends that wants to be started again, since a handler holds up one of its threads.
const RECYCLED: i32 = 75;

/// Every request has its answer, and each answer is one that the load deserves.
pub(super) fn requests(evidence: &Evidence, cases: &Cases<'_>, report: &mut Report) {
    let mut due = 0;
    for line in &evidence.clients {
        match &line.event {
            ClientEvent::Due { .. } => due += 1,
            ClientEvent::Refused { request, why, .. } => {
                report.violate(Rule::Unanswered, format!("request {request} was refused: {why}"));
            }
            _ => {}
        }
    }
    report.requests = due;
    let without = cases.all.iter().filter(|case| case.id.is_none());
    without.for_each(|case| report.violate(Rule::Unanswered, format!("{} was never accepted", case.name())));
}

/// All that concerns one job.
pub(super) fn judge(case: &Case<'_>, faults: &Faults, demands: Demands, report: &mut Report) {
    early(case, demands, report);
    repeated(case, faults, report);
    again_after_an_answer(case, faults, report);
    restarts(case, faults, report);
    if demands.no_attempt_fenced {
        fenced(case, report);
    }
    if case.id.is_none() {
        return;
    }
    match &case.rows[..] {
        rows if rows.len() < 2 && matches!(case.wish.race, Some(Race::Archive { .. })) => {
            races::letter(case, rows.first().copied(), demands, report);
        }
        [] => report.violate(Rule::Lost, format!("{} was accepted and is not in the journal", case.name())),
        [job] => {
            end(case, job, faults, demands, report);
            attempts(case, job, report);
            if !demands.clocks_differ {
                outlived(case, job, report);
            }
            money(case, job, faults, report);
            if matches!(case.wish.race, Some(Race::Pause { .. })) {
                races::pause(case, job, demands, report);
            }
        }
        rows => report.violate(Rule::SettledTwice, format!("{} has {} rows", case.name(), rows.len())),
    }
}

/// The job has ended, once, and as it was asked to.
fn end(case: &Case<'_>, job: &Job, faults: &Faults, demands: Demands, report: &mut Report) {
    if job.standing == tables::LIVE {
        return report.violate(Rule::NotDrained, format!("{} is still live", case.name()));
    }
    let ends = case.attempts.iter().filter(|attempt| is_end(&attempt.outcome)).count();
    if ends > 1 {
        report.violate(Rule::SettledTwice, format!("{} has {ends} attempts that ended it", case.name()));
    }
    let wanted = match case.wish.work {
        work if work == Work::ProbeDies || work.ends_process() || work.holds_thread() => tables::DEAD,
        _ => tables::SUCCEEDED,
    };
    let class = job.error_class.as_deref().unwrap_or("no error");
    if case.wish.work.ends_process() {
        killer(case, class, faults, report);
    } else if case.wish.work.holds_thread() {
        holder(case, class, report);
    } else if matches!(case.wish.race, Some(Race::Cancel { .. })) {
        races::cancel(case, job, report);
    } else if class == "poison" {
        conviction(case, job, faults, report);
    } else if job.standing != wanted {
        report.violate(Rule::WrongEnd, format!("{} ended with standing {} ({class})", case.name(), job.standing));
    }
    let Some(finished_at) = job.finished_at.filter(|_| !demands.clocks_differ) else { return };
    for call in case.calls.iter().filter(|call| call.began_ms > finished_at) {
        let late = call.began_ms - finished_at;
        report.violate(Rule::CallAfterEnd, format!("{} called {late} ms after its end", case.name()));
    }
}

/// A job that ends its process is found out, and costs no more of them than it must; what dies from outside meanwhile
/// convicts nobody.
fn killer(case: &Case<'_>, class: &str, faults: &Faults, report: &mut Report) {
    let lost = case.attempts.iter().filter(|attempt| attempt.outcome == "lost").count();
    if class != "poison" || lost > POISON_DEATHS_MAX + faults.from_outside {
        report.violate(Rule::WrongEnd, format!("{} ended with {class} after {lost} lost attempts", case.name()));
    }
}

/// A job that does not yield has spent its attempts; one that froze its workers with others is taken for a killer.
fn holder(case: &Case<'_>, class: &str, report: &mut Report) {
    if !["timeout", "poison"].contains(&class) {
        report.violate(Rule::WrongEnd, format!("{} ended with {class}", case.name()));
    }
    report.timed_out_held += usize::from(class == "timeout");
}

/// The documents say so: three outside kills during one job's attempts convict it. Each attempt that they cost is a row;
/// that there were so many kills before the verdict, the injector says. Some attempts count for nothing, so there may be
/// more of both.
fn conviction(case: &Case<'_>, job: &Job, faults: &Faults, report: &mut Report) {
    report.convicted += 1;
    let lost = case.attempts.iter().filter(|attempt| attempt.outcome == "lost").count();
    let kills = job.finished_at.map_or(0, |at| faults.kills_until(at));
    if lost < POISON_KILLS || kills < POISON_KILLS {
        let seen = format!("{} was convicted after {lost} lost attempts and {kills} kills of workers", case.name());
        report.violate(Rule::WrongEnd, seen);
    }
}

pub(super) fn is_end(outcome: &str) -> bool {
    matches!(outcome, "succeed" | "dead" | "cancel")
}

/// Attempts are bounded, and the one that ended the job is the last one.
fn attempts(case: &Case<'_>, job: &Job, report: &mut Report) {
    if job.attempts > job.max_attempts {
        report.violate(Rule::Early, format!("{} spent {} of {} attempts", case.name(), job.attempts, job.max_attempts));
    }
    let last = case.attempts.iter().map(|attempt| attempt.epoch).max().unwrap_or_default();
    for attempt in case.attempts.iter().filter(|attempt| is_end(&attempt.outcome) && attempt.epoch < last) {
        let seen = format!("{} ended at epoch {} after epoch {last}", case.name(), attempt.epoch);
        report.violate(Rule::Epoch, seen);
    }
}

/// Nobody ends a job after it was handed to somebody else: by the sessions of its attempts, and by its calls, where each
/// attempt makes one.
fn outlived(case: &Case<'_>, job: &Job, report: &mut Report) {
    let (Some(began_at), Some(finished_at)) = (job.began_at, job.finished_at) else { return };
    let is_lost = |attempt: &&Attempt| attempt.outcome == "lost" && attempt.started_at == Some(began_at);
    if let Some(lost) = case.attempts.iter().copied().find(is_lost)
        && Some(&lost.session) == job.session.as_ref()
    {
        let seen = format!("{} was ended by the attempt that had lost it at epoch {}", case.name(), lost.epoch);
        report.violate(Rule::Epoch, seen);
    }
    let [first, .., last] = &case.calls[..] else { return };
    if case.wish.work == Work::Llm && began_at <= first.began_ms && last.began_ms < finished_at {
        let seen = format!(
            "{} was ended by the attempt of its first call, {} ms after a later one had called",
            case.name(),
            finished_at - last.began_ms
        );
        report.violate(Rule::Epoch, seen);
    }
}

/// An answer that its worker had time to keep is not paid for again.
fn again_after_an_answer(case: &Case<'_>, faults: &Faults, report: &mut Report) {
    for pair in case.calls.windows(2) {
        let [Call { began_us, end: Some((ended, Ending::Answered)), .. }, next] = pair else { continue };
        let may_be_cut = Stretch { from: began_us.saturating_sub(SAME_MOMENT_US), to: ended + SAME_MOMENT_US };
        let until_next = Stretch { from: *began_us, to: next.began_us };
        // While the journal is away nothing can be kept.
        if faults.kills_in(may_be_cut) == 0 && faults.outage_in(until_next) == 0 {
            report.violate(Rule::Duplicate, format!("{} was called again after a whole answer", case.name()));
        }
    }
}

/// Every answer is in the ledger, and a success that called a provider is charged once.
fn money(case: &Case<'_>, job: &Job, faults: &Faults, report: &mut Report) {
    let must_pay = job.standing == tables::SUCCEEDED && case.wish.work.calls_provider();
    if case.charges > 1 || must_pay && case.charges == 0 {
        report.violate(Rule::Charge, format!("{} is charged {} times", case.name(), case.charges));
    }
    if !case.wish.work.calls_provider() || job.standing == tables::LIVE {
        return;
    }
    let answered = case.answered();
    if job.standing == tables::SUCCEEDED && answered == 0 {
        report.violate(Rule::Witness, format!("{} succeeded without an answer of the provider", case.name()));
    }
    // An answer whose worker died before it could write is what `maybe` stands for. Where Redis forgot the lease as
    // well, the journal cannot know that anything ran: it has no write at a claim.
    let unrecorded = answered.saturating_sub(case.billed + case.maybe);
    report.unrecorded += unrecorded;
    if case.billed > answered || unrecorded > faults.forgotten_kills_in(case.calling()) {
        let seen = format!("{}: {answered} answers, {} rows billed, {} maybe", case.name(), case.billed, case.maybe);
        report.violate(Rule::Ledger, seen);
    }
}

/// No call, and no attempt that succeeded, before the job is due.
fn early(case: &Case<'_>, demands: Demands, report: &mut Report) {
    let Some(run_at) = case.wish.run_at_ms else { return };
    let by_journal = case.rows.iter().filter(|_| !demands.clocks_differ).filter_map(|job| job.began_at);
    let starts = case.calls.iter().map(|call| call.began_ms).chain(by_journal);
    if let Some(start) = starts.min().filter(|start| *start < run_at) {
        report.violate(Rule::Early, format!("{} started {} ms early", case.name(), run_at - start));
    }
}

/// More calls than the job needs are allowed only where workers died meanwhile, and one for each.
fn repeated(case: &Case<'_>, faults: &Faults, report: &mut Report) {
    let needed = match case.wish.work {
        Work::Llm => 1,
        Work::LlmFailsOnce => 2,
        _ => 0,
    };
    report.paid_twice += usize::from(case.answered() > 1);
    let Some(more) = case.calls.len().checked_sub(needed).filter(|more| *more > 0) else { return };
    report.repeated += 1;
    let kills = faults.kills_in(case.calling());
    if more > kills {
        let seen = format!("{} was called {more} times too often over {kills} kills of workers", case.name());
        report.violate(Rule::Duplicate, seen);
    }
}

/// How long the calls of killed workers waited for their repetition.
fn restarts(case: &Case<'_>, faults: &Faults, report: &mut Report) {
    for pair in case.calls.windows(2) {
        let [Call { end: Some((dropped, Ending::Dropped)), .. }, next] = pair else { continue };
        let around = Stretch { from: dropped.saturating_sub(SAME_MOMENT_US), to: dropped + SAME_MOMENT_US };
        if faults.kills_in(around) == 0 {
            continue;
        }
        let wait = Stretch { from: *dropped, to: next.began_us };
        let gap = wait.to.saturating_sub(wait.from);
        let keep = |place: &mut Option<Restart>, gap| {
            let restart = Restart { gap: Duration::from_micros(gap), mark: case.wish.mark.clone() };
            *place = place.take().max(Some(restart));
        };
        keep(&mut report.restart_with_outages, gap);
        keep(&mut report.restart, gap.saturating_sub(faults.outage_in(wait)));
    }
}

/// Where no worker died, no attempt was lost and no call cut off.
fn fenced(case: &Case<'_>, report: &mut Report) {
    let lost = case.attempts.iter().filter(|attempt| attempt.outcome == "lost").count();
    let recoveries: i64 = case.rows.iter().map(|job| job.recoveries).sum();
    let dropped = case.calls.iter().filter(|call| matches!(call.end, Some((_, Ending::Dropped)))).count();
    if lost > 0 || recoveries > 0 || dropped > 0 {
        let seen = format!("{}: {lost} attempts lost, {recoveries} recoveries, {dropped} calls cut off", case.name());
        report.violate(Rule::Fenced, seen);
    }
}

/// A flush that finds no call under way shows nothing.
pub(super) fn flushes(evidence: &Evidence, cases: &Cases<'_>, demands: Demands, report: &mut Report) {
    let forgets =
        |event: &InjectorEvent| matches!(event, InjectorEvent::Flushed | InjectorEvent::Down { store: Store::Redis });
    for line in evidence.injector.iter().filter(|line| forgets(&line.event)) {
        let under_way =
            |call: &&Call| call.began_us < line.mono_us && call.end.is_none_or(|(ended, _)| ended > line.mono_us);
        let count = cases.all.iter().flat_map(|case| &case.calls).filter(under_way).count();
        report.under_way_at_flush = Some(report.under_way_at_flush.map_or(count, |least| least.min(count)));
    }
    if demands.no_attempt_fenced && report.under_way_at_flush == Some(0) {
        report.violate(Rule::Witness, "a flush found no call under way: the run shows nothing");
    }
}

/// The counters tell of as many ends as there are rows: a second settle would have counted twice.
pub(super) fn totals(evidence: &Evidence, report: &mut Report) {
    let rows = |standing| evidence.tables.jobs.iter().filter(|job| job.standing == standing).count() as i64;
    let totals = &evidence.tables.totals;
    let archived: i64 = evidence.tables.archives.iter().map(|archive| archive.letters).sum();
    let pairs = [
        ("accepted", totals.accepted, evidence.tables.jobs.len() as i64 + archived),
        ("succeeded", totals.succeeded, rows(tables::SUCCEEDED)),
        ("dead", totals.dead, rows(tables::DEAD)),
        ("live", totals.live, rows(tables::LIVE)),
    ];
    for (word, counted, there) in pairs.into_iter().filter(|(_, counted, there)| counted != there) {
        report.violate(Rule::SettledTwice, format!("{counted} {word} are counted and {there} are there"));
    }
}

/// Nothing ended by itself, except that a start is refused while a store is away.
pub(super) fn processes(evidence: &Evidence, cases: &Cases<'_>, faults: &Faults, report: &mut Report) {
    let count = |wanted: fn(Work) -> bool| cases.all.iter().filter(|case| wanted(case.wish.work)).count();
    let (killers, spins) = (count(Work::ends_process), count(|work| work == Work::ProbeSpins));
    let by_jobs_max = killers * (POISON_DEATHS_MAX + faults.from_outside) + spins * SPIN_DEATHS_MAX;
    for line in &evidence.injector {
        let InjectorEvent::Ended { process, works, lived_ms, code } = &line.event else { continue };
        // It says of itself that a job spun.
        if *code == Some(RECYCLED) && (spins == 0 || !works) {
            report
                .violate(Rule::Died, format!("{process} wants to be started again after {lived_ms} ms: no job spins"));
            continue;
        }
        report.recycled += usize::from(*code == Some(RECYCLED));
        let lived_us = lived_ms.saturating_mul(1_000);
        let life = Stretch { from: line.mono_us.saturating_sub(lived_us), to: line.mono_us };
        if lived_us <= REFUSAL_MAX_US && faults.outage_in(life) > 0 {
            report.refused_starts += 1;
        } else if *works && report.ended_by_jobs < by_jobs_max {
            report.ended_by_jobs += 1;
        } else {
            report.violate(Rule::Died, format!("{process} ended by itself after {lived_ms} ms"));
        }
    }
}
