//! Named values, and the document that they become.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// All values of one name.
#[derive(Default, Serialize, Deserialize)]
struct Values {
    unit: String,
    values: Vec<f64>,
}

/// What was measured so far.
#[derive(Default, Serialize, Deserialize)]
pub struct Figures(BTreeMap<String, Values>);

/// amiable's targets: above or below this.
const TARGETS: [(&str, &str, f64); 5] = [
    ("amiable/start/first-line", "below", 1618.0),
    ("amiable/disk/random-read-4k", "below", 38.0),
    ("amiable/disk/write-flush-4k", "below", 57.0),
    ("amiable/disk/read-1m", "above", 2000.0),
    ("amiable/memory/beyond-guest", "below", 3.0),
];

impl Figures {
    /// One more value.
    pub fn add(&mut self, name: impl Into<String>, unit: &str, value: f64) {
        let entry = self.0.entry(name.into()).or_default();
        unit.clone_into(&mut entry.unit);
        entry.values.push(value);
    }

    /// All values of another.
    pub fn append(&mut self, other: Figures) {
        for (name, values) in other.0 {
            values.values.iter().for_each(|value| self.add(&name, &values.unit, *value));
        }
    }

    fn median(&self, name: &str) -> Option<f64> {
        let mut values = self.0.get(name)?.values.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// The document as text, a line for each name. `virtual_time`: the clock counted instructions, so that the targets in time
    /// apply.
    pub fn document(&self, virtual_time: bool) -> String {
        let mut lines = Vec::new();
        for (name, Values { unit, values }) in &self.0 {
            let (min, max) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (v.min(l), v.max(h)));
            let round = |value: f64| (value * 1000.0).round() / 1000.0;
            let median = self.median(name).unwrap_or_default();
            let rounded: Vec<f64> = values.iter().copied().map(round).collect();
            let mut entry = json!({
                "unit": unit, "min": round(min), "median": round(median), "max": round(max), "values": rounded,
                "runs": values.len(),
            });
            let fixed = TARGETS.iter().find(|(target, ..)| target == name).filter(|_| virtual_time || unit == "MB");
            let of_qemu = (name == "amiable/test/verdict").then(|| self.median("qemu/test/verdict")).flatten();
            let target = fixed.map(|(_, side, value)| (*side, *value)).or(of_qemu.map(|qemu| ("below", qemu / 2.0)));
            if let Some((side, limit)) = target {
                let met = if side == "below" { median < limit } else { median > limit };
                entry["target"] = json!({ side: round(limit), "met": met });
            }
            lines.push(format!("  {}: {entry}", Value::from(name.as_str())));
        }
        format!("{{\n{}\n}}", lines.join(",\n"))
    }
}
