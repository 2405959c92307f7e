//! Planted violations: each must be found, and found as what it is; the same run without it must be clean.

use super::{
    super::{
        history::{Ending, Race, Wish, Work},
        scenario::Met,
        tables::{Attempt, Charge, Job, Spend, Totals},
    },
    *,
};

mod races;

/// Where the wall clock of these runs begins.
const WALL: i64 = 1_800_000_000_000;

/// Builds a run line by line.
struct Run {
    evidence: Evidence,
    demands: Demands,
}

fn line<E>(lines: &mut Vec<Line<E>>, ms: u64, event: E) {
    lines.push(Line { n: lines.len() as u64, mono_us: ms * 1_000, wall_ms: WALL + ms as i64, event });
}

impl Run {
    /// One of each kind of work; nothing went wrong.
    fn clean() -> Self {
        let (clients, provider, injector) = (vec![], vec![], vec![]);
        let evidence = Evidence { clients, provider, injector, tables: Tables::default() };
        let mut run = Self { evidence, demands: Demands::default() };
        line(&mut run.evidence.clients, 0, ClientEvent::LoadBegan);
        for (number, work) in
            [Work::Llm, Work::LlmFailsOnce, Work::Probe, Work::ProbeFailsOnce, Work::ProbeDies].into_iter().enumerate()
        {
            run.job(number as u64, work);
        }
        run.call(100, 120, "j0", Ending::Answered);
        run.call(100, 120, "j1", Ending::Failed);
        run.call(700, 720, "j1", Ending::Answered);
        line(&mut run.evidence.clients, 900, ClientEvent::LoadEnded);
        line(&mut run.evidence.injector, 1_000, InjectorEvent::FaultsEnded);
        line(&mut run.evidence.injector, 3_000, InjectorEvent::Drained { live: 0 });
        run.count();
        run
    }

    fn job(&mut self, request: u64, work: Work) {
        let mark = format!("j{request}");
        let wish =
            Wish { mark, tenant: "t".into(), work, ms: 20, run_at_ms: (request == 0).then_some(WALL + 50), race: None };
        line(&mut self.evidence.clients, 10 + request, ClientEvent::Due { request, jobs: vec![wish] });
        let id = format!("id-{request}");
        line(
            &mut self.evidence.clients,
            20 + request,
            ClientEvent::Accepted { request, copy: 0, ids: vec![id.clone()] },
        );
        let dies = work == Work::ProbeDies;
        let tables = &mut self.evidence.tables;
        tables.jobs.push(Job {
            id: id.clone(),
            standing: if dies { tables::DEAD } else { tables::SUCCEEDED },
            epoch: 1,
            attempts: 1,
            max_attempts: 3,
            recoveries: 0,
            finished_at: Some(WALL + 800),
            error_class: dies.then(|| "permanent".to_owned()),
            session: (!dies).then(|| "s".to_owned()),
            began_at: (!dies).then_some(WALL + 690),
        });
        let outcome = if dies { "dead" } else { "succeed" };
        tables.attempts.push(Attempt {
            job_id: id.clone(),
            epoch: 1,
            number: 1,
            outcome: outcome.into(),
            session: "s".into(),
            started_at: Some(WALL + 690),
        });
        if work.calls_provider() {
            tables.spend.push(Spend { job_id: id.clone(), billed: "yes".into() });
        }
        if work.calls_provider() {
            tables.charges.push(Charge { job_id: id });
        }
    }

    fn call(&mut self, began: u64, ended: u64, mark: &str, how: Ending) {
        let lines = &mut self.evidence.provider;
        let call = lines.len() as u64;
        line(lines, began, ProviderEvent::Began { call, mark: mark.into() });
        line(lines, ended, ProviderEvent::Ended { call, how });
    }

    /// A worker is killed.
    fn kill(&mut self, ms: u64) {
        line(&mut self.evidence.injector, ms, InjectorEvent::Killed { process: "worker-0".into(), works: true });
    }

    fn row(&mut self, id: &str) -> &mut Job {
        self.evidence.tables.jobs.iter_mut().find(|job| job.id == id).unwrap()
    }

