//! Races whose sides were told different things, and backups that are none.

use super::{
    super::super::{
        history::Race,
        tables::{Archive, Attempt},
    },
    *,
};

/// A clean run whose probe (or whose letter) races so, where contradictions are looked for.
fn racing(request: u64, race: Race) -> Run {
    let mut run = Run::clean();
    for line in &mut run.evidence.clients {
        if let ClientEvent::Due { request: number, jobs } = &mut line.event
            && *number == request
        {
            jobs[0].race = Some(race.clone());
        }
    }
    run.demands.races = 1;
    run
}

/// The race is found, and beside it only that there was no good one.
#[track_caller]
fn contradicts(run: &Run) {
    let mut rules: Vec<Rule> = run.check().violations.iter().map(|found| found.rule).collect();
    rules.retain(|rule| *rule != Rule::Witness);
    assert!(!rules.is_empty() && rules.iter().all(|rule| *rule == Rule::Race), "{rules:?}");
}

/// The probe waited in a paused queue that was to be resumed at 2,000 ms, and began at this moment.
fn paused(began_ms: i64) -> Run {
    let queue = || "q".to_owned();
    let mut run = racing(2, Race::Pause { queue: queue() });
    let waiting = vec!["id-2".to_owned()];
    line(&mut run.evidence.clients, 1_000, ClientEvent::Paused { queue: queue() });
    line(&mut run.evidence.clients, 1_050, ClientEvent::Seen { queue: queue(), waiting, claimed: vec![] });
    line(&mut run.evidence.clients, 2_000, ClientEvent::Resuming { queue: queue() });
    let job = run.row("id-2");
    (job.began_at, job.finished_at) = (Some(WALL + began_ms), Some(WALL + began_ms + 20));
    run
}

#[test]
fn a_job_that_waits_under_a_pause_and_starts_before_its_end_is_found() {
    let report = paused(2_000).check();
    assert_eq!((report.violations, report.races), (vec![], (1, 0)));
    contradicts(&paused(1_999));
    // Where stores fail meanwhile, what is read may be old.
    let mut run = paused(1_999);
    run.demands.races = 0;
    assert_eq!(run.check().violations, []);
}

#[test]
fn what_was_claimed_before_a_pause_goes_on() {
    let mut run = racing(2, Race::Pause { queue: "q".into() });
    let claimed = vec!["id-2".to_owned()];
    let seen = ClientEvent::Seen { queue: "q".into(), waiting: vec![], claimed };
    line(&mut run.evidence.clients, 1_050, seen);
    line(&mut run.evidence.clients, 2_000, ClientEvent::Resuming { queue: "q".into() });
    let report = run.check();
    assert_eq!((report.violations, report.races), (vec![], (0, 1)));
}

/// The letter was raced for: whether its redriver was told that it won, what is left of it, and what the archive says.
fn raced_for(won: Option<bool>, standing: Option<i64>, done: u64, kept: i64) -> Run {
    let mut run = racing(4, Race::Archive { queue: "q".into() });
    let id = "id-4".to_owned();
    if let Some(won) = won {
        line(&mut run.evidence.clients, 950, ClientEvent::Redriven { id: id.clone(), won });
    }
    let archived = ClientEvent::Archived { operation: "op".into(), done, letters: vec![id.clone()] };
    line(&mut run.evidence.clients, 960, archived);
    match standing {
        Some(standing) => run.row(&id).standing = standing,
        None => run.evidence.tables.jobs.retain(|job| job.id != id),
    }
    run.evidence.tables.archives.extend((kept > 0).then(|| Archive { id: "op".into(), letters: kept }));
    run.count();
    run.evidence.tables.totals.accepted += kept;
    run
}

#[test]
fn a_letter_lives_again_or_is_archived_and_both_are_told() {
    let report = raced_for(Some(true), Some(tables::SUCCEEDED), 0, 0).check();
    assert_eq!((report.violations, report.races), (vec![], (1, 0)));
    let report = raced_for(Some(false), None, 1, 1).check();
    assert_eq!((report.violations, report.races), (vec![], (0, 1)));
    for broken in [
        // Both: it lives, and an object holds it; or it was said to be gone.
        raced_for(Some(true), Some(tables::SUCCEEDED), 1, 1),
        raced_for(Some(true), Some(tables::SUCCEEDED), 0, 1),
        raced_for(Some(false), Some(tables::SUCCEEDED), 0, 0),
        // Neither: it is gone, and no object holds it; or it was said to live.
        raced_for(Some(false), None, 1, 0),
        raced_for(Some(false), None, 0, 1),
        raced_for(Some(true), None, 1, 1),
        // Nobody was told.
        raced_for(None, None, 1, 1),
    ] {
        contradicts(&broken);
    }
    for (standing, rule) in [(tables::DEAD, Rule::WrongEnd), (tables::LIVE, Rule::NotDrained)] {
        let found = raced_for(Some(true), Some(standing), 0, 0).check();
        assert_eq!(found.count(rule), 1, "{:?}", found.violations);
    }
}

#[test]
fn a_letter_may_die_in_each_of_its_lives_and_once_in_each() {
    let mut run = raced_for(Some(true), Some(tables::SUCCEEDED), 0, 0);
    let again = |epoch, outcome: &str| Attempt {
        job_id: "id-4".into(),
        epoch,
        number: 1,
        outcome: outcome.into(),
        session: "s".into(),
        started_at: None,
    };
    run.evidence.tables.attempts.push(again(3, "succeed"));
    assert_eq!(run.check().violations, []);
    run.evidence.tables.attempts.push(again(3, "dead"));
    run.is_only(Rule::SettledTwice);
}

/// A maker is killed at 1,000 ms, and a backup is begun anew after so long.
fn backed_up(after_ms: u64, fault: Option<&str>) -> Run {
    let mut run = Run::clean();
    run.demands.taken_over_within = Some(Duration::from_secs(10));
    let process = || "scheduler-0".to_owned();
    let lines = &mut run.evidence.injector;
    line(lines, 5_000, InjectorEvent::CopyBegan { process: process() });
    line(lines, 6_000, InjectorEvent::KilledInBackup { process: process() });
    line(lines, 6_000 + after_ms, InjectorEvent::CopyBegan { process: process() });
    let good = InjectorEvent::Good { backup: "b".into(), fault: fault.map(str::to_owned) };
    line(lines, 90_000, good);
    run
}

#[test]
fn a_good_backup_that_is_not_whole_and_one_that_nobody_begins_anew_are_found() {
    let report = backed_up(9_000, None).check();
    let seen = (report.good_backups, report.kills_in_backups, report.backup_gap);
    assert_eq!((report.violations, seen), (vec![], (1, 1, Some(Duration::from_secs(9)))));
    backed_up(9_000, Some("database: is damaged")).is_only(Rule::Backup);
    backed_up(10_001, None).is_only(Rule::Slow);
    let mut run = backed_up(9_000, None);
    line(&mut run.evidence.injector, 91_000, InjectorEvent::KilledInBackup { process: "scheduler-1".into() });
    run.is_only(Rule::Backup);
    let mut run = Run::clean();
    run.demands.taken_over_within = Some(Duration::from_secs(10));
    run.is_only(Rule::Witness);
}
