//! Claims that are renewed, lost and recovered, and who is blamed.

use super::{Fixture, Scene};
use crate::{
    dispatcher::{Ack, Claim, Entry, Held, LEASE_MS, Lease, Place, SESSION_MS, Setting, Signal, Step, Suspicion},
    ids::{Epoch, Generation, JobId, SessionId},
    journal::{Blame, Recovery},
    time::Timestamp,
};

pub async fn a_lease_lives_by_renewal(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    for _ in 0..8 {
        scene.fixture.advance_ms(SESSION_MS / 2).await;
        assert!(scene.dispatcher.renew(scene.session, &[lease]).await.unwrap().is_empty());
        assert!(scene.dispatcher.reap(9).await.unwrap().is_empty());
    }
}

pub async fn an_expired_lease_stays_expired(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    for _ in 0..(LEASE_MS / (SESSION_MS / 2) + 1) {
        scene.fixture.advance_ms(SESSION_MS / 2).await;
        scene.dispatcher.renew(scene.session, &[]).await.unwrap();
    }
    let expired = scene.dispatcher.reap(9).await.unwrap();
    assert_eq!(expired.len(), 1, "the session lives, the lease was not renewed");
    assert_eq!(scene.dispatcher.renew(scene.session, &[lease]).await.unwrap(), vec![lease]);
    assert_eq!(scene.dispatcher.reap(9).await.unwrap(), expired, "until the journal has spoken it is reported again");
    scene.dispatcher.push(vec![Entry { epoch: Epoch(1), ..entry }]).await.unwrap();
    assert!(scene.dispatcher.reap(9).await.unwrap().is_empty());
}

pub async fn a_lost_session_gives_back_what_it_held(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    scene.push(|_| {}).await;
    let claims = scene.claim(2).await;
    scene.fixture.advance_ms(SESSION_MS).await;
    let expired = scene.dispatcher.reap(9).await.unwrap();
    assert_eq!(expired.len(), 2);
    assert!(claims.iter().all(|claim| expired.iter().any(|lost| lost.token.id == claim.lease.id)));
    // What the journal finds moved, the reaper drops with an ack in nobody's name.
    let lease = Lease { id: expired[0].token.id, epoch: expired[0].token.epoch, nonce: expired[0].nonce };
    let nobody = SessionId(uuid::Uuid::nil());
    scene.step(Step { session: nobody, acks: vec![Ack { lease, next: None }], ..scene.asking(0) }).await;
    assert_eq!(scene.dispatcher.reap(9).await.unwrap().len(), 1);

    let other = scene.another().await;
    let entry = other.push(|_| {}).await;
    other.claim(1).await;
    other.dispatcher.leave(other.session).await.unwrap();
    let expired = other.dispatcher.reap(9).await.unwrap();
    assert!(expired.iter().any(|lost| lost.token.id == entry.id), "a session that leaves is lost at once");
}

/// What each of these jobs is blamed for.
fn blamed(lost: &[Recovery], ids: &[JobId]) -> Vec<Blame> {
    let of = |id: &JobId| lost.iter().find(|one| one.token.id == *id).map(|one| one.blame);
    ids.iter().map(|id| of(id).unwrap()).collect()
}

impl Scene<'_> {
    async fn push_suspected(&self, suspicion: Suspicion) -> JobId {
        // One after the other, so that they come in this order.
        self.fixture.advance_ms(1).await;
        self.push(|entry| entry.suspicion = suspicion).await.id
    }

    async fn start_all(&self, claims: &[Claim]) -> Vec<JobId> {
        let leases: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
        self.dispatcher.start(self.session, &leases).await.unwrap();
        leases.iter().map(|lease| lease.id).collect()
    }

    /// The session ends with everything that it holds.
    async fn die(&self) -> Vec<Recovery> {
        self.dispatcher.leave(self.session).await.unwrap();
        self.dispatcher.reap(99).await.unwrap()
    }
}

pub async fn only_started_attempts_count(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for suspicion in [Suspicion::None, Suspicion::None, Suspicion::Suspect, Suspicion::Isolated] {
        scene.push_suspected(suspicion).await;
    }
    let claims = scene.claim(9).await;
    let ids = scene.start_all(&claims[..1]).await;
    let lost = scene.die().await;
    assert_eq!(lost.len(), 4);
    for lost in lost {
        let started = lost.token.id == ids[0];
        // However suspect the others are, they did not run.
        assert_eq!(lost.blame, if started { Blame::Alone } else { Blame::Nobody });
        assert_eq!(lost.started_at.is_some(), started);
    }
}

