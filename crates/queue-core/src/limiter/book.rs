//! The algorithm: one target's buckets, tickets and blocks. `crates/queue-core/lua/limiter.lua` says the same in Lua.
//!
//! Times are milliseconds, rates are per second. A level may be negative: then it is a debt, or booked ahead.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    Answer, Ask, BURST_MS, CUT, CUT_EVERY_MS, CUT_FLOOR, Cause, Lift, Limit, PACE_WAIT_MS, PACE_WEIGHT, Penalty,
    Standing, TICKET_AHEAD_MAX_MS, TICKET_GRACE_MS, TICKET_LATE_MS, TICKET_LEAD_MS, TICKETS_MAX, TOLD_LEAST, TOLD_MS,
    TRIAL_MS, TRIAL_WAIT_MS, Told, Used, Verdict, WAIT_MAX_MS,
};

/// A credential that was refused for want of money.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt {
    /// Nobody asks before.
    until: f64,
    /// Why.
    reason: String,
    /// One call is trying, until then.
    trial_until: f64,
}

/// What is known of a credential.
#[derive(Clone, Debug, Default)]
pub(super) struct Credential {
    pub(super) doubt: Option<Doubt>,
    /// When an operator lifted the last doubt: who heard of it before does not know that.
    lifted_at: f64,
}

#[derive(Clone, Copy, Debug)]
struct Ticket {
    tokens: f64,
    due: f64,
}

/// One target.
#[derive(Clone, Debug)]
pub(super) struct Book {
    /// Requests and tokens; `None`: never counted, so full.
    levels: [Option<f64>; 2],
    /// When they were that.
    pub(super) at: f64,
    /// What the last cut left of the rate, and when that was.
    factor: f64,
    cut_at: f64,
    blocked_until: f64,
    reason: String,
    /// Rates that the provider told of; 0: none.
    told: [f64; 2],
    told_until: f64,
    tokens_mean: f64,
    ms_mean: f64,
    tickets: HashMap<Uuid, Ticket>,
    /// When an operator lifted the last block.
    lifted_at: f64,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            levels: [None; 2],
            at: 0.0,
            factor: 1.0,
            cut_at: 0.0,
            blocked_until: 0.0,
            reason: String::new(),
            told: [0.0; 2],
            told_until: 0.0,
            tokens_mean: 0.0,
            ms_mean: 1_000.0,
            tickets: HashMap::new(),
            lifted_at: 0.0,
        }
    }
}

/// What flows now: rates after cuts and told limits, 0 where there is no bucket.
struct Flow {
    rates: [f64; 2],
    caps: [f64; 2],
    factor: f64,
}

impl Book {
    /// Tickets that are out, or have not been dropped yet.
    pub(super) fn tickets(&self) -> usize {
        self.tickets.len()
    }

    /// Lets time pass, and says what flows.
    fn pass_time(&mut self, limit: &Limit, now: f64) -> Flow {
        let recovered = (now - self.cut_at).max(0.0) / 1_000.0 * limit.recovery_per_s();
        let factor = (self.factor + recovered).min(1.0);
        let told = if self.told_until > now { self.told } else { [0.0; 2] };
        let configured = limit.rates();
        let rates = [0, 1].map(|at| {
            let rate = if told[at] > 0.0 { configured[at].min(told[at]) } else { configured[at] };
            rate * factor
        });
        let caps = rates.map(|rate| rate * BURST_MS / 1_000.0);
        self.drop_late_tickets(now);
        let passed = (now - self.at).max(0.0) / 1_000.0;
        for at in 0..2 {
            self.levels[at] = (rates[at] > 0.0)
                .then(|| self.levels[at].map_or(caps[at], |level| (level + passed * rates[at]).min(caps[at])));
        }
        self.at = self.at.max(now);
        Flow { rates, caps, factor }
    }

