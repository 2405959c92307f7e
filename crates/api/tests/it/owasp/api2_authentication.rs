//! API2: who calls is known by a key or a token in the header that is made for it, and by nothing else.
//!
//! Forged, ended and revoked ones are held by the tests below; left open was where else a good one might be taken from.

use reqwest::Method;
use serde_json::json;

use super::Held;
use crate::server::Server;

pub(super) const HELD_BY: &[Held] = &[
    ("api/tests/it/tokens.rs", "forged_tokens_are_refused"),
    ("api/tests/it/tokens.rs", "a_token_ends_with_its_key"),
    ("api/tests/it/tokens.rs", "a_token_is_taken_back_for_good"),
    ("api/tests/it/tokens.rs", "a_token_may_do_less_than_its_key_and_never_more"),
    ("api/tests/it/tokens.rs", "a_token_is_for_its_installation"),
    ("api/tests/it/tokens.rs", "tokens_of_an_issuer_are_believed_within_its_bounds"),
    ("api/tests/it/keys.rs", "a_secret_is_shown_once"),
    ("api/tests/it/keys.rs", "a_key_ends_by_itself"),
    ("api/tests/it/keys.rs", "a_revoked_key_opens_nothing_at_once"),
    ("api/tests/it/keys.rs", "no_key_outlives_its_maker"),
    ("api/tests/it/surface.rs", "only_a_valid_key_opens_v1"),
    ("api/tests/it/audit.rs", "refusals_have_rows_and_their_reasons"),
    ("api/tests/it/generated/mod.rs", "every_request_is_answered_as_the_document_says"),
];

/// Addresses stand in logs, cookies are sent by any page that a browser opens, and two answers to who calls are none.
#[tokio::test]
async fn a_key_counts_where_it_belongs_and_nowhere_else() {
    let server = Server::start().await;
    let (key, url) = (server.key.clone(), format!("{}/v1/jobs", server.url));
    let bare = || server.http.request(Method::GET, &url);
    let elsewhere = [
        server.http.get(format!("{url}?access_token={key}")),
        server.http.get(format!("{url}?key={key}")),
        server.http.get(url.replace("http://", &format!("http://{key}@"))),
        bare().header("cookie", format!("authorization=Bearer {key}; longshore_session={key}")),
        bare().header("x-api-key", &key),
        bare().header("proxy-authorization", format!("Bearer {key}")),
        bare().basic_auth(&key, Some(&key)),
        bare().header("authorization", &key),
        bare().header("authorization", format!("Token {key}")),
        bare().header("authorization", format!("Bearer {key},Bearer {key}")),
        bare().header("authorization", "Bearer nobody").header("authorization", format!("Bearer {key}")),
    ];
    for request in elsewhere {
        let shown = format!("{request:?}").replace(&key, "KEY");
        let answer = server.send(request).await;
        assert!(matches!(answer.status.as_u16(), 400 | 401), "{shown}: {}", answer.status);
        assert!(!answer.text.contains(&key), "{shown}");
    }
    // In a body it is a field that nobody knows.
    let body = json!({"kind": "probe", "payload": {}, "key": key, "authorization": format!("Bearer {key}")});
    server.send(server.http.post(&url).json(&body)).await.problem(401);
    server.send(bare().bearer_auth(&key)).await.expect(200);
}
