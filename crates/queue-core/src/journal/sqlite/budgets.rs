//! Budgets, what was spent of them, and who waits for them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{
    SqliteJournal,
    rows::{self, Cells},
    sql::{Write, read},
    webhooks,
    writer::Batch,
};
use crate::{
    budget::{AtLimit, Budget, Scope, Span},
    dispatcher::Entry,
    ids::Name,
    journal::{Alert, Budgets, JournalError, PAGE_MAX_ROWS, Versioned},
    ledger::Nanousd,
    time::Timestamp,
    webhooks::{EventKind, budget_body},
};

#[async_trait]
impl Budgets for SqliteJournal {
    async fn budgets(&self) -> Result<BTreeMap<Scope, Versioned<Budget>>, JournalError> {
        self.readers.read(budgets).await
    }

    async fn set_budget(&self, scope: &Scope, budget: Budget) -> Result<i64, JournalError> {
        self.writer.submit(1, (scope.clone(), budget), set_budget).await
    }

    async fn spent(&self, scope: &Scope, span: Span) -> Result<[i64; 4], JournalError> {
        let scope = scope.clone();
        self.readers.read(move |connection| spent(connection, &scope, span)).await
    }

    async fn wake(&self, scope: &Scope, now: Timestamp, limit: usize) -> Result<Vec<Entry>, JournalError> {
        self.writer.submit(limit, (scope.clone(), now, limit), wake).await
    }

    async fn note_alert(&self, alert: &Alert) -> Result<bool, JournalError> {
        self.writer.submit(1, alert.clone(), note_alert).await
    }

    async fn alerts(&self, limit: usize) -> Result<Vec<Alert>, JournalError> {
        let limit = limit.min(PAGE_MAX_ROWS) as i64;
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::BUDGET_ALERTS)?;
                statement.query_map([limit], rows::alert)?.collect()
            })
            .await
    }
}

fn budgets(connection: &Connection) -> rusqlite::Result<BTreeMap<Scope, Versioned<Budget>>> {
    connection
        .prepare_cached(read::BUDGETS)?
        .query_map([], |row| {
            let mut cells = Cells::of(row, 0);
            let (scope, version) = (cells.word(Scope::parse)?, cells.next()?);
            let mut money = || Ok::<_, rusqlite::Error>(cells.next::<Option<i64>>()?.map(Nanousd));
            let (day_usd, month_usd) = (money()?, money()?);
            let mut tokens =
                || Ok::<_, rusqlite::Error>(cells.next::<Option<i64>>()?.and_then(|tokens| u64::try_from(tokens).ok()));
            let (day_tokens, month_tokens) = (tokens()?, tokens()?);
            let (at_limit, degrade_to) = (cells.word(AtLimit::parse)?, cells.next()?);
            let value = Budget { day_usd, month_usd, day_tokens, month_tokens, at_limit, degrade_to };
            Ok((scope, Versioned { version, value }))
        })?
        .collect()
}

fn set_budget(batch: &mut Batch<'_>, (scope, budget): &(Scope, Budget)) -> rusqlite::Result<i64> {
    let [day_usd, month_usd, day_tokens, month_tokens] = budget.limits();
    let values = params![
        scope.to_string(),
        day_usd,
        month_usd,
        day_tokens,
        month_tokens,
        budget.at_limit.as_str(),
        budget.degrade_to
    ];
    batch.sql.one(Write::BudgetSet, values, |row| row.get(0))
}

fn spent(connection: &Connection, scope: &Scope, span: Span) -> rusqlite::Result<[i64; 4]> {
    let (text, named) = match scope {
        Scope::All => (read::BUDGET_SPENT, None),
        Scope::Tenant(tenant) => (read::BUDGET_SPENT, Some(tenant)),
        Scope::Key(key) => (read::BUDGET_SPENT_OF_KEY, Some(key)),
    };
    let values = params![span.month, span.day, named.map(Name::as_str)];
    connection.prepare_cached(text)?.query_row(values, |row| {
        let mut cells = Cells::of(row, 0);
        Ok([cells.next()?, cells.next()?, cells.next()?, cells.next()?])
    })
}

fn wake(batch: &mut Batch<'_>, (scope, now, limit): &(Scope, Timestamp, usize)) -> rusqlite::Result<Vec<Entry>> {
    let (tenant, key) = match scope {
        Scope::All => (None, None),
        Scope::Tenant(tenant) => (Some(tenant), None),
        Scope::Key(key) => (None, Some(key)),
    };
    let mut woken = Vec::new();
    while woken.len() < *limit {
        let values = params![now.0, tenant.map(Name::as_str), key.map(Name::as_str)];
        let Some(entry) = batch.sql.find(Write::BudgetWake, values, rows::entry)? else { break };
        woken.push(entry);
    }
    Ok(woken)
}

fn note_alert(batch: &mut Batch<'_>, alert: &Alert) -> rusqlite::Result<bool> {
    let Alert { scope, measure, period, since, level, spent, budget, at } = alert;
    let values = params![scope.to_string(), measure.as_str(), period.as_str(), since, level, spent, budget, at.0];
    if batch.sql.execute(Write::BudgetAlert, values)? == 0 {
        return Ok(false);
    }
    let tenant = match scope {
        Scope::All => None,
        Scope::Tenant(tenant) => Some(tenant.clone()),
        Scope::Key(key) => batch.sql.find(Write::KeyTenant, [key.as_str()], |row| Cells::of(row, 0).name())?,
    };
    webhooks::tell(batch, EventKind::BudgetAlert, tenant.as_ref(), *at, &budget_body(alert))?;
    Ok(true)
}
