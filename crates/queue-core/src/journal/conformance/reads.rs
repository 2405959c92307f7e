//! Cases of lists, counts and totals.

use super::{Fixture, NOW, Opened, accept_new, death, failure, job, retry, settle, settlement, success, token};
use crate::{
    error::{ErrorClass, JobError},
    ids::{JobId, Nonce, SessionId},
    job::{Kind, NewJob},
    journal::{Blame, DeadGroup, JobFilter, Outcome, QueueTotals, Recovery, Within},
    ledger::Nanousd,
    state::Standing,
};

fn everything() -> JobFilter {
    JobFilter { limit: 100, ..JobFilter::default() }
}

async fn listed(store: &Opened, filter: JobFilter) -> Vec<JobId> {
    store.reads.list(&filter).await.unwrap().jobs.into_iter().map(|job| job.id).collect()
}

/// Each field of the filter narrows by itself, and together they narrow further.
pub async fn a_list_is_narrowed_by_every_field(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let plain = job();
    let special = NewJob {
        tenant: "globex".into(),
        queue: "bulk".into(),
        kind: Kind::Probe,
        operation: Some("Nightly".into()),
        batch_id: Some("b1".into()),
        unique_key: Some("Invoice-77".into()),
        tags: vec!["blue".into(), "red-ish".into()],
        run_at: NOW.plus_ms(500),
        accepted_at: NOW.plus_ms(10),
        ..job()
    };
    let (succeeded, dead, cancelled) = (job(), job(), job());
    for job in [&plain, &special, &succeeded, &dead, &cancelled] {
        accept_new(&store, job).await;
    }
    settle(&store, token(succeeded.id, 0), success()).await;
    let quota = JobError::new(ErrorClass::Quota, "no_money", "The Account 12 is empty");
    settle(&store, token(dead.id, 0), Outcome::Dead { error: quota.clone() }).await;
    store.journal.cancel(cancelled.id, None, None, NOW).await.unwrap();
    let standing = |standing| JobFilter { standing: Some(standing), ..everything() };
    let text = |text: &str| JobFilter { text: Some(text.into()), ..everything() };
    let cases = [
        ("everything", everything(), vec![cancelled.id, dead.id, succeeded.id, special.id, plain.id]),
        ("queue", JobFilter { queue: Some("bulk".into()), ..everything() }, vec![special.id]),
        ("kind", JobFilter { kind: Some(Kind::Probe), ..everything() }, vec![special.id]),
        ("tenant", JobFilter { tenant: Some("globex".into()), ..everything() }, vec![special.id]),
        ("live", standing(Standing::Live), vec![special.id, plain.id]),
        ("succeeded", standing(Standing::Succeeded), vec![succeeded.id]),
        ("dead", standing(Standing::Dead), vec![dead.id]),
        ("cancelled", standing(Standing::Cancelled), vec![cancelled.id]),
        ("due", JobFilter { due: Some((true, NOW)), ..everything() }, vec![plain.id]),
        ("due later", JobFilter { due: Some((false, NOW)), ..standing(Standing::Live) }, vec![special.id]),
        ("due and dead", JobFilter { due: Some((true, NOW)), ..standing(Standing::Dead) }, vec![]),
        ("class", JobFilter { error_class: Some("quota".into()), ..everything() }, vec![dead.id]),
        ("signature", JobFilter { signature: Some(quota.signature.clone()), ..everything() }, vec![dead.id]),
        ("batch", JobFilter { batch_id: Some("b1".into()), ..everything() }, vec![special.id]),
        ("operation", JobFilter { operation: Some("Nightly".into()), ..everything() }, vec![special.id]),
        ("since", JobFilter { since: Some(NOW.plus_ms(10)), ..everything() }, vec![special.id]),
        ("until", JobFilter { until: Some(NOW.plus_ms(10)), ..standing(Standing::Live) }, vec![plain.id]),
        ("text of the operation", text("ightly"), vec![special.id]),
        ("text of the unique key", text("invoice"), vec![special.id]),
        ("text of a tag", text("red-"), vec![special.id]),
        ("text of the error", text("account 12"), vec![dead.id]),
        ("the id", text(&plain.id.to_string()), vec![plain.id]),
        ("part of the id", text(&plain.id.to_string()[20..]), vec![plain.id]),
        ("wildcards are text", text("%"), vec![]),
        ("two fields", JobFilter { queue: Some("bulk".into()), ..standing(Standing::Dead) }, vec![]),
        ("batch and another", JobFilter { batch_id: Some("b1".into()), kind: Some(Kind::Llm), ..everything() }, vec![]),
        ("dead and tenant", JobFilter { tenant: Some("acme".into()), ..standing(Standing::Dead) }, vec![dead.id]),
    ];
    for (name, filter, expected) in cases {
        assert_eq!(listed(&store, filter).await, expected, "{name}");
    }
}

