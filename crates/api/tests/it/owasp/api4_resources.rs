//! API4: nobody takes more of the server, the stores, the providers or the money than is allowed.
//!
//! Bodies, heads, connections, pace, backlog and money are held by the tests below; left open was that *every* list has a largest page.

use reqwest::Method;

use super::Held;
use crate::server::Server;

pub(super) const HELD_BY: &[Held] = &[
    ("api/tests/it/robust.rs", "a_head_that_does_not_arrive_ends_its_connection"),
    ("api/tests/it/robust.rs", "a_head_that_comes_in_drops_ends_its_connection_and_one_that_has_not_begun_does_not"),
    ("api/tests/it/robust.rs", "an_answer_that_nobody_reads_ends_its_connection"),
    ("api/tests/it/robust.rs", "a_pause_within_a_body_is_answered_with_408"),
    ("api/tests/it/robust.rs", "a_body_that_does_not_arrive_is_answered_with_408"),
    ("api/tests/it/robust.rs", "a_head_that_is_too_large_is_told_so"),
    ("api/tests/it/robust.rs", "a_connection_too_many_is_told_so"),
    ("api/tests/it/tls.rs", "who_begins_no_handshake_is_not_waited_for"),
    ("api/tests/it/tls.rs", "an_answer_that_nobody_reads_ends_its_connection_over_tls_too"),
    ("api/tests/it/packed_bodies.rs", "a_bomb_does_not_go_off"),
    ("api/tests/bad_input.rs", "every_bad_request_is_told_what_is_wrong_and_costs_no_memory"),
    ("api/tests/it/request_limits.rs", "each_answer_tells_how_the_limit_stands_and_a_refusal_when_to_come_again"),
    ("api/tests/it/request_limits.rs", "a_thousand_requests_over_three_servers_meet_one_limit"),
    ("api/tests/it/request_limits.rs", "nobody_uses_up_what_another_one_may_do"),
    ("api/tests/it/backlog.rs", "many_at_once_do_not_pass_the_cap"),
    ("api/tests/it/budgets.rs", "a_job_that_cannot_fit_is_refused_with_an_estimate"),
    ("worker/tests/it/provider_faults.rs", "nothing_is_read_without_a_bound"),
];

#[tokio::test]
async fn every_list_has_a_largest_page() {
    let server = Server::start().await;
    let document = serde_json::to_value(api::openapi()).unwrap();
    let mut lists = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let parameters = item["get"]["parameters"].as_array().into_iter().flatten();
        if !parameters.into_iter().any(|parameter| parameter["name"] == "limit" && parameter["in"] == "query") {
            continue;
        }
        let filled = path.replace("{id}", "01900000-0000-7000-8000-000000000000");
        let filled: Vec<_> = filled.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
        for many in ["0", "-1", "100000", "99999999999999999999", "1e3"] {
            let request = server.request(Method::GET, &format!("{}?limit={many}", filled.join("/")));
            let answer = server.send(request).await;
            if path.contains('{') && answer.status == 404 {
                // What its address names is looked for first.
                continue;
            }
            let problem = answer.problem(422);
            assert_eq!(problem["errors"][0]["pointer"], "/query/limit", "{path} with {many:?}: {problem}");
        }
        lists += 1;
    }
    assert!(lists >= 5, "{lists} lists");
}
