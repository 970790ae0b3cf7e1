//! Tables of labels: a file in CSV (RFC 4180) with a row for each image, which has the image's name and its class.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use crate::{bounded_read, error::DataError, folder::is_image, found::listed};

/// Where labels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTable {
    /// The file. Its columns may be separated by commas, semicolons or tabs.
    pub path: PathBuf,
    /// Names of the columns with the images' names and their classes. They are found by their usual names if not given.
    pub columns: Option<[String; 2]>,
}

/// Usual names of columns, in letters and digits alone. The first that is there counts.
const IMAGES: [&str; 15] = [
    "filename",
    "filepath",
    "file",
    "imagepath",
    "path",
    "imagename",
    "imageid",
    "image",
    "imgname",
    "img",
    "photo",
    "picture",
    "name",
    "id",
    "uid",
];
const CLASSES: [&str; 14] = [
    "label",
    "labels",
    "class",
    "classname",
    "category",
    "target",
    "breed",
    "species",
    "diagnosis",
    "type",
    "tag",
    "y",
    "labelname",
    "classid",
];

/// The label of each image.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// Rows: an image's name, with `/` between folders, and its class.
    pub rows: Vec<(String, String)>,
    by_name: HashMap<String, usize>,
    /// Rows by the last part of their names, if that is of one row alone.
    by_end: HashMap<String, Option<usize>>,
}

impl Labels {
    /// # Errors
    ///
    /// [`DataError::Io`], and [`DataError::Labels`] if the file is not such a table.
    pub(crate) fn read(table: &LabelTable) -> Result<Self, DataError> {
        let text = bounded_read::read_text(&table.path).map_err(DataError::io("read", &table.path))?;
        Self::parse(&text, table.columns.as_ref())
            .map_err(|problem| DataError::Labels { path: table.path.clone(), problem })
    }

    fn parse(text: &str, columns: Option<&[String; 2]>) -> Result<Self, String> {
        let rows = rows(text.strip_prefix('\u{feff}').unwrap_or(text))?;
        let (_, header) = rows.first().ok_or("it is empty")?;
        let ([image, class], has_header) = find_columns(header, columns)?;
        let mut labels = Self::default();
        for (line, row) in &rows[usize::from(has_header)..] {
            let (Some(name), Some(label)) = (row.get(image), row.get(class)) else {
                return Err(format!("line {line} has {} columns, and {} are needed", row.len(), image.max(class) + 1));
            };
            let (name, label) = (name.trim().replace('\\', "/"), label.trim());
            let name = name.trim_start_matches("./").to_owned();
            if name.is_empty() || label.is_empty() {
                continue;
            }
            match labels.by_name.get(&name) {
                Some(row) if labels.rows[*row].1 == label => continue,
                Some(row) => {
                    let first = &labels.rows[*row].1;
                    return Err(format!(
                        "line {line} calls {name} {label}, and a line before {first}: an image has one label"
                    ));
                }
                None => {}
            }
            let row = labels.rows.len();
            labels.by_name.insert(name.clone(), row);
            let end = name.rsplit('/').next().unwrap_or_default().to_owned();
            labels.by_end.entry(end).and_modify(|row| *row = None).or_insert(Some(row));
            labels.rows.push((name, label.to_owned()));
        }
        if labels.rows.is_empty() {
            return Err("it has no rows with a name and a label".into());
        }
        Ok(labels)
    }

    /// The row of an image: that with its path, the end of its path, or one of these without the ending.
    pub(crate) fn row(&self, path: &str) -> Option<usize> {
        let ends = std::iter::successors(Some(path), |path| path.split_once('/').map(|(_, rest)| rest));
        let without_ending =
            |path: &str| Path::new(path).with_extension("").to_str().map(|path| path.replace('\\', "/"));
        for end in ends {
            let row = self.by_name.get(end).or_else(|| self.by_name.get(&without_ending(end)?));
            if let Some(row) = row {
                return Some(*row);
            }
        }
        // The table may name folders that are around this one.
        let name = path.rsplit('/').next().unwrap_or_default();
        let row = self.by_end.get(name).or_else(|| self.by_end.get(&without_ending(name)?));
        row.copied().flatten()
    }

    /// What to say of rows whose images are not there.
    pub(crate) fn missing(&self, found: &HashSet<usize>) -> Option<String> {
        let missing: Vec<usize> = (0..self.rows.len()).filter(|row| !found.contains(row)).collect();
        let first = &self.rows.get(*missing.first()?)?.0;
        Some(format!(
            "{} of {} rows of the table name images that are not there, first {first}",
            missing.len(),
            self.rows.len()
        ))
    }
}

