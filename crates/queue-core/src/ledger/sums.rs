//! What calls come to.

use super::{Billed, CallRecord, Nanousd, Usage};

/// What calls add to the sums of their job's row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) calls: i64,
    pub(crate) usage: Usage,
    pub(crate) cost: Nanousd,
    /// A billed call had no price: the cost is a lower bound.
    pub(crate) unknown: bool,
}

impl Sums {
    pub(crate) fn add(&mut self, call: &CallRecord) {
        self.calls += 1;
        self.usage = self.usage.plus(call.usage);
        self.cost = self.cost.plus(call.cost.unwrap_or_default());
        self.unknown |= call.billed == Billed::Yes && call.cost.is_none();
    }
}
