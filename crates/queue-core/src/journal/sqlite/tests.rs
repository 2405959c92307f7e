//! The conformance suite over a real file, and what only this store does.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tempfile::TempDir;

use super::SqliteJournal;
use crate::{
    journal::conformance::{Fixture, NOW, Opened},
    time::ManualClock,
};

struct File {
    folder: TempDir,
    clock: ManualClock,
}

impl File {
    fn fresh() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: ManualClock::at(NOW) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    fn journal(&self) -> SqliteJournal {
        SqliteJournal::open(&self.path(), Arc::new(self.clock.clone())).unwrap()
    }
}

#[async_trait]
impl Fixture for File {
    async fn open(&self) -> Opened {
        Opened::over(self.journal())
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }
}

crate::journal_conformance!(File::fresh());
