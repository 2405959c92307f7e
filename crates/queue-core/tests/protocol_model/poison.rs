//! Which of the jobs that died with a process killed it: a model of its own, because nothing in it depends on epochs.
//!
//! Four jobs, two processes with two slots each. A killer ends its process at some moment after its start, or waits
//! while others come and go; an innocent job only ends well. A job whose process died starts again, until it is convicted.
//! Absent: handlers that fail politely, leases (a death is seen at once), prefetched claims that never started.

use std::time::Instant;

use stateright::{Checker, Model, Property};

const JOBS: usize = 4;
const PROCESSES: u8 = 2;
const SLOTS: usize = 2;
/// Recoveries after a start that make a dead letter.
const LIMIT: u8 = 3;
/// Processes that one killer may end before it is convicted: three by itself, and one more where another suspect died
/// with it in the third.
const DEATHS_MAX: u8 = 4;

const NEIGHBOURS_LIVE: &str = "no innocent job is convicted";
const ALL_END: &str = "every job ends";
const NOBODY_WAITS: &str = "a job that may yet be innocent waits for a free slot and for nothing else";
const ONE_A_DEATH: &str = "a death convicts one job at most";
const FEW_DEATHS: &str = "a killer ends few processes";

/// Who may run beside a suspect, and whose death counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Everybody who died is counted, and anybody may run with anybody.
    CountEveryDeath,
    /// Whoever died once is a suspect. It may run with jobs that are none; when one dies, only it is counted.
    OnlySuspect,
    /// As above, but only a job before its last life is a suspect.
    LateSuspect,
    /// As `OnlySuspect`, but the last life is spent alone in the process, and only a death alone convicts.
    LastLifeAlone,
    /// A suspect runs alone in the process.
    SuspectAlone,
    /// A job before its last life is a suspect and runs beside anybody, other suspects too. When one dies, only suspects
    /// are counted: one is convicted, several are isolated. An isolated one may run with jobs that are none; when it
    /// dies, it is convicted. This is what is built.
    Isolation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Where {
    Waiting,
    In(u8),
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Job {
    is_killer: bool,
    place: Where,
    /// Its process died with it, counted or not.
    has_died: bool,
    recoveries: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    jobs: [Job; JOBS],
    /// Times that a process may be killed from outside.
    kills: u8,
    /// Processes that killers ended.
    deaths: u8,
    /// Most jobs that one death has convicted.
    convicted_at_once: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Start { job: usize, process: u8 },
    Finish(usize),
    Kill(u8),
    Die(u8),
}

#[derive(Clone, Copy, Debug)]
struct Court {
    verdict: Verdict,
    killers: usize,
    kills: u8,
}

impl Court {
    /// How likely it is to have ended a process that dies with it: only the likeliest are counted.
    fn suspicion(&self, job: &Job) -> u8 {
        match self.verdict {
            Verdict::CountEveryDeath => 0,
            Verdict::OnlySuspect | Verdict::LastLifeAlone | Verdict::SuspectAlone => u8::from(job.has_died),
            Verdict::LateSuspect => u8::from(job.recoveries + 1 >= LIMIT),
            Verdict::Isolation => (job.recoveries + 2).saturating_sub(LIMIT),
        }
    }

    /// From this suspicion on, one at most runs in a process.
    fn kept_apart_from(&self) -> u8 {
        if self.verdict == Verdict::Isolation { 2 } else { 1 }
    }

    fn wants_solitude(&self, job: &Job) -> bool {
        match self.verdict {
            Verdict::CountEveryDeath | Verdict::OnlySuspect | Verdict::LateSuspect | Verdict::Isolation => false,
            Verdict::LastLifeAlone => job.recoveries + 1 >= LIMIT,
            Verdict::SuspectAlone => job.has_died,
        }
    }

    fn has_slot(&self, s: &State, process: u8) -> bool {
        s.jobs.iter().filter(|other| other.place == Where::In(process)).count() < SLOTS
    }

    fn may_start(&self, s: &State, job: &Job, process: u8) -> bool {
        let mut inside = s.jobs.iter().filter(|other| other.place == Where::In(process));
        let is_alone = inside.clone().count() == 0;
        let is_apart = |job: &Job| self.suspicion(job) >= self.kept_apart_from();
        let meets_its_like = is_apart(job) && inside.clone().any(is_apart);
        let disturbs = inside.any(|other| self.wants_solitude(other));
        self.has_slot(s, process) && !meets_its_like && !disturbs && (is_alone || !self.wants_solitude(job))
    }

    fn end_process(&self, s: &mut State, process: u8) {
        let dead = |job: &Job| job.place == Where::In(process);
        let inside: Vec<u8> = s.jobs.iter().filter(|job| dead(job)).map(|job| self.suspicion(job)).collect();
        let likeliest = inside.iter().copied().max().unwrap_or_default();
        let blamed = inside.iter().filter(|suspicion| **suspicion == likeliest).count();
        let mut convicted = 0;
        for job in s.jobs.iter_mut().filter(|job| dead(job)) {
            let counts = self.suspicion(job) == likeliest;
            let suffices = match self.verdict {
                Verdict::CountEveryDeath | Verdict::OnlySuspect | Verdict::LateSuspect => true,
                Verdict::LastLifeAlone | Verdict::SuspectAlone => inside.len() == 1,
                Verdict::Isolation => blamed == 1,
            };
            let recoveries = job.recoveries + u8::from(counts);
            let is_convicted = counts && suffices && recoveries >= LIMIT;
            convicted += u8::from(is_convicted);
            job.recoveries = recoveries.min(LIMIT);
            job.has_died = true;
            job.place = if is_convicted { Where::Dead } else { Where::Waiting };
        }
        s.convicted_at_once = s.convicted_at_once.max(convicted);
    }
}

impl Model for Court {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let job = |n| Job { is_killer: n < self.killers, place: Where::Waiting, has_died: false, recoveries: 0 };
        vec![State { jobs: std::array::from_fn(job), kills: self.kills, deaths: 0, convicted_at_once: 0 }]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        for (n, job) in s.jobs.iter().enumerate() {
            match job.place {
                Where::Waiting => {
                    let open = (0..PROCESSES).filter(|&process| self.may_start(s, job, process));
                    out.extend(open.map(|process| Action::Start { job: n, process }));
                }
                Where::In(process) if job.is_killer => out.push(Action::Die(process)),
                Where::In(_) => out.push(Action::Finish(n)),
                Where::Done | Where::Dead => {}
            }
        }
        let is_busy = |process: &u8| s.jobs.iter().any(|job| job.place == Where::In(*process));
        out.extend((0..PROCESSES).filter(|process| s.kills > 0 && is_busy(process)).map(Action::Kill));
    }

    fn next_state(&self, s: &State, action: Action) -> Option<State> {
        let mut next = *s;
        match action {
            Action::Start { job, process } => next.jobs[job].place = Where::In(process),
            Action::Finish(job) => next.jobs[job].place = Where::Done,
            Action::Die(process) => {
                // Counted as far as it is asked for.
                next.deaths = (next.deaths + 1).min(DEATHS_MAX + 1);
                self.end_process(&mut next, process);
            }
            Action::Kill(process) => {
                next.kills -= 1;
                self.end_process(&mut next, process);
            }
        }
        next.jobs.sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEIGHBOURS_LIVE, |_, s: &State| {
                s.jobs.iter().all(|job| job.is_killer || job.place != Where::Dead)
            }),
            Property::eventually(ALL_END, |_, s: &State| {
                s.jobs.iter().all(|job| matches!(job.place, Where::Done | Where::Dead))
            }),
            Property::always(NOBODY_WAITS, |court: &Self, s: &State| {
                let mut waiting = s.jobs.iter().filter(|job| job.place == Where::Waiting && job.recoveries < LIMIT);
                let has_way = |job, process| !court.has_slot(s, process) || court.may_start(s, job, process);
                waiting.all(|job| (0..PROCESSES).all(|process| has_way(job, process)))
            }),
            Property::always(ONE_A_DEATH, |_, s: &State| s.convicted_at_once <= 1),
            // Of several killers some die at others' expense; that they end is what `ALL_END` says.
            Property::always(FEW_DEATHS, |court: &Self, s: &State| court.killers != 1 || s.deaths <= DEATHS_MAX),
        ]
    }
}