/// Pages follow each other without gap or repeat, whichever index answers them.
pub async fn a_list_is_paged_newest_first(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let jobs: Vec<_> = (0..17).map(|_| NewJob { batch_id: Some("b".into()), ..job() }).collect();
    store.journal.accept(jobs.clone()).await.unwrap();
    for job in jobs.iter().step_by(3) {
        settle(&store, token(job.id, 0), death()).await;
    }
    let is_dead = |n: usize| n.is_multiple_of(3);
    let ids =
        |keep: &dyn Fn(usize) -> bool| -> Vec<_> { (0..17).rev().filter(|n| keep(*n)).map(|n| jobs[n].id).collect() };
    let filters = [
        (everything(), ids(&|_| true)),
        (JobFilter { standing: Some(Standing::Dead), ..everything() }, ids(&is_dead)),
        (JobFilter { standing: Some(Standing::Live), ..everything() }, ids(&|n| !is_dead(n))),
        (JobFilter { batch_id: Some("b".into()), ..everything() }, ids(&|_| true)),
    ];
    for (filter, expected) in filters {
        let mut page = JobFilter { limit: 5, ..filter };
        let mut found = Vec::new();
        loop {
            let ids = listed(&store, page.clone()).await;
            let Some(last) = ids.last() else { break };
            assert!(ids.len() <= 5);
            page.before = Some(*last);
            found.extend(ids);
        }
        assert_eq!(found, expected, "{page:?}");
    }
}

/// A batch is counted as it stands; one that nobody named is empty.
pub async fn a_batch_is_counted_by_standing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let jobs: Vec<_> = (0..6).map(|_| NewJob { batch_id: Some("b".into()), ..job() }).collect();
    store.journal.accept(jobs.clone()).await.unwrap();
    accept_new(&store, &job()).await;
    settle(&store, token(jobs[0].id, 0), success()).await;
    settle(&store, token(jobs[1].id, 0), death()).await;
    settle(&store, token(jobs[2].id, 0), retry()).await;
    store.journal.cancel(jobs[3].id, None, None, NOW).await.unwrap();
    let counts = store.reads.batch("b", &Within::default()).await.unwrap();
    let expected = [(Standing::Live, 3), (Standing::Succeeded, 1), (Standing::Dead, 1), (Standing::Cancelled, 1)];
    assert_eq!(counts, expected.into());
    assert!(store.reads.batch("nobody", &Within::default()).await.unwrap().is_empty());
}

/// The newest jobs of each batch, wherever its jobs lie, in the order in which the batches were asked for.
pub async fn the_newest_of_a_batch_are_told(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let of = |batch: &str| NewJob { batch_id: Some(batch.into()), tags: vec!["tick:1".into()], ..job() };
    let (long, short): (Vec<_>, _) = ((0..6).map(|_| of("long")).collect(), of("a\u{0}b"));
    store.journal.accept(long.clone()).await.unwrap();
    accept_new(&store, &short).await;
    settle(&store, token(long[5].id, 0), success()).await;
    settle(&store, token(long[4].id, 0), death()).await;
    store.journal.cancel(long[2].id, None, None, NOW).await.unwrap();
    let asked = ["a\u{0}b", "nobody", "long"].map(str::to_owned);
    let found = store.reads.newest_of(&asked, 4).await.unwrap();
    let [of_short, of_nobody, of_long] = found.try_into().unwrap();
    assert!(of_nobody.is_empty());
    assert_eq!(of_short.iter().map(|member| member.id).collect::<Vec<_>>(), [short.id]);
    let shown: Vec<_> = of_long.iter().map(|member| (member.id, member.standing)).collect();
    let expected = [Standing::Succeeded, Standing::Dead, Standing::Live, Standing::Cancelled];
    assert_eq!(shown, [5, 4, 3, 2].map(|n| long[n].id).into_iter().zip(expected).collect::<Vec<_>>());
    let ended = &of_long[0];
    assert_eq!((ended.accepted_at, ended.finished_at), (NOW, Some(NOW.plus_ms(20))));
    assert_eq!((&ended.tags, ended.cost), (&vec!["tick:1".to_owned()], Some(Nanousd(0))));
    assert_eq!(of_long[2].finished_at, None);
}

