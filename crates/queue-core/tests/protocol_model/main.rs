//! The protocol of a job as a model, searched exhaustively: every order of steps, losses and deaths within a budget.
//!
//! **Modelled.** Two jobs at most. The journal's rows (standing, epoch, generation stamp, memo, spend by the epoch that
//! paid) and its generation. The dispatcher's entries (absent, ready, leased by nonce, expired), which a flush empties.
//! Two workers of one slot: claim, load, start, answer of the provider, record, settle (final or retry), ack, handback,
//! renewal, re-assertion. Pushes and handbacks in flight, late, lost or twice; settles and records that outlive their
//! worker; replies that nobody hears. The reaper and the reconciler in two steps each, so that anything can come
//! between; the rebuild with its grace, which bumps where a worker did not come back. Users cancel. `poison.rs` is a model of its own.
//!
//! **Absent.** Clocks (a step that waits for time is a step that may come at any time; a *stall* is one that outlasts
//! session and lease; a worker whose connections are cut is one that stalls and resumes), priorities, lanes, limits, due
//! times, batches, redrive and edits (both bump the epoch like a retry), restore of the journal and its incarnation. Two
//! gaps that no protocol closes are one step here: between a worker's last look at its lease or at the kept answers and
//! the provider's first byte, and between the reconciler's or the reaper's last look at the generation and its write.
//!
//! **Is the push deadline needed when every claim has a preflight?** Yes, but for less than was thought. Without it no
//! job is lost, settled twice or held twice, and no cent is missing. But the reconciler finds a row unknown and bumps
//! it in two steps; a slow push that arrives between them gives the row to a worker, and the bump then fences a living
//! attempt, so that the next one may pay again. The fenced worker may even start after its successor has settled,
//! unless the start asks the dispatcher. The deadline must hold for *every* push of reaper, reconciler and api, and the
//! reconciler must leave a row alone for longer than the deadline after the row's *last write*. Since it guards work
//! and not correctness, a margin for skewed clocks is enough.
//!
//! **What the search added to the design**, each with a mutation below that fails without it:
//! - A worker keeps a fuse on its own monotonic clock, from the sending of its last good renewal, as long as the
//!   shortest time after which anybody may act on its silence (session or lease). When it has burnt down, nothing is
//!   loaded or started before a renewal succeeds, and after a flush nothing is re-asserted.
//! - An expired lease cannot be renewed or handed back, only acked, reaped or replaced.
//! - The reaper removes an expired entry whose row has moved on; the reconciler counts a job as known at any epoch.
//! - Where a worker did not come back after a flush, the rebuild bumps what nobody holds; where all did, it pushes rows as
//!   they are, and the reconciler waits until it has. (Before, every row of an older generation was to be bumped by its
//!   next load: nobody built that.)
//! - A worker that joins again drops what it had claimed and not loaded.
//! - Reaper and reconciler ask, right before they write, whether the life that they looked at has ended.
//! - Spend rows are keyed by the call and the epoch: a zombie and its successor both pay for the same call.
#![allow(clippy::print_stdout)]

mod attempts;
mod model;
mod poison;
mod reach;
mod rules;
mod state;
mod steps;

use std::{collections::BTreeSet, time::Instant};

use model::{
    ENDS, EVERY_CENT, LIVING_UNFENCED, NEVER_LOST, NO_LATE_START, NO_STALE_SETTLE, ONE_HOLDER, ONE_LEASE, PAY_ONCE,
    Protocol, SEEN_ADOPTED, SEEN_PAID_TWICE, SEEN_REASSERTED, SEEN_ZOMBIE, SETTLED_ONCE,
};
use rules::{Mutation, Rules};
use state::Faults;
use stateright::{Checker, Expectation, HasDiscoveries, Model};

const NONE: Faults =
    Faults { crashes: 0, stalls: 0, flushes: 0, losses: 0, repeats: 0, retries: 0, cancels: 0, handbacks: 0 };

