//! Budgets, what was spent of them, and who waits for them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::{self, Cells},
    sql,
    text::kept_if_any,
    transaction::{Transaction, Verb},
};
use crate::{
    budget::{AtLimit, Budget, Scope, Span},
    dispatcher::Entry,
    ids::Name,
    journal::{Alert, Budgets, JournalError, PAGE_MAX_ROWS, Versioned},
    ledger::Nanousd,
    time::Timestamp,
    webhooks::budget_body,
};

#[async_trait]
impl Budgets for PostgresJournal {
    async fn budgets(&self) -> Result<BTreeMap<Scope, Versioned<Budget>>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::BUDGETS).fetch_all(&pool).await?;
            Ok(found.iter().map(budget).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn set_budget(&self, scope: &Scope, budget: Budget) -> Result<i64, JournalError> {
        self.write::<SetBudget>((scope.clone(), budget)).await
    }

    async fn spent(&self, scope: &Scope, span: Span) -> Result<[i64; 4], JournalError> {
        let (text, named) = match scope {
            Scope::All => (sql::BUDGET_SPENT, None),
            Scope::Tenant(tenant) => (sql::BUDGET_SPENT, Some(tenant)),
            Scope::Key(key) => (sql::BUDGET_SPENT_OF_KEY, Some(key)),
        };
        self.ask(|pool| async move {
            let asked = sqlx::query(text).bind(span.month).bind(span.day).bind(named.map(Name::as_str));
            let row = asked.fetch_one(&pool).await?;
            let mut cells = Cells::of(&row, 0);
            Ok([cells.next()?, cells.next()?, cells.next()?, cells.next()?])
        })
        .await
    }

    async fn wake(&self, scope: &Scope, now: Timestamp, limit: usize) -> Result<Vec<Entry>, JournalError> {
        self.write::<Wake>((scope.clone(), now, limit)).await
    }

    async fn note_alert(&self, alert: &Alert) -> Result<bool, JournalError> {
        self.write::<NoteAlert>(alert.clone()).await
    }

    async fn alerts(&self, limit: usize) -> Result<Vec<Alert>, JournalError> {
        self.ask(|pool| async move {
            let limit = limit.min(PAGE_MAX_ROWS) as i64;
            let found = sqlx::query(sql::BUDGET_ALERTS).bind(limit).fetch_all(&pool).await?;
            Ok(found.iter().map(rows::alert).collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn budget(row: &PgRow) -> Result<(Scope, Versioned<Budget>), sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let (scope, version) = (cells.word(Scope::parse)?, cells.next()?);
    let mut money = || Ok::<_, sqlx::Error>(cells.next::<Option<i64>>()?.map(Nanousd));
    let (day_usd, month_usd) = (money()?, money()?);
    let mut tokens =
        || Ok::<_, sqlx::Error>(cells.next::<Option<i64>>()?.and_then(|tokens| u64::try_from(tokens).ok()));
    let (day_tokens, month_tokens) = (tokens()?, tokens()?);
    let (at_limit, degrade_to) = (cells.word(AtLimit::parse)?, cells.text_if_any()?);
    let value = Budget { day_usd, month_usd, day_tokens, month_tokens, at_limit, degrade_to };
    Ok((scope, Versioned { version, value }))
}

struct SetBudget;

#[async_trait]
impl Verb for SetBudget {
    type Input = (Scope, Budget);
    type Output = i64;
    /// The same budget twice is two versions of the same.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<i64>, Failure> {
        let mut versions = Vec::new();
        for (scope, budget) in inputs {
            let limits = budget.limits();
            let version = sqlx::query_scalar(sql::BUDGET_SET)
                .bind(scope.to_string())
                .bind(limits[0])
                .bind(limits[1])
                .bind(limits[2])
                .bind(limits[3])
                .bind(budget.at_limit.as_str())
                .bind(kept_if_any(budget.degrade_to.as_ref()))
                .fetch_one(transaction.connection())
                .await?;
            versions.push(version);
        }
        Ok(versions)
    }
}

struct Wake;

#[async_trait]
impl Verb for Wake {
    type Input = (Scope, Timestamp, usize);
    type Output = Vec<Entry>;
    /// A repeat finds others: those of the first time are due, and the reconciler pushes them.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Vec<Entry>>, Failure> {
        let mut woken = Vec::new();
        for (scope, now, limit) in inputs {
            let (tenant, key) = match scope {
                Scope::All => (None, None),
                Scope::Tenant(tenant) => (Some(tenant), None),
                Scope::Key(key) => (None, Some(key)),
            };
            let found = sqlx::query(sql::BUDGET_WAKE)
                .bind(now.0)
                .bind(tenant.map(Name::as_str))
                .bind(key.map(Name::as_str))
                .bind(i64::try_from(*limit).unwrap_or(i64::MAX))
                .fetch_all(transaction.connection())
                .await?;
            woken.push(found.iter().map(rows::entry).collect::<Result<_, _>>()?);
        }
        Ok(woken)
    }
}

struct NoteAlert;

#[async_trait]
impl Verb for NoteAlert {
    type Input = Alert;
    type Output = bool;
    /// A repeat finds its own note and says that somebody else came first: an alert that is lost with a connection is told
    /// by its row alone.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, alerts: &[Alert], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut noted = Vec::new();
        for alert in alerts {
            let (tenant, key) = match &alert.scope {
                Scope::All => (None, None),
                Scope::Tenant(tenant) => (Some(tenant), None),
                Scope::Key(key) => (None, Some(key)),
            };
            let first: i64 = sqlx::query_scalar(sql::BUDGET_ALERT)
                .bind(alert.scope.to_string())
                .bind(alert.measure.as_str())
                .bind(alert.period.as_str())
                .bind(alert.since)
                .bind(i16::from(alert.level))
                .bind(alert.spent)
                .bind(alert.budget)
                .bind(alert.at.0)
                .bind(tenant.map_or("", Name::as_str))
                .bind(key.map(Name::as_str))
                .bind(budget_body(alert))
                .fetch_one(transaction.connection())
                .await?;
            noted.push(first > 0);
        }
        Ok(noted)
    }
}
