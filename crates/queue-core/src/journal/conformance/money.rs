//! Cases of spend, memos and charges.

use super::{Fixture, NOW, Opened, accept_new, accepted, call, death, job, retry, row, settlement, success, token};
use crate::{
    ids::{CallId, Epoch},
    job::{Kind, NewJob},
    journal::{Blame, Changed, CostColumn, CostQuery, CostRow, RecentCall, Recovered, Recovery, Settled},
    ledger::{Billed, CallRecord, Nanousd, SavedBy, Saving, Tier, Usage},
    time::Timestamp,
};

/// What the minute after [`NOW`] cost: read row by row, and as the sums of that day, before and after they are folded.
async fn costs(store: &Opened, by: &[CostColumn]) -> Vec<CostRow> {
    let of = async |since, until| store.ledger.costs(&CostQuery::new(by, since, until)).await.unwrap();
    let day = Timestamp(NOW.0 - NOW.0 % DAY_MS);
    let rows = of(NOW, NOW.plus_ms(60_000)).await;
    assert_eq!(of(day, day.plus_ms(DAY_MS)).await, rows, "sums of {by:?}");
    while store.ledger.fold_costs().await.unwrap() > 0 {}
    assert_eq!(of(day, day.plus_ms(DAY_MS)).await, rows, "folded sums of {by:?}");
    rows
}

const DAY_MS: i64 = 86_400_000;