pub async fn the_first_start_stands(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for _ in 0..2 {
        scene.push(|_| {}).await;
    }
    let claims = scene.claim(2).await;
    let [first, second] = [claims[0].lease, claims[1].lease];
    let started_at = async |lease: Lease| match scene.place(lease.id).await {
        Place::Leased { started_at, .. } => started_at,
        place => panic!("{place:?}"),
    };
    scene.dispatcher.start(scene.session, &[first]).await.unwrap();
    let began = started_at(first).await;
    assert!(began.is_some());
    scene.fixture.advance_ms(1_000).await;
    scene.dispatcher.start(scene.session, &[first, second]).await.unwrap();
    assert_eq!(started_at(first).await, began, "told again, since its answer was lost");
    assert!(started_at(second).await > began, "the one beside it begins now");
}

pub async fn one_suspect_takes_the_blame(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let suspect = scene.push_suspected(Suspicion::Suspect).await;
    let others = [scene.push_suspected(Suspicion::None).await, scene.push_suspected(Suspicion::None).await];
    assert_eq!(scene.start_all(&scene.claim(9).await).await.len(), 3);
    let lost = scene.die().await;
    assert_eq!(blamed(&lost, &[suspect]), [Blame::Alone]);
    assert_eq!(blamed(&lost, &others), [Blame::Nobody; 2], "its neighbours are not to blame");

    let scene = scene.another().await;
    let plain = [scene.push_suspected(Suspicion::None).await, scene.push_suspected(Suspicion::None).await];
    scene.start_all(&scene.claim(9).await).await;
    assert_eq!(blamed(&scene.die().await, &plain), [Blame::Shared; 2], "each may have done it");
}

pub async fn suspects_run_beside_each_other_and_share_the_blame(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let suspects = [scene.push_suspected(Suspicion::Suspect).await, scene.push_suspected(Suspicion::Suspect).await];
    let plain = scene.push_suspected(Suspicion::None).await;
    let held = scene.start_all(&scene.claim(9).await).await;
    assert_eq!(held, [suspects[0], suspects[1], plain], "in their order, and at once");
    let more = scene.push_suspected(Suspicion::Suspect).await;
    assert_eq!(scene.claim_ids(9).await, [more]);
    let lost = scene.die().await;
    assert_eq!(blamed(&lost, &suspects), [Blame::Shared; 2]);
    assert_eq!(blamed(&lost, &[plain, more]), [Blame::Nobody; 2], "the second one had not started");
}

pub async fn an_isolated_job_is_kept_from_its_like_and_takes_the_blame(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let isolated = [scene.push_suspected(Suspicion::Isolated).await, scene.push_suspected(Suspicion::Isolated).await];
    let suspects = [scene.push_suspected(Suspicion::Suspect).await, scene.push_suspected(Suspicion::Suspect).await];
    let plain = scene.push_suspected(Suspicion::None).await;
    let held = scene.start_all(&scene.claim(9).await).await;
    assert_eq!(held, [isolated[0], suspects[0], suspects[1], plain], "one such job in a process, whoever else");
    let other = scene.another().await;
    assert_eq!(other.claim_ids(9).await, [isolated[1]], "another process may run the other one");
    let lost = scene.die().await;
    assert_eq!(blamed(&lost, &isolated[..1]), [Blame::Alone]);
    assert_eq!(blamed(&lost, &[suspects[0], suspects[1], plain]), [Blame::Nobody; 3]);
}

pub async fn blame_is_decided_once(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    for (suspects, blame) in [(1, Blame::Alone), (3, Blame::Shared)] {
        let mut suspected = vec![];
        for _ in 0..suspects {
            suspected.push(scene.push_suspected(Suspicion::Suspect).await);
        }
        for _ in 0..3 {
            scene.push(|_| {}).await;
        }
        let held = scene.start_all(&scene.claim(9).await).await;
        scene.fixture.advance_ms(SESSION_MS).await;
        let mut seen = vec![];
        for _ in &held {
            // In pieces, the suspects first: what is left must not be judged as if it had run without them.
            let mut lost = scene.dispatcher.reap(9).await.unwrap();
            lost.sort_by_key(|lost| !suspected.contains(&lost.token.id));
            seen.push(lost[0].blame);
            let lease = Lease { id: lost[0].token.id, epoch: lost[0].token.epoch, nonce: lost[0].nonce };
            scene.ack(lease, None).await;
        }
        assert_eq!(seen[..suspects], vec![blame; suspects]);
        assert_eq!(seen[suspects..], [Blame::Nobody; 3]);
        assert!(scene.dispatcher.reap(9).await.unwrap().is_empty());
        scene = scene.another().await;
    }
}

