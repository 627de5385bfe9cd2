//! Rows as people read them: in columns, or a cell a line.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{ColumnConstraint, Table, Width, presets};

use super::duration;
use crate::output::{Keep, agree, count, visible};

/// Rows that are laid out together. The columns of the first page keep their width in those after it.
const PAGE: usize = 1_000;

/// Longest cell in columns, characters.
const CELL: usize = 100;

/// Longest cell on a line of its own, characters.
const LONG_CELL: usize = 2_000;

/// How rows are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A row a line, in columns.
    Table,
    /// A cell a line.
    Vertical,
}

/// Lays rows out, a page at a time.
#[derive(Debug)]
pub(super) struct People {
    shape: Shape,
    names: Vec<String>,
    /// What EXPLAIN answers: text of many lines, of which each stays one.
    plan: bool,
    page: Vec<Vec<String>>,
    widths: Vec<u16>,
    rows: u64,
    cut: u64,
}

impl People {
    pub(super) fn new(shape: Shape, schema: &Schema) -> People {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        People {
            shape,
            plan: names == ["plan_type", "plan"],
            names: names.iter().map(|name| visible(name, Keep::Nothing).into_owned()).collect(),
            page: Vec::new(),
            widths: Vec::new(),
            rows: 0,
            cut: 0,
        }
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes rows; gives the pages that are full.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<String, ArrowError> {
        let options = FormatOptions::new().with_null("");
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(&columns);
            let cells = cells.map(|(column, other)| match duration::value(column, row) {
                Some(text) => Ok(text),
                None => other.value(row).try_to_string(),
            });
            let cells = cells.collect::<Result<Vec<_>, _>>()?;
            let cells = cells.iter().map(|cell| self.cell(cell)).collect();
            self.rows += 1;
            match self.shape {
                Shape::Vertical => text += &self.vertical(cells),
                Shape::Table => {
                    self.page.push(cells);
                    if self.page.len() == PAGE {
                        text += &self.turn();
                    }
                }
            }
        }
        Ok(text)
    }

    /// What is left, and how many rows it was.
    pub(super) fn finish(mut self, more: bool) -> String {
        let mut text = String::new();
        if self.shape == Shape::Table && (self.rows == 0 || !self.page.is_empty()) {
            text += &self.turn();
        }
        text += &match more {
            true => format!(
                "(the first {}; there are more: --rows {} shows more of them, --rows 0 all, and \
                 --format csv writes all for a program)\n",
                count(self.rows, "row"),
                self.rows.saturating_mul(10)
            ),
            false => format!("({})\n", count(self.rows, "row")),
        };
        if self.cut > 0 {
            let whole = match self.shape {
                Shape::Table => "--format vertical shows more of each, --format csv all",
                Shape::Vertical => "--format csv shows them in full",
            };
            let are = agree(self.cut, "is", "are");
            text += &format!("({} {are} truncated: {whole})\n", count(self.cut, "long cell"));
        }
        text
    }

    fn cell(&mut self, text: &str) -> String {
        if self.plan {
            return visible(text, Keep::Lines).into_owned();
        }
        let longest = match self.shape {
            Shape::Table => CELL,
            Shape::Vertical => LONG_CELL,
        };
        match text.char_indices().nth(longest) {
            None => visible(text, Keep::Nothing).into_owned(),
            Some((end, _)) => {
                self.cut += 1;
                let shown = visible(text.get(..end).unwrap_or_default(), Keep::Nothing);
                match self.shape {
                    Shape::Table => format!("{shown}…"),
                    Shape::Vertical => {
                        format!(
                            "{shown}… ({} in all)",
                            count(text.chars().count() as u64, "character")
                        )
                    }
                }
            }
        }
    }

    /// The page in columns, under their names if it is the first.
    fn turn(&mut self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        if self.widths.is_empty() {
            table.set_header(&self.names);
        }
        for row in self.page.drain(..) {
            table.add_row(row);
        }
        for (column, width) in table.column_iter_mut().zip(&self.widths) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
        }
        let text = format!("{table}\n");
        if self.widths.is_empty() {
            // Of the content and the space on either side.
            let widths = table.column_max_content_widths();
            self.widths = widths.iter().map(|width| width.saturating_add(2)).collect();
        }
        text
    }

    fn vertical(&self, cells: Vec<String>) -> String {
        let width = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut text = format!("-[ {} ]{}\n", self.rows, "-".repeat(width.max(20)));
        for (name, cell) in self.names.iter().zip(cells) {
            let indented = cell.replace('\n', &format!("\n{:width$} | ", ""));
            text += format!("{name:width$} | {indented}").trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch(texts: Vec<&str>) -> RecordBatch {
        let numbers: Int64Array = (0..texts.len() as i64).collect();
        let columns: [(&str, ArrayRef); 2] =
            [("number", Arc::new(numbers)), ("some text", Arc::new(StringArray::from(texts)))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn shown(shape: Shape, batches: &[RecordBatch], more: bool) -> String {
        let mut people = People::new(shape, &batches[0].schema());
        let pages: String = batches.iter().map(|batch| people.add(batch).unwrap()).collect();
        pages + &people.finish(more)
    }

    #[test]
    fn cells_and_rows_are_single_lines() {
        let rows = [batch(vec!["a", "\u{1b}[2J\nb"])];
        assert_eq!(
            shown(Shape::Table, &rows, false),
            " number  some text  \n 0       a          \n 1       \\x1b[2J\\nb \n(2 rows)\n"
        );
        let vertical = shown(Shape::Vertical, &rows, false);
        assert_eq!(
            vertical,
            "-[ 1 ]--------------------\nnumber    | 0\nsome text | a\n\
             -[ 2 ]--------------------\nnumber    | 1\nsome text | \\x1b[2J\\nb\n(2 rows)\n"
        );
        assert!(shown(Shape::Table, &[batch(vec![])], false).ends_with("(0 rows)\n"));
        assert_eq!(
            shown(Shape::Vertical, &[batch(vec!["a"])], false).lines().last(),
            Some("(1 row)")
        );
    }

    #[test]
    fn long_cells_are_cut_and_counted() {
        let long = "ä".repeat(3_000);
        let table = shown(Shape::Table, &[batch(vec![&long, "b"])], false);
        assert!(table.contains(&format!(" {}… ", "ä".repeat(CELL))), "{table}");
        assert!(table.ends_with(
            "(2 rows)\n(1 long cell is truncated: --format vertical shows more of each, --format \
             csv all)\n"
        ));
        let vertical = shown(Shape::Vertical, &[batch(vec![&long, &long])], false);
        assert!(vertical.contains("ä… (3000 characters in all)\n"));
        assert!(
            vertical.ends_with("(2 long cells are truncated: --format csv shows them in full)\n")
        );
    }

    #[test]
    fn pages_keep_the_widths_of_the_first() {
        let rows = |text: &'static str, many| batch(vec![text; many]);
        let text = shown(Shape::Table, &[rows("a longer text", PAGE), rows("short", 3)], true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + PAGE + 3 + 1);
        assert_eq!(lines.iter().filter(|line| line.contains("number")).count(), 1);
        let at = lines[1].find("a longer").unwrap();
        assert_eq!(lines[PAGE + 1].find("short"), Some(at));
        assert!(lines[PAGE + 4].starts_with("(the first 1003 rows; there are more: --rows 10030"));
    }
}
