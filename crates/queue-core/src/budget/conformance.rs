//! What all counters must do, written against the seam only.
//!
//! A store joins with one line in its tests: `queue_core::budget_conformance!(its_fixture());`, where the expression makes a
//! [`Fixture`] over fresh, empty counters. Each case below becomes one test of that store.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a suite fails by panicking; its cases' names say it all

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Amount, Ask, Budget, Counters, LIFE_GRACE_MS, Measure, Period, RESERVED_MS, Refusal, Scope, Span, UnderWay, Verdict,
};
use crate::{
    journal::Versioned,
    ledger::Nanousd,
    time::{Clock, ManualClock, Timestamp},
};

/// When the suite takes place: a noon in the middle of a month.
pub const START: Timestamp = Timestamp(1_789_473_600_000);

/// Counters under test, and their time, which stands at [`START`].
pub trait Fixture: Send + Sync {
    /// The counters.
    fn counters(&self) -> Arc<dyn Counters>;

    /// Their time.
    fn clock(&self) -> ManualClock;
}

/// Makes one test of every case: `budget_conformance!(a_fresh_fixture())`.
#[macro_export]
macro_rules! budget_conformance {
    ($fixture:expr) => {
        $crate::budget_conformance! { @cases $fixture;
            nothing_is_granted_before_the_ledger_was_read, what_is_reserved_is_not_given_twice, all_budgets_or_none,
            money_and_tokens_are_limited_apart, a_commit_counts_what_was_spent, a_call_is_reserved_and_committed_once,
            a_call_that_took_less_gives_the_rest_back, a_dead_workers_reservation_expires, renewed_reservations_stay,
            a_reservation_is_asserted_where_it_was_forgotten, midnight_begins_anew_with_what_is_under_way,
            a_call_counts_in_the_period_in_which_it_ended, what_is_committed_while_the_ledger_is_read_counts,
            the_last_reader_wins, a_raise_holds_for_everybody_at_once, a_refusal_that_passes_is_told_from_one_that_does_not,
            sleepers_are_ready_when_half_is_free, what_stands_is_told;
        }
    };
    (@cases $fixture:expr; $($case:ident),* $(,)?;) => {
        $(#[tokio::test]
        async fn $case() {
            let fixture = $fixture;
            $crate::budget::conformance::$case(&fixture).await;
        })*
    };
}

struct Scene {
    counters: Arc<dyn Counters>,
    clock: ManualClock,
}

impl Scene {
    /// Counters that have lived for long enough.
    async fn of(fixture: &dyn Fixture) -> Self {
        let scene = Self { counters: fixture.counters(), clock: fixture.clock() };
        scene.counters.begin().await.unwrap();
        scene.clock.advance_ms(LIFE_GRACE_MS);
        scene
    }

    async fn read(&self, scope: &Scope, spent: [i64; 4]) {
        let fill = self.counters.begin_fill(scope).await.unwrap();
        self.counters.end_fill(scope, fill, Span::of(self.clock.now()), spent).await.unwrap();
    }

    /// With nothing spent in any of these.
    async fn knowing(fixture: &dyn Fixture, scopes: &[Scope]) -> Self {
        let scene = Self::of(fixture).await;
        for scope in scopes {
            scene.read(scope, [0; 4]).await;
        }
        scene
    }

    async fn ask(&self, ask: &Ask) -> Verdict {
        self.counters.reserve(ask).await.unwrap()
    }

    async fn granted(&self, ask: &Ask) -> bool {
        self.ask(ask).await == Verdict::Granted
    }

