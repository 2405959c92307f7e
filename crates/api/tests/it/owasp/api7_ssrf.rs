//! API7: no URL that a caller names leads into the operator's network.
//!
//! The guard itself is held by a corpus and by a resolver that changes its mind; left open was that every field which takes a URL asks it.

use std::sync::Arc;

use queue_core::credentials::{Credentials, MasterKeys};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::json;

use super::Held;
use crate::server::Server;

pub(super) const HELD_BY: &[Held] = &[
    ("queue-core/tests/egress.rs", "nothing_leaves_for_any_url_of_the_corpus"),
    ("queue-core/tests/egress.rs", "a_name_that_answers_differently_a_moment_later_gains_nothing"),
    ("queue-core/tests/egress.rs", "a_redirect_is_an_answer_and_not_followed"),
    ("queue-core/tests/egress.rs", "an_answer_has_bounds"),
    ("queue-core/tests/egress.rs", "a_url_is_refused_with_a_reason"),
    ("queue-core/tests/bad_input/main.rs", "whatever_is_read_is_taken_or_refused"),
    ("worker/tests/it/http_kind.rs", "nobody_is_sent_where_only_this_network_leads"),
    ("worker/tests/it/http_kind.rs", "an_answer_has_a_size_and_a_time"),
    ("api/tests/it/webhooks.rs", "what_is_wrong_is_refused_with_its_place"),
];

const INSIDE: [&str; 5] = [
    "https://127.0.0.1/",
    "https://[::ffff:169.254.169.254]/latest/meta-data/",
    "https://2130706433/",
    "http://service.example/",
    "https://a:b@service.example/",
];

#[tokio::test]
async fn every_field_that_takes_a_url_asks_the_guard() {
    // Without a master key nothing would be signed, and nothing with a URL be taken.
    let server = Server::start_with(|api| {
        let credentials = Credentials::of(api.stores.vault.clone());
        let key = MasterKeys::generate().unwrap();
        credentials.set_master_keys(MasterKeys::parse(key.expose_secret()));
        api.credentials = Arc::new(credentials);
    })
    .await;
    for url in INSIDE {
        let http = json!({"kind": "http", "payload": {"url": url, "method": "POST"}});
        let told = json!({"kind": "probe", "payload": {}, "webhook": {"url": url}});
        let schedule = |template| json!({"name": "s", "every": "1h", "template": template});
        let fields = [
            (Method::POST, "/v1/jobs", http.clone(), "/payload/url"),
            (Method::POST, "/v1/jobs", told.clone(), "/webhook/url"),
            (Method::POST, "/v1/schedules", schedule(http), "/template/payload/url"),
            (Method::POST, "/v1/schedules", schedule(told), "/template/webhook/url"),
            (Method::POST, "/v1/webhooks", json!({"url": url}), "/url"),
        ];
        for (method, path, body, pointer) in fields {
            let problem = server.send(server.request(method, path).json(&body)).await.problem(422);
            let named = problem["errors"].as_array().unwrap().iter().any(|error| error["pointer"] == pointer);
            assert!(named, "{path} with {url}: {problem}");
        }
    }
}