    /// Whoever left them is not coming any more.
    fn drop_late_tickets(&mut self, now: f64) {
        let held = self.blocked_until;
        let late: Vec<Uuid> = self
            .tickets
            .iter()
            .filter(|(_, ticket)| now > ticket.due.max(held) + TICKET_GRACE_MS)
            .map(|(call, _)| *call)
            .collect();
        for call in late {
            if let Some(ticket) = self.tickets.remove(&call) {
                self.add([1.0, ticket.tokens]);
            }
        }
    }

    /// Not beyond a full bucket: the next passing of time sees to it.
    fn add(&mut self, amounts: [f64; 2]) {
        for (level, amount) in self.levels.iter_mut().zip(amounts) {
            *level = level.map(|level| level + amount);
        }
    }

    pub(super) fn reserve(&mut self, doubt: &mut Option<Doubt>, ask: &Ask, now: f64) -> Answer {
        let flow = self.pass_time(&ask.limit, now);
        if self.tokens_mean == 0.0 {
            self.tokens_mean = (ask.tokens as f64).max(1.0);
        }
        if let Some(doubt) = doubt {
            let reason = doubt.reason.clone();
            if doubt.until > now {
                return self.later(&flow, true, now, doubt.until - now, Cause::Blocked { reason });
            }
            if doubt.trial_until > now {
                let wait = (doubt.trial_until - now).min(TRIAL_WAIT_MS);
                return self.later(&flow, true, now, wait, Cause::Trial { reason });
            }
        }
        let held = (self.blocked_until - now).max(0.0);
        let verdict = match self.tickets.get(&ask.call).copied() {
            Some(ticket) => self.redeem(&flow, now, ask, ticket, held, doubt.is_some()),
            None => self.take(&flow, now, ask, held, doubt.is_some()),
        };
        if let (Some(doubt), Verdict::Go { .. }) = (doubt.as_mut(), &verdict.verdict) {
            doubt.trial_until = now + TRIAL_MS;
        }
        verdict
    }

    fn redeem(&mut self, flow: &Flow, now: f64, ask: &Ask, ticket: Ticket, held: f64, doubted: bool) -> Answer {
        let wait = (ticket.due - now).max(held).max(0.0);
        if wait <= ask.wait_max() {
            self.tickets.remove(&ask.call);
            // Others may travel with it now, or none of those that did.
            self.add([0.0, ticket.tokens - ask.tokens as f64]);
            return self.go(flow, doubted, wait);
        }
        let cause = if held >= wait { self.blocked() } else { Cause::Tokens };
        self.later_with(flow, doubted, now, (wait, ask.wait_max()), cause, true)
    }

    fn take(&mut self, flow: &Flow, now: f64, ask: &Ask, held: f64, doubted: bool) -> Answer {
        let amounts = [1.0, ask.tokens as f64];
        let mut wait = 0.0;
        let mut cause = Cause::Requests;
        for (at, of_bucket) in [Cause::Requests, Cause::Tokens].into_iter().enumerate() {
            let Some(level) = self.levels[at] else { continue };
            // What is larger than the bucket goes when that is full, and leaves a debt.
            let need = amounts[at].min(flow.caps[at]) - level;
            let of_this = need / flow.rates[at] * 1_000.0;
            if of_this > wait {
                (wait, cause) = (of_this, of_bucket);
            }
        }
        if held > ask.wait_max() {
            return self.later(flow, doubted, now, held, self.blocked());
        }
        let wait = wait.max(held);
        if wait <= ask.wait_max() {
            self.add(amounts.map(|amount| -amount));
            return self.go(flow, doubted, wait);
        }
        let line = (wait, ask.wait_max());
        if !ask.keeps_place || wait > TICKET_AHEAD_MAX_MS || self.tickets.len() >= TICKETS_MAX {
            return self.later_with(flow, doubted, now, line, cause, false);
        }
        self.add(amounts.map(|amount| -amount));
        self.tickets.insert(ask.call, Ticket { tokens: amounts[1], due: now + wait });
        self.later_with(flow, doubted, now, line, cause, true)
    }

    fn blocked(&self) -> Cause {
        Cause::Blocked { reason: self.reason.clone() }
    }

