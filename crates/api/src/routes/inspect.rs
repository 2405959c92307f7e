//! `GET /v1/queues/{queue}/inspect`: what an operator looks at when a queue does not get shorter.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use axum::{Json, extract::State, http::Uri};
use queue_core::{
    dispatcher::{HORIZON_MS, Place},
    ids::{JobId, Name, SessionId},
    journal::{LiveScan, QueueTotals, Within},
    time::{Timestamp, parse_duration},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    dead_letters::GroupView,
    queues::{self, QueueView},
};
use crate::{
    app::{App, Shared},
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    routes::jobs::room,
    shape,
};

/// Time over which rates are measured.
const OVER_DEFAULT: Duration = Duration::from_secs(2);
/// Longest such time.
const OVER_MAX: Duration = Duration::from_secs(30);
/// Live rows that are looked through: a fraction of a second.
const SCAN_MAX_ROWS: usize = 50_000;
/// Fewest rows that somebody may ask for.
const SCAN_LEAST_ROWS: usize = 500;
/// Rows of one step of that.
const SCAN_ROWS: usize = 5_000;
/// Rows younger than this may still be on their way to the dispatcher.
const YOUNG_MS: i64 = 5_000;
/// Tenants, workers and causes that are told.
const TOP: usize = 10;

/// A queue, looked at closely.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueueInspection)]
pub(crate) struct Inspection {
    /// Its settings and numbers.
    #[serde(flatten)]
    queue: QueueView,
    /// What came and went while this was looked at; absent with `over=0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates>,
    /// When what waits and runs will have ended at this rate; absent where nothing ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<f64>,
    /// Who holds jobs of it, most first.
    leases: Vec<Holder>,
    /// Whose live jobs they are, most first.
    tenants: Vec<TenantShare>,
    /// What takes turns, most jobs first.
    lanes: Vec<LaneShare>,
    /// Causes of its dead letters, most first.
    errors: Vec<GroupView>,
    /// Journal and dispatcher beside each other.
    difference: Difference,
}

/// Jobs a second.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rates {
    /// Over how many seconds.
    over_seconds: f64,
    /// Accepted.
    accepted: f64,
    /// Ended: succeeded, dead or cancelled, less those that were redriven.
    ended: f64,
    /// Succeeded.
    succeeded: f64,
}

/// A worker that holds jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Holder {
    /// Its session.
    worker: String,
    /// Host and process; absent for a session that is not registered any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// Whether the dispatcher hears of it.
    alive: bool,
    /// Jobs that it holds.
    jobs: u64,
    /// When the attempt began that has run longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest_started_at: Option<Timestamp>,
}

/// Live jobs of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantShare {
    /// The tenant.
    tenant: String,
    /// How many, of those that were looked at.
    jobs: u64,
}

/// Live jobs of a tenant for one target: a lane.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LaneShare {
    /// The tenant.
    tenant: String,
    /// What its jobs ask: `provider:model:credential`, or the kind of jobs that ask nobody.
    target: String,
    /// How many, of those that were looked at.
    jobs: u64,
}

/// The journal is the truth; the dispatcher ought to know what is due.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Difference {
    /// Live jobs in the journal.
    journal: u64,
    /// Jobs that the dispatcher holds.
    dispatcher: u64,
    /// Live jobs that were looked at, due within a minute.
    looked_at: u64,
    /// Of these, jobs older than 5 s that the dispatcher does not know: the reconciler pushes them within seconds.
    unknown: u64,
    /// Whether all of them were looked at.
    complete: bool,
}

