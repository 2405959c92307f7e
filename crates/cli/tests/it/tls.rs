//! `up` over TLS: the command line talks to it, and a renewed certificate is shown without a restart.

use std::{path::Path, process::Command};

use crate::installation::{Installation, KEY, refused, replace_certificate};
use testkit::Certificate;

/// Runs `longshore job list` against it with these variables besides; whether it ended well, and what it said.
fn list(up: &Installation, environment: &[(&str, &str)], arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.args(["job", "list", "--json"]).args(arguments).env_clear();
    let output =
        command.env("LONGSHORE_URL", &up.url).env("LONGSHORE_KEY", KEY).envs(environment.iter().copied()).output();
    let output = output.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_while_up_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Certificate::of("127.0.0.1"), Certificate::of("127.0.0.1"));
    let shown = folder.path().join("tls.crt");
    let mut up = Installation::stopped(&folder.path().join("data"), &[]).over_tls(&one, &shown);
    up.start_again().await;
    assert!(up.url.starts_with("https://127.0.0.1:"), "{}", up.url);
    let (first, second) =
        (write(&folder.path().join("1.pem"), &one.chain), write(&folder.path().join("2.pem"), &two.chain));
    assert!(list(&up, &[("LONGSHORE_CA_FILE", &first)], &[]).0);
    // A profile may name it; neither the machine's own authorities nor another one vouch for it.
    let home = folder.path().join("config");
    std::fs::create_dir_all(home.join("longshore")).unwrap();
    let profile = format!("[profiles.here]\nurl = \"{}\"\nca_file = \"{first}\"", up.url);
    write(&home.join("longshore/config.toml"), &profile);
    assert!(list(&up, &[("XDG_CONFIG_HOME", home.to_str().unwrap())], &["--profile", "here"]).0);
    assert!(!list(&up, &[], &[]).0);
    assert!(!list(&up, &[("LONGSHORE_CA_FILE", &second)], &[]).0);
    let (_, said) = list(&up, &[("LONGSHORE_CA_FILE", &up.data.join("journal.db").display().to_string())], &[]);
    assert!(said.contains("the file of authorities"), "{said}");

    replace_certificate(&two, &shown);
    // Unheard, it would end the process.
    up.signal("-HUP");
    up.until("the second certificate is shown", async |up| list(up, &[("LONGSHORE_CA_FILE", &second)], &[]).0).await;
    assert!(!list(&up, &[("LONGSHORE_CA_FILE", &first)], &[]).0);
    write(&shown, "spoilt");
    up.until("the log says so", async |up| up.log().contains("the certificate that was shown before stays")).await;
    assert!(list(&up, &[("LONGSHORE_CA_FILE", &second)], &[]).0);
}

#[test]
fn half_a_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let one = write(&folder.path().join("tls.crt"), &Certificate::of("127.0.0.1").chain);
    let up = ["up", "--listen", "127.0.0.1:0"];
    assert!(refused(&up, &[("LONGSHORE_TLS_CERTIFICATE_FILE", &one)]).contains("tls.key_file"));
    let nowhere = [("LONGSHORE_TLS_CERTIFICATE_FILE", &*one), ("LONGSHORE_TLS_KEY_FILE", "/nowhere")];
    assert!(refused(&up, &nowhere).contains("/nowhere"));
}
