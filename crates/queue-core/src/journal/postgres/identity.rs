//! API keys, and tokens that were taken back.

use async_trait::async_trait;
use sqlx::{Row, postgres::PgRow};

use super::{
    PostgresJournal,
    failure::Failure,
    rows::{self, Cells},
    sql,
    text::kept,
    transaction::{Transaction, Verb},
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
impl Identity for PostgresJournal {
    async fn add_key(&self, key: ApiKey) -> Result<(), JournalError> {
        self.write::<AddKey>(key).await
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::KEY_FIND).bind(kept(id)).fetch_optional(&pool).await?;
            Ok(found.as_ref().map(key).transpose()?)
        })
        .await
    }

    async fn keys(&self, page: &KeyPage) -> Result<Vec<ApiKey>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::KEYS_PAGE)
                .bind(page.tenant.as_ref().map(Name::as_str))
                .bind(kept(page.after.as_deref().unwrap_or_default()))
                .bind(page.with_revoked)
                .bind(page.limit.min(PAGE_MAX_ROWS) as i64)
                .fetch_all(&pool)
                .await?;
            Ok(found.iter().map(key).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn count_keys(&self, role: Role, now: Timestamp) -> Result<u64, JournalError> {
        self.ask(|pool| async move {
            let row = sqlx::query(sql::KEY_COUNT).bind(role.as_str()).bind(now.0).fetch_one(&pool).await?;
            Ok(Cells::of(&row, 0).count()?)
        })
        .await
    }

    async fn rotate_key(&self, rotation: Rotation) -> Result<Option<ApiKey>, JournalError> {
        self.write::<Rotate>(rotation).await
    }

    async fn revoke_keys(&self, which: Revocation, now: Timestamp) -> Result<Revoked, JournalError> {
        self.write::<Revoke>((which, now)).await
    }

    async fn limit_key(&self, id: &str, rates: Rates) -> Result<Option<ApiKey>, JournalError> {
        self.write::<Limit>((id.to_owned(), rates)).await
    }

    async fn note_key_used(&self, id: &str, at: Timestamp) -> Result<(), JournalError> {
        self.write::<NoteUsed>((id.to_owned(), at)).await
    }

    async fn revoke_token(&self, revocation: TokenRevocation, now: Timestamp) -> Result<(), JournalError> {
        self.write::<RevokeToken>((revocation, now)).await
    }

    async fn is_token_revoked(&self, issuer: &str, jti: &str) -> Result<bool, JournalError> {
        self.ask(|pool| async move {
            let found =
                sqlx::query(sql::TOKEN_REVOKED).bind(kept(issuer)).bind(kept(jti)).fetch_optional(&pool).await?;
            Ok(found.is_some())
        })
        .await
    }
}

fn key(row: &PgRow) -> Result<ApiKey, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let (id, secret_hash) = (cells.text()?, cells.hash()?);
    let previous: Option<&[u8]> = cells.next()?;
    let previous_until = cells.time_if_any()?;
    Ok(ApiKey {
        id,
        secret_hash,
        previous: previous.and_then(|hash| hash.try_into().ok()).zip(previous_until),
        tenant: cells.name()?,
        role: cells.word(Role::parse)?,
        grants: cells.json::<Vec<Grant>>()?.unwrap_or_default(),
        name: cells.text()?,
        created_at: cells.time()?,
        expires_at: cells.time_if_any()?,
        rotated_at: cells.time_if_any()?,
        revoked_at: cells.time_if_any()?,
        last_used_at: cells.time_if_any()?,
        rates: rows::rates(&mut cells)?,
    })
}

struct AddKey;

#[async_trait]
impl Verb for AddKey {
    type Input = ApiKey;
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, keys: &[ApiKey], _again: bool) -> Result<Vec<()>, Failure> {
        for key in keys {
            sqlx::query(sql::KEY_ADD)
                .bind(kept(&key.id))
                .bind(&key.secret_hash[..])
                .bind(key.tenant.as_str())
                .bind(key.role.as_str())
                .bind(kept(&key.name))
                .bind(key.created_at.0)
                .bind(grants_text(&key.grants))
                .bind(key.expires_at.map(|at| at.0))
                .bind(key.rates.requests_per_minute.map(rows::to_integer))
                .bind(key.rates.llm_submits_per_minute.map(rows::to_integer))
                .execute(transaction.connection())
                .await?;
        }
        Ok(vec![(); keys.len()])
    }
}

