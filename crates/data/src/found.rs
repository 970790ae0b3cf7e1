//! What loading found, in words.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use crate::decode::DecodeError;

/// Most names in a list of them.
const MOST_LISTED: usize = 12;

/// What was found while loading. [`Display`](fmt::Display) gives a paragraph on one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// How the images are arranged, such as `the folders train/, test/`; empty for a set that has no folders.
    pub arrangement: String,
    /// Number of image files that were read.
    pub files: usize,
    /// Those that could not be used, by path.
    pub skipped: Vec<SkippedFile>,
    /// Files that were not read. Hidden files are not counted.
    pub aside: LeftAside,
    /// What looks like a mistake, a sentence each.
    pub notes: Vec<String>,
    /// Whether the images are not kept in memory, but decoded whenever they are asked for.
    pub is_streamed: bool,
}

/// An image file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedFile {
    /// The file, or the archive's member.
    pub path: PathBuf,
    /// The reason.
    pub error: DecodeError,
}

/// Why a file was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aside {
    /// Left by macOS, Windows or a file server.
    Leftover,
    /// Neither the name nor the contents are those of an image.
    NotAnImage,
    /// An image beside the class folders.
    NoClassFolder,
    /// An image in another folder than those of the parts or classes.
    Outside,
    /// An image to validate or test on, of a class that is not trained on.
    UnknownClass,
    /// An image that the table of labels does not name.
    NotInTable,
}

impl Aside {
    fn words(self) -> &'static str {
        match self {
            Self::Leftover => "left by an operating system or a file server",
            Self::NotAnImage => "not images",
            Self::NoClassFolder => "in no class folder",
            Self::Outside => "outside the folders that are used",
            Self::UnknownClass => "of classes that are not trained on",
            Self::NotInTable => "not in the table of labels",
        }
    }
}

/// Files that were not read, counted by the reason, each with the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftAside(BTreeMap<Aside, (usize, String)>);

impl LeftAside {
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn add(&mut self, kind: Aside, name: &str) {
        self.0.entry(kind).or_insert_with(|| (0, name.to_owned())).0 += 1;
    }

    /// Number of files that were not read for this reason.
    pub fn count(&self, kind: Aside) -> usize {
        self.0.get(&kind).map_or(0, |(count, _)| *count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for LeftAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.0.iter().map(|(kind, (count, first))| format!("{count} {} ({first})", kind.words()));
        f.write_str(&kinds.collect::<Vec<_>>().join(", "))
    }
}

impl LoadReport {
    /// Whether every file was used, and nothing looks like a mistake.
    pub fn is_clean(&self) -> bool {
        self.skipped.is_empty() && self.aside.is_empty() && self.notes.is_empty()
    }

    /// The files that could not be used: how many of each kind, and the first; empty if there are none.
    pub fn skipped_files(&self) -> String {
        let Some(first) = self.skipped.first() else { return String::new() };
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for kind in self.skipped.iter().map(|skipped| skipped.error.kind()) {
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((kind, 1)),
            }
        }
        let kinds: Vec<_> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        format!(
            "skipped {} of {} files: {}; first: {}: {}",
            self.skipped.len(),
            self.files,
            kinds.join(", "),
            first.path.display(),
            first.error
        )
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.arrangement.is_empty() {
            write!(f, "{}; ", self.arrangement)?;
        }
        match self.skipped_files() {
            none if none.is_empty() => write!(f, "read all {} files", self.files)?,
            skipped => f.write_str(&skipped)?,
        }
        if !self.aside.is_empty() {
            write!(f, "; left aside: {}", self.aside)?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

/// The first twelve names with commas between them, and how many more there are.
pub fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let shown = &names[..names.len().min(MOST_LISTED)];
    let more = names.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_one_line_that_counts_each_kind() {
        let skipped = |path: &str, error| SkippedFile { path: path.into(), error };
        let mut report = LoadReport {
            files: 60_000,
            skipped: vec![
                skipped("train/cat/1.jpg", DecodeError::NotAnImage),
                skipped("train/cat/2.jpg", DecodeError::Truncated),
                skipped("train/dog/3.jpg", DecodeError::NotAnImage),
            ],
            ..LoadReport::default()
        };
        let line = report.to_string();
        assert!(line.starts_with("skipped 3 of 60000 files: 2 not images, 1 truncated; first: train/cat/1.jpg: "));
        assert!(!line.contains('\n'));

        report.aside.add(Aside::NotAnImage, "a.txt");
        report.aside.add(Aside::NotAnImage, "b.txt");
        report.aside.add(Aside::Leftover, "Thumbs.db");
        report.notes.push("this is odd".to_owned());
        let line = report.to_string();
        let end = "; left aside: 1 left by an operating system or a file server (Thumbs.db), 2 not images (a.txt); \
                   this is odd";
        assert!(line.ends_with(end), "{line}");
        let clean = LoadReport { files: 5, ..LoadReport::default() };
        assert_eq!((clean.to_string().as_str(), clean.is_clean()), ("read all 5 files", true));
    }

    #[test]
    fn a_long_list_ends() {
        let names = |count: usize| listed((0..count).map(|name| name.to_string()));
        assert_eq!(names(3), "0, 1, 2");
        assert!(names(14).ends_with("11 and 2 more"), "{}", names(14));
    }
}