/// The names of the broken rules and of the sights seen, after looking at every state. The right protocol must break
/// none.
fn search(jobs: usize, faults: Faults, mutation: Option<Mutation>) -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
    let begun = Instant::now();
    let checker = Protocol { jobs, faults, rules: Rules(mutation) }.checker().spawn_bfs().join();
    assert!(checker.is_done());
    println!(
        "{jobs} jobs, {faults:?}, {mutation:?}: {} states, {} steps, depth {}, {:.2} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64()
    );
    let discoveries = checker.discoveries();
    let found = |failures: bool| {
        let properties = checker.model().properties().into_iter();
        properties
            .filter(|p| (p.expectation != Expectation::Sometimes) == failures && discoveries.contains_key(p.name))
            .map(|p| p.name)
            .collect()
    };
    for name in discoveries.keys().filter(|_| mutation.is_none()) {
        let is_sight = checker.model().property(name).expectation == Expectation::Sometimes;
        assert!(is_sight, "{name}: {:?}", checker.discovery(name).map(|path| path.into_actions()));
    }
    (found(true), found(false))
}

/// The right protocol keeps every rule, in a world in which the named things do happen.
fn holds(jobs: usize, faults: Faults, sights: &[&'static str]) {
    let (_, seen) = search(jobs, faults, None);
    assert_eq!(seen, sights.iter().copied().collect());
}

/// The mistake breaks this rule, in a world in which the right protocol keeps it.
fn rejects(mutation: Mutation, faults: Faults, rule: &'static str) {
    search(1, faults, None);
    let checker = Protocol { jobs: 1, faults, rules: Rules(Some(mutation)) }
        .checker()
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([rule])))
        .spawn_bfs()
        .join();
    let path = checker.assert_any_discovery(rule);
    let states = checker.unique_state_count();
    println!("{mutation:?} breaks \"{rule}\" ({states} states): {:?}", path.into_actions());
}

