//! Names near a misspelt instance type.

use super::names;
use crate::ec2::spelling::distance;

/// Up to three instance types whose names are near `name`: nearest first, none if nothing is near.
pub fn suggestions(name: &str) -> Vec<&'static str> {
    let wanted: String = name.trim().to_ascii_lowercase().chars().take(32).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let limit = (wanted.len() / 3).clamp(1, 3);
    let wanted_family = wanted.split('.').next();
    let mut near: Vec<(usize, bool, &'static str)> = names()
        .filter_map(|candidate| {
            let other_family = candidate.split('.').next() != wanted_family;
            let distance = distance(&wanted, candidate);
            (distance <= limit).then_some((distance, other_family, candidate))
        })
        .collect();
    near.sort_unstable();
    near.truncate(3);
    near.into_iter().map(|(.., name)| name).collect()
}
