//! API10: what providers, services, receivers and stores answer is as hostile as what callers send. Held where it is read; nothing was
//! left open here.

use super::Held;

pub(super) const HELD_BY: &[Held] = &[
    ("worker/tests/it/provider_faults.rs", "every_prefix_of_a_response_is_survived"),
    ("worker/tests/it/provider_faults.rs", "odd_json_is_survived"),
    ("worker/tests/it/provider_faults.rs", "nothing_is_read_without_a_bound"),
    ("worker/tests/it/provider_faults.rs", "silence_ends_when_patience_does"),
    ("worker/tests/it/provider_faults.rs", "a_quoted_prompt_or_key_is_not_passed_on"),
    ("worker/src/provider/openai/read/bad_input.rs", "whatever_a_provider_sends_becomes_an_answer_or_an_error"),
    ("worker/src/handlers/analysis/pack/bad_input.rs", "whatever_a_model_answers_keeps_its_form_or_is_not_used"),
    ("worker/tests/it/http_kind.rs", "the_words_of_a_service_reach_no_other_job"),
    ("worker/tests/it/http_kind.rs", "an_answer_has_a_size_and_a_time"),
    ("queue-core/tests/egress.rs", "a_redirect_is_an_answer_and_not_followed"),
];
