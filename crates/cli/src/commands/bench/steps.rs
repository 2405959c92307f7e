//! Marks for a program that looks at the processes between the steps of a run, as `cargo xtask bench` does for its
//! profile.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin};
use tokio::sync::Mutex;

use crate::{failure::Failure, output};

/// Says each step, and goes on when it is told to; without anybody who listens it does nothing.
pub(super) struct Steps {
    answers: Option<Mutex<Lines<BufReader<Stdin>>>>,
}

impl Steps {
    /// `told`: somebody reads stderr and answers each mark with a line on stdin.
    pub(super) fn new(told: bool) -> Self {
        Self { answers: told.then(|| Mutex::new(BufReader::new(stdin()).lines())) }
    }

    /// The step begins when this returns.
    pub(super) async fn begin(&self, step: &str, jobs: usize) -> Result<(), Failure> {
        self.mark("begin", step, jobs).await
    }

    /// The step has ended.
    pub(super) async fn end(&self, step: &str, jobs: usize) -> Result<(), Failure> {
        self.mark("end", step, jobs).await
    }

    async fn mark(&self, mark: &str, step: &str, jobs: usize) -> Result<(), Failure> {
        let Some(answers) = &self.answers else { return Ok(()) };
        output::note(&json!({"mark": mark, "step": step, "jobs": jobs}).to_string());
        match answers.lock().await.next_line().await? {
            Some(_) => Ok(()),
            None => Err(Failure::error("nobody answers the marks of this run any more")),
        }
    }
}
