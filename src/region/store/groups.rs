//! The tables of security groups.

use rusqlite::params;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{StoreError, Tables};

/// Counts the changes of groups and of who is in them.
const VERSION: &str = "SecurityGroupVersion";

impl Tables<'_> {
    /// Add or replace a security group.
    pub fn put_security_group(&self, group_id: &str, name: &str, body: &impl Serialize) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO security_group (group_id, name, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (group_id) DO UPDATE SET name = excluded.name, body = excluded.body",
            params![group_id, name, serde_json::to_string(body)?],
        )?;
        Ok(())
    }

    /// All security groups that are kept, the newest last.
    pub fn security_groups<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.bodies("SELECT body FROM security_group ORDER BY rowid", [])
    }

    /// The security group of this id.
    pub fn security_group<T: DeserializeOwned>(&self, group_id: &str) -> Result<Option<T>, StoreError> {
        Ok(self.bodies("SELECT body FROM security_group WHERE group_id = ?1", [group_id])?.pop())
    }

    /// The security groups whose name is `key` or whose id starts with it.
    pub fn find_security_groups<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StoreError> {
        self.bodies(
            "SELECT body FROM security_group WHERE name = ?1 OR substr(group_id, 1, length(?1)) = ?1
             ORDER BY name = ?1 DESC, group_id = ?1 DESC, rowid LIMIT 3",
            [key],
        )
    }

    /// Take a security group away.
    pub fn remove_security_group(&self, group_id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM security_group WHERE group_id = ?1", [group_id])?;
        Ok(())
    }

    /// The instances that are in a group and not terminated. Records of older versions name none: those are in the default group.
    pub fn instances_in_group<T: DeserializeOwned>(
        &self,
        group_id: &str,
        is_default: bool,
    ) -> Result<Vec<T>, StoreError> {
        self.bodies(
            "SELECT body FROM instance WHERE state <> 'terminated' AND (EXISTS (
                 SELECT 1 FROM json_each(body, '$.SecurityGroups') WHERE json_extract(value, '$.GroupId') = ?1
             ) OR (?2 AND json_extract(body, '$.SecurityGroups') IS NULL)) ORDER BY launched, rowid",
            params![group_id, is_default],
        )
    }

    /// How often groups were changed, or who is in them.
    pub fn security_group_version(&self) -> Result<u64, StoreError> {
        Ok(self.setting(VERSION)?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Count one more change; the processes of these instances have to be told of it.
    pub fn security_groups_changed<'a>(&self, instances: impl IntoIterator<Item = &'a str>) -> Result<(), StoreError> {
        let version = self.security_group_version()?.saturating_add(1);
        self.set_setting(VERSION, &version.to_string())?;
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO untold_groups (instance_id, version) VALUES (?1, ?2)")?;
        for instance in instances {
            insert.execute(params![instance, version as i64])?;
        }
        Ok(())
    }

    /// The instances whose processes may filter by groups that have changed.
    pub fn untold_groups(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT instance_id FROM untold_groups")?;
        let instances = statement.query_map([], |row| row.get(0))?;
        Ok(instances.collect::<Result<_, _>>()?)
    }

    /// An instance's process knows the groups as they were after this change.
    pub fn told_groups(&self, instance_id: &str, version: u64) -> Result<(), StoreError> {
        self.connection.execute(
            "DELETE FROM untold_groups WHERE instance_id = ?1 AND version <= ?2",
            params![instance_id, version as i64],
        )?;
        Ok(())
    }
}
