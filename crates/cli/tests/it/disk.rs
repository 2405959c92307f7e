//! A full disk, and one that turns read-only: nothing false is acknowledged, the reason is said, and service resumes by itself.

use std::{fs, path::Path, process::Command};

use crate::installation::Installation;
use reqwest::StatusCode;
use serde_json::{Value, json};

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
    refused_for(&up, "full", &job, &mut accepted).await;
    fs::remove_file(&ballast).unwrap();
    resumes(&up, accepted).await;
    drop(up);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_turns_read_only_answers_503_and_service_resumes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (data, library, flag) = (folder.path().join("data"), folder.path().join("shim.so"), folder.path().join("flag"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/read_only.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.unwrap().success());
    fs::create_dir(&data).unwrap();
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("READ_ONLY_FOLDER", data.to_str().unwrap()),
        ("READ_ONLY_WHILE", flag.to_str().unwrap()),
    ];
    let mut up = Installation::start_in(&data, &[], &environment).await;
    let job = json!({"kind": "probe", "payload": {}});
    let mut accepted = vec![up.submit(&job).await];
    fs::write(&flag, "").unwrap();
    refused_for(&up, "read-only", &job, &mut accepted).await;
    fs::remove_file(&flag).unwrap();
    resumes(&up, accepted).await;

    fs::write(&flag, "").unwrap();
    up.kill();
    assert!(!up.spawn(), "nothing is served from a folder that cannot be written to");
    up.wait_for_death();
    assert!(up.log().contains("Read-only file system"), "{}", up.log());
}

/// Submits until it is refused, for this reason, and sees the installation say that it is not ready.
async fn refused_for(up: &Installation, reason: &str, job: &Value, accepted: &mut Vec<String>) {
    let began = accepted.len();
    up.until("refused for the reason", async |up| {
        let (status, body) = up.try_submit(job).await;
        if status == StatusCode::ACCEPTED {
            accepted.push(body["id"].as_str().unwrap().to_owned());
            assert!(accepted.len() < began + 100, "everything is accepted");
            return false;
        }
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        body["detail"].as_str().unwrap().contains(reason)
    })
    .await;
    up.until("not ready", async |up| up.status("/readyz").await == Some(StatusCode::SERVICE_UNAVAILABLE)).await;
}

/// Sees service resume, and finds every job that was accepted and nothing else.
async fn resumes(up: &Installation, mut accepted: Vec<String>) {
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
}
