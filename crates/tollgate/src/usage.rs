//! `tollgate usage`: sums and rows of the usage ledger, as a table, JSON or CSV, also while a gateway writes it.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use tollgate_ledger::{Question, Reader, Value};

use crate::failure::Failure;
use crate::flags::UsageFlags;

pub(crate) fn run(flags: &UsageFlags) -> Result<ExitCode, Failure> {
    let question = Question {
        by: flags.by.clone(),
        rows: flags.rows,
        since: flags.since,
        until: flags.until,
    };
    let reader = Reader::open(&flags.data.data).map_err(|cause| cause.to_string())?;
    let out = BufWriter::new(io::stdout().lock());
    let written = match (flags.json, flags.csv) {
        (true, _) => answer(&reader, &question, Json::new(out)),
        (_, true) => answer(&reader, &question, Csv(out)),
        _ => answer(&reader, &question, Table::new(out)),
    };
    written.map_err(|cause| cause.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// A form of the answer.
trait Form {
    fn head(&mut self, names: &[&'static str]) -> io::Result<()>;
    fn line(&mut self, values: Vec<Value>) -> io::Result<()>;
    fn end(&mut self) -> io::Result<()>;
}

fn answer(reader: &Reader, question: &Question, form: impl Form) -> Result<(), tollgate_ledger::ReadError> {
    let form = std::cell::RefCell::new(form);
    let mut outcome = Ok(());
    let head = |names: &[&'static str]| form.borrow_mut().head(names);
    let mut first = Ok(());
    reader.ask(
        question,
        |names| first = head(names),
        |values| {
            outcome = form.borrow_mut().line(values);
            outcome.is_ok()
        },
    )?;
    // Whoever closed our output has seen enough.
    drop(first.and(outcome).and_then(|()| form.borrow_mut().end()));
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Decimal(amount) => amount.to_string(),
        Value::Text(text) => text.clone(),
    }
}

/// A JSON array, one object a line.
struct Json<W> {
    out: W,
    names: Vec<&'static str>,
    lines: usize,
}

impl<W: Write> Json<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            names: Vec::new(),
            lines: 0,
        }
    }
}

impl<W: Write> Form for Json<W> {
    fn head(&mut self, names: &[&'static str]) -> io::Result<()> {
        self.names = names.to_vec();
        write!(self.out, "[")
    }

    fn line(&mut self, values: Vec<Value>) -> io::Result<()> {
        write!(self.out, "{}", if self.lines == 0 { "\n{" } else { ",\n{" })?;
        self.lines += 1;
        for (index, (name, value)) in self.names.iter().zip(&values).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let json = match value {
                Value::Null => "null".to_owned(),
                Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
                // A decimal number is one of JSON's as it stands.
                number => text(number),
            };
            write!(self.out, "{comma}\"{name}\":{json}")?;
        }
        write!(self.out, "}}")
    }

    fn end(&mut self) -> io::Result<()> {
        writeln!(self.out, "{}", if self.lines == 0 { "]" } else { "\n]" })?;
        self.out.flush()
    }
}

/// RFC 4180, safe to open in a spreadsheet.
struct Csv<W>(W);

impl<W: Write> Csv<W> {
    fn record<'c>(&mut self, cells: impl Iterator<Item = std::borrow::Cow<'c, str>>) -> io::Result<()> {
        for (index, cell) in cells.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(self.0, "{comma}{cell}")?;
        }
        write!(self.0, "\r\n")
    }
}

