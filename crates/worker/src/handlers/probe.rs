//! `probe`: sleeps, pads and fails as told; for load and fault tests. Calls no provider.

use std::{hint::black_box, time::Duration};

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
        let fails = payload.fail.filter(|(_, times)| times.is_none_or(|times| cx.attempt() <= times));
        let failure = fails.map(|(failure, _)| failure);
        let _memory = allocate(payload.allocate_mib)?;
        let _panics = if failure == Some(Failure::PanicInDrop) { Some(PanicsInDrop) } else { None };
        let sleep = Duration::from_millis(payload.sleep_ms);
        match failure {
            // What no handler may do.
            Some(Failure::Block) => std::thread::sleep(sleep),
            _ if !sleep.is_zero() => tokio::time::sleep(sleep).await,
            _ => {}
        }
        if let Some(error) = failure.and_then(|failure| fail(failure, cx.attempt())) {
            return Err(error);
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

/// Fails at once, unless that has been done or comes with the handler's end.
#[allow(clippy::panic, clippy::exit)] // asked for: the worker must survive the one, and its jobs the other
fn fail(failure: Failure, attempt: u32) -> Option<JobError> {
    match failure {
        Failure::Transient => {
            let message = format!("attempt {attempt} fails as asked, for now");
            Some(JobError::new(ErrorClass::Transient, "probe", message))
        }
        Failure::Permanent => Some(JobError::new(ErrorClass::Permanent, "probe", "fails as asked, for good")),
        Failure::Panic => panic!("panics as asked"),
        Failure::Abort => std::process::abort(),
        Failure::Overflow => overflow(),
        Failure::Exit => std::process::exit(0),
        Failure::Spin => loop {
            std::hint::spin_loop();
        },
        Failure::PanicInDrop | Failure::Block => None,
    }
}

/// Calls itself until the stack is used up.
fn overflow() -> ! {
    loop {
        black_box(deeper(0));
    }
}

/// Each call uses its own frame and what the next one returns, so that no compiler can make a loop of them.
#[inline(never)]
fn deeper(depth: usize) -> usize {
    let frame = black_box([depth; 512]);
    if frame[depth % frame.len()] == usize::MAX { depth } else { black_box(deeper(depth + 1)) + frame[0] }
}

/// Memory that is really there: each page is written to.
fn allocate(mib: u64) -> Result<Vec<u8>, JobError> {
    let bytes = usize::try_from(mib * 1024 * 1024).unwrap_or(usize::MAX);
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|error| {
        JobError::new(ErrorClass::Transient, "memory", format!("this process gets no {mib} MiB: {error}"))
    })?;
    memory.resize(bytes, 1);
    Ok(black_box(memory))
}

/// Panics where it is dropped: at the handler's end, or where it is stopped.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    #[allow(clippy::panic)] // asked for: the worker must survive it
    fn drop(&mut self) {
        panic!("panics in a drop, as asked");
    }
}