/// As if the session had died now: with what is renewed, and with what was lost before and is not replaced yet.
pub async fn a_lease_that_ends_by_itself_is_judged_among_what_its_session_holds(fixture: &dyn Fixture) {
    for (suspects, blame) in [(1, Blame::Alone), (2, Blame::Shared)] {
        let scene = Scene::open(fixture).await.another().await;
        let mut suspected = vec![];
        for _ in 0..suspects {
            suspected.push(scene.push_suspected(Suspicion::Suspect).await);
        }
        let plain = scene.push_suspected(Suspicion::None).await;
        let mut claims = scene.claim(9).await;
        scene.start_all(&claims).await;
        let mut ended = vec![];
        for (id, expected) in [(plain, Blame::Nobody)].into_iter().chain(suspected.iter().map(|id| (*id, blame))) {
            claims.retain(|claim| claim.lease.id != id);
            let renewed: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
            for _ in 0..=LEASE_MS / (SESSION_MS / 2) {
                scene.fixture.advance_ms(SESSION_MS / 2).await;
                assert!(scene.dispatcher.renew(scene.session, &renewed).await.unwrap().is_empty());
                scene.dispatcher.reap(0).await.unwrap();
            }
            let lost = scene.dispatcher.reap(9).await.unwrap();
            ended.push(id);
            assert_eq!(lost.len(), ended.len(), "the others are renewed");
            assert_eq!(blamed(&lost, &[id]), [expected]);
        }
        for lost in scene.dispatcher.reap(9).await.unwrap() {
            let lease = Lease { id: lost.token.id, epoch: lost.token.epoch, nonce: lost.nonce };
            scene.ack(lease, None).await;
        }
    }
}

pub async fn a_reap_is_bounded_and_repeats(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for _ in 0..5 {
        scene.push(|_| {}).await;
    }
    scene.claim(5).await;
    scene.dispatcher.leave(scene.session).await.unwrap();
    let first = scene.dispatcher.reap(2).await.unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(scene.dispatcher.reap(2).await.unwrap(), first, "a reaper that died is followed by another one");
    assert_eq!(scene.dispatcher.reap(9).await.unwrap().len(), 5);
}

pub async fn a_lost_claim_may_still_be_settled(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    scene.fixture.advance_ms(LEASE_MS).await;
    assert_eq!(scene.dispatcher.reap(9).await.unwrap().len(), 1);
    // The journal's fence let it settle: its ack is as good as ever.
    scene.ack(lease, Some(Entry { epoch: Epoch(1), ..entry.clone() })).await;
    assert_eq!(scene.place(entry.id).await, Place::Waiting { epoch: Epoch(1) });
    assert!(scene.dispatcher.reap(9).await.unwrap().is_empty());
}

pub async fn a_worker_that_slept_goes_on(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    scene.fixture.advance_ms(SESSION_MS * 4).await;
    assert!(scene.dispatcher.reap(9).await.unwrap().is_empty());
    assert!(scene.dispatcher.sessions(&[]).await.unwrap().alive.is_empty());
    scene.dispatcher.renew(scene.session, &[]).await.unwrap();
    assert_eq!(scene.dispatcher.sessions(&[]).await.unwrap().alive.len(), 1);
    assert!(scene.claim(1).await.is_empty());
    scene.drain_signals().await;
    let entry = scene.push(|_| {}).await;
    assert_eq!(scene.told().await, Some(Signal::Work), "it is still told");
    assert_eq!(scene.claim_ids(1).await, vec![entry.id]);
}

pub async fn who_is_gone_is_told_from_who_is_silent(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let other = scene.another().await;
    let stranger = SessionId::generate();
    let asked = [scene.session, other.session, stranger];
    let present = scene.dispatcher.sessions(&asked).await.unwrap();
    assert_eq!((present.alive.len(), present.gone), (2, vec![stranger]), "nobody has heard of it");
    assert!(scene.dispatcher.sessions(&[]).await.unwrap().gone.is_empty());
    scene.fixture.advance_ms(SESSION_MS).await;
    let present = scene.dispatcher.sessions(&asked).await.unwrap();
    assert_eq!((present.alive.len(), present.gone), (0, vec![stranger]), "a process that sleeps is connected");
}

pub async fn a_reapers_ack_revives_nobody(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    scene.fixture.advance_ms(SESSION_MS).await;
    assert_eq!(scene.dispatcher.reap(9).await.unwrap().len(), 1);
    scene.ack(lease, None).await;
    assert!(scene.dispatcher.sessions(&[]).await.unwrap().alive.is_empty());
    assert_eq!(scene.place(lease.id).await, Place::Unknown);
}

pub async fn only_the_holder_renews_and_starts(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    let other = scene.another().await;
    assert_eq!(other.dispatcher.renew(other.session, &[lease]).await.unwrap(), vec![lease]);
    other.dispatcher.start(other.session, &[lease]).await.unwrap();
    assert!(matches!(scene.place(lease.id).await, Place::Leased { started_at: None, .. }));
    let started_at = Some(scene.now());
    scene.dispatcher.start(scene.session, &[lease]).await.unwrap();
    let place = Place::Leased { epoch: Epoch(0), session: scene.session, started_at };
    assert_eq!(scene.place(lease.id).await, place);
}

