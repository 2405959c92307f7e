//! What every limiter must do, written against the seam only.
//!
//! A store joins with one line in its tests: `queue_core::limiter_conformance!(its_fixture());`, where the expression makes a
//! [`Fixture`] over a fresh, empty store. Each case below becomes one test of that store.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a suite fails by panicking; its cases' names say it all

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Answer, Ask, Cause, Lift, Limit, Limiter, Penalty, TICKET_GRACE_MS, TICKETS_MAX, TOLD_MS, TRIAL_MS, Told, Used,
    Verdict,
};
use crate::route::Target;

/// A store under test, and its time.
pub trait Fixture: Send + Sync {
    /// The store.
    fn limiter(&self) -> Arc<dyn Limiter>;

    /// Lets the store's time pass.
    fn advance_ms(&self, ms: i64);
}

/// Makes one test of every case: `limiter_conformance!(a_fresh_fixture())`.
#[macro_export]
macro_rules! limiter_conformance {
    ($fixture:expr) => {
        $crate::limiter_conformance! { @cases $fixture;
            a_burst_goes_and_the_rest_waits_its_turn, it_is_both_buckets_or_none, what_is_larger_than_the_bucket_leaves_a_debt,
            a_settle_corrects_both_ways, a_call_that_was_not_sent_costs_nothing, what_a_dead_worker_took_refills,
            who_would_wait_long_keeps_its_place, who_may_go_elsewhere_leaves_nothing_behind,
            who_has_little_time_comes_back, a_ticket_is_for_what_its_call_is_when_it_comes, a_blocked_bucket_fills,
            nobody_overtakes_a_large_call, a_ticket_nobody_uses_is_given_back,
            tickets_are_bounded, a_refusal_blocks_cuts_and_recovers, many_refusals_at_once_are_one_cut,
            a_longer_block_stands, who_waited_hears_of_a_block, a_credential_without_money_is_tried_by_one,
            a_trial_that_never_ends_is_followed_by_another, an_old_answer_does_not_end_a_block,
            a_providers_numbers_only_lower_ours, without_a_limit_there_are_only_blocks, the_pace_follows_the_calls,
            a_target_says_how_it_stands, a_changed_limit_counts_at_once,
            a_lifted_line_asks_anew, a_lifted_block_stays_lifted, a_lifted_credential_is_not_tried_but_used;
        }
    };
    (@cases $fixture:expr; $($case:ident),* $(,)?;) => {
        $(#[tokio::test]
        async fn $case() {
            let fixture = $fixture;
            $crate::limiter::conformance::$case(&fixture).await;
        })*
    };
}

/// 10 requests and 1,000 tokens a second: a full bucket holds 50 and 5,000.
fn limit() -> Limit {
    Limit { requests_per_minute: Some(600), tokens_per_minute: Some(60_000), ..Limit::default() }
}

fn target(model: &str) -> Target {
    Target { provider: "p".into(), model: model.into(), credential: "default".into() }
}

fn ask(tokens: u64) -> Ask {
    Ask::new(target("m"), limit(), Uuid::now_v7(), tokens)
}

struct Scene<'f> {
    fixture: &'f dyn Fixture,
    limiter: Arc<dyn Limiter>,
}

impl<'f> Scene<'f> {
    fn of(fixture: &'f dyn Fixture) -> Self {
        Self { fixture, limiter: fixture.limiter() }
    }

    async fn reserve(&self, ask: &Ask) -> Verdict {
        self.limiter.reserve(ask).await.unwrap().verdict
    }

    /// The wait of a call that goes.
    async fn goes(&self, ask: &Ask) -> u64 {
        match self.reserve(ask).await {
            Verdict::Go { wait_ms } => wait_ms,
            later => panic!("{later:?}"),
        }
    }

    async fn later(&self, ask: &Ask) -> (u64, u64, Cause, bool) {
        match self.reserve(ask).await {
            Verdict::Later { wait_ms, open_ms, cause, ticket } => (wait_ms, open_ms, cause, ticket),
            go => panic!("{go:?}"),
        }
    }

