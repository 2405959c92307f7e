//! The one transition table. Every store's suite walks it; no other code decides what may follow what.

use serde::{Deserialize, Serialize};

use crate::{dispatcher::Place, job::Job, time::Timestamp};

/// What the journal knows of a job: it is live, or it ended in one of three ways.
/// *Running* is not here: whether a live job is being worked on is the dispatcher's knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Accepted and not settled.
    Live,
    /// Ended with a result.
    Succeeded,
    /// Ended without one: a dead letter, until someone redrives or deletes it.
    Dead,
    /// Ended because someone asked for it.
    Cancelled,
}

impl Standing {
    /// Every standing, in the order of its number.
    pub const ALL: [Self; 4] = [Self::Live, Self::Succeeded, Self::Dead, Self::Cancelled];

    /// The number that the journal's schema checks.
    pub fn code(self) -> i64 {
        match self {
            Self::Live => 0,
            Self::Succeeded => 1,
            Self::Dead => 2,
            Self::Cancelled => 3,
        }
    }

    /// The standing with this number.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.code() == code)
    }

    /// Whether nothing but a redrive can follow.
    pub fn is_final(self) -> bool {
        self != Self::Live
    }
}

/// A job's state as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Live, and due later (also between two attempts).
    Scheduled,
    /// Live, due, and not being worked on.
    Ready,
    /// Live, and held by a worker.
    Running,
    /// See [`Standing::Succeeded`].
    Succeeded,
    /// See [`Standing::Dead`].
    Dead,
    /// See [`Standing::Cancelled`].
    Cancelled,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Ready, Self::Running, Self::Succeeded, Self::Dead, Self::Cancelled];

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// What the journal says of a job in this state.
    pub fn standing(self) -> Standing {
        match self {
            Self::Scheduled | Self::Ready | Self::Running => Standing::Live,
            Self::Succeeded => Standing::Succeeded,
            Self::Dead => Standing::Dead,
            Self::Cancelled => Standing::Cancelled,
        }
    }
}

/// The state of a job, and since when it runs: `running` is the dispatcher's knowledge, all else the journal's.
pub fn of(job: &Job, place: &Place, now: Timestamp) -> (State, Option<Timestamp>) {
    match job.standing {
        Standing::Succeeded => (State::Succeeded, None),
        Standing::Dead => (State::Dead, None),
        Standing::Cancelled => (State::Cancelled, None),
        Standing::Live => match place {
            // A claim of an earlier epoch is fenced: whoever holds it works for nothing.
            Place::Leased { epoch, started_at, .. } if *epoch == job.epoch => (State::Running, *started_at),
            _ if job.run_at > now => (State::Scheduled, None),
            _ => (State::Ready, None),
        },
    }
}

/// What can happen to a job after it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// An attempt ended with a result.
    Succeed,
    /// An attempt failed and another one will follow.
    Retry,
    /// An attempt failed for good, or recoveries convicted the job.
    Die,
    /// An attempt was given back without being spent.
    Release,
    /// Someone withdrew the job.
    Cancel,
    /// A worker was lost; the job goes to another one.
    Recover,
    /// The dispatcher did not know the job.
    Reconcile,
    /// Someone changed the job before it ran.
    Edit,
    /// Someone gave a dead letter another life.
    Redrive,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 9] = [
        Self::Succeed,
        Self::Retry,
        Self::Die,
        Self::Release,
        Self::Cancel,
        Self::Recover,
        Self::Reconcile,
        Self::Edit,
        Self::Redrive,
    ];
}

/// Why an event cannot happen to a job as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The job has ended.
    #[error("the job is already final")]
    Final,
    /// Only dead letters can be redriven.
    #[error("only a dead job can be redriven")]
    NotDead,
}

/// The transition table: where `event` takes a job that stands at `standing`.
pub fn transition(standing: Standing, event: Event) -> Result<Standing, Refused> {
    use Event::{Cancel, Die, Edit, Reconcile, Recover, Redrive, Release, Retry, Succeed};
    match (standing, event) {
        (Standing::Live, Succeed) => Ok(Standing::Succeeded),
        (Standing::Live, Die) => Ok(Standing::Dead),
        (Standing::Live, Cancel) => Ok(Standing::Cancelled),
        (Standing::Live, Retry | Release | Recover | Reconcile | Edit) => Ok(Standing::Live),
        (Standing::Dead, Redrive) => Ok(Standing::Live),
        (_, Redrive) => Err(Refused::NotDead),
        (_, _) => Err(Refused::Final),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_job_only_ever_leaves_by_redrive_from_dead() {
        for standing in Standing::ALL {
            for event in Event::ALL {
                let next = transition(standing, event);
                match (standing, event) {
                    (Standing::Dead, Event::Redrive) => assert_eq!(next, Ok(Standing::Live)),
                    (_, Event::Redrive) => assert_eq!(next, Err(Refused::NotDead)),
                    (Standing::Live, _) => assert!(next.is_ok()),
                    (_, _) => assert_eq!(next, Err(Refused::Final)),
                }
            }
        }
    }

    #[test]
    fn codes_and_words_are_inverse() {
        for standing in Standing::ALL {
            assert_eq!(Standing::from_code(standing.code()), Some(standing));
        }
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
    }
}