    fn go(&self, flow: &Flow, doubted: bool, wait: f64) -> Answer {
        Answer { verdict: Verdict::Go { wait_ms: whole(wait) }, pace: self.pace(flow, doubted) }
    }

    fn later(&self, flow: &Flow, doubted: bool, now: f64, wait: f64, cause: Cause) -> Answer {
        self.later_with(flow, doubted, now, (wait, WAIT_MAX_MS), cause, false)
    }

    /// `wait` of a call that may wait in place for `in_place`.
    fn later_with(
        &self,
        flow: &Flow,
        doubted: bool,
        now: f64,
        (wait, in_place): (f64, f64),
        cause: Cause,
        ticket: bool,
    ) -> Answer {
        let open = match cause {
            Cause::Requests | Cause::Tokens => {
                // Who is due within the lead has been claimed already, or the target was open for it.
                let dues = self.tickets.values().map(|ticket| ticket.due).filter(|due| *due > now + TICKET_LEAD_MS);
                let first = dues.fold(now + wait, f64::min) - now - TICKET_LEAD_MS;
                // Not before this one may wait in place, or it would be turned away again; but the first must not be late.
                first.max((wait - in_place).min(first + TICKET_LATE_MS))
            }
            _ => wait,
        };
        let verdict = Verdict::Later { wait_ms: whole(wait), open_ms: whole(open), cause, ticket };
        Answer { verdict, pace: self.pace(flow, doubted) }
    }

    /// As many calls as are under way at once when each takes as long as the last ones did and waits in place for a moment.
    fn pace(&self, flow: &Flow, doubted: bool) -> Option<u32> {
        if doubted {
            return Some(1);
        }
        let means = [1.0, self.tokens_mean];
        let per_s = (0..2).filter(|&at| flow.rates[at] > 0.0).map(|at| flow.rates[at] / means[at]);
        let per_s = per_s.reduce(f64::min)?;
        let calls = (self.ms_mean + PACE_WAIT_MS) / 1_000.0 * per_s;
        Some(calls.ceil().clamp(1.0, f64::from(PACE_MAX)) as u32)
    }

    pub(super) fn confirm(&self, doubt: Option<&Doubt>, now: f64) -> Option<(u64, Cause)> {
        if let Some(doubt) = doubt.filter(|doubt| doubt.until > now) {
            return Some((whole(doubt.until - now), Cause::Blocked { reason: doubt.reason.clone() }));
        }
        (self.blocked_until > now).then(|| (whole(self.blocked_until - now), self.blocked()))
    }

    pub(super) fn settle(&mut self, doubt: &mut Option<Doubt>, limit: &Limit, now: f64, used: Used) {
        let flow = self.pass_time(limit, now);
        let back = [if used.sent { 0.0 } else { 1.0 }, used.reserved as f64 - used.tokens as f64];
        self.add(back);
        for (level, cap) in self.levels.iter_mut().zip(flow.caps) {
            *level = level.map(|level| level.min(cap));
        }
        if let Some(took_ms) = used.took_ms {
            self.ms_mean += (took_ms as f64 - self.ms_mean) * PACE_WEIGHT;
            self.tokens_mean += ((used.tokens as f64).max(1.0) - self.tokens_mean) * PACE_WEIGHT;
        }
        // A call that began before the block says nothing about what comes after it.
        if used.answered && doubt.as_ref().is_some_and(|doubt| doubt.until <= now) {
            *doubt = None;
        }
    }

    pub(super) fn penalise(
        &mut self,
        doubt: &mut Option<Doubt>,
        limit: &Limit,
        now: f64,
        penalty: Penalty,
        wait: f64,
        reason: &str,
    ) -> u64 {
        let flow = self.pass_time(limit, now);
        if penalty == Penalty::Rate {
            for level in &mut self.levels {
                *level = level.map(|level| level.min(0.0));
            }
            if now - self.cut_at >= CUT_EVERY_MS {
                (self.factor, self.cut_at) = ((flow.factor * CUT).max(CUT_FLOOR), now);
            }
        } else if let Some(doubt) = doubt {
            doubt.trial_until = 0.0;
        }
        self.block(doubt, limit, now, penalty, wait, reason)
    }