    async fn settle(&self, ask: &Ask, tokens: u64) {
        let used = Used { reserved: ask.tokens, tokens, sent: true, took_ms: None, answered: true };
        self.limiter.settle(ask, used).await.unwrap();
    }

    async fn penalise(&self, ask: &Ask, penalty: Penalty, wait_ms: u64) -> u64 {
        self.limiter.penalise(ask, penalty, wait_ms, "429").await.unwrap()
    }

    fn pass(&self, ms: i64) {
        self.fixture.advance_ms(ms);
    }

    /// Takes what is in the bucket of requests.
    async fn empty_requests(&self) {
        for _ in 0..50 {
            assert_eq!(self.goes(&ask(0)).await, 0);
        }
    }
}

fn blocked() -> Cause {
    Cause::Blocked { reason: "429".into() }
}

pub async fn a_burst_goes_and_the_rest_waits_its_turn(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.empty_requests().await;
    for place in 1..=3 {
        assert_eq!(scene.goes(&ask(0)).await, place * 100, "each behind the one before it");
    }
    scene.pass(300);
    assert_eq!(scene.goes(&ask(0)).await, 100, "the three have gone");
    scene.pass(60_000);
    scene.empty_requests().await;
    assert_eq!(scene.goes(&ask(0)).await, 100, "a full bucket holds no more than a burst");
}

pub async fn it_is_both_buckets_or_none(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    assert_eq!(scene.goes(&ask(4_000)).await, 0);
    assert_eq!(scene.goes(&ask(2_000)).await, 1_000, "for tokens");
    // Thirty seconds ahead: no place in the line, so nothing is taken of the requests either.
    scene.penalise(&ask(0), Penalty::Rate, 31_000).await;
    let (_, _, cause, ticket) = scene.later(&ask(4_000)).await;
    assert_eq!((cause, ticket), (blocked(), false));
    let standing = scene.limiter.standing(&target("m"), &limit()).await.unwrap();
    assert_eq!(standing.requests, Some(0.0), "a refusal leaves nothing, and the turned away took nothing");
}

pub async fn what_is_larger_than_the_bucket_leaves_a_debt(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let huge = ask(9_000);
    assert_eq!(scene.goes(&huge).await, 0, "when it is full");
    assert_eq!(scene.goes(&ask(100)).await, 4_100, "the debt is waited for");
    scene.pass(9_100);
    assert_eq!(scene.goes(&ask(9_000)).await, 0, "and then it is full again");
}

pub async fn a_settle_corrects_both_ways(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let (first, second) = (ask(3_000), ask(2_000));
    scene.goes(&first).await;
    scene.goes(&second).await;
    scene.settle(&first, 1_000).await;
    assert_eq!(scene.goes(&ask(2_000)).await, 0, "what was not used is back");
    scene.settle(&second, 5_000).await;
    assert_eq!(scene.goes(&ask(1_000)).await, 4_000, "what was used beyond is a debt");
    scene.pass(60_000);
    scene.settle(&first, 0).await;
    assert_eq!(scene.goes(&ask(5_000)).await, 0);
    assert_eq!(scene.goes(&ask(1)).await, 1, "no settle fills a bucket beyond its brim");
}

pub async fn a_call_that_was_not_sent_costs_nothing(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.empty_requests().await;
    let waits = ask(1_000);
    assert_eq!(scene.goes(&waits).await, 100);
    let back = Used { reserved: 1_000, tokens: 0, sent: false, took_ms: None, answered: false };
    scene.limiter.settle(&waits, back).await.unwrap();
    assert_eq!(scene.goes(&ask(5_000)).await, 100);
}

pub async fn what_a_dead_worker_took_refills(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(5_000)).await;
    // Nobody settles.
    scene.pass(5_000);
    assert_eq!(scene.goes(&ask(5_000)).await, 0, "a debit, and no record that could be left behind");
}

