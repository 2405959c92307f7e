//! Cases of recoveries, reconciles, cancels, edits and redrives.

use super::{
    Fixture, NOW, Opened, accept_new, accepted, call, death, job, release, retry, row, settle, settlement, success,
    token,
};
use crate::{
    dispatcher::{Entry, Suspicion},
    error::ErrorClass,
    ids::{Epoch, JobId, Nonce, SessionId},
    job::{Kind, NewJob},
    journal::{Blame, Cancelled, Changed, Edit, Interrupted, JobFilter, LiveScan, Recovered, Recovery, Settled},
    ledger::{Billed, Nanousd},
    state::Standing,
};

fn lost(id: JobId, epoch: i64, blame: Blame) -> Recovery {
    let (nonce, session) = (Nonce(9), SessionId::generate());
    let started_at = (blame != Blame::Nobody).then_some(NOW.plus_ms(5));
    Recovery { token: token(id, epoch), nonce, blame, session, started_at }
}

async fn recover(store: &Opened, recovery: Recovery) -> Recovered {
    store.journal.recover(vec![recovery]).await.unwrap().pop().unwrap()
}

/// The next epoch is due as before, the lost worker is fenced, and the attempt is there to see.
pub async fn a_lost_worker_costs_an_epoch_and_is_written_down(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    fixture.clock().advance_ms(40);
    let job = accepted(&store).await;
    let recovery = lost(job.id, 0, Blame::Alone);
    let Recovered::Again(entry) = recover(&store, recovery).await else { panic!("it was live") };
    let expected = Entry {
        id: job.id,
        epoch: Epoch(1),
        queue: job.queue.clone(),
        tenant: job.tenant.clone(),
        target: job.target.clone(),
        kind: job.kind,
        priority: job.priority,
        run_at: NOW,
        suspicion: Suspicion::None,
        key: None,
    };
    assert_eq!(entry, expected);
    let kept = row(&store, job.id).await;
    assert_eq!((kept.recoveries, kept.attempts, kept.standing), (1, 0, Standing::Live));
    let late = store.journal.settle(settlement(&store, token(job.id, 0), success())).await.unwrap();
    assert_eq!(late, Settled::Fenced);
    let attempts = store.reads.attempts(job.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].outcome.as_str(), attempts[0].number, attempts[0].epoch), ("lost", 1, Epoch(0)));
    assert_eq!(attempts[0].worker, recovery.session.to_string());
    assert_eq!((attempts[0].started_at, attempts[0].finished_at), (Some(NOW.plus_ms(5)), NOW.plus_ms(40)));
    assert_eq!(attempts[0].error.as_ref().map(|error| error.class), Some(ErrorClass::Lost));

    let Recovered::Again(entry) = recover(&store, lost(job.id, 1, Blame::Nobody)).await else { panic!("it is live") };
    assert_eq!((entry.epoch, entry.suspicion), (Epoch(2), Suspicion::None), "what had not started does not count");
    assert_eq!(row(&store, job.id).await.recoveries, 1);
    assert_eq!(store.reads.attempts(job.id).await.unwrap().len(), 1);

    let Recovered::Again(entry) = recover(&store, lost(job.id, 2, Blame::Alone)).await else { panic!("it is live") };
    assert_eq!((entry.epoch, entry.suspicion), (Epoch(3), Suspicion::Suspect));
}

/// The third worker that dies with a job makes it a dead letter.
pub async fn three_lost_workers_convict(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let answers =
        [recover(&store, lost(job.id, 0, Blame::Alone)).await, recover(&store, lost(job.id, 1, Blame::Alone)).await];
    assert!(answers.iter().all(|answer| matches!(answer, Recovered::Again(_))));
    assert!(matches!(recover(&store, lost(job.id, 2, Blame::Alone)).await, Recovered::Poisoned));
    let kept = row(&store, job.id).await;
    assert_eq!((kept.standing, kept.recoveries), (Standing::Dead, 3));
    assert_eq!(kept.finished_at, Some(NOW));
    let error = kept.error.unwrap();
    assert_eq!((error.class, error.code.as_str(), error.retryable), (ErrorClass::Poison, "worker_lost", false));
    assert_eq!(store.reads.attempts(job.id).await.unwrap().len(), 3);
    assert!(matches!(recover(&store, lost(job.id, kept.epoch.0, Blame::Alone)).await, Recovered::Moved));
}

