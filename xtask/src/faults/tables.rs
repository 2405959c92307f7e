//! The final tables, read from Postgres directly: not through the system under test.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use testkit::PostgresServer;

/// Where they are kept beside the histories.
const FILE: &str = "tables.json";

/// What the journal came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tables {
    /// Live jobs, dead letters and settled jobs: every row of each.
    pub(crate) jobs: Vec<Job>,
    /// Attempts that ended.
    pub(crate) attempts: Vec<Attempt>,
    /// Provider calls that were recorded.
    pub(crate) spend: Vec<Spend>,
    /// Charges: the job of each.
    pub(crate) charges: Vec<Charge>,
    /// Archives of dead letters.
    #[serde(default)]
    pub(crate) archives: Vec<Archive>,
    /// The counters, summed over queues.
    pub(crate) totals: Totals,
}

/// A row of `archives`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Archive {
    /// The operation that made it.
    pub(crate) id: String,
    /// Letters in its objects.
    pub(crate) letters: i64,
}

/// A row of `jobs` or `settled_jobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) standing: i64,
    pub(crate) epoch: i64,
    pub(crate) attempts: i64,
    pub(crate) max_attempts: i64,
    pub(crate) recoveries: i64,
    pub(crate) finished_at: Option<i64>,
    pub(crate) error_class: Option<String>,
    /// Who settled it, and when that attempt began: of a success.
    pub(crate) session: Option<String>,
    pub(crate) began_at: Option<i64>,
}

/// `standing` of a live job.
pub(crate) const LIVE: i64 = 0;
/// `standing` of a job that succeeded.
pub(crate) const SUCCEEDED: i64 = 1;
/// `standing` of a cancelled job.
pub(crate) const CANCELLED: i64 = 3;
/// `standing` of a dead letter.
pub(crate) const DEAD: i64 = 2;

/// A row of `attempts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) job_id: String,
    pub(crate) epoch: i64,
    pub(crate) number: i64,
    pub(crate) outcome: String,
    pub(crate) session: String,
    pub(crate) started_at: Option<i64>,
}

/// A row of `spend`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spend {
    pub(crate) job_id: String,
    pub(crate) billed: String,
}

/// A row of `charges`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) job_id: String,
}

/// `queue_totals`, summed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) accepted: i64,
    pub(crate) succeeded: i64,
    pub(crate) dead: i64,
    pub(crate) live: i64,
}

/// Everything as one JSON object, so that it is read in one snapshot.
const QUERY: &str = include_str!("tables.sql");

impl Tables {
    /// Reads them and keeps them beside the histories.
    pub(crate) fn read(postgres: &PostgresServer, database: &str, folder: &Path) -> Result<Self> {
        let text = postgres.run(database, QUERY);
        fs::write(folder.join(FILE), &text)?;
        serde_json::from_str(&text).context("the final tables cannot be read")
    }

    /// Those of an earlier run.
    pub(crate) fn kept(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
    }
}

/// Jobs that are not at rest.
pub(crate) fn live(postgres: &PostgresServer, database: &str) -> Result<u64> {
    let text = postgres.run(database, "SELECT count(*) FROM jobs WHERE standing = 0");
    text.parse().with_context(|| format!("psql counted `{text}`"))
}
