//! Whose key a call is made with, and what becomes of jobs whose tenant has none, or one that does not work.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::rig::Rig;
use async_trait::async_trait;
use queue_core::{
    breaker::State,
    credentials::{CredentialPolicy, CredentialState, Credentials, MasterKeys, own},
    dispatcher::Wait,
    error::ErrorClass as C,
    ids::{JobId, Name},
    job::Kind,
    journal::TenantSettings,
    ledger::Usage,
    state::Standing,
    time::Timestamp,
};
use secrecy::ExposeSecret;
use worker::{
    coalesce::{Coalescer, Coalescing},
    provider::{Call, CallError, ChatAnswer, ChatRequest, EmbedAnswer, EmbedRequest, Provider, Providers},
};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
const DEFAULT: &str = "keyed:m:default";
const GOOD: &str = "sk-good-0123456789abcdef";
const BAD: &str = "sk-bad-0123456789abcdef";
const POOR: &str = "sk-poor-0123456789abcdef";

/// A provider that looks at the key of each call.
#[derive(Default)]
struct Keyed {
    seen: Mutex<Vec<Option<String>>>,
    refuses: Mutex<BTreeSet<String>>,
}

impl Keyed {
    fn new() -> Arc<Self> {
        let keyed = Self::default();
        keyed.refuses.lock().unwrap().insert(BAD.into());
        Arc::new(keyed)
    }

    fn hear(&self, call: &Call<'_>) -> Result<(), CallError> {
        let key = call.key.map(|key| key.expose_secret().to_owned());
        self.seen.lock().unwrap().push(key.clone());
        match key {
            Some(key) if self.refuses.lock().unwrap().contains(&key) => {
                Err(CallError::unbilled(C::Auth, "invalid_api_key", "status 401: Incorrect API key provided"))
            }
            Some(key) if key == POOR => {
                Err(CallError::unbilled(C::Quota, "insufficient_quota", "status 429: you exceeded your current quota"))
            }
            _ => Ok(()),
        }
    }

    /// The keys of the calls so far, in order; `None` is the operator's.
    fn seen(&self) -> Vec<Option<String>> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self, key: Option<&str>) -> usize {
        self.seen().iter().filter(|seen| seen.as_deref() == key).count()
    }
}

#[async_trait]
impl Provider for Keyed {
    fn name(&self) -> &str {
        "keyed"
    }

    async fn chat(&self, _: &ChatRequest, call: Call<'_>) -> Result<ChatAnswer, CallError> {
        self.hear(&call)?;
        let usage = Some(Usage { tokens_in: 1, tokens_out: 1, ..Usage::default() });
        Ok(ChatAnswer { text: "yes".into(), finish: "stop".into(), model: "m".into(), usage, ..ChatAnswer::default() })
    }

    async fn embed(&self, request: &EmbedRequest, call: Call<'_>) -> Result<EmbedAnswer, CallError> {
        self.hear(&call)?;
        let vectors = request.input.iter().map(|_| vec![1.0]).collect();
        Ok(EmbedAnswer { vectors, model: "m".into(), ..EmbedAnswer::default() })
    }

    async fn check(&self) -> Result<(), CallError> {
        Ok(())
    }
}

struct Scene {
    rig: Rig,
    keyed: Arc<Keyed>,
    credentials: Arc<Credentials>,
}

impl Scene {
    /// Stores with a vault and master keys, and no worker yet.
    async fn new() -> Self {
        let keyed = Keyed::new();
        let mut rig = Rig::new(Providers::from([("keyed".to_owned(), keyed.clone() as Arc<dyn Provider>)])).await;
        let credentials = Arc::new(Credentials::of(rig.stores.vault.clone()));
        credentials.set_master_keys(Ok(master()));
        credentials.refresh().await.unwrap();
        rig.around.credentials = credentials.clone();
        let fresh = credentials.clone();
        tokio::spawn(async move { fresh.keep_fresh().await });
        Self { rig, keyed, credentials }
    }

    fn work(&mut self) {
        self.rig.work(8, Duration::ZERO);
    }

