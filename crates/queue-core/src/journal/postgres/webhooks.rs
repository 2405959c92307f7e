//! Who is told of what, and what is still to be delivered.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::Cells,
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
};
use crate::{
    credentials::Sealed,
    ids::{JobId, Name},
    journal::JournalError,
    time::Timestamp,
    webhooks::{
        ATTEMPTS_SHOWN_MAX, AttemptView, CircuitTold, ClaimDeliveries, DELIVERIES_PAGE_MAX, Delivery, DeliveryAttempt,
        DeliveryState, ENDPOINTS_MAX, Endpoint, EventKind, GIVEN_UP, GIVEN_UP_MAX, LANES_MAX, Listing, NewSecret,
        Owner, SECRETS_MAX, SealedSecret, Webhooks,
    },
};

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

#[async_trait]
impl Webhooks for PostgresJournal {
    async fn endpoints(&self) -> Result<Vec<Endpoint>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::WEBHOOK_ENDPOINTS).fetch_all(&pool).await?;
            Ok(found.iter().map(endpoint).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn add_endpoint(&self, endpoint: Endpoint, secret: Sealed) -> Result<bool, JournalError> {
        self.write::<Add>((endpoint, secret)).await
    }

    async fn change_endpoint(&self, endpoint: Endpoint) -> Result<bool, JournalError> {
        self.write::<Change>(endpoint).await
    }

    async fn drop_endpoint(&self, id: Uuid) -> Result<bool, JournalError> {
        self.write::<Drop>(id).await
    }

    async fn secrets(&self, owner: &Owner, now: Timestamp) -> Result<Vec<SealedSecret>, JournalError> {
        let owner = owner.to_string();
        self.ask(|pool| {
            let owner = owner.clone();
            async move {
                let found = sqlx::query(sql::SIGNING_SECRETS).bind(owner).bind(now.0).fetch_all(&pool).await?;
                Ok(found.iter().map(|row| secret(row, 0)).collect::<Result<_, _>>()?)
            }
        })
        .await
    }

    async fn put_secret(&self, secret: NewSecret) -> Result<bool, JournalError> {
        self.write::<PutSecret>(secret).await
    }

    async fn secrets_behind(&self, kek_id: &str) -> Result<Vec<(String, SealedSecret)>, JournalError> {
        let kek_id = kek_id.to_owned();
        self.ask(|pool| {
            let kek_id = kek_id.clone();
            async move {
                let asked = sqlx::query(sql::SIGNING_SECRETS_BEHIND).bind(kek_id).bind(SECRETS_MAX as i64);
                let owned = |row: &PgRow| Ok((Cells::of(row, 0).text()?, secret(row, 1)?));
                Ok(asked.fetch_all(&pool).await?.iter().map(owned).collect::<Result<_, sqlx::Error>>()?)
            }
        })
        .await
    }

    async fn rewrap_secret(&self, owner: String, version: i64, from: String, to: Sealed) -> Result<bool, JournalError> {
        self.write::<RewrapSecret>((owner, version, from, to)).await
    }

    async fn tell_circuit(&self, told: CircuitTold) -> Result<bool, JournalError> {
        self.write::<TellCircuit>(told).await
    }

    async fn open_circuits(&self) -> Result<BTreeMap<Name, Timestamp>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::WEBHOOK_CIRCUITS).fetch_all(&pool).await?;
            let read = |row: &PgRow| -> Result<_, sqlx::Error> {
                let mut cells = Cells::of(row, 0);
                Ok((cells.name()?, cells.time()?))
            };
            Ok(found.iter().map(read).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn claim_deliveries(&self, claim: ClaimDeliveries) -> Result<Vec<Delivery>, JournalError> {
        self.write::<Claim>(claim).await
    }

    async fn note_delivery(&self, attempt: DeliveryAttempt) -> Result<Option<u64>, JournalError> {
        self.write::<Note>(attempt).await
    }

    async fn deliveries(&self, of: Listing, before: i64, limit: usize) -> Result<Vec<Delivery>, JournalError> {
        self.ask(|pool| async move {
            let limit = i64::try_from(limit.min(DELIVERIES_PAGE_MAX)).unwrap_or_default();
            let page = |text: &'static str| sqlx::query(text).bind(before).bind(limit);
            let query = match of {
                Listing::All => page(sql::DELIVERIES_ALL),
                Listing::Endpoint(id) => page(sql::DELIVERIES_ENDPOINT).bind(id),
                Listing::Job(id) => page(sql::DELIVERIES_JOB).bind(id.0),
                Listing::One(id) => page(sql::DELIVERIES_ONE).bind(id),
            };
            let found = query.fetch_all(&pool).await?;
            Ok(found.iter().map(delivery).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn delivery_attempts(&self, seq: i64) -> Result<Vec<AttemptView>, JournalError> {
        self.ask(|pool| async move {
            let limit = ATTEMPTS_SHOWN_MAX as i64;
            let found = sqlx::query(sql::DELIVERY_ATTEMPTS).bind(seq).bind(limit).fetch_all(&pool).await?;
            Ok(found.iter().rev().map(attempt).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn replay_delivery(&self, id: Uuid, now: Timestamp) -> Result<bool, JournalError> {
        self.write::<Replay>((id, now)).await
    }
}

fn endpoint(row: &PgRow) -> Result<Endpoint, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(Endpoint {
        id: cells.next()?,
        tenant: cells.name()?.if_any(),
        url: cells.text()?,
        events: EventKind::of_bits(cells.next()?),
        enabled: cells.next()?,
        reason: cells.text_if_any()?,
        description: cells.text_if_any()?,
        version: cells.next()?,
        created_at: cells.time()?,
    })
}

fn secret(row: &PgRow, at: usize) -> Result<SealedSecret, sqlx::Error> {
    let mut cells = Cells::of(row, at);
    Ok(SealedSecret {
        version: cells.next()?,
        sealed: Sealed { kek_id: cells.next()?, wrapped_key: cells.next()?, ciphertext: cells.next()? },
        valid_until: cells.time_if_any()?,
    })
}

fn delivery(row: &PgRow) -> Result<Delivery, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let seq = cells.next()?;
    Ok(Delivery {
        seq,
        id: cells.next()?,
        endpoint: cells.next()?,
        lane: cells.next()?,
        tenant: cells.name()?.if_any(),
        event: cells.word(EventKind::parse)?,
        job: cells.next::<Option<Uuid>>()?.map(JobId),
        at: cells.time()?,
        url: cells.text_if_any()?,
        enabled: cells.next()?,
        body: cells.text_if_any()?,
        state: DeliveryState::of_code(i64::from(cells.next::<i16>()?)).unwrap_or(DeliveryState::Pending),
        attempts: cells.small_count()?,
        tries: cells.small_count()?,
        due_at: cells.time()?,
        last: cells.text_if_any()?,
    })
}

fn attempt(row: &PgRow) -> Result<AttemptView, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(AttemptView {
        at: cells.time()?,
        duration_ms: cells.next()?,
        status: cells.next::<Option<i32>>()?.and_then(|status| u16::try_from(status).ok()),
        answer: cells.text_if_any()?,
        error: cells.text_if_any()?,
    })
}

/// How many rows a statement changed, for each input.
async fn changed<'q>(transaction: &mut Transaction, query: Query<'q>) -> Result<bool, Failure> {
    Ok(query.execute(transaction.connection()).await?.rows_affected() > 0)
}

struct Add;

#[async_trait]
impl Verb for Add {
    type Input = (Endpoint, Sealed);
    type Output = bool;
    /// The id is its own: a second try is refused by the key, and the caller asks what is there.
    const REPEATABLE: bool = false;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut made = Vec::new();
        for (endpoint, secret) in inputs {
            let query = sqlx::query(sql::WEBHOOK_ADD)
                .bind(endpoint.id)
                .bind(endpoint.tenant.as_ref().map_or("", Name::as_str))
                .bind(kept(&endpoint.url))
                .bind(EventKind::bits(&endpoint.events))
                .bind(kept_if_any(endpoint.description.as_ref()))
                .bind(endpoint.created_at.0)
                .bind(ENDPOINTS_MAX as i64)
                .bind(Owner::Endpoint(endpoint.id).to_string())
                .bind(&secret.kek_id)
                .bind(&secret.wrapped_key)
                .bind(&secret.ciphertext);
            made.push(changed(transaction, query).await?);
        }
        Ok(made)
    }
}

struct Change;

#[async_trait]
impl Verb for Change {
    type Input = Endpoint;
    type Output = bool;
    const REPEATABLE: bool = false;

    async fn run(transaction: &mut Transaction, inputs: &[Endpoint], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut done = Vec::new();
        for endpoint in inputs {
            let query = sqlx::query(sql::WEBHOOK_CHANGE)
                .bind(endpoint.id)
                .bind(endpoint.version)
                .bind(kept(&endpoint.url))
                .bind(EventKind::bits(&endpoint.events))
                .bind(endpoint.enabled)
                .bind(kept_if_any(endpoint.reason.as_ref()))
                .bind(kept_if_any(endpoint.description.as_ref()));
            done.push(changed(transaction, query).await?);
        }
        Ok(done)
    }
}

struct Drop;

#[async_trait]
impl Verb for Drop {
    type Input = Uuid;
    type Output = bool;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Uuid], again: bool) -> Result<Vec<bool>, Failure> {
        let mut gone = Vec::new();
        for id in inputs {
            let query = sqlx::query(sql::WEBHOOK_DROP).bind(*id).bind(Owner::Endpoint(*id).to_string());
            gone.push(changed(transaction, query).await? || again);
        }
        Ok(gone)
    }
}

struct PutSecret;

#[async_trait]
impl Verb for PutSecret {
    type Input = NewSecret;
    type Output = bool;
    const REPEATABLE: bool = false;

    async fn run(transaction: &mut Transaction, inputs: &[NewSecret], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut put = Vec::new();
        for new in inputs {
            let added: i64 = sqlx::query_scalar(sql::SIGNING_SECRET_PUT)
                .bind(new.owner.to_string())
                .bind(new.version)
                .bind(&new.sealed.kek_id)
                .bind(&new.sealed.wrapped_key)
                .bind(&new.sealed.ciphertext)
                .bind(new.at.0)
                .bind(new.former_until.0)
                .fetch_one(transaction.connection())
                .await?;
            put.push(added > 0);
        }
        Ok(put)
    }
}

struct RewrapSecret;

#[async_trait]
impl Verb for RewrapSecret {
    type Input = (String, i64, String, Sealed);
    type Output = bool;
    /// A repeat finds the other master key: the step that follows finds nothing to do.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut rewrapped = Vec::new();
        for (owner, version, from, to) in inputs {
            let done = sqlx::query(sql::SIGNING_SECRET_REWRAP)
                .bind(owner)
                .bind(version)
                .bind(from)
                .bind(&to.kek_id)
                .bind(&to.wrapped_key)
                .execute(transaction.connection())
                .await?;
            rewrapped.push(done.rows_affected() > 0);
        }
        Ok(rewrapped)
    }
}