pub async fn who_would_wait_long_keeps_its_place(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(9_000)).await;
    let waits = ask(2_000);
    let (wait, open, cause, ticket) = scene.later(&waits).await;
    assert_eq!((wait, open, cause, ticket), (6_000, 5_000, Cause::Tokens, true));
    let behind = ask(500);
    let (wait, open, _, ticket) = scene.later(&behind).await;
    assert_eq!((wait, open, ticket), (6_500, 5_000, true), "its target opens for the first of them");
    let (wait, ..) = scene.later(&waits).await;
    assert_eq!(wait, 6_000, "coming too early changes nothing");
    let far = Ask { tokens: 4_000, ..ask(0) };
    let (wait, open, _, ticket) = scene.later(&far).await;
    assert_eq!((wait, open, ticket), (10_500, 5_500, true), "it opens when the last of them may wait in place");
    let farther = Ask { tokens: 5_000, ..ask(0) };
    let (wait, open, _, ticket) = scene.later(&farther).await;
    assert_eq!((wait, open, ticket), (15_500, 8_000, true), "but the first of them must not be late");
    scene.pass(5_000);
    assert_eq!(scene.goes(&behind).await, 1_500, "each has its own moment");
    assert_eq!(scene.goes(&waits).await, 1_000);
    scene.pass(5_500);
    assert_eq!((scene.goes(&far).await, scene.goes(&farther).await), (0, 5_000));
    assert_eq!(scene.goes(&ask(0)).await, 5_000, "and what they need was taken once");
    let (wait, ..) = scene.later(&ask(1)).await;
    assert_eq!(wait, 5_001);
}

pub async fn who_may_go_elsewhere_leaves_nothing_behind(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(9_000)).await;
    for _ in 0..5 {
        let (wait, _, cause, ticket) = scene.later(&Ask { keeps_place: false, ..ask(2_000) }).await;
        assert_eq!((wait, cause, ticket), (6_000, Cause::Tokens, false));
    }
    assert_eq!(scene.goes(&ask(1_000)).await, 5_000);
}

pub async fn who_has_little_time_comes_back(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(5_000)).await;
    let hurried = Ask { wait_max_ms: 500, ..ask(1_000) };
    let (wait, open, cause, ticket) = scene.later(&hurried).await;
    assert_eq!((wait, open, cause, ticket), (1_000, 500, Cause::Tokens, true));
    assert_eq!(scene.goes(&Ask { wait_max_ms: 60_000, ..ask(500) }).await, 1_500, "others stand behind it");
    scene.pass(1_000);
    assert_eq!(scene.goes(&hurried).await, 0);
}

pub async fn a_ticket_is_for_what_its_call_is_when_it_comes(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(9_000)).await;
    let waits = ask(1_500);
    scene.later(&waits).await;
    scene.pass(5_500);
    // More travel with it now.
    assert_eq!(scene.goes(&Ask { tokens: 4_000, ..waits }).await, 0);
    assert_eq!(scene.goes(&ask(1_000)).await, 3_500);
}

pub async fn a_blocked_bucket_fills(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let first = ask(5_000);
    scene.goes(&first).await;
    for left in [3_000, 2_000, 1_000] {
        scene.limiter.block(&first, Penalty::Rate, left, 0, "429").await.unwrap();
        scene.pass(1_000);
    }
    assert_eq!(scene.goes(&ask(3_000)).await, 0);
}

pub async fn nobody_overtakes_a_large_call(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(5_000)).await;
    scene.goes(&ask(500)).await;
    let large = ask(5_000);
    let (wait, _, _, ticket) = scene.later(&large).await;
    assert_eq!((wait, ticket), (5_500, true));
    // Small ones come all the time: each is behind it.
    for _ in 0..10 {
        scene.pass(100);
        let small = match scene.reserve(&ask(50)).await {
            Verdict::Go { wait_ms } | Verdict::Later { wait_ms, .. } => wait_ms,
        };
        assert!(small >= 4_500, "{small}");
    }
    assert_eq!(scene.goes(&large).await, 4_500);
}

