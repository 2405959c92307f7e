//! Workers that serve some kinds only.

use super::{Fixture, Scene};
use crate::{
    dispatcher::{Ack, Claim, Setting, Signal, Step, Suspicion, Wait},
    ids::JobId,
    job::Kind,
    journal::QueueSettings,
};

fn ids(claims: &[Claim]) -> Vec<JobId> {
    claims.iter().map(|claim| claim.lease.id).collect()
}

impl Scene<'_> {
    async fn claim_of(&self, kinds: &[Kind], slots: usize) -> Vec<Claim> {
        self.step(Step { kinds: kinds.to_vec(), ..self.asking(slots) }).await.claims
    }

    async fn push_of(&self, kind: Kind, tenant: &str) -> JobId {
        let (tenant, run_at) = (tenant.into(), self.now());
        self.push(|entry| (entry.kind, entry.tenant, entry.run_at) = (kind, tenant, run_at)).await.id
    }
}

pub async fn a_worker_serves_the_kinds_it_names(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let mut pushed = vec![];
    for kind in Kind::ALL {
        pushed.push(scene.push_of(kind, "acme").await);
        scene.push(|entry| (entry.kind, entry.suspicion) = (kind, Suspicion::Isolated)).await;
    }
    let embeddings = scene.claim_of(&[Kind::Embedding], 9).await;
    assert_eq!(embeddings.len(), 2, "an isolated one of its kind too, and no other");
    assert_eq!(embeddings[0].lease.id, pushed[1]);
    // It holds an isolated one: no other such.
    assert_eq!(ids(&scene.claim_of(&[Kind::Probe, Kind::Analysis], 9).await), [pushed[2], pushed[3]]);
    // Its queues still count.
    let mine = scene.push(|entry| (entry.kind, entry.queue) = (Kind::Probe, "mine".into())).await.id;
    scene.push_of(Kind::Probe, "acme").await;
    let step = Step { queues: vec!["mine".into()], kinds: vec![Kind::Llm, Kind::Probe], ..scene.asking(9) };
    assert_eq!(ids(&scene.step(step).await.claims), [mine]);
    // Whoever names none serves all.
    let other = scene.another().await;
    let rest = other.claim(9).await.len() + other.claim(9).await.len();
    assert_eq!(rest, 5, "the four plain ones and one isolated");
}

pub async fn kinds_share_turns_and_order(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    // In one lane the kinds are in one order.
    let (plain, urgent) = (scene.entry(), scene.entry());
    scene.push(|entry| (entry.id, entry.kind) = (plain.id, Kind::Embedding)).await;
    scene.push(|entry| (entry.id, entry.priority, entry.kind) = (urgent.id, 9, Kind::Llm)).await;
    assert_eq!(scene.claim_ids(1).await, [urgent.id]);
    assert_eq!(scene.claim_ids(1).await, [plain.id]);

    // Who submits two kinds has no second turn in the round.
    let mut of_a = vec![];
    for kind in [Kind::Llm, Kind::Embedding, Kind::Llm, Kind::Embedding] {
        of_a.push(scene.push_of(kind, "a").await);
    }
    let of_b = [scene.push_of(Kind::Llm, "b").await, scene.push_of(Kind::Llm, "b").await];
    let turns: Vec<_> = scene.claim_ids(4).await.iter().map(|id| of_b.contains(id)).collect();
    assert_eq!(turns, [false, true, false, true]);
}

pub async fn a_turn_of_one_kind_is_had_for_all(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let of_a = [scene.push_of(Kind::Llm, "a").await, scene.push_of(Kind::Embedding, "a").await];
    let of_b = scene.push_of(Kind::Llm, "b").await;
    assert_eq!(ids(&scene.claim_of(&[Kind::Embedding], 1).await), [of_a[1]]);
    assert_eq!(scene.claim_ids(2).await, [of_b, of_a[0]], "a stands behind b now");
}

