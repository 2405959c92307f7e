//! The connections that read. Each answer comes from one snapshot that holds every write answered before.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::connection::{self, translate};
use crate::journal::JournalError;

/// Connections: enough that a long listing does not hold up loads, few enough to keep their caches small.
const READERS_MAX: usize = 4;

/// Connections that are opened as they are needed.
pub(super) struct Readers {
    path: PathBuf,
    free: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Readers of the file that the writer has created.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), free: Semaphore::new(READERS_MAX), idle: Mutex::new(Vec::new()) }
    }

    /// Runs `question` on a snapshot, off the async threads.
    pub(super) async fn read<T, F>(self: &Arc<Self>, question: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let ended = |_| JournalError::Unavailable("a read of the journal did not end".into());
        let Ok(_turn) = self.free.acquire().await else {
            return Err(JournalError::Unavailable("the journal is closed".into()));
        };
        let readers = Arc::clone(self);
        tokio::task::spawn_blocking(move || readers.ask(question)).await.map_err(ended)?.map_err(translate)
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connection::open_reader(&self.path)?,
        };
        connection.execute_batch("BEGIN")?;
        let answer = question(&connection)?;
        connection.execute_batch("COMMIT")?;
        // A connection that failed is dropped with its transaction; the next read opens another one.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }
}
