//! What names of files and folders say.

use std::{borrow::Cow, fmt::Write, path::Path};

use unicode_normalization::UnicodeNormalization;

use crate::decode::{EXTENSIONS, OTHER_EXTENSIONS};

/// A part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Train,
    Validation,
    Test,
}

impl Part {
    /// The usual name of its folder.
    pub(super) fn name(self) -> &'static str {
        ["train", "validation", "test"][self as usize]
    }
}

/// Names of parts, lowercase.
const PARTS: [(&str, Part); 11] = [
    ("train", Part::Train),
    ("training", Part::Train),
    ("trainset", Part::Train),
    ("val", Part::Validation),
    ("valid", Part::Validation),
    ("validation", Part::Validation),
    ("valset", Part::Validation),
    ("dev", Part::Validation),
    ("test", Part::Test),
    ("testing", Part::Test),
    ("testset", Part::Test),
];

/// Folders around classes that name no class.
const WRAPPERS: [&str; 12] =
    ["images", "image", "imgs", "img", "data", "dataset", "pictures", "photos", "files", "jpg", "jpeg", "png"];

/// Folders that macOS, Windows and file servers leave, with thumbnails and deleted files in them.
const LEFT_FOLDERS: [&str; 7] =
    ["__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"];

/// Files that they leave.
const LEFT_FILES: [&str; 5] = [".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"];

/// Endings of other files that often lie beside images.
const NO_IMAGES: [&str; 24] = [
    "txt",
    "md",
    "csv",
    "json",
    "jsonl",
    "xml",
    "yaml",
    "yml",
    "toml",
    "html",
    "css",
    "js",
    "py",
    "ipynb",
    "log",
    "db",
    "npy",
    "pt",
    "safetensors",
    "ckpt",
    "gz",
    "zip",
    "mp4",
    "mov",
];

/// The part of a folder with exactly the name of one, in any case.
pub(super) fn part(folder: &str) -> Option<Part> {
    PARTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(folder)).map(|(_, part)| *part)
}

/// The part of a folder with the name of exactly one part among its words, such as `seg_train`, `Test Data` or `train2017`.
pub(super) fn part_among_words(folder: &str) -> Option<Part> {
    let mut parts = words(folder).into_iter().filter_map(|word| part(&word));
    let first = parts.next()?;
    parts.all(|other| other == first).then_some(first)
}

/// Runs of letters; a capital after a small letter starts another.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut last_is_small = false;
    for char in name.chars() {
        if !char.is_alphabetic() || char.is_uppercase() && last_is_small {
            words.push(String::new());
        }
        if char.is_alphabetic() {
            words.last_mut().expect("there is a first").push(char);
        }
        last_is_small = char.is_lowercase();
    }
    words
}

/// Whether a folder's name says nothing about a class.
pub(super) fn is_wrapper(folder: &str) -> bool {
    WRAPPERS.iter().any(|name| name.eq_ignore_ascii_case(folder))
}

/// Whether one of a path's folders, or its file, was left by an operating system or a file server.
pub(super) fn is_leftover(path: &str) -> bool {
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    let is_in = |names: &[&str], name: &str| names.contains(&name.to_ascii_lowercase().as_str());
    is_in(&LEFT_FILES, file) || file.starts_with("._") || folders.split('/').any(|folder| is_in(&LEFT_FOLDERS, folder))
}

/// Whether one of a path's folders, or its file, is hidden.
pub(super) fn is_hidden(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with('.'))
}

/// Whether a file is named like an image, of a format that is read or of one that is known and is not.
pub(crate) fn is_image(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    let is_one_of = |names: &[&str]| extension.is_some_and(|e| names.iter().any(|name| name.eq_ignore_ascii_case(e)));
    is_one_of(&EXTENSIONS) || is_one_of(&OTHER_EXTENSIONS)
}

/// Whether a file's ending says that it is something else, so that its contents need not be looked at.
pub(super) fn is_no_image(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|e| NO_IMAGES.iter().any(|name| name.eq_ignore_ascii_case(e)))
}

/// A name in bytes as text: what is not UTF-8 is written as `\xNN`, so that different names stay different.
pub(crate) fn text(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Class names that are equal in this form are the same: characters composed (Unicode's NFC).
pub(crate) fn normalized(class: &str) -> Cow<'_, str> {
    if class.is_ascii() { Cow::Borrowed(class) } else { Cow::Owned(class.nfc().collect()) }
}

/// Names that are equal in this form are likely meant to be the same: without case, spaces and separators.
pub(super) fn folded(class: &str) -> String {
    class.nfkc().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_every_usual_name() {
        for (name, expected) in [
            ("train", Some(Part::Train)),
            ("Training", Some(Part::Train)),
            ("VALID", Some(Part::Validation)),
            ("val", Some(Part::Validation)),
            ("Validation", Some(Part::Validation)),
            ("dev", Some(Part::Validation)),
            ("Test", Some(Part::Test)),
            ("testing", Some(Part::Test)),
            ("trains", None),
            ("seg_train", None),
            ("", None),
        ] {
            assert_eq!(part(name), expected, "{name}");
        }
        for (name, expected) in [
            ("seg_train", Some(Part::Train)),
            ("train2017", Some(Part::Train)),
            ("Test Data", Some(Part::Test)),
            ("TrainingSet", Some(Part::Train)),
            ("training_set", Some(Part::Train)),
            ("asl-alphabet-test", Some(Part::Test)),
            ("train_test", None),
            ("latest", None),
            ("contest", None),
            ("validity", None),
        ] {
            assert_eq!(part_among_words(name), expected, "{name}");
        }
    }

    #[test]
    fn different_names_that_are_no_utf8_stay_different() {
        assert_eq!(text("café".as_bytes()), "café");
        assert_eq!((text(b"\xb9\xb7"), text(b"a\xff\xfeb")), ("\\xb9\\xb7".into(), "a\\xff\\xfeb".into()));
    }

    #[test]
    fn leftovers_are_known_in_any_folder() {
        for path in ["__MACOSX/train/cat/._0.jpg", "train/cat/@eaDir/1.jpg", "a/Thumbs.db", "a/.DS_Store", "._a.png"] {
            assert!(is_leftover(path), "{path}");
        }
        for path in ["train/cat/1.jpg", "a/.hidden/1.jpg", "thumbs.db/1.jpg"] {
            assert!(!is_leftover(path), "{path}");
        }
    }

    #[test]
    fn names_that_look_alike_fold_to_one() {
        assert_eq!(normalized("cafe\u{301}"), "café");
        assert_eq!(folded("My_Dog"), folded("my dog "));
        assert_ne!(folded("cat"), folded("cats"));
    }
}
