//! Lists the files of a folder.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::{Found, Kind, names};
use crate::{
    decode::{DecodeError, SIGNATURE_BYTES, is_image},
    error::DataError,
};

/// What a folder contains.
pub(super) struct Listing {
    /// Files, in the order of their paths.
    pub files: Vec<Found>,
    /// Where each file is.
    pub paths: Vec<PathBuf>,
    /// Folders, by their paths below the root.
    pub folders: Vec<String>,
}

/// Lists the files below `root` with links followed, without hidden ones.
pub(super) fn list(root: &Path) -> Result<Listing, DataError> {
    let (mut found, mut folders) = (vec![], vec![]);
    let is_passed_over = |name: &str| names::is_hidden(name) && !names::is_leftover(name);
    let entries = WalkDir::new(root)
        .follow_links(true)
        .min_depth(1)
        .into_iter()
        .filter_entry(|entry| !is_passed_over(&names::text(entry.file_name().as_encoded_bytes())));
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => folders.push(name_below(root, entry.path())),
            Ok(entry) => {
                let name = name_below(root, entry.path());
                let is_named = names::is_leftover(&name) || names::is_image(&name);
                let is_image = is_named || !names::is_no_image(&name) && starts_as_image(entry.path());
                let kind = if is_image { Kind::Image } else { Kind::Other };
                found.push((Found { name, kind }, entry.into_path()));
            }
            // The folder itself cannot be read.
            Err(error) if error.depth() == 0 => {
                return Err(DataError::Io { action: "read", path: root.into(), source: error.into() });
            }
            // A broken link, a loop of links, or a folder without permission.
            Err(error) => {
                let path = error.path().unwrap_or(root).to_path_buf();
                // A folder that cannot be read is of its class.
                let folder = if path.is_dir() { "/" } else { "" };
                let kind = Kind::Refused(DecodeError::Unreadable(error.to_string()));
                found.push((Found { name: name_below(root, &path) + folder, kind }, path));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.name.split('/').cmp(b.name.split('/')));
    let (files, paths) = found.into_iter().unzip();
    Ok(Listing { files, paths, folders })
}

/// A path below `root`, its names separated by `/`.
fn name_below(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let names: Vec<_> = below.iter().map(|name| names::text(name.as_encoded_bytes())).collect();
    names.join("/")
}

/// Whether a regular file's first bytes are those of an image.
fn starts_as_image(path: &Path) -> bool {
    let mut start = vec![];
    // Opening a pipe may block.
    path.is_file()
        && File::open(path)
            .and_then(|file| file.take(SIGNATURE_BYTES as u64).read_to_end(&mut start))
            .is_ok_and(|_| is_image(&start))
}
