//! Finding the jobs of a filter, page by page: what the journal's lists can narrow by is left to them, the rest is looked at here.

use super::Filter;
use crate::{
    dispatcher::Place,
    ids::JobId,
    job::Job,
    journal::{JobFilter, JournalError, PAGE_MAX_ROWS},
    state,
    stores::Stores,
};

/// Most pages of the journal that one search reads: a filter that few jobs meet must not keep its caller for ever.
const PAGES_MAX: usize = 20;
/// The same for people who wait for the answer: about 50 ms, also where the journal has a million jobs and no job meets the filter.
const PAGES_OF_PEOPLE_MAX: usize = 8;

/// Jobs that a search found, newest first.
#[derive(Debug, Default)]
pub struct Found {
    /// Each with its place among those that wait or run.
    pub jobs: Vec<(Job, Place)>,
    /// Go on behind this job; `None`: nothing older can match. There may be one where nothing was found: a search ends after
    /// a bounded number of rows.
    pub next: Option<JobId>,
}

impl Stores {
    /// At most `most` jobs that `which` means, of those that `narrowed` lets through (see [`Filter::narrowed`]), from behind
    /// its `before`. Writes nothing.
    ///
    /// # Errors
    /// The journal's. Without the dispatcher, jobs that run are taken for waiting ones.
    pub async fn find(&self, which: &Filter, narrowed: &JobFilter, most: usize) -> Result<Found, JournalError> {
        self.search(which, narrowed, most, |pages, _| pages < PAGES_MAX).await
    }

    /// The same for people who wait for the answer: it ends sooner, also once the journal has looked at as many rows as one question
    /// may cost ([`Listed::go_on_behind`](crate::journal::Listed::go_on_behind)), and whoever asked goes on, or does not.
    pub async fn find_soon(&self, which: &Filter, narrowed: &JobFilter, most: usize) -> Result<Found, JournalError> {
        self.search(which, narrowed, most, |pages, in_vain| pages < PAGES_OF_PEOPLE_MAX && !in_vain).await
    }

    async fn search(
        &self,
        which: &Filter,
        narrowed: &JobFilter,
        most: usize,
        goes_on: impl Fn(usize, bool) -> bool,
    ) -> Result<Found, JournalError> {
        if let Some(ids) = which.ids() {
            return self.find_named(which, narrowed, ids, most).await;
        }
        // One more than wanted tells whether there is more, and mostly the first page is enough.
        let mut page = JobFilter { limit: PAGE_MAX_ROWS.min(most.saturating_add(1)), ..narrowed.clone() };
        let mut found = Found::default();
        for pages in 1.. {
            let listed = self.reads.list(&page).await?;
            let last = listed.jobs.last().map(|job| job.id).filter(|_| listed.jobs.len() >= page.limit);
            found.next = last.or(listed.go_on_behind);
            let in_vain = listed.go_on_behind.is_some();
            let places = self.places(&listed.jobs).await;
            let now = self.clock.now();
            for (job, place) in listed.jobs.into_iter().zip(places) {
                if !which.matches(&job, state::of(&job, &place, now).0, &place) {
                    continue;
                }
                if found.jobs.len() == most {
                    found.next = found.jobs.last().map(|(job, _)| job.id);
                    return Ok(found);
                }
                found.jobs.push((job, place));
            }
            if found.next.is_none() || !goes_on(pages, in_vain) {
                break;
            }
            (page.before, page.limit) = (found.next, PAGE_MAX_ROWS);
        }
        Ok(found)
    }

    /// The same for jobs that are named: they are read, and nothing is looked through.
    async fn find_named(
        &self,
        which: &Filter,
        narrowed: &JobFilter,
        ids: Vec<JobId>,
        most: usize,
    ) -> Result<Found, JournalError> {
        let rows = self.reads.jobs(&ids).await?;
        let rows: Vec<Job> = rows.into_iter().flatten().filter(|job| narrowed.meets(job)).collect();
        let places = self.places(&rows).await;
        let now = self.clock.now();
        let is_meant = |(job, place): &(Job, Place)| which.matches(job, state::of(job, place, now).0, place);
        let mut jobs: Vec<_> = rows.into_iter().zip(places).filter(is_meant).collect();
        let more = jobs.len() > most;
        jobs.truncate(most);
        Ok(Found { next: jobs.last().filter(|_| more).map(|(job, _)| job.id), jobs })
    }

    /// Where these jobs are; those that have ended are nowhere. Without the dispatcher they show as waiting: the journal's
    /// knowledge is still right.
    pub async fn places(&self, jobs: &[Job]) -> Vec<Place> {
        let live: Vec<JobId> = jobs.iter().filter(|job| !job.standing.is_final()).map(|job| job.id).collect();
        let mut found = Vec::new();
        if !live.is_empty() {
            match self.dispatcher.locate(&live).await {
                Ok(places) => found = places,
                Err(error) => tracing::debug!(%error, "jobs are shown without knowing which of them run"),
            }
        }
        let mut found = found.into_iter();
        let place = |job: &Job| if job.standing.is_final() { None } else { found.next() };
        jobs.iter().map(place).map(|place| place.unwrap_or(Place::Unknown)).collect()
    }
}
