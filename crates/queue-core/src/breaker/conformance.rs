//! What every store of circuits must do, written against the seam only:
//! `queue_core::breaker_conformance!(its_fixture());` makes one test of each case.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a suite fails by panicking; its cases' names say it all

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Ask, BUCKET_MS, Breakers, By, CALLS_MIN, Change, CircuitView, End, Ended, FORGET_MS, Leave, OPEN_MAX_MS, OPEN_MS,
    PROBE_MS, ProbeId, Refusal, State,
};
use crate::{
    ids::Name,
    journal::{BreakerMode, TargetSettings, Versioned},
    time::Timestamp,
};

/// A store under test, and its time.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store, fresh.
    fn breakers(&self) -> Arc<dyn Breakers>;

    /// The store's time.
    fn now(&self) -> Timestamp;

    /// Lets it pass.
    fn advance_ms(&self, ms: i64);
}

/// Makes one test of every case.
#[macro_export]
macro_rules! breaker_conformance {
    ($fixture:expr) => {
        $crate::breaker_conformance! { @cases $fixture;
            a_target_that_works_stays_closed, few_calls_say_nothing, half_of_many_failures_open_it,
            what_failed_long_ago_is_forgotten, answers_count_for_nothing, successes_told_later_count,
            one_probe_at_a_time, a_good_probe_closes_it, an_answer_is_enough_for_a_probe,
            a_failed_probe_doubles_the_time, a_probe_without_a_verdict_gives_its_place_up,
            a_probe_that_dies_loses_its_place, a_renewed_probe_keeps_its_place, who_lost_its_place_decides_nothing,
            late_ends_change_nothing, an_exhausted_account_closes_all_its_models, operators_hold_it_open_and_closed,
            an_operators_pause_ends_by_itself, older_settings_change_nothing, lists_show_how_each_stands,
            an_idle_circuit_is_forgotten, an_operator_closes_a_circuit_once;
        }
    };
    (@cases $fixture:expr; $($case:ident),+;) => {
        $(
            #[tokio::test]
            async fn $case() {
                let fixture = $fixture;
                $crate::breaker::conformance::$case(&fixture).await;
            }
        )+
    };
}

const TARGET: &str = "p:m:c";
const ACCOUNT: &str = "p:*:c";

async fn enter(store: &dyn Breakers, target: &str, probe: ProbeId) -> Leave {
    let ask = Ask { target: target.into(), account: ACCOUNT.into(), probe, successes: 0 };
    store.enter(ask).await.unwrap()
}

async fn anyone(store: &dyn Breakers) -> Leave {
    enter(store, TARGET, ProbeId::generate()).await
}

async fn end(store: &dyn Breakers, circuit: &str, probe: ProbeId, end: End) -> Change {
    let ended = Ended { circuit: circuit.into(), probe, end, successes: 0, reason: "503".into() };
    store.end(ended).await.unwrap()
}

async fn many(store: &dyn Breakers, count: u32, what: End) -> Change {
    let mut last = Change::None;
    for _ in 0..count {
        last = end(store, TARGET, ProbeId::generate(), what).await;
    }
    last
}

