//! Filters of lists: `Name=instance-state-name,Values=running,stopped`. Values of one filter are alternatives, several filters must all fit;
//! `*` and `?` stand for any text and any character, `\` takes their meaning away; case matters ("Filtering", EC2 API Reference).

use super::Ec2Error;

/// The most filters in one request, and the most values of all.
const MOST: usize = 200;

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// `instance-type`, `tag:Name`.
    pub name: String,
    /// Patterns, at least one.
    pub values: Vec<String>,
}

impl std::str::FromStr for Filter {
    type Err = Ec2Error;

    /// The AWS CLI's shorthand, `Name=NAME,Values=VALUE,VALUE`; or `NAME=VALUE,VALUE`.
    fn from_str(text: &str) -> Result<Self, Ec2Error> {
        let wrong = || {
            let text = format!("Expected Name=…,Values=…[,…] or NAME=VALUE[,VALUE] for a filter, got '{text}'");
            Ec2Error::invalid_parameter_value(text)
        };
        let (name, values) = match text.strip_prefix("Name=") {
            Some(rest) => rest.split_once(",Values=").ok_or_else(wrong)?,
            None => text.split_once('=').ok_or_else(wrong)?,
        };
        if name.is_empty() || name == "Values" {
            return Err(wrong());
        }
        Ok(Filter { name: name.to_owned(), values: values.split(',').map(str::to_owned).collect() })
    }
}

/// The filters of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(pub Vec<Filter>);

impl Filters {
    /// Whether there is a filter of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|filter| filter.name == name)
    }

    /// Check that all of them are `known`, or of tags.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a name that is no filter, `FilterLimitExceeded`.
    pub fn check(&self, known: &[&str]) -> Result<(), Ec2Error> {
        if self.0.iter().map(|filter| filter.values.len()).sum::<usize>() > MOST {
            let text = format!("The maximum number of filter values specified on a single call is {MOST}");
            return Err(Ec2Error::new("FilterLimitExceeded", text));
        }
        let is_known = |name: &str| name.starts_with("tag:") || TAGS.contains(&name) || known.contains(&name);
        match self.0.iter().find(|filter| !is_known(&filter.name)) {
            Some(filter) => {
                let text = format!("The filter '{}' is invalid", filter.name);
                Err(Ec2Error::invalid_parameter_value(text))
            }
            None => Ok(()),
        }
    }

    /// Whether something with these tags fits all filters; `values` tells what it has under a filter's name.
    pub fn fit(&self, tags: &[(&str, &str)], values: impl Fn(&str) -> Vec<String>) -> bool {
        self.0.iter().all(|filter| {
            let has: Vec<String> = match filter.name.strip_prefix("tag:") {
                Some(key) => tags.iter().filter(|tag| tag.0 == key).map(|tag| tag.1.to_owned()).collect(),
                None if filter.name == TAGS[0] => tags.iter().map(|tag| tag.0.to_owned()).collect(),
                None if filter.name == TAGS[1] => tags.iter().map(|tag| tag.1.to_owned()).collect(),
                None => values(&filter.name),
            };
            has.iter().any(|value| filter.values.iter().any(|pattern| fits(pattern, value)))
        })
    }
}

/// Filters that all resources have.
const TAGS: [&str; 2] = ["tag-key", "tag-value"];

/// Whether a value fits a pattern. Time is at most the product of the lengths.
fn fits(pattern: &str, value: &str) -> bool {
    #[derive(PartialEq)]
    enum Part {
        Star,
        Any,
        This(char),
    }
    let mut parts = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '*' => Part::Star,
            '?' => Part::Any,
            '\\' => Part::This(characters.next().unwrap_or('\\')),
            other => Part::This(other),
        });
    }
    let value: Vec<char> = value.chars().collect();
    let (mut p, mut v) = (0, 0);
    // Where to go on if what follows the last star does not fit: the star takes one character more.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(character) = value.get(v) {
        match parts.get(p) {
            Some(Part::Star) => {
                p += 1;
                retry = Some((p, v));
            }
            Some(part) if *part == Part::Any || *part == Part::This(*character) => (p, v) = (p + 1, v + 1),
            _ => match &mut retry {
                Some((after, taken)) => {
                    *taken += 1;
                    (p, v) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    parts.get(p..).is_some_and(|rest| rest.iter().all(|part| *part == Part::Star))
}

#[cfg(test)]
#[path = "filters_tests.rs"]
mod tests;
