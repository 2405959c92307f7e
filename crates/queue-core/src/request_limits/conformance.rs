//! What every store of request limits must do, written against the seam only:
//! `queue_core::request_limits_conformance!(its_fixture());` makes one test of each case.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a suite fails by panicking; its cases' names say it all

use std::{slice, sync::Arc};

use super::{Answer, Away, Draw, Level, Measure, Meter, Quota, RequestLimits};
use crate::ids::Name;

/// A store under test, and its time.
pub trait Fixture: Send + Sync {
    /// The store, fresh.
    fn limits(&self) -> Arc<dyn RequestLimits>;

    /// Lets time pass.
    fn advance_ms(&self, ms: i64);
}

/// Makes one test of every case.
#[macro_export]
macro_rules! request_limits_conformance {
    ($fixture:expr) => {
        $crate::request_limits_conformance! { @cases $fixture;
            a_burst_passes_and_then_one_at_a_time, what_passes_in_a_minute_is_bounded, a_refusal_says_when_to_come_again,
            a_refused_request_takes_of_no_meter, meters_are_apart, as_many_pass_as_the_poorest_meter_has,
            more_than_a_burst_never_passes, a_bulk_takes_what_is_there, a_smaller_quota_waits_for_no_more_than_its_burst,
            a_whole_meter_gives_its_burst_and_no_more, a_known_refusal_is_one, levels_are_exact_to_the_microsecond;
        }
    };
    (@cases $fixture:expr; $($case:ident),+;) => {
        $(
            #[tokio::test]
            async fn $case() {
                let fixture = $fixture;
                $crate::request_limits::conformance::$case(&fixture).await;
            }
        )+
    };
}

/// A draw of one request by a key of Acme.
pub fn draw(key: Option<&str>, measure: Measure, per_minute: u32) -> Draw {
    let meter = Meter { tenant: "acme".into(), key: key.map(Name::from), measure };
    Draw { meter, quota: Quota::new(per_minute, 60_000), least: 1, most: 1, when_away: Away::Closed }
}

fn request(per_minute: u32) -> Draw {
    draw(Some("k"), Measure::Requests, per_minute)
}

async fn take(limits: &dyn RequestLimits, draws: &[Draw]) -> Answer {
    limits.take(draws).await.unwrap()
}

/// How many of so many requests pass.
async fn passing(limits: &dyn RequestLimits, draws: &[Draw], tries: usize) -> usize {
    let mut passed = 0;
    for _ in 0..tries {
        passed += usize::from(take(limits, draws).await.admitted);
    }
    passed
}

fn level(answer: &Answer, at: usize) -> Level {
    answer.levels[at].unwrap()
}

pub async fn a_burst_passes_and_then_one_at_a_time(fixture: &dyn Fixture) {
    let (limits, draws) = (fixture.limits(), [request(100)]);
    assert_eq!(passing(&*limits, &draws, 150).await, 100);
    for _ in 0..3 {
        fixture.advance_ms(599);
        assert_eq!(passing(&*limits, &draws, 2).await, 0);
        fixture.advance_ms(1);
        assert_eq!(passing(&*limits, &draws, 2).await, 1);
    }
    fixture.advance_ms(6_000);
    assert_eq!(passing(&*limits, &draws, 20).await, 10);
}

pub async fn what_passes_in_a_minute_is_bounded(fixture: &dyn Fixture) {
    let (limits, draws) = (fixture.limits(), [request(100)]);
    let mut passed = 0;
    for _ in 0..600 {
        passed += passing(&*limits, &draws, 2).await;
        fixture.advance_ms(100);
    }
    // The burst, and one each 0.6 s of the 59.9 s until the last of them.
    assert_eq!(passed, 100 + 99);
}

pub async fn a_refusal_says_when_to_come_again(fixture: &dyn Fixture) {
    let (limits, draws) = (fixture.limits(), [request(10)]);
    assert_eq!(passing(&*limits, &draws, 10).await, 10);
    fixture.advance_ms(2_500);
    let refused = take(&*limits, &draws).await;
    assert!(!refused.admitted);
    assert_eq!((level(&refused, 0).left, level(&refused, 0).wait_us), (0, 3_500_000));
    fixture.advance_ms(3_499);
    assert!(!take(&*limits, &draws).await.admitted);
    fixture.advance_ms(1);
    assert!(take(&*limits, &draws).await.admitted);
}

pub async fn a_refused_request_takes_of_no_meter(fixture: &dyn Fixture) {
    let limits = fixture.limits();
    let both = [request(100), draw(None, Measure::Requests, 3), draw(Some("k"), Measure::LlmSubmits, 50)];
    assert_eq!(passing(&*limits, &both, 10).await, 3);
    let refused = take(&*limits, &both).await;
    let of = |at: usize| (level(&refused, at).left, level(&refused, at).wait_us);
    assert_eq!([of(0), of(1), of(2)], [(97, 0), (0, 20_000_000), (47, 0)], "only the one that is empty makes it wait");
    assert_eq!(passing(&*limits, &both[..1], 200).await, 97);
    assert_eq!(passing(&*limits, &both[2..], 200).await, 47);
}

