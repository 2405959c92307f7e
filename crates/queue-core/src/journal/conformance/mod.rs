//! What every journal must do, written against its seams only.
//!
//! A store joins with one line in its tests: `queue_core::journal_conformance!(its_fixture());`, where the expression
//! makes a fresh, empty store that implements [`Fixture`]. Each case below becomes one test of that store.

#![allow(clippy::unwrap_used, clippy::panic)] // a suite fails by panicking; it is built for tests only

pub mod accept;
pub mod archives;
pub mod audit;
pub mod backups;
pub mod budgets;
pub mod catalog;
pub mod erasure;
pub mod identity;
pub mod money;
pub mod operations;
pub mod orders;
pub mod protocol;
pub mod reads;
pub mod retention;
pub mod schedules;
pub mod settle;
pub mod vault;
pub mod webhooks;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Accepted, Budgets, Catalog, Due, Identity, Journal, Ledger, Orders, Outcome, Reads, Settled, Settlement, Token,
};
use crate::{
    archive::Archives,
    audit::Audit,
    backup::Backups,
    credentials::Vault,
    erasure::Erasures,
    error::{ErrorClass, JobError},
    ids::{CallId, Epoch, JobId, SessionId},
    job::{Job, Kind, NewJob},
    ledger::{Billed, CallRecord, MemoBody, Nanousd, Tier, Usage, UsageSource},
    operations::Operations,
    retention::Retention,
    schedule::Schedules,
    stores::Truth,
    time::{ManualClock, Timestamp},
    upkeep::Upkeep,
    webhooks::Webhooks,
};

/// The seams over one open store.
#[derive(Clone)]
pub struct Opened {
    /// The protocol of a job.
    pub journal: Arc<dyn Journal>,
    /// What people ask.
    pub reads: Arc<dyn Reads>,
    /// The money.
    pub ledger: Arc<dyn Ledger>,
    /// What operators set.
    pub catalog: Arc<dyn Catalog>,
    /// Who may call.
    pub identity: Arc<dyn Identity>,
    /// Tenants' own keys.
    pub vault: Arc<dyn Vault>,
    /// What may be spent.
    pub budgets: Arc<dyn Budgets>,
    /// What operators order.
    pub orders: Arc<dyn Orders>,
    /// What is done to many jobs.
    pub operations: Arc<dyn Operations>,
    /// Dead letters outside of it.
    pub archives: Arc<dyn Archives>,
    /// Who is told of what.
    pub webhooks: Arc<dyn Webhooks>,
    /// What was done by whom.
    pub audit: Arc<dyn Audit>,
    /// Who was erased.
    pub erasures: Arc<dyn Erasures>,
    /// What was ordered of backups.
    pub backups: Arc<dyn Backups>,
    /// What is old.
    pub retention: Arc<dyn Retention>,
    /// How tidy it is.
    pub upkeep: Arc<dyn Upkeep>,
    /// What is submitted by the clock.
    pub schedules: Arc<dyn Schedules>,
}

impl Opened {
    /// The seams of a store that implements them all.
    pub fn over(store: impl Truth) -> Self {
        let store = Arc::new(store);
        let (journal, reads, ledger) = (store.clone(), store.clone(), store.clone());
        let (catalog, identity, vault) = (store.clone(), store.clone(), store.clone());
        let (budgets, orders, operations) = (store.clone(), store.clone(), store.clone());
        let (archives, webhooks, audit) = (store.clone(), store.clone(), store.clone());
        Self {
            journal,
            reads,
            ledger,
            catalog,
            identity,
            vault,
            budgets,
            orders,
            operations,
            archives,
            webhooks,
            audit,
            erasures: store.clone(),
            schedules: store.clone(),
            retention: store.clone(),
            upkeep: store.clone(),
            backups: store,
        }
    }
}

/// A store that can be opened again and again; it is empty before the first time.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Opens it with [`Fixture::clock`]. What an earlier opening committed is there.
    async fn open(&self) -> Opened;

    /// The clock that the store decides with; it stands at [`NOW`].
    fn clock(&self) -> ManualClock;

    /// Every table of the store, from its catalogue: whether it says in a column `tenant` whose its rows are, and how many of its
    /// rows have this text in any of their columns. Nothing where no case asks: those that do want many tables.
    async fn tables_with(&self, _text: &str) -> Vec<(String, bool, u64)> {
        vec![]
    }
}

