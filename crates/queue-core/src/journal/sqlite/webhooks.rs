//! Who is told of what, and what is still to be delivered.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Row, params};
use uuid::Uuid;

use super::{
    SqliteJournal,
    rows::Cells,
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    credentials::Sealed,
    ids::{JobId, Name},
    journal::JournalError,
    time::Timestamp,
    webhooks::{
        ATTEMPTS_SHOWN_MAX, AttemptView, CircuitTold, ClaimDeliveries, DELIVERIES_PAGE_MAX, Delivery, DeliveryAttempt,
        DeliveryState, ENDPOINTS_MAX, Endpoint, EventKind, GIVEN_UP, GIVEN_UP_MAX, LANES_MAX, Listing, NewSecret,
        Owner, SECRETS_MAX, SealedSecret, Webhooks, own_lane,
    },
};

/// Writes the deliveries of a job's end, in the transaction that ends it.
pub(super) fn tell_end(
    batch: &mut Batch<'_>,
    event: EventKind,
    (id, tenant): (JobId, &Name),
    own: Option<&str>,
    at: Timestamp,
) -> rusqlite::Result<()> {
    let tenant = tenant.as_str();
    if let Some(url) = own {
        let values = params![tenant, url, own_lane(tenant, url), event.as_str(), id.as_bytes(), at.0];
        batch.sql.execute(Write::WebhookTellOwn, values)?;
    }
    if is_listened_to(batch)? {
        let values = params![tenant, event.bit(), event.as_str(), id.as_bytes(), at.0, None::<String>];
        batch.sql.execute(Write::WebhookTell, values)?;
    }
    Ok(())
}

/// Writes the deliveries of an event that is not about a job, in the transaction that makes it true.
pub(super) fn tell(
    batch: &mut Batch<'_>,
    event: EventKind,
    tenant: Option<&Name>,
    at: Timestamp,
    body: &str,
) -> rusqlite::Result<()> {
    if is_listened_to(batch)? {
        let tenant = tenant.map_or("", Name::as_str);
        batch
            .sql
            .execute(Write::WebhookTell, params![tenant, event.bit(), event.as_str(), None::<Vec<u8>>, at.0, body])?;
    }
    Ok(())
}

/// Asked once a transaction: only this thread writes, so the answer holds until it changes an endpoint itself.
fn is_listened_to(batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
    if let Some(known) = batch.is_listened_to {
        return Ok(known);
    }
    let found = batch.sql.find(Write::WebhookAny, [], |_| Ok(()))?.is_some();
    batch.is_listened_to = Some(found);
    Ok(found)
}

#[async_trait]
impl Webhooks for SqliteJournal {
    async fn endpoints(&self) -> Result<Vec<Endpoint>, JournalError> {
        self.readers
            .read(|connection| connection.prepare_cached(read::WEBHOOK_ENDPOINTS)?.query_map([], endpoint)?.collect())
            .await
    }

    async fn add_endpoint(&self, endpoint: Endpoint, secret: Sealed) -> Result<bool, JournalError> {
        self.writer.submit(2, (endpoint, secret), add).await
    }

    async fn change_endpoint(&self, endpoint: Endpoint) -> Result<bool, JournalError> {
        self.writer.submit(1, endpoint, change).await
    }

    async fn drop_endpoint(&self, id: Uuid) -> Result<bool, JournalError> {
        self.writer.submit(1, id, drop_endpoint).await
    }

    async fn secrets(&self, owner: &Owner, now: Timestamp) -> Result<Vec<SealedSecret>, JournalError> {
        let owner = owner.to_string();
        self.readers
            .read(move |connection| {
                connection
                    .prepare_cached(read::SIGNING_SECRETS)?
                    .query_map(params![owner, now.0], |row| secret(row, 0))?
                    .collect()
            })
            .await
    }

    async fn put_secret(&self, secret: NewSecret) -> Result<bool, JournalError> {
        self.writer.submit(1, secret, put_secret).await
    }

