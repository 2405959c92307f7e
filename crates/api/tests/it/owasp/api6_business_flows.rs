//! API6: the flow that costs money is asking a model. Whoever automates it is bounded by idempotency, pace, backlog and budget, all of
//! which are held elsewhere; nothing was left open here.

use super::Held;

pub(super) const HELD_BY: &[Held] = &[
    ("api/tests/it/jobs.rs", "an_idempotency_key_makes_a_repeated_request_the_same_request"),
    ("api/tests/it/jobs.rs", "a_unique_key_is_held_by_one_live_job"),
    ("api/tests/it/robust.rs", "a_key_in_flight_is_refused_until_its_first_request_is_answered"),
    ("api/tests/it/request_limits.rs", "jobs_that_ask_providers_are_counted_besides"),
    ("api/tests/it/request_limits.rs", "a_bulk_counts_each_job_and_lets_the_first_ones_in"),
    ("api/tests/it/request_limits.rs", "an_answer_that_is_repeated_submits_nothing"),
    ("api/tests/it/backlog.rs", "a_submit_beyond_the_cap_is_refused_until_a_job_has_ended"),
    ("api/tests/it/budgets.rs", "a_tenant_asks_only_for_what_it_may"),
    ("api/tests/it/budgets.rs", "a_job_that_cannot_fit_is_refused_with_an_estimate"),
    ("api/tests/it/isolation.rs", "nobody_submits_for_another_tenant"),
];
