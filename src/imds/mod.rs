//! The instance metadata service.

/// Stand-in until the room is built.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct LogEntry {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
}
