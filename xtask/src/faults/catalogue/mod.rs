//! Every fault that Longshore must survive, with what must hold and how that is proved. Begin here.
//!
//! The numbers are those of the table in docs/reliability.md, which `cargo xtask faults --publish` writes from this list
//! and from what the runs came to.

mod mixed;
mod network;
mod processes;
mod stores;

pub(crate) use mixed::{EVERYTHING, MUTANTS, Mutant, SHORT, SHORT_SEED};

use super::scenario::Scenario;

/// A fault, what must hold, and how that is proved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// `F1` to `F25`, or the name of a mixture.
    pub(crate) id: &'static str,
    /// What is done.
    pub(crate) what: &'static str,
    /// What must hold, beyond what always must: no accepted job is lost, none is settled or charged twice.
    pub(crate) target: &'static str,
    /// How it is proved.
    pub(crate) proof: Proof,
}

/// How a promise is proved.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    /// By these scenarios, here.
    Here(&'static [Scenario]),
    /// By images of the journal's disk. Wants root.
    PowerLoss,
    /// By another command of cargo, which says what came of it: words behind `cargo`.
    Elsewhere(&'static [&'static str]),
}

/// All of them.
#[rustfmt::skip]
pub(crate) const FAULTS: &[Fault] = &[
    Fault { id: "F1", what: "`kill -9` of a worker, 20 times",
            target: "a dead worker's calls are made again within 15 s", proof: Proof::Here(&[processes::WORKERS_DIE]) },
    Fault { id: "F2", what: "`kill -9` of an API process, 20 times in the middle of requests",
            target: "every 202 survives; ready again within 2 s", proof: Proof::Here(&[processes::APIS_DIE]) },
    Fault { id: "F3", what: "`kill -9` of a scheduler, 20 times, and 6 times in the middle of a backup",
            target: "another one goes on within 10 s, nothing starts later than that; what is called a good backup is whole",
            proof: Proof::Here(&[processes::SCHEDULERS_DIE, processes::MAKERS_DIE]) },
    Fault { id: "F4", what: "`kill -9` of Redis without a log, with one synced each second, with one synced always; back after 3 s",
            target: "submits go on; calls go on within 5 s of its return", proof: Proof::Here(stores::REDIS_DIES) },
    Fault { id: "F5", what: "FLUSHALL over 100,000 waiting jobs, `DEBUG RELOAD`, another generation in Redis",
            target: "the first call within 3 s (the rebuild alone: `cargo xtask bars --only rebuild`)", proof: Proof::Here(&[stores::REDIS_FORGETS]) },
    Fault { id: "F6", what: "Redis evicts keys; Redis has no memory left",
            target: "what was evicted is found by the sweep; without memory submits go on", proof: Proof::Here(&[stores::REDIS_HAS_NO_ROOM]) },
    Fault { id: "F7", what: "power loss: images of Postgres' disk under load (Redis may forget all, see F4)",
            target: "each job whose 202 came before an image is in it, also where the server is set to `synchronous_commit=off`, since each \
                     session asks for `on`; with `fsync=off` some are not",
            proof: Proof::PowerLoss },
    Fault { id: "F8", what: "Sentinel fails over, the old primary comes back",
            target: "no call for at most 15 s", proof: Proof::Elsewhere(&["test", "--locked", "-p", "queue-core", "--test", "dispatcher_redis", "a_failover_is_followed"]) },
    Fault { id: "F9", what: "`kill -9` of Postgres, back after 10 s",
            target: "no 202 meanwhile, 503 within 2 s; calls go on within 10 s of its return", proof: Proof::Here(&[stores::POSTGRES_DIES]) },
    Fault { id: "F10", what: "Postgres answers every other half second; the table of live jobs is locked for 20 s",
            target: "calls go on within 10 s; no process grows by more than 64 MiB", proof: Proof::Here(&[stores::POSTGRES_IS_SLOW]) },
    Fault { id: "F11", what: "a full disk under Postgres, twice (SQLite: the test `a_full_disk_answers_503_and_service_resumes_by_itself`)",
            target: "no 202 without a row; calls go on within 10 s of there being room", proof: Proof::Here(&[stores::POSTGRES_HAS_NO_ROOM]) },
    Fault { id: "F12", what: "partitions between workers or API and Redis: silent, reset, one-way; 50 flaps of 1 to 5 s; one worker cut off for 12 s, 4 times",
            target: "calls go on within 5 s of each", proof: Proof::Here(&[network::PARTITIONS, network::ONE_CUT_OFF]) },
    Fault { id: "F13", what: "a slow network that tears replies, between every role and both stores",
            target: "what was not answered is read again", proof: Proof::Here(&[network::BAD_WEATHER]) },
    Fault { id: "F14", what: "one worker's clock, then one scheduler's, is three hours ahead, then three behind",
            target: "nothing starts early, nobody's claims are lost (schedules: `cargo xtask bars --only schedules`)", proof: Proof::Here(processes::WRONG_CLOCKS) },
    Fault { id: "F15", what: "zombies: 50 workers stand still for 45 s and go on",
            target: "none of their settles is accepted; no call again where the first had finished", proof: Proof::Here(&[processes::ZOMBIES]) },
    Fault { id: "F16", what: "rolling restart of every process",
            target: "no failed request, no attempt spent", proof: Proof::Elsewhere(&["xtask", "bars", "--only", "rolling", "--json"]) },
    Fault { id: "F17", what: "jobs that take more memory than their worker may have, one after the other",
            target: "the worker dies alone; the job is `poison` after at most 4 of them, no other job is lost", proof: Proof::Here(&[processes::HOGS]) },
    Fault { id: "F18", what: "poison code, one after the other: handlers that panic, also in a drop, that end their process (abort, stack overflow, exit), that never yield",
            target: "a panic costs an attempt; a killer is `poison` after at most 4 processes, and nobody else is; what does not yield is timed out, \
                     and its worker started again; nothing starts more than 30 s late", proof: Proof::Here(&[processes::POISON]) },
    Fault { id: "F19", what: "poison data: huge, deep, not text, not numbers",
            target: "4xx at the edge or a failed job, never a crash (answers held against the document: `cargo xtask contract`)", proof: Proof::Elsewhere(&["xtask", "badinput"]) },
    Fault { id: "F20", what: "a herd: 2,000 clients at once beside 100,000 jobs that become due in one second",
            target: "accepted within 1 s (p99) or told to come again; none early (providers that heal: `cargo xtask economics`)", proof: Proof::Here(&[processes::HERD]) },
    Fault { id: "F21", what: "50 clients with one key, 1,000 keys, while API processes are killed",
            target: "1,000 jobs, each named by all of its answers", proof: Proof::Here(&[processes::DUPLICATES]) },
    Fault { id: "F22", what: "a provider that takes the money and times out, storms, cuts streams, lies about usage",
            target: "the ledger is the provider's own log", proof: Proof::Elsewhere(&["xtask", "economics"]) },
    Fault { id: "F23", what: "a backup under load, restored elsewhere",
            target: "1 M jobs back within 5 minutes", proof: Proof::Elsewhere(&["xtask", "bars", "--only", "backup", "--json"]) },
    Fault { id: "F24", what: "10,000 races between a job's end and its cancel, 5,000 between a pause and claims, 2,000 between redrive and archive",
            target: "one winner, and both are told which", proof: Proof::Here(processes::RACES) },
    Fault { id: "F25", what: "everything at random for 30 minutes",
            target: "memory of the longest lives grows by at most 256 KiB a minute; Redis ends with the keys of live jobs and at most 64 more than before; connections stay at their level", proof: Proof::Here(&[mixed::SOAK]) },
    Fault { id: "everything", what: "every process may die, Redis forgets, both stores go away",
            target: "a dead worker's calls are made again within 15 s", proof: Proof::Here(&[EVERYTHING]) },
    Fault { id: "flush-only", what: "Redis forgets while nobody dies",
            target: "no attempt is lost", proof: Proof::Here(&[mixed::FLUSH_ONLY]) },
    Fault { id: "crash-points", what: "a crash before and after each write of journal, dispatcher and operations, each once",
            target: "every one of them is met", proof: Proof::Here(&[mixed::CRASH_POINTS]) },
];

/// Every scenario, also those that are no fault of the list.
#[cfg(test)]
pub(crate) fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    let listed = FAULTS.iter().flat_map(|fault| match fault.proof {
        Proof::Here(scenarios) => scenarios,
        _ => &[],
    });
    listed.chain([&SHORT]).chain(MUTANTS.iter().map(|mutant| &mutant.scenario))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_of_the_list_is_here_once_and_every_scenario_has_a_name_of_its_own() {
        let ids: BTreeSet<&str> = FAULTS.iter().map(|fault| fault.id).collect();
        assert_eq!(ids.len(), FAULTS.len());
        assert!((1..=25).all(|number| ids.contains(format!("F{number}").as_str())));
        let names: Vec<&str> = scenarios().map(|scenario| scenario.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }
}
