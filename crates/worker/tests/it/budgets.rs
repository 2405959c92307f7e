//! Whole jobs under budgets: nobody spends more than there is, and what follows then is what the budget says.

use std::{sync::Arc, time::Duration};

use crate::rig::Rig;
use crate::script::{Said, Script, says};
use queue_core::{
    budget::{Amount, Ask, AtLimit, Budget, Period, Scope, Span, Verdict, bring_back, fill, tell_raise, wake_ready},
    dispatcher::{Place, Wait},
    error::ErrorClass as C,
    fallback::Link,
    ids::{CallId, JobId},
    job::{Job, Kind, NewJob},
    journal::{CostColumn, CostQuery, Versioned},
    ledger::{Billed, CallRecord, Nanousd, Tier, Usage, UsageSource},
    state::Standing,
    time::Timestamp,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use worker::provider::ChatRequest;

const MODEL: &str = "gpt-4o-mini";
/// Of a token of an answer of [`MODEL`], in nano-USD.
const TOKEN: i64 = 600;
/// Tokens that an answer may have.
const ANSWER_MAX: u64 = 200;

fn acme() -> Scope {
    Scope::Tenant("default".into())
}

fn month(limit: i64) -> Budget {
    Budget { month_usd: Some(Nanousd(limit)), ..Budget::default() }
}

/// Answers are 80 to 160 tokens long, the same for the same prompt.
fn answers() -> Arc<Script> {
    Script::new(|request: &ChatRequest, _| of_tokens(80 + length(request) * 37 % 81))
}

fn length(request: &ChatRequest) -> u64 {
    crate::script::message(request, 0).parse().unwrap_or(0)
}

fn of_tokens(tokens_out: u64) -> Said {
    says("an answer").map(|mut answer| {
        answer.usage = Some(Usage { tokens_out, ..Usage::default() });
        answer
    })
}

async fn set(rig: &Rig, scope: &Scope, budget: Budget) -> Versioned<Budget> {
    let version = rig.stores.budgets.set_budget(scope, budget.clone()).await.unwrap();
    Versioned { version, value: budget }
}

async fn submit(rig: &Rig, number: usize, change: impl FnOnce(&mut NewJob)) -> JobId {
    let payload = json!({"model": MODEL, "max_tokens": ANSWER_MAX,
                         "messages": [{"role": "user", "content": number.to_string()}]});
    rig.submit(Kind::Llm, &payload.to_string(), |job| {
        job.target = format!("script:{MODEL}:default").as_str().into();
        change(job);
    })
    .await
}

/// What the scheduler does: wakes who may go on.
fn wake(rig: &Rig) -> CancellationToken {
    let (stores, end) = (rig.stores.clone(), CancellationToken::new());
    let until = end.clone();
    tokio::spawn(async move {
        while !until.is_cancelled() {
            wake_ready(&stores, false).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    end
}

async fn spent(rig: &Rig) -> i64 {
    rig.stores.budgets.spent(&Scope::All, Span::of(rig.stores.clock.now())).await.unwrap()[1]
}

async fn is_asleep(rig: &Rig, id: JobId) -> bool {
    let waits = rig.stores.dispatcher.explain(id).await.unwrap();
    waits.iter().any(|wait| matches!(wait, Wait::TenantParked { .. }))
}

async fn error(rig: &Rig, id: JobId) -> Option<(C, String)> {
    rig.row(id).await.error.map(|error| (error.class, error.code))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spend_ends_close_to_the_budget_and_a_raise_goes_on() {
    let script = answers();
    let mut rig = Rig::new(script.alone()).await;
    // About half of the jobs.
    let limit = 100 * 120 * TOKEN;
    set(&rig, &acme(), month(limit)).await;
    let mut jobs = vec![];
    for number in 0..200 {
        jobs.push(submit(&rig, number, |_| {}).await);
    }
    let scheduler = wake(&rig);
    rig.work(20, Duration::from_secs(5));
    let last = *jobs.last().unwrap();
    rig.until("the budget is used up", async || {
        let standing = rig.stores.counters.standing(&acme()).await.unwrap();
        let quiet = standing.is_some_and(|now| now.reserved == [0, 0] && now.spent[1] * 100 >= limit * 97);
        quiet && is_asleep(&rig, last).await
    })
    .await;
    let spend = spent(&rig).await;
    assert!((limit * 97 / 100..=limit).contains(&spend), "{spend} of {limit}");
    let ended = |row: &Job| row.standing == Standing::Succeeded;
    let mut waiting = vec![];
    for id in &jobs {
        let row = rig.row(*id).await;
        assert!(row.attempts == u32::from(ended(&row)), "no attempt is spent on waiting");
        if !ended(&row) {
            waiting.push(*id);
        }
    }
    assert!((60..140).contains(&waiting.len()), "{}", waiting.len());
    let asked = script.asked().len();
    assert_eq!(asked, jobs.len() - waiting.len(), "nobody was asked for a job that waits");
    let raised = set(&rig, &acme(), month(limit * 10)).await;
    tell_raise(&rig.stores, &acme(), raised).await.unwrap();
    for id in jobs {
        assert_eq!(rig.ended(id).await.standing, Standing::Succeeded);
    }
    scheduler.cancel();
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_may_make_jobs_fail() {
    let script = answers();
    let mut rig = Rig::new(script.alone()).await;
    set(&rig, &Scope::All, Budget { at_limit: AtLimit::Fail, ..month(10) }).await;
    rig.work(1, Duration::from_secs(5));
    let job = rig.ended(submit(&rig, 1, |_| {}).await).await;
    let error = job.error.unwrap();
    assert_eq!((job.standing, error.class, error.code.as_str()), (Standing::Dead, C::Budget, "budget_exhausted"));
    assert!(error.message.contains("the monthly budget of the installation has no room"), "{error}");
    assert!(!error.message.contains("0.00000001"), "what all may spend is not told to a tenant: {error}");
    assert!(script.asked().is_empty());
    rig.stop().await;
}

/// By a budget's own wish, or by a job's chain: a cheaper model answers, and is recorded and priced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cheaper_model_goes_on() {
    let limit = 2 * ANSWER_MAX as i64 * TOKEN;
    let degrade = Budget { at_limit: AtLimit::Degrade, degrade_to: Some(MODEL.into()), ..month(limit) };
    let link = Link { model: MODEL.into(), on: vec![C::Budget] };
    for (budget, links) in [(degrade, vec![]), (month(limit), vec![link])] {
        let mut rig = Rig::new(answers().alone()).await;
        set(&rig, &acme(), budget).await;
        rig.work(1, Duration::from_secs(5));
        let payload =
            json!({"model": "gpt-4o", "max_tokens": ANSWER_MAX, "messages": [{"role": "user", "content": "1"}]});
        let models = ["gpt-4o"].into_iter().chain(links.iter().map(|link| link.model.as_str()));
        let lane = models.map(|model| format!("script:{model}:default")).collect::<Vec<_>>().join(">");
        let id = rig
            .submit(Kind::Llm, &payload.to_string(), |job| (job.target, job.fallback) = (lane.as_str().into(), links))
            .await;
        let job = rig.ended(id).await;
        assert_eq!(job.standing, Standing::Succeeded, "{:?}", job.error);
        assert_eq!(job.served_by.as_deref(), Some("script/gpt-4o-mini"));
        let query = CostQuery::new(&[CostColumn::Model], Timestamp(0), Timestamp(i64::MAX));
        let rows = rig.stores.ledger.costs(&query).await.unwrap();
        assert!(rows.len() == 1 && rows[0].group == [MODEL] && rows[0].spend > Nanousd(0), "{rows:?}");
        assert!(spent(&rig).await <= limit);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_spends_no_more_than_its_own_cap() {
    let script = answers();
    let mut rig = Rig::new(script.alone()).await;
    rig.work(4, Duration::from_secs(5));
    // Each chunk's answer may cost 200 tokens, and costs 80.
    let payload = json!({
        "input": {"text": "one two three four five six seven eight nine ten ".repeat(40)},
        "defaults": {"model": MODEL, "max_tokens": ANSWER_MAX},
        "chunk": {"size": 40, "overlap": 0}, "map": {"prompt": "{{chunk}}"}, "reduce": {"strategy": "concat"},
    });
    let cap = Nanousd(4 * ANSWER_MAX as i64 * TOKEN);
    let id = rig.submit(Kind::Analysis, &payload.to_string(), |job| job.max_cost = Some(cap)).await;
    let job = rig.ended(id).await;
    let error = job.error.unwrap();
    assert_eq!((job.standing, error.class, error.code.as_str()), (Standing::Dead, C::Budget, "max_cost"));
    let cost = job.cost.unwrap();
    assert!(cost <= cap && cost.0 > cap.0 / 3, "{cost} of {cap}");
    // Nobody knows what it costs, so nobody is asked.
    let asked = script.asked().len();
    let payload = json!({"model": "mystery", "messages": [{"role": "user", "content": "1"}]});
    let id = rig.submit(Kind::Llm, &payload.to_string(), |job| job.max_cost = Some(cap)).await;
    rig.ended(id).await;
    assert_eq!(error_of(&rig, id).await, (C::Budget, "price_unknown".to_owned()));
    assert_eq!(script.asked().len(), asked);
    rig.stop().await;
}

async fn error_of(rig: &Rig, id: JobId) -> (C, String) {
    error(rig, id).await.unwrap()
}

/// A key's jobs sleep one by one, others of the tenant go on; a raise brings them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_key_without_money_sleep_alone() {
    let script = answers();
    let mut rig = Rig::new(script.alone()).await;
    let key = Scope::Key("abcd1234".into());
    set(&rig, &key, month(10)).await;
    rig.work(1, Duration::from_secs(5));
    let keyed = submit(&rig, 1, |job| job.key_id = Some("abcd1234".into())).await;
    rig.until("it sleeps", async || rig.row(keyed).await.releases > 0).await;
    let row = rig.row(keyed).await;
    let end = Span::of(rig.stores.clock.now()).end(Period::Month);
    assert!(row.run_at >= end && row.run_at.since_ms(end) < 6_000, "until the month ends, and not for an hour");
    assert_eq!((row.attempts, error_of(&rig, keyed).await), (0, (C::Budget, "budget_wait".to_owned())));
    let other = submit(&rig, 2, |job| job.key_id = Some("other000".into())).await;
    assert_eq!(rig.ended(other).await.standing, Standing::Succeeded);
    let raised = set(&rig, &key, month(1_000_000_000)).await;
    rig.stores.counters.tell(&key, raised).await.unwrap();
    bring_back(&rig.stores, &key).await.unwrap();
    assert_eq!(rig.ended(keyed).await.standing, Standing::Succeeded);
    assert_eq!(rig.stores.budgets.spent(&key, Span::of(rig.stores.clock.now())).await.unwrap()[1], 117 * TOKEN);
    rig.stop().await;
}

/// One that is too large for what is left sleeps by itself; the tenant's small ones go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_job_does_not_hold_up_small_ones() {
    let script = answers();
    let mut rig = Rig::new(script.alone()).await;
    set(&rig, &acme(), month(1_000 * TOKEN)).await;
    rig.work(1, Duration::from_secs(5));
    let payload = json!({"model": MODEL, "max_tokens": 2_000, "messages": [{"role": "user", "content": "1"}]});
    let lane = format!("script:{MODEL}:default");
    let large = rig.submit(Kind::Llm, &payload.to_string(), |job| job.target = lane.as_str().into()).await;
    rig.until("it sleeps", async || rig.row(large).await.releases > 0).await;
    assert_eq!(error_of(&rig, large).await.1, "budget_wait");
    let small = submit(&rig, 2, |_| {}).await;
    assert_eq!(rig.ended(small).await.standing, Standing::Succeeded);
    rig.stop().await;
}

/// Paid and written down, but the worker died before it said so: the ledger says it.
#[tokio::test]
async fn what_a_dead_worker_paid_is_read_from_the_ledger() {
    let rig = Rig::new(answers().alone()).await;
    let budget = set(&rig, &acme(), month(1_000)).await;
    let job = rig.row(submit(&rig, 1, |_| {}).await).await;
    let amount = Amount { usd: Nanousd(600), tokens: 0 };
    let ask = |usd: i64| Ask {
        call: Uuid::now_v7(),
        amount: Amount { usd: Nanousd(usd), ..amount },
        budgets: vec![(acme(), budget.clone())],
    };
    fill(&rig.stores, &acme()).await.unwrap();
    assert_eq!(rig.stores.counters.reserve(&ask(600)).await.unwrap(), Verdict::Granted);
    let row = CallRecord {
        call_id: CallId::of(job.id, "chat", 0),
        job_id: job.id,
        tenant: job.tenant.clone(),
        queue: job.queue.clone(),
        kind: job.kind,
        operation: None,
        key_id: None,
        epoch: job.epoch,
        step: "chat".into(),
        sequence: 0,
        provider: "script".into(),
        model: MODEL.into(),
        status: "ok".into(),
        billed: Billed::Yes,
        usage: Usage::default(),
        tier: Tier::Standard,
        usage_source: UsageSource::Provider,
        cost: Some(Nanousd(500)),
        price_version: "t".into(),
        duration_ms: 1,
        provider_request_id: None,
        credential: "default".into(),
        at: rig.stores.clock.now(),
        memo: None,
    };
    rig.stores.journal.record(row).await.unwrap();
    // Before the ledger is read, and after: never less than what was paid.
    assert!(matches!(rig.stores.counters.reserve(&ask(401)).await.unwrap(), Verdict::Refused(_)));
    fill(&rig.stores, &acme()).await.unwrap();
    let standing = rig.stores.counters.standing(&acme()).await.unwrap().unwrap();
    assert_eq!((standing.spent[1], standing.reserved[0]), (500, 600), "counted twice until the reservation expires");
    assert!(matches!(rig.stores.dispatcher.locate(&[job.id]).await.unwrap()[0], Place::Waiting { .. }));
}

/// A job waits for what another's call will give back, and meanwhile the counters are lost: it reads the ledger and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_for_room_outlives_a_flush() {
    let mut rig = Rig::new(answers().alone()).await;
    let budget = set(&rig, &acme(), month(300 * TOKEN)).await;
    fill(&rig.stores, &acme()).await.unwrap();
    let amount = Amount { usd: Nanousd(200 * TOKEN), tokens: 0 };
    let another = Ask { call: Uuid::now_v7(), amount, budgets: vec![(acme(), budget)] };
    assert_eq!(rig.stores.counters.reserve(&another).await.unwrap(), Verdict::Granted);
    rig.work(2, Duration::from_secs(20));
    let id = submit(&rig, 1, |_| {}).await;
    rig.until("it waits", async || is_noted(&rig).await).await;
    rig.counters.forget();
    let scheduler = wake(&rig);
    assert_eq!(rig.ended(id).await.standing, Standing::Succeeded);
    scheduler.cancel();
    rig.stop().await;
}

async fn is_noted(rig: &Rig) -> bool {
    !rig.stores.counters.parked().await.unwrap().is_empty()
}
