//! `probe`: sleeps, pads and fails as told; for load and fault tests. Calls no provider.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    error::{ErrorClass, JobError},
    payload::probe::{Failure, Probe as Payload},
};
use serde_json::json;

use crate::context::{Handler, JobContext};

pub(super) struct Probe;

#[async_trait]
impl Handler for Probe {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let (started, started_unix_us) = (cx.now(), wall_clock_us());
        let payload = Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?;
        if payload.sleep_ms > 0 {
            tokio::time::sleep(Duration::from_millis(payload.sleep_ms)).await;
        }
        if let Some((failure, times)) = payload.fail
            && times.is_none_or(|times| cx.attempt() <= times)
        {
            return Err(fail(failure, cx.attempt()));
        }
        super::encoded(&json!({
            "slept_ms": payload.sleep_ms,
            "started_at": started,
            "started_unix_us": started_unix_us,
            "pad_bytes": payload.pad_bytes,
            "data": "x".repeat(payload.result_bytes),
        }))
    }
}

/// The wall clock in microseconds since 1970: `longshore bench` compares it with its own. The store's clock counts
/// milliseconds, which is too coarse for that, and nothing is decided by this one.
#[allow(clippy::disallowed_methods)]
fn wall_clock_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn fail(failure: Failure, attempt: u32) -> JobError {
    match failure {
        Failure::Transient => {
            JobError::new(ErrorClass::Transient, "probe", format!("attempt {attempt} fails as asked, for now"))
        }
        Failure::Permanent => JobError::new(ErrorClass::Permanent, "probe", "fails as asked, for good"),
        #[allow(clippy::panic)] // asked for: the worker must survive it
        Failure::Panic => panic!("panics as asked"),
        Failure::Abort => std::process::abort(),
    }
}
