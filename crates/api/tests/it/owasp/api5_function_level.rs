//! API5: nobody calls what is not for their role.
//!
//! Every route × everybody is held by the matrix; left open were other ways to write an address or a method.

use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Held;
use crate::server::{PATIENCE, people::People};

pub(super) const HELD_BY: &[Held] = &[
    ("api/tests/it/permissions.rs", "everybody_gets_what_the_table_says_and_nothing_else"),
    ("api/tests/it/permissions.rs", "every_documented_route_is_in_the_matrix_with_the_role_that_the_document_names"),
    ("api/tests/it/permissions.rs", "scopes_narrow_a_key_within_its_role"),
    ("api/src/access.rs", "every_row_stands_for_one_documented_route"),
    ("api/tests/it/keys.rs", "a_narrowed_admin_hands_out_no_more_than_it_has"),
    ("api/tests/it/keys.rs", "the_last_admin_key_stays"),
];

/// Written straight to the socket: clients tidy addresses up.
#[tokio::test]
async fn no_other_spelling_opens_what_is_for_others() {
    let people = People::meet().await;
    let (key, host) = (people.user.key.clone().unwrap(), people.server.url.strip_prefix("http://").unwrap().to_owned());
    let mut asked = 0;
    for target in ["/v1/keys", "/v1/queues", "/v1/audit", "/v1/credentials"] {
        let tail = target.strip_prefix("/v1/").unwrap();
        let spellings = [
            target.to_owned(),
            format!("{target}/"),
            format!("/{target}"),
            format!("/v1//{tail}"),
            format!("/v1/jobs/../{tail}"),
            format!("/v1/jobs/%2e%2e/{tail}"),
            format!("/v1/jobs/..%2f{tail}"),
            format!("/v1/./{tail}"),
            format!("/V1/{tail}"),
            format!("/v1/{}", tail.to_uppercase()),
            format!("/v1/{tail};x=1"),
            format!("/v1/{tail}%00"),
            format!("/v1/{tail}%3fx"),
            format!("/v1\\{tail}"),
            format!("http://localhost{target}"),
        ];
        for spelling in spellings {
            for (method, more) in [
                ("GET", ""),
                ("HEAD", ""),
                ("GET", "x-original-url: /v1/jobs\r\n"),
                ("GET", "x-rewrite-url: /v1/jobs\r\n"),
            ] {
                let mut stream = TcpStream::connect(&host).await.unwrap();
                let head = format!(
                    "{method} {spelling} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{more}connection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
                read.expect("the server answers and closes").unwrap();
                let status = String::from_utf8_lossy(&answer).get(9..12).unwrap_or_default().to_owned();
                assert!(["400", "403", "404", "405"].contains(&&*status), "{method} {spelling}: {status}");
                asked += 1;
            }
        }
    }
    assert_eq!(asked, 4 * 15 * 4);
}

/// A method is the one of the request line.
#[tokio::test]
async fn no_header_changes_the_method() {
    let people = People::meet().await;
    let spare = people.spare_key("acme").await;
    let url = format!("{}/v1/keys/{spare}", people.server.url);
    for header in ["x-http-method-override", "x-http-method", "x-method-override"] {
        for method in [Method::GET, Method::POST] {
            let request = people.server.http.request(method, format!("{url}?_method=DELETE")).header(header, "DELETE");
            people.server.send(request.bearer_auth(people.admin.key.clone().unwrap())).await;
        }
    }
    let still = people.get(&people.admin, &format!("/v1/keys/{spare}")).await.expect(200);
    assert!(still["revoked_at"].is_null(), "{still}");
}