/// A text as a cell: quoted where CSV asks for it, and with an apostrophe in front where a spreadsheet would take it for
/// a formula.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%']);
    let guard = if formula { "'" } else { "" };
    if formula || text.contains([',', '"', '\r', '\n', ';', '\'']) {
        return format!("\"{guard}{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

impl<W: Write> Form for Csv<W> {
    fn head(&mut self, names: &[&'static str]) -> io::Result<()> {
        self.record(names.iter().map(|name| (*name).into()))
    }

    fn line(&mut self, values: Vec<Value>) -> io::Result<()> {
        self.record(values.iter().map(|value| match value {
            Value::Text(text) => cell(text).into(),
            other => text(other).into(),
        }))
    }

    fn end(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Columns side by side, numbers to the right.
struct Table<W> {
    out: W,
    names: Vec<&'static str>,
    lines: Vec<Vec<Value>>,
}

/// Lines that a table looks at to find its widths; longer ones are printed in pieces.
const PIECE: usize = 1_000;

impl<W: Write> Table<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            names: Vec::new(),
            lines: Vec::new(),
        }
    }

    fn print(&mut self) -> io::Result<()> {
        let lines = std::mem::take(&mut self.lines);
        let head = self.names.iter().map(|name| name.to_uppercase()).collect();
        let numeric: Vec<bool> = (0..self.names.len())
            .map(|index| {
                lines
                    .iter()
                    .all(|line| !matches!(line.get(index), Some(Value::Text(_))))
            })
            .collect();
        let shown = lines.iter().map(|line| line.iter().map(shown).collect());
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(shown).collect();
        let width = |index: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(index))
                .map(|cell| cell.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..self.names.len())
            .map(|index| width(index).unwrap_or(0))
            .collect();
        for line in &lines {
            let mut row = String::new();
            for ((cell, width), numeric) in line.iter().zip(&widths).zip(&numeric) {
                match numeric {
                    true => row.push_str(&format!("{cell:>width$}  ")),
                    false => row.push_str(&format!("{cell:<width$}  ")),
                }
            }
            writeln!(self.out, "{}", row.trim_end())?;
        }
        self.out.flush()
    }
}

/// A cell for a terminal.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Text(text) => harmless(text),
        number => text(number),
    }
}

/// A text for a terminal: names come from clients and vendors, none of their control characters reaches it.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |character: char| {
        if character.is_control() {
            '\u{fffd}'
        } else {
            character
        }
    };
    text.chars().map(shown).collect()
}

impl<W: Write> Form for Table<W> {
    fn head(&mut self, names: &[&'static str]) -> io::Result<()> {
        self.names = names.to_vec();
        Ok(())
    }

    fn line(&mut self, values: Vec<Value>) -> io::Result<()> {
        self.lines.push(values);
        if self.lines.len() >= PIECE {
            self.print()
        } else {
            Ok(())
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.print()
    }
}

#[cfg(test)]
mod tests {
    use tollgate_base::Amount;

    use super::*;

    fn written(make: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        make(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn fill(mut form: impl Form) {
        form.head(&["consumer", "requests", "cost"]).unwrap();
        for consumer in ["ann", "=cmd()", "a,\"b\"\n", "\u{1b}[2J"] {
            let values = vec![
                Value::Text(consumer.to_owned()),
                Value::Integer(3),
                Value::Decimal(Amount(1_500_000_000)),
            ];
            form.line(values).unwrap();
        }
        form.line(vec![Value::Null, Value::Integer(12), Value::Null])
            .unwrap();
        form.end().unwrap();
    }

    #[test]
    fn csv_is_quoted_and_no_cell_is_a_formula() {
        let csv = written(|out| fill(Csv(out)));
        assert_eq!(
            csv,
            "consumer,requests,cost\r\nann,3,1.5\r\n\"'=cmd()\",3,1.5\r\n\"a,\"\"b\"\"\n\",3,1.5\r\n\u{1b}[2J,3,1.5\r\n,12,\r\n"
        );
    }

    #[test]
    fn json_is_an_array_of_objects_also_without_any() {
        let json = written(|out| fill(Json::new(out)));
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            read[0],
            serde_json::json!({"consumer": "ann", "requests": 3, "cost": 1.5})
        );
        assert_eq!(
            (&read[3]["consumer"], &read[4]["cost"]),
            (&"\u{1b}[2J".into(), &serde_json::Value::Null)
        );
        let none = written(|out| {
            let mut form = Json::new(out);
            form.head(&["requests"]).unwrap();
            form.end().unwrap();
        });
        assert_eq!(none, "[]\n");
    }

    #[test]
    fn a_table_is_aligned_and_harmless_to_a_terminal() {
        let table = written(|out| fill(Table::new(out)));
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "CONSUMER  REQUESTS  COST");
        assert_eq!(lines[1], "ann              3   1.5");
        assert_eq!(lines[5], "-               12     -");
        assert!(!table.contains('\u{1b}'));
    }
}
