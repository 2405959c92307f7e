//! The algorithm: what is spent, reserved and parked. `crates/queue-core/lua/budget.lua` says the same in Lua.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{
    Amount, Ask, LIFE_GRACE_MS, Lines, Measure, Parked, RESERVED_MS, Refusal, SWEEP_MAX, Scope, Span, Standing,
    UnderWay, Verdict,
};
use crate::{ids::Name, journal::Versioned, time::Timestamp};

/// One budget.
#[derive(Clone, Debug, Default)]
struct Account {
    version: i64,
    limits: [Option<i64>; 4],
    span: Span,
    /// In the order of [`Lines::ALL`].
    spent: [i64; 4],
    known: bool,
    /// Who reads the ledger now; grows.
    fill: i64,
    /// What was committed since that began.
    since: [i64; 4],
    /// Money and tokens.
    reserved: [i64; 2],
}

/// Whether a line counts money (0) or tokens (1), and a day (0) or a month (1).
fn line(at: usize) -> (usize, usize) {
    (at / 2, at % 2)
}

impl Account {
    /// Begins the periods that have begun; never goes back.
    fn pass_time(&mut self, now: Span) {
        let passed = [now.day > self.span.day, now.month > self.span.month];
        for at in 0..4 {
            if passed[line(at).1] {
                (self.spent[at], self.since[at]) = (0, 0);
            }
        }
        self.span = Span { day: self.span.day.max(now.day), month: self.span.month.max(now.month) };
    }

    /// The limit that leaves no room; one that will not have room before its period ends comes first, and of those the one
    /// whose period ends last.
    fn refusal(&self, scope: &Scope, asked: [i64; 2]) -> Option<Refusal> {
        let refused = (0..4).filter_map(|at| {
            let (measure, period) = Lines::ALL[at];
            let (limit, asked) = (self.limits[at]?, asked[line(at).0]);
            let reserved = self.reserved[line(at).0];
            (self.spent[at].saturating_add(reserved).saturating_add(asked) > limit).then(|| Refusal {
                scope: scope.clone(),
                measure,
                period,
                limit,
                spent: self.spent[at],
                reserved,
                asked,
                until: self.span.end(period),
            })
        });
        refused.reduce(|best, next| if rank(&next) > rank(&best) { next } else { best })
    }

    fn ready(&self, asked: [i64; 2]) -> bool {
        (0..4).all(|at| {
            let (kind, _) = line(at);
            self.limits[at].is_none_or(|limit| {
                let unspent = limit.saturating_sub(self.spent[at]);
                let free = unspent.saturating_sub(self.reserved[kind]);
                free >= asked[kind] && free >= unspent / 2
            })
        })
    }
}

/// Which of two refusals is told.
fn rank(refusal: &Refusal) -> (bool, Timestamp) {
    (!refusal.is_passing(), refusal.until)
}

#[derive(Clone, Debug)]
struct Reservation {
    amount: [i64; 2],
    scopes: Vec<Scope>,
    expires: i64,
}

#[derive(Clone, Debug)]
struct Sleep {
    scope: Scope,
    amount: [i64; 2],
    until: i64,
    reason: String,
}

/// All budgets.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// When this life began; `None`: none has.
    pub(super) life: Option<i64>,
    accounts: BTreeMap<Scope, Account>,
    calls: HashMap<Uuid, Reservation>,
    asleep: BTreeMap<Name, Sleep>,
}

impl Book {
    fn account(&mut self, scope: &Scope, now: i64) -> &mut Account {
        let account = self.accounts.entry(scope.clone()).or_default();
        account.pass_time(Span::of(Timestamp(now)));
        account
    }

