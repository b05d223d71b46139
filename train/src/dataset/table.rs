//! Small tables beside the pictures: CSV with a header, columns by name, every complaint with its line.

use super::files::Files;
use crate::Result;

/// Most rows of one table.
const MOST_ROWS: usize = 5_000_000;

/// A table whose columns are known by name.
pub(super) struct Table<'a> {
    files: &'a Files,
    name: &'static str,
    /// Line in the file, and the fields in the order of the columns asked for; "" where an optional column is absent.
    pub rows: Vec<(usize, Vec<String>)>,
}

impl<'a> Table<'a> {
    /// Reads `name` (UTF-8, comma-separated, fields in double quotes where they hold commas). Of `columns`, the first
    /// `needed` must be there; others than these are refused.
    pub fn read(files: &'a Files, name: &'static str, columns: &[&str], needed: usize) -> Result<Self> {
        let text = files.read_text(name)?;
        let mut records = records(text.trim_start_matches('\u{feff}'));
        let header = match records.next() {
            Some((_, Ok(header))) => header,
            _ => return Err(files.error(format!("{name} has no header; its columns are {}", columns.join(", ")))),
        };
        let expected = format!("its columns are {}", columns.join(", "));
        if let Some(strange) = header.iter().find(|field| !columns.contains(&field.as_str())) {
            return Err(files.error(format!("{name}: column {strange:?} is not known; {expected}")));
        }
        let places: Vec<Option<usize>> = columns.iter().map(|c| header.iter().position(|field| field == c)).collect();
        if let Some(missing) = (0..needed).find(|&c| places[c].is_none()) {
            return Err(files.error(format!("{name}: column {:?} is missing; {expected}", columns[missing])));
        }
        let mut table = Self { files, name, rows: Vec::new() };
        for (line, record) in records {
            let record = record.map_err(|reason| table.error(line, reason))?;
            if record.len() != header.len() {
                return Err(table.error(line, format!("{} fields instead of {}", record.len(), header.len())));
            }
            let field = |place: &Option<usize>| place.map(|p| record[p].clone()).unwrap_or_default();
            table.rows.push((line, places.iter().map(field).collect()));
            if table.rows.len() > MOST_ROWS {
                return Err(files.error(format!("{name} holds more than {MOST_ROWS} rows")));
            }
        }
        Ok(table)
    }

    /// An error about one line.
    pub fn error(&self, line: usize, reason: impl std::fmt::Display) -> crate::Error {
        self.files.error(format!("{}, line {line}: {reason}", self.name))
    }
}

/// The records of a text that are not blank, each with its line from 1: trimmed fields, or why there are none.
fn records(text: &str) -> impl Iterator<Item = (usize, std::result::Result<Vec<String>, &'static str>)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(|(i, line)| (i + 1, fields(line)))
}

/// Fields between commas; one in double quotes may hold commas, and a quote as two of them. A field ends on its line.
fn fields(line: &str) -> std::result::Result<Vec<String>, &'static str> {
    let (mut fields, mut rest) = (Vec::new(), Some(line));
    while let Some(text) = rest {
        let text = text.trim_start();
        let (field, after) = match text.strip_prefix('"') {
            None => match text.split_once(',') {
                Some((field, after)) => (field.trim_end().to_string(), Some(after)),
                None => (text.trim_end().to_string(), None),
            },
            Some(quoted) => {
                let (mut field, mut text) = (String::new(), quoted);
                let after = loop {
                    let (inside, after) = text.split_once('"').ok_or("a quoted field has no closing quote")?;
                    field.push_str(inside);
                    match after.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            text = more;
                        }
                        None => break after.trim(),
                    }
                };
                match (after.is_empty(), after.strip_prefix(',')) {
                    (true, _) => (field, None),
                    (_, Some(more)) => (field, Some(more)),
                    _ => return Err("there is text behind a quoted field"),
                }
            }
        };
        fields.push(field);
        rest = after;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn fields_are_trimmed_and_quotes_protect_commas() {
        let split = |line| fields(line).map(|f| f.join("|"));
        assert_eq!(split("a, b ,c").as_deref(), Ok("a|b|c"));
        assert_eq!(split("a,,").as_deref(), Ok("a||"));
        assert_eq!(split(r#""a, b" , "say ""c""",d"#).as_deref(), Ok(r#"a, b|say "c"|d"#));
        assert_eq!(split("").as_deref(), Ok(""));
        assert!(split("\"a").is_err() && split("\"a\"b,c").is_err());
    }
}
