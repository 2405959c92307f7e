//! Bodies that come compressed: as good as plain ones, and no larger.

use crate::server::{Answer, Server};
use async_compression::{
    tokio::write::{GzipEncoder, ZstdEncoder},
    zstd::CParameter,
};
use reqwest::{Method, header};
use serde_json::json;
use tokio::io::AsyncWriteExt;

const MIB: usize = 1024 * 1024;

async fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(plain).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

async fn zstd(plain: &[u8], window_log: u32) -> Vec<u8> {
    let window = [CParameter::window_log(window_log)];
    let mut encoder = ZstdEncoder::with_quality_and_params(Vec::new(), async_compression::Level::Default, &window);
    // In two steps, so that it cannot know that all of it fits into a smaller one.
    encoder.write_all(plain).await.unwrap();
    encoder.flush().await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

async fn send(server: &Server, path: &str, encoding: &str, body: Vec<u8>) -> Answer {
    let request = server.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
    server.send(request.header(header::CONTENT_ENCODING, encoding).body(body)).await
}

fn job(pad: usize) -> Vec<u8> {
    json!({"kind": "probe", "payload": {"pad": "x".repeat(pad)}}).to_string().into_bytes()
}

#[tokio::test]
async fn a_compressed_body_is_unpacked() {
    let server = Server::start().await;
    for (encoding, body) in [
        ("gzip", gzip(&job(100_000)).await),
        ("x-gzip", gzip(&job(10)).await),
        ("zstd", zstd(&job(100_000), 23).await),
        ("identity", job(10)),
    ] {
        let answer = send(&server, "/v1/jobs", encoding, body).await;
        let id = answer.expect(202)["id"].as_str().unwrap().to_owned();
        server.get(&format!("/v1/jobs/{id}")).await.expect(200);
    }
    let many = gzip(&serde_json::to_vec(&vec![json!({"kind": "probe", "payload": {}}); 500]).unwrap()).await;
    let answer = send(&server, "/v1/jobs/bulk", "gzip", many).await.expect(200);
    assert_eq!(answer["jobs"].as_array().unwrap().len(), 500);
    // Files that were compressed one by one, one behind the other: none of their jobs is lost.
    let line = b"{\"kind\":\"probe\",\"payload\":{}}\n";
    for (encoding, two) in [
        ("gzip", [gzip(line).await, gzip(line).await].concat()),
        ("zstd", [zstd(line, 20).await, zstd(line, 20).await].concat()),
    ] {
        let request = server.request(Method::POST, "/v1/jobs/bulk").header("content-type", "application/x-ndjson");
        let answer = server.send(request.header("content-encoding", encoding).body(two)).await.expect(200);
        assert_eq!(answer["jobs"].as_array().unwrap().len(), 2, "{encoding}");
    }
    let trailed = [gzip(&job(10)).await, b"and more".to_vec()].concat();
    send(&server, "/v1/jobs", "gzip", trailed).await.problem(400);
}

#[tokio::test]
async fn a_bomb_does_not_go_off() {
    let server = Server::start().await;
    let bomb = gzip(&vec![b' '; 64 * MIB]).await;
    assert!(bomb.len() < 100_000, "{} bytes on the way", bomb.len());
    for path in ["/v1/jobs", "/v1/jobs/bulk"] {
        let problem = send(&server, path, "gzip", bomb.clone()).await.problem(413);
        assert_eq!(problem["type"], "urn:longshore:problem:too-large");
    }
    // What is too large packed is refused, and its sender gets to see it.
    let noise: Vec<u8> =
        (0..12 * MIB as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (n >> 9) as u8).collect();
    let large = gzip(&noise).await;
    assert!(large.len() > 2 * MIB, "{} bytes on the way", large.len());
    send(&server, "/v1/jobs", "gzip", large).await.problem(413);
    let many_small = zstd(&vec![b' '; 64 * MIB], 20).await;
    send(&server, "/v1/jobs", "zstd", many_small).await.problem(413);
    // What wants more memory than HTTP allows is not even begun.
    let wide = zstd(&job(300_000), 24).await;
    let problem = send(&server, "/v1/jobs", "zstd", wide).await.problem(400);
    assert!(problem["errors"][0]["reason"].as_str().unwrap().contains("cannot be unpacked"), "{problem}");
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_told_so() {
    let server = Server::start().await;
    for encoding in ["br", "deflate", "gzip, gzip", "gzip, identity"] {
        let answer = send(&server, "/v1/jobs", encoding, job(1)).await;
        let problem = answer.problem(415);
        assert_eq!(problem["errors"][0]["pointer"], "/header/Content-Encoding");
        assert_eq!(answer.header("accept-encoding"), "gzip, zstd");
    }
    send(&server, "/v1/jobs", "gzip", b"no gzip".to_vec()).await.problem(400);
    let mut cut = gzip(&job(50_000)).await;
    cut.truncate(cut.len() / 2);
    send(&server, "/v1/jobs", "gzip", cut).await.problem(400);
    assert_eq!(server.get("/v1/jobs").await.expect(200)["jobs"], json!([]));
}