    async fn secrets_behind(&self, kek_id: &str) -> Result<Vec<(String, SealedSecret)>, JournalError> {
        let kek_id = kek_id.to_owned();
        self.readers
            .read(move |connection| {
                let owned = |row: &Row<'_>| Ok((Cells::of(row, 0).next()?, secret(row, 1)?));
                let limit = SECRETS_MAX as i64;
                connection
                    .prepare_cached(read::SIGNING_SECRETS_BEHIND)?
                    .query_map(params![kek_id, limit], owned)?
                    .collect()
            })
            .await
    }

    async fn rewrap_secret(&self, owner: String, version: i64, from: String, to: Sealed) -> Result<bool, JournalError> {
        self.writer.submit(1, (owner, version, from, to), rewrap_secret).await
    }

    async fn tell_circuit(&self, told: CircuitTold) -> Result<bool, JournalError> {
        self.writer.submit(1, told, tell_circuit).await
    }

    async fn open_circuits(&self) -> Result<BTreeMap<Name, Timestamp>, JournalError> {
        self.readers
            .read(|connection| {
                let circuit = |row: &Row<'_>| {
                    let mut cells = Cells::of(row, 0);
                    Ok((cells.name()?, cells.time()?))
                };
                connection.prepare_cached(read::WEBHOOK_CIRCUITS)?.query_map([], circuit)?.collect()
            })
            .await
    }

    /// Looks first: a look costs the writer nothing, and mostly there is nothing to take.
    async fn claim_deliveries(&self, claim: ClaimDeliveries) -> Result<Vec<Delivery>, JournalError> {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let except = serde_json::to_string(&claim.except).map_err(|error| JournalError::Corrupt(error.to_string()))?;
        let (behind, now) = (claim.behind.clone(), claim.now);
        let (per_lane, limit) = (count(claim.per_lane), count(claim.limit));
        let due: Vec<i64> = self
            .readers
            .read(move |connection| {
                let values = params![behind, except, count(LANES_MAX), now.0, per_lane, limit];
                connection.prepare_cached(read::DELIVERIES_DUE)?.query_map(values, |row| row.get(0))?.collect()
            })
            .await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        self.writer.submit(due.len(), (claim, due), take).await
    }

    async fn note_delivery(&self, attempt: DeliveryAttempt) -> Result<Option<u64>, JournalError> {
        self.writer.submit(2, attempt, note).await
    }

    async fn deliveries(&self, of: Listing, before: i64, limit: usize) -> Result<Vec<Delivery>, JournalError> {
        let limit = i64::try_from(limit.min(DELIVERIES_PAGE_MAX)).unwrap_or_default();
        self.readers
            .read(move |connection| {
                let (text, id) = match of {
                    Listing::All => {
                        let mut page = connection.prepare_cached(read::DELIVERIES_ALL)?;
                        return page.query_map(params![before, limit], delivery)?.collect();
                    }
                    Listing::Endpoint(id) => (read::DELIVERIES_ENDPOINT, id),
                    Listing::Job(id) => (read::DELIVERIES_JOB, id.0),
                    Listing::One(id) => (read::DELIVERIES_ONE, id),
                };
                let values = params![before, limit, id.as_bytes()];
                connection.prepare_cached(text)?.query_map(values, delivery)?.collect()
            })
            .await
    }

    async fn delivery_attempts(&self, seq: i64) -> Result<Vec<AttemptView>, JournalError> {
        let mut newest: Vec<AttemptView> = self
            .readers
            .read(move |connection| {
                let values = params![seq, ATTEMPTS_SHOWN_MAX as i64];
                connection.prepare_cached(read::DELIVERY_ATTEMPTS)?.query_map(values, attempt)?.collect()
            })
            .await?;
        newest.reverse();
        Ok(newest)
    }

    async fn replay_delivery(&self, id: Uuid, now: Timestamp) -> Result<bool, JournalError> {
        self.writer.submit(1, (id, now), replay).await
    }
}