    async fn refused(&self, ask: &Ask) -> Refusal {
        match self.ask(ask).await {
            Verdict::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn commit(&self, ask: &Ask, usd: i64) -> bool {
        self.counters.commit(ask.call, amount(usd, 0), self.clock.now()).await.unwrap()
    }

    async fn spent(&self, scope: &Scope) -> [i64; 4] {
        self.counters.standing(scope).await.unwrap().unwrap().spent
    }

    async fn reserved(&self, scope: &Scope) -> [i64; 2] {
        self.counters.standing(scope).await.unwrap().unwrap().reserved
    }

    fn midnight(&self) -> i64 {
        Span::of(self.clock.now()).end(Period::Day).since_ms(self.clock.now())
    }
}

fn acme() -> Scope {
    Scope::Tenant("acme".into())
}

fn amount(usd: i64, tokens: u64) -> Amount {
    Amount { usd: Nanousd(usd), tokens }
}

fn usd(version: i64, limit: i64) -> Versioned<Budget> {
    Versioned { version, value: Budget { day_usd: Some(Nanousd(limit)), ..Budget::default() } }
}

fn call(asked: i64, budgets: &[(Scope, Versioned<Budget>)]) -> Ask {
    Ask { call: Uuid::now_v7(), amount: amount(asked, 0), budgets: budgets.to_vec() }
}

/// A call of the tenant, with a budget of 100 a day.
fn of_acme(asked: i64) -> Ask {
    call(asked, &[(acme(), usd(2, 100))])
}

pub async fn nothing_is_granted_before_the_ledger_was_read(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture).await;
    let ask = call(5, &[(acme(), usd(2, 100)), (Scope::All, usd(2, 100))]);
    assert_eq!(scene.ask(&ask).await, Verdict::Unknown(vec![acme(), Scope::All]));
    scene.read(&acme(), [0; 4]).await;
    assert_eq!(scene.ask(&ask).await, Verdict::Unknown(vec![Scope::All]));
    assert_eq!(scene.reserved(&acme()).await, [0, 0], "nothing is reserved by halves");
    scene.read(&Scope::All, [98, 98, 0, 0]).await;
    assert_eq!(scene.refused(&ask).await.scope, Scope::All);
    assert!(scene.granted(&call(2, &ask.budgets)).await);
}

pub async fn what_is_reserved_is_not_given_twice(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    for _ in 0..10 {
        assert!(scene.granted(&of_acme(10)).await);
    }
    let refusal = scene.refused(&of_acme(1)).await;
    let until = Span::of(scene.clock.now()).end(Period::Day);
    let expected = Refusal {
        scope: acme(),
        measure: Measure::Usd,
        period: Period::Day,
        limit: 100,
        spent: 0,
        reserved: 100,
        asked: 1,
        until,
    };
    assert_eq!(refusal, expected);
}

pub async fn all_budgets_or_none(fixture: &dyn Fixture) {
    let key = Scope::Key("abcd1234".into());
    let scene = Scene::knowing(fixture, &[key.clone(), acme(), Scope::All]).await;
    let budgets = [(key.clone(), usd(2, 100)), (acme(), usd(2, 100)), (Scope::All, usd(2, 30))];
    assert!(scene.granted(&call(20, &budgets)).await);
    assert_eq!(scene.refused(&call(20, &budgets)).await.scope, Scope::All);
    for scope in [&key, &acme(), &Scope::All] {
        assert_eq!(scene.reserved(scope).await, [20, 0], "the refused call has nothing in {scope}");
    }
    assert!(scene.granted(&call(80, &budgets[..2])).await);
}

pub async fn money_and_tokens_are_limited_apart(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let value = Budget { month_usd: Some(Nanousd(100)), day_tokens: Some(1_000), ..Budget::default() };
    let ask = |usd: i64, tokens: u64| Ask {
        call: Uuid::now_v7(),
        amount: amount(usd, tokens),
        budgets: vec![(acme(), Versioned { version: 2, value: value.clone() })],
    };
    assert!(scene.granted(&ask(10, 900)).await);
    let refusal = scene.refused(&ask(10, 200)).await;
    assert_eq!((refusal.measure, refusal.period, refusal.reserved), (Measure::Tokens, Period::Day, 900));
    let refusal = scene.refused(&ask(95, 0)).await;
    assert_eq!((refusal.measure, refusal.period), (Measure::Usd, Period::Month));
    // Both refuse: what ends later is told.
    assert_eq!(scene.refused(&ask(200, 2_000)).await.period, Period::Month);
}

pub async fn a_commit_counts_what_was_spent(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let ask = of_acme(40);
    assert!(scene.granted(&ask).await);
    let took = amount(25, 7);
    assert!(scene.counters.commit(ask.call, took, scene.clock.now()).await.unwrap());
    assert_eq!((scene.spent(&acme()).await, scene.reserved(&acme()).await), ([25, 25, 7, 7], [0, 0]));
    assert!(scene.granted(&of_acme(75)).await);
    assert!(!scene.granted(&of_acme(1)).await);
}

pub async fn a_call_is_reserved_and_committed_once(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let ask = of_acme(60);
    for _ in 0..3 {
        assert!(scene.granted(&ask).await, "the same call is asked for again");
    }
    assert_eq!(scene.reserved(&acme()).await, [60, 0]);
    assert!(scene.commit(&ask, 50).await);
    assert!(!scene.commit(&ask, 50).await);
    assert_eq!(scene.spent(&acme()).await[0], 50);
    assert!(!scene.commit(&of_acme(1), 9).await, "who reserved nothing commits nothing");
    assert_eq!(scene.spent(&acme()).await[0], 50);
}

pub async fn a_call_that_took_less_gives_the_rest_back(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let (costly, free) = (of_acme(60), of_acme(40));
    assert!(scene.granted(&costly).await && scene.granted(&free).await);
    scene.counters.adjust(costly.call, amount(10, 0)).await.unwrap();
    assert!(scene.commit(&free, 0).await);
    assert_eq!((scene.reserved(&acme()).await, scene.spent(&acme()).await[0]), ([10, 0], 0));
    assert!(scene.granted(&of_acme(90)).await);
    // It may also have taken more than anyone thought: that is so.
    scene.counters.adjust(costly.call, amount(70, 0)).await.unwrap();
    assert_eq!(scene.reserved(&acme()).await, [160, 0]);
}

pub async fn a_dead_workers_reservation_expires(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let lost = of_acme(100);
    assert!(scene.granted(&lost).await);
    scene.clock.advance_ms(RESERVED_MS - 1);
    assert!(!scene.granted(&of_acme(1)).await);
    scene.clock.advance_ms(1);
    assert!(scene.granted(&of_acme(100)).await);
    assert!(!scene.commit(&lost, 5).await, "the ledger knows, the counters do not");
}

pub async fn renewed_reservations_stay(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let ask = of_acme(100);
    assert!(scene.granted(&ask).await);
    let under_way = UnderWay { call: ask.call, amount: ask.amount, scopes: vec![acme()] };
    for _ in 0..4 {
        scene.clock.advance_ms(RESERVED_MS - 1);
        assert!(scene.counters.renew(std::slice::from_ref(&under_way)).await.unwrap().is_some());
    }
    assert_eq!(scene.reserved(&acme()).await, [100, 0]);
    assert!(scene.commit(&ask, 1).await);
}

pub async fn a_reservation_is_asserted_where_it_was_forgotten(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture).await;
    let under_way = UnderWay { call: Uuid::now_v7(), amount: amount(70, 3), scopes: vec![acme(), Scope::All] };
    scene.counters.renew(std::slice::from_ref(&under_way)).await.unwrap();
    scene.read(&acme(), [10, 10, 0, 0]).await;
    assert_eq!(scene.reserved(&acme()).await, [70, 3]);
    assert!(!scene.granted(&of_acme(21)).await);
    assert!(scene.granted(&of_acme(20)).await);
    assert!(scene.counters.commit(under_way.call, amount(60, 2), scene.clock.now()).await.unwrap());
    assert_eq!(scene.spent(&acme()).await[0], 70);
}