    async fn set(&self, tenant: &str, key: &str) {
        let now = self.rig.stores.clock.now();
        self.credentials.set(&tenant.into(), &"keyed".into(), &key.into(), now).await.unwrap();
    }

    async fn policy(&self, tenant: &str, credential_policy: CredentialPolicy) {
        let settings = TenantSettings { credential_policy, ..TenantSettings::default() };
        self.rig.stores.catalog.set_tenant(&tenant.into(), settings).await.unwrap();
        self.credentials.refresh().await.unwrap();
    }

    /// Submits as the API does: in the lane of whoever's key would be used now.
    async fn submit(&self, tenant: &str) -> JobId {
        let lane = self.credentials.lane_of(&tenant.into(), &DEFAULT.into());
        self.submit_in(tenant, lane).await
    }

    async fn submit_in(&self, tenant: &str, lane: Name) -> JobId {
        self.rig.submit(Kind::Llm, CHAT, |job| (job.tenant, job.target) = (tenant.into(), lane)).await
    }

    async fn succeeds(&self, id: JobId) {
        let row = self.rig.ended(id).await;
        assert_eq!(row.standing, Standing::Succeeded, "{:?}", row.error);
    }

    /// Waits until the job waits for a key, and returns what `why` says.
    async fn keyless(&self, id: JobId) -> String {
        let mut said = String::new();
        self.rig
            .until("it waits for a key", async || {
                let waits = self.rig.stores.dispatcher.explain(id).await.unwrap();
                said = match waits.first() {
                    Some(Wait::TargetParked { reason, .. }) => reason.clone(),
                    _ => String::new(),
                };
                said.starts_with("credential: ")
            })
            .await;
        said
    }

    async fn lane(&self, id: JobId) -> String {
        self.rig.row(id).await.target.to_string()
    }

    fn state(&self, tenant: &str) -> CredentialState {
        self.credentials.list(&tenant.into())[0].state
    }
}

fn master() -> MasterKeys {
    MasterKeys::parse(MasterKeys::generate().unwrap().expose_secret()).unwrap()
}

#[tokio::test]
async fn a_tenants_key_is_used_for_its_own_calls_and_stands_in_the_ledger() {
    let mut scene = Scene::new().await;
    scene.set("acme", GOOD).await;
    scene.work();
    let (own_job, other) = (scene.submit("acme").await, scene.submit("globex").await);
    scene.succeeds(own_job).await;
    scene.succeeds(other).await;
    assert_eq!((scene.keyed.count(Some(GOOD)), scene.keyed.count(None)), (1, 1));
    assert_eq!(scene.lane(own_job).await, "keyed:m:@acme");
    let credential = async |id| scene.rig.stores.reads.calls(id).await.unwrap()[0].credential.clone();
    assert_eq!((credential(own_job).await.as_str(), credential(other).await.as_str()), ("@acme", "default"));
    scene.policy("acme", CredentialPolicy::Default).await;
    let ignored = scene.submit("acme").await;
    scene.succeeds(ignored).await;
    assert_eq!(scene.keyed.count(None), 2, "its own key is there and not wanted");
    assert_eq!(scene.lane(ignored).await, DEFAULT);
}

/// Jobs of before the key was set, changed or deleted use what is there when they run.
#[tokio::test]
async fn whose_key_it_is_is_decided_when_the_call_is_made() {
    let mut scene = Scene::new().await;
    let before = scene.submit("acme").await;
    scene.set("acme", "sk-first-0123456789abcdef").await;
    let during = scene.submit("acme").await;
    scene.set("acme", GOOD).await;
    scene.work();
    scene.succeeds(before).await;
    scene.succeeds(during).await;
    assert_eq!(scene.keyed.seen(), [Some(GOOD.to_owned()), Some(GOOD.to_owned())]);
    assert_eq!(scene.lane(before).await, DEFAULT, "it never had to wait, so it never moved");

    let (acme, keyed) = ("acme".into(), "keyed".into());
    let in_own_lane = scene.submit_in("acme", "keyed:m:@acme".into()).await;
    scene.succeeds(in_own_lane).await;
    assert!(scene.credentials.change(&acme, &keyed, CredentialState::Deleted, None).await.unwrap());
    let after = scene.submit_in("acme", "keyed:m:@acme".into()).await;
    scene.succeeds(after).await;
    assert_eq!(scene.keyed.count(None), 1, "its key is deleted, and it may use the operator's");
    scene.set("acme", GOOD).await;
    let again = scene.submit("acme").await;
    scene.succeeds(again).await;
    assert_eq!(scene.keyed.count(Some(GOOD)), 4);
}