pub async fn a_ticket_nobody_uses_is_given_back(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(9_000)).await;
    let gone = ask(4_000);
    let (wait, ..) = scene.later(&gone).await;
    let late = wait as i64 + TICKET_GRACE_MS as i64;
    scene.pass(late);
    scene.goes(&ask(5_000)).await;
    let standing = scene.limiter.standing(&target("m"), &limit()).await.unwrap();
    assert_eq!(standing.tickets, 1, "it may still come");
    scene.pass(1);
    assert_eq!(scene.goes(&ask(4_000)).await, 0, "it will not come: what it held is there");
    let standing = scene.limiter.standing(&target("m"), &limit()).await.unwrap();
    assert_eq!(standing.tickets, 0);
}

pub async fn tickets_are_bounded(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(9_900)).await;
    let mut given = 0;
    for _ in 0..TICKETS_MAX + 10 {
        let mut waits = ask(100);
        waits.limit.requests_per_minute = None;
        if let Verdict::Later { ticket: true, .. } = scene.reserve(&waits).await {
            given += 1;
        }
    }
    assert!(given > 100 && given < TICKETS_MAX, "{given}: none further ahead than half a minute");
    let standing = scene.limiter.standing(&target("m"), &limit()).await.unwrap();
    assert_eq!(standing.tickets, given);
}

pub async fn a_refusal_blocks_cuts_and_recovers(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    assert_eq!(scene.penalise(&ask(0), Penalty::Rate, 8_000).await, 8_000);
    let (wait, open, cause, ticket) = scene.later(&ask(10)).await;
    assert_eq!((wait, open, cause, ticket), (8_000, 8_000, blocked(), false));
    scene.pass(4_000);
    assert_eq!(scene.goes(&ask(10)).await, 4_000, "the end of a block can be waited for in place");
    scene.pass(4_000);
    let factor = async || scene.limiter.standing(&target("m"), &limit()).await.unwrap().factor;
    let after_8_s = factor().await;
    assert!((after_8_s - (0.7 + 8.0 * 0.005)).abs() < 1e-9, "{after_8_s}");
    for _ in 0..20 {
        scene.penalise(&ask(0), Penalty::Rate, 0).await;
        scene.pass(1_000);
    }
    let floor = factor().await;
    assert!((0.1..0.11).contains(&floor), "{floor}: never less than a tenth");
    scene.pass(300_000);
    assert_eq!(factor().await, 1.0);
}

pub async fn many_refusals_at_once_are_one_cut(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    for _ in 0..10 {
        scene.penalise(&ask(0), Penalty::Rate, 0).await;
    }
    assert_eq!(scene.limiter.standing(&target("m"), &limit()).await.unwrap().factor, 0.7);
}

pub async fn a_longer_block_stands(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.penalise(&ask(0), Penalty::Rate, 30_000).await;
    assert_eq!(scene.penalise(&ask(0), Penalty::Rate, 1_000).await, 30_000);
    scene.limiter.block(&ask(0), Penalty::Rate, 40_000, 0, "again").await.unwrap();
    let standing = scene.limiter.standing(&target("m"), &limit()).await.unwrap();
    assert_eq!(standing.blocked, Some((40_000, "again".to_owned())));
    assert_eq!(standing.factor, 0.7, "making a block known again cuts nothing");
}

pub async fn who_waited_hears_of_a_block(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let waits = ask(10);
    scene.empty_requests().await;
    scene.goes(&waits).await;
    assert_eq!(scene.limiter.confirm(&waits).await.unwrap(), None);
    scene.penalise(&ask(0), Penalty::Rate, 30_000).await;
    assert_eq!(scene.limiter.confirm(&waits).await.unwrap(), Some((30_000, blocked())));
    scene.pass(30_000);
    assert_eq!(scene.limiter.confirm(&waits).await.unwrap(), None);
}