pub async fn meters_are_apart(fixture: &dyn Fixture) {
    let limits = fixture.limits();
    let mut other = request(2);
    other.meter.tenant = "globex".into();
    let all = [
        request(2),
        draw(Some("other"), Measure::Requests, 2),
        draw(None, Measure::Requests, 2),
        draw(Some("k"), Measure::LlmSubmits, 2),
        draw(None, Measure::LlmSubmits, 2),
        other,
    ];
    for one in all {
        assert_eq!(passing(&*limits, slice::from_ref(&one), 5).await, 2, "{}", one.meter.name());
    }
}

pub async fn as_many_pass_as_the_poorest_meter_has(fixture: &dyn Fixture) {
    let limits = fixture.limits();
    let bulk = |most| {
        let of = |draw: Draw| Draw { least: 0, most, ..draw };
        [request(100), of(draw(Some("k"), Measure::LlmSubmits, 10)), of(draw(None, Measure::LlmSubmits, 6))]
    };
    let answer = take(&*limits, &bulk(4)).await;
    assert_eq!((answer.admitted, answer.jobs), (true, Some(4)));
    let answer = take(&*limits, &bulk(9)).await;
    assert_eq!((answer.admitted, answer.jobs), (true, Some(2)), "the tenant has six");
    assert_eq!([0, 1, 2].map(|at| level(&answer, at).left), [98, 4, 0]);
    let answer = take(&*limits, &bulk(9)).await;
    assert_eq!((answer.admitted, answer.jobs), (true, Some(0)), "the request itself passes");
    assert_eq!([0, 1, 2].map(|at| level(&answer, at).left), [97, 4, 0]);
    assert_eq!(level(&answer, 2).next_us, 10_000_000);
}

pub async fn more_than_a_burst_never_passes(fixture: &dyn Fixture) {
    let limits = fixture.limits();
    let many = Draw { least: 11, most: 11, ..draw(Some("k"), Measure::LlmSubmits, 10) };
    let answer = take(&*limits, &[many]).await;
    assert!(!answer.admitted);
    assert_eq!(level(&answer, 0).left, 10);
}

pub async fn a_bulk_takes_what_is_there(fixture: &dyn Fixture) {
    let limits = fixture.limits();
    let bulk = Draw { least: 0, most: 1_000, ..draw(Some("k"), Measure::LlmSubmits, 10) };
    assert_eq!(take(&*limits, slice::from_ref(&bulk)).await.jobs, Some(10));
    fixture.advance_ms(12_000);
    assert_eq!(take(&*limits, &[bulk]).await.jobs, Some(2));
    assert_eq!(take(&*limits, &[request(100)]).await.jobs, None, "nobody counts jobs");
}

pub async fn a_smaller_quota_waits_for_no_more_than_its_burst(fixture: &dyn Fixture) {
    let limits = fixture.limits();
    let roomy = Draw { quota: Quota::new(60, 60_000), ..request(60) };
    assert_eq!(passing(&*limits, &[roomy], 60).await, 60);
    // 60 s are taken; a burst of 2 at 60 a minute is worth two.
    let small = Draw { quota: Quota::new(60, 2_000), ..request(60) };
    let refused = take(&*limits, slice::from_ref(&small)).await;
    assert_eq!((refused.admitted, level(&refused, 0).wait_us), (false, 1_000_000));
    fixture.advance_ms(999);
    assert_eq!(passing(&*limits, slice::from_ref(&small), 2).await, 0);
    fixture.advance_ms(1);
    assert_eq!(passing(&*limits, &[small], 2).await, 1);
}

pub async fn a_whole_meter_gives_its_burst_and_no_more(fixture: &dyn Fixture) {
    let (limits, draws) = (fixture.limits(), [request(10)]);
    for _ in 0..3 {
        assert_eq!(passing(&*limits, &draws, 15).await, 10);
        fixture.advance_ms(3_600_000);
    }
}

pub async fn a_known_refusal_is_one(fixture: &dyn Fixture) {
    let (limits, draws) = (fixture.limits(), [request(10)]);
    assert_eq!(limits.refuses(&draws), None);
    assert_eq!(passing(&*limits, &draws, 11).await, 10);
    for _ in 0..60 {
        fixture.advance_ms(100);
        let known = limits.refuses(&draws);
        if take(&*limits, &draws).await.admitted {
            assert_eq!(known, None, "what passes was not refused a moment before");
        }
        if let Some(known) = known {
            assert!(!known.admitted);
        }
    }
}

pub async fn levels_are_exact_to_the_microsecond(fixture: &dyn Fixture) {
    let (limits, draws) = (fixture.limits(), [request(7)]);
    let answer = take(&*limits, &draws).await;
    assert_eq!(level(&answer, 0), Level { left: 6, next_us: 8_571_429, wait_us: 0, whole_us: 8_571_429 });
    fixture.advance_ms(1_000);
    let answer = take(&*limits, &draws).await;
    assert_eq!(level(&answer, 0), Level { left: 5, next_us: 7_571_429, wait_us: 0, whole_us: 16_142_858 });
}
