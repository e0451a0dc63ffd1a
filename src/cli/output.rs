//! Lists and descriptions on standard output: tables for people, JSON, YAML or tab-separated text with EC2's field
//! names for programs, cut down by a JMESPath expression.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use super::args::{OutputArgs, OutputForm};
use super::error::{CliError, exit};

/// A column of a table: its heading and how its cell is found.
pub type Column<'a, T> = (&'a str, &'a dyn Fn(&T) -> String);

/// Print `items` as `output` wants them: as a table with `columns`, or as `{name: [json of each]}`.
pub fn print_list<T>(
    output: &OutputArgs,
    name: &str,
    items: &[T],
    columns: &[Column<'_, T>],
    json: impl Fn(&T) -> Value,
) -> Result<(), CliError> {
    if output.output == OutputForm::Table && output.query.is_none() {
        let mut table = plain_table();
        table.set_header(columns.iter().map(|(heading, _)| *heading));
        for item in items {
            table.add_row(columns.iter().map(|(_, cell)| cell(item)));
        }
        return write_out(&format!("{}\n", table.trim_fmt()));
    }
    let value = Value::Object([(name.to_owned(), items.iter().map(json).collect())].into_iter().collect());
    print_value(output, value)
}

/// Print one value; as a table this is a list of its fields, a line each.
pub fn print_value(output: &OutputArgs, value: Value) -> Result<(), CliError> {
    let value = match &output.query {
        None => value,
        Some(query) => search(query, &value)?,
    };
    let text = match output.output {
        OutputForm::Json => {
            serde_json::to_string_pretty(&value).map_err(|e| CliError::from_error(exit::OTHER, &e))? + "\n"
        }
        OutputForm::Yaml => serde_yaml_ng::to_string(&value).map_err(|e| CliError::from_error(exit::OTHER, &e))?,
        OutputForm::Text => {
            let mut text = String::new();
            text_lines(&value, &mut text);
            text
        }
        OutputForm::Table => {
            let mut table = plain_table();
            let mut rows = Vec::new();
            fields("", &value, &mut rows);
            for (field, cell) in rows {
                table.add_row([field, cell]);
            }
            format!("{}\n", table.trim_fmt())
        }
    };
    write_out(&text)
}

/// Write to standard output. A reader that went away (`| head`) is no error.
pub fn write_out(text: &str) -> Result<(), CliError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(CliError::from_error(exit::OTHER, &e)),
        _ => Ok(()),
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    // A cell is never wrapped where no person sees it: a program may read the lines.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table
}

fn search(query: &str, value: &Value) -> Result<Value, CliError> {
    let usage =
        |e: &dyn std::error::Error| CliError::new(exit::USAGE, format!("--query is not a JMESPath expression: {e}"));
    let expression = jmespath::compile(&with_json_literals(query)).map_err(|e| usage(&e))?;
    let found = expression.search(value).map_err(|e| usage(&e))?;
    serde_json::to_value(&found).map_err(|e| CliError::from_error(exit::OTHER, &e))
}

/// Literals stand between backticks and are JSON. The AWS CLI also takes a bare word there, as its own examples have it.
fn with_json_literals(query: &str) -> String {
    let mut json = String::with_capacity(query.len());
    let mut rest = query;
    while let Some(at) = rest.find(['`', '\'', '"']) {
        let quote = &rest[at..=at];
        let inside = &rest[at + 1..];
        let Some(length) = length_until(quote, inside) else { break };
        let text = &inside[..length];
        json += &rest[..=at];
        match quote {
            "`" if serde_json::from_str::<Value>(text).is_err() => json += &Value::from(text.trim_start()).to_string(),
            _ => json += text,
        }
        json += quote;
        rest = &inside[length + 1..];
    }
    json + rest
}

/// Where the quotation ends; a quote after a backslash is part of it.
fn length_until(quote: &str, inside: &str) -> Option<usize> {
    let mut escaped = false;
    inside.bytes().position(|byte| {
        let ends = byte == quote.as_bytes()[0] && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// As the AWS CLI's text form: a line per object or list of scalars, values separated by tabs.
fn text_lines(value: &Value, to: &mut String) {
    let scalar = |v: &Value| !matches!(v, Value::Array(_) | Value::Object(_));
    match value {
        Value::Array(items) if !items.is_empty() && items.iter().all(scalar) => {
            to.push_str(&items.iter().map(plain).collect::<Vec<_>>().join("\t"));
            to.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| text_lines(item, to)),
        Value::Object(map) => {
            let own: Vec<_> = map.values().filter(|v| scalar(v)).map(plain).collect();
            if !own.is_empty() {
                to.push_str(&own.join("\t"));
                to.push('\n');
            }
            map.values().filter(|v| !scalar(v)).for_each(|v| text_lines(v, to));
        }
        other => {
            to.push_str(&plain(other));
            to.push('\n');
        }
    }
}

fn fields(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                fields(&name, value, rows);
            }
        }
        Value::Array(items) if items.iter().any(|i| i.is_object() || i.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                fields(&format!("{prefix}[{index}]"), item, rows);
            }
        }
        Value::Array(items) => rows.push((prefix.to_owned(), items.iter().map(plain).collect::<Vec<_>>().join(", "))),
        other => rows.push((prefix.to_owned(), plain(other))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

/// `1.5 GiB`: bytes for people.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if size.fract() < 0.05 || unit == 0 {
        format!("{size:.0} {}", UNITS[unit])
    } else {
        format!("{size:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
