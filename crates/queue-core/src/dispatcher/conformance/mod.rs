//! What every dispatcher must do, written against the seam only.
//!
//! A store joins with one line in its tests: `queue_core::dispatcher_conformance!(its_fixture());`, where the
//! expression makes a [`Fixture`] over a fresh, empty store. Each case below becomes one test of that store.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a suite fails by panicking; its cases' names say it all

mod keys;
mod kinds;
mod leases;
mod limits;
mod order;
mod reports;
mod signals;
mod sleep;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Ack, Claim, Dispatcher, Entry, Lease, Place, Setting, Signal, Step, StepReply, Suspicion};
use crate::{
    ids::{Epoch, Generation, JobId, SessionId},
    job::Kind,
    journal::{QueueSettings, Versioned},
    time::{Clock, Timestamp},
};

pub use self::{keys::*, kinds::*, leases::*, limits::*, order::*, reports::*, signals::*, sleep::*};

/// A store under test, and its time.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store; it has not begun.
    fn dispatcher(&self) -> Arc<dyn Dispatcher>;

    /// The store's time.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Lets the store's time pass.
    async fn advance_ms(&self, ms: i64);

    /// Waits until every signal that was sent so far has arrived. In memory they arrive at once.
    async fn signals_arrive(&self) {}
}

/// Makes one test of every case: `dispatcher_conformance!(a_fresh_fixture())`.
#[macro_export]
macro_rules! dispatcher_conformance {
    ($fixture:expr) => {
        $crate::dispatcher_conformance! { @cases $fixture;
            nothing_is_claimed_before_it_begins, no_more_is_claimed_than_slots, a_push_is_heard_once_an_epoch,
            a_later_epoch_ends_a_claim, priorities_order_and_age, lanes_take_turns, weights_share_the_turns,
            a_parked_target_is_skipped_until_its_time, a_longer_parking_stands, a_target_has_its_limit,
            a_pattern_limits_targets_without_a_limit_of_their_own, a_queue_has_its_limit_and_its_pause,
            older_settings_change_nothing, a_worker_serves_the_queues_it_names, what_is_due_later_waits,
            an_ack_must_match, a_release_comes_back_at_once, what_is_due_behind_the_horizon_is_forgotten,
            a_lease_lives_by_renewal, an_expired_lease_stays_expired, a_lost_session_gives_back_what_it_held,
            only_started_attempts_count, one_suspect_takes_the_blame, a_withdrawn_job_is_gone,
            a_cancel_reaches_the_holder, a_wake_up_is_never_lost, depths_count_what_can_be_claimed,
            a_waiting_job_says_what_it_waits_for, a_new_life_knows_nothing,
            one_step_claims_a_bounded_number_and_says_that_there_is_more,
            queues_take_turns,
            who_comes_again_and_again_gains_nothing,
            a_push_behind_the_horizon_ends_what_it_replaces,
            a_later_epoch_replaces_what_waits,
            an_older_life_does_not_begin_again,
            parked_lanes_come_back_whole,
            limits_hold_over_queues_and_lanes,
            a_limit_that_is_reached_hides_nothing,
            suspects_run_beside_each_other_and_share_the_blame,
            an_isolated_job_is_kept_from_its_like_and_takes_the_blame,
            blame_is_decided_once,
            a_lease_that_ends_by_itself_is_judged_among_what_its_session_holds,
            what_ran_before_a_flush_is_suspected_as_before,
            what_ran_before_a_flush_is_held_again,
            what_ran_before_a_flush_is_taken_out_of_its_lane,
            what_went_on_since_a_flush_is_not_held_again,
            a_reap_is_bounded_and_repeats,
            a_lost_claim_may_still_be_settled,
            a_worker_that_slept_goes_on,
            who_is_gone_is_told_from_who_is_silent,
            a_reapers_ack_revives_nobody,
            only_the_holder_renews_and_starts,
            the_first_start_stands,
            no_cancel_is_lost,
            many_pushes_cost_one_signal,
            a_freed_place_wakes,
            a_freed_place_of_the_queue_wakes,
            an_operator_wakes,
            an_earlier_moment_is_told,
            the_next_isolated_job_wakes_its_worker,
            the_oldest_is_told_whatever_its_priority,
            what_blocks_is_named,
            places_are_told_in_order,
            jobs_that_come_twice_in_a_push_are_held_once,
            a_worker_serves_the_kinds_it_names, kinds_share_turns_and_order, a_turn_of_one_kind_is_had_for_all, kinds_share_limits,
            a_worker_is_woken_for_its_kinds, a_job_of_a_kind_that_nobody_serves_says_so,
            one_job_of_a_key_runs_at_a_time, a_step_takes_the_place_that_its_ack_frees, others_do_not_wait_for_a_key,
            a_key_is_of_its_queue_and_tenant, a_queue_says_how_many_of_a_key_run, a_lane_keeps_its_turn_when_one_of_its_own_goes_first, a_lower_limit_takes_back_what_waits,
            a_new_limit_reaches_every_key, the_urgent_goes_first_within_a_key, every_end_of_a_claim_frees_its_place,
            a_withdrawn_job_leaves_the_line_of_its_key, a_lost_claim_keeps_its_place_until_it_is_replaced,
            what_ran_before_a_flush_has_its_place, who_held_more_than_may_is_waited_for, a_blocked_job_says_so,
            a_key_that_nobody_has_leaves_nothing,
            a_tenant_sleeps_until_its_time, a_budget_parks_a_tenant, a_sleeping_tenant_holds_nobody_up, what_a_sleeping_tenant_has_is_parked,
            a_woken_tenant_has_saved_no_turns, older_settings_of_tenants_and_targets_change_nothing,
            a_paused_target_is_skipped_until_its_time, a_target_is_tried_by_one_job, a_trial_that_fails_tries_again,
            a_trial_ends_with_a_wake_up, an_operators_wake_up_wakes_workers, who_sleeps_is_named;
        }
    };
    (@cases $fixture:expr; $($case:ident),+;) => {
        $(
            #[tokio::test]
            async fn $case() {
                let fixture = $fixture;
                $crate::dispatcher::conformance::$case(&fixture).await;
            }
        )+
    };
}