/// Who died with others as likely is not convicted, but isolated; whatever has come before, the next time that it is
/// alone to blame it is.
pub async fn shared_blame_isolates(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let after = [(1, Suspicion::None), (2, Suspicion::Suspect), (3, Suspicion::Isolated), (4, Suspicion::Isolated)];
    for (epoch, (recoveries, suspicion)) in after.into_iter().enumerate() {
        let recovery = lost(job.id, epoch as i64, Blame::Shared);
        let Recovered::Again(entry) = recover(&store, recovery).await else { panic!("it is live") };
        assert_eq!((entry.suspicion, row(&store, job.id).await.recoveries), (suspicion, recoveries));
    }
    let Recovered::Again(entry) = recover(&store, lost(job.id, 4, Blame::Nobody)).await else { panic!("it is live") };
    assert_eq!(entry.suspicion, Suspicion::Isolated, "who is not to blame is as suspect as before");
    let scan = LiveScan { after: None, due_by: NOW, accepted_by: NOW, limit: 9 };
    assert_eq!(store.journal.live(scan).await.unwrap(), [entry], "a rebuild knows of it");
    assert!(matches!(recover(&store, lost(job.id, 5, Blame::Alone)).await, Recovered::Poisoned));
    assert_eq!(store.reads.attempts(job.id).await.unwrap().len(), 5);
    let Changed::Done(entry) = store.journal.redrive(job.id, NOW).await.unwrap() else { panic!("it is dead") };
    assert_eq!(entry.suspicion, Suspicion::None);
}

/// Nobody knows what a lost attempt was billed for: one line says so, and no sum moves. A probe calls nobody.
pub async fn a_lost_provider_call_is_counted(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = NewJob { operation: Some("op".into()), ..job() };
    accept_new(&store, &job).await;
    recover(&store, lost(job.id, 0, Blame::Alone)).await;
    recover(&store, lost(job.id, 1, Blame::Nobody)).await;
    let calls = store.reads.calls(job.id).await.unwrap();
    assert_eq!(calls.len(), 1, "only what had started may have paid");
    assert_eq!((calls[0].billed, calls[0].status.as_str(), calls[0].cost), (Billed::Maybe, "lost", None));
    assert_eq!((calls[0].provider.as_str(), calls[0].model.as_str()), ("simulated", "small:8b"));
    assert_eq!((calls[0].epoch, calls[0].operation.as_deref()), (Epoch(0), Some("op")));
    assert_eq!(row(&store, job.id).await.cost, Some(Nanousd(0)));
    let probe = NewJob { kind: Kind::Probe, target: "probe".into(), ..super::job() };
    accept_new(&store, &probe).await;
    recover(&store, lost(probe.id, 0, Blame::Alone)).await;
    assert!(store.reads.calls(probe.id).await.unwrap().is_empty());
}

/// Suspicion ends with the first settle: workers that die with a job much later begin to count anew.
pub async fn a_settle_forgets_recoveries(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for outcome in [retry(), release()] {
        let job = accepted(&store).await;
        recover(&store, lost(job.id, 0, Blame::Alone)).await;
        recover(&store, lost(job.id, 1, Blame::Alone)).await;
        settle(&store, token(job.id, 2), outcome).await;
        assert_eq!(row(&store, job.id).await.recoveries, 0);
        assert!(matches!(recover(&store, lost(job.id, 3, Blame::Alone)).await, Recovered::Again(_)));
    }
}

/// A job that was settled, cancelled, recovered before or never there has moved; each is answered in its place.
pub async fn a_moved_job_is_not_recovered(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (settled, retried, cancelled) = (accepted(&store).await, accepted(&store).await, accepted(&store).await);
    let live = accepted(&store).await;
    settle(&store, token(settled.id, 0), success()).await;
    settle(&store, token(retried.id, 0), retry()).await;
    store.journal.cancel(cancelled.id, None, None, NOW).await.unwrap();
    let gone = [settled.id, retried.id, cancelled.id, JobId::generate()];
    let mut recoveries: Vec<_> = gone.iter().map(|id| lost(*id, 0, Blame::Alone)).collect();
    recoveries.push(lost(live.id, 0, Blame::Alone));
    let answers = store.journal.recover(recoveries).await.unwrap();
    assert!(answers[..4].iter().all(|answer| matches!(answer, Recovered::Moved)), "{answers:?}");
    assert!(matches!(answers[4], Recovered::Again(_)));
    assert_eq!(row(&store, retried.id).await.epoch, Epoch(1));
}