fn endpoint(row: &Row<'_>) -> rusqlite::Result<Endpoint> {
    let mut cells = Cells::of(row, 0);
    Ok(Endpoint {
        id: cells.id()?,
        tenant: cells.name()?.if_any(),
        url: cells.next()?,
        events: EventKind::of_bits(cells.next()?),
        enabled: cells.next()?,
        reason: cells.next()?,
        description: cells.next()?,
        version: cells.next()?,
        created_at: cells.time()?,
    })
}

fn secret(row: &Row<'_>, at: usize) -> rusqlite::Result<SealedSecret> {
    let mut cells = Cells::of(row, at);
    Ok(SealedSecret {
        version: cells.next()?,
        sealed: Sealed { kek_id: cells.next()?, wrapped_key: cells.next()?, ciphertext: cells.next()? },
        valid_until: cells.time_if_any()?,
    })
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let mut cells = Cells::of(row, 0);
    let id_if_any = |bytes: Option<[u8; 16]>| bytes.map(Uuid::from_bytes);
    let seq = cells.next()?;
    Ok(Delivery {
        seq,
        id: cells.id()?,
        endpoint: id_if_any(cells.next()?),
        lane: cells.next()?,
        tenant: cells.name()?.if_any(),
        event: cells.word(EventKind::parse)?,
        job: id_if_any(cells.next()?).map(JobId),
        at: cells.time()?,
        url: cells.next()?,
        enabled: cells.next()?,
        body: cells.next()?,
        state: DeliveryState::of_code(cells.next()?).unwrap_or(DeliveryState::Pending),
        attempts: cells.count()?,
        tries: cells.count()?,
        due_at: cells.time()?,
        last: cells.next()?,
    })
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptView> {
    let mut cells = Cells::of(row, 0);
    Ok(AttemptView {
        at: cells.time()?,
        duration_ms: cells.next()?,
        status: cells.next()?,
        answer: cells.next()?,
        error: cells.next()?,
    })
}

fn add(batch: &mut Batch<'_>, (endpoint, secret): &(Endpoint, Sealed)) -> rusqlite::Result<bool> {
    let values = params![
        endpoint.id.as_bytes(),
        endpoint.tenant.as_ref().map_or("", Name::as_str),
        endpoint.url,
        EventKind::bits(&endpoint.events),
        endpoint.description,
        endpoint.created_at.0,
        ENDPOINTS_MAX as i64,
    ];
    batch.is_listened_to = None;
    if batch.sql.execute(Write::WebhookAdd, values)? == 0 {
        return Ok(false);
    }
    let owner = Owner::Endpoint(endpoint.id).to_string();
    let values = params![owner, 1, secret.kek_id, secret.wrapped_key, secret.ciphertext, endpoint.created_at.0];
    batch.sql.execute(Write::SigningSecretPut, values)?;
    Ok(true)
}

fn change(batch: &mut Batch<'_>, endpoint: &Endpoint) -> rusqlite::Result<bool> {
    batch.is_listened_to = None;
    let values = params![
        endpoint.id.as_bytes(),
        endpoint.version,
        endpoint.url,
        EventKind::bits(&endpoint.events),
        endpoint.enabled,
        endpoint.reason,
        endpoint.description,
    ];
    Ok(batch.sql.execute(Write::WebhookChange, values)? > 0)
}

fn drop_endpoint(batch: &mut Batch<'_>, id: &Uuid) -> rusqlite::Result<bool> {
    batch.is_listened_to = None;
    batch.sql.execute(Write::SigningSecretsDrop, params![Owner::Endpoint(*id).to_string(), i64::MAX])?;
    Ok(batch.sql.execute(Write::WebhookDrop, [id.as_bytes()])? > 0)
}

fn put_secret(batch: &mut Batch<'_>, new: &NewSecret) -> rusqlite::Result<bool> {
    let (owner, sealed) = (new.owner.to_string(), &new.sealed);
    let values = params![owner, new.version, sealed.kek_id, sealed.wrapped_key, sealed.ciphertext, new.at.0];
    if batch.sql.execute(Write::SigningSecretPut, values)? == 0 {
        return Ok(false);
    }
    batch.sql.execute(Write::SigningSecretsLimit, params![owner, new.version - 1, new.former_until.0])?;
    batch.sql.execute(Write::SigningSecretsDrop, params![owner, new.version - 1])?;
    Ok(true)
}

fn rewrap_secret(
    batch: &mut Batch<'_>,
    (owner, version, from, to): &(String, i64, String, Sealed),
) -> rusqlite::Result<bool> {
    let values = params![owner, version, from, to.kek_id, to.wrapped_key];
    Ok(batch.sql.execute(Write::SigningSecretRewrap, values)? > 0)
}

fn tell_circuit(batch: &mut Batch<'_>, told: &CircuitTold) -> rusqlite::Result<bool> {
    let circuit = told.circuit.as_str();
    let changed = if told.open {
        batch.sql.execute(Write::CircuitOpen, params![circuit, told.at.0])?
    } else {
        batch.sql.execute(Write::CircuitClose, params![circuit, told.last_open_at.0])?
    };
    if told.open && changed == 0 {
        batch.sql.execute(Write::CircuitAgain, params![circuit, told.at.0])?;
    }
    if changed > 0 {
        let event = told.what.event(told.open);
        tell(batch, event, told.tenant.as_ref(), told.at, &told.body)?;
    }
    Ok(changed > 0)
}

fn take(batch: &mut Batch<'_>, (claim, due): &(ClaimDeliveries, Vec<i64>)) -> rusqlite::Result<Vec<Delivery>> {
    let mut taken = Vec::new();
    for seq in due {
        let values = params![seq, claim.now.0, claim.until.0, claim.owner.0.as_bytes()];
        if batch.sql.execute(Write::DeliveryClaim, values)? > 0 {
            taken.push(batch.sql.one(Write::DeliveryRow, [seq], delivery)?);
        }
    }
    Ok(taken)
}

fn note(batch: &mut Batch<'_>, attempt: &DeliveryAttempt) -> rusqlite::Result<Option<u64>> {
    if attempt.tried {
        let DeliveryAttempt { seq, at, duration_ms, status, answer, error, .. } = attempt;
        batch.sql.execute(Write::DeliveryLog, params![seq, at.0, duration_ms, status, answer, error])?;
    }
    let last = attempt.error.clone().or_else(|| attempt.status.map(|status| status.to_string()));
    let values = params![
        attempt.seq,
        attempt.owner.0.as_bytes(),
        attempt.state.code(),
        attempt.tried,
        attempt.due_at.0,
        attempt.body,
        last,
    ];
    let noted = |row: &Row<'_>| Ok((row.get::<_, Option<[u8; 16]>>(0)?, row.get::<_, String>(1)?));
    let Some((endpoint, lane)) = batch.sql.find(Write::DeliveryNote, values, noted)? else { return Ok(None) };
    if let (Some(endpoint), Some(why)) = (endpoint, &attempt.disable) {
        batch.is_listened_to = None;
        batch.sql.execute(Write::WebhookOff, params![endpoint, why])?;
    }
    let Some(before) = attempt.overdue_before else { return Ok(Some(0)) };
    let values = params![lane, before.0, GIVEN_UP_MAX as i64, attempt.at.0, GIVEN_UP];
    Ok(Some(batch.sql.execute(Write::DeliveriesGiveUp, values)? as u64))
}

fn replay(batch: &mut Batch<'_>, (id, now): &(Uuid, Timestamp)) -> rusqlite::Result<bool> {
    Ok(batch.sql.execute(Write::DeliveryReplay, params![id.as_bytes(), now.0])? > 0)
}

/// Deletes deliveries that ended before this moment, with their attempts, at most so many; how many.
pub(super) fn prune(batch: &mut Batch<'_>, (before, limit): &(Timestamp, usize)) -> rusqlite::Result<u64> {
    let mut gone = 0;
    for _ in 0..*limit {
        let Some(seq) = batch.sql.find(Write::DeliveriesPrune, [before.0], |row| row.get::<_, i64>(0))? else { break };
        batch.sql.execute(Write::AttemptsPrune, [seq])?;
        gone += 1;
    }
    Ok(gone)
}
