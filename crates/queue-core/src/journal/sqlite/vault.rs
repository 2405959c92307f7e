//! Tenants' keys, sealed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteJournal,
    rows::Cells,
    sql::{Write, read},
    webhooks,
    writer::Batch,
};
use crate::{
    credentials::{
        Credential, CredentialId, CredentialNote, CredentialPolicy, CredentialState, NewCredential, Noted, Sealed,
        Vault,
    },
    ids::Name,
    journal::JournalError,
    time::Timestamp,
    webhooks::{EventKind, credential_body},
};

#[async_trait]
impl Vault for SqliteJournal {
    async fn credentials_since(&self, revision: i64, limit: usize) -> Result<Vec<Credential>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.readers
            .read(move |connection| {
                connection.prepare_cached(read::CREDENTIALS_SINCE)?.query_map([revision, limit], credential)?.collect()
            })
            .await
    }

    async fn credential_policies(&self) -> Result<BTreeMap<Name, CredentialPolicy>, JournalError> {
        let policy = |row: &Row<'_>| {
            let mut cells = Cells::of(row, 0);
            Ok((cells.name()?, cells.word(CredentialPolicy::parse)?))
        };
        self.readers
            .read(move |connection| {
                connection.prepare_cached(read::CREDENTIAL_POLICIES)?.query_map([], policy)?.collect()
            })
            .await
    }

    async fn put_credential(&self, new: NewCredential) -> Result<bool, JournalError> {
        self.writer.submit(1, new, put).await
    }

    async fn rewrap_credential(&self, id: CredentialId, from: String, to: Sealed) -> Result<bool, JournalError> {
        self.writer.submit(1, (id, from, to), rewrap).await
    }

    async fn set_credential(
        &self,
        tenant: &Name,
        provider: &Name,
        state: CredentialState,
        reason: Option<String>,
    ) -> Result<bool, JournalError> {
        self.writer.submit(1, (tenant.clone(), provider.clone(), state, reason), set).await
    }

    async fn note_credential(
        &self,
        id: CredentialId,
        note: CredentialNote,
        at: Timestamp,
    ) -> Result<Option<Noted>, JournalError> {
        self.writer.submit(1, (id, note, at), take_note).await
    }
}

fn credential(row: &Row<'_>) -> rusqlite::Result<Credential> {
    let mut cells = Cells::of(row, 0);
    let (tenant, provider) = (cells.name()?, cells.name()?);
    let (version, revision) = (cells.next()?, cells.next()?);
    let state = cells.word(CredentialState::parse)?;
    let reason = cells.next()?;
    let (kek_id, wrapped_key, ciphertext) = (cells.next()?, cells.next()?, cells.next()?);
    Ok(Credential {
        tenant,
        provider,
        version,
        revision,
        state,
        reason,
        sealed: Sealed::of_columns(kek_id, wrapped_key, ciphertext),
        hint: cells.next()?,
        failures: cells.count()?,
        created_at: cells.time()?,
        rotated_at: cells.time()?,
        used_at: cells.time_if_any()?,
    })
}

fn put(batch: &mut Batch<'_>, new: &NewCredential) -> rusqlite::Result<bool> {
    let changed = batch.sql.execute(
        Write::CredentialPut,
        params![
            new.tenant.as_str(),
            new.provider.as_str(),
            new.version,
            new.sealed.kek_id,
            new.sealed.wrapped_key,
            new.sealed.ciphertext,
            new.hint,
            new.at.0,
        ],
    )?;
    Ok(changed > 0)
}

fn rewrap(
    batch: &mut Batch<'_>,
    (CredentialId { tenant, provider, version }, from, to): &(CredentialId, String, Sealed),
) -> rusqlite::Result<bool> {
    let values = params![tenant.as_str(), provider.as_str(), version, from, to.kek_id, to.wrapped_key];
    Ok(batch.sql.execute(Write::CredentialRewrap, values)? > 0)
}

fn set(
    batch: &mut Batch<'_>,
    (tenant, provider, state, reason): &(Name, Name, CredentialState, Option<String>),
) -> rusqlite::Result<bool> {
    let values = params![tenant.as_str(), provider.as_str(), state.as_str(), reason];
    Ok(batch.sql.execute(Write::CredentialSet, values)? > 0)
}

fn take_note(
    batch: &mut Batch<'_>,
    (id, note, at): &(CredentialId, CredentialNote, Timestamp),
) -> rusqlite::Result<Option<Noted>> {
    let CredentialId { tenant, provider, version } = id;
    let (reason, max) = match note {
        CredentialNote::Refused { reason, max } => (Some(reason), i64::from(*max)),
        CredentialNote::Used | CredentialNote::Worked => (None, i64::MAX),
    };
    let values = params![tenant.as_str(), provider.as_str(), version, at.0, note.as_str(), max, reason];
    let noted = batch.sql.find(Write::CredentialNote, values, |row| {
        let mut cells = Cells::of(row, 0);
        Ok(Noted { failures: cells.count()?, state: cells.word(CredentialState::parse)? })
    })?;
    if noted.is_some_and(|noted| noted.state == CredentialState::Disabled) {
        let body = credential_body(id, reason.map_or("", String::as_str), *at);
        webhooks::tell(batch, EventKind::CredentialDisabled, Some(tenant), *at, &body)?;
    }
    Ok(noted)
}