/// The names of what fails, after looking at everything.
fn failures(verdict: Verdict, killers: usize, kills: u8) -> Vec<&'static str> {
    let begun = Instant::now();
    let checker = Court { verdict, killers, kills }.checker().spawn_bfs().join();
    assert!(checker.is_done());
    let mut failed: Vec<_> = checker.discoveries().into_keys().collect();
    failed.sort_unstable();
    println!(
        "{verdict:?}, {killers} killers, {kills} kills: {} states in {:.2} s, fails {failed:?}",
        checker.unique_state_count(),
        begun.elapsed().as_secs_f64()
    );
    failed
}

#[test]
fn neighbours_are_convicted_where_every_death_counts() {
    assert_eq!(failures(Verdict::CountEveryDeath, 1, 0), [ONE_A_DEATH, NEIGHBOURS_LIVE]);
}

/// Three different killers are needed to convict somebody who shared a process with each of them. But a killed worker
/// gives back its jobs as suspects, and those wait for each other.
#[test]
fn only_suspect_of_its_process_is_safe_from_two_killers_and_not_from_three() {
    assert_eq!(failures(Verdict::OnlySuspect, 0, 1), [NOBODY_WAITS]);
    assert_eq!(failures(Verdict::OnlySuspect, 2, 0), [NOBODY_WAITS]);
    assert_eq!(failures(Verdict::OnlySuspect, 3, 0), [NOBODY_WAITS, NEIGHBOURS_LIVE]);
}