/// The mistake breaks these rules and no others.
fn breaks_only(mutation: Mutation, faults: Faults, rules: &[&'static str]) {
    let (broken, _) = search(1, faults, Some(mutation));
    assert_eq!(broken, rules.iter().copied().collect());
}

#[test]
fn crashes() {
    holds(1, Faults { crashes: 2, losses: 1, retries: 1, ..NONE }, &[SEEN_PAID_TWICE, SEEN_ADOPTED]);
}

#[test]
fn zombies() {
    let sights = [SEEN_ZOMBIE, SEEN_PAID_TWICE, SEEN_ADOPTED];
    holds(1, Faults { stalls: 2, crashes: 1, retries: 1, ..NONE }, &sights);
    holds(1, Faults { stalls: 2, retries: 1, cancels: 1, ..NONE }, &sights);
}

#[test]
fn bad_network() {
    let faults = Faults { losses: 2, repeats: 2, retries: 1, cancels: 1, handbacks: 1, ..NONE };
    holds(1, faults, &[SEEN_ADOPTED]);
}

#[test]
fn bad_network_and_a_crash() {
    let faults = Faults { losses: 1, repeats: 1, crashes: 1, cancels: 1, handbacks: 1, ..NONE };
    holds(1, faults, &[SEEN_PAID_TWICE, SEEN_ADOPTED]);
}

#[test]
fn flush_while_the_network_is_bad_and_a_worker_stalls() {
    let faults = Faults { flushes: 1, stalls: 1, losses: 1, repeats: 1, ..NONE };
    holds(1, faults, &[SEEN_ZOMBIE, SEEN_PAID_TWICE, SEEN_REASSERTED, SEEN_ADOPTED]);
}

#[test]
fn flush_while_workers_stall_and_die() {
    let faults = Faults { flushes: 1, stalls: 1, crashes: 1, ..NONE };
    holds(1, faults, &[SEEN_ZOMBIE, SEEN_PAID_TWICE, SEEN_REASSERTED, SEEN_ADOPTED]);
}

#[test]
fn flush_while_jobs_are_retried_cancelled_and_handed_back() {
    let faults = Faults { flushes: 1, crashes: 1, retries: 1, cancels: 1, handbacks: 1, ..NONE };
    holds(1, faults, &[SEEN_PAID_TWICE, SEEN_REASSERTED, SEEN_ADOPTED]);
}

#[test]
fn two_flushes() {
    holds(1, Faults { flushes: 2, crashes: 1, ..NONE }, &[SEEN_PAID_TWICE, SEEN_REASSERTED, SEEN_ADOPTED]);
    let sights = [SEEN_ZOMBIE, SEEN_PAID_TWICE, SEEN_REASSERTED, SEEN_ADOPTED];
    holds(1, Faults { flushes: 2, stalls: 1, ..NONE }, &sights);
}

#[test]
fn two_jobs() {
    holds(2, Faults { crashes: 1, losses: 1, ..NONE }, &[SEEN_PAID_TWICE, SEEN_ADOPTED]);
    holds(2, Faults { stalls: 1, retries: 1, ..NONE }, &[SEEN_ZOMBIE, SEEN_PAID_TWICE, SEEN_ADOPTED]);
}

#[test]
fn two_jobs_and_a_flush() {
    let faults = Faults { flushes: 1, crashes: 1, ..NONE };
    holds(2, faults, &[SEEN_PAID_TWICE, SEEN_REASSERTED, SEEN_ADOPTED]);
}

/// A living worker loses nothing by a flush: with nothing else going wrong there is no second call and no fence.
#[test]
fn flush_alone_costs_nothing() {
    holds(1, Faults { flushes: 1, ..NONE }, &[SEEN_REASSERTED]);
    holds(2, Faults { flushes: 1, ..NONE }, &[SEEN_REASSERTED]);
}

#[test]
fn every_state_can_end_well() {
    for (jobs, faults) in [
        (1, Faults { crashes: 2, losses: 1, retries: 1, ..NONE }),
        (1, Faults { stalls: 2, retries: 1, cancels: 1, ..NONE }),
        (1, Faults { flushes: 2, crashes: 1, ..NONE }),
        (1, Faults { losses: 1, repeats: 1, handbacks: 1, ..NONE }),
        (2, Faults { crashes: 1, losses: 1, ..NONE }),
    ] {
        let (states, stuck) = reach::without_end(&Protocol { jobs, faults, rules: Rules(None) });
        println!("{jobs} jobs, {faults:?}: {states} states, each with a good end");
        assert_eq!(stuck, None);
    }
}

#[test]
fn answer_before_commit_loses_a_job() {
    rejects(Mutation::AnswerBeforeCommit, NONE, NEVER_LOST);
}

#[test]
fn no_reconciler_leaves_a_job_behind() {
    rejects(Mutation::NoReconciler, Faults { losses: 1, ..NONE }, ENDS);
}

#[test]
fn no_epoch_in_where_gives_a_token_to_two() {
    rejects(Mutation::NoEpochInWhere, Faults { stalls: 1, ..NONE }, ONE_HOLDER);
    rejects(Mutation::NoEpochInWhere, Faults { stalls: 1, ..NONE }, NO_STALE_SETTLE);
}

#[test]
fn no_fence_and_no_state_guard_settles_twice() {
    rejects(Mutation::NoFenceNoStateGuard, Faults { stalls: 1, ..NONE }, SETTLED_ONCE);
}

#[test]
fn no_push_deadline_and_no_preflight_starts_after_settlement() {
    rejects(Mutation::PushWithoutDeadlineAndNoPreflight, Faults { losses: 1, ..NONE }, NO_LATE_START);
}

#[test]
fn no_preflight_starts_after_settlement() {
    rejects(Mutation::NoPreflight, Faults { repeats: 1, ..NONE }, NO_LATE_START);
}

#[test]
fn no_push_deadline_fences_the_living_and_breaks_no_other_promise() {
    let faults = Faults { losses: 1, repeats: 1, stalls: 1, retries: 1, ..NONE };
    breaks_only(Mutation::PushWithoutDeadline, faults, &[LIVING_UNFENCED, NO_LATE_START]);
    breaks_only(Mutation::PushWithoutDeadlineButStartAsks, faults, &[LIVING_UNFENCED]);
}

#[test]
fn a_deadline_on_first_pushes_is_not_enough() {
    rejects(Mutation::DeadlineOnFirstPushOnly, Faults { losses: 2, ..NONE }, LIVING_UNFENCED);
}

#[test]
fn ack_before_settle_runs_finished_work_again() {
    rejects(Mutation::AckBeforeSettle, NONE, LIVING_UNFENCED);
}

#[test]
fn reconcile_without_bump_gives_a_token_to_two() {
    rejects(Mutation::ReconcileWithoutBump, Faults { flushes: 1, stalls: 1, ..NONE }, ONE_HOLDER);
}

#[test]
fn flush_without_grace_gives_a_token_to_two() {
    rejects(Mutation::FlushFencesEveryone, Faults { flushes: 1, ..NONE }, ONE_HOLDER);
}

#[test]
fn a_fill_that_waits_for_nobody_fences_the_living() {
    rejects(Mutation::FillWaitsForNobody, Faults { flushes: 1, ..NONE }, LIVING_UNFENCED);
}

#[test]
fn a_fill_without_bumps_gives_a_token_to_two() {
    rejects(Mutation::FillAsIfAllWereBack, Faults { flushes: 1, stalls: 1, ..NONE }, ONE_HOLDER);
}

#[test]
fn no_generation_check_gives_a_token_to_two() {
    rejects(Mutation::NoGenerationCheck, Faults { flushes: 1, repeats: 1, ..NONE }, ONE_HOLDER);
}

#[test]
fn a_load_that_goes_on_over_a_flush_gives_a_token_to_two() {
    rejects(Mutation::LoadOverFlush, Faults { flushes: 1, stalls: 1, losses: 1, repeats: 1, ..NONE }, ONE_HOLDER);
}

#[test]
fn start_without_a_look_at_the_clock_is_late() {
    rejects(Mutation::StartWithoutLeaseClock, Faults { stalls: 1, ..NONE }, NO_LATE_START);
}

#[test]
fn a_renewal_that_revives_fences_the_living() {
    rejects(Mutation::RenewRevivesExpired, Faults { stalls: 1, ..NONE }, LIVING_UNFENCED);
}

#[test]
fn re_asserting_what_had_expired_starts_after_settlement() {
    rejects(Mutation::ReassertExpired, Faults { stalls: 1, flushes: 1, ..NONE }, NO_LATE_START);
}

/// The reaper would find the same entry for ever, and the reconciler would take the job for known.
#[test]
fn reap_that_leaves_a_moved_entry_never_ends() {
    let faults = Faults { crashes: 1, losses: 1, ..NONE };
    let rules = Rules(Some(Mutation::ReapLeavesMovedEntry));
    let (_, stuck) = reach::without_end(&Protocol { jobs: 1, faults, rules });
    assert!(stuck.is_some_and(|s| s.jobs[0].is_live()));
}

#[test]
fn reaping_what_expired_in_another_life_fences_the_living() {
    rejects(Mutation::ReapOfAnotherLife, Faults { flushes: 1, stalls: 1, ..NONE }, LIVING_UNFENCED);
}

#[test]
fn reconciling_other_epochs_fences_the_living() {
    rejects(Mutation::ReconcileOtherEpochs, Faults { retries: 1, ..NONE }, LIVING_UNFENCED);
}

#[test]
fn handing_back_an_expired_lease_fences_the_living() {
    rejects(Mutation::HandBackExpired, Faults { handbacks: 1, ..NONE }, LIVING_UNFENCED);
}

#[test]
fn no_nonce_frees_the_lease_of_another() {
    rejects(Mutation::NoNonce, Faults { handbacks: 1, repeats: 1, ..NONE }, ONE_LEASE);
    rejects(Mutation::NoNonce, Faults { handbacks: 1, repeats: 1, ..NONE }, ONE_HOLDER);
}

#[test]
fn no_memo_lookup_pays_again() {
    rejects(Mutation::NoMemoLookup, Faults { crashes: 1, ..NONE }, PAY_ONCE);
}

#[test]
fn fenced_money_is_missing_from_the_ledger() {
    rejects(Mutation::MoneyIsFenced, Faults { stalls: 1, ..NONE }, EVERY_CENT);
}

#[test]
fn spend_keyed_by_call_alone_is_missing_from_the_ledger() {
    rejects(Mutation::SpendKeyedByCall, Faults { stalls: 1, ..NONE }, EVERY_CENT);
}
