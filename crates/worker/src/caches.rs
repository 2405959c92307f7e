//! What need not be asked again: vectors by the hash of what they were made of, and answers to chat requests of jobs that say
//! that an old one will do.
//!
//! Who asks the same twice pays once, across jobs, attempts and, where the cache is shared, processes. A tenant finds only
//! what it paid for itself, unless the installation says that all tenants are one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use queue_core::{
    cache::{Cache, Fence, Key, Lock, Scope, Space, memory::MemoryCache, vectors},
    ids::Name,
    route::Target,
    time::SystemClock,
};
use serde_json::{Map, Value};

use crate::{flights::Flights, provider::ChatAnswer};

/// How long a vector is kept unless the configuration says otherwise: it is right for as long as its model exists, and what
/// nobody asked for in a week is not worth its bytes.
pub const VECTORS_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How long it is known that something was forgotten: no time at all, since then it is not there.
const FORGET_TTL: Duration = Duration::from_secs(1);

/// The caches of this process.
#[derive(Clone)]
pub struct Caches {
    store: Arc<dyn Cache>,
    scope: Scope,
    /// `None`: vectors are not kept.
    vectors_ttl: Option<Duration>,
    flights: Flights<ChatAnswer>,
    vector_flights: Flights<Vec<Vec<f32>>>,
}

impl Caches {
    /// Caches in `store`; vectors are kept for `vectors_ttl`, or not at all.
    pub fn new(store: Arc<dyn Cache>, scope: Scope, vectors_ttl: Option<Duration>) -> Self {
        Self { store, scope, vectors_ttl, flights: Flights::default(), vector_flights: Flights::default() }
    }

    /// Caches that keep nothing.
    pub fn none() -> Self {
        Self::new(Arc::new(MemoryCache::new(Arc::new(SystemClock), 0)), Scope::Tenant, None)
    }

    /// Where the vectors of some texts are kept; nowhere (an empty list) if they are not. The provider is part of it: two
    /// servers may call different models by one name.
    pub(crate) fn vector_keys(
        &self,
        tenant: &Name,
        target: &Target,
        dimensions: Option<u32>,
        input: &[String],
    ) -> Vec<Key> {
        if self.vectors_ttl.is_none() {
            return vec![];
        }
        let scope = self.scope.part(tenant);
        let dimensions = dimensions.unwrap_or(0).to_le_bytes();
        let (provider, model) = (target.provider.as_str().as_bytes(), target.model.as_str().as_bytes());
        let key = |text: &String| Key::of(Space::Vector, &[&scope, provider, model, &dimensions, text.as_bytes()]);
        input.iter().map(key).collect()
    }

    /// The vectors that are kept, in the order of the keys.
    pub(crate) async fn vectors(&self, keys: &[Key], dimensions: Option<u32>) -> Vec<Option<Vec<f32>>> {
        let found = self.store.get_many(keys).await;
        let fits = |vector: &Vec<f32>| dimensions.is_none_or(|length| vector.len() == length as usize);
        found.into_iter().map(|bytes| bytes.and_then(|bytes| vectors::decode(&bytes)).filter(fits)).collect()
    }

    /// Keeps vectors.
    pub(crate) async fn keep_vectors<'a>(&self, made: impl Iterator<Item = (Key, &'a [f32])>) {
        if let Some(ttl) = self.vectors_ttl {
            let entries: Vec<_> = made.map(|(key, vector)| (key, vectors::encode(vector))).collect();
            if !entries.is_empty() {
                self.store.put_many(entries, ttl).await;
            }
        }
    }

    /// Forgets vectors. What cannot be read is asked for again.
    pub(crate) async fn forget_vectors(&self, keys: &[Key]) {
        let nothing = keys.iter().map(|key| (*key, Bytes::new())).collect();
        self.store.put_many(nothing, FORGET_TTL).await;
    }

    /// Where the answer to a chat request is kept: everything that it depends on is part of it.
    pub(crate) fn answer_key(
        &self,
        scope: Option<Scope>,
        tenant: &Name,
        target: &Target,
        body: &Map<String, Value>,
    ) -> Key {
        let scope = scope.unwrap_or(self.scope).part(tenant);
        let (provider, model) = (target.provider.as_str().as_bytes(), target.model.as_str().as_bytes());
        let mut text = String::new();
        canonical(&Value::Object(body.clone()), &mut text);
        Key::of(Space::Answer, &[&scope, provider, model, text.as_bytes()])
    }

    /// The answer that is kept.
    pub(crate) async fn answer(&self, key: &Key) -> Option<ChatAnswer> {
        let found = self.store.get_many(std::slice::from_ref(key)).await.pop().flatten()?;
        // Of another version: it is asked for again, and kept anew.
        serde_json::from_slice(&found).ok()
    }

    /// Keeps an answer, and gives the lock back under which it was asked for.
    pub(crate) async fn keep_answer(&self, key: &Key, fence: Option<Fence>, answer: &ChatAnswer, ttl: Duration) {
        let Ok(text) = serde_json::to_vec(answer) else { return };
        match fence {
            Some(fence) => drop(self.store.unlock(key, fence, Some((text.into(), ttl))).await),
            None => self.store.put_many(vec![(*key, text.into())], ttl).await,
        }
    }

    /// The right to be the only one of the fleet to ask.
    pub(crate) async fn lock(&self, key: &Key, hold: Duration) -> Lock {
        self.store.lock(key, hold).await
    }

    /// Gives it back.
    pub(crate) async fn unlock(&self, key: &Key, fence: Fence) {
        self.store.unlock(key, fence, None).await;
    }

    /// What is being asked in this process.
    pub(crate) fn flights(&self) -> &Flights<ChatAnswer> {
        &self.flights
    }

    /// The lists of texts whose vectors are being asked for in this process.
    pub(crate) fn vector_flights(&self) -> &Flights<Vec<Vec<f32>>> {
        &self.vector_flights
    }
}