pub async fn kinds_share_limits(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    let only = |concurrency| QueueSettings { concurrency, ..QueueSettings::default() };
    scene.set_queue(1, only(Some(1))).await;
    let first = scene.push_of(Kind::Llm, "acme").await;
    let second = scene.push_of(Kind::Embedding, "acme").await;
    let mut embedder = scene.another().await;
    let held = scene.claim_of(&[Kind::Llm], 9).await;
    assert_eq!(ids(&held), [first]);
    assert!(embedder.claim_of(&[Kind::Embedding], 9).await.is_empty());
    embedder.drain_signals().await;
    scene.drain_signals().await;
    scene.ack(held[0].lease, None).await;
    assert_eq!(embedder.told().await, Some(Signal::Work), "the place is free for its kind");
    assert_eq!(scene.told().await, None, "nothing of its kind waits");
    let held = embedder.claim_of(&[Kind::Embedding], 9).await;
    assert_eq!(ids(&held), [second]);

    scene.set_queue(2, only(None)).await;
    scene.dispatcher.apply(Setting::TargetConcurrency("t".into(), Some(1))).await.unwrap();
    let third = scene.push_of(Kind::Llm, "acme").await;
    assert!(scene.claim_of(&[Kind::Llm], 9).await.is_empty());
    let acks = held.iter().map(|claim| Ack { lease: claim.lease, next: None }).collect();
    let step = Step { acks, kinds: vec![Kind::Embedding], ..embedder.asking(9) };
    assert!(embedder.step(step).await.claims.is_empty());
    assert_eq!(ids(&scene.claim_of(&[Kind::Llm], 9).await), [third]);
}

pub async fn a_worker_is_woken_for_its_kinds(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    assert!(scene.claim_of(&[Kind::Embedding, Kind::Analysis], 9).await.is_empty());
    scene.drain_signals().await;
    scene.push_of(Kind::Llm, "acme").await;
    scene.push(|entry| (entry.kind, entry.suspicion) = (Kind::Probe, Suspicion::Isolated)).await;
    assert_eq!(scene.told().await, None);
    // Neither after a step that only acks, nor because an operator stirred the queue.
    scene.step(scene.asking(0)).await;
    scene.set_queue(1, QueueSettings { paused: true, ..QueueSettings::default() }).await;
    scene.set_queue(2, QueueSettings::default()).await;
    assert_eq!(scene.told().await, None);
    let mine = scene.push_of(Kind::Analysis, "acme").await;
    assert_eq!(scene.told().await, Some(Signal::Work));
    assert_eq!(ids(&scene.claim_of(&[Kind::Embedding, Kind::Analysis], 9).await), [mine]);
    scene.drain_signals().await;
    scene.push_of(Kind::Llm, "acme").await;
    assert_eq!(scene.told().await, None);
    // A worker that joins again is asked what it serves with its next claim, and is woken for what it served till then.
    scene.signals = scene.dispatcher.join(scene.session, vec![]).await.unwrap();
    scene.step(scene.asking(0)).await;
    scene.drain_signals().await;
    scene.push_of(Kind::Llm, "acme").await;
    assert_eq!(scene.told().await, None);
    assert_eq!(scene.claim(9).await.len(), 4);
}

pub async fn a_job_of_a_kind_that_nobody_serves_says_so(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.claim_of(&[Kind::Embedding], 9).await;
    let (llm, isolated) = (scene.entry(), scene.entry());
    scene.push(|entry| entry.id = llm.id).await;
    scene.push(|entry| (entry.id, entry.suspicion) = (isolated.id, Suspicion::Isolated)).await;
    for id in [llm.id, isolated.id] {
        assert!(scene.dispatcher.explain(id).await.unwrap().contains(&Wait::NoWorker));
    }
    // One worker may serve the kind and another the queue: neither serves the job.
    let other = scene.another().await;
    other.step(Step { queues: vec!["else".into()], kinds: vec![Kind::Llm], ..other.asking(1) }).await;
    assert!(scene.dispatcher.explain(llm.id).await.unwrap().contains(&Wait::NoWorker));
    // Kinds of one tenant are one lane of the queue.
    other.push_of(Kind::Embedding, "acme").await;
    other.push_of(Kind::Embedding, "b").await;
    let third = scene.another().await;
    let queues = vec!["default".into()];
    third.step(Step { queues, kinds: vec![Kind::Analysis, Kind::Llm], ..third.asking(1) }).await;
    let waits = scene.dispatcher.explain(isolated.id).await.unwrap();
    assert_eq!(waits, [Wait::Turn { ahead_in_lane: 0, lanes: 2 }]);
}