/// Live rows at the seen epoch come back at the next one; the rest is left out.
pub async fn reconcile_hands_on_what_is_live(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (unknown, moved, ended) = (accepted(&store).await, accepted(&store).await, accepted(&store).await);
    settle(&store, token(moved.id, 0), retry()).await;
    settle(&store, token(ended.id, 0), success()).await;
    let asked = [unknown.id, moved.id, ended.id, JobId::generate()].map(|id| token(id, 0));
    let entries = store.journal.reconcile(asked.to_vec()).await.unwrap();
    assert_eq!(entries.iter().map(|entry| (entry.id, entry.epoch)).collect::<Vec<_>>(), [(unknown.id, Epoch(1))]);
    assert_eq!(entries[0].suspicion, Suspicion::None, "a reconcile suspects nobody");
    let kept = row(&store, unknown.id).await;
    assert_eq!((kept.epoch, kept.recoveries), (Epoch(1), 0));
    let late = store.journal.settle(settlement(&store, token(unknown.id, 0), success())).await.unwrap();
    assert_eq!(late, Settled::Fenced);
}

/// Pages follow each other without gap or repeat, by due time and then id, and hold only what was asked for.
pub async fn live_jobs_are_paged_by_due_time(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let jobs: Vec<_> = (0..25).map(|n| NewJob { run_at: NOW.plus_ms((n * 7) % 5), ..job() }).collect();
    store.journal.accept(jobs.clone()).await.unwrap();
    let young = NewJob { accepted_at: NOW.plus_ms(1), ..job() };
    let far = NewJob { run_at: NOW.plus_ms(60_000), ..job() };
    let ended = accepted(&store).await;
    store.journal.accept(vec![young.clone(), far.clone()]).await.unwrap();
    settle(&store, token(ended.id, 0), success()).await;
    let mut expected: Vec<_> = jobs.iter().map(|job| (job.run_at, job.id)).collect();
    expected.sort_unstable();
    let mut scan = LiveScan { after: None, due_by: NOW.plus_ms(10), accepted_by: NOW, limit: 4 };
    let mut found = Vec::new();
    loop {
        let page = store.journal.live(scan).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4);
        scan.after = Some((last.run_at, last.id));
        found.extend(page.iter().map(|entry| (entry.run_at, entry.id)));
    }
    assert_eq!(found, expected);
    let all = LiveScan { after: None, due_by: NOW.plus_ms(60_000), accepted_by: NOW.plus_ms(1), limit: 1_000 };
    assert_eq!(store.journal.live(all).await.unwrap().len(), 27);
}

/// A cancel takes a live job at whatever epoch; a running attempt cannot settle it any more, but keeps its spend.
pub async fn a_cancel_fences_and_is_final(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    settle(&store, token(job.id, 0), retry()).await;
    let cancelled = store.journal.cancel(job.id, Some("not needed".into()), None, NOW.plus_ms(9)).await.unwrap();
    assert_eq!(cancelled, Cancelled::Done(Epoch(1)));
    let kept = row(&store, job.id).await;
    assert_eq!((kept.standing, kept.epoch), (Standing::Cancelled, Epoch(2)));
    assert_eq!((kept.finished_at, kept.cancel_reason.as_deref()), (Some(NOW.plus_ms(9)), Some("not needed")));
    let mut late = settlement(&store, token(job.id, 1), success());
    late.calls = vec![call(&job, "chat", Some(3))];
    assert_eq!(store.journal.settle(late).await.unwrap(), Settled::Fenced);
    assert_eq!(row(&store, job.id).await.cost, Some(Nanousd(3)));
    let again = store.journal.cancel(job.id, None, None, NOW).await.unwrap();
    assert_eq!(again, Cancelled::Final(Standing::Cancelled));
    assert_eq!(store.journal.cancel(JobId::generate(), None, None, NOW).await.unwrap(), Cancelled::Missing);
}

