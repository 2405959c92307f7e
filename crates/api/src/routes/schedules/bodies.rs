//! The bodies of schedules as the document shows them; `read` takes them apart.

use serde::Deserialize;
use utoipa::ToSchema;

/// A new schedule. Exactly one of `cron`, `every` and `at` is given.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `create` takes apart by hand
pub(crate) struct NewSchedule {
    /// What it is called; one of a tenant.
    #[schema(max_length = 64)]
    name: String,
    /// Whose it is; the key's tenant when absent.
    #[schema(max_length = 64)]
    tenant: Option<String>,
    /// Five fields, or six with seconds before them. A time that a day does not have, because clocks are put forward, is the first
    /// moment behind the gap; one that it has twice is the first. An expression with `*` or a step in hour, minute or second is a
    /// rhythm, and goes on through both.
    #[schema(example = "30 2 * * MON-FRI")]
    cron: Option<String>,
    /// The zone of `cron`: a name of the time zone database.
    #[schema(default = "UTC", example = "Europe/Berlin")]
    time_zone: Option<String>,
    /// Again and again, after this time: `1s` to `366d`.
    #[schema(example = "15m")]
    every: Option<String>,
    /// The first tick of `every`; now when absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    starting_at: Option<String>,
    /// Once, at most 366 days ahead.
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<String>,
    /// What happens to a tick while the run before has not ended: it is let go (`skip`), its job waits (`queue`), the run before is
    /// cancelled (`cancel`), or both run (`allow`). Two runs never run at once but with `allow`.
    #[schema(default = "skip")]
    overlap: Option<String>,
    /// What becomes of ticks that nobody could submit within a minute: nothing (`skip`), the newest is submitted, unless one has
    /// come since (`latest`), or each of the window is (`all`).
    #[schema(default = "latest")]
    missed: Option<String>,
    /// How old those may be: `1m` to `7d`, with `"missed": "all"`.
    #[schema(default = "1h")]
    missed_window: Option<String>,
    /// Whether its ticks are let go until it is resumed.
    paused: Option<bool>,
    /// Why it is paused.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// For people.
    #[schema(max_length = 500)]
    description: Option<String>,
    /// The job, as `POST /v1/jobs` takes it, without `run_at`, `start_by`, `deadline`, `batch_id` and `tenant`. It is checked now and
    /// with each tick.
    #[schema(value_type = Object)]
    template: serde_json::Value,
}

/// A change of a schedule; what is not named stays. With another `cron`, `time_zone`, `every`, `starting_at` or `at` it begins anew,
/// now.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `patch` takes apart by hand
pub(crate) struct SchedulePatch {
    /// What it is called.
    #[schema(max_length = 64)]
    name: Option<String>,
    /// See the new schedule; likewise for the others.
    cron: Option<String>,
    /// The zone of `cron`.
    time_zone: Option<String>,
    /// After this time again.
    every: Option<String>,
    /// The first tick of `every`.
    #[schema(value_type = Option<String>, format = DateTime)]
    starting_at: Option<String>,
    /// Once.
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<String>,
    /// `skip`, `queue`, `cancel` or `allow`.
    overlap: Option<String>,
    /// `skip`, `latest` or `all`.
    missed: Option<String>,
    /// With `"missed": "all"`.
    missed_window: Option<String>,
    /// Resumed, it goes on with the ticks from then on.
    paused: Option<bool>,
    /// Why it is paused.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// For people; `null` takes it away.
    #[schema(max_length = 500)]
    description: Option<String>,
    /// Another job: submitted for whoever sends it from then on.
    #[schema(value_type = Option<Object>)]
    template: Option<serde_json::Value>,
}