async fn open(store: &dyn Breakers) -> Refusal {
    match many(store, CALLS_MIN, End::Failure).await {
        Change::Opened(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// Opens it, lets its time pass, and becomes its probe.
async fn probing(fixture: &dyn Fixture, store: &dyn Breakers) -> ProbeId {
    open(store).await;
    fixture.advance_ms(OPEN_MS);
    let probe = ProbeId::generate();
    assert_eq!(enter(store, TARGET, probe).await, Leave::Probe { target: true, account: false });
    probe
}

async fn shown(store: &dyn Breakers, circuit: &str) -> Option<CircuitView> {
    store.list().await.unwrap().into_iter().find(|view| view.circuit.as_str() == circuit)
}

fn is_refused(standing: &Leave) -> bool {
    matches!(standing, Leave::Refused(_))
}

pub async fn a_target_that_works_stays_closed(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    assert_eq!(many(&*store, 30, End::Success).await, Change::None);
    assert_eq!(many(&*store, 29, End::Failure).await, Change::None, "29 of 59");
    assert_eq!(anyone(&*store).await, Leave::Given);
}

pub async fn few_calls_say_nothing(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    assert_eq!(many(&*store, CALLS_MIN - 1, End::Failure).await, Change::None);
    assert_eq!(anyone(&*store).await, Leave::Given);
}

pub async fn half_of_many_failures_open_it(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    many(&*store, 10, End::Success).await;
    assert_eq!(many(&*store, 9, End::Failure).await, Change::None);
    let Change::Opened(refusal) = many(&*store, 1, End::Failure).await else { panic!("10 of 20 open it") };
    assert_eq!((refusal.by, refusal.wait_ms), (By::Failures, Some(OPEN_MS as u64)));
    assert_eq!(refusal.until, Some(fixture.now().plus_ms(OPEN_MS)));
    assert!(refusal.reason.contains("10 of 20") && refusal.reason.contains("503"), "{}", refusal.reason);
    fixture.advance_ms(OPEN_MS - 1);
    let Leave::Refused(told) = anyone(&*store).await else { panic!("it is open") };
    assert_eq!((told.wait_ms, told.until, told.reason), (Some(1), refusal.until, refusal.reason));
    assert_eq!(enter(&*store, "p:other:c", ProbeId::generate()).await, Leave::Given, "another model");
}

pub async fn what_failed_long_ago_is_forgotten(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    many(&*store, CALLS_MIN - 1, End::Failure).await;
    fixture.advance_ms(3 * BUCKET_MS);
    assert_eq!(many(&*store, CALLS_MIN - 1, End::Failure).await, Change::None);
    fixture.advance_ms(BUCKET_MS);
    assert!(matches!(many(&*store, 1, End::Failure).await, Change::Opened(_)), "the last but one bucket counts");
}

/// 429, a refused key, a malformed request: whoever answers so works.
pub async fn answers_count_for_nothing(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    many(&*store, 200, End::Answered).await;
    many(&*store, 200, End::Unknown).await;
    assert_eq!(anyone(&*store).await, Leave::Given);
    assert_eq!(many(&*store, CALLS_MIN - 1, End::Failure).await, Change::None);
    assert!(matches!(many(&*store, 1, End::Failure).await, Change::Opened(_)), "nor do they hide failures");
}

pub async fn successes_told_later_count(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let told = Ask { target: TARGET.into(), account: ACCOUNT.into(), probe: ProbeId::generate(), successes: 100 };
    store.enter(told).await.unwrap();
    assert_eq!(many(&*store, 60, End::Failure).await, Change::None, "60 of 160");
    let late = Ended {
        circuit: TARGET.into(),
        probe: ProbeId::generate(),
        end: End::Failure,
        successes: 0,
        reason: String::new(),
    };
    for _ in 0..39 {
        assert_eq!(store.end(late.clone()).await.unwrap(), Change::None);
    }
    assert!(matches!(store.end(late).await.unwrap(), Change::Opened(_)), "100 of 200");
}

pub async fn one_probe_at_a_time(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let probe = probing(fixture, &*store).await;
    for _ in 0..5 {
        let Leave::Refused(refusal) = anyone(&*store).await else { panic!("a second probe") };
        assert_eq!((refusal.by, refusal.wait_ms), (By::Failures, Some(PROBE_MS as u64)));
    }
    let again = enter(&*store, TARGET, probe).await;
    assert_eq!(again, Leave::Probe { target: true, account: false }, "asked again after a lost answer");
}

pub async fn a_good_probe_closes_it(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let probe = probing(fixture, &*store).await;
    assert_eq!(end(&*store, TARGET, probe, End::Success).await, Change::Closed);
    assert_eq!(anyone(&*store).await, Leave::Given);
    assert_eq!(many(&*store, CALLS_MIN - 1, End::Failure).await, Change::None, "it begins to count anew");
    let Change::Opened(refusal) = many(&*store, 1, End::Failure).await else { panic!("it opens again") };
    assert_eq!(refusal.wait_ms, Some(OPEN_MS as u64), "and its time begins anew");
}

pub async fn an_answer_is_enough_for_a_probe(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let probe = probing(fixture, &*store).await;
    assert_eq!(end(&*store, TARGET, probe, End::Answered).await, Change::Closed);
}

pub async fn a_failed_probe_doubles_the_time(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let mut probe = probing(fixture, &*store).await;
    for doubled in [20_000, 40_000, 80_000, 160_000, OPEN_MAX_MS, OPEN_MAX_MS] {
        let Change::Opened(refusal) = end(&*store, TARGET, probe, End::Failure).await else { panic!("it stays open") };
        assert_eq!(refusal.wait_ms, Some(doubled as u64));
        fixture.advance_ms(doubled - 1);
        assert!(is_refused(&anyone(&*store).await));
        fixture.advance_ms(1);
        probe = ProbeId::generate();
        assert_eq!(enter(&*store, TARGET, probe).await, Leave::Probe { target: true, account: false });
    }
}

pub async fn a_probe_without_a_verdict_gives_its_place_up(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let probe = probing(fixture, &*store).await;
    assert_eq!(end(&*store, TARGET, probe, End::Unknown).await, Change::None);
    assert_eq!(anyone(&*store).await, Leave::Probe { target: true, account: false });
}

pub async fn a_probe_that_dies_loses_its_place(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    probing(fixture, &*store).await;
    fixture.advance_ms(PROBE_MS - 1);
    assert!(is_refused(&anyone(&*store).await));
    fixture.advance_ms(1);
    assert_eq!(anyone(&*store).await, Leave::Probe { target: true, account: false });
    assert!(is_refused(&anyone(&*store).await), "again one only");
}

pub async fn a_renewed_probe_keeps_its_place(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let probe = probing(fixture, &*store).await;
    for _ in 0..5 {
        fixture.advance_ms(PROBE_MS - 1);
        store.renew(&[TARGET.into()], probe).await.unwrap();
        store.renew(&[TARGET.into()], ProbeId::generate()).await.unwrap();
    }
    assert!(is_refused(&anyone(&*store).await));
}

pub async fn who_lost_its_place_decides_nothing(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let lost = probing(fixture, &*store).await;
    fixture.advance_ms(PROBE_MS);
    let probe = ProbeId::generate();
    enter(&*store, TARGET, probe).await;
    for late in [End::Failure, End::Success, End::Unknown] {
        assert_eq!(end(&*store, TARGET, lost, late).await, Change::None);
    }
    assert_eq!(end(&*store, TARGET, probe, End::Success).await, Change::Closed);
}

/// Calls that began before it opened end after it.
pub async fn late_ends_change_nothing(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let opened = open(&*store).await;
    let told = many(&*store, 50, End::Failure).await;
    assert_eq!(told, Change::StoodOpen(opened.clone()), "whoever failed later learns that it is open");
    assert_eq!(many(&*store, 50, End::Success).await, Change::None);
    let Leave::Refused(refusal) = anyone(&*store).await else { panic!("it is open") };
    assert_eq!(refusal.until, opened.until);
}

pub async fn an_exhausted_account_closes_all_its_models(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let change = end(&*store, ACCOUNT, ProbeId::generate(), End::Exhausted(900_000)).await;
    let Change::Opened(refusal) = change else { panic!("one word is enough") };
    assert_eq!((refusal.by, refusal.wait_ms), (By::Account, Some(900_000)));
    for target in [TARGET, "p:other:c"] {
        let Leave::Refused(refusal) = enter(&*store, target, ProbeId::generate()).await else { panic!("{target}") };
        assert_eq!((refusal.by, refusal.reason.as_str()), (By::Account, "503"));
    }
    fixture.advance_ms(900_000);
    let probe = ProbeId::generate();
    assert_eq!(enter(&*store, TARGET, probe).await, Leave::Probe { target: false, account: true });
    assert!(is_refused(&enter(&*store, "p:other:c", ProbeId::generate()).await), "one call for the whole account");
    let again = end(&*store, ACCOUNT, probe, End::Exhausted(900_000)).await;
    assert!(matches!(again, Change::Opened(Refusal { wait_ms: Some(900_000), .. })), "{again:?}");
    fixture.advance_ms(900_000);
    let probe = ProbeId::generate();
    enter(&*store, TARGET, probe).await;
    assert_eq!(end(&*store, ACCOUNT, probe, End::Answered).await, Change::Closed);
    assert_eq!(enter(&*store, "p:other:c", ProbeId::generate()).await, Leave::Given);
}

async fn set(store: &dyn Breakers, version: i64, value: TargetSettings) {
    store.set(&Name::from(TARGET), Versioned { version, value }).await.unwrap();
}

pub async fn operators_hold_it_open_and_closed(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let mode = |breaker| TargetSettings { breaker, ..TargetSettings::default() };
    set(&*store, 1, mode(BreakerMode::Open)).await;
    let Leave::Refused(refusal) = anyone(&*store).await else { panic!("held open") };
    assert_eq!((refusal.by, refusal.until, refusal.wait_ms), (By::Operator, None, None));
    assert!(!refusal.reason.is_empty());
    set(&*store, 2, mode(BreakerMode::Auto)).await;
    assert_eq!(anyone(&*store).await, Leave::Given);
    open(&*store).await;
    set(&*store, 3, mode(BreakerMode::Close)).await;
    assert_eq!(anyone(&*store).await, Leave::Given, "closed by hand");
    assert_eq!(many(&*store, 1, End::Failure).await, Change::None, "and a failure says nothing else");
    assert_eq!(many(&*store, 100, End::Failure).await, Change::None, "and it stays so");
    assert_eq!(anyone(&*store).await, Leave::Given);
    set(&*store, 4, mode(BreakerMode::Auto)).await;
    assert!(matches!(many(&*store, 1, End::Failure).await, Change::Opened(_)));
}

pub async fn an_operators_pause_ends_by_itself(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    let until = fixture.now().plus_ms(5_000);
    let reason = Some("their maintenance".to_owned());
    set(&*store, 1, TargetSettings { paused: true, paused_until: Some(until), reason, ..Default::default() }).await;
    let Leave::Refused(refusal) = anyone(&*store).await else { panic!("paused") };
    let expected =
        Refusal { by: By::Operator, until: Some(until), wait_ms: Some(5_000), reason: "their maintenance".into() };
    assert_eq!(refusal, expected);
    assert_eq!(enter(&*store, "p:other:c", ProbeId::generate()).await, Leave::Given);
    fixture.advance_ms(5_000);
    assert_eq!(anyone(&*store).await, Leave::Given);
}

pub async fn older_settings_change_nothing(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    set(&*store, 7, TargetSettings { paused: true, ..Default::default() }).await;
    set(&*store, 6, TargetSettings::default()).await;
    assert!(is_refused(&anyone(&*store).await));
    set(&*store, 8, TargetSettings::default()).await;
    assert_eq!(anyone(&*store).await, Leave::Given);
}

pub async fn lists_show_how_each_stands(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    assert!(store.list().await.unwrap().is_empty());
    many(&*store, 3, End::Success).await;
    many(&*store, 2, End::Failure).await;
    enter(&*store, "p:a:c", ProbeId::generate()).await;
    let names: Vec<_> = store.list().await.unwrap().into_iter().map(|view| view.circuit.to_string()).collect();
    assert_eq!(names, ["p:a:c", TARGET]);
    let closed = shown(&*store, TARGET).await.unwrap();
    assert_eq!((closed.state, closed.calls, closed.failures, closed.reason), (State::Closed, 5, 2, None));
    many(&*store, CALLS_MIN, End::Failure).await;
    let open = shown(&*store, TARGET).await.unwrap();
    assert_eq!((open.state, open.until.is_some(), open.probing), (State::Open, true, false));
    assert!(open.reason.is_some());
    fixture.advance_ms(OPEN_MS);
    assert_eq!(shown(&*store, TARGET).await.unwrap().state, State::HalfOpen);
    let probe = ProbeId::generate();
    enter(&*store, TARGET, probe).await;
    assert!(shown(&*store, TARGET).await.unwrap().probing);
    end(&*store, TARGET, probe, End::Failure).await;
    assert_eq!(shown(&*store, TARGET).await.unwrap().failed_probes, 1);
}

pub async fn an_idle_circuit_is_forgotten(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    many(&*store, 1, End::Success).await;
    fixture.advance_ms(FORGET_MS + 1);
    assert!(store.list().await.unwrap().is_empty());
}

pub async fn an_operator_closes_a_circuit_once(fixture: &dyn Fixture) {
    let store = fixture.breakers();
    store.close(&ACCOUNT.into()).await.unwrap();
    end(&*store, ACCOUNT, ProbeId::generate(), End::Exhausted(900_000)).await;
    open(&*store).await;
    store.close(&ACCOUNT.into()).await.unwrap();
    let Leave::Refused(refusal) = anyone(&*store).await else { panic!("the target's own circuit is another one") };
    assert_eq!(refusal.by, By::Failures);
    store.close(&TARGET.into()).await.unwrap();
    assert_eq!(anyone(&*store).await, Leave::Given);
    assert!(matches!(many(&*store, CALLS_MIN, End::Failure).await, Change::Opened(_)), "its calls may open it again");
}
