//! A full disk: nothing false is acknowledged, the reason is said, and service resumes by itself.

mod installation;

use std::{fs, path::Path, process::Command};

use installation::Installation;
use reqwest::StatusCode;
use serde_json::json;

/// A file system of a few megabytes in memory; unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `None` where this user may not mount (the test then has nothing to stand on and says so).
    fn mount(at: &'a Path) -> Option<Self> {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(at).status().ok()?;
        done.success().then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_answers_503_and_service_resumes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        let must = std::env::var_os("LONGSHORE_TEST_MOUNT").is_some();
        assert!(!must, "this machine was said to be able to mount a small disk");
        eprintln!("skipped: this user may not mount a file system");
        return;
    };
    let up = Installation::start(&folder.path().join("data"), &[]).await;
    let job = json!({"kind": "probe", "queue": "held", "payload": {"pad": "x".repeat(200_000)}, "run_at": "2027-01-01T00:00:00Z"});
    let ballast = folder.path().join("ballast");
    fs::write(&ballast, vec![0_u8; 1 << 20]).unwrap();

    let mut accepted = vec![];
    let refused = loop {
        match up.try_submit(&job).await {
            (StatusCode::ACCEPTED, body) => accepted.push(body["id"].as_str().unwrap().to_owned()),
            refused => break refused,
        }
        assert!(accepted.len() < 100, "the disk never fills");
    };
    assert_eq!(refused.0, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.1);
    assert!(refused.1["detail"].as_str().unwrap().contains("full"), "{}", refused.1);
    up.until("not ready", async |up| up.status("/readyz").await == Some(StatusCode::SERVICE_UNAVAILABLE)).await;

    fs::remove_file(&ballast).unwrap();
    up.until("accepting again", async |up| {
        let (status, body) = up.try_submit(&json!({"kind": "probe", "payload": {}})).await;
        if status == StatusCode::ACCEPTED {
            accepted.push(body["id"].as_str().unwrap().to_owned());
        }
        status == StatusCode::ACCEPTED
    })
    .await;
    up.until("ready", async |up| up.status("/readyz").await == Some(StatusCode::OK)).await;
    let listed = up.get("/v1/jobs?limit=200").await;
    assert_eq!(listed["jobs"].as_array().unwrap().len(), accepted.len(), "every 202 is there and nothing else");
    drop(up);
    drop(disk);
}