    fn attempt(&mut self, id: &str, epoch: i64, outcome: &str) {
        let (job_id, number, outcome) = (id.into(), epoch + 1, outcome.into());
        let attempt = Attempt { job_id, epoch, number, outcome, session: "other".into(), started_at: Some(WALL + 90) };
        self.evidence.tables.attempts.push(attempt);
    }

    /// The counters say what the rows say.
    fn count(&mut self) {
        let rows = |wanted| self.evidence.tables.jobs.iter().filter(|job| job.standing == wanted).count() as i64;
        let accepted = self.evidence.tables.jobs.len() as i64;
        let (succeeded, dead, live) = (rows(tables::SUCCEEDED), rows(tables::DEAD), rows(tables::LIVE));
        self.evidence.tables.totals = Totals { accepted, succeeded, dead, live };
    }

    fn check(&self) -> Report {
        check(&self.evidence, self.demands)
    }

    #[track_caller]
    fn is_only(&self, rule: Rule) {
        let violations = self.check().violations;
        assert!(
            !violations.is_empty() && violations.iter().all(|found| found.rule == rule),
            "{rule:?}: {violations:?}"
        );
    }
}

#[test]
fn a_run_in_which_nothing_is_wrong_is_clean() {
    let report = Run::clean().check();
    assert_eq!(report.violations, []);
    assert_eq!((report.accepted, report.succeeded, report.dead, report.calls), (5, 4, 1, 3));
    assert_eq!((report.silence, report.drain), (Duration::from_millis(600), Duration::from_secs(2)));
}

#[test]
fn a_202_that_is_in_no_table_is_lost() {
    let mut run = Run::clean();
    run.evidence.tables.jobs.retain(|job| job.id != "id-2");
    run.count();
    run.is_only(Rule::Lost);
}

#[test]
fn a_job_that_is_live_at_the_end_is_not_drained() {
    let mut run = Run::clean();
    run.row("id-2").standing = tables::LIVE;
    run.count();
    run.is_only(Rule::NotDrained);
}

#[test]
fn two_ends_of_a_job_are_found_in_rows_attempts_and_counters() {
    let mut run = Run::clean();
    let twin = run.row("id-2").clone();
    run.evidence.tables.jobs.push(twin);
    run.count();
    run.is_only(Rule::SettledTwice);

    let mut run = Run::clean();
    run.evidence.tables.attempts.retain(|attempt| attempt.job_id != "id-2");
    run.attempt("id-2", 2, "succeed");
    run.attempt("id-2", 2, "dead");
    run.is_only(Rule::SettledTwice);

    let mut run = Run::clean();
    run.evidence.tables.totals.succeeded += 1;
    run.is_only(Rule::SettledTwice);
}

#[test]
fn a_second_charge_and_a_missing_one_are_found() {
    let mut run = Run::clean();
    run.evidence.tables.charges.push(Charge { job_id: "id-0".into() });
    run.is_only(Rule::Charge);
    let mut run = Run::clean();
    run.evidence.tables.charges.retain(|charge| charge.job_id != "id-0");
    run.is_only(Rule::Charge);
}

#[test]
fn the_ledger_must_say_what_the_provider_says() {
    let mut run = Run::clean();
    run.evidence.tables.spend.retain(|spend| spend.job_id != "id-1");
    run.is_only(Rule::Ledger);
    let mut run = Run::clean();
    run.evidence.tables.spend.push(Spend { job_id: "id-0".into(), billed: "yes".into() });
    run.is_only(Rule::Ledger);
    // A `maybe` may stand for the answer that nobody could write down, and for nothing.
    let mut run = Run::clean();
    run.evidence.tables.spend.iter_mut().for_each(|spend| spend.billed = "maybe".into());
    assert_eq!(run.check().violations, []);
}

#[test]
fn an_answer_may_only_be_unrecorded_where_its_lease_was_forgotten() {
    let mut run = Run::clean();
    run.row("id-0").finished_at = Some(WALL + 9_000);
    run.call(5_000, 5_020, "j0", Ending::Answered);
    run.kill(130);
    run.is_only(Rule::Ledger);
    line(&mut run.evidence.injector, 18_000, InjectorEvent::Flushed);
    run.is_only(Rule::Ledger);
    line(&mut run.evidence.injector, 10_000, InjectorEvent::Down { store: Store::Redis });
    let report = run.check();
    assert_eq!((report.violations, report.unrecorded), (vec![], 1));
}

