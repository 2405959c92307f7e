//! A job as the API shows it: the fields that pages show, too.

use serde::Deserialize;

use super::asked::quoted;
use crate::client::query;

/// Letters of an error that a list shows.
const BRIEF_CHARS: usize = 80;

/// A job.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) queue: String,
    pub(crate) kind: String,
    pub(crate) tenant: String,
    pub(crate) target: String,
    pub(crate) state: String,
    pub(crate) priority: u8,
    pub(crate) attempts: u32,
    pub(crate) max_attempts: u32,
    pub(crate) recoveries: u32,
    pub(crate) redrives: u32,
    pub(crate) run_at: String,
    pub(crate) accepted_at: String,
    pub(crate) started_at: Option<String>,
    pub(crate) progress: Option<Progress>,
    pub(crate) finished_at: Option<String>,
    pub(crate) start_by: Option<String>,
    pub(crate) deadline: Option<String>,
    pub(crate) timeout: Option<String>,
    pub(crate) unique_key: Option<String>,
    pub(crate) concurrency_key: Option<String>,
    pub(crate) max_cost_usd: Option<String>,
    pub(crate) operation: Option<String>,
    pub(crate) batch_id: Option<String>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) error: Option<Failure>,
    pub(crate) cancel_reason: Option<String>,
    #[serde(default)]
    pub(crate) usage: Usage,
    pub(crate) cost_usd: Option<String>,
    pub(crate) served_by: Option<String>,
    #[serde(default)]
    pub(crate) fallback: Vec<Link>,
}

/// How far the attempt that runs is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Progress {
    pub(crate) done: u64,
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) step: String,
}

/// Why an attempt failed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    pub(crate) class: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) signature: String,
    pub(crate) retryable: bool,
    pub(crate) retry_after_ms: Option<u64>,
}

impl Failure {
    /// The beginning of its message.
    pub(crate) fn brief(&self) -> String {
        brief(&self.message, BRIEF_CHARS)
    }
}

/// The beginning of a text, if it is longer than so many letters.
pub(crate) fn brief(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Tokens.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Usage {
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    pub(crate) tokens_cached: u64,
    pub(crate) tokens_reasoning: u64,
}

impl Usage {
    /// Those that went in and those that came out: the others are parts of them.
    pub(crate) fn total(self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out)
    }
}

/// A further model of a chain.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Link {
    pub(crate) model: String,
    #[serde(default)]
    pub(crate) on: Vec<String>,
}

impl Job {
    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "dead" | "cancelled")
    }

    /// Whether a worker holds it.
    pub(crate) fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Whether something of its answer may be told before its end: a probe has none, and vectors come at once.
    pub(crate) fn may_tell(&self) -> bool {
        !matches!(self.kind.as_str(), "probe" | "embedding")
    }

    /// Its page.
    pub(crate) fn href(&self) -> String {
        super::page_of(&self.id)
    }

    /// The list of the jobs that have this in common with it.
    pub(crate) fn list_of(&self, name: &str, value: &str) -> String {
        format!("/dashboard/jobs{}", query(&[(name, value)]))
    }

    /// The list of the jobs with this tag.
    pub(crate) fn list_of_tag(&self, tag: &str) -> String {
        super::list_of(&format!("tag = {}", quoted(tag)))
    }
}

/// A page of jobs.
#[derive(Debug, Deserialize)]
pub(crate) struct JobPage {
    #[serde(alias = "dead_letters")]
    pub(crate) jobs: Vec<Job>,
    pub(crate) next_cursor: Option<String>,
    #[serde(default)]
    pub(crate) incomplete: bool,
}

/// A column of a list of jobs, beside state and id, which are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Queue,
    Kind,
    Tenant,
    Operation,
    Tags,
    Attempts,
    Accepted,
    Error,
    Cost,
    Priority,
    RunAt,
    Started,
    Finished,
    Tokens,
    Target,
    ServedBy,
    Batch,
    UniqueKey,
    ConcurrencyKey,
    Redrives,
    Trace,
}

impl Column {
    /// Every column, in the order in which they stand.
    pub(crate) const ALL: [Self; 21] = [
        Self::Queue,
        Self::Kind,
        Self::Tenant,
        Self::Operation,
        Self::Tags,
        Self::Priority,
        Self::Attempts,
        Self::Redrives,
        Self::Accepted,
        Self::RunAt,
        Self::Started,
        Self::Finished,
        Self::Error,
        Self::Tokens,
        Self::Cost,
        Self::Target,
        Self::ServedBy,
        Self::Batch,
        Self::UniqueKey,
        Self::ConcurrencyKey,
        Self::Trace,
    ];
    /// Those that stand there if nobody chose: what tells apart, how it went, what it cost.
    const USUAL: [Self; 9] = [
        Self::Queue,
        Self::Kind,
        Self::Tenant,
        Self::Operation,
        Self::Tags,
        Self::Attempts,
        Self::Accepted,
        Self::Error,
        Self::Cost,
    ];