/// The only line of a report by tenant.
async fn line(store: &Opened) -> CostRow {
    let mut lines = costs(store, &[CostColumn::Tenant]).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// Recording twice, also by record and by settle, is recording once.
pub async fn a_call_is_counted_once(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let paid = call(&job, "chat", Some(500));
    store.journal.record(paid.clone()).await.unwrap();
    store.journal.record(paid.clone()).await.unwrap();
    let second = CallRecord { cost: Some(Nanousd(70)), ..call(&job, "repair", None) };
    let mut end = settlement(&store, token(job.id, 0), success());
    end.calls = vec![paid.clone(), second.clone()];
    store.journal.settle(end).await.unwrap();
    let kept = row(&store, job.id).await;
    assert_eq!((kept.cost, kept.usage), (Some(Nanousd(570)), paid.usage.plus(second.usage)));
    let calls = store.reads.calls(job.id).await.unwrap();
    assert_eq!(calls.iter().map(|c| c.call_id).collect::<Vec<_>>(), [paid.call_id, second.call_id]);
    let stored = format!("{:?}", calls[0]);
    assert_eq!(stored, format!("{:?}", CallRecord { memo: None, ..paid }), "every column comes back");
}

/// A worker that was taken for dead and its successor may both pay for one call: both payments are counted.
pub async fn each_attempt_pays_for_itself(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let zombie = call(&job, "chat", Some(500));
    let successor = CallRecord { epoch: Epoch(1), ..zombie.clone() };
    for record in [&zombie, &successor, &successor] {
        store.journal.record(record.clone()).await.unwrap();
    }
    assert_eq!(row(&store, job.id).await.cost, Some(Nanousd(1_000)));
    assert_eq!(store.journal.memos(job.id).await.unwrap().len(), 1, "one answer is enough");
}

/// A settle that comes too late stores what it spent all the same, once, whatever became of the job.
pub async fn money_is_never_fenced(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for outcome in [success(), retry(), death()] {
        let job = accepted(&store).await;
        super::settle(&store, token(job.id, 0), outcome).await;
        let mut late = settlement(&store, token(job.id, 0), success());
        late.calls = vec![call(&job, "chat", Some(500))];
        for _ in 0..2 {
            assert_eq!(store.journal.settle(late.clone()).await.unwrap(), Settled::Fenced);
        }
        let kept = row(&store, job.id).await;
        assert_eq!((kept.cost, kept.usage), (Some(Nanousd(500)), late.calls[0].usage));
        assert_eq!(store.reads.calls(job.id).await.unwrap().len(), 1);
    }
    let unknown = job();
    store.journal.record(call(&unknown, "chat", Some(9))).await.unwrap();
    assert_eq!(store.reads.calls(unknown.id).await.unwrap().len(), 1, "also for a job that is gone");
}

/// What a fenced attempt was answered is there for the next attempt; a success needs to keep nothing.
pub async fn a_fenced_attempt_leaves_its_answer(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let mut first = settlement(&store, token(job.id, 0), retry());
    first.calls = vec![call(&job, "map/0001", Some(1))];
    store.journal.settle(first.clone()).await.unwrap();
    let mut fenced = settlement(&store, token(job.id, 0), success());
    fenced.calls = vec![call(&job, "map/0002", Some(1))];
    assert_eq!(store.journal.settle(fenced.clone()).await.unwrap(), Settled::Fenced);
    let recorded = call(&job, "map/0003", Some(1));
    store.journal.record(recorded.clone()).await.unwrap();
    let mut kept = store.journal.memos(job.id).await.unwrap();
    let mut expected: Vec<_> = [&first.calls[0], &fenced.calls[0], &recorded]
        .map(|call| crate::ledger::Memo { call_id: call.call_id, memo: call.memo.clone().unwrap() })
        .into();
    kept.sort_by_key(|memo| memo.call_id);
    expected.sort_by_key(|memo| memo.call_id);
    assert_eq!(kept, expected);
    let other = accepted(&store).await;
    assert!(store.journal.memos(other.id).await.unwrap().is_empty());
}

/// A second answer under the same id does not take the place of the first; a call without one leaves none.
pub async fn the_first_answer_of_a_call_stays(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let first = call(&job, "chat", Some(1));
    let mut second = first.clone();
    second.memo.as_mut().unwrap().body = "another answer".into();
    let failed =
        CallRecord { memo: None, call_id: CallRecord::id_of_failure(first.call_id, Epoch(0), 1), ..first.clone() };
    for call in [&first, &second, &failed] {
        store.journal.record(call.clone()).await.unwrap();
    }
    let memos = store.journal.memos(job.id).await.unwrap();
    assert_eq!(memos.len(), 1);
    assert_eq!(Some(&memos[0].memo), first.memo.as_ref());
}

/// One billed call without a price and the sum is not the cost any more. Calls that were not billed do not matter.
pub async fn an_unknown_price_makes_the_cost_unknown(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let free = CallRecord { billed: Billed::No, memo: None, ..call(&job, "refused", None) };
    let maybe = CallRecord { billed: Billed::Maybe, memo: None, ..call(&job, "broken", None) };
    for record in [call(&job, "chat", Some(500)), free, maybe] {
        store.journal.record(record).await.unwrap();
    }
    assert_eq!(row(&store, job.id).await.cost, Some(Nanousd(500)));
    let mut end = settlement(&store, token(job.id, 0), success());
    end.calls = vec![call(&job, "unpriced", None)];
    store.journal.settle(end).await.unwrap();
    assert_eq!(row(&store, job.id).await.cost, None);
    let [line] = &costs(&store, &[CostColumn::Tenant]).await[..] else { panic!("one tenant") };
    assert_eq!((line.calls, line.calls_maybe, line.calls_unpriced, line.jobs), (4, 1, 1, 1));
    assert_eq!((line.spend, line.charge), (Nanousd(500), Some(Nanousd(500))));
}

/// The charge is what all calls of all attempts cost, once, and only for a success.
pub async fn a_success_is_charged_what_its_calls_cost(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let mut failed = settlement(&store, token(job.id, 0), retry());
    failed.calls = vec![CallRecord { status: "server".into(), memo: None, ..call(&job, "first", Some(100)) }];
    store.journal.settle(failed).await.unwrap();
    let mut end = settlement(&store, token(job.id, 1), success());
    end.calls = vec![call(&job, "second", Some(30))];
    store.journal.settle(end.clone()).await.unwrap();
    assert_eq!(store.journal.settle(end).await.unwrap(), Settled::Fenced);
    let dead = accepted(&store).await;
    let mut end = settlement(&store, token(dead.id, 0), death());
    end.calls = vec![call(&dead, "lost", Some(7))];
    store.journal.settle(end).await.unwrap();
    let [line] = &costs(&store, &[CostColumn::Queue]).await[..] else { panic!("one queue") };
    assert_eq!((line.spend, line.wasted, line.charge), (Nanousd(137), Nanousd(107), Some(Nanousd(130))));
    assert_eq!((line.calls, line.jobs), (3, 2));
    assert_eq!(
        line.usage,
        Usage {
            tokens_in: 300,
            tokens_out: 60,
            tokens_cached: 90,
            tokens_cache_write: 12,
            tokens_reasoning: 15,
            ..Usage::default()
        }
    );
}

/// Every column groups; the dearest comes first; the period is half open.
pub async fn costs_are_grouped_and_dearest_first(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let cheap = NewJob { operation: Some("tag".into()), ..job() };
    let dear = NewJob { tenant: "globex".into(), queue: "bulk".into(), kind: Kind::Embedding, ..job() };
    for job in [&cheap, &dear] {
        accept_new(&store, job).await;
    }
    let embed = CallRecord { provider: "embed".into(), model: "e5".into(), ..call(&dear, "embed", Some(900)) };
    let tomorrow = CallRecord { at: NOW.plus_ms(86_400_000), call_id: CallId::of(dear.id, "late", 0), ..embed.clone() };
    for record in [call(&cheap, "chat", Some(5)), embed, tomorrow] {
        store.journal.record(record).await.unwrap();
    }
    let groups = async |by: &[CostColumn]| {
        costs(&store, by).await.into_iter().map(|line| (line.group, line.spend.0)).collect::<Vec<_>>()
    };
    let line = |group: &[&str], spend: i64| (group.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>(), spend);
    assert_eq!(groups(&[CostColumn::Tenant]).await, [line(&["globex"], 900), line(&["acme"], 5)]);
    assert_eq!(groups(&[CostColumn::Operation]).await, [line(&[""], 900), line(&["tag"], 5)]);
    assert_eq!(groups(&[CostColumn::Model]).await, [line(&["e5"], 900), line(&["small"], 5)]);
    assert_eq!(groups(&[CostColumn::Provider]).await, [line(&["embed"], 900), line(&["simulated"], 5)]);
    let three = [CostColumn::Queue, CostColumn::Kind, CostColumn::Day];
    let day = NOW.to_string()[..10].to_owned();
    assert_eq!(groups(&three).await, [line(&["bulk", "embedding", &day], 900), line(&["default", "llm", &day], 5)]);
    let of = async |query: CostQuery| store.ledger.costs(&query).await.unwrap();
    let all = of(CostQuery::new(&[CostColumn::Day], Timestamp(0), Timestamp(i64::MAX))).await;
    assert_eq!(all.iter().map(|line| line.spend.0).collect::<Vec<_>>(), [905, 900]);
    let by_model = costs(&store, &[CostColumn::Model]).await;
    assert!(by_model.iter().all(|line| line.charge.is_none()), "a charge belongs to no model");
    let before = of(CostQuery::new(&[CostColumn::Tenant], Timestamp(0), NOW.plus_ms(15))).await;
    assert_eq!(before, [], "the end of a period is not in it");
    for (tenant, spend) in [("globex", Some(1_800)), ("acme", Some(5)), ("nobody", None)] {
        let ever = CostQuery::new(&[CostColumn::Tenant], Timestamp(0), Timestamp(i64::MAX));
        let lines = of(CostQuery { tenant: Some(tenant.into()), ..ever }).await;
        assert_eq!(lines.first().map(|line| line.spend.0), spend, "{tenant}");
    }
}

/// Every column of a call comes back and is summed.
pub async fn tiers_and_audio_are_kept(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let plain = call(&job, "chat", Some(5));
    let usage = Usage { tokens_audio_in: 11, tokens_audio_out: 7, tokens_cache_write_long: 3, ..plain.usage };
    let records = Tier::ALL.map(|tier| CallRecord {
        tier,
        usage,
        memo: None,
        call_id: CallId::of(job.id, tier.as_str(), 0),
        ..plain.clone()
    });
    for record in &records {
        store.journal.record(record.clone()).await.unwrap();
    }
    let mut kept = store.reads.calls(job.id).await.unwrap();
    kept.sort_by_key(|call| call.tier);
    assert_eq!(format!("{kept:?}"), format!("{records:?}"));
    let sum = records.iter().fold(Usage::default(), |sum, record| sum.plus(record.usage));
    let line = line(&store).await;
    assert_eq!((line.usage, line.spend, line.jobs), (sum, Nanousd(25), 1));
}

/// Wasted is what brought no answer, what answered a call again, and what answered a dead letter; a redrive uses the
/// latter after all.
pub async fn waste_is_told_and_taken_back(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let wasted = async || line(&store).await.wasted.0;
    let answer = call(&job, "map/0001", Some(100));
    let failed = CallRecord { status: "server".into(), memo: None, ..call(&job, "failed", Some(30)) };
    let refused = CallRecord { billed: Billed::No, status: "rate".into(), ..call(&job, "refused", Some(0)) };
    for record in [&answer, &failed, &refused] {
        store.journal.record(record.clone()).await.unwrap();
    }
    assert_eq!(wasted().await, 30);
    // A worker that was taken for dead answers the same call.
    let again = CallRecord { epoch: Epoch(1), cost: Some(Nanousd(7)), ..answer.clone() };
    store.journal.record(again.clone()).await.unwrap();
    store.journal.record(again).await.unwrap();
    assert_eq!(wasted().await, 37);
    let mut end = settlement(&store, token(job.id, 0), death());
    end.calls = vec![call(&job, "map/0002", Some(1_000)), call(&job, "unpriced", None)];
    store.journal.settle(end).await.unwrap();
    assert_eq!(wasted().await, 1_137, "all of a dead letter");
    let Changed::Done(entry) = store.journal.redrive(job.id, NOW.plus_ms(30)).await.unwrap() else { panic!("dead") };
    assert_eq!(wasted().await, 37, "its answers are found by the next attempts");
    let mut end = settlement(&store, token(job.id, entry.epoch.0), death());
    end.calls = vec![call(&job, "map/0003", Some(2))];
    store.journal.settle(end).await.unwrap();
    assert_eq!(wasted().await, 1_139, "dead again");
    assert_eq!(line(&store).await.spend, Nanousd(1_139), "and spent once");
    store.journal.record(call(&job, "late", Some(5))).await.unwrap();
    assert_eq!(wasted().await, 1_144, "and what comes after its death");
}

/// Whoever workers die with has spent for nothing, too.
pub async fn a_convicted_job_has_spent_for_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    store.journal.record(call(&job, "chat", Some(100))).await.unwrap();
    let session = crate::ids::SessionId::generate();
    for epoch in 0.. {
        let recovery = Recovery {
            token: token(job.id, epoch),
            nonce: Default::default(),
            blame: Blame::Alone,
            session,
            started_at: Some(NOW.plus_ms(10)),
        };
        let recovered = store.journal.recover(vec![recovery]).await.unwrap();
        if matches!(recovered[..], [Recovered::Poisoned]) {
            break;
        }
        assert_eq!(line(&store).await.wasted, Nanousd(0), "it lives");
    }
    assert_eq!(line(&store).await.wasted, Nanousd(100));
}

