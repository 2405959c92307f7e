//! Public keys of issuers that are fetched from them: at the start and every hour, and when a token names a key that is not known, so
//! that a provider may change its keys at any moment. An issuer that cannot be asked keeps the keys that it had; the start of a
//! process waits for none.

use std::{sync::Arc, time::Duration};

use api::{Issuer, IssuerRules, Tokens};
use dashboard::oidc::Line;
use futures::future::join_all;

use crate::config::KeySetPlace;

/// How long keys are believed without a look: the longest that a key which a provider has taken out goes on opening something.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// Pause after a look in which an issuer could not be asked: at first and at most, doubled in between.
const AGAIN_MIN: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(5 * 60);

/// Fetches keys, and tells whoever believes tokens.
pub(crate) struct Fetcher {
    tokens: Arc<Tokens>,
    asked: Vec<Asked>,
}

/// An issuer that is asked for its keys.
struct Asked {
    rules: IssuerRules,
    place: KeySetPlace,
    line: Line,
    /// The set that its keys were read from last.
    set: Option<String>,
    /// The keys, from then on.
    issuer: Option<Issuer>,
    /// What was wrong last time, so that it is said once.
    trouble: Option<String>,
}

impl Fetcher {
    /// Asks nobody yet; `None` where there is nobody to ask.
    pub(crate) fn new(issuers: &[(IssuerRules, KeySetPlace)], tokens: Arc<Tokens>) -> Result<Option<Self>, String> {
        let asked = issuers.iter().filter_map(|(rules, place)| {
            let line = match place {
                KeySetPlace::File(_) => return None,
                // Its own name may be no address.
                KeySetPlace::Url(url) => Line::to(url.as_str()),
                KeySetPlace::Discovered => Line::to(&rules.issuer),
            };
            let (rules, place) = (rules.clone(), place.clone());
            Some(line.map(|line| Asked { rules, place, line, set: None, issuer: None, trouble: None }))
        });
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        if asked.is_empty() {
            return Ok(None);
        }
        tokens.begin_fetching(asked.iter().map(|one| one.rules.issuer.clone()).collect());
        Ok(Some(Self { tokens, asked }))
    }

    /// Looks again and again, for as long as it is polled.
    pub(crate) async fn keep(mut self) {
        let mut again = AGAIN_MIN;
        loop {
            let pause = if self.look().await {
                again = AGAIN_MIN;
                LOOK_EVERY
            } else {
                let pause = again;
                again = (again * 2).min(AGAIN_MAX);
                pause
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.tokens.key_wanted() => {}
            }
        }
    }

    /// Asks all of them at once, and tells what they say. Whether all could be asked.
    async fn look(&mut self) -> bool {
        let found = join_all(self.asked.iter_mut().map(Asked::look)).await;
        let issuers = self.asked.iter().filter_map(|one| one.issuer.clone()).collect();
        self.tokens.set_fetched_issuers(issuers);
        found.into_iter().all(|found| found)
    }
}

impl Asked {
    async fn look(&mut self) -> bool {
        match self.fetched().await {
            Ok(set) if self.set.as_ref() == Some(&set) => {
                self.trouble = None;
                true
            }
            Ok(set) => self.read(set),
            Err(trouble) => self.stay(trouble),
        }
    }

    async fn fetched(&self) -> Result<String, String> {
        match &self.place {
            KeySetPlace::Url(url) => self.line.text(url).await,
            _ => self.line.text(&self.line.place_of_keys().await?).await,
        }
    }

    fn read(&mut self, set: String) -> bool {
        match Issuer::new(self.rules.clone(), &set) {
            Ok(issuer) => {
                tracing::info!(issuer = %self.rules.issuer, keys = ?issuer, "the keys of an issuer were fetched");
                (self.set, self.issuer, self.trouble) = (Some(set), Some(issuer), None);
                true
            }
            Err(why) => self.stay(format!("its key set: {why}")),
        }
    }

    fn stay(&mut self, trouble: String) -> bool {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(issuer = %self.rules.issuer, %trouble, "the keys of an issuer were not fetched; those that were there stay");
        }
        self.trouble = Some(trouble);
        false
    }
}
