//! Names near a misspelt instance type.

use super::names;

/// Up to three instance types whose names are near `name`: nearest first, none if nothing is near.
pub fn suggestions(name: &str) -> Vec<&'static str> {
    let wanted: Vec<char> = name.trim().to_ascii_lowercase().chars().take(32).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let limit = (wanted.len() / 3).clamp(1, 3);
    let wanted_family: String = wanted.iter().take_while(|c| **c != '.').collect();
    let mut near: Vec<(usize, bool, &'static str)> = names()
        .filter_map(|candidate| {
            let other_family = candidate.split('.').next() != Some(wanted_family.as_str());
            let distance = distance(&wanted, candidate);
            (distance <= limit).then_some((distance, other_family, candidate))
        })
        .collect();
    near.sort_unstable();
    near.truncate(3);
    near.into_iter().map(|(.., name)| name).collect()
}

/// Levenshtein distance.
fn distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, letter) in b.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, &other) in a.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX - 1);
            let value = (diagonal + usize::from(letter != other)).min(above + 1).min(left + 1);
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            diagonal = above;
            left = value;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}
