//! Which of the jobs that died with a process killed it: a model of its own, because nothing in it depends on epochs.
//!
//! Four jobs, two processes with two slots each. A killer ends its process at some moment after its start, or waits
//! while others come and go; an innocent job only ends well. A job whose process died starts again, up to three times.
//! Absent: handlers that fail politely, leases (a death is seen at once), prefetched claims that never started.

use std::time::Instant;

use stateright::{Checker, Model, Property};

const JOBS: usize = 4;
const PROCESSES: u8 = 2;
const SLOTS: usize = 2;
/// Recoveries after a start that make a dead letter.
const LIMIT: u8 = 3;

const NEIGHBOURS_LIVE: &str = "no innocent job is convicted";
const ALL_END: &str = "every job ends";

/// Who may run beside a suspect, and whose death counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Everybody who died is counted, and anybody may run with anybody.
    CountEveryDeath,
    /// A suspect may run with jobs that are none; when one dies, only it is counted.
    OnlySuspect,
    /// As above, but only a job before its last life is a suspect.
    LateSuspect,
    /// As `OnlySuspect`, but the last life is spent alone in the process, and only a death alone convicts.
    LastLifeAlone,
    /// A suspect runs alone in the process.
    SuspectAlone,
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
    is_suspect: bool,
    recoveries: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    jobs: [Job; JOBS],
    /// Times that a process may be killed from outside.
    kills: u8,
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
    fn wants_solitude(&self, job: &Job) -> bool {
        match self.verdict {
            Verdict::CountEveryDeath | Verdict::OnlySuspect | Verdict::LateSuspect => false,
            Verdict::LastLifeAlone => job.recoveries + 1 >= LIMIT,
            Verdict::SuspectAlone => job.is_suspect,
        }
    }

    fn may_start(&self, s: &State, job: &Job, process: u8) -> bool {
        let mut inside = s.jobs.iter().filter(|other| other.place == Where::In(process));
        let is_full = inside.clone().count() >= SLOTS;
        let is_alone = inside.clone().count() == 0;
        let meets_suspect =
            self.verdict != Verdict::CountEveryDeath && job.is_suspect && inside.clone().any(|other| other.is_suspect);
        let disturbs = inside.any(|other| self.wants_solitude(other));
        !is_full && !meets_suspect && !disturbs && (is_alone || !self.wants_solitude(job))
    }

    fn end_process(&self, s: &mut State, process: u8) {
        let dead = |job: &Job| job.place == Where::In(process);
        let is_alone = s.jobs.iter().filter(|job| dead(job)).count() == 1;
        let has_suspect = s.jobs.iter().any(|job| dead(job) && job.is_suspect);
        for job in s.jobs.iter_mut().filter(|job| dead(job)) {
            let counts = self.verdict == Verdict::CountEveryDeath || job.is_suspect || !has_suspect;
            job.recoveries += u8::from(counts);
            job.is_suspect = self.verdict != Verdict::LateSuspect || job.recoveries + 1 >= LIMIT;
            let convicts = job.recoveries >= LIMIT && (is_alone || !self.wants_alone_to_convict());
            job.recoveries = job.recoveries.min(LIMIT);
            job.place = if convicts { Where::Dead } else { Where::Waiting };
        }
    }

    fn wants_alone_to_convict(&self) -> bool {
        matches!(self.verdict, Verdict::LastLifeAlone | Verdict::SuspectAlone)
    }
}

impl Model for Court {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let job = |n| Job { is_killer: n < self.killers, place: Where::Waiting, is_suspect: false, recoveries: 0 };
        vec![State { jobs: std::array::from_fn(job), kills: self.kills }]
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
            Action::Die(process) => self.end_process(&mut next, process),
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
    assert_eq!(failures(Verdict::CountEveryDeath, 1, 0), [NEIGHBOURS_LIVE]);
}

/// Three different killers are needed to convict somebody who shared a process with each of them.
#[test]
fn only_suspect_of_its_process_is_safe_from_two_killers_and_not_from_three() {
    assert!(failures(Verdict::OnlySuspect, 1, 0).is_empty());
    assert!(failures(Verdict::OnlySuspect, 2, 0).is_empty());
    assert_eq!(failures(Verdict::OnlySuspect, 3, 0), [NEIGHBOURS_LIVE]);
}

/// What is built: one killer convicts nobody else. Two that die with the same neighbour, one of them for the first or
/// second time beside its last life, can.
#[test]
fn late_suspect_is_safe_from_one_killer_and_not_from_two() {
    assert!(failures(Verdict::LateSuspect, 1, 0).is_empty());
    assert_eq!(failures(Verdict::LateSuspect, 2, 0), [NEIGHBOURS_LIVE]);
}

#[test]
fn last_life_alone_is_safe_from_any_number_of_killers() {
    for killers in 1..JOBS {
        assert!(failures(Verdict::LastLifeAlone, killers, 0).is_empty());
    }
    assert_eq!(failures(Verdict::LastLifeAlone, 2, 1), [NEIGHBOURS_LIVE]);
}

/// A suspect that is always alone also survives that somebody kills its process once.
#[test]
fn suspect_alone_is_safe_from_killers_and_one_kill() {
    for killers in 1..JOBS {
        assert!(failures(Verdict::SuspectAlone, killers, 1).is_empty());
    }
}

/// Operators and the kernel can do what three killers do: no rule can tell.
#[test]
fn three_kills_convict_and_two_do_not() {
    for verdict in [Verdict::OnlySuspect, Verdict::LateSuspect, Verdict::LastLifeAlone, Verdict::SuspectAlone] {
        assert!(failures(verdict, 0, 2).is_empty());
        assert_eq!(failures(verdict, 0, 3), [NEIGHBOURS_LIVE]);
    }
}