pub async fn midnight_begins_anew_with_what_is_under_way(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let (before, over) = (of_acme(30), of_acme(60));
    assert!(scene.granted(&before).await && scene.granted(&over).await);
    assert!(scene.commit(&before, 30).await);
    assert!(!scene.granted(&of_acme(20)).await);
    let left = scene.midnight();
    scene.clock.advance_ms(left - 1);
    let under_way = UnderWay { call: over.call, amount: over.amount, scopes: vec![acme()] };
    scene.counters.renew(&[under_way]).await.unwrap();
    assert!(!scene.granted(&of_acme(20)).await, "it is not midnight yet");
    scene.clock.advance_ms(1);
    assert_eq!((scene.spent(&acme()).await, scene.reserved(&acme()).await), ([0, 30, 0, 0], [60, 0]));
    assert!(!scene.granted(&of_acme(41)).await, "the call under way counts in the new day");
    assert!(scene.granted(&of_acme(40)).await);
    assert!(scene.commit(&over, 55).await);
    assert_eq!(scene.spent(&acme()).await, [55, 85, 0, 0]);
}

pub async fn a_call_counts_in_the_period_in_which_it_ended(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let ask = of_acme(30);
    let left = scene.midnight();
    scene.clock.advance_ms(left - 1);
    assert!(scene.granted(&ask).await);
    let ended = scene.clock.now();
    scene.clock.advance_ms(1);
    assert!(scene.counters.commit(ask.call, amount(30, 0), ended).await.unwrap());
    assert_eq!(scene.spent(&acme()).await, [0, 30, 0, 0], "its ledger row is of yesterday");
}

pub async fn what_is_committed_while_the_ledger_is_read_counts(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let (before, within) = (of_acme(10), of_acme(20));
    assert!(scene.granted(&before).await && scene.granted(&within).await);
    assert!(scene.commit(&before, 10).await);
    let fill = scene.counters.begin_fill(&acme()).await.unwrap();
    assert!(scene.commit(&within, 20).await);
    let span = Span::of(scene.clock.now());
    scene.counters.end_fill(&acme(), fill, span, [10, 10, 0, 0]).await.unwrap();
    assert_eq!(scene.spent(&acme()).await, [30, 30, 0, 0]);
    // What drifted is mended by the next one.
    scene.read(&acme(), [25, 26, 0, 0]).await;
    assert_eq!(scene.spent(&acme()).await, [25, 26, 0, 0]);
}

