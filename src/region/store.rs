//! The region's store: SQLite in WAL mode, so that many processes read and write it and a kill loses nothing that was
//! committed.
//!
//! A row has columns for what is looked up or must be unique, and a JSON body for the rest, whose fields are
//! EC2's. `PRAGMA user_version` numbers the schema; [`MIGRATIONS`] takes any older one to the present.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;

mod groups;

pub use super::store_open::StoreError;

/// The steps of the schema; step n makes version n + 1 of version n. Never change one that was released: add one.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE image (
        image_id TEXT PRIMARY KEY,
        name     TEXT NOT NULL UNIQUE,
        body     TEXT NOT NULL
    ) STRICT;
    CREATE TABLE instance (
        instance_id TEXT PRIMARY KEY,
        image_id    TEXT NOT NULL,
        state       TEXT NOT NULL,
        -- NULL once terminated: the address is free again.
        private_ip  TEXT UNIQUE,
        launched    TEXT NOT NULL,
        body        TEXT NOT NULL
    ) STRICT;
    CREATE INDEX instance_by_image ON instance (image_id);
    CREATE TABLE volume (
        volume_id   TEXT PRIMARY KEY,
        instance_id TEXT,
        image_id    TEXT,
        body        TEXT NOT NULL
    ) STRICT;
    CREATE INDEX volume_by_instance ON volume (instance_id);
    CREATE INDEX volume_by_image ON volume (image_id);
", "
    -- What an instance was launched with and is started with again. Apart, for it holds the user-data, which lists do not need.
    CREATE TABLE launch (
        instance_id TEXT PRIMARY KEY,
        body        TEXT NOT NULL
    ) STRICT;
    -- The few that are on their way from one state to another, or run: what is checked by every command.
    CREATE INDEX instance_alive ON instance (state) WHERE state NOT IN ('stopped', 'terminated');
    CREATE TABLE key_pair (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
    CREATE TABLE snapshot (
        snapshot_id TEXT PRIMARY KEY,
        volume_id   TEXT,
        body        TEXT NOT NULL
    ) STRICT;
    -- Which files of images and layers a volume, snapshot or image needs: a file that nobody needs is deleted.
    CREATE TABLE needs (owner TEXT NOT NULL, file TEXT NOT NULL, PRIMARY KEY (owner, file)) STRICT, WITHOUT ROWID;
    CREATE INDEX needs_by_file ON needs (file);
    INSERT INTO needs SELECT image_id, image_id FROM image;
    INSERT INTO needs SELECT volume_id, volume_id FROM volume;
    INSERT INTO needs SELECT volume_id, image_id FROM volume WHERE image_id IS NOT NULL;
", "
    CREATE TABLE security_group (
        group_id TEXT PRIMARY KEY,
        name     TEXT NOT NULL UNIQUE,
        body     TEXT NOT NULL
    ) STRICT;
    -- Instances whose processes may not know the present rules, and the change that they have to be told of.
    CREATE TABLE untold_groups (instance_id TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
", "
    -- Terminated instances by the time of their end: they are forgotten after an hour.
    UPDATE instance SET body = json_set(body, '$.Amiable.Ended', launched) WHERE state = 'terminated';
    CREATE INDEX instance_ended ON instance (body ->> '$.Amiable.Ended') WHERE state = 'terminated';
"];

/// A write-ahead log of this many bytes is written back when a store is closed: whoever opens the store first reads it all.
const LONG_LOG: u64 = 256 << 10;

/// An open store.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    /// The write-ahead log.
    pub(super) log: PathBuf,
    /// The disk is full, and this process has the database to itself: see [`Store::is_cramped`].
    pub(super) cramped: bool,
}

impl Drop for Store {
    /// SQLite would write the log back and delete it each time that the last process closes the store, and the next one would
    /// wait for the disk twice to have a new one. Here the log stays, and what this process wrote is made to outlive a power cut
    /// now that nobody waits. A long log is written back; by SQLite itself where that never succeeds.
    fn drop(&mut self) {
        if self.connection.total_changes() > 0 {
            let _ = File::open(&self.log).and_then(|log| log.sync_data());
        }
        if std::fs::metadata(&self.log).is_ok_and(|log| log.len() >= LONG_LOG) {
            // If others use it, one of them will.
            let _ = self.connection.busy_timeout(Duration::ZERO);
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            // Its room went with it.
            super::store_open::reserve(&self.log);
        }
    }
}

impl Store {
    /// Do several things or none of them. The transaction excludes other writers from its start.
    pub fn transaction<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&Tables<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let result = work(&Tables { connection: &transaction })?;
        transaction.commit().map_err(StoreError::from)?;
        Ok(result)
    }

    /// A [`transaction`](Self::transaction) that is on the disk when this returns, and all before it. Others may be lost in a power
    /// failure; this one is for what must be known before something outside of the store happens that can't be undone.
    pub fn durable_transaction<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&Tables<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.connection.pragma_update(None, "synchronous", "FULL").map_err(StoreError::from)?;
        let result = self.transaction(work);
        self.connection.pragma_update(None, "synchronous", "NORMAL").map_err(StoreError::from)?;
        result
    }

    /// The tables, for single reads and writes.
    pub fn tables(&self) -> Tables<'_> {
        Tables { connection: &self.connection }
    }
}