/// Every way into and out of a state moves the numbers of its queue, and of no other.
pub async fn totals_follow_every_move(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert!(store.reads.totals().await.unwrap().is_empty());
    let jobs: Vec<_> = (0..6).map(|_| job()).collect();
    store.journal.accept(jobs.clone()).await.unwrap();
    accept_new(&store, &NewJob { queue: "other".into(), ..job() }).await;
    settle(&store, token(jobs[0].id, 0), success()).await;
    settle(&store, token(jobs[1].id, 0), death()).await;
    settle(&store, token(jobs[2].id, 0), death()).await;
    store.journal.redrive(jobs[2].id, NOW).await.unwrap();
    store.journal.cancel(jobs[3].id, None, None, NOW).await.unwrap();
    for epoch in 0..3 {
        let (nonce, session) = (Nonce(1), SessionId::generate());
        let lost = Recovery { token: token(jobs[4].id, epoch), nonce, blame: Blame::Alone, session, started_at: None };
        store.journal.recover(vec![lost]).await.unwrap();
    }
    let refused = store.journal.settle(settlement(&store, token(jobs[0].id, 0), death())).await;
    refused.unwrap();
    let totals = store.reads.totals().await.unwrap();
    let expected = QueueTotals { accepted: 6, succeeded: 1, cancelled: 1, dead: 2, died: 3 };
    assert_eq!(totals["default"], expected);
    assert_eq!(totals["other"], QueueTotals { accepted: 1, ..QueueTotals::default() });
    let live = store.reads.live_counts().await.unwrap();
    assert_eq!((live["default"], live["other"]), (2, 1));
}

/// One line a cause: equal signatures are one failure, in the queue that was asked for.
pub async fn dead_letters_are_grouped_by_cause(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let other = JobError::new(ErrorClass::Auth, "401", "bad key");
    for (n, (queue, error)) in
        [("default", failure()), ("default", failure()), ("bulk", failure()), ("bulk", other.clone())]
            .into_iter()
            .enumerate()
    {
        let job = NewJob { queue: queue.into(), ..job() };
        accept_new(&store, &job).await;
        let mut end = settlement(&store, token(job.id, 0), Outcome::Dead { error });
        end.finished_at = NOW.plus_ms(n as i64);
        end.calls = vec![super::call(&job, "chat", Some(10))];
        store.journal.settle(end).await.unwrap();
    }
    let unfolded = store.reads.dead_groups(None, &Within::default()).await.unwrap();
    store.ledger.fold_costs().await.unwrap();
    let groups = store.reads.dead_groups(None, &Within::default()).await.unwrap();
    let told = |groups: &[DeadGroup]| groups.iter().map(|group| format!("{group:?}")).collect::<Vec<_>>();
    assert_eq!(told(&groups), told(&unfolded), "sums that move stay what they are");
    assert_eq!(groups.len(), 2);
    assert_eq!((groups[0].signature.as_str(), groups[0].count), (failure().signature.as_str(), 3));
    assert_eq!((groups[0].first_seen, groups[0].last_seen), (NOW, NOW.plus_ms(2)));
    assert_eq!((groups[0].class.as_str(), groups[0].cost_nanousd), ("server", 30));
    assert_eq!((groups[1].signature.as_str(), groups[1].count), (other.signature.as_str(), 1));
    let bulk = store.reads.dead_groups(Some(&"bulk".into()), &Within::default()).await.unwrap();
    assert_eq!(bulk.iter().map(|group| group.count).collect::<Vec<_>>(), [1, 1]);
    let of_cause = JobFilter { standing: Some(Standing::Dead), signature: Some(failure().signature), ..everything() };
    let mut page = JobFilter { limit: 2, ..of_cause };
    let first = listed(&store, page.clone()).await;
    page.before = first.last().copied();
    let rest = listed(&store, page).await;
    assert_eq!((first.len(), rest.len()), (2, 1), "the letters of a cause, page by page");
    store.journal.redrive(rest[0], NOW).await.unwrap();
    store.journal.record(super::call(&job_of(&store, first[0]).await, "late", Some(7))).await.unwrap();
    let groups = store.reads.dead_groups(None, &Within::default()).await.unwrap();
    assert_eq!((groups[0].count, groups[0].cost_nanousd), (2, 27), "a redrive leaves its group, late money joins it");
}