/// The attempt that a cancel interrupts is written down; one of an earlier epoch was, by what ended it.
pub async fn a_cancelled_attempt_is_written_down(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    settle(&store, token(job.id, 0), retry()).await;
    let session = SessionId::generate();
    let attempt = Interrupted { epoch: Epoch(1), session, started_at: NOW.plus_ms(3) };
    store.journal.cancel(job.id, None, Some(attempt), NOW.plus_ms(9)).await.unwrap();
    let attempts = store.reads.attempts(job.id).await.unwrap();
    assert_eq!(attempts.len(), 2);
    let last = &attempts[1];
    assert_eq!((last.epoch, last.number, last.outcome.as_str()), (Epoch(1), 2, "cancel"));
    assert_eq!((last.started_at, last.finished_at), (Some(NOW.plus_ms(3)), NOW.plus_ms(9)));
    assert_eq!((&last.worker, last.error.is_none()), (&session.0.hyphenated().to_string(), true));
    assert_eq!(row(&store, job.id).await.attempts, 1, "it spends nothing");

    let waiting = accepted(&store).await;
    settle(&store, token(waiting.id, 0), retry()).await;
    let past = Interrupted { epoch: Epoch(0), ..attempt };
    store.journal.cancel(waiting.id, None, Some(past), NOW.plus_ms(9)).await.unwrap();
    assert_eq!(store.reads.attempts(waiting.id).await.unwrap().len(), 1);
}

/// Whoever is handed the job on learns its key, and it is shown to the end.
pub async fn a_concurrency_key_goes_with_its_job(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let key = Some("user 7/ü".into());
    let keyed = || NewJob { concurrency_key: key.clone(), ..job() };
    let (job, cancelled, plain) = (keyed(), keyed(), accepted(&store).await);
    store.journal.accept(vec![job.clone(), cancelled.clone()]).await.unwrap();
    let scan = LiveScan { after: None, due_by: NOW, accepted_by: NOW, limit: 10 };
    let mut live: Vec<_> = store.journal.live(scan).await.unwrap().into_iter().map(|e| (e.id, e.key)).collect();
    live.sort();
    let mut expected = vec![(job.id, key.clone()), (cancelled.id, key.clone()), (plain.id, None)];
    expected.sort();
    assert_eq!(live, expected);
    let loaded = store.journal.load(&[token(job.id, 0), token(plain.id, 0)], NOW).await.unwrap();
    let loaded: Vec<_> = loaded.into_iter().map(|one| one.unwrap().job.concurrency_key).collect();
    assert_eq!(loaded, [key.clone(), None]);

    let Recovered::Again(entry) = recover(&store, lost(job.id, 0, Blame::Alone)).await else { panic!("it was live") };
    assert_eq!((entry.key, entry.suspicion), (key.clone(), Suspicion::None));
    let entry = store.journal.reconcile(vec![token(job.id, 1)]).await.unwrap().remove(0);
    assert_eq!((entry.epoch, entry.key), (Epoch(2), key.clone()));
    let edit = Edit { priority: Some(8), ..Edit::default() };
    let Changed::Done(entry) = store.journal.edit(job.id, None, edit, NOW).await.unwrap() else { panic!("live") };
    assert_eq!((entry.epoch, entry.key), (Epoch(3), key.clone()));
    settle(&store, token(job.id, 3), death()).await;
    let Changed::Done(entry) = store.journal.redrive(job.id, NOW).await.unwrap() else { panic!("it was dead") };
    assert_eq!(entry.key, key);
    settle(&store, token(job.id, entry.epoch.0), success()).await;
    store.journal.cancel(cancelled.id, None, None, NOW).await.unwrap();
    for id in [job.id, cancelled.id] {
        let kept = row(&store, id).await;
        assert!(kept.standing.is_final());
        assert_eq!(kept.concurrency_key, key);
    }
}

