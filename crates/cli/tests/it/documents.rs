//! The example, against the simulated provider: every document is analysed and embedded, and its table says so.

use std::{path::Path, process::Command};

use crate::installation::Installation;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_analyses_and_embeds_every_document() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(folder.path(), &[]).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let example = Path::new(env!("CARGO_BIN_EXE_longshore")).with_file_name("examples").join("documents");
    let output = Command::new(&example)
        .args(["README.md", "ARCHITECTURE.md"])
        .current_dir(&root)
        .env("LONGSHORE_URL", &up.url)
        .env("LONGSHORE_KEY", crate::installation::KEY)
        .output()
        .unwrap();
    let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{table}\n{said}");
    let rows: Vec<Vec<&str>> = table.lines().skip(1).take(2).map(|line| line.split_whitespace().collect()).collect();
    for (row, name) in rows.iter().zip(["README.md", "ARCHITECTURE.md"]) {
        let number = |at: usize| row[at].parse::<u64>().unwrap();
        let (chunks, calls, tokens) = (number(1), number(3), number(4));
        assert_eq!(row[0], name);
        assert!(chunks > 1 && calls > chunks && tokens > 500, "{table}");
        assert_eq!(number(7), chunks, "a vector for each chunk: {table}");
        assert!(row.last().unwrap().starts_with("simulated/"), "{table}");
    }
    let packed = Command::new(example)
        .args(["--pack", "README.md", "CONTRIBUTING.md"])
        .current_dir(root)
        .env("LONGSHORE_URL", &up.url)
        .env("LONGSHORE_KEY", crate::installation::KEY)
        .output()
        .unwrap();
    let (table, said) = (String::from_utf8(packed.stdout).unwrap(), String::from_utf8(packed.stderr).unwrap());
    assert!(packed.status.success(), "{table}\n{said}");
    let last: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
    let (sections, calls) = (last[0].parse::<usize>().unwrap(), last[3].parse::<usize>().unwrap());
    assert!(sections > 8 && calls < sections, "{table}");
    let report = up.get("/v1/costs?group_by=operation&since=1h").await.to_string();
    assert!(report.contains("runbook-facts") && report.contains("runbook-vectors"), "{report}");
}