struct TellCircuit;

#[async_trait]
impl Verb for TellCircuit {
    type Input = CircuitTold;
    type Output = bool;
    /// A repeat finds its own note: what was to be told is written.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[CircuitTold], again: bool) -> Result<Vec<bool>, Failure> {
        let mut first = Vec::new();
        for told in inputs {
            let noting = sqlx::query_scalar(if told.open { sql::CIRCUIT_OPEN } else { sql::CIRCUIT_CLOSE })
                .bind(told.circuit.as_str())
                .bind(told.at.0)
                .bind(told.tenant.as_ref().map_or("", Name::as_str))
                .bind(kept(&told.body))
                .bind(told.what.event(told.open).as_str())
                .bind(told.what.event(told.open).bit());
            let noting = if told.open { noting } else { noting.bind(told.last_open_at.0) };
            let noted: i64 = noting.fetch_one(transaction.connection()).await?;
            first.push(noted > 0 || again);
        }
        Ok(first)
    }
}

struct Claim;

#[async_trait]
impl Verb for Claim {
    type Input = ClaimDeliveries;
    type Output = Vec<Delivery>;
    /// What a lost commit took becomes due by itself.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[ClaimDeliveries],
        _again: bool,
    ) -> Result<Vec<Vec<Delivery>>, Failure> {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let mut taken = Vec::new();
        for claim in inputs {
            let found = sqlx::query(sql::DELIVERIES_CLAIM)
                .bind(&claim.behind)
                .bind(&claim.except)
                .bind(count(LANES_MAX))
                .bind(claim.now.0)
                .bind(count(claim.per_lane))
                .bind(count(claim.limit))
                .bind(claim.until.0)
                .bind(claim.owner.0)
                .fetch_all(transaction.connection())
                .await?;
            taken.push(found.iter().map(delivery).collect::<Result<_, _>>()?);
        }
        Ok(taken)
    }
}