/// Makes one test of every case: `journal_conformance!(a_fresh_fixture())`.
#[macro_export]
macro_rules! journal_conformance {
    ($fixture:expr) => {
        $crate::journal_conformance! { @cases $fixture;
            accept: a_job_is_read_back_as_it_was_sent, asking_again_gives_the_same_answers,
                a_repeated_request_gets_the_first_job, equal_requests_of_one_batch_see_each_other,
                a_unique_key_is_held_while_its_holder_lives, keys_belong_to_their_tenant, a_key_covers_every_item_of_its_request,
                bodies_that_come_at_once_do_not_share_a_key, a_refused_body_leaves_its_key_free,
                any_text_and_any_bytes_survive, a_bad_job_hurts_only_itself, a_bulk_is_answered_in_order;
            settle: a_success_keeps_its_result, a_retry_spends_an_attempt_and_moves_on,
                a_release_spends_nothing, the_journal_counts_how_long_a_retry_waits, a_release_may_move_to_another_lane, a_death_keeps_its_error, an_attempt_is_settled_once,
                another_epoch_or_life_is_fenced, only_what_may_run_is_loaded, the_state_table_holds;
            money: a_call_is_counted_once, each_attempt_pays_for_itself, money_is_never_fenced, a_fenced_attempt_leaves_its_answer,
                an_unknown_price_makes_the_cost_unknown, a_success_is_charged_what_its_calls_cost,
                costs_are_grouped_and_dearest_first, the_first_answer_of_a_call_stays, tiers_and_audio_are_kept,
                waste_is_told_and_taken_back, a_convicted_job_has_spent_for_nothing,
                savings_are_counted_apart_and_once, a_job_is_counted_once, the_newest_calls_are_told;
            protocol: a_lost_worker_costs_an_epoch_and_is_written_down, three_lost_workers_convict,
                a_lost_provider_call_is_counted, shared_blame_isolates, a_settle_forgets_recoveries, a_moved_job_is_not_recovered,
                reconcile_hands_on_what_is_live, live_jobs_are_paged_by_due_time, a_cancel_fences_and_is_final,
                a_cancelled_attempt_is_written_down,
                a_concurrency_key_goes_with_its_job, an_edit_moves_the_epoch, a_dead_letter_gets_another_life,
                a_dead_letter_may_get_another_payload;
            reads: a_list_is_narrowed_by_every_field, a_list_is_paged_newest_first, a_batch_is_counted_by_standing, the_newest_of_a_batch_are_told,
                totals_follow_every_move, dead_letters_are_grouped_by_cause, what_is_asked_within_a_tenant_stays_in_it, what_is_missing_is_not_there;
            vault: a_key_is_set_over_the_one_before, a_deleted_key_leaves_its_number, refusals_disable_a_key,
                a_rewrap_touches_one_version, changes_come_in_their_order, policies_are_told_apart;
            catalog: queues_exist_once_named, tenants_have_settings_and_a_backlog, targets_have_settings, a_job_keeps_its_fallback_chain, sessions_come_and_go,
                a_life_is_filled_by_one, everything_survives_a_restart, a_check_commits;
            identity: keys_stay_as_they_were_made, keys_are_listed_by_page, a_rotation_keeps_the_secret_before_for_a_while, a_key_is_limited_and_let_go_again,
                a_revoked_key_is_counted_no_more, the_last_admin_key_stays, the_last_admin_key_is_one_that_can_make_keys_for_good,
                the_last_of_admin_keys_that_end_stays, the_last_admin_key_stays_whoever_asks_at_once,
                a_use_is_noted_and_never_taken_back,
                a_revoked_token_stays_so_until_its_end;
            budgets: a_budget_is_kept_with_its_version, what_was_spent_is_told_by_scope, sleepers_of_a_budget_are_woken,
                an_alert_is_noted_once, a_job_keeps_its_key_and_its_cap;
            orders: maintenance_keeps_its_first_moment, a_worker_is_ordered_to_drain, a_log_level_outlives_the_process;
            backups: an_order_is_kept_once_and_worked_on_by_one, backups_are_paged_and_forgotten;
            operations: one_operation_of_an_action_and_queue_runs, an_operation_is_taken_by_one,
                a_step_moves_jobs_place_and_counts_together, what_had_another_life_is_left_alone, a_dry_run_only_counts, an_abort_is_the_end,
                cancels_of_an_operation_are_cancels, what_is_deleted_is_gone_and_its_money_is_not,
                a_reclaim_hands_on_what_is_held, a_step_has_a_last_one, old_operations_are_forgotten;
            archives: what_is_archived_leaves_and_comes_back_as_it_was, what_changed_since_it_was_read_is_read_again,
                nothing_is_archived_without_its_objects, archives_are_listed;
            erasure: an_erased_tenant_leaves_nothing, a_walk_goes_on_where_it_stood, rows_that_come_back_are_taken_away,
                what_opens_secrets_goes_first;
            schedules: a_schedule_is_kept_as_it_was_made, a_name_is_one_schedules, a_change_is_refused_to_who_saw_another_beat,
                a_due_schedule_is_claimed_by_one, a_cursor_is_moved_once, a_page_of_schedules_is_of_its_tenant;
            audit: rows_are_chained, those_who_add_at_once_make_one_chain, what_is_below_the_floor_may_go;
            retention: one_has_the_turn, settled_jobs_go_with_all_that_is_kept_of_them, a_result_goes_before_its_job,
                keys_are_forgotten_and_free, keys_of_ticks_are_kept_for_longer, sums_stay_when_single_calls_go,
                what_may_run_again_keeps_what_it_needs, what_went_is_noted;
            webhooks: an_end_is_told_to_whom_it_concerns, a_fenced_end_is_told_to_nobody, the_other_ends_are_told_too,
                a_delivery_has_one_owner, a_full_lane_holds_nobody_up, an_attempt_is_noted_by_its_owner,
                what_waits_too_long_is_given_up,
                a_receiver_that_wants_no_more_is_switched_off, a_delivery_is_replayed_and_pruned, endpoints_are_kept,
                secrets_are_rotated, alerts_and_disabled_keys_are_told_once, circuits_are_told_once;
        }
    };
    (@cases $fixture:expr; $($module:ident: $($case:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $case() {
                let fixture = $fixture;
                $crate::journal::conformance::$module::$case(&fixture).await;
            }
        )+)+
    };
}