/// Positions of the columns, and whether the first row has their names.
fn find_columns(header: &[String], columns: Option<&[String; 2]>) -> Result<([usize; 2], bool), String> {
    let plain = |name: &str| name.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let names: Vec<String> = header.iter().map(|name| plain(name)).collect();
    let there_are = || listed(header.iter().map(|name| name.trim().to_owned()));
    if let Some(columns) = columns {
        let find = |wanted: &String| {
            let exact = header.iter().position(|name| name.trim() == wanted.trim());
            let found = exact.or_else(|| names.iter().position(|name| *name == plain(wanted)));
            found.ok_or_else(|| format!("it has no column {wanted}, only {}", there_are()))
        };
        return Ok(([find(&columns[0])?, find(&columns[1])?], true));
    }
    if header.len() == 2 && header.iter().any(|cell| is_image(cell)) {
        return Ok((if is_image(&header[0]) { [0, 1] } else { [1, 0] }, false));
    }
    let find = |known: &[&str]| known.iter().find_map(|known| names.iter().position(|name| name == known));
    match (find(&IMAGES), find(&CLASSES)) {
        (Some(image), Some(class)) => Ok(([image, class], true)),
        _ if header.len() == 2 => Ok(([0, 1], true)),
        _ => Err(format!("which columns have the images' names and their classes? There are {}", there_are())),
    }
}

/// The cells of each row, with the number of its line.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let first = text.lines().next().unwrap_or_default();
    let separator = [',', ';', '\t'].into_iter().max_by_key(|char| (first.matches(*char).count(), *char == ','));
    let separator = separator.unwrap_or(',');
    let (mut rows, mut row, mut cell) = (vec![], vec![], String::new());
    let (mut line, mut start, mut is_quoted) = (1, 1, false);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        line += usize::from(char == '\n');
        match char {
            // Two quotes stand for one.
            '"' if is_quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' if is_quoted || cell.is_empty() => is_quoted = !is_quoted,
            _ if is_quoted => cell.push(char),
            '\n' => {
                row.push(std::mem::take(&mut cell));
                if row.iter().any(|cell: &String| !cell.trim().is_empty()) {
                    rows.push((start, std::mem::take(&mut row)));
                }
                row.clear();
                start = line;
            }
            _ if char == separator => row.push(std::mem::take(&mut cell)),
            '\r' => {}
            _ => cell.push(char),
        }
    }
    if is_quoted {
        return Err(format!("a quote in the row that starts on line {start} has no end"));
    }
    row.push(cell);
    if row.iter().any(|cell| !cell.trim().is_empty()) {
        rows.push((start, row));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Labels {
        Labels::parse(text, None).unwrap()
    }

    fn label<'a>(labels: &'a Labels, path: &str) -> Option<&'a str> {
        labels.row(path).map(|row| labels.rows[row].1.as_str())
    }

    #[test]
    fn columns_are_found_by_their_names_and_endings_may_be_missing() {
        let labels = parse("id,breed\n0001,cat\n0002,\"dog, large\"\n");
        assert_eq!(label(&labels, "train/0001.jpg"), Some("cat"));
        assert_eq!(label(&labels, "0002.png"), Some("dog, large"));
        assert_eq!(label(&labels, "0003.png"), None);
        let labels = parse("\u{feff}width;Class Name;File Name\r\n3;cat;a/1.jpg\r\n\r\n4;dog;.\\b\\1.jpg\r\n");
        assert_eq!(label(&labels, "a/1.jpg"), Some("cat"));
        assert_eq!(label(&labels, "images/b/1.jpg"), Some("dog"));
        assert_eq!(label(&labels, "c/1.jpg"), None, "two rows end so");
    }

    #[test]
    fn a_table_without_names_has_images_and_classes() {
        for text in ["1.jpg\tcat\n2.jpg\tdog", "cat,1.jpg\ndog,2.jpg\n"] {
            assert_eq!(label(&parse(text), "2.jpg"), Some("dog"));
        }
        let labels = parse("photo_a,what\nx/1.jpg,cat");
        assert_eq!(label(&labels, "1.jpg"), Some("cat"), "the table has folders around these");
    }

    #[test]
    fn columns_can_be_named() {
        let columns = ["key".to_owned(), "Kind".to_owned()];
        let text = "label,key,kind\nx,1,cat\n";
        let labels = Labels::parse(text, Some(&columns)).unwrap();
        assert_eq!(label(&labels, "1.jpg"), Some("cat"));
        let columns = ["key".to_owned(), "sort".to_owned()];
        assert_eq!(Labels::parse(text, Some(&columns)).unwrap_err(), "it has no column sort, only label, key, kind");
    }

    #[test]
    fn tables_that_do_not_say_it_are_refused() {
        let refusal = |text: &str| Labels::parse(text, None).unwrap_err();
        assert_eq!(refusal(""), "it is empty");
        assert!(refusal("a,b,c\n1,2,3\n").contains("There are a, b, c"));
        assert!(refusal("id,label,x\n1.jpg,\n2\n").contains("line 3 has 1 columns"));
        assert!(refusal("id,label\n1,cat\n1,dog\n").contains("line 3 calls 1 dog, and a line before cat"));
        assert!(refusal("id,label\n1,\"cat\n").contains("line 2 has no end"));
        assert!(refusal("id,label\n").contains("no rows"));
    }
}
