//! Tenants' keys, sealed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::Cells,
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
};
use crate::{
    credentials::{
        Credential, CredentialId, CredentialNote, CredentialPolicy, CredentialState, NewCredential, Noted, Sealed,
        Vault,
    },
    ids::Name,
    journal::JournalError,
    time::Timestamp,
    webhooks::credential_body,
};

#[async_trait]
impl Vault for PostgresJournal {
    async fn credentials_since(&self, revision: i64, limit: usize) -> Result<Vec<Credential>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.ask(|pool| async move {
            let found = sqlx::query(sql::CREDENTIALS_SINCE).bind(revision).bind(limit).fetch_all(&pool).await?;
            Ok(found.iter().map(credential).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn credential_policies(&self) -> Result<BTreeMap<Name, CredentialPolicy>, JournalError> {
        let policy = |row: &PgRow| {
            let mut cells = Cells::of(row, 0);
            Ok((cells.name()?, cells.word(CredentialPolicy::parse)?))
        };
        self.ask(|pool| async move {
            let found = sqlx::query(sql::CREDENTIAL_POLICIES).fetch_all(&pool).await?;
            Ok(found.iter().map(policy).collect::<Result<_, sqlx::Error>>()?)
        })
        .await
    }

    async fn put_credential(&self, new: NewCredential) -> Result<bool, JournalError> {
        self.write::<Put>(new).await
    }

    async fn rewrap_credential(&self, id: CredentialId, from: String, to: Sealed) -> Result<bool, JournalError> {
        self.write::<Rewrap>((id, from, to)).await
    }

    async fn set_credential(
        &self,
        tenant: &Name,
        provider: &Name,
        state: CredentialState,
        reason: Option<String>,
    ) -> Result<bool, JournalError> {
        self.write::<Set>((tenant.clone(), provider.clone(), state, reason)).await
    }

    async fn note_credential(
        &self,
        id: CredentialId,
        note: CredentialNote,
        at: Timestamp,
    ) -> Result<Option<Noted>, JournalError> {
        self.write::<Note>((id, note, at)).await
    }
}

fn credential(row: &PgRow) -> Result<Credential, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let (tenant, provider) = (cells.name()?, cells.name()?);
    let (version, revision) = (cells.next()?, cells.next()?);
    let state = cells.word(CredentialState::parse)?;
    let reason = cells.text_if_any()?;
    let (kek_id, wrapped_key, ciphertext) = (cells.text_if_any()?, cells.next()?, cells.next()?);
    Ok(Credential {
        tenant,
        provider,
        version,
        revision,
        state,
        reason,
        sealed: Sealed::of_columns(kek_id, wrapped_key, ciphertext),
        hint: cells.text()?,
        failures: cells.small_count()?,
        created_at: cells.time()?,
        rotated_at: cells.time()?,
        used_at: cells.time_if_any()?,
    })
}

struct Put;

#[async_trait]
impl Verb for Put {
    type Input = NewCredential;
    type Output = bool;
    /// A repeat finds its own version: the caller seals once more, and keeps the same key in the next one.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, news: &[NewCredential], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut put = Vec::new();
        for new in news {
            let done = sqlx::query(sql::CREDENTIAL_PUT)
                .bind(new.tenant.as_str())
                .bind(new.provider.as_str())
                .bind(new.version)
                .bind(&new.sealed.kek_id)
                .bind(&new.sealed.wrapped_key)
                .bind(&new.sealed.ciphertext)
                .bind(&new.hint)
                .bind(new.at.0)
                .execute(transaction.connection())
                .await?;
            put.push(done.rows_affected() > 0);
        }
        Ok(put)
    }
}

struct Rewrap;

#[async_trait]
impl Verb for Rewrap {
    type Input = (CredentialId, String, Sealed);
    type Output = bool;
    /// A repeat finds it done and says that it did nothing.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut rewrapped = Vec::new();
        for (id, from, to) in inputs {
            let done = sqlx::query(sql::CREDENTIAL_REWRAP)
                .bind(id.tenant.as_str())
                .bind(id.provider.as_str())
                .bind(id.version)
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

struct Set;

#[async_trait]
impl Verb for Set {
    type Input = (Name, Name, CredentialState, Option<String>);
    type Output = bool;
    /// Twice the same state is that state; only a deletion that is told again finds nothing.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], again: bool) -> Result<Vec<bool>, Failure> {
        let mut set = Vec::new();
        for (tenant, provider, state, reason) in inputs {
            let done = sqlx::query(sql::CREDENTIAL_SET)
                .bind(tenant.as_str())
                .bind(provider.as_str())
                .bind(state.as_str())
                .bind(kept_if_any(reason.as_ref()))
                .execute(transaction.connection())
                .await?;
            set.push(done.rows_affected() > 0 || again && *state == CredentialState::Deleted);
        }
        Ok(set)
    }
}

struct Note;

#[async_trait]
impl Verb for Note {
    type Input = (CredentialId, CredentialNote, Timestamp);
    type Output = Option<Noted>;
    /// A refusal that is told twice would count twice.
    const REPEATABLE: bool = false;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Option<Noted>>, Failure> {
        let mut noted = Vec::new();
        for (id, note, at) in inputs {
            let (reason, max) = match note {
                CredentialNote::Refused { reason, max } => (Some(reason), i32::try_from(*max).unwrap_or(i32::MAX)),
                CredentialNote::Used | CredentialNote::Worked => (None, i32::MAX),
            };
            let found = sqlx::query(sql::CREDENTIAL_NOTE)
                .bind(id.tenant.as_str())
                .bind(id.provider.as_str())
                .bind(id.version)
                .bind(at.0)
                .bind(note.as_str())
                .bind(max)
                .bind(kept_if_any(reason))
                .bind(kept(&credential_body(id, reason.map_or("", String::as_str), *at)))
                .fetch_optional(transaction.connection())
                .await?;
            let read = |row: &PgRow| {
                let mut cells = Cells::of(row, 0);
                Ok::<_, sqlx::Error>(Noted {
                    failures: cells.small_count()?,
                    state: cells.word(CredentialState::parse)?,
                })
            };
            noted.push(found.as_ref().map(read).transpose()?);
        }
        Ok(noted)
    }
}