    pub(super) fn block(
        &mut self,
        doubt: &mut Option<Doubt>,
        limit: &Limit,
        now: f64,
        penalty: Penalty,
        wait: f64,
        reason: &str,
    ) -> u64 {
        let until = now + wait;
        match penalty {
            Penalty::Rate => {
                // What was used up fills again while nobody asks.
                self.pass_time(limit, now);
                if until > self.blocked_until {
                    (self.blocked_until, self.reason) = (until, reason.to_owned());
                }
                whole((self.blocked_until - now).max(0.0))
            }
            Penalty::Quota => {
                let doubt = doubt.get_or_insert_with(Doubt::default);
                if until > doubt.until {
                    (doubt.until, doubt.reason) = (until, reason.to_owned());
                }
                whole((doubt.until - now).max(0.0))
            }
        }
    }

    /// A block that somebody has known of for `age`.
    pub(super) fn block_again(
        &mut self,
        credential: &mut Credential,
        limit: &Limit,
        now: f64,
        penalty: Penalty,
        (wait, age): (f64, f64),
        reason: &str,
    ) -> u64 {
        let (lifted_at, until) = match penalty {
            Penalty::Rate => (self.lifted_at, self.blocked_until),
            Penalty::Quota => (credential.lifted_at, credential.doubt.as_ref().map_or(0.0, |doubt| doubt.until)),
        };
        if now - age <= lifted_at {
            return whole((until - now).max(0.0));
        }
        self.block(&mut credential.doubt, limit, now, penalty, wait, reason)
    }

    pub(super) fn lift(&mut self, credential: &mut Credential, limit: &Limit, now: f64, lift: Lift) -> bool {
        self.pass_time(limit, now);
        for (_, ticket) in std::mem::take(&mut self.tickets) {
            self.add([1.0, ticket.tokens]);
        }
        if lift == Lift::Line {
            return false;
        }
        (self.blocked_until, self.reason, self.lifted_at) = (0.0, String::new(), now);
        let before = std::mem::replace(credential, Credential { doubt: None, lifted_at: now });
        before.doubt.is_some()
    }

    pub(super) fn observe(&mut self, limit: &Limit, now: f64, told: Told) {
        self.pass_time(limit, now);
        let configured = limit.rates();
        let limits = [told.requests_limit, told.tokens_limit].map(|per_minute| per_minute.unwrap_or(0) as f64 / 60.0);
        if self.told_until <= now {
            self.told = [0.0; 2];
        }
        for at in 0..2 {
            if limits[at] > 0.0 && limits[at] >= configured[at] * TOLD_LEAST {
                self.told[at] = limits[at];
                self.told_until = now + TOLD_MS;
            }
        }
        for (level, left) in self.levels.iter_mut().zip([told.requests_left, told.tokens_left]) {
            *level = level.map(|level| left.map_or(level, |left| level.min(left as f64)));
        }
    }

    pub(super) fn standing(&mut self, doubt: Option<&Doubt>, limit: &Limit, now: f64) -> Standing {
        let flow = self.pass_time(limit, now);
        let blocked = self.confirm(doubt, now).map(|(wait_ms, cause)| (wait_ms, cause.words()));
        let per_minute = flow.rates.map(|rate| (rate > 0.0).then_some(rate * 60.0));
        Standing {
            requests: self.levels[0],
            tokens: self.levels[1],
            requests_per_minute: per_minute[0],
            tokens_per_minute: per_minute[1],
            factor: flow.factor,
            blocked,
            tickets: self.tickets.len(),
            pace: if self.tokens_mean > 0.0 { self.pace(&flow, doubt.is_some()) } else { None },
        }
    }
}

/// Most calls of a target that anyone wants at once.
pub(super) const PACE_MAX: u32 = 1_000_000;

/// Whole milliseconds, upwards; what is only a rounding error above a millisecond is that millisecond.
fn whole(ms: f64) -> u64 {
    (ms - 1e-6).ceil().max(0.0) as u64
}
