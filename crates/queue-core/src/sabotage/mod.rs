//! Only for the fault suite: processes that die where they are told to, and planted bugs that the suite has to find.
//!
//! All of it stands in front of the two seams that the protocol goes through, so that no line of the product knows of it.
//! It is behind a feature that no build has unless it asks, and a build without debug assertions refuses it.

#[cfg(not(debug_assertions))]
compile_error!("a binary that can be sabotaged is no release: build it without --release");

mod dispatcher;
mod journal;
mod operations;

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use self::{dispatcher::SpoiltDispatcher, journal::SpoiltJournal, operations::SpoiltOperations};
use crate::stores::Stores;

/// The points at which a process may be told to crash, each with how often a process comes by before it does: what comes
/// by often is not to die in its first second. The suite reads the same list, and demands each of them.
const POINTS: &str = include_str!("points.txt");

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// It crashes at each point at which nobody has crashed yet.
    Crash,
    /// A planted bug.
    Bug(Bug),
}

/// A shortcut through the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A submit is answered, and committed a moment later.
    AnswerBeforeCommit,
    /// Nobody hands on what the dispatcher does not know.
    NoReconciler,
    /// A settle is written whatever epoch the job is at by now.
    SettleAtAnyEpoch,
    /// What is handed on keeps its epoch.
    ReconcileWithoutBump,
    /// The dispatcher forgets a claim before its job is settled.
    AckBeforeSettle,
}

impl Sabotage {
    /// By its name: `crash`, or that of a bug.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "crash" => Self::Crash,
            "answer-before-commit" => Self::Bug(Bug::AnswerBeforeCommit),
            "no-reconciler" => Self::Bug(Bug::NoReconciler),
            "settle-at-any-epoch" => Self::Bug(Bug::SettleAtAnyEpoch),
            "reconcile-without-bump" => Self::Bug(Bug::ReconcileWithoutBump),
            "ack-before-settle" => Self::Bug(Bug::AckBeforeSettle),
            _ => return None,
        })
    }

    /// The stores, spoilt. Where a process crashes, it leaves a file that says so in `folder`.
    pub fn spoil(self, stores: Stores, folder: PathBuf) -> Stores {
        let (crash, bug) = match self {
            Self::Crash => (Some(Crash { folder, passed: Mutex::default() }), None),
            Self::Bug(bug) => (None, Some(bug)),
        };
        let crash = Arc::new(crash);
        Stores {
            journal: Arc::new(SpoiltJournal::new(stores.journal, crash.clone(), bug)),
            operations: Arc::new(SpoiltOperations::new(stores.operations, crash.clone())),
            dispatcher: Arc::new(SpoiltDispatcher::new(stores.dispatcher, crash, bug)),
            ..stores
        }
    }
}

/// Where this process has come by, and the way to end it.
struct Crash {
    folder: PathBuf,
    passed: Mutex<HashMap<String, u32>>,
}

impl Crash {
    /// Ends the process, as `kill -9` does, if it is its turn: each point ends one process of all.
    fn pass(&self, verb: &str, side: &str) {
        let point = format!("{verb}.{side}");
        let Some(limit) = limit(&point) else { return };
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(point.clone()).or_default();
        *count += 1;
        if *count < limit {
            return;
        }
        // Whoever makes the file is the one.
        let Ok(mut file) = File::create_new(self.folder.join(format!("crashed-at-{point}"))) else { return };
        let told = write!(file, "{}", std::process::id());
        tracing::error!("told to crash at {point}: {told:?}");
        std::process::abort();
    }
}

fn limit(point: &str) -> Option<u32> {
    let line = POINTS.lines().find_map(|line| line.strip_prefix(point)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// Does it, with a point before and one after.
async fn between<T>(crash: &Option<Crash>, verb: &str, work: impl Future<Output = T>) -> T {
    let Some(crash) = crash else { return work.await };
    crash.pass(verb, "before");
    let done = work.await;
    crash.pass(verb, "after");
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of verbs, and of their points or the reason why there is none.
    type Verbs = &'static [(&'static str, &'static str)];

    /// The points of each verb of the seams, by the seam's source: none where the reason says why.
    const VERBS: [(&str, &str, Verbs); 3] = [
        (
            "Journal",
            include_str!("../journal/mod.rs"),
            &[
                ("accept", "accept"),
                ("load", "writes nothing"),
                ("settle", "settle"),
                ("record", "record"),
                ("memos", "writes nothing"),
                ("recover", "recover"),
                ("reconcile", "reconcile"),
                ("live", "writes nothing"),
                ("cancel", "cancel"),
                ("edit", "edit"),
                ("redrive", "redrive"),
                ("redrive_with", "redrive-with"),
                ("new_generation", "new-generation"),
                ("check", "writes nothing"),
            ],
        ),
        (
            "Dispatcher",
            include_str!("../dispatcher/mod.rs"),
            &[
                ("begin", "begin"),
                ("push", "push"),
                ("join", "join"),
                ("leave", "comes at a process's own end: a kill there is a kill a moment later"),
                ("step", "ack"),
                ("step", "claim"),
                ("start", "start"),
                ("renew", "renew"),
                ("withdraw", "withdraw"),
                ("nudge", "nudge"),
                ("locate", "writes nothing"),
                ("reap", "reap"),
                ("apply", "apply"),
                ("depths", "writes nothing"),
                ("explain", "writes nothing"),
                ("sessions", "writes nothing"),
            ],
        ),
        (
            "Operations",
            include_str!("../operations/mod.rs"),
            &[
                ("begin", "operation-begin"),
                ("operation", "writes nothing"),
                ("operations", "writes nothing"),
                ("take", "operation-take"),
                ("step", "operation-step"),
                ("abort", "operation-abort"),
            ],
        ),
    ];

    #[test]
    fn every_verb_of_the_protocol_has_its_points_or_a_reason() {
        for (seam, source, verbs) in VERBS {
            let (_, from) = source.split_once(&format!("pub trait {seam}: ")).unwrap();
            let (body, _) = from.split_once("\n}\n").unwrap();
            let there: Vec<&str> =
                body.split("async fn ").skip(1).map(|verb| verb.split('(').next().unwrap()).collect();
            let mut listed: Vec<&str> = verbs.iter().map(|(verb, _)| *verb).collect();
            listed.dedup();
            assert_eq!(listed, there, "{seam}");
            for (verb, what) in verbs {
                let has_points =
                    limit(&format!("{what}.before")).is_some() && limit(&format!("{what}.after")).is_some();
                assert_ne!(has_points, what.contains(' '), "{seam}::{verb}");
            }
        }
        let points: usize =
            VERBS.iter().flat_map(|(_, _, verbs)| *verbs).filter(|(_, what)| !what.contains(' ')).count();
        assert_eq!(points * 2, POINTS.lines().count(), "a point of no verb");
    }

    #[test]
    fn every_point_has_its_limit_and_every_verb_both_sides() {
        for line in POINTS.lines() {
            let point = line.split(' ').next().unwrap();
            assert!(limit(point).is_some_and(|limit| limit > 0), "{line}");
            let (verb, side) = point.split_once('.').unwrap();
            let other = if side == "before" { "after" } else { "before" };
            assert!(limit(&format!("{verb}.{other}")).is_some(), "{line}");
        }
        assert_eq!(limit("nowhere.before"), None);
    }
}