#[test]
fn a_call_after_the_end_is_found() {
    let mut run = Run::clean();
    run.row("id-0").finished_at = Some(WALL + 99);
    run.is_only(Rule::CallAfterEnd);
}

#[test]
fn a_start_before_its_time_and_too_many_attempts_are_found() {
    let mut run = Run::clean();
    run.evidence.provider.iter_mut().filter(|line| line.mono_us < 110_000).for_each(|line| line.wall_ms = WALL + 49);
    run.is_only(Rule::Early);
    let mut run = Run::clean();
    run.row("id-3").attempts = 4;
    run.is_only(Rule::Early);
}

#[test]
fn an_end_below_a_later_epoch_is_found() {
    let mut run = Run::clean();
    run.attempt("id-2", 2, "lost");
    run.is_only(Rule::Epoch);
}

#[test]
fn a_repeated_call_needs_a_worker_that_died_meanwhile() {
    let mut run = Run::clean();
    run.row("id-0").finished_at = Some(WALL + 9_000);
    run.call(5_000, 5_020, "j0", Ending::Answered);
    run.evidence.tables.spend.push(Spend { job_id: "id-0".into(), billed: "yes".into() });
    run.is_only(Rule::Duplicate);
    // Too late, and in between.
    run.kill(5_001);
    run.is_only(Rule::Duplicate);
    run.kill(110);
    let report = run.check();
    assert_eq!(report.violations, []);
    assert_eq!((report.repeated, report.paid_twice), (1, 1));
}

#[test]
fn an_attempt_that_is_lost_without_a_death_is_fenced() {
    let mut run = Run::clean();
    run.row("id-2").recoveries = 1;
    assert_eq!(run.check().violations, [], "where workers die, it is no fault");
    run.demands.no_attempt_fenced = true;
    line(&mut run.evidence.injector, 110, InjectorEvent::Flushed);
    run.is_only(Rule::Fenced);
    run.row("id-2").recoveries = 0;
    let report = run.check();
    assert_eq!((report.violations, report.under_way_at_flush), (vec![], Some(2)));
    line(&mut run.evidence.injector, 500, InjectorEvent::Flushed);
    run.is_only(Rule::Witness);
}

#[test]
fn a_killed_job_must_come_back_in_time_and_outages_do_not_count() {
    let mut run = Run::clean();
    run.demands.restart_within = Some(Duration::from_secs(15));
    run.evidence.provider.clear();
    run.row("id-0").finished_at = Some(WALL + 30_000);
    run.kill(110);
    run.call(100, 111, "j0", Ending::Dropped);
    run.call(112, 120, "j1", Ending::Answered);
    run.call(20_111, 20_120, "j0", Ending::Answered);
    run.is_only(Rule::SlowRestart);
    assert_eq!(run.check().restart, Some(Restart { gap: Duration::from_secs(20), mark: "j0".into() }));
    line(&mut run.evidence.injector, 1_000, InjectorEvent::Down { store: Store::Postgres });
    line(&mut run.evidence.injector, 7_000, InjectorEvent::Up { store: Store::Postgres });
    let report = run.check();
    assert_eq!(report.violations, []);
    let gaps = (report.restart.unwrap().gap, report.restart_with_outages.unwrap().gap);
    assert_eq!(gaps, (Duration::from_secs(14), Duration::from_secs(20)));
}

#[test]
fn a_process_may_only_end_by_itself_when_it_starts_without_a_store() {
    let ended = |lived_ms| InjectorEvent::Ended { process: "api-0".into(), works: false, lived_ms, code: Some(1) };
    let mut run = Run::clean();
    line(&mut run.evidence.injector, 6_500, ended(500));
    run.is_only(Rule::Died);
    line(&mut run.evidence.injector, 6_000, InjectorEvent::Down { store: Store::Postgres });
    line(&mut run.evidence.injector, 8_000, InjectorEvent::Up { store: Store::Postgres });
    let report = run.check();
    assert_eq!((report.violations, report.refused_starts), (vec![], 1));
    line(&mut run.evidence.injector, 50_000, ended(49_000));
    run.is_only(Rule::Died);
}