pub async fn a_credential_without_money_is_tried_by_one(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let other = Ask { target: target("n"), ..ask(10) };
    let mut stranger = ask(10);
    stranger.target.credential = "other".into();
    assert_eq!(scene.penalise(&ask(0), Penalty::Quota, 900_000).await, 900_000);
    for refused in [&ask(10), &other] {
        let (wait, _, cause, _) = scene.later(refused).await;
        assert_eq!((wait, cause), (900_000, blocked()), "all targets of the credential");
    }
    assert_eq!(scene.limiter.confirm(&other).await.unwrap(), Some((900_000, blocked())));
    assert_eq!(scene.goes(&stranger).await, 0, "and no other's");
    scene.pass(899_000);
    scene.later(&ask(10)).await;
    scene.pass(1_000);
    let trial = ask(10);
    assert_eq!(scene.goes(&trial).await, 0);
    assert_eq!(scene.limiter.confirm(&trial).await.unwrap(), None);
    let (wait, _, cause, _) = scene.later(&other).await;
    assert_eq!((wait, cause), (5_000, Cause::Trial { reason: "429".into() }), "one is enough");
    assert_eq!(scene.limiter.reserve(&other).await.unwrap().pace, Some(1));
    assert_eq!(scene.penalise(&trial, Penalty::Quota, 900_000).await, 900_000);
    scene.later(&other).await;
    scene.pass(900_000);
    let trial = ask(10);
    scene.goes(&trial).await;
    scene.settle(&trial, 10).await;
    assert_eq!(scene.goes(&other).await, 0, "it works again");
}

pub async fn a_trial_that_never_ends_is_followed_by_another(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.penalise(&ask(0), Penalty::Quota, 1_000).await;
    scene.pass(1_000);
    scene.goes(&ask(1)).await;
    scene.pass(TRIAL_MS as i64 - 1);
    scene.later(&ask(1)).await;
    scene.pass(1);
    scene.goes(&ask(1)).await;
    scene.later(&ask(1)).await;
}

pub async fn an_old_answer_does_not_end_a_block(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let before = ask(10);
    scene.goes(&before).await;
    scene.penalise(&ask(0), Penalty::Quota, 60_000).await;
    scene.settle(&before, 10).await;
    scene.later(&ask(10)).await;
}

pub async fn a_providers_numbers_only_lower_ours(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let standing = async || scene.limiter.standing(&target("m"), &limit()).await.unwrap();
    let told = |requests_limit, requests_left| Told { requests_limit, requests_left, ..Told::default() };
    scene.limiter.observe(&ask(0), told(Some(6_000), Some(900))).await.unwrap();
    let now = standing().await;
    assert_eq!((now.requests, now.requests_per_minute), (Some(50.0), Some(600.0)), "more is not believed");
    scene.limiter.observe(&ask(0), told(Some(10), Some(7))).await.unwrap();
    let now = standing().await;
    assert_eq!((now.requests, now.requests_per_minute), (Some(7.0), Some(600.0)), "10 is a number of another window");
    scene.limiter.observe(&ask(0), told(Some(300), None)).await.unwrap();
    assert_eq!(standing().await.requests_per_minute, Some(300.0));
    assert_eq!(standing().await.tokens_per_minute, Some(60_000.0));
    scene.pass(TOLD_MS as i64);
    assert_eq!(standing().await.requests_per_minute, Some(600.0), "it has not been told again");
}

pub async fn without_a_limit_there_are_only_blocks(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let free = Ask { limit: Limit::default(), ..ask(1_000_000) };
    for _ in 0..200 {
        assert_eq!(
            scene.limiter.reserve(&free).await.unwrap(),
            Answer { verdict: Verdict::Go { wait_ms: 0 }, pace: None }
        );
    }
    scene.penalise(&free, Penalty::Rate, 30_000).await;
    let (wait, ..) = scene.later(&free).await;
    assert_eq!(wait, 30_000);
}

pub async fn the_pace_follows_the_calls(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let pace = async |ask: &Ask| scene.limiter.reserve(ask).await.unwrap().pace.unwrap();
    // 1,000 tokens a second, 100 a call: ten a second, each a second long and a second and a half in line.
    assert_eq!(pace(&ask(100)).await, 25);
    for _ in 0..200 {
        scene.pass(5_000);
        let slow = ask(500);
        scene.goes(&slow).await;
        let used = Used { reserved: 500, tokens: 500, sent: true, took_ms: Some(8_500), answered: true };
        scene.limiter.settle(&slow, used).await.unwrap();
    }
    let slow = pace(&ask(1)).await;
    assert!((20..=21).contains(&slow), "{slow}: two a second, ten seconds each");
}

