//! The memory dispatcher with a time of its own.

use std::sync::Arc;

use async_trait::async_trait;
use queue_core::{
    dispatcher::{Dispatcher, conformance::Fixture, memory::MemoryDispatcher},
    time::{Clock, ManualClock, Timestamp},
};

pub(crate) struct Memory {
    dispatcher: Arc<MemoryDispatcher>,
    clock: ManualClock,
}

impl Memory {
    pub(crate) fn fresh() -> Self {
        let clock = ManualClock::at(Timestamp(1_790_000_000_000));
        Self { dispatcher: Arc::new(MemoryDispatcher::open(Arc::new(clock.clone()), None).unwrap()), clock }
    }
}

#[async_trait]
impl Fixture for Memory {
    fn dispatcher(&self) -> Arc<dyn Dispatcher> {
        self.dispatcher.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    async fn advance_ms(&self, ms: i64) {
        self.clock.advance_ms(ms);
    }
}