#[test]
fn requests_without_a_good_answer_and_ids_of_two_jobs_are_found() {
    let mut run = Run::clean();
    run.evidence.clients.retain(|line| !matches!(line.event, ClientEvent::Accepted { request: 2, .. }));
    run.is_only(Rule::Unanswered);
    let mut run = Run::clean();
    line(&mut run.evidence.clients, 950, ClientEvent::Refused { request: 2, copy: 0, why: "400".into() });
    run.is_only(Rule::Unanswered);
    let mut run = Run::clean();
    let mut stranger = run.row("id-2").clone();
    stranger.id = "id-9".into();
    run.evidence.tables.jobs.push(stranger);
    run.count();
    run.is_only(Rule::Identity);
}

#[test]
fn another_end_than_the_job_asked_for_is_found() {
    let mut run = Run::clean();
    let job = run.row("id-2");
    (job.standing, job.error_class) = (tables::DEAD, Some("internal".into()));
    run.count();
    run.is_only(Rule::WrongEnd);
}

/// Makes a job poison after so many lost attempts and kills of workers before its end.
fn convicted(id: &str, lost: i64, kills: u64) -> Run {
    let mut run = Run::clean();
    let job = run.row(id);
    (job.standing, job.error_class) = (tables::DEAD, Some("poison".into()));
    run.evidence.tables.attempts.retain(|attempt| attempt.job_id != id);
    (0..lost).for_each(|epoch| run.attempt(id, epoch, "lost"));
    (0..kills).for_each(|n| run.kill(100 + n));
    run.count();
    run
}

#[test]
fn a_conviction_without_three_lost_attempts_and_three_kills_is_found() {
    // Also of a job that was to end as a dead letter, though not as this one.
    for id in ["id-2", "id-4"] {
        convicted(id, 0, 0).is_only(Rule::WrongEnd);
        convicted(id, 2, 3).is_only(Rule::WrongEnd);
        convicted(id, 3, 2).is_only(Rule::WrongEnd);
        let mut run = convicted(id, 3, 2);
        run.kill(801);
        run.is_only(Rule::WrongEnd);
        for report in [convicted(id, 3, 3).check(), convicted(id, 4, 5).check()] {
            assert_eq!((report.violations, report.convicted), (vec![], 1));
        }
    }
}

#[test]
fn a_call_of_nobodys_is_found() {
    let mut run = Run::clean();
    run.call(800, 810, "unreadable", Ending::Answered);
    run.is_only(Rule::Witness);
}

/// A worker stood still while its job was called a second time.
fn taken_over() -> Run {
    let mut run = Run::clean();
    let job = run.row("id-0");
    (job.finished_at, job.began_at) = (Some(WALL + 9_000), Some(WALL + 6_900));
    run.evidence.provider.clear();
    run.call(100, 120, "j1", Ending::Answered);
    run.call(200, 2_000, "j0", Ending::Answered);
    run.call(7_000, 8_990, "j0", Ending::Answered);
    run.evidence.tables.spend.push(Spend { job_id: "id-0".into(), billed: "yes".into() });
    line(&mut run.evidence.injector, 500, InjectorEvent::Frozen { process: "worker-0".into() });
    line(&mut run.evidence.injector, 8_000, InjectorEvent::Thawed { process: "worker-0".into() });
    run
}

#[test]
fn who_stood_still_and_ends_its_job_after_another_took_it_over_is_found() {
    let mut run = taken_over();
    let report = run.check();
    assert_eq!((report.violations, report.zombies, report.taken_over), (vec![], 1, 1));
    // The attempt of the first call: it began before that, and ended the job beside the second call.
    run.row("id-0").began_at = Some(WALL + 190);
    run.is_only(Rule::Epoch);
    // Its session says the same where its loss was written down.
    let mut run = taken_over();
    run.attempt("id-0", 0, "lost");
    assert_eq!(run.check().violations, []);
    run.row("id-0").session = Some("other".into());
    run.row("id-0").began_at = Some(WALL + 90);
    run.evidence.provider.clear();
    run.call(100, 120, "j1", Ending::Answered);
    run.call(200, 2_000, "j0", Ending::Answered);
    run.evidence.tables.spend.pop();
    run.is_only(Rule::Epoch);
}

