//! Bodies beyond every bound: refused, and not kept.

use crate::server::Server;
use reqwest::Method;

#[tokio::test]
async fn bodies_beyond_every_bound_are_refused_and_not_kept() {
    let server = Server::start().await;
    let body = vec![b' '; 33 * 1024 * 1024];
    for path in ["/v1/jobs", "/v1/jobs/bulk"] {
        let request = server.request(Method::POST, path).header("content-type", "application/json").body(body.clone());
        let problem = server.send(request).await.problem(413);
        assert!(problem["errors"][0]["reason"].as_str().unwrap().contains("the limit is"), "{problem}");
    }
    // Without a length that gives it away.
    let pieces = futures::stream::iter((0..33).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024])));
    let request = server.request(Method::POST, "/v1/jobs/bulk").header("content-type", "application/json");
    server.send(request.body(reqwest::Body::wrap_stream(pieces))).await.problem(413);
    server.get("/livez").await.expect(200);
}
