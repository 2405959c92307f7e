//! Tables for people who read a terminal.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// A line below the header and no others.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Prints a table under its title; columns whose header begins with `>` are aligned to the right.
pub(crate) fn print(title: &str, headers: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(headers.iter().map(|header| header.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (at, header) in headers.iter().enumerate() {
        if let (true, Some(column)) = (header.starts_with('>'), table.column_mut(at)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("\n{title}\n{}", table.trim_fmt());
}

/// A figure to about three digits, with commas: `25,113`, `12.3`, `0.84`.
pub(crate) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let groups: Vec<_> = whole.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{sign}{}{rest}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_grouped() {
        let shown = [0.844, 12.34, 999.6, 25_113.4, 1_234_567.0, -4_000.0].map(figure);
        assert_eq!(shown, ["0.84", "12.3", "1,000", "25,113", "1,234,567", "-4,000"]);
    }
}
