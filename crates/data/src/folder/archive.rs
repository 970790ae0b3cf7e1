//! Images in an archive, without unpacking it to disk. It is read twice: for the names of its members, which show how
//! they are arranged, and for the images.

use std::{collections::HashMap, io::Read, ops::ControlFlow, path::Path};

use super::{CHUNK_FILES, Candidate, Contents, Found, Kind, layout::Layout, names, pictures::Pictures};
use crate::{
    archive::{self, Member, MemberKind, inner_name},
    decode::{DecodeError, MAX_FILE_BYTES, SIGNATURE_BYTES, dimensions, is_image},
    error::DataError,
    progress::LoadProgress,
};

/// Bytes of an archive that are held in memory before they are decoded.
const CHUNK_BYTES: usize = 32 << 20;

/// Memory for the names of an archive's members.
const MOST_NAMES: usize = 256 << 20;

/// Number of unusable files that is accepted even if they are most of an archive.
pub(super) const MOST_USELESS: usize = 100_000;

/// The files of an archive in its order; links are left out, as they could only point to its members.
pub(super) fn list(path: &Path) -> Result<Vec<Found>, DataError> {
    let (mut files, mut memory, mut seen) = (vec![], 0, HashMap::new());
    visit_files(path, |index, name, member| {
        memory += 2 * (name.len() + 64);
        if memory > MOST_NAMES {
            let problem = "is one of too many".to_owned();
            return Err(DataError::UnsafeArchive { path: path.into(), member: name, problem });
        }
        let kind = match &member.kind {
            _ if seen.insert(name.clone(), index).is_some() => {
                Kind::Refused(DecodeError::Corrupt("the archive contains it twice".into()))
            }
            MemberKind::Other(problem) => Kind::Refused(DecodeError::Unreadable(format!("it {problem}"))),
            _ if names::is_leftover(&name) || names::is_image(&name) => Kind::Image,
            _ if names::is_no_image(&name) => Kind::Other,
            _ => {
                let mut start = vec![];
                let read = member.contents.take(SIGNATURE_BYTES as u64).read_to_end(&mut start);
                read.map_err(DataError::io("read", path))?;
                if is_image(&start) { Kind::Image } else { Kind::Other }
            }
        };
        files.push(Found { name, kind });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(files)
}

/// Calls `visit` with every file that could be an image, by its index and its name inside the archive.
fn visit_files(
    path: &Path,
    mut visit: impl FnMut(usize, String, &mut Member) -> Result<ControlFlow<()>, DataError>,
) -> Result<(), DataError> {
    let mut index = 0;
    archive::visit(path, |member| {
        let name = inner_name(&member.name).filter(|_| match &member.kind {
            MemberKind::File => true,
            MemberKind::Folder | MemberKind::Link => false,
            MemberKind::Other(_) => names::is_image(&member.name),
        });
        let Some(name) = name else { return Ok(ControlFlow::Continue(())) };
        index += 1;
        visit(index - 1, name, member)
    })
}

/// Decodes the images of a layout.
pub(super) fn decode(
    path: &Path,
    files: &[Found],
    layout: &Layout,
    pictures: &mut Pictures,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(), DataError> {
    let total = layout.placed.len();
    let mut positions = vec![None; files.len()];
    (0..).zip(&layout.placed).for_each(|(position, (file, _))| positions[*file] = Some(position));
    let (mut chunk, mut held, mut done) = (Vec::new(), 0, 0);
    visit_files(path, |index, name, member| {
        // The archive may have changed since it was listed.
        let is_same = files.get(index).is_some_and(|file| file.name == name);
        let Some(position) = positions.get(index).copied().flatten().filter(|_| is_same) else {
            return Ok(ControlFlow::Continue(()));
        };
        let contents = match &files[index].kind {
            Kind::Refused(error) => Contents::Refused(error.clone()),
            _ if member.size > MAX_FILE_BYTES => Contents::Refused(DecodeError::TooManyBytes { bytes: member.size }),
            _ => {
                let mut bytes = Vec::new();
                member.contents.read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
                held += bytes.len();
                Contents::InMemory(bytes)
            }
        };
        done += 1;
        chunk.push(Candidate { position, contents });
        if chunk.len() >= CHUNK_FILES || held >= CHUNK_BYTES {
            pictures.decode(std::mem::take(&mut chunk));
            held = 0;
            check_use(path, pictures, done)?;
            progress(LoadProgress::Decoding { done, total: Some(total) });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    pictures.decode(chunk);
    progress(LoadProgress::Decoding { done, total: Some(total) });
    Ok(())
}

/// The shorter side of so many images, the first in the archive.
pub(super) fn shorter_sides(path: &Path, most: usize) -> Result<Vec<u32>, DataError> {
    let mut sides = vec![];
    visit_files(path, |_, name, member| {
        let is_used = names::is_image(&name) && !names::is_leftover(&name) && member.size <= MAX_FILE_BYTES;
        if matches!(member.kind, MemberKind::File) && is_used {
            let mut bytes = vec![];
            member.contents.read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
            sides.extend(dimensions(&bytes).map(|[width, height]| width.min(height)));
        }
        Ok(if sides.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(sides)
}

/// Gives up on an archive that is mostly unusable files: a small archive can contain millions of them.
fn check_use(root: &Path, pictures: &Pictures, files: usize) -> Result<(), DataError> {
    let useless = pictures.useless();
    if useless <= MOST_USELESS || 2 * useless < files {
        return Ok(());
    }
    Err(DataError::Useless { path: root.into(), useless, files })
}
