//! Cases of load and settle: what may run, and how an attempt ends once.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Fixture, NOW, Opened, accept_new, accepted, death, failure, job, release, retry, row, settle, settlement, success,
    token,
};
use crate::{
    ids::{Epoch, Incarnation, JobId, Nonce, SessionId},
    job::NewJob,
    journal::{Blame, Cancelled, Changed, Due, Edit, Outcome, Recovered, Recovery, Settled},
    state::{Event, Standing, transition},
    time::DAY_MS,
};

/// A success ends the job and keeps the answer.
pub async fn a_success_keeps_its_result(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let mut end = settlement(&store, token(job.id, 0), success());
    end.served_by = Some("simulated/small".into());
    let settled = store.journal.settle(end.clone()).await.unwrap();
    assert_eq!(settled, Settled::Done { standing: Standing::Succeeded, epoch: Epoch(0), run_at: NOW });
    let kept = row(&store, job.id).await;
    assert_eq!((kept.standing, kept.finished_at), (Standing::Succeeded, Some(NOW.plus_ms(20))));
    assert_eq!((kept.attempts, kept.served_by.as_deref()), (1, Some("simulated/small")));
    assert_eq!(store.reads.result(job.id).await.unwrap(), Some(Bytes::from_static(br#"{"text":"done"}"#)));
    let attempts = store.reads.attempts(job.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].epoch, attempts[0].number, attempts[0].outcome.as_str()), (Epoch(0), 1, "succeed"));
    assert_eq!(attempts[0].worker, end.session.to_string());
    assert_eq!((attempts[0].started_at, attempts[0].finished_at), (Some(end.started_at), end.finished_at));
    assert_eq!(attempts[0].error, None);
}

/// A retry is due later, at the next epoch, with the error to show.
pub async fn a_retry_spends_an_attempt_and_moves_on(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    let settled = settle(&store, token(job.id, 0), retry()).await;
    let due = NOW.plus_ms(1_000);
    assert_eq!(settled, Settled::Done { standing: Standing::Live, epoch: Epoch(1), run_at: due });
    let kept = row(&store, job.id).await;
    assert_eq!((kept.standing, kept.epoch, kept.run_at), (Standing::Live, Epoch(1), due));
    assert_eq!((kept.attempts, kept.finished_at, kept.error), (1, None, Some(failure())));
    settle(&store, token(job.id, 1), success()).await;
    let kept = row(&store, job.id).await;
    assert_eq!(kept.error, Some(failure()), "the last error outlives the success");
    let attempts = store.reads.attempts(job.id).await.unwrap();
    assert_eq!(attempts.iter().map(|a| (a.epoch.0, a.number)).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
    assert_eq!(attempts[0].error, Some(failure()));
}

/// A job that is given back keeps its attempts; the number of releases is forgotten by the next real end.
pub async fn a_release_spends_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    settle(&store, token(job.id, 0), release()).await;
    let shown = Outcome::Release { due: Due::At(NOW.plus_ms(5)), error: Some(failure()), target: None };
    settle(&store, token(job.id, 1), shown).await;
    let kept = row(&store, job.id).await;
    assert_eq!((kept.attempts, kept.releases, kept.epoch), (0, 2, Epoch(2)));
    assert_eq!((kept.run_at, kept.error), (NOW.plus_ms(5), Some(failure())));
    settle(&store, token(job.id, 2), retry()).await;
    let kept = row(&store, job.id).await;
    assert_eq!((kept.attempts, kept.releases), (1, 0));
    let numbers: Vec<_> = store.reads.attempts(job.id).await.unwrap().into_iter().map(|a| a.number).collect();
    assert_eq!(numbers, [1, 1, 1]);
}

/// Who settles says how long; from when on is the journal's matter, whatever the time is where the attempt ran.
pub async fn the_journal_counts_how_long_a_retry_waits(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let wait = Duration::from_millis(7_000);
    let outcomes = [
        Outcome::Retry { due: Due::After(wait), error: failure() },
        Outcome::Release { due: Due::After(wait), error: None, target: None },
    ];
    for outcome in outcomes {
        let job = accepted(&store).await;
        let mut end = settlement(&store, token(job.id, 0), outcome);
        // A clock that is a day ahead.
        (end.started_at, end.finished_at) = (NOW.plus_ms(DAY_MS), NOW.plus_ms(DAY_MS + 5));
        let before = store.schedules.store_time().await.unwrap();
        let settled = store.journal.settle(end).await.unwrap();
        let after = store.schedules.store_time().await.unwrap();
        let Settled::Done { standing: Standing::Live, run_at, .. } = settled else { panic!("{settled:?}") };
        assert!(
            (before.plus(wait)..=after.plus(wait)).contains(&run_at),
            "{before} + 7 s <= {run_at} <= {after} + 7 s"
        );
        assert_eq!(row(&store, job.id).await.run_at, run_at);
    }
}

/// A job that is given back may wait in another lane from then on; without a word it stays in its own.
pub async fn a_release_may_move_to_another_lane(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (job, other) = (accepted(&store).await, accepted(&store).await);
    let moved = Outcome::Release { due: Due::At(NOW), error: None, target: Some("simulated:small:8b:@acme".into()) };
    settle(&store, token(job.id, 0), moved).await;
    settle(&store, token(other.id, 0), release()).await;
    assert_eq!(row(&store, job.id).await.target, "simulated:small:8b:@acme".into());
    assert_eq!(row(&store, other.id).await.target, other.target);
    settle(&store, token(job.id, 1), release()).await;
    assert_eq!(row(&store, job.id).await.target, "simulated:small:8b:@acme".into());
}

/// A dead letter has an end and a cause.
pub async fn a_death_keeps_its_error(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    settle(&store, token(job.id, 0), death()).await;
    let kept = row(&store, job.id).await;
    assert_eq!((kept.standing, kept.finished_at), (Standing::Dead, Some(NOW.plus_ms(20))));
    assert_eq!((kept.error, kept.attempts, kept.epoch), (Some(failure()), 1, Epoch(0)));
    assert_eq!(store.reads.result(job.id).await.unwrap(), None);
}

/// The second settle of one claim changes nothing, whatever it says; also when both come at once.
pub async fn an_attempt_is_settled_once(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for first in [success(), retry(), release(), death()] {
        for second in [success(), retry(), release(), death()] {
            let job = accepted(&store).await;
            settle(&store, token(job.id, 0), first.clone()).await;
            let before = format!("{:?}", row(&store, job.id).await);
            let again = store.journal.settle(settlement(&store, token(job.id, 0), second)).await.unwrap();
            assert_eq!(again, Settled::Fenced);
            assert_eq!(format!("{:?}", row(&store, job.id).await), before);
            assert_eq!(store.reads.attempts(job.id).await.unwrap().len(), 1);
        }
    }
    let job = accepted(&store).await;
    let end = || store.journal.settle(settlement(&store, token(job.id, 0), success()));
    let (a, b, c) = tokio::join!(end(), end(), end());
    let done = [a, b, c].into_iter().filter(|answer| matches!(answer, Ok(Settled::Done { .. }))).count();
    assert_eq!(done, 1);
}

/// A claim of another epoch, of another life of the journal or of no job at all settles nothing.
pub async fn another_epoch_or_life_is_fenced(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = accepted(&store).await;
    settle(&store, token(job.id, 0), retry()).await;
    let before = format!("{:?}", row(&store, job.id).await);
    for stale in [token(job.id, 0), token(job.id, 2), token(JobId::generate(), 0)] {
        let answer = store.journal.settle(settlement(&store, stale, success())).await.unwrap();
        assert_eq!(answer, Settled::Fenced, "{stale:?}");
    }
    let mut earlier_life = settlement(&store, token(job.id, 1), success());
    earlier_life.incarnation = Incarnation(store.journal.incarnation().0 - 1);
    assert_eq!(store.journal.settle(earlier_life).await.unwrap(), Settled::Fenced);
    assert_eq!(format!("{:?}", row(&store, job.id).await), before);
}

/// The preflight: live, due and at the claimed epoch, answered in order, and nothing is written.
pub async fn only_what_may_run_is_loaded(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (due, ended) = (accepted(&store).await, accepted(&store).await);
    let later = NewJob { run_at: NOW.plus_ms(1), ..job() };
    accept_new(&store, &later).await;
    settle(&store, token(ended.id, 0), success()).await;
    let claims = [
        token(later.id, 0),
        token(due.id, 1),
        token(due.id, 0),
        token(ended.id, 0),
        token(JobId::generate(), 0),
        token(due.id, 0),
    ];
    let loaded = store.journal.load(&claims, NOW).await.unwrap();
    let ids: Vec<_> = loaded.iter().map(|loaded| loaded.as_ref().map(|loaded| loaded.job.id)).collect();
    assert_eq!(ids, [None, None, Some(due.id), None, None, Some(due.id)]);
    assert_eq!(loaded[2].as_ref().unwrap().payload, due.payload);
    assert!(store.journal.load(&[token(later.id, 0)], NOW.plus_ms(1)).await.unwrap()[0].is_some());
    assert_eq!(row(&store, due.id).await.epoch, Epoch(0));
    assert!(store.journal.load(&[], NOW).await.unwrap().is_empty());
}

/// Every event on every standing does what the transition table says, and nothing where it refuses.
pub async fn the_state_table_holds(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for standing in Standing::ALL {
        for event in Event::ALL {
            let job = accepted(&store).await;
            bring_to(&store, &job, standing).await;
            let before = row(&store, job.id).await;
            assert_eq!(before.standing, standing);
            let happened = happen(&store, job.id, before.epoch, event).await;
            let after = row(&store, job.id).await;
            let expected = transition(standing, event);
            assert_eq!(happened, expected.is_ok(), "{event:?} on {standing:?}");
            assert_eq!(after.standing, expected.unwrap_or(standing), "{event:?} on {standing:?}");
            assert_eq!(after.finished_at.is_some(), after.standing.is_final());
            if expected.is_err() {
                assert_eq!(format!("{after:?}"), format!("{before:?}"));
            } else if after.standing == Standing::Live {
                assert_eq!(after.epoch, before.epoch.next(), "{event:?} on {standing:?}");
            }
        }
    }
}

async fn bring_to(store: &Opened, job: &NewJob, standing: Standing) {
    match standing {
        Standing::Live => {}
        Standing::Succeeded => _ = settle(store, token(job.id, 0), success()).await,
        Standing::Dead => _ = settle(store, token(job.id, 0), death()).await,
        Standing::Cancelled => _ = store.journal.cancel(job.id, None, None, NOW).await.unwrap(),
    }
}

/// Makes `event` happen at the job's present epoch; whether the store did it.
async fn happen(store: &Opened, id: JobId, epoch: Epoch, event: Event) -> bool {
    let outcome = match event {
        Event::Succeed => success(),
        Event::Retry => retry(),
        Event::Die => death(),
        Event::Release => release(),
        Event::Cancel => {
            return matches!(store.journal.cancel(id, None, None, NOW).await.unwrap(), Cancelled::Done(at) if at == epoch);
        }
        Event::Recover => {
            let (nonce, session) = (Nonce(1), SessionId::generate());
            let lost = Recovery { token: token(id, epoch.0), nonce, blame: Blame::Alone, session, started_at: None };
            return matches!(store.journal.recover(vec![lost]).await.unwrap()[..], [Recovered::Again(_)]);
        }
        Event::Reconcile => return store.journal.reconcile(vec![token(id, epoch.0)]).await.unwrap().len() == 1,
        Event::Edit => {
            let edit = Edit { priority: Some(1), ..Edit::default() };
            return matches!(store.journal.edit(id, Some(epoch), edit, NOW).await.unwrap(), Changed::Done(_));
        }
        Event::Redrive => return matches!(store.journal.redrive(id, NOW).await.unwrap(), Changed::Done(_)),
    };
    let end = settlement(store, token(id, epoch.0), outcome);
    matches!(store.journal.settle(end).await.unwrap(), Settled::Done { .. })
}