pub async fn the_last_reader_wins(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let early = scene.counters.begin_fill(&acme()).await.unwrap();
    let late = scene.counters.begin_fill(&acme()).await.unwrap();
    let span = Span::of(scene.clock.now());
    scene.counters.end_fill(&acme(), late, span, [50, 50, 0, 0]).await.unwrap();
    scene.counters.end_fill(&acme(), early, span, [1, 1, 0, 0]).await.unwrap();
    assert_eq!(scene.spent(&acme()).await[0], 50);
    // Of yesterday: what is of today stays.
    let yesterday = Span { day: span.day - 86_400_000, ..span };
    let fill = scene.counters.begin_fill(&acme()).await.unwrap();
    scene.counters.end_fill(&acme(), fill, yesterday, [7, 60, 0, 0]).await.unwrap();
    assert_eq!(scene.spent(&acme()).await, [50, 60, 0, 0]);
}

pub async fn a_raise_holds_for_everybody_at_once(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    assert!(scene.granted(&of_acme(100)).await);
    assert!(!scene.granted(&of_acme(50)).await);
    scene.counters.tell(&acme(), usd(3, 200)).await.unwrap();
    assert!(scene.granted(&of_acme(50)).await, "whoever asks by the old limit is answered by the new one");
    scene.counters.tell(&acme(), usd(2, 10)).await.unwrap();
    assert!(scene.granted(&of_acme(50)).await, "an older limit changes nothing");
    assert!(!scene.granted(&of_acme(1)).await);
    let none = Versioned { version: 4, value: Budget::default() };
    scene.counters.tell(&acme(), none).await.unwrap();
    assert!(scene.granted(&of_acme(1_000)).await);
}

pub async fn a_refusal_that_passes_is_told_from_one_that_does_not(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let ask = of_acme(90);
    assert!(scene.granted(&ask).await);
    let refusal = scene.refused(&of_acme(20)).await;
    assert!(refusal.is_passing() && !refusal.is_used_up());
    assert!(scene.commit(&ask, 90).await);
    let refusal = scene.refused(&of_acme(20)).await;
    assert!(!refusal.is_passing() && !refusal.is_used_up(), "ten are left, for whoever wants less");
    let rest = of_acme(9);
    assert!(scene.granted(&rest).await && scene.commit(&rest, 9).await);
    assert!(scene.refused(&of_acme(20)).await.is_used_up());
}

pub async fn sleepers_are_ready_when_half_is_free(fixture: &dyn Fixture) {
    let scene = Scene::knowing(fixture, &[acme()]).await;
    let calls = [of_acme(40), of_acme(40), of_acme(20)];
    for ask in &calls {
        assert!(scene.granted(ask).await);
    }
    let (tenant, until) = ("acme".into(), scene.clock.now().plus_ms(50_000));
    scene.counters.park(&tenant, &acme(), amount(10, 0), until, "no room").await.unwrap();
    let ready = async || scene.counters.parked().await.unwrap().iter().map(|one| one.ready).collect::<Vec<_>>();
    assert_eq!(ready().await, [false]);
    assert!(scene.commit(&calls[2], 0).await);
    assert_eq!(ready().await, [false], "there is room for one, and many would come");
    assert!(scene.commit(&calls[1], 20).await);
    assert_eq!(ready().await, [true]);
    let parked = scene.counters.parked().await.unwrap().remove(0);
    assert_eq!((parked.tenant.clone(), parked.scope, parked.reason.as_str()), (tenant.clone(), acme(), "no room"));
    assert_eq!(parked.until, until);
    assert!(scene.granted(&of_acme(40)).await);
    assert_eq!(ready().await, [false]);
    scene.clock.advance_ms(50_000);
    assert_eq!(ready().await, [true], "its time is over");
    scene.counters.unpark(&tenant).await.unwrap();
    assert!(ready().await.is_empty());
}

pub async fn what_stands_is_told(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture).await;
    assert!(scene.counters.standing(&acme()).await.unwrap().is_none());
    assert!(scene.counters.scopes().await.unwrap().is_empty());
    assert!(matches!(scene.ask(&of_acme(1)).await, Verdict::Unknown(_)));
    assert!(!scene.counters.standing(&acme()).await.unwrap().unwrap().known);
    scene.read(&Scope::All, [1, 2, 3, 4]).await;
    assert_eq!(scene.counters.scopes().await.unwrap(), [Scope::All, acme()]);
    let standing = scene.counters.standing(&Scope::All).await.unwrap().unwrap();
    assert_eq!((standing.known, standing.spent, standing.reserved), (true, [1, 2, 3, 4], [0, 0]));
}
