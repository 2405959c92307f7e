//! Pages of jobs. A filter that few rows match must not cost a walk over all of them in one question.

use rusqlite::{Connection, OptionalExtension, params};

use super::{rows, sql::read};
use crate::{
    ids::{JobId, Name},
    job::Job,
    journal::{JobFilter, Listed, PAGE_MAX_ROWS},
    state::Standing,
};

/// Live jobs up to which a list sorts them instead of walking the ids backwards to find them.
const LIVE_FEW: i64 = 10_000;

/// Rows of the steps of one question: small first, because most pages are full after it; 50,000 together, which took
/// 40 ms where it was measured, and 200 ms with a search for text.
pub(super) const STEPS: [usize; 3] = [1_000, 9_000, 40_000];

/// The index that answers a filter.
#[derive(Clone, Copy)]
enum Path {
    /// The jobs of the batch.
    Batch,
    /// Dead letters.
    Dead,
    /// Dead letters of one signature.
    Cause,
    /// Dead letters of one queue.
    Queue,
    /// Live rows in the range of due times, sorted: they are few.
    FewLive,
    /// All ids.
    Newest,
}

impl Path {
    fn list(self) -> &'static str {
        match self {
            Self::Batch => read::LIST_BATCH,
            Self::Dead => read::LIST_DEAD,
            Self::Cause => read::LIST_CAUSE,
            Self::Queue => read::LIST_DEAD_QUEUE,
            Self::FewLive => read::LIST_LIVE,
            Self::Newest => read::LIST_NEWEST,
        }
    }
}

/// A page of jobs, found in at most as many steps as there are in `steps`, each of so many rows.
pub(super) fn list(connection: &Connection, filter: &JobFilter, steps: &[usize]) -> rusqlite::Result<Listed> {
    if filter.due.is_some() && filter.standing.is_some_and(Standing::is_final) {
        return Ok(Listed::default());
    }
    let search = Search::of(connection, filter)?;
    let limit = filter.limit.min(PAGE_MAX_ROWS);
    if let Path::FewLive = search.path {
        let jobs = search.rows(connection, filter.before, None, limit)?;
        return Ok(Listed { jobs, go_on_behind: None });
    }
    let mut found = Listed { jobs: Vec::new(), go_on_behind: filter.before };
    for &step in steps {
        let before = found.go_on_behind;
        let down_to = search.end_of_step(connection, before, step)?;
        found.jobs.extend(search.rows(connection, before, down_to, limit - found.jobs.len())?);
        if down_to.is_none() || found.jobs.len() >= limit {
            found.go_on_behind = None;
            break;
        }
        found.go_on_behind = down_to;
    }
    Ok(found)
}

/// A filter with what was decided about it.
struct Search<'f> {
    filter: &'f JobFilter,
    path: Path,
    standing: Option<Standing>,
    due_by: Option<i64>,
    due_after: Option<i64>,
    text: Option<String>,
    /// The text without hyphens, if it may be part of an id.
    id_part: Option<String>,
}

impl<'f> Search<'f> {
    fn of(connection: &Connection, filter: &'f JobFilter) -> rusqlite::Result<Self> {
        let (due_by, due_after) = match filter.due {
            Some((true, at)) => (Some(at.0), None),
            Some((false, at)) => (None, Some(at.0)),
            None => (None, None),
        };
        let standing = if filter.due.is_some() { Some(Standing::Live) } else { filter.standing };
        let path = match standing {
            _ if filter.batch_id.is_some() => Path::Batch,
            Some(Standing::Dead) if filter.signature.is_some() => Path::Cause,
            Some(Standing::Dead) if filter.queue.is_some() => Path::Queue,
            Some(Standing::Dead) => Path::Dead,
            Some(Standing::Live) if few_are_live(connection, due_by, due_after)? => Path::FewLive,
            _ => Path::Newest,
        };
        let text = filter.text.as_ref().map(|text| text.to_ascii_lowercase());
        let id_part = text.as_ref().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
        let id_part = id_part.map(|text| text.replace('-', ""));
        Ok(Self { filter, path, standing, due_by, due_after, text, id_part })
    }

    /// The last row of a step of `step` rows behind `before`; `None` where fewer are left.
    fn end_of_step(
        &self,
        connection: &Connection,
        before: Option<JobId>,
        step: usize,
    ) -> rusqlite::Result<Option<JobId>> {
        let before = before.map(|id| id.as_bytes().to_vec());
        let skip = step.saturating_sub(1) as i64;
        let id = |row: &rusqlite::Row<'_>| rows::job_id(row, 0);
        let walk = |sql| connection.prepare_cached(sql);
        match self.path {
            Path::Batch => walk(read::WALK_BATCH)?.query_row(params![before, skip, self.filter.batch_id], id),
            Path::Dead => walk(read::WALK_DEAD)?.query_row(params![before, skip], id),
            Path::Cause => walk(read::WALK_CAUSE)?.query_row(params![before, skip, self.filter.signature], id),
            Path::Queue => {
                let queue = self.filter.queue.as_ref().map(Name::as_str);
                walk(read::WALK_QUEUE)?.query_row(params![before, skip, queue], id)
            }
            Path::FewLive | Path::Newest => walk(read::WALK_NEWEST)?.query_row(params![before, skip], id),
        }
        .optional()
    }

    /// At most `limit` matching rows, from behind `before` down to `down_to`.
    fn rows(
        &self,
        connection: &Connection,
        before: Option<JobId>,
        down_to: Option<JobId>,
        limit: usize,
    ) -> rusqlite::Result<Vec<Job>> {
        let filter = self.filter;
        let mut statement = connection.prepare_cached(self.path.list())?;
        statement
            .query_map(
                params![
                    before.map(|id| id.as_bytes().to_vec()),
                    filter.queue.as_ref().map(Name::as_str),
                    filter.kind.map(|kind| kind.as_str()),
                    self.standing.map(Standing::code),
                    self.due_by,
                    self.due_after,
                    filter.tenant.as_ref().map(Name::as_str),
                    filter.error_class,
                    filter.signature,
                    filter.batch_id,
                    filter.operation,
                    self.text,
                    self.id_part,
                    filter.since.map(|at| at.0),
                    filter.until.map(|at| at.0),
                    limit as i64,
                    down_to.map(|id| id.as_bytes().to_vec()),
                    filter.key_id.as_ref().map(Name::as_str),
                ],
                rows::job,
            )?
            .collect()
    }
}

fn few_are_live(connection: &Connection, due_by: Option<i64>, due_after: Option<i64>) -> rusqlite::Result<bool> {
    let found: i64 =
        connection.prepare_cached(read::LIVE_FEW)?.query_row(params![due_by, due_after, LIVE_FEW], |row| row.get(0))?;
    Ok(found < LIVE_FEW)
}
