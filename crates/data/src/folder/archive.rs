//! Images in a `.tar.gz` archive.

use std::{
    io::Read,
    ops::ControlFlow,
    path::{Component, Path},
};

use super::{CHUNK_FILES, Candidate, Contents, Findings, Part, Place, assemble, check_class, is_hidden, is_image_name};
use crate::{
    archive,
    dataset::Dataset,
    decode::{DecodeError, Input, MAX_FILE_BYTES},
    error::DataError,
    progress::LoadProgress,
};

/// Bytes of an archive that are held in memory before they are decoded.
const CHUNK_BYTES: usize = 32 << 20;

/// Number of unusable files that is accepted even if they are most of an archive.
pub(super) const MOST_USELESS: usize = 100_000;

/// Loads a `.tar.gz` of images without unpacking it to disk. The layouts are those of a folder, optionally
/// inside one more folder.
pub(crate) fn load_archive(
    path: &Path,
    input: impl Into<Input>,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Dataset, DataError> {
    let mut findings = Findings::new(input.into())?;
    let (mut chunk, mut held) = (Vec::new(), 0);
    archive::visit(path, |member, entry| {
        // Links are ignored: they could only point to members of the archive.
        if !entry.header().entry_type().is_file() {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(place) = place_of(&member) else { return Ok(ControlFlow::Continue(())) };
        if !is_image_name(&member) {
            findings.ignored += 1;
            return Ok(ControlFlow::Continue(()));
        }
        check_class(path, &place.class)?;
        let contents = if entry.size() > MAX_FILE_BYTES {
            Contents::Refused(DecodeError::TooManyBytes { bytes: entry.size() })
        } else {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
            held += bytes.len();
            Contents::InMemory(bytes)
        };
        chunk.push(Candidate { place, path: member, contents });
        if chunk.len() >= CHUNK_FILES || held >= CHUNK_BYTES {
            findings.decode(std::mem::take(&mut chunk));
            held = 0;
            check_use(path, &findings)?;
            progress(LoadProgress::Decoding { done: findings.images.len(), total: None });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    findings.decode(chunk);
    progress(LoadProgress::Decoding { done: findings.images.len(), total: Some(findings.images.len()) });

    // If there is a train/ or test/, images elsewhere (such as a logo) belong to no class.
    if findings.images.iter().any(|image| image.place.part.is_some()) {
        let found = findings.images.len();
        findings.images.retain(|image| image.place.part.is_some());
        findings.ignored += found - findings.images.len();
    }
    for image in &findings.images {
        let part = image.place.part.unwrap_or(Part::Train);
        findings.classes.insert((part, image.place.class.clone()));
    }
    findings.images.sort_by(|a, b| (a.place.part, &a.path).cmp(&(b.place.part, &b.path)));
    // If two members have the same name, the first one counts.
    for at in (1..findings.images.len()).rev() {
        if findings.images[at].path == findings.images[at - 1].path {
            findings.images[at].slot = Err(DecodeError::Corrupt("the archive contains it twice".into()));
        }
    }
    assemble(path, findings)
}

/// Whether [`load_archive`] would use an archive's member as an image.
pub(crate) fn is_archived_image(member: &Path) -> bool {
    is_image_name(member) && place_of(member).is_some()
}

/// Gives up on an archive that is mostly unusable files: a small archive can contain millions of them.
fn check_use(root: &Path, findings: &Findings) -> Result<(), DataError> {
    let useless = findings.images.iter().filter(|image| image.slot.is_err()).count();
    if useless <= MOST_USELESS || 2 * useless < findings.images.len() {
        return Ok(());
    }
    Err(DataError::Useless { path: root.into(), useless, files: findings.images.len() })
}

/// Part and class of an archive's member by its path; `None` if it is hidden or in no class.
fn place_of(member: &Path) -> Option<Place> {
    let mut folders = Vec::new();
    for component in member.components() {
        match component {
            Component::Normal(name) if !is_hidden(name) => folders.push(name.to_string_lossy()),
            Component::CurDir => {}
            _ => return None,
        }
    }
    folders.pop()?; // the file
    let part = |folder: &str| match folder {
        "train" => Some(Part::Train),
        "test" => Some(Part::Test),
        _ => None,
    };
    // The part is the first folder, or the second if one folder contains everything.
    for (depth, folder) in folders.iter().enumerate().take(2) {
        if let Some(part) = part(folder) {
            let class = folders.get(depth + 1)?.to_string();
            return Some(Place { part: Some(part), class });
        }
    }
    Some(Place { part: None, class: folders.first()?.to_string() })
}