#[test]
fn a_call_after_an_answer_that_could_be_kept_is_found() {
    let mut run = taken_over();
    // It stood still long after the answer.
    run.evidence.injector.retain(|line| !matches!(line.event, InjectorEvent::Frozen { .. }));
    run.kill(5_000);
    run.is_only(Rule::Duplicate);
    // Unless nothing could be kept.
    line(&mut run.evidence.injector, 1_900, InjectorEvent::Down { store: Store::Postgres });
    line(&mut run.evidence.injector, 4_900, InjectorEvent::Up { store: Store::Postgres });
    assert_eq!(run.check().violations, []);
}

#[test]
fn answers_while_a_store_is_away_are_held_against_what_is_promised() {
    let mut run = Run::clean();
    for (ms, event) in [
        (1_000, InjectorEvent::Down { store: Store::Postgres }),
        (9_000, InjectorEvent::Rising { store: Store::Postgres }),
        (9_500, InjectorEvent::Up { store: Store::Postgres }),
        (20_000, InjectorEvent::Down { store: Store::Redis }),
        (29_000, InjectorEvent::Rising { store: Store::Redis }),
        (29_500, InjectorEvent::Up { store: Store::Redis }),
    ] {
        line(&mut run.evidence.injector, ms, event);
    }
    let refused = |run: &mut Run, ms, request| {
        line(&mut run.evidence.clients, ms, ClientEvent::Sent { request, copy: 0, api: 0 });
        let why = "503 not now".to_owned();
        line(&mut run.evidence.clients, ms + 1_500, ClientEvent::ComeAgain { request, copy: 0, why });
    };
    refused(&mut run, 3_000, 2);
    let report = run.check();
    assert_eq!((report.violations, report.refusal), (vec![], Some(Duration::from_millis(1_500))));
    run.demands.refuses_within = Some(Duration::from_secs(1));
    run.is_only(Rule::Slow);
    run.demands = Demands { accepts_without_redis: true, ..Demands::default() };
    assert_eq!(run.check().violations, []);
    refused(&mut run, 23_000, 2);
    run.is_only(Rule::Refusing);
    run.demands = Demands::default();
    line(&mut run.evidence.clients, 30_000, ClientEvent::Sent { request: 3, copy: 0, api: 0 });
    assert_eq!(run.check().violations, []);
    let mut run = Run::clean();
    line(&mut run.evidence.injector, 3_000, InjectorEvent::Down { store: Store::Postgres });
    line(&mut run.evidence.injector, 9_000, InjectorEvent::Rising { store: Store::Postgres });
    line(&mut run.evidence.clients, 5_000, ClientEvent::Sent { request: 2, copy: 0, api: 0 });
    let ids = vec!["id-2".to_owned()];
    line(&mut run.evidence.clients, 5_100, ClientEvent::Accepted { request: 2, copy: 0, ids });
    run.is_only(Rule::Premature);
}

#[test]
fn one_key_and_two_jobs_are_found() {
    let mut run = Run::clean();
    let ids = vec!["id-3".to_owned()];
    line(&mut run.evidence.clients, 950, ClientEvent::Accepted { request: 2, copy: 1, ids });
    assert!(run.check().violations.iter().any(|found| found.rule == Rule::Identity));
}

#[test]
fn what_was_never_seen_shows_nothing() {
    let demands = Demands { taken_over: 1, ..Demands::default() };
    let mut run = Run::clean();
    run.demands = demands;
    run.is_only(Rule::Witness);
    run.demands = Demands { crash_points: "settle.before 40\n", ..Demands::default() };
    run.is_only(Rule::Witness);
    let crashed = InjectorEvent::Crashed { process: "worker-0".into(), works: true, point: "settle.before".into() };
    line(&mut run.evidence.injector, 3_100, crashed);
    assert_eq!(run.check().violations, []);
    run.demands = Demands { ready_within: Some(Duration::from_secs(2)), ..Demands::default() };
    run.is_only(Rule::Witness);
    line(&mut run.evidence.injector, 6_000, InjectorEvent::Ready { process: "api-0".into(), after_ms: 2_100 });
    run.is_only(Rule::Slow);
}

