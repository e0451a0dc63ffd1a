//! How the store is opened: brought up to the present schema, and also on a disk without any room left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, FileControl, TransactionBehavior};

use super::store::{MIGRATIONS, Store};

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory for the database could not be made.
    #[error("can't make the directory of the region's store {path}")]
    Directory {
        /// The database.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("the region's store {path} can't be used")]
    Sqlite {
        /// The database.
        path: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer amiable wrote it.
    #[error(
        "the region's store {path} has version {found}, newer than this amiable knows ({known}): use the newer amiable"
    )]
    TooNew {
        /// The database.
        path: String,
        /// Its version.
        found: usize,
        /// The newest known here.
        known: usize,
    },
    /// A row does not hold what it should.
    #[error("the region's store has a row that can't be read: {0}")]
    Row(#[from] serde_json::Error),
    /// There is no room for a change.
    #[error("there is no room for a change of the region's store: its disk is full")]
    Full(#[source] rusqlite::Error),
    /// A statement failed.
    #[error("the region's store refused a change")]
    Statement(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if is_full(&error) { StoreError::Full(error) } else { StoreError::Statement(error) }
    }
}

/// Whether there was no room on the disk. For what is shared between processes (the WAL index) SQLite has a code of its own.
fn is_full(error: &rusqlite::Error) -> bool {
    let of_the_index = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure.extended_code == of_the_index)
}

/// What the write-ahead log has room for, in bytes: several times what it is written back at.
const RESERVE: u64 = 1 << 20;
/// The database file's size is a multiple of this, in bytes.
const CHUNK: i32 = 1 << 20;

/// Have room for the write-ahead log beforehand: records can be changed when the disk is full. Some file systems can't; then they are
/// without.
pub(super) fn reserve(log: &Path) {
    use std::os::unix::fs::MetadataExt;
    let Ok(file) = std::fs::OpenOptions::new().write(true).open(log) else { return };
    if file.metadata().is_ok_and(|meta| meta.blocks() * 512 < RESERVE) {
        let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, RESERVE);
    }
}

impl Store {
    /// Open the database at `path`, made if it is not there, and bring its schema up to date.
    ///
    /// Where the disk has no room for what processes share in memory, the database is opened for this process alone: the
    /// write-ahead log has room of its own, and is never cut short, so lists are shown and things can be stopped and deleted.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let text = || path.display().to_string();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| StoreError::Directory { path: text(), source })?;
        }
        match Self::open_at(path, false) {
            Err(StoreError::Sqlite { source, .. }) if is_full(&source) => Self::open_at(path, true),
            other => other,
        }
    }

    /// Whether the disk is full, and this process has the database to itself: nothing may be started that would use it too.
    pub fn is_cramped(&self) -> bool {
        self.cramped
    }

    pub(super) fn open_at(path: &Path, alone: bool) -> Result<Self, StoreError> {
        let text = path.display().to_string();
        let sqlite = |source| StoreError::Sqlite { path: text.clone(), source };
        let mut connection = Connection::open(path).map_err(sqlite)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(sqlite)?;
        if alone {
            // Before anything is read: then the index is kept in this process's memory.
            connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(())).map_err(sqlite)?;
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
        // It grows by so much at a time: what is in the log has somewhere to go, as a rule.
        connection.file_control(None::<&str>, FileControl::ChunkSize(&mut { CHUNK })).map_err(sqlite)?;
        let version =
            |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).map(|v| v as usize);
        let mut found = version(&connection).map_err(sqlite)?;
        if found < MIGRATIONS.len() {
            connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
            let step = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            // Another process may have been quicker.
            found = version(&step).map_err(sqlite)?;
            for sql in MIGRATIONS.iter().skip(found) {
                step.execute_batch(sql).map_err(sqlite)?;
            }
            step.pragma_update(None, "user_version", MIGRATIONS.len().max(found) as u32).map_err(sqlite)?;
            step.commit().map_err(sqlite)?;
        }
        if found > MIGRATIONS.len() {
            return Err(StoreError::TooNew { path: text, found, known: MIGRATIONS.len() });
        }
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(sqlite)?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        reserve(&log);
        Ok(Store { connection, log, cramped: alone })
    }
}
