//! `longshore smoke` says by its exit code whether an installation works. That it does is in `documented`.

use std::process::{Command, Output};

use crate::installation::{Installation, KEY};

fn smoke(url: &str, arguments: &[&str], key: (&str, &str)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.args(["smoke", url]).args(arguments).env_clear().env(key.0, key.1).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn smoke_tells_what_does_not_work_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    let by_file = ("LONGSHORE_KEY_FILE", key.to_str().unwrap());
    let mut up = Installation::start_in(&folder.path().join("data"), &[], &[("LONGSHORE_PROBE_JOBS", "false")]).await;

    let refused = smoke(&up.url, &[], by_file);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("LONGSHORE_PROBE_JOBS=true"), "{}", said(&refused));
    let asked = smoke(&up.url, &["--model", "simulated-chat"], by_file);
    assert!(asked.status.success() && said(&asked).contains("ok  metrics"), "{}", said(&asked));
    let nobody = smoke(&up.url, &[], ("LONGSHORE_KEY", "lsk_testtest_0000000000000000000000000000000000000000000"));
    assert_eq!(nobody.status.code(), Some(5), "{}", said(&nobody));

    // Nothing is served where it waits.
    let pause = serde_json::json!({"paused": true});
    up.patch("/v1/queues/smoke", &pause).await;
    let waits = smoke(&up.url, &["--model", "simulated-chat", "--within", "100ms"], by_file);
    assert_eq!(waits.status.code(), Some(1), "{}", said(&waits));
    assert!(said(&waits).contains("is still"), "{}", said(&waits));
    up.kill();
    assert_eq!(smoke(&up.url, &[], by_file).status.code(), Some(1));
}