#[tokio::test]
async fn without_a_key_of_its_own_a_tenant_waits_and_never_uses_the_operators() {
    let mut scene = Scene::new().await;
    // Of before the policy: it stands in everybody's lane.
    let early = scene.submit("acme").await;
    scene.policy("acme", CredentialPolicy::OwnOnly).await;
    scene.work();
    let jobs = [early, scene.submit("acme").await, scene.submit("acme").await];
    for id in jobs {
        let why = scene.keyless(id).await;
        assert!(
            why.contains("acme has no key for keyed") && why.contains("longshore credential set acme keyed"),
            "{why}"
        );
        let row = scene.rig.row(id).await;
        assert_eq!((row.standing, row.attempts), (Standing::Live, 0), "{:?}", row.error);
        assert_eq!(row.target.as_str(), "keyed:m:@acme", "it waits where it belongs");
    }
    let other = scene.submit("globex").await;
    scene.succeeds(other).await;
    assert_eq!(scene.keyed.seen(), [None], "nobody was asked for acme");
    scene.set("acme", GOOD).await;
    for id in jobs {
        scene.succeeds(id).await;
    }
    assert_eq!((scene.keyed.count(Some(GOOD)), scene.keyed.count(None)), (3, 1));
    let rows = scene.rig.stores.reads.attempts(jobs[1]).await.unwrap();
    assert!(rows.iter().filter(|attempt| attempt.outcome != "release").count() == 1, "{rows:?}");
}

#[tokio::test]
async fn a_refused_key_is_disabled_and_its_jobs_wait_for_another() {
    let mut scene = Scene::new().await;
    scene.policy("acme", CredentialPolicy::OwnOnly).await;
    scene.set("acme", BAD).await;
    scene.work();
    let mut jobs = vec![];
    for _ in 0..6 {
        jobs.push(scene.submit("acme").await);
    }
    for &id in &jobs {
        let why = scene.keyless(id).await;
        assert!(why.contains("is disabled") || why.contains("was refused"), "{why}");
        assert!(!why.contains(BAD), "{why}");
    }
    assert_eq!(scene.state("acme"), CredentialState::Disabled);
    let kept = scene.credentials.list(&"acme".into()).remove(0);
    assert!(kept.reason.as_deref().unwrap().contains("401") && kept.failures >= 3, "{kept:?}");
    assert!(scene.keyed.count(Some(BAD)) >= 3);
    // Nothing of it touches what others use.
    let circuits = scene.rig.stores.breakers.list().await.unwrap();
    assert!(circuits.iter().all(|circuit| circuit.state == State::Closed), "{circuits:?}");
    let other = scene.submit("globex").await;
    scene.succeeds(other).await;
    let asked = scene.keyed.count(Some(BAD));
    scene.set("acme", GOOD).await;
    for id in jobs {
        scene.succeeds(id).await;
    }
    assert_eq!((scene.keyed.count(Some(BAD)), scene.state("acme")), (asked, CredentialState::Active));
}

#[tokio::test]
async fn a_refused_key_gives_way_to_the_operators_only_where_it_may() {
    let mut scene = Scene::new().await;
    scene.set("acme", BAD).await;
    scene.work();
    let mut jobs = vec![];
    for _ in 0..4 {
        jobs.push(scene.submit("acme").await);
    }
    for id in jobs {
        scene.succeeds(id).await;
    }
    assert_eq!((scene.state("acme"), scene.keyed.count(None)), (CredentialState::Disabled, 4));
    assert!(scene.keyed.count(Some(BAD)) >= 3);
}