#[test]
fn who_cancels_is_told_the_truth() {
    let race = |won: bool, standing: i64| {
        let mut run = Run::clean();
        let events = run.evidence.clients.iter_mut();
        for jobs in events.filter_map(|line| match &mut line.event {
            ClientEvent::Due { request: 2, jobs } => Some(jobs),
            _ => None,
        }) {
            jobs[0].race = Some(Race::Cancel { after_ms: 10 });
        }
        line(&mut run.evidence.clients, 950, ClientEvent::Cancelled { request: 2, won });
        run.row("id-2").standing = standing;
        run.count();
        run
    };
    assert_eq!(race(true, tables::CANCELLED).check().violations, []);
    assert_eq!(race(false, tables::SUCCEEDED).check().races, (0, 1));
    race(true, tables::SUCCEEDED).is_only(Rule::Race);
    race(false, tables::CANCELLED).is_only(Rule::Race);
    let mut run = race(true, tables::CANCELLED);
    run.demands.races = 1_000;
    run.is_only(Rule::Witness);
}

#[test]
fn a_job_that_ends_its_process_is_poison_and_costs_four_of_them_at_most() {
    let killer = |lost: i64, class: &str| {
        let mut run = Run::clean();
        for line in &mut run.evidence.clients {
            if let ClientEvent::Due { request: 4, jobs } = &mut line.event {
                jobs[0].work = Work::ProbeKills;
            }
        }
        run.row("id-4").error_class = Some(class.to_owned());
        run.evidence.tables.attempts.retain(|attempt| attempt.job_id != "id-4");
        (0..lost).for_each(|epoch| run.attempt("id-4", epoch, "lost"));
        let process = |n| format!("worker-{n}");
        let ended = |n| InjectorEvent::Ended { process: process(n), works: true, lived_ms: 30_000, code: None };
        (0..lost).for_each(|n| line(&mut run.evidence.injector, 4_000, ended(n)));
        run
    };
    let report = killer(3, "poison").check();
    assert_eq!((report.violations, report.ended_by_jobs), (vec![], 3));
    killer(3, "permanent").is_only(Rule::WrongEnd);
    let too_many = killer(5, "poison").check().violations;
    assert!(too_many.iter().any(|found| found.rule == Rule::WrongEnd), "{too_many:?}");
    assert!(too_many.iter().any(|found| found.rule == Rule::Died), "{too_many:?}");
}

#[test]
fn a_worker_that_ends_to_be_started_again_needs_a_job_that_spins() {
    let spun = |work, class: &str, code| {
        let mut run = Run::clean();
        for line in &mut run.evidence.clients {
            if let ClientEvent::Due { request: 4, jobs } = &mut line.event {
                jobs[0].work = work;
            }
        }
        run.row("id-4").error_class = Some(class.to_owned());
        let ended = InjectorEvent::Ended { process: "worker-0".into(), works: true, lived_ms: 30_000, code };
        line(&mut run.evidence.injector, 4_000, ended);
        run
    };
    let report = spun(Work::ProbeSpins, "timeout", Some(75)).check();
    assert_eq!((report.violations, report.recycled, report.ended_by_jobs), (vec![], 1, 1));
    spun(Work::ProbeSpins, "permanent", Some(75)).is_only(Rule::WrongEnd);
    spun(Work::ProbeDies, "permanent", Some(75)).is_only(Rule::Died);
    spun(Work::ProbeBlocks, "timeout", Some(75)).is_only(Rule::Died);
    spun(Work::ProbeBlocks, "timeout", None).is_only(Rule::Died);
}

#[test]
fn a_run_that_did_not_meet_what_it_is_for_shows_nothing() {
    let each: [&[Met]; 5] =
        [&[Met::KilledApi], &[Met::KilledWorker], &[Met::KilledScheduler], &[Met::EndedByJob], &[Met::SentByTwo]];
    for meets in each {
        let mut run = Run::clean();
        run.demands.meets = meets;
        run.is_only(Rule::Witness);
    }
    let mut run = Run::clean();
    run.demands.meets = &[Met::KilledScheduler, Met::SentByTwo];
    line(&mut run.evidence.injector, 4_000, InjectorEvent::Killed { process: "scheduler-1".into(), works: false });
    line(&mut run.evidence.clients, 950, ClientEvent::Accepted { request: 0, copy: 1, ids: vec!["id-0".into()] });
    assert_eq!(run.check().violations, vec![]);
}