pub async fn a_target_says_how_it_stands(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let fresh = scene.limiter.standing(&target("m"), &limit()).await.unwrap();
    assert_eq!((fresh.requests, fresh.tokens, fresh.factor), (Some(50.0), Some(5_000.0), 1.0));
    assert_eq!((fresh.blocked, fresh.tickets, fresh.pace), (None, 0, None));
    scene.goes(&ask(1_500)).await;
    let used = scene.limiter.standing(&target("m"), &limit()).await.unwrap();
    assert_eq!((used.requests, used.tokens), (Some(49.0), Some(3_500.0)));
    assert_eq!((used.requests_per_minute, used.tokens_per_minute), (Some(600.0), Some(60_000.0)));
}

pub async fn a_changed_limit_counts_at_once(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(1_000)).await;
    let tight = Limit { tokens_per_minute: Some(6_000), ..limit() };
    let asked = Ask { limit: tight, ..ask(500) };
    assert_eq!(scene.goes(&asked).await, 0, "a burst of the new bucket");
    assert_eq!(scene.goes(&Ask { call: Uuid::now_v7(), tokens: 100, ..asked }).await, 1_000);
}

pub async fn a_lifted_line_asks_anew(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    scene.goes(&ask(10_000)).await;
    let turned_away = ask(4_000);
    let (wait, _, _, ticket) = scene.later(&turned_away).await;
    assert_eq!((wait, ticket), (9_000, true));
    // Ten times as much: the debt is paid ten times as fast, and nobody holds on to a moment of before.
    let wide = Limit { tokens_per_minute: Some(600_000), ..limit() };
    scene.limiter.lift(&target("m"), &wide, Lift::Line).await.unwrap();
    assert_eq!(scene.limiter.standing(&target("m"), &wide).await.unwrap().tickets, 0);
    assert_eq!(scene.goes(&Ask { limit: wide, ..turned_away }).await, 900);
    scene.penalise(&ask(0), Penalty::Rate, 30_000).await;
    scene.limiter.lift(&target("m"), &limit(), Lift::Line).await.unwrap();
    assert_eq!(scene.later(&ask(1)).await.2, blocked(), "a block is another thing");
}

pub async fn a_lifted_block_stays_lifted(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let again = async |age_ms| scene.limiter.block(&ask(0), Penalty::Rate, 30_000, age_ms, "429").await.unwrap();
    scene.penalise(&ask(0), Penalty::Rate, 30_000).await;
    scene.pass(1_000);
    scene.limiter.lift(&target("m"), &limit(), Lift::Blocks).await.unwrap();
    assert_eq!(again(1_000).await, 0, "who heard of it before the lift does not bring it back");
    scene.pass(500);
    assert_eq!(again(1_500).await, 0);
    assert_eq!(scene.goes(&ask(1)).await, 0);
    let factor = scene.limiter.standing(&target("m"), &limit()).await.unwrap().factor;
    assert!((0.7..0.75).contains(&factor), "{factor}: the rate stays cut");
    assert_eq!(again(499).await, 30_000, "and what came after it counts");
    assert_eq!(scene.later(&ask(1)).await.2, blocked());
}

pub async fn a_lifted_credential_is_not_tried_but_used(fixture: &dyn Fixture) {
    let scene = Scene::of(fixture);
    let other = Ask { target: target("n"), ..ask(10) };
    let again = async |age_ms| scene.limiter.block(&other, Penalty::Quota, 900_000, age_ms, "429").await.unwrap();
    scene.penalise(&ask(0), Penalty::Quota, 900_000).await;
    scene.pass(1_000);
    scene.limiter.lift(&target("m"), &limit(), Lift::Blocks).await.unwrap();
    assert_eq!(again(1_000).await, 0);
    assert_eq!((scene.goes(&ask(10)).await, scene.goes(&other).await), (0, 0), "all targets of the credential");
    scene.pass(1);
    assert_eq!(again(0).await, 900_000);
    assert_eq!(scene.later(&ask(10)).await.2, blocked());
}
