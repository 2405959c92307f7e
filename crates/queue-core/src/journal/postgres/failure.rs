//! What Postgres' errors mean for the transaction that met them.

use crate::journal::JournalError;

/// Why a transaction did not end with a commit.
#[derive(Debug)]
pub(super) enum Failure {
    /// Two transactions were in each other's way; nothing is committed, and the next try may pass.
    Conflict(String),
    /// The connection is gone; nothing is committed, and another connection may work.
    Lost(String),
    /// The answer to COMMIT did not come: nobody knows whether it is committed.
    Ambiguous(String),
    /// Postgres cannot do it now.
    Unavailable(String),
    /// This request cannot be done: a row was refused, or one could not be understood.
    Refused(String),
}

/// Conflicts that pass by themselves: serialisation failure, deadlock.
const CONFLICTS: &[&str] = &["40001", "40P01"];

/// The session ended: shut down by an operator, crashed, starting, idle for too long in a transaction.
const SESSION_ENDS: &[&str] = &["57P01", "57P02", "57P03", "57P05", "25P03"];

impl Failure {
    /// A failure in a form that a caller understands.
    pub(super) fn into_error(self) -> JournalError {
        match self {
            Self::Conflict(reason) | Self::Lost(reason) | Self::Ambiguous(reason) | Self::Unavailable(reason) => {
                JournalError::Unavailable(reason)
            }
            Self::Refused(reason) => JournalError::Corrupt(reason),
        }
    }

    /// A COMMIT that was not answered with success: whatever the error says, the commit may stand.
    pub(super) fn of_commit(error: sqlx::Error) -> Self {
        Self::Ambiguous(error.to_string())
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Self::Lost(error.to_string()),
            sqlx::Error::PoolTimedOut => Self::Unavailable("no connection to Postgres became free in time".into()),
            sqlx::Error::PoolClosed | sqlx::Error::Tls(_) => Self::Unavailable(error.to_string()),
            sqlx::Error::Database(said) => {
                let code = said.code().unwrap_or_default();
                of_code(&code, format!("{} (SQLSTATE {code})", said.message()))
            }
            _ => Self::Refused(error.to_string()),
        }
    }
}

fn of_code(code: &str, reason: String) -> Failure {
    if CONFLICTS.contains(&code) {
        return Failure::Conflict(reason);
    }
    if SESSION_ENDS.contains(&code) || code.starts_with("08") {
        return Failure::Lost(reason);
    }
    match code {
        "25006" => Failure::Unavailable(format!("Postgres only reads now: {reason}")),
        "53100" => Failure::Unavailable(format!("Postgres' disk is full: {reason}")),
        "55P03" => Failure::Unavailable(format!("another transaction holds the row: {reason}")),
        "57014" => Failure::Unavailable(format!("the statement took too long: {reason}")),
        "28000" | "28P01" | "3D000" | "42501" => Failure::Unavailable(reason),
        code if code.starts_with("53") || code.starts_with("58") => Failure::Unavailable(reason),
        _ => Failure::Refused(reason),
    }
}