/// Looks at a queue closely: depth, rates, who holds and whose jobs they are, causes of dead letters, journal and dispatcher.
#[utoipa::path(get, path = "/v1/queues/{queue}/inspect", tag = "queues", security(("key" = [])), params(
    ("queue" = String, Path, description = "the queue"),
    ("over" = Option<String>, Query, description = "measure rates over this time, `2s` unless said, at most 30 s; `0s`: measure none"),
    ("rows" = Option<u32>, Query, description = "look through so many live jobs, those that are due first; 500 to 50000, 50000 unless said"),
), responses((status = 200, body = Inspection), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn inspect(
    State(app): State<Shared>,
    Segment(queue): Segment,
    uri: Uri,
) -> Result<Json<Inspection>, Problem> {
    let mut params = Params::of(&uri, &["over", "rows"])?;
    let over = params.parsed("over", |text| {
        let over = parse_duration(text)?;
        if over > OVER_MAX { Err("takes 0s to 30s".to_owned()) } else { Ok(over) }
    });
    let rows = params.whole("rows", SCAN_LEAST_ROWS..=SCAN_MAX_ROWS);
    params.finish()?;
    let queue = shape::check_queue(&queue).map_err(|reason| Problem::field("/path/queue", reason))?;
    let _room = room(&app)?;
    let view = queues::find(&app, &queue).await?;
    let over = over.unwrap_or(OVER_DEFAULT);
    let rates = if over.is_zero() { None } else { Some(rates(&app, &queue, over).await?) };
    let scan = Scan::of(&app, &queue, rows.unwrap_or(SCAN_MAX_ROWS)).await?;
    let errors = app.api.stores.reads.dead_groups(Some(&queue), &Within::default()).await?;
    let left = (view.metrics.waiting + view.metrics.active) as f64;
    let journal = app.api.stores.reads.live_counts().await?.get(&queue).copied().unwrap_or(0);
    let dispatcher = held(&app, &queue).await?;
    Ok(Json(Inspection {
        queue: view,
        eta_seconds: rates.as_ref().filter(|rates| rates.ended > 0.0).map(|rates| left / rates.ended),
        rates,
        leases: leases(&app, &scan).await?,
        tenants: scan.top_tenants(),
        lanes: scan.top_lanes(),
        errors: errors.into_iter().take(TOP).map(GroupView::from).collect(),
        difference: Difference {
            journal,
            dispatcher,
            looked_at: scan.looked_at,
            unknown: scan.unknown,
            complete: scan.complete,
        },
    }))
}

/// What moved between two looks.
async fn rates(app: &App, queue: &Name, over: Duration) -> Result<Rates, Problem> {
    let began = tokio::time::Instant::now();
    let before = counters(app, queue).await?;
    tokio::select! {
        () = tokio::time::sleep(over) => {}
        () = app.shutdown.cancelled() => {}
    }
    let after = counters(app, queue).await?;
    let seconds = began.elapsed().as_secs_f64();
    let a_second = |count: u64| count as f64 / seconds;
    let accepted = after.0.accepted.saturating_sub(before.0.accepted);
    Ok(Rates {
        over_seconds: seconds,
        accepted: a_second(accepted),
        ended: a_second((before.1 + accepted).saturating_sub(after.1)),
        succeeded: a_second(after.0.succeeded.saturating_sub(before.0.succeeded)),
    })
}

/// Totals and live jobs of the queue.
async fn counters(app: &App, queue: &Name) -> Result<(QueueTotals, u64), Problem> {
    let reads = &app.api.stores.reads;
    let (mut totals, mut live) = tokio::try_join!(reads.totals(), reads.live_counts())?;
    Ok((totals.remove(queue).unwrap_or_default(), live.remove(queue).unwrap_or(0)))
}

/// Jobs of the queue that the dispatcher holds.
async fn held(app: &App, queue: &Name) -> Result<u64, Problem> {
    let depths = app.api.stores.dispatcher.depths().await.map_err(unavailable)?;
    let of_queue = depths.into_iter().find(|depth| depth.queue.as_ref() == Some(queue)).unwrap_or_default();
    Ok(of_queue.waiting + of_queue.active + of_queue.scheduled + of_queue.parked)
}

fn unavailable(error: queue_core::dispatcher::DispatchError) -> Problem {
    Problem::new(Cause::Unavailable, error.to_string()).retry_after(1)
}

/// Whether a job may still be on its way to the dispatcher: its id begins with the time at which it was accepted.
fn is_young(id: JobId, now: Timestamp) -> bool {
    let accepted_s = id.0.get_timestamp().map_or(0, |at| at.to_unix().0);
    now.0 / 1_000 < i64::try_from(accepted_s).unwrap_or(i64::MAX) + YOUNG_MS / 1_000 + 1
}

/// What the live rows of a queue say, those that are due first before the others.
#[derive(Default)]
struct Scan {
    looked_at: u64,
    unknown: u64,
    complete: bool,
    lanes: BTreeMap<(Name, Name), u64>,
    holders: HashMap<SessionId, (u64, Option<Timestamp>)>,
}

impl Scan {
    async fn of(app: &App, queue: &Name, most: usize) -> Result<Self, Problem> {
        let stores = &app.api.stores;
        let now = app.now();
        let due_by = now.plus_ms(HORIZON_MS);
        let mut found = Self::default();
        let mut scan = LiveScan { after: None, due_by, accepted_by: now, limit: SCAN_ROWS };
        let mut left = most;
        while left > 0 {
            scan.limit = SCAN_ROWS.min(left);
            left -= scan.limit;
            let rows = stores.journal.live(scan).await?;
            let last = rows.last().filter(|_| rows.len() == scan.limit).map(|last| (last.run_at, last.id));
            let of_queue: Vec<_> = rows.into_iter().filter(|row| row.queue == *queue).collect();
            let ids: Vec<JobId> = of_queue.iter().map(|row| row.id).collect();
            let places = stores.dispatcher.locate(&ids).await.map_err(unavailable)?;
            for (row, place) in of_queue.into_iter().zip(places) {
                found.add((row.tenant, row.target), &place, is_young(row.id, now));
            }
            if last.is_none() {
                found.complete = true;
                break;
            }
            scan.after = last;
        }
        Ok(found)
    }

    fn add(&mut self, lane: (Name, Name), place: &Place, is_young: bool) {
        self.looked_at += 1;
        *self.lanes.entry(lane).or_default() += 1;
        match place {
            Place::Unknown => self.unknown += u64::from(!is_young),
            Place::Waiting { .. } => {}
            Place::Leased { session, started_at, .. } => {
                let (jobs, oldest) = self.holders.entry(*session).or_default();
                *jobs += 1;
                *oldest = [*oldest, *started_at].into_iter().flatten().min();
            }
        }
    }

    fn top_tenants(&self) -> Vec<TenantShare> {
        let mut tenants = BTreeMap::<&Name, u64>::new();
        for ((tenant, _), jobs) in &self.lanes {
            *tenants.entry(tenant).or_default() += jobs;
        }
        let share = |(tenant, jobs): (&Name, u64)| TenantShare { tenant: tenant.to_string(), jobs };
        top(tenants).map(share).collect()
    }

    fn top_lanes(&self) -> Vec<LaneShare> {
        let lanes = self.lanes.iter().map(|(lane, jobs)| (lane, *jobs));
        let share = |((tenant, target), jobs): (&(Name, Name), u64)| LaneShare {
            tenant: tenant.to_string(),
            target: target.to_string(),
            jobs,
        };
        top(lanes).map(share).collect()
    }
}

/// Those with the most jobs.
fn top<K: Ord>(counted: impl IntoIterator<Item = (K, u64)>) -> impl Iterator<Item = (K, u64)> {
    let mut counted: Vec<_> = counted.into_iter().collect();
    counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    counted.into_iter().take(TOP)
}

async fn leases(app: &App, scan: &Scan) -> Result<Vec<Holder>, Problem> {
    let stores = &app.api.stores;
    let hosts: HashMap<_, _> =
        stores.catalog.sessions().await?.into_iter().map(|session| (session.id, session.host)).collect();
    let alive = stores.dispatcher.sessions(&[]).await.map_err(unavailable)?.alive;
    let mut holders: Vec<Holder> = scan
        .holders
        .iter()
        .map(|(session, (jobs, oldest))| Holder {
            worker: session.to_string(),
            host: hosts.get(session).cloned(),
            alive: alive.iter().any(|view| view.id == *session),
            jobs: *jobs,
            oldest_started_at: *oldest,
        })
        .collect();
    holders.sort_by(|a, b| b.jobs.cmp(&a.jobs).then(a.worker.cmp(&b.worker)));
    holders.truncate(TOP);
    Ok(holders)
}