/// A begun store with one worker in it.
struct Scene<'f> {
    fixture: &'f dyn Fixture,
    dispatcher: Arc<dyn Dispatcher>,
    session: SessionId,
    signals: mpsc::Receiver<Signal>,
}

impl<'f> Scene<'f> {
    async fn open(fixture: &'f dyn Fixture) -> Self {
        let dispatcher = fixture.dispatcher();
        dispatcher.begin(Generation(1)).await.unwrap();
        let session = SessionId::generate();
        let signals = dispatcher.join(session, vec![]).await.unwrap();
        Self { fixture, dispatcher, session, signals }
    }

    fn now(&self) -> Timestamp {
        self.fixture.clock().now()
    }

    fn entry(&self) -> Entry {
        Entry {
            id: JobId::generate(),
            epoch: Epoch(0),
            queue: "default".into(),
            tenant: "acme".into(),
            target: "t".into(),
            kind: Kind::Llm,
            priority: 5,
            run_at: self.now(),
            suspicion: Suspicion::None,
            key: None,
        }
    }

    async fn push(&self, change: impl FnOnce(&mut Entry)) -> Entry {
        let mut entry = self.entry();
        change(&mut entry);
        self.dispatcher.push(vec![entry.clone()]).await.unwrap();
        entry
    }

    async fn step(&self, step: Step) -> StepReply {
        self.dispatcher.step(step).await.unwrap()
    }

    fn asking(&self, slots: usize) -> Step {
        Step { session: self.session, acks: vec![], queues: vec![], kinds: vec![], slots }
    }

    async fn claim(&self, slots: usize) -> Vec<Claim> {
        self.step(self.asking(slots)).await.claims
    }

    async fn claim_ids(&self, slots: usize) -> Vec<JobId> {
        self.claim(slots).await.iter().map(|claim| claim.lease.id).collect()
    }

    async fn ack(&self, lease: Lease, next: Option<Entry>) {
        self.step(Step { acks: vec![Ack { lease, next }], ..self.asking(0) }).await;
    }

    async fn place(&self, id: JobId) -> Place {
        self.dispatcher.locate(&[id]).await.unwrap().remove(0)
    }

    async fn set_queue(&self, version: i64, value: QueueSettings) {
        let setting = Setting::Queue("default".into(), Versioned { version, value });
        self.dispatcher.apply(setting).await.unwrap();
    }

    /// The next signal of those that were sent so far.
    async fn told(&mut self) -> Option<Signal> {
        self.fixture.signals_arrive().await;
        self.signals.try_recv().ok()
    }

    /// Forgets what was said so far.
    async fn drain_signals(&mut self) {
        while self.told().await.is_some() {}
    }

    /// Another worker.
    async fn another(&self) -> Scene<'f> {
        let session = SessionId::generate();
        let signals = self.dispatcher.join(session, vec![]).await.unwrap();
        Scene { fixture: self.fixture, dispatcher: self.dispatcher.clone(), session, signals }
    }
}