/// JSON with its members sorted at every level: one text for one request, however it was written.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_str());
            text.push('{');
            for (name, value) in sorted {
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(provider: &str, model: &str) -> Target {
        Target { provider: provider.into(), model: model.into(), credential: "default".into() }
    }

    #[tokio::test]
    async fn what_a_vector_depends_on_is_in_its_key() {
        let store: Arc<dyn Cache> = Arc::new(MemoryCache::new(Arc::new(SystemClock), 1024 * 1024));
        let caches = Caches::new(store.clone(), Scope::Tenant, Some(VECTORS_TTL));
        let global = Caches::new(store, Scope::Global, Some(VECTORS_TTL));
        let key = |caches: &Caches, tenant: &str, provider: &str, model: &str, dimensions, text: &str| {
            caches.vector_keys(&tenant.into(), &target(provider, model), dimensions, &[text.to_owned()])[0]
        };
        let keys = [
            key(&caches, "a", "p", "m", None, "text"),
            key(&caches, "b", "p", "m", None, "text"),
            key(&caches, "a", "q", "m", None, "text"),
            key(&caches, "a", "p", "n", None, "text"),
            key(&caches, "a", "p", "m", Some(2), "text"),
            key(&caches, "a", "p", "m", None, "Text"),
            key(&global, "a", "p", "m", None, "text"),
        ];
        let mut different = keys.to_vec();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), keys.len());
        assert_eq!(keys[6], key(&global, "b", "p", "m", None, "text"));

        caches.keep_vectors([(keys[4], &[0.5_f32, 1.0][..])].into_iter()).await;
        assert_eq!(caches.vectors(&[keys[0], keys[4]], Some(2)).await, [None, Some(vec![0.5, 1.0])]);
        assert_eq!(caches.vectors(&[keys[4]], Some(3)).await, [None], "of another length than asked for");
    }

    #[test]
    fn a_request_has_one_key_however_it_is_written() {
        let caches = Caches::none();
        let key = |text: &str, scope, tenant: &str| {
            let body: Map<String, Value> = serde_json::from_str(text).unwrap();
            caches.answer_key(scope, &tenant.into(), &target("p", "m"), &body)
        };
        let one = key(r#"{"temperature":0,"messages":[{"role":"user","content":"a"}]}"#, None, "t");
        let same = key(r#"{"messages": [{"content": "a", "role": "user"}], "temperature": 0}"#, None, "t");
        assert_eq!(one, same);
        for other in [
            r#"{"temperature":1,"messages":[{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":"a"}]}"#,
            r#"{"temperature":0,"messages":[{"role":"user","content":"b"}]}"#,
            r#"{"temperature":0,"messages":[{"role":"user","content":"a"}],"seed":1}"#,
            r#"{"temperature":"0","messages":[{"role":"user","content":"a"}]}"#,
            r#"{"temperature":0,"messages":[[{"role":"user","content":"a"}]]}"#,
        ] {
            assert_ne!(key(other, None, "t"), one, "{other}");
        }
        assert_ne!(key("{}", None, "t"), key("{}", None, "u"), "tenants are apart");
        assert_eq!(key("{}", Some(Scope::Global), "t"), key("{}", Some(Scope::Global), "u"));
        assert_ne!(key("{}", Some(Scope::Global), "t"), key("{}", Some(Scope::Tenant), "t"));
    }

    #[tokio::test]
    async fn no_cache_keeps_nothing() {
        let caches = Caches::none();
        assert!(caches.vector_keys(&"a".into(), &target("p", "m"), None, &["text".to_owned()]).is_empty());
    }
}