/// An edit changes what it names, hands the job on, and refuses what it cannot do.
pub async fn an_edit_moves_the_epoch(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let edit = Edit { priority: Some(8), run_at: Some(NOW.plus_ms(77)), payload: Some(("{}".into(), "a:b:c".into())) };
    let Changed::Done(entry) = store.journal.edit(job.id, None, edit, NOW).await.unwrap() else { panic!("live") };
    assert_eq!((entry.epoch, entry.priority, entry.run_at), (Epoch(1), 8, NOW.plus_ms(77)));
    assert_eq!(entry.target.as_str(), "a:b:c");
    assert_eq!(store.reads.payload(job.id).await.unwrap(), Some("{}".into()));
    let nothing = Edit::default;
    let stale = store.journal.edit(job.id, Some(Epoch(0)), nothing(), NOW).await.unwrap();
    assert!(matches!(stale, Changed::Stale(Epoch(1))), "{stale:?}");
    let Changed::Done(entry) = store.journal.edit(job.id, Some(Epoch(1)), nothing(), NOW).await.unwrap() else {
        panic!("the seen epoch is the present one")
    };
    assert_eq!((entry.epoch, entry.priority, entry.run_at), (Epoch(2), 8, NOW.plus_ms(77)));
    assert_eq!(store.reads.payload(job.id).await.unwrap(), Some("{}".into()));
    settle(&store, token(job.id, 2), success()).await;
    let refused = store.journal.edit(job.id, None, nothing(), NOW).await.unwrap();
    assert!(matches!(refused, Changed::Refused(Standing::Succeeded)));
    let missing = store.journal.edit(JobId::generate(), None, nothing(), NOW).await.unwrap();
    assert!(matches!(missing, Changed::Missing));
}

/// A redrive begins a new life with a full budget, and keeps what was paid for and what went wrong.
pub async fn a_dead_letter_gets_another_life(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = NewJob { start_by: Some(NOW.plus_ms(5)), deadline: Some(NOW.plus_ms(50)), ..job() };
    accept_new(&store, &job).await;
    recover(&store, lost(job.id, 0, Blame::Alone)).await;
    let mut end = settlement(&store, token(job.id, 1), death());
    end.calls = vec![call(&job, "chat", Some(11))];
    store.journal.settle(end).await.unwrap();
    let later = NOW.plus_ms(100_000);
    let Changed::Done(entry) = store.journal.redrive(job.id, later).await.unwrap() else { panic!("it was dead") };
    assert_eq!((entry.epoch, entry.run_at, entry.suspicion), (Epoch(2), later, Suspicion::None));
    let kept = row(&store, job.id).await;
    assert_eq!((kept.standing, kept.finished_at, kept.redrives), (Standing::Live, None, 1));
    assert_eq!((kept.attempts, kept.recoveries, kept.releases), (0, 0, 0));
    assert_eq!((kept.start_by, kept.deadline, kept.cost), (None, None, Some(Nanousd(11))));
    assert!(kept.error.is_some());
    assert_eq!(store.journal.memos(job.id).await.unwrap().len(), 1);
    settle(&store, token(job.id, 2), success()).await;
    assert_eq!(store.reads.attempts(job.id).await.unwrap().len(), 3);
    let refused = store.journal.redrive(job.id, later).await.unwrap();
    assert!(matches!(refused, Changed::Refused(Standing::Succeeded)));
    assert!(matches!(store.journal.redrive(JobId::generate(), later).await.unwrap(), Changed::Missing));
    let dead = JobFilter { standing: Some(Standing::Dead), limit: 10, ..JobFilter::default() };
    assert!(store.reads.list(&dead).await.unwrap().jobs.is_empty());
}

/// Its new payload is what the next claim loads, in the lane of what that loads; what was paid for stays.
pub async fn a_dead_letter_may_get_another_payload(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = job();
    accept_new(&store, &job).await;
    let mut end = settlement(&store, token(job.id, 0), death());
    end.calls = vec![call(&job, "chat", Some(11))];
    store.journal.settle(end).await.unwrap();
    let payload = (bytes::Bytes::from_static(br#"{"messages":["mended"]}"#), "simulated:large:default".into());
    let changed = store.journal.redrive_with(job.id, payload.clone(), NOW).await.unwrap();
    let Changed::Done(entry) = changed else { panic!("{changed:?}") };
    assert_eq!((entry.epoch, &entry.target), (Epoch(1), &payload.1));
    let loaded = store.journal.load(&[token(job.id, 1)], NOW).await.unwrap().remove(0).unwrap();
    assert_eq!(
        (loaded.payload.bytes(), loaded.job.target, loaded.job.redrives),
        (payload.0.clone(), payload.1.clone(), 1)
    );
    assert_eq!(store.journal.memos(job.id).await.unwrap().len(), 1);
    let refused = store.journal.redrive_with(job.id, payload.clone(), NOW).await.unwrap();
    assert!(matches!(refused, Changed::Refused(Standing::Live)), "{refused:?}");
    assert!(matches!(store.journal.redrive_with(JobId::generate(), payload, NOW).await.unwrap(), Changed::Missing));
}