/// What can be asked of the tables, inside or outside of a transaction.
#[derive(Debug)]
pub struct Tables<'a> {
    connection: &'a Connection,
}

impl Tables<'_> {
    /// A setting of the region.
    pub fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    /// Keep a setting.
    pub fn set_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)", [name, value])?;
        Ok(())
    }

    /// Add or replace an image.
    pub fn put_image(&self, image_id: &str, name: &str, body: &impl Serialize) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO image (image_id, name, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (image_id) DO UPDATE SET name = excluded.name, body = excluded.body",
            params![image_id, name, serde_json::to_string(body)?],
        )?;
        Ok(())
    }

    /// All images, the newest last.
    pub fn images<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM image ORDER BY rowid", [])
    }

    /// The images whose name is `key` or whose id starts with it.
    pub fn find_images<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StoreError> {
        self.bodies(
            "SELECT body FROM image WHERE name = ?1 OR substr(image_id, 1, length(?1)) = ?1 ORDER BY name = ?1 DESC, rowid LIMIT 3",
            [key],
        )
    }

    /// Take an image away.
    pub fn remove_image(&self, image_id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM image WHERE image_id = ?1", [image_id])?;
        Ok(())
    }

    /// Add or replace an instance. `private_ip` is `None` once it is terminated.
    pub fn put_instance(&self, row: InstanceRow<'_>, body: &impl Serialize) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO instance (instance_id, image_id, state, private_ip, launched, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (instance_id) DO UPDATE SET state = excluded.state, private_ip = excluded.private_ip,
             launched = excluded.launched, body = excluded.body",
            params![row.instance_id, row.image_id, row.state, row.private_ip, row.launched, serde_json::to_string(body)?],
        )?;
        Ok(())
    }

    /// All instances, the newest last.
    pub fn instances<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM instance ORDER BY launched, rowid", [])
    }

    /// The instances whose id starts with `key`, or which carry it as their `Name` tag.
    pub fn find_instances<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StoreError> {
        self.bodies(
            "SELECT body FROM instance WHERE substr(instance_id, 1, length(?1)) = ?1
             OR EXISTS (SELECT 1 FROM json_each(body, '$.Tags')
                        WHERE json_extract(value, '$.Key') = 'Name' AND json_extract(value, '$.Value') = ?1)
             ORDER BY instance_id = ?1 DESC, launched DESC LIMIT 3",
            [key],
        )
    }

    /// The instances that have a process, or should have one.
    pub fn instances_alive<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM instance WHERE state NOT IN ('stopped', 'terminated')", [])
    }

    /// The terminated instances that ended before a time, ISO 8601.
    pub fn instances_ended_before(&self, time: &str) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT instance_id FROM instance WHERE state = 'terminated' AND body ->> '$.Amiable.Ended' < ?1",
        )?;
        let ids = statement.query_map([time], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Take an instance away.
    pub fn remove_instance(&self, instance_id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM instance WHERE instance_id = ?1", [instance_id])?;
        self.remove_launch(instance_id)
    }

    /// The instance of this id.
    pub fn instance<T: DeserializeOwned>(&self, instance_id: &str) -> Result<Option<T>, StoreError> {
        Ok(self.bodies("SELECT body FROM instance WHERE instance_id = ?1", [instance_id])?.pop())
    }

    /// Add or replace a key pair.
    pub fn put_key_pair(&self, name: &str, body: &impl Serialize) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO key_pair (name, body) VALUES (?1, ?2)",
            params![name, serde_json::to_string(body)?],
        )?;
        Ok(())
    }

    /// The key pair of this name.
    pub fn key_pair<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        Ok(self.bodies("SELECT body FROM key_pair WHERE name = ?1", [name])?.pop())
    }

    /// All key pairs.
    pub fn key_pairs<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM key_pair ORDER BY name", [])
    }

    /// Take a key pair away.
    pub fn remove_key_pair(&self, name: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM key_pair WHERE name = ?1", [name])?;
        Ok(())
    }

    /// Keep what an instance is started with.
    pub fn put_launch(&self, instance_id: &str, body: &impl Serialize) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO launch (instance_id, body) VALUES (?1, ?2)",
            params![instance_id, serde_json::to_string(body)?],
        )?;
        Ok(())
    }

    /// What an instance is started with.
    pub fn launch<T: DeserializeOwned>(&self, instance_id: &str) -> Result<Option<T>, StoreError> {
        Ok(self.bodies("SELECT body FROM launch WHERE instance_id = ?1", [instance_id])?.pop())
    }

    /// Forget what an instance was started with.
    pub fn remove_launch(&self, instance_id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM launch WHERE instance_id = ?1", [instance_id])?;
        Ok(())
    }

    /// Whether a private address is in use.
    pub fn is_address_used(&self, address: &str) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM instance WHERE private_ip = ?1")?;
        Ok(statement.exists([address])?)
    }

    /// Add or replace a volume.
    pub fn put_volume(
        &self,
        volume_id: &str,
        instance_id: Option<&str>,
        body: &impl Serialize,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO volume (volume_id, instance_id, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (volume_id) DO UPDATE SET instance_id = excluded.instance_id, body = excluded.body",
            params![volume_id, instance_id, serde_json::to_string(body)?],
        )?;
        Ok(())
    }

    /// The volumes that are attached to an instance, the root volume first.
    pub fn volumes_of<T: DeserializeOwned>(&self, instance_id: &str) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM volume WHERE instance_id = ?1 ORDER BY rowid", [instance_id])
    }

    /// All volumes, the newest last.
    pub fn volumes<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM volume ORDER BY rowid", [])
    }

    /// The volume of this id.
    pub fn volume<T: DeserializeOwned>(&self, volume_id: &str) -> Result<Option<T>, StoreError> {
        Ok(self.bodies("SELECT body FROM volume WHERE volume_id = ?1", [volume_id])?.pop())
    }

    /// The volumes whose id starts with `key`, or which carry it as their `Name` tag.
    pub fn find_volumes<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StoreError> {
        self.find("volume", "volume_id", key)
    }

    /// The volumes with a change that was begun and not ended.
    pub fn volumes_in_change<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM volume WHERE body ->> '$.Amiable.Next' IS NOT NULL", [])
    }

    /// Take a volume away.
    pub fn remove_volume(&self, volume_id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM volume WHERE volume_id = ?1", [volume_id])?;
        Ok(())
    }

    /// Add or replace a snapshot.
    pub fn put_snapshot(&self, snapshot_id: &str, volume_id: &str, body: &impl Serialize) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO snapshot (snapshot_id, volume_id, body) VALUES (?1, ?2, ?3)",
            params![snapshot_id, volume_id, serde_json::to_string(body)?],
        )?;
        Ok(())
    }

    /// All snapshots, the newest last.
    pub fn snapshots<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM snapshot ORDER BY rowid", [])
    }

    /// The snapshots whose id starts with `key`, or which carry it as their `Name` tag.
    pub fn find_snapshots<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StoreError> {
        self.find("snapshot", "snapshot_id", key)
    }

    /// Take a snapshot away.
    pub fn remove_snapshot(&self, snapshot_id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM snapshot WHERE snapshot_id = ?1", [snapshot_id])?;
        Ok(())
    }

    /// Say which files of images and layers something needs.
    pub fn set_needs<'a>(&self, owner: &str, files: impl IntoIterator<Item = &'a str>) -> Result<(), StoreError> {
        self.connection.prepare_cached("DELETE FROM needs WHERE owner = ?1")?.execute([owner])?;
        let mut insert = self.connection.prepare_cached("INSERT OR IGNORE INTO needs (owner, file) VALUES (?1, ?2)")?;
        for file in files {
            insert.execute([owner, file])?;
        }
        Ok(())
    }

    /// What something needs, and nothing else does.
    pub fn needed_by_it_alone(&self, owner: &str) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT file FROM needs AS mine WHERE owner = ?1
             AND NOT EXISTS (SELECT 1 FROM needs WHERE file = mine.file AND owner <> ?1)",
        )?;
        let files = statement.query_map([owner], |row| row.get(0))?;
        Ok(files.collect::<Result<_, _>>()?)
    }

    /// Whether something needs a file.
    pub fn is_needed(&self, file: &str) -> Result<bool, StoreError> {
        Ok(self.connection.prepare_cached("SELECT 1 FROM needs WHERE file = ?1")?.exists([file])?)
    }

    /// The rows of a table whose id starts with `key` or whose `Name` tag it is. The names are this file's own.
    fn find<T: DeserializeOwned>(&self, table: &str, id: &str, key: &str) -> Result<Vec<T>, StoreError> {
        let sql = format!(
            "SELECT body FROM {table} WHERE substr({id}, 1, length(?1)) = ?1
             OR EXISTS (SELECT 1 FROM json_each(body, '$.Tags')
                        WHERE json_extract(value, '$.Key') = 'Name' AND json_extract(value, '$.Value') = ?1)
             ORDER BY {id} = ?1 DESC, rowid DESC LIMIT 3"
        );
        self.bodies(&sql, [key])
    }

    fn bodies<T: DeserializeOwned>(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let mut bodies = Vec::new();
        while let Some(row) = rows.next()? {
            bodies.push(serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?);
        }
        Ok(bodies)
    }
}

/// The columns of an instance that are looked up.
#[derive(Clone, Copy, Debug)]
pub struct InstanceRow<'a> {
    /// `i-…`
    pub instance_id: &'a str,
    /// The AMI it was launched from.
    pub image_id: &'a str,
    /// EC2's name of its state.
    pub state: &'a str,
    /// Its private address while it holds one.
    pub private_ip: Option<&'a str>,
    /// When it was launched, ISO 8601.
    pub launched: &'a str,
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
