//! What is reserved for one call, from before it is made until its ledger row is written.

use std::sync::Arc;

use queue_core::{
    budget::{Amount, UnderWay, fill},
    ledger::Nanousd,
    time::Timestamp,
};

use super::{Cap, Purse, locked};

/// A reservation. Dropped before its call was sent, it is given back; dropped later, it stays until it expires, since the call
/// may have been paid.
pub(crate) struct Hold {
    purse: Arc<Purse>,
    under_way: Option<UnderWay>,
    cap: Option<(Arc<Cap>, Nanousd)>,
    sent: bool,
}

/// A call that has ended, and whose ledger row is yet to be written.
pub(crate) struct Paid {
    hold: Hold,
    took: Amount,
    at: Timestamp,
}

impl Hold {
    pub(super) fn of(purse: Arc<Purse>) -> Self {
        Self { purse, under_way: None, cap: None, sent: false }
    }

    pub(super) fn holds_cap(&mut self, cap: Arc<Cap>, reserved: Nanousd) {
        self.cap = Some((cap, reserved));
    }

    pub(super) fn holds(&mut self, under_way: UnderWay) {
        locked(&self.purse.under_way).insert(under_way.call, under_way.clone());
        self.under_way = Some(under_way);
    }

    /// From here on the call may reach its provider.
    pub(crate) fn sends(&mut self) {
        self.sent = true;
    }

    /// The call has taken so much, and its row is yet to be written. What it did not take is free at once where `now` says so.
    pub(crate) async fn took(mut self, took: Amount, at: Timestamp, now: bool) -> Option<Paid> {
        self.settle_cap(took.usd);
        let Some(under_way) = &mut self.under_way else { return None };
        if now {
            under_way.amount = took;
            locked(&self.purse.under_way).insert(under_way.call, under_way.clone());
            if let Err(error) = self.purse.stores.counters.adjust(under_way.call, took).await {
                tracing::debug!(%error, "what a call did not take stays reserved until it is written down");
            }
        }
        Some(Paid { hold: self, took, at })
    }

    fn settle_cap(&mut self, cost: Nanousd) {
        if let Some((cap, reserved)) = self.cap.take() {
            cap.settle(reserved, cost);
        }
    }

    /// The call's ledger row says that it took so much.
    pub(crate) async fn commit(mut self, took: Amount, at: Timestamp) {
        self.settle_cap(took.usd);
        let Some(under_way) = self.under_way.take() else { return };
        locked(&self.purse.under_way).remove(&under_way.call);
        let counters = &self.purse.stores.counters;
        match counters.commit(under_way.call, took, at).await {
            Ok(true) => {}
            Ok(false) => {
                // It had expired, or was forgotten: the ledger knows.
                for scope in &under_way.scopes {
                    if let Err(error) = fill(&self.purse.stores, scope).await {
                        tracing::warn!(%error, %scope, "a budget is behind the ledger until it is read again");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "what a call took stays reserved until it expires"),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let reserved = self.cap.as_ref().map_or(Nanousd(0), |(_, reserved)| *reserved);
        self.settle_cap(if self.sent { reserved } else { Nanousd(0) });
        let Some(under_way) = self.under_way.take() else { return };
        locked(&self.purse.under_way).remove(&under_way.call);
        if self.sent {
            return;
        }
        let counters = self.purse.stores.counters.clone();
        let at = self.purse.stores.clock.now();
        // Without a runtime the process ends, and the reservation expires like that of any dead worker.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = counters.commit(under_way.call, Amount::default(), at).await {
                    tracing::debug!(%error, "what a call did not use is reserved until it expires");
                }
            });
        }
    }
}

impl Paid {
    /// Its row is written.
    pub(crate) async fn commit(self) {
        self.hold.commit(self.took, self.at).await;
    }
}