/// What did not have to be paid is no spend, and is counted once for each attempt.
pub async fn savings_are_counted_apart_and_once(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let saving = |reason, saved: Option<i64>, epoch| Saving {
        call_id: CallId::of(job.id, "chat", 0),
        job_id: job.id,
        tenant: job.tenant.clone(),
        queue: job.queue.clone(),
        kind: job.kind,
        operation: None,
        epoch: Epoch(epoch),
        provider: "simulated".into(),
        model: "small".into(),
        reason,
        usage: Usage { tokens_in: 10, tokens_out: 2, ..Usage::default() },
        saved: saved.map(Nanousd),
        at: NOW.plus_ms(15),
    };
    let mut first = settlement(&store, token(job.id, 0), retry());
    first.calls = vec![call(&job, "chat", Some(500))];
    first.savings = vec![saving(SavedBy::Cache, Some(40), 0), saving(SavedBy::Coalesced, Some(1), 0)];
    store.journal.settle(first.clone()).await.unwrap();
    assert_eq!(store.journal.settle(first).await.unwrap(), Settled::Fenced, "reported twice");
    let mut second = settlement(&store, token(job.id, 1), success());
    second.savings = vec![
        saving(SavedBy::Memo, Some(500), 1),
        saving(SavedBy::Memo, Some(500), 1),
        saving(SavedBy::Singleflight, None, 1),
    ];
    store.journal.settle(second).await.unwrap();
    let line = line(&store).await;
    assert_eq!((line.spend, line.charge, line.calls), (Nanousd(500), Some(Nanousd(500)), 1));
    assert_eq!(line.saved.by_reason, [500, 40, 1, 0].map(Nanousd));
    assert_eq!((line.saved.total(), line.saved.answers, line.saved.unpriced), (Nanousd(541), 4, 1));
    assert_eq!(line.usage, call(&job, "chat", None).usage, "an answer without a call uses no tokens");
    let by_model = costs(&store, &[CostColumn::Model]).await;
    assert_eq!(by_model.iter().map(|line| line.saved.total().0).collect::<Vec<_>>(), [541]);
    let told = store.reads.savings(job.id).await.unwrap();
    let mut reasons: Vec<_> = told.iter().map(|saving| (saving.epoch.0, saving.reason, saving.saved)).collect();
    reasons.sort_unstable();
    let expected = [
        (0, SavedBy::Cache, Some(Nanousd(40))),
        (0, SavedBy::Coalesced, Some(Nanousd(1))),
        (1, SavedBy::Memo, Some(Nanousd(500))),
        (1, SavedBy::Singleflight, None),
    ];
    assert_eq!(reasons, expected);
    let one = told.iter().find(|one| one.reason == SavedBy::Memo).unwrap();
    assert_eq!(format!("{one:?}"), format!("{:?}", saving(SavedBy::Memo, Some(500), 1)), "every column comes back");
    assert!(store.reads.savings(accepted(&store).await.id).await.unwrap().is_empty());
}