struct Note;

#[async_trait]
impl Verb for Note {
    type Input = DeliveryAttempt;
    type Output = Option<u64>;
    /// The log of attempts may then hold one of them twice.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[DeliveryAttempt],
        again: bool,
    ) -> Result<Vec<Option<u64>>, Failure> {
        let mut noted = Vec::new();
        for attempt in inputs {
            let last = attempt.error.clone().or_else(|| attempt.status.map(|status| status.to_string()));
            let (done, given_up): (i64, i64) = sqlx::query_as(sql::DELIVERY_NOTE)
                .bind(attempt.seq)
                .bind(attempt.owner.0)
                .bind(attempt.at.0)
                .bind(attempt.duration_ms)
                .bind(attempt.status.map(i32::from))
                .bind(kept_if_any(attempt.answer.as_ref()))
                .bind(kept_if_any(attempt.error.as_ref()))
                .bind(attempt.tried)
                .bind(attempt.state.code())
                .bind(attempt.due_at.0)
                .bind(kept_if_any(attempt.body.as_ref()))
                .bind(kept_if_any(attempt.disable.as_ref()))
                .bind(kept_if_any(last.as_ref()))
                .bind(attempt.overdue_before.map(|before| before.0))
                .bind(GIVEN_UP_MAX as i64)
                .bind(GIVEN_UP)
                .fetch_one(transaction.connection())
                .await?;
            noted.push((done > 0 || again).then_some(given_up.unsigned_abs()));
        }
        Ok(noted)
    }
}

struct Replay;

#[async_trait]
impl Verb for Replay {
    type Input = (Uuid, Timestamp);
    type Output = bool;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut done = Vec::new();
        for (id, now) in inputs {
            let query = sqlx::query(sql::DELIVERY_REPLAY).bind(*id).bind(now.0);
            done.push(changed(transaction, query).await?);
        }
        Ok(done)
    }
}
