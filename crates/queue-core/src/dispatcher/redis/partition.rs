//! The way to the scripts of one partition, at the generation that this process knows.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use redis::Value;

use super::link::{Link, failure};
use crate::{dispatcher::DispatchError, ids::Generation, time::Clock};

pub(super) struct Partition {
    link: Arc<Link>,
    /// What every key begins with: the prefix, the version of the layout, and the hash tag.
    key: String,
    /// The generation that this process is at; 0: whichever there is.
    generation: AtomicI64,
    clock: Option<Arc<dyn Clock>>,
}

impl Partition {
    pub(super) fn new(link: Arc<Link>, key: String, clock: Option<Arc<dyn Clock>>) -> Self {
        Self { link, key, generation: AtomicI64::new(0), clock }
    }

    /// From now on this process is at `generation`.
    pub(super) fn is_at(&self, generation: Generation) {
        self.generation.store(generation.0, Ordering::Relaxed);
    }

    /// Calls a verb of the library.
    pub(super) async fn call(
        &self,
        verb: &str,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Value, DispatchError> {
        if self.generation.load(Ordering::Relaxed) == 0 && !matches!(verb, "begin" | "sweep") {
            self.learn_generation().await?;
        }
        let generation = self.generation.load(Ordering::Relaxed).to_string();
        let now = self.clock.as_ref().map_or_else(String::new, |clock| clock.now().0.to_string());
        let head = [verb.as_bytes().to_vec(), generation.into_bytes(), now.into_bytes()];
        let args: Vec<_> = head.into_iter().chain(args).collect();
        let answer = self.link.call(&[&self.key], &args).await;
        answer.map_err(|error| {
            // The caller hears of it once; from now on this process is at the generation that there is.
            if error.code() == Some("LSGEN") {
                let current = error.detail().and_then(|text| text.parse().ok()).unwrap_or(0);
                self.generation.store(current, Ordering::Relaxed);
            }
            failure(&error)
        })
    }

    /// The generation that there is, when this process knows of none.
    async fn learn_generation(&self) -> Result<(), DispatchError> {
        let asked = redis::cmd("GET").arg(format!("{}:gen", self.key)).to_owned();
        let found = self.link.send(&asked).await.map_err(|error| failure(&error))?;
        let found = redis::from_redis_value::<Option<i64>>(found).ok().flatten();
        self.is_at(Generation(found.ok_or(DispatchError::WrongGeneration)?));
        Ok(())
    }
}
