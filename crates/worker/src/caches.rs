//! What need not be asked again: vectors by the hash of what they were made of.
//!
//! Who asks the same twice pays once, across jobs, attempts and, where the cache is shared, processes. A tenant finds only
//! what it paid for itself, unless the installation says that all tenants are one.

use std::{sync::Arc, time::Duration};

use queue_core::{
    cache::{Cache, Key, Space, memory::MemoryCache, vectors},
    ids::Name,
    route::Target,
    time::SystemClock,
};

/// How long a vector is kept unless the configuration says otherwise: it is right for as long as its model exists, and what
/// nobody asked for in a week is not worth its bytes.
pub const VECTORS_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Who finds an answer that was paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The tenant whose job paid for it.
    #[default]
    Tenant,
    /// Everybody.
    Global,
}

impl Scope {
    /// The part of a key that says for whom it is.
    fn part(self, tenant: &Name) -> Vec<u8> {
        match self {
            Self::Tenant => format!("tenant:{tenant}").into_bytes(),
            Self::Global => b"global".to_vec(),
        }
    }
}

/// The caches of this process.
pub struct Caches {
    store: Arc<dyn Cache>,
    scope: Scope,
    /// `None`: vectors are not kept.
    vectors_ttl: Option<Duration>,
}

impl Caches {
    /// Caches in `store`; vectors are kept for `vectors_ttl`, or not at all.
    pub fn new(store: Arc<dyn Cache>, scope: Scope, vectors_ttl: Option<Duration>) -> Self {
        Self { store, scope, vectors_ttl }
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

    #[tokio::test]
    async fn no_cache_keeps_nothing() {
        let caches = Caches::none();
        assert!(caches.vector_keys(&"a".into(), &target("p", "m"), None, &["text".to_owned()]).is_empty());
    }
}
