//! What a caller of a tenant reads, behind the second wall: in transactions of the role `longshore_tenant` that say whose they
//! are, so that row-level security shows that tenant's rows and no other. `0015_tenants.sql` is the wall.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use sqlx::PgConnection;

use super::{PostgresJournal, failure::Failure, reads, rows, sql};
use crate::{
    fallback::Link,
    ids::{JobId, Name},
    job::{AttemptRecord, Job},
    journal::{
        Answered, CostQuery, CostRow, DeadGroup, JobFilter, JournalError, Ledger, Listed, Member, QueueTotals, Reads,
        RecentCall, Within,
    },
    ledger::{CallRecord, Saving},
    state::Standing,
    time::Timestamp,
};

/// The journal of one tenant's callers.
#[derive(Clone)]
pub(super) struct OfTenant {
    journal: PostgresJournal,
    tenant: Name,
}

impl PostgresJournal {
    /// The journal as callers of a tenant read it.
    pub(super) fn of_tenant(&self, tenant: &Name) -> OfTenant {
        OfTenant { journal: self.clone(), tenant: tenant.clone() }
    }
}

impl OfTenant {
    /// Asks behind the wall, and again where only the connection was at fault.
    async fn ask<T: Send>(
        &self,
        question: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Failure>> + Sync,
    ) -> Result<T, JournalError> {
        let most = self.journal.bound.options().get_max_connections();
        let mut losses = 0;
        loop {
            match self.try_ask(&question).await {
                Err(Failure::Lost(_)) if losses <= most => losses += 1,
                answer => return answer.map_err(Failure::into_error),
            }
        }
    }

    async fn try_ask<T: Send>(
        &self,
        question: &(impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Failure>> + Sync),
    ) -> Result<T, Failure> {
        let mut transaction = self.begin().await?;
        let answer = question(&mut transaction).await?;
        transaction.commit().await?;
        Ok(answer)
    }

    /// A transaction behind the wall.
    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, Failure> {
        let opening = async { Ok(self.journal.bound.begin().await?) };
        let mut transaction = self.journal.database.door.through(opening).await?;
        sqlx::query(sql::TENANT).bind(self.tenant.as_str()).execute(&mut *transaction).await?;
        Ok(transaction)
    }
}

#[async_trait]
impl Reads for OfTenant {
    fn bound_to(&self, tenant: &Name) -> Arc<dyn Reads> {
        Arc::new(self.journal.of_tenant(tenant))
    }

    async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, JournalError> {
        let ids = Arc::new(ids.to_vec());
        self.ask(move |connection| {
            let ids = ids.clone();
            Box::pin(async move { reads::jobs(connection, &ids).await })
        })
        .await
    }

    async fn payload(&self, id: JobId) -> Result<Option<Bytes>, JournalError> {
        let found = self.ask(move |from| Box::pin(reads::of_job(from, sql::PAYLOAD_OF, id, reads::body)));
        Ok(found.await?.pop())
    }

    async fn fallback(&self, id: JobId) -> Result<Vec<Link>, JournalError> {
        let found = self.ask(move |from| Box::pin(reads::of_job(from, sql::FALLBACK_OF, id, reads::chain)));
        Ok(found.await?.pop().flatten().unwrap_or_default())
    }

    async fn result(&self, id: JobId) -> Result<Option<Bytes>, JournalError> {
        let found = self.ask(move |from| Box::pin(reads::of_job(from, sql::RESULT_OF, id, reads::body)));
        Ok(found.await?.pop())
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, JournalError> {
        self.ask(move |from| Box::pin(reads::of_job(from, sql::ATTEMPTS_OF, id, rows::attempt))).await
    }

    async fn calls(&self, id: JobId) -> Result<Vec<CallRecord>, JournalError> {
        self.ask(move |from| Box::pin(reads::of_job(from, sql::CALLS_OF, id, rows::call))).await
    }

    async fn savings(&self, id: JobId) -> Result<Vec<Saving>, JournalError> {
        self.ask(move |from| Box::pin(reads::of_job(from, sql::SAVINGS_OF, id, rows::saving))).await
    }

    async fn list(&self, filter: &JobFilter) -> Result<Listed, JournalError> {
        self.journal
            .ask(|pages| async move {
                reads::list(&pages, filter, |page| {
                    Box::pin(async move {
                        let mut transaction = self.begin().await?;
                        let rows = page.rows(&mut *transaction).await?;
                        transaction.commit().await?;
                        Ok(rows)
                    })
                })
                .await
            })
            .await
    }

    async fn dead_groups(&self, queue: Option<&Name>, within: &Within) -> Result<Vec<DeadGroup>, JournalError> {
        let asked = Arc::new((queue.cloned(), within.clone()));
        self.ask(move |connection| {
            let asked = asked.clone();
            Box::pin(async move { reads::dead_groups(connection, asked.0.as_ref(), &asked.1).await })
        })
        .await
    }

    /// Numbers of queues are of all tenants: behind the wall there are none.
    async fn totals(&self) -> Result<BTreeMap<Name, QueueTotals>, JournalError> {
        Ok(BTreeMap::new())
    }

    async fn batch(&self, batch_id: &str, within: &Within) -> Result<BTreeMap<Standing, u64>, JournalError> {
        let asked = Arc::new((batch_id.to_owned(), within.clone()));
        self.ask(move |connection| {
            let asked = asked.clone();
            Box::pin(async move { reads::batch(connection, &asked.0, &asked.1).await })
        })
        .await
    }

    async fn newest_of(&self, batches: &[String], each: usize) -> Result<Vec<Vec<Member>>, JournalError> {
        let batches = Arc::new(batches.to_vec());
        self.ask(move |connection| {
            let batches = batches.clone();
            Box::pin(async move { reads::newest_of(connection, &batches, each).await })
        })
        .await
    }

    /// Keys of requests belong to the tenant that sent them; of others nothing is told.
    async fn answered(&self, owner: &Name, key: &str) -> Result<Option<Answered>, JournalError> {
        // A tenant's, or those of one of its keys: tenant, separator, key.
        if owner.as_str().split('\u{1f}').next() != Some(self.tenant.as_str()) {
            return Ok(None);
        }
        self.journal.answered(owner, key).await
    }

    /// Numbers of queues are of all tenants: behind the wall there are none.
    async fn live_counts(&self) -> Result<BTreeMap<Name, u64>, JournalError> {
        Ok(BTreeMap::new())
    }
}

#[async_trait]
impl Ledger for OfTenant {
    fn bound_to(&self, tenant: &Name) -> Arc<dyn Ledger> {
        Arc::new(self.journal.of_tenant(tenant))
    }

    async fn costs(&self, query: &CostQuery) -> Result<Vec<CostRow>, JournalError> {
        let query = Arc::new(query.clone());
        self.ask(move |connection| {
            let query = query.clone();
            Box::pin(async move { reads::costs(connection, &query).await })
        })
        .await
    }

    async fn recent(&self, since: Timestamp) -> Result<Vec<RecentCall>, JournalError> {
        self.ask(move |connection| Box::pin(reads::recent(connection, since))).await
    }

    /// The scheduler's work, which nobody does behind the wall.
    async fn fold_costs(&self) -> Result<u64, JournalError> {
        Ok(0)
    }
}