    fn sweep(&mut self, now: i64) {
        let mut expired: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, held)| held.expires <= now)
            .map(|(call, held)| (held.expires, *call))
            .collect();
        expired.sort_unstable();
        for (_, call) in expired.into_iter().take(SWEEP_MAX) {
            self.take_back(call);
        }
    }

    fn take_back(&mut self, call: Uuid) -> Option<Reservation> {
        let held = self.calls.remove(&call)?;
        for scope in &held.scopes {
            if let Some(account) = self.accounts.get_mut(scope) {
                for kind in 0..2 {
                    account.reserved[kind] -= held.amount[kind];
                }
            }
        }
        Some(held)
    }

    fn give(&mut self, call: Uuid, amount: [i64; 2], scopes: &[Scope], now: i64) {
        for scope in scopes {
            let account = self.account(scope, now);
            for (reserved, more) in account.reserved.iter_mut().zip(amount) {
                *reserved += more;
            }
        }
        self.calls.insert(call, Reservation { amount, scopes: scopes.to_vec(), expires: now + RESERVED_MS });
    }

    pub(super) fn begin(&mut self, now: i64) {
        self.life.get_or_insert(now);
    }

    pub(super) fn reserve(&mut self, ask: &Ask, now: i64) -> Verdict {
        let Some(life) = self.life else { return Verdict::Forgotten };
        if now < life + LIFE_GRACE_MS {
            return Verdict::Closed { wait_ms: (life + LIFE_GRACE_MS - now) as u64 };
        }
        self.sweep(now);
        if let Some(held) = self.calls.get_mut(&ask.call) {
            held.expires = now + RESERVED_MS;
            return Verdict::Granted;
        }
        let (asked, mut unknown, mut refused) = (ask.amount.numbers(), vec![], None::<Refusal>);
        for (scope, budget) in &ask.budgets {
            let account = self.account(scope, now);
            if budget.version >= account.version {
                (account.version, account.limits) = (budget.version, budget.value.limits());
            }
            if !account.known {
                unknown.push(scope.clone());
            }
            if let Some(next) = account.refusal(scope, asked)
                && refused.as_ref().is_none_or(|best| rank(&next) > rank(best))
            {
                refused = Some(next);
            }
        }
        if !unknown.is_empty() {
            return Verdict::Unknown(unknown);
        }
        if let Some(refusal) = refused {
            return Verdict::Refused(refusal);
        }
        let scopes: Vec<Scope> = ask.budgets.iter().map(|(scope, _)| scope.clone()).collect();
        self.give(ask.call, asked, &scopes, now);
        Verdict::Granted
    }

    pub(super) fn commit(&mut self, call: Uuid, took: Amount, at: i64, now: i64) -> bool {
        let Some(held) = self.take_back(call) else { return false };
        let (took, of) = (took.numbers(), Span::of(Timestamp(at)));
        for scope in &held.scopes {
            let account = self.account(scope, now);
            // Yesterday's is yesterday's; what a clock that is ahead calls tomorrow's counts now.
            let counts = [of.day >= account.span.day, of.month >= account.span.month];
            for at in 0..4 {
                let (kind, period) = line(at);
                if counts[period] {
                    account.spent[at] += took[kind];
                    account.since[at] += took[kind];
                }
            }
        }
        true
    }

    pub(super) fn adjust(&mut self, call: Uuid, took: Amount, now: i64) {
        if let Some(held) = self.take_back(call) {
            self.give(call, took.numbers(), &held.scopes, now);
        }
    }

    pub(super) fn renew(&mut self, under_way: &[UnderWay], now: i64) {
        for UnderWay { call, amount, scopes } in under_way {
            match self.calls.get_mut(call) {
                Some(held) => held.expires = now + RESERVED_MS,
                None => self.give(*call, amount.numbers(), scopes, now),
            }
        }
    }

    pub(super) fn begin_fill(&mut self, scope: &Scope, now: i64) -> i64 {
        let account = self.account(scope, now);
        account.fill += 1;
        account.since = [0; 4];
        account.fill
    }

    pub(super) fn end_fill(&mut self, scope: &Scope, fill: i64, span: Span, spent: [i64; 4], now: i64) {
        let account = self.account(scope, now);
        if account.fill != fill {
            return;
        }
        let same = [account.span.day == span.day, account.span.month == span.month];
        for at in 0..4 {
            if same[line(at).1] {
                account.spent[at] = spent[at].saturating_add(account.since[at]);
            }
        }
        // A period that began while the ledger was read has begun with nothing spent.
        account.known = true;
    }

    pub(super) fn tell(&mut self, scope: &Scope, budget: &Versioned<super::Budget>, now: i64) {
        let account = self.account(scope, now);
        if budget.version >= account.version {
            (account.version, account.limits) = (budget.version, budget.value.limits());
        }
    }

    pub(super) fn standing(&mut self, scope: &Scope, now: i64) -> Option<Standing> {
        self.sweep(now);
        let account = self.accounts.get_mut(scope)?;
        account.pass_time(Span::of(Timestamp(now)));
        Some(Standing { known: account.known, spent: account.spent, reserved: account.reserved })
    }

    pub(super) fn park(&mut self, tenant: &Name, scope: &Scope, amount: Amount, until: Timestamp, reason: &str) {
        let sleep = Sleep { scope: scope.clone(), amount: amount.numbers(), until: until.0, reason: reason.to_owned() };
        self.asleep.insert(tenant.clone(), sleep);
    }

    pub(super) fn parked(&mut self, now: i64) -> Vec<Parked> {
        self.sweep(now);
        let span = Span::of(Timestamp(now));
        let Self { accounts, asleep, .. } = self;
        let view = |(tenant, sleep): (&Name, &Sleep)| Parked {
            tenant: tenant.clone(),
            scope: sleep.scope.clone(),
            reason: sleep.reason.clone(),
            until: Timestamp(sleep.until),
            ready: sleep.until <= now
                || accounts.get_mut(&sleep.scope).is_none_or(|account| {
                    account.pass_time(span);
                    account.ready(sleep.amount)
                }),
        };
        asleep.iter().map(view).collect()
    }

    pub(super) fn unpark(&mut self, tenant: &Name) {
        self.asleep.remove(tenant);
    }

    pub(super) fn scopes(&self) -> Vec<Scope> {
        self.accounts.keys().cloned().collect()
    }
}

const _: () = assert!(matches!(Lines::ALL[2].0, Measure::Tokens), "lines are kept by measure, then by period");