    /// The word in the address.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Kind => "kind",
            Self::Tenant => "tenant",
            Self::Operation => "operation",
            Self::Tags => "tags",
            Self::Attempts => "attempts",
            Self::Accepted => "accepted_at",
            Self::Error => "error",
            Self::Cost => "cost",
            Self::Priority => "priority",
            Self::RunAt => "run_at",
            Self::Started => "started_at",
            Self::Finished => "finished_at",
            Self::Tokens => "tokens",
            Self::Target => "target",
            Self::ServedBy => "served_by",
            Self::Batch => "batch_id",
            Self::UniqueKey => "unique_key",
            Self::ConcurrencyKey => "concurrency_key",
            Self::Redrives => "redrives",
            Self::Trace => "trace_id",
        }
    }

    /// What stands above it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Queue => "Queue",
            Self::Kind => "Kind",
            Self::Tenant => "Tenant",
            Self::Operation => "Operation",
            Self::Tags => "Tags",
            Self::Attempts => "Attempts",
            Self::Accepted => "Accepted",
            Self::Error => "Error",
            Self::Cost => "Cost",
            Self::Priority => "Priority",
            Self::RunAt => "Due",
            Self::Started => "Started",
            Self::Finished => "Ended",
            Self::Tokens => "Tokens",
            Self::Target => "Target",
            Self::ServedBy => "Served by",
            Self::Batch => "Batch",
            Self::UniqueKey => "Unique key",
            Self::ConcurrencyKey => "Concurrency key",
            Self::Redrives => "Redrives",
            Self::Trace => "Trace",
        }
    }

    /// Whether it holds numbers, which stand to the right.
    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Attempts | Self::Cost | Self::Priority | Self::Tokens | Self::Redrives)
    }

    /// The columns of a table of these jobs: all that somebody has chosen, and of the usual ones those that say something.
    pub(crate) fn shown(columns: &[Self], are_chosen: bool, jobs: &[Job]) -> Vec<Self> {
        let says = |column: &&Self| match column {
            _ if are_chosen || jobs.is_empty() => true,
            Self::Operation => jobs.iter().any(|job| job.operation.is_some()),
            Self::Tags => jobs.iter().any(|job| !job.tags.is_empty()),
            Self::Error => jobs.iter().any(|job| job.error.is_some()),
            _ => true,
        };
        columns.iter().filter(says).copied().collect()
    }

    /// Whether these words choose what stands there if nobody chooses.
    pub(crate) fn are_usual(words: &[&str]) -> bool {
        !words.is_empty() && Self::chosen(words) == Self::chosen(&[])
    }

    /// Whether it holds names, which are not broken.
    pub(crate) fn is_name(self) -> bool {
        !matches!(self, Self::Tags | Self::Error)
    }

    /// The columns that these words choose, in their own order; the usual ones where no word is one.
    pub(crate) fn chosen(words: &[&str]) -> Vec<Self> {
        let chosen: Vec<Self> = Self::ALL.into_iter().filter(|column| words.contains(&column.word())).collect();
        if chosen.is_empty() { Self::USUAL.to_vec() } else { chosen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::job::copies::tests::hostile;

    #[test]
    fn columns_are_chosen_by_word_and_keep_their_order() {
        assert_eq!(Column::chosen(&["cost", "queue", "colour"]), [Column::Queue, Column::Cost]);
        assert_eq!(Column::chosen(&[]), Column::USUAL);
        assert_eq!(Column::chosen(&["colour"]), Column::USUAL);
        let mut words: Vec<_> = Column::ALL.map(Column::word).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Column::ALL.len());
    }

    #[test]
    fn a_column_without_anything_in_it_is_left_out_unless_it_was_chosen() {
        let job = Job { operation: None, error: None, ..hostile() };
        let usual = Column::chosen(&[]);
        let shown = Column::shown(&usual, false, std::slice::from_ref(&job));
        assert!(
            shown.contains(&Column::Tags) && !shown.contains(&Column::Error) && !shown.contains(&Column::Operation)
        );
        assert_eq!(Column::shown(&usual, true, &[job]), usual);
        assert_eq!(Column::shown(&usual, false, &[]), usual);
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        assert_eq!(brief("äöü", 3), "äöü");
        assert_eq!(brief("äöüß", 3), "äöü…");
    }

    #[test]
    fn a_page_of_dead_letters_is_a_page_of_jobs() {
        let page: JobPage = serde_json::from_str(r#"{"dead_letters": [], "next_cursor": "c1"}"#).unwrap();
        assert_eq!((page.jobs.len(), page.next_cursor.as_deref(), page.incomplete), (0, Some("c1"), false));
    }
}
