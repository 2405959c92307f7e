//! What a command prints: a table for people, or JSON for programs.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde_json::Value;

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Print JSON instead of tables.
    pub(crate) json: bool,
}

impl Output {
    /// Prints `value` with `--json`, else what `human` prints.
    pub(crate) fn show(self, value: &Value, human: impl FnOnce()) {
        if self.json { self.value(value) } else { human() }
    }

    /// Prints one JSON value, readable, with a line break.
    pub(crate) fn value(self, value: &Value) {
        line(&format!("{value:#}"));
    }

    /// Prints one JSON value on one line, for streams of them.
    pub(crate) fn value_line(self, value: &Value) {
        line(&value.to_string());
    }
}

/// Prints a line to stdout.
pub(crate) fn line(text: &str) {
    text_out(text);
    text_out("\n");
}

/// Prints text to stdout at once, as it stands. A reader that went away (`| head`) ends the process quietly.
pub(crate) fn text_out(text: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        std::process::exit(0);
    }
}

/// Prints a line to stderr: notes that are not the answer. Nothing is left to do when stderr is closed.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A rule under the headers and nothing else: easy to read, and to cut apart with awk.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Prints a table; columns whose header begins with `>` are aligned to the right.
pub(crate) fn table(headers: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headers.iter().map(|header| header.trim_start_matches('>')).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.iter().map(|text| Cell::new(plain(text))).collect::<Vec<_>>());
    }
    for (at, header) in headers.iter().enumerate() {
        if let (true, Some(column)) = (header.starts_with('>'), table.column_mut(at)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    line(&table.trim_fmt());
}

/// Prints names and values below each other; empty values are left out.
pub(crate) fn fields(pairs: &[(&str, String)]) {
    let shown = || pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in shown() {
        line(&format!("{name:width$}  {}", plain(value).replace('\n', &format!("\n{:width$}  ", ""))));
    }
}

/// `text` without control characters: what a model or a stranger wrote must not steer the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A member of a JSON object as people read it: text without quotes, nothing for null.
pub(crate) fn cell(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// The items of a listing: the array under `name`.
pub(crate) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mred\n"), "a\u{fffd}[31mred\n");
    }

    #[test]
    fn members_read_as_people_expect() {
        let value = json!({"text": "x", "none": null, "tags": ["a", "b"], "n": 3});
        assert_eq!(
            ["text", "none", "tags", "n", "missing"].map(|name| cell(&value, name)),
            ["x", "", "a, b", "3", ""].map(String::from)
        );
    }
}
