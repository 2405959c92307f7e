//! API keys, and tokens that were taken back.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    SqliteJournal,
    rows::{self, Cells},
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    ids::Name,
    journal::{
        ApiKey, Grant, Identity, JournalError, KeyPage, PAGE_MAX_ROWS, Revocation, Revoked, Role, Rotation,
        TokenRevocation,
        identity::{AdminKey, grants_text, spares_no_admin},
    },
    request_limits::Rates,
    time::Timestamp,
};

#[async_trait]
impl Identity for SqliteJournal {
    async fn add_key(&self, key: ApiKey) -> Result<(), JournalError> {
        self.writer.submit(1, key, add_key).await
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>, JournalError> {
        let id = id.to_owned();
        let find =
            move |connection: &Connection| connection.prepare_cached(read::KEY_FIND)?.query_row([id], key).optional();
        self.readers.read(find).await
    }

    async fn keys(&self, page: &KeyPage) -> Result<Vec<ApiKey>, JournalError> {
        let page = page.clone();
        self.readers.read(move |connection| keys(connection, &page)).await
    }

    async fn count_keys(&self, role: Role, now: Timestamp) -> Result<u64, JournalError> {
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::KEY_COUNT)?;
                statement.query_row(params![role.as_str(), now.0], |row| Cells::of(row, 0).count())
            })
            .await
    }

    async fn rotate_key(&self, rotation: Rotation) -> Result<Option<ApiKey>, JournalError> {
        self.writer.submit(1, rotation, rotate_key).await
    }

    async fn revoke_keys(&self, which: Revocation, now: Timestamp) -> Result<Revoked, JournalError> {
        self.writer.submit(1, (which, now), revoke_keys).await
    }

    async fn limit_key(&self, id: &str, rates: Rates) -> Result<Option<ApiKey>, JournalError> {
        self.writer.submit(1, (id.to_owned(), rates), limit_key).await
    }

    async fn note_key_used(&self, id: &str, at: Timestamp) -> Result<(), JournalError> {
        self.writer.submit(1, (id.to_owned(), at), note_key_used).await
    }

    async fn revoke_token(&self, revocation: TokenRevocation, now: Timestamp) -> Result<(), JournalError> {
        self.writer.submit(1, (revocation, now), revoke_token).await
    }

    async fn is_token_revoked(&self, issuer: &str, jti: &str) -> Result<bool, JournalError> {
        let (issuer, jti) = (issuer.to_owned(), jti.to_owned());
        let find = move |connection: &Connection| connection.prepare_cached(read::TOKEN_REVOKED)?.exists([issuer, jti]);
        self.readers.read(find).await
    }
}

fn key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let mut cells = Cells::of(row, 0);
    let (id, secret_hash) = (cells.next()?, cells.next()?);
    let previous: Option<[u8; 32]> = cells.next()?;
    let previous_until = cells.time_if_any()?;
    Ok(ApiKey {
        id,
        secret_hash,
        previous: previous.zip(previous_until),
        tenant: cells.name()?,
        role: cells.word(Role::parse)?,
        grants: cells.json::<Vec<Grant>>()?.unwrap_or_default(),
        name: cells.next()?,
        created_at: cells.time()?,
        expires_at: cells.time_if_any()?,
        rotated_at: cells.time_if_any()?,
        revoked_at: cells.time_if_any()?,
        last_used_at: cells.time_if_any()?,
        rates: rows::rates(&mut cells)?,
    })
}

fn keys(connection: &Connection, page: &KeyPage) -> rusqlite::Result<Vec<ApiKey>> {
    let values = params![
        page.tenant.as_ref().map(Name::as_str),
        page.after.as_deref().unwrap_or_default(),
        page.with_revoked,
        page.limit.min(PAGE_MAX_ROWS) as i64,
    ];
    connection.prepare_cached(read::KEYS_PAGE)?.query_map(values, key)?.collect()
}

fn add_key(batch: &mut Batch<'_>, key: &ApiKey) -> rusqlite::Result<()> {
    let values = params![
        key.id,
        key.secret_hash,
        key.tenant.as_str(),
        key.role.as_str(),
        key.name,
        key.created_at.0,
        grants_text(&key.grants),
        key.expires_at.map(|at| at.0),
        key.rates.requests_per_minute,
        key.rates.llm_submits_per_minute,
    ];
    batch.sql.execute(Write::KeyAdd, values)?;
    Ok(())
}

fn rotate_key(batch: &mut Batch<'_>, rotation: &Rotation) -> rusqlite::Result<Option<ApiKey>> {
    let values = params![rotation.id, rotation.secret_hash, rotation.previous_until.0, rotation.at.0];
    batch.sql.find(Write::KeyRotate, values, key)
}

fn limit_key(batch: &mut Batch<'_>, (id, rates): &(String, Rates)) -> rusqlite::Result<Option<ApiKey>> {
    let values = params![id, rates.requests_per_minute, rates.llm_submits_per_minute];
    batch.sql.find(Write::KeyLimit, values, key)
}

fn revoke_keys(batch: &mut Batch<'_>, (which, now): &(Revocation, Timestamp)) -> rusqlite::Result<Revoked> {
    let admin = |row: &Row<'_>| {
        let mut cells = Cells::of(row, 0);
        Ok(AdminKey {
            id: cells.next()?,
            tenant: cells.name()?,
            grants: cells.json()?.unwrap_or_default(),
            expires_at: cells.time_if_any()?,
        })
    };
    let admins: Vec<AdminKey> = batch.sql.all(Write::KeysAdmins, [now.0], admin)?;
    if spares_no_admin(which, &admins) {
        return Ok(Revoked::LastAdmin);
    }
    let (id, tenant) = match which {
        Revocation::Key(id) => (Some(id.as_str()), None),
        Revocation::Tenant(tenant) => (None, Some(tenant.as_str())),
    };
    batch.sql.all(Write::KeysRevoke, params![id, tenant, now.0], |row| row.get(0)).map(Revoked::Done)
}

fn note_key_used(batch: &mut Batch<'_>, (id, at): &(String, Timestamp)) -> rusqlite::Result<()> {
    batch.sql.execute(Write::KeyUsed, params![id, at.0])?;
    Ok(())
}

fn revoke_token(batch: &mut Batch<'_>, (revocation, now): &(TokenRevocation, Timestamp)) -> rusqlite::Result<()> {
    let TokenRevocation { issuer, jti, expires_at } = revocation;
    batch.sql.execute(Write::TokenRevoke, params![issuer, jti, expires_at.0])?;
    batch.sql.execute(Write::TokensForget, [now.0])?;
    Ok(())
}