/// A refusal that is followed by a success was none.
#[tokio::test]
async fn a_key_that_works_again_has_no_refusals() {
    let mut scene = Scene::new().await;
    scene.set("acme", BAD).await;
    scene.work();
    for _ in 0..3 {
        scene.keyed.refuses.lock().unwrap().insert(BAD.into());
        let id = scene.submit("acme").await;
        let failures = async || scene.credentials.list(&"acme".into())[0].failures;
        scene.rig.until("it was refused", async || failures().await >= 1).await;
        scene.keyed.refuses.lock().unwrap().clear();
        scene.succeeds(id).await;
        assert_eq!((failures().await, scene.state("acme")), (0, CredentialState::Active));
    }
}

#[tokio::test]
async fn an_exhausted_key_parks_its_own_account_and_no_other() {
    let mut scene = Scene::new().await;
    scene.set("acme", POOR).await;
    scene.set("globex", GOOD).await;
    scene.work();
    let poor = scene.submit("acme").await;
    let open = async |circuit: &str| {
        let circuits = scene.rig.stores.breakers.list().await.unwrap();
        circuits.iter().any(|one| one.circuit.as_str() == circuit && one.state != State::Closed)
    };
    scene.rig.until("the account is left alone", async || open("keyed:*:@acme").await).await;
    for tenant in ["globex", "initech"] {
        let id = scene.submit(tenant).await;
        scene.succeeds(id).await;
    }
    assert!(!open("keyed:*:default").await && !open("keyed:*:@globex").await);
    let row = scene.rig.row(poor).await;
    assert_eq!((row.standing, row.attempts), (Standing::Live, 0));
    assert_eq!((scene.keyed.count(Some(POOR)), scene.state("acme")), (1, CredentialState::Active));
}

#[tokio::test]
async fn a_missing_master_key_holds_up_its_own_jobs_until_it_is_back() {
    let mut scene = Scene::new().await;
    let right = master();
    scene.credentials.set_master_keys(Ok(right.clone()));
    scene.set("acme", GOOD).await;
    let needed = right.current().unwrap().to_owned();
    scene.credentials.set_master_keys(Ok(master()));
    scene.work();
    let id = scene.submit("acme").await;
    let why = scene.keyless(id).await;
    assert!(why.contains("cannot be read") && why.contains(&needed), "{why}");
    let report = scene.credentials.report();
    assert_eq!((report.credentials, report.unreadable, report.named[0].kek_id.as_str()), (1, 1, needed.as_str()));
    assert!(report.check().unwrap_err().contains("acme/keyed"));
    let other = scene.submit("globex").await;
    scene.succeeds(other).await;
    assert_eq!(scene.keyed.seen(), [None], "it may use the operator's key, and its own is only unreadable: it waits");
    scene.credentials.set_master_keys(Ok(right));
    scene.succeeds(id).await;
    assert_eq!(scene.rig.row(id).await.attempts, 1);
    assert_eq!(scene.credentials.report().check(), Ok(()));
}

