//! Somebody attends to timers and sockets although a handler does not yield.
//!
//! A runtime has one thread wait for both, and wakes no other when that thread finds a single task to run: where that task never yields,
//! no timeout fires any more, however many threads are idle
//! (`should_notify_others` in tokio's `scheduler/multi_thread/worker.rs`; its remedy, `enable_eager_driver_handoff`, is unstable).
//! A task that comes from outside wakes an idle thread, and the first that is idle again waits for both.

use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use tokio::runtime::Handle;

/// Time between two tasks from outside: how late a timeout may be where nothing else happens.
const POKE_EVERY: Duration = Duration::from_millis(250);

/// Pokes the runtime until it is dropped.
pub(crate) struct Awake {
    _held: Arc<()>,
}

impl Awake {
    /// Of the runtime that this is called on.
    pub(crate) fn keep() -> io::Result<Self> {
        let held = Arc::new(());
        let (wanted, runtime) = (Arc::downgrade(&held), Handle::current());
        thread::Builder::new().name("awake".into()).spawn(move || poke(&wanted, &runtime))?;
        Ok(Self { _held: held })
    }
}

fn poke(wanted: &Weak<()>, runtime: &Handle) {
    while wanted.strong_count() > 0 {
        runtime.spawn(std::future::ready(()));
        thread::sleep(POKE_EVERY);
    }
}