/// One killer convicts nobody else. Two that die with the same neighbour, one of them for the first or second time
/// beside its last life, can. Jobs of one killed worker do not wait, those of two do.
#[test]
fn late_suspect_is_safe_from_one_killer_and_waits_after_two_kills() {
    assert!(failures(Verdict::LateSuspect, 0, 1).is_empty());
    assert_eq!(failures(Verdict::LateSuspect, 0, 2), [NOBODY_WAITS]);
    assert_eq!(failures(Verdict::LateSuspect, 1, 0), [NOBODY_WAITS]);
    assert_eq!(failures(Verdict::LateSuspect, 2, 0), [NOBODY_WAITS, NEIGHBOURS_LIVE]);
}

#[test]
fn last_life_alone_is_safe_from_any_number_of_killers_and_waits() {
    for killers in 1..JOBS {
        assert_eq!(failures(Verdict::LastLifeAlone, killers, 0), [NOBODY_WAITS]);
    }
    assert_eq!(failures(Verdict::LastLifeAlone, 2, 1), [NOBODY_WAITS, NEIGHBOURS_LIVE]);
}

/// A suspect that is always alone also survives that somebody kills its process once.
#[test]
fn suspect_alone_is_safe_from_killers_and_one_kill_and_waits() {
    for killers in 1..JOBS {
        assert_eq!(failures(Verdict::SuspectAlone, killers, 1), [NOBODY_WAITS]);
    }
}

/// What is built: safe from one killer and from two kills like a late suspect, and nobody waits for what others are
/// suspected of before it has died with other suspects.
#[test]
fn isolation_is_safe_from_one_killer_and_nobody_waits() {
    assert!(failures(Verdict::Isolation, 1, 0).is_empty());
    for kills in 0..3 {
        assert!(failures(Verdict::Isolation, 0, kills).is_empty());
    }
}

/// Its limit: a neighbour that died twice with one killer is the only suspect beside the next one, or under the next
/// kill. A death convicts that one job at most; a killer that died beside it uncounted ends one process more.
#[test]
fn isolation_is_safe_from_no_second_culprit() {
    assert_eq!(failures(Verdict::Isolation, 2, 0), [NEIGHBOURS_LIVE]);
    assert_eq!(failures(Verdict::Isolation, 3, 0), [NEIGHBOURS_LIVE]);
    assert_eq!(failures(Verdict::Isolation, 1, 1), [FEW_DEATHS, NEIGHBOURS_LIVE]);
}

/// Operators and the kernel can do what three killers do: no rule can tell.
#[test]
fn three_kills_convict_and_two_do_not() {
    let waits = [Verdict::OnlySuspect, Verdict::LateSuspect, Verdict::LastLifeAlone, Verdict::SuspectAlone];
    for verdict in waits {
        assert_eq!(failures(verdict, 0, 2), [NOBODY_WAITS]);
        assert_eq!(failures(verdict, 0, 3), [NOBODY_WAITS, NEIGHBOURS_LIVE]);
    }
    assert!(failures(Verdict::CountEveryDeath, 0, 2).is_empty());
    assert_eq!(failures(Verdict::CountEveryDeath, 0, 3), [ONE_A_DEATH, NEIGHBOURS_LIVE]);
    assert_eq!(failures(Verdict::Isolation, 0, 3), [NEIGHBOURS_LIVE]);
}