/// Rotation of the master key while jobs run: nobody fails, and at the end the old key is not needed any more.
#[tokio::test]
async fn a_rewrap_under_load_fails_no_job() {
    const TENANTS: usize = 250;
    let mut scene = Scene::new().await;
    let [old, new] = [(); 2].map(|()| MasterKeys::generate().unwrap());
    scene.credentials.set_master_keys(MasterKeys::parse(old.expose_secret()));
    for tenant in 0..TENANTS {
        scene.set(&format!("t{tenant}"), &format!("sk-{tenant:03}-0123456789abcdef")).await;
    }
    scene.work();
    let mut jobs = vec![];
    let mut submit = async |count| {
        for _ in 0..count {
            let tenant = jobs.len() % TENANTS;
            jobs.push((tenant, scene.submit(&format!("t{tenant}")).await));
        }
    };
    submit(100).await;
    let both = format!("{}\n{}", new.expose_secret(), old.expose_secret());
    scene.credentials.set_master_keys(MasterKeys::parse(&both));
    assert_eq!(scene.credentials.report().to_rewrap, TENANTS);
    let (mut done, mut steps) = (0, 0);
    loop {
        // Two at once do it once.
        let (one, two) = tokio::join!(scene.credentials.rewrap(), scene.credentials.rewrap());
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.unreadable + two.unreadable, 0);
        done += one.done + two.done;
        steps += 1;
        submit(100).await;
        if one.left.max(two.left) == 0 || steps > 20 {
            break;
        }
    }
    assert_eq!(done, TENANTS);
    scene.credentials.set_master_keys(MasterKeys::parse(new.expose_secret()));
    submit(100).await;
    let mut expected: Vec<_> =
        jobs.iter().map(|(tenant, _)| Some(format!("sk-{tenant:03}-0123456789abcdef"))).collect();
    for (_, id) in &jobs {
        scene.succeeds(*id).await;
    }
    let mut seen = scene.keyed.seen();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "each call with its own tenant's key, and once");
}

#[tokio::test]
async fn what_was_sealed_for_one_tenant_does_not_open_for_another() {
    let mut scene = Scene::new().await;
    scene.set("acme", GOOD).await;
    scene.set("globex", "sk-globex-0123456789abcdef").await;
    let stolen = scene.credentials.list(&"acme".into()).remove(0);
    let victim = scene.credentials.list(&"globex".into()).remove(0);
    // Whoever can write to the database puts acme's row in globex's place.
    let id = queue_core::credentials::CredentialId {
        tenant: "globex".into(),
        provider: "keyed".into(),
        version: victim.version,
    };
    let put = queue_core::credentials::NewCredential {
        tenant: id.tenant,
        provider: id.provider,
        version: victim.version + 1,
        sealed: stolen.sealed.unwrap(),
        hint: String::new(),
        at: Timestamp(1),
    };
    assert!(scene.rig.stores.vault.put_credential(put).await.unwrap());
    scene.credentials.refresh().await.unwrap();
    scene.work();
    let id = scene.submit("globex").await;
    let why = scene.keyless(id).await;
    assert!(why.contains("sealed for another credential"), "{why}");
    assert!(scene.keyed.seen().is_empty());
}

#[tokio::test]
async fn embeddings_travel_together_with_their_own_tenants_key() {
    let mut scene = Scene::new().await;
    scene.rig.around.coalescer = Arc::new(Coalescer::new(Coalescing::default(), [].into()));
    scene.policy("acme", CredentialPolicy::OwnOnly).await;
    scene.work();
    let submit = async |tenant: &str, n: usize| {
        let lane = scene.credentials.lane_of(&tenant.into(), &DEFAULT.into());
        let payload = format!(r#"{{"model":"m","input":["text {n}"]}}"#);
        scene.rig.submit(Kind::Embedding, &payload, |job| (job.tenant, job.target) = (tenant.into(), lane)).await
    };
    let mut jobs = vec![];
    for n in 0..6 {
        jobs.push(submit("acme", n).await);
        jobs.push(submit("globex", n).await);
    }
    for &id in jobs.iter().skip(1).step_by(2) {
        scene.succeeds(id).await;
    }
    for &id in jobs.iter().step_by(2) {
        scene.keyless(id).await;
        assert_eq!(scene.rig.row(id).await.attempts, 0);
    }
    assert!(scene.keyed.seen().iter().all(Option::is_none));
    scene.set("acme", BAD).await;
    scene.rig.until("it is disabled", async || scene.state("acme") == CredentialState::Disabled).await;
    scene.set("acme", GOOD).await;
    for &id in &jobs {
        scene.succeeds(id).await;
        let calls = scene.rig.stores.reads.calls(id).await.unwrap();
        let tenant = calls[0].tenant.clone();
        let expected = if tenant == "acme".into() { own(&tenant).to_string() } else { "default".to_owned() };
        assert!(calls.iter().all(|call| call.credential == expected), "{calls:?}");
    }
}