/// A claim as its worker remembers it.
fn held(entry: &Entry, lease: Lease, started_at: Option<Timestamp>) -> Held {
    Held { lease, entry: entry.clone(), started_at }
}

pub async fn what_ran_before_a_flush_is_held_again(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    scene.dispatcher.apply(Setting::TargetConcurrency("t".into(), Some(1))).await.unwrap();
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    let started_at = Some(scene.now());
    scene.dispatcher.start(scene.session, &[lease]).await.unwrap();

    scene.dispatcher.begin(Generation(2)).await.unwrap();
    scene.dispatcher.apply(Setting::TargetConcurrency("t".into(), Some(1))).await.unwrap();
    scene.signals = scene.dispatcher.join(scene.session, vec![held(&entry, lease, started_at)]).await.unwrap();
    let place = Place::Leased { epoch: entry.epoch, session: scene.session, started_at };
    assert_eq!(scene.place(entry.id).await, place);
    assert!(scene.dispatcher.renew(scene.session, &[lease]).await.unwrap().is_empty());

    scene.dispatcher.push(vec![entry.clone()]).await.unwrap();
    assert_eq!(scene.place(entry.id).await, place, "the rebuild's push of it changes nothing");
    let next = scene.push(|_| {}).await;
    assert!(scene.claim(9).await.is_empty(), "limits count what is held again");
    scene.ack(lease, None).await;
    assert_eq!(scene.place(entry.id).await, Place::Unknown);
    assert_eq!(scene.claim_ids(9).await, vec![next.id]);
}

pub async fn what_ran_before_a_flush_is_taken_out_of_its_lane(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    scene.dispatcher.begin(Generation(2)).await.unwrap();
    scene.dispatcher.push(vec![entry.clone()]).await.unwrap();
    let _signals = scene.dispatcher.join(scene.session, vec![held(&entry, lease, None)]).await.unwrap();
    assert!(scene.claim(9).await.is_empty(), "nobody else gets it");
    assert!(scene.dispatcher.renew(scene.session, &[lease]).await.unwrap().is_empty());
    assert_eq!(scene.dispatcher.depths().await.unwrap()[0].active, 1);
}

pub async fn what_went_on_since_a_flush_is_not_held_again(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let (moved, taken) = (scene.push(|_| {}).await, scene.push(|_| {}).await);
    let claims = scene.claim(9).await;
    let lease_of = |entry: &Entry| claims.iter().find(|claim| claim.lease.id == entry.id).map(|claim| claim.lease);
    let (lease, other_lease) = (lease_of(&moved).unwrap(), lease_of(&taken).unwrap());
    scene.dispatcher.begin(Generation(2)).await.unwrap();
    scene.dispatcher.push(vec![taken.clone()]).await.unwrap();
    let other = scene.another().await;
    assert_eq!(other.claim_ids(9).await, vec![taken.id]);
    let later = Entry { epoch: Epoch(moved.epoch.0 + 1), ..moved.clone() };
    scene.dispatcher.push(vec![later.clone()]).await.unwrap();

    let before = vec![held(&moved, lease, None), held(&taken, other_lease, None)];
    let _signals = scene.dispatcher.join(scene.session, before).await.unwrap();
    assert_eq!(scene.place(moved.id).await, Place::Waiting { epoch: later.epoch });
    let mut gone = scene.dispatcher.renew(scene.session, &[lease, other_lease]).await.unwrap();
    gone.sort_unstable_by_key(|lease| lease.id);
    let mut both = vec![lease, other_lease];
    both.sort_unstable_by_key(|lease| lease.id);
    assert_eq!(gone, both);
}

pub async fn what_ran_before_a_flush_is_suspected_as_before(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let mut held = vec![];
    let levels = [Suspicion::Isolated, Suspicion::Suspect, Suspicion::None];
    for suspicion in levels {
        let entry = scene.push(|entry| entry.suspicion = suspicion).await;
        let lease = scene.claim(9).await[0].lease;
        scene.dispatcher.start(scene.session, &[lease]).await.unwrap();
        held.push(self::held(&entry, lease, Some(scene.now())));
    }
    let ids: Vec<_> = held.iter().map(|held| held.lease.id).collect();
    scene.dispatcher.begin(Generation(2)).await.unwrap();
    let _signals = scene.dispatcher.join(scene.session, held).await.unwrap();
    let isolated = scene.push_suspected(Suspicion::Isolated).await;
    assert!(scene.claim(9).await.is_empty(), "it holds one");
    assert_eq!(blamed(&scene.die().await, &ids), [Blame::Alone, Blame::Nobody, Blame::Nobody]);
    assert_eq!(scene.another().await.claim_ids(9).await, [isolated]);
}