struct Rotate;

#[async_trait]
impl Verb for Rotate {
    type Input = Rotation;
    type Output = Option<ApiKey>;
    /// The same secret twice is one rotation.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        rotations: &[Rotation],
        _again: bool,
    ) -> Result<Vec<Option<ApiKey>>, Failure> {
        let mut rotated = Vec::new();
        for rotation in rotations {
            let found = sqlx::query(sql::KEY_ROTATE)
                .bind(kept(&rotation.id))
                .bind(&rotation.secret_hash[..])
                .bind(rotation.previous_until.0)
                .bind(rotation.at.0)
                .fetch_optional(transaction.connection())
                .await?;
            rotated.push(found.as_ref().map(key).transpose()?);
        }
        Ok(rotated)
    }
}

struct Limit;

#[async_trait]
impl Verb for Limit {
    type Input = (String, Rates);
    type Output = Option<ApiKey>;
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Option<ApiKey>>, Failure> {
        let mut limited = Vec::new();
        for (id, rates) in inputs {
            let found = sqlx::query(sql::KEY_LIMIT)
                .bind(kept(id))
                .bind(rates.requests_per_minute.map(rows::to_integer))
                .bind(rates.llm_submits_per_minute.map(rows::to_integer))
                .fetch_optional(transaction.connection())
                .await?;
            limited.push(found.as_ref().map(key).transpose()?);
        }
        Ok(limited)
    }
}

struct Revoke;

#[async_trait]
impl Verb for Revoke {
    type Input = (Revocation, Timestamp);
    type Output = Revoked;
    /// A repeat finds what was revoked at its own moment.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<Revoked>, Failure> {
        let mut answers = Vec::new();
        for (which, now) in inputs {
            let admins = sqlx::query(sql::KEYS_ADMINS).bind(now.0).fetch_all(transaction.connection()).await?;
            let admin = |row: &PgRow| {
                let mut cells = Cells::of(row, 0);
                Ok::<_, sqlx::Error>(AdminKey {
                    id: cells.text()?,
                    tenant: cells.name()?,
                    grants: cells.json()?.unwrap_or_default(),
                    expires_at: cells.time_if_any()?,
                })
            };
            let admins: Vec<_> = admins.iter().map(admin).collect::<Result<_, _>>()?;
            if spares_no_admin(which, &admins) {
                answers.push(Revoked::LastAdmin);
                continue;
            }
            let (id, tenant) = match which {
                Revocation::Key(id) => (Some(kept(id)), None),
                Revocation::Tenant(tenant) => (None, Some(tenant.as_str())),
            };
            let found =
                sqlx::query(sql::KEYS_REVOKE).bind(id).bind(tenant).bind(now.0).fetch_all(transaction.connection());
            let ids = found.await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            answers.push(Revoked::Done(ids));
        }
        Ok(answers)
    }
}

struct NoteUsed;

#[async_trait]
impl Verb for NoteUsed {
    type Input = (String, Timestamp);
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, notes: &[Self::Input], _again: bool) -> Result<Vec<()>, Failure> {
        for (id, at) in notes {
            sqlx::query(sql::KEY_USED).bind(kept(id)).bind(at.0).execute(transaction.connection()).await?;
        }
        Ok(vec![(); notes.len()])
    }
}

struct RevokeToken;

#[async_trait]
impl Verb for RevokeToken {
    type Input = (TokenRevocation, Timestamp);
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<()>, Failure> {
        for (revocation, now) in inputs {
            sqlx::query(sql::TOKEN_REVOKE)
                .bind(kept(&revocation.issuer))
                .bind(kept(&revocation.jti))
                .bind(revocation.expires_at.0)
                .execute(transaction.connection())
                .await?;
            sqlx::query(sql::TOKENS_FORGET).bind(now.0).execute(transaction.connection()).await?;
        }
        Ok(vec![(); inputs.len()])
    }
}