/// The labels of a job that is there.
async fn job_of(store: &Opened, id: JobId) -> NewJob {
    let row = super::row(store, id).await;
    NewJob { id, queue: row.queue, ..job() }
}

/// Two tenants use one name for a batch and die of one cause; each is told its own, and a key its own of that.
pub async fn what_is_asked_within_a_tenant_stays_in_it(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let of = |tenant: &str, key: Option<&str>| NewJob {
        tenant: tenant.into(),
        key_id: key.map(Into::into),
        batch_id: Some("b".into()),
        ..job()
    };
    let jobs = [of("acme", Some("k1")), of("acme", Some("k2")), of("acme", None), of("globex", Some("k1"))];
    store.journal.accept(jobs.to_vec()).await.unwrap();
    for job in &jobs[..2] {
        settle(&store, token(job.id, 0), death()).await;
    }
    settle(&store, token(jobs[3].id, 0), death()).await;
    settle(&store, token(jobs[2].id, 0), success()).await;
    let within = |tenant: &str, key: Option<&str>| Within { tenant: Some(tenant.into()), key_id: key.map(Into::into) };
    for (within, dead, all, listed_too) in [
        (Within::default(), 3, 4, vec![3, 2, 1, 0]),
        (within("acme", None), 2, 3, vec![2, 1, 0]),
        (within("acme", Some("k2")), 1, 1, vec![1]),
        (within("globex", None), 1, 1, vec![3]),
        (within("globex", Some("k2")), 0, 0, vec![]),
    ] {
        let groups = store.reads.dead_groups(None, &within).await.unwrap();
        assert_eq!(groups.iter().map(|group| group.count).sum::<u64>(), dead, "{within:?}");
        let other = store.reads.dead_groups(Some(&"other".into()), &within).await.unwrap();
        assert!(other.is_empty(), "{within:?}");
        let counts = store.reads.batch("b", &within).await.unwrap();
        assert_eq!(counts.values().sum::<u64>(), all, "{within:?}");
        for standing in [None, Some(Standing::Dead)] {
            let filter =
                JobFilter { tenant: within.tenant.clone(), key_id: within.key_id.clone(), standing, ..everything() };
            let expected = listed_too.iter().filter(|at| standing.is_none() || **at != 2).map(|at| jobs[*at].id);
            assert_eq!(listed(&store, filter).await, expected.collect::<Vec<_>>(), "{within:?} {standing:?}");
        }
    }
}

/// Questions about a job that is not there are answered with nothing.
pub async fn what_is_missing_is_not_there(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let id = JobId::generate();
    assert!(store.reads.jobs(&[id]).await.unwrap()[0].is_none());
    assert!(store.reads.jobs(&[]).await.unwrap().is_empty());
    assert!(store.reads.payload(id).await.unwrap().is_none());
    assert!(store.reads.result(id).await.unwrap().is_none());
    assert!(store.reads.attempts(id).await.unwrap().is_empty());
    assert!(store.reads.calls(id).await.unwrap().is_empty());
    assert!(store.reads.dead_groups(None, &Within::default()).await.unwrap().is_empty());
    assert!(store.reads.live_counts().await.unwrap().is_empty());
    assert!(store.journal.memos(id).await.unwrap().is_empty());
    assert!(listed(&store, everything()).await.is_empty());
}