/// When the suite takes place.
pub const NOW: Timestamp = Timestamp(1_790_000_000_000);

/// A job with nothing special about it.
pub fn job() -> NewJob {
    let payload = Bytes::from_static(br#"{"messages":[]}"#);
    NewJob::new("acme".into(), Kind::Llm, "simulated:small:8b:default".into(), payload, NOW)
}

/// The claim of a job at an epoch.
pub fn token(id: JobId, epoch: i64) -> Token {
    Token { id, epoch: Epoch(epoch) }
}

/// A final error.
pub fn failure() -> JobError {
    JobError::new(ErrorClass::Server, "503", "upstream said no to request 17")
}

/// The end of an attempt in the journal's present life.
pub fn settlement(store: &Opened, token: Token, outcome: Outcome) -> Settlement {
    Settlement {
        token,
        incarnation: store.journal.incarnation(),
        outcome,
        session: SessionId::generate(),
        started_at: NOW.plus_ms(10),
        finished_at: NOW.plus_ms(20),
        calls: Vec::new(),
        savings: Vec::new(),
        served_by: None,
    }
}

/// A result.
pub fn success() -> Outcome {
    Outcome::Succeed { result: r#"{"text":"done"}"#.into() }
}

/// A passing failure; due again a second later.
pub fn retry() -> Outcome {
    Outcome::Retry { due: Due::At(NOW.plus_ms(1_000)), error: failure() }
}

/// A claim given back; due again two seconds later.
pub fn release() -> Outcome {
    Outcome::Release { due: Due::At(NOW.plus_ms(2_000)), error: None, target: None }
}

/// A final failure.
pub fn death() -> Outcome {
    Outcome::Dead { error: failure() }
}

/// An answered and paid call of `job`, with its answer.
pub fn call(job: &NewJob, step: &str, cost: Option<i64>) -> CallRecord {
    CallRecord {
        call_id: CallId::of(job.id, step, 0),
        job_id: job.id,
        tenant: job.tenant.clone(),
        queue: job.queue.clone(),
        kind: job.kind,
        operation: job.operation.clone(),
        key_id: None,
        epoch: Epoch(0),
        step: step.into(),
        sequence: 0,
        provider: "simulated".into(),
        model: "small".into(),
        status: "ok".into(),
        billed: Billed::Yes,
        usage: Usage {
            tokens_in: 100,
            tokens_out: 20,
            tokens_cached: 30,
            tokens_cache_write: 4,
            tokens_reasoning: 5,
            ..Usage::default()
        },
        tier: Tier::Standard,
        usage_source: UsageSource::Provider,
        cost: cost.map(Nanousd),
        price_version: "2026-01".into(),
        duration_ms: 250,
        credential: "default".into(),
        provider_request_id: Some("req_1".into()),
        at: NOW.plus_ms(15),
        memo: Some(MemoBody { request_hash: [7; 32], body: format!("answer of {step}").into() }),
    }
}

/// Accepts one job and expects it to be new.
pub async fn accept_new(store: &Opened, job: &NewJob) {
    assert_eq!(store.journal.accept(vec![job.clone()]).await.unwrap(), [Accepted::New]);
}

/// Accepts a fresh job and returns it.
pub async fn accepted(store: &Opened) -> NewJob {
    let job = job();
    accept_new(store, &job).await;
    job
}

/// Settles and expects it to be done.
pub async fn settle(store: &Opened, token: Token, outcome: Outcome) -> Settled {
    let settled = store.journal.settle(settlement(store, token, outcome)).await.unwrap();
    assert!(matches!(settled, Settled::Done { .. }), "{settled:?}");
    settled
}

/// The row of a job that is there.
pub async fn row(store: &Opened, id: JobId) -> Job {
    store.reads.jobs(&[id]).await.unwrap().pop().flatten().unwrap()
}