/// Calls are told from the newest on, whosever they are, and none that ended before the moment that was asked for.
pub async fn the_newest_calls_are_told(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    for (at, status) in [(1, "ok"), (5, "rate"), (3, "ok")] {
        let step = format!("map/{at:04}");
        let ended = CallRecord { at: NOW.plus_ms(at), status: status.into(), memo: None, ..call(&job, &step, Some(1)) };
        store.journal.record(ended).await.unwrap();
    }
    let told = store.ledger.recent(NOW.plus_ms(2)).await.unwrap();
    let shown: Vec<_> = told.iter().map(|call| (call.at, call.status.as_str())).collect();
    assert_eq!(shown, [(NOW.plus_ms(5), "rate"), (NOW.plus_ms(3), "ok")]);
    let RecentCall { provider, model, credential, duration_ms, .. } = &told[1];
    assert_eq!((&**provider, &**model, &**credential, *duration_ms), ("simulated", "small", "default", 250));
}

/// A job counts where its first call is, and once, however its calls are reported.
pub async fn a_job_is_counted_once(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let mut end = settlement(&store, token(job.id, 0), retry());
    end.calls = vec![call(&job, "map/0001", Some(1)), call(&job, "map/0002", Some(1))];
    end.calls[1].model = "other".into();
    store.journal.settle(end).await.unwrap();
    store.journal.record(CallRecord { model: "third".into(), ..call(&job, "map/0003", Some(1)) }).await.unwrap();
    let other = accepted(&store).await;
    store.journal.record(CallRecord { model: "third".into(), ..call(&other, "chat", Some(1)) }).await.unwrap();
    assert_eq!(line(&store).await.jobs, 2);
    let jobs = costs(&store, &[CostColumn::Model]).await.into_iter().map(|line| (line.group[0].clone(), line.jobs));
    let mut jobs: Vec<_> = jobs.collect();
    jobs.sort();
    // Of two calls that end in one millisecond, either may be the first.
    assert_eq!(jobs.iter().map(|(_, jobs)| jobs).sum::<u64>(), 2, "{jobs:?}");
    assert_eq!(jobs[2], ("third".to_owned(), 1));
}
