//! Images in folders named after their classes, on disk or in a `.tar.gz` archive.
//!
//! `train/<class>/..` with or without `test/<class>/..`, or `<class>/..` directly, which then is all
//! training. Labels are the positions of the classes in alphabetical order, images are in the order of
//! their paths, and neither depends on the file system or the number of threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    ops::ControlFlow,
    path::{Component, Path, PathBuf},
};

use rayon::prelude::*;
use walkdir::WalkDir;

use crate::{
    archive,
    dataset::{Dataset, ImageSet, LoadReport, Skipped, channel_statistics},
    decode::{DecodeError, EXTENSIONS, MAX_FILE_BYTES, MAX_IMAGE_SIZE, decode_image, decode_image_file},
    error::DataError,
    progress::Progress,
};

/// Files decoded between two reports of progress.
const CHUNK_FILES: usize = 1024;

/// Bytes of an archive held in memory before they are decoded.
const CHUNK_BYTES: usize = 32 << 20;

/// Longest name of a class, in bytes.
const MAX_CLASS_NAME: usize = 1024;

/// Files of an archive that may be of no use even if they are most of it.
const MOST_USELESS: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Train,
    Test,
}

/// Where an image belongs. `part` is `None` where the layout has no train/ and test/.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    part: Option<Part>,
    class: String,
}

enum Contents {
    OnDisk,
    InMemory(Vec<u8>),
    /// Known to be of no use without a look inside.
    Refused(DecodeError),
}

/// An image file that was found.
struct Candidate {
    place: Place,
    path: PathBuf,
    contents: Contents,
}

/// An image file after decoding.
struct Decoded {
    place: Place,
    path: PathBuf,
    pixels: Result<Vec<u8>, DecodeError>,
}

/// What was found at a path.
#[derive(Default)]
struct Findings {
    images: Vec<Decoded>,
    /// Class folders, also those without images.
    classes: BTreeSet<(Part, String)>,
    ignored: usize,
}

/// Loads a folder of images, each brought to `size` x `size` pixels.
pub(crate) fn load_folder(root: &Path, size: usize, progress: &mut dyn FnMut(Progress)) -> Result<Dataset, DataError> {
    check_size(size)?;
    let mut findings = Findings::default();
    let mut candidates = Vec::new();
    let train = root.join("train");
    if train.is_dir() {
        find_images(&train, Part::Train, &mut candidates, &mut findings)?;
        let test = root.join("test");
        if test.is_dir() {
            find_images(&test, Part::Test, &mut candidates, &mut findings)?;
        }
    } else {
        find_images(root, Part::Train, &mut candidates, &mut findings)?;
    }

    let total = candidates.len();
    let mut candidates = candidates.into_iter();
    while candidates.len() > 0 {
        let chunk = candidates.by_ref().take(CHUNK_FILES).collect();
        findings.images.extend(decode_all(chunk, size));
        progress(Progress::Decoding { done: findings.images.len(), total: Some(total) });
    }
    assemble(root, size, findings)
}

/// Loads a `.tar.gz` of images in the same layouts, also with one more folder around them, without
/// unpacking it to disk.
pub(crate) fn load_archive(path: &Path, size: usize, progress: &mut dyn FnMut(Progress)) -> Result<Dataset, DataError> {
    check_size(size)?;
    let mut findings = Findings::default();
    let (mut chunk, mut held) = (Vec::new(), 0);
    archive::visit(path, |member, entry| {
        // Links are left out: they could only point at what is in the archive anyway.
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
            findings.images.extend(decode_all(std::mem::take(&mut chunk), size));
            held = 0;
            check_use(path, &findings)?;
            progress(Progress::Decoding { done: findings.images.len(), total: None });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    findings.images.extend(decode_all(chunk, size));
    progress(Progress::Decoding { done: findings.images.len(), total: Some(findings.images.len()) });

    // With train/ and test/ there, images elsewhere (a logo, say) are of no class.
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
    // The first of two members of one name counts.
    for at in (1..findings.images.len()).rev() {
        if findings.images[at].path == findings.images[at - 1].path {
            findings.images[at].pixels = Err(DecodeError::Corrupt("the archive holds it twice".into()));
        }
    }
    assemble(path, size, findings)
}

/// Whether an archive's member is an image as [`load_archive`] takes it.
pub(crate) fn is_archived_image(member: &Path) -> bool {
    is_image_name(member) && place_of(member).is_some()
}

fn check_size(size: usize) -> Result<(), DataError> {
    if (1..=MAX_IMAGE_SIZE).contains(&size) { Ok(()) } else { Err(DataError::ImageSize { size }) }
}

/// Refuses a class whose name would do harm on a terminal.
fn check_class(root: &Path, class: &str) -> Result<(), DataError> {
    if class.len() <= MAX_CLASS_NAME && !class.chars().any(char::is_control) {
        return Ok(());
    }
    Err(DataError::ClassName { path: root.into(), class: class.chars().take(40).collect() })
}

/// Gives up on an archive of nothing but files that are of no use: a small one unpacks to millions.
fn check_use(root: &Path, findings: &Findings) -> Result<(), DataError> {
    let useless = findings.images.iter().filter(|image| image.pixels.is_err()).count();
    if useless <= MOST_USELESS || 2 * useless < findings.images.len() {
        return Ok(());
    }
    Err(DataError::Useless { path: root.into(), useless, files: findings.images.len() })
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|e| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(e)))
}

/// Part and class by the path of an archive's member; `None` for hidden ones and those in no class.
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
    // The part is the first folder, or the second where one folder holds all.
    for (depth, folder) in folders.iter().enumerate().take(2) {
        if let Some(part) = part(folder) {
            let class = folders.get(depth + 1)?.to_string();
            return Some(Place { part: Some(part), class });
        }
    }
    Some(Place { part: None, class: folders.first()?.to_string() })
}

/// Lists the images of one part: `<root>/<class>/**`, sorted by path.
fn find_images(
    root: &Path,
    part: Part,
    candidates: &mut Vec<Candidate>,
    findings: &mut Findings,
) -> Result<(), DataError> {
    let mut entries = fs::read_dir(root)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(DataError::io("read", root))?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries.iter().filter(|entry| !is_hidden(&entry.file_name())) {
        let folder = entry.path();
        if !folder.is_dir() {
            findings.ignored += 1;
            continue;
        }
        let place = Place { part: Some(part), class: entry.file_name().to_string_lossy().into_owned() };
        check_class(root, &place.class)?;
        findings.classes.insert((part, place.class.clone()));
        let files = WalkDir::new(&folder)
            .follow_links(true)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| !is_hidden(entry.file_name()));
        for file in files {
            let candidate = |path, contents| Candidate { place: place.clone(), path, contents };
            match file {
                Ok(file) if file.file_type().is_dir() => {}
                Ok(file) if is_image_name(file.path()) => {
                    candidates.push(candidate(file.into_path(), Contents::OnDisk));
                }
                Ok(_) => findings.ignored += 1,
                // A dangling link, a circle of links, or a folder without permission.
                Err(error) => {
                    let path = error.path().unwrap_or(&folder).to_path_buf();
                    let error = DecodeError::Unreadable(error.to_string());
                    candidates.push(candidate(path, Contents::Refused(error)));
                }
            }
        }
    }
    Ok(())
}

/// Decodes on all threads, in the order given.
fn decode_all(candidates: Vec<Candidate>, size: usize) -> Vec<Decoded> {
    let decode = |Candidate { place, path, contents }| {
        let pixels = match contents {
            Contents::OnDisk => decode_image_file(&path, size),
            Contents::InMemory(bytes) => decode_image(&bytes, size),
            Contents::Refused(error) => Err(error),
        };
        Decoded { place, path, pixels }
    };
    candidates.into_par_iter().map(decode).collect()
}

/// Makes the dataset out of what was found.
fn assemble(root: &Path, size: usize, findings: Findings) -> Result<Dataset, DataError> {
    if findings.images.is_empty() {
        return Err(DataError::NoImages { path: root.into() });
    }
    let classes_of = |part: Part| -> Vec<String> {
        let of_part = findings.classes.iter().filter(|(its, _)| *its == part);
        of_part.map(|(_, class)| class.clone()).collect()
    };
    let (classes, test_classes) = (classes_of(Part::Train), classes_of(Part::Test));
    if !test_classes.is_empty() && classes != test_classes {
        let without = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|class| !those.contains(class)).cloned().collect()
        };
        return Err(DataError::ClassMismatch {
            path: root.into(),
            only_train: without(&classes, &test_classes),
            only_test: without(&test_classes, &classes),
        });
    }
    if let [class] = &classes[..] {
        return Err(DataError::OneClass { path: root.into(), class: class.clone() });
    }

    let mut report = LoadReport { files: findings.images.len(), ignored: findings.ignored, ..Default::default() };
    let [mut train, mut test] = [ImageSet::empty(size, size), ImageSet::empty(size, size)];
    let labels: BTreeMap<&str, u32> = classes.iter().zip(0..).map(|(class, label)| (class.as_str(), label)).collect();
    // Classes without an image so far, with what happened to their first file.
    let mut empty: BTreeMap<(Part, String), String> =
        findings.classes.iter().map(|class| (class.clone(), "its folder has no image file".to_string())).collect();
    let mut failed: BTreeSet<(Part, String)> = BTreeSet::new();

    for Decoded { place: Place { part, class }, path, pixels } in findings.images {
        let part = part.unwrap_or(Part::Train);
        let set = if part == Part::Train { &mut train } else { &mut test };
        match pixels {
            Ok(pixels) => {
                set.labels.push(labels[class.as_str()]);
                set.images.extend_from_slice(&pixels);
                empty.remove(&(part, class));
            }
            Err(error) => {
                let key = (part, class);
                if let Some(reason) = empty.get_mut(&key)
                    && failed.insert(key)
                {
                    *reason = format!("{}: {error}", path.display());
                }
                report.skipped.push(Skipped { path, error });
            }
        }
    }
    if let Some(((part, class), reason)) = empty.pop_first() {
        let folder = if part == Part::Train { "train" } else { "test" };
        let path = root.join(folder);
        let path = if path.is_dir() { path } else { root.into() };
        return Err(DataError::EmptyClass { class, path, reason });
    }

    let (mean, std) = channel_statistics(&train);
    let test = (!test.is_empty()).then_some(test);
    Ok(Dataset { name: name_of(root), classes, train, test, mean, std, report })
}

/// The last part of a path without the ending of an archive.
fn name_of(root: &Path) -> String {
    // `.` and `data/..` have a name once they are resolved.
    let root = root.canonicalize().unwrap_or_else(|_| root.into());
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "folder".into());
    let stem = name.strip_suffix(".tar.gz").or(name.strip_suffix(".tgz"));
    stem.unwrap_or(&name).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Cursor, Write};

    use flate2::{Compression, write::GzEncoder};
    use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
    use tempfile::TempDir;

    use super::*;

    /// A PNG of one colour.
    fn png(grey: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = DynamicImage::from(RgbImage::from_pixel(8, 8, Rgb([grey; 3])));
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        root
    }

    fn archive(files: &[(&str, Vec<u8>)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        for (path, contents) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            builder.append_data(&mut header, path, contents.as_slice()).unwrap();
        }
        let file = File::create(root.path().join("images.tar.gz")).unwrap();
        let mut gzip = GzEncoder::new(file, Compression::fast());
        gzip.write_all(&builder.into_inner().unwrap()).unwrap();
        gzip.finish().unwrap();
        root
    }

    fn load(root: &TempDir) -> Result<Dataset, DataError> {
        load_folder(root.path(), 8, &mut |_| {})
    }

    /// First pixel of each image.
    fn greys(set: &ImageSet) -> Vec<u8> {
        (0..set.len()).map(|index| set.image(index)[0]).collect()
    }

    fn two_parts() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("train/dog/b.PNG", png(4)),
            ("train/dog/a.png", png(3)),
            ("train/cat/2.png", png(2)),
            ("train/cat/1.png", png(1)),
            ("test/cat/1.png", png(5)),
            ("test/dog/nested/1.png", png(6)),
            ("train/.hidden/1.png", png(9)),
            ("train/cat/.DS_Store", vec![0]),
            ("train/cat/notes.txt", vec![0]),
        ]
    }

    fn check_two_parts(dataset: &Dataset) {
        assert_eq!(dataset.classes, ["cat", "dog"]);
        assert_eq!(dataset.train.labels, [0, 0, 1, 1]);
        assert_eq!(greys(&dataset.train), [1, 2, 3, 4], "in the order of their paths");
        let test = dataset.test.as_ref().unwrap();
        assert_eq!((greys(test), &test.labels[..]), (vec![5, 6], &[0, 1][..]));
        assert_eq!((dataset.report.files, dataset.report.ignored), (6, 1));
        assert!((dataset.mean[0] - 2.5 / 255.0).abs() < 1e-6, "of train only: {:?}", dataset.mean);
    }

    #[test]
    fn classes_are_alphabetical_and_images_in_the_order_of_their_paths() {
        let root = folder(&two_parts());
        let mut last = None;
        let dataset = load_folder(root.path(), 8, &mut |progress| last = Some(progress)).unwrap();
        check_two_parts(&dataset);
        assert_eq!(last, Some(Progress::Decoding { done: 6, total: Some(6) }));
    }

    #[test]
    fn an_archive_gives_the_same_as_its_folder() {
        for prefix in ["", "./", "wrapper/"] {
            let mut files: Vec<_> = two_parts();
            // Belongs to no class, as there is a train/.
            files.push(("docs/logo.png", png(200)));
            let files: Vec<_> = files.into_iter().map(|(path, bytes)| (format!("{prefix}{path}"), bytes)).collect();
            let files: Vec<_> = files.iter().map(|(p, bytes)| (p.as_str(), bytes.clone())).collect();
            let root = archive(&files);
            let path = root.path().join("images.tar.gz");
            let mut dataset = load_archive(&path, 8, &mut |_| {}).unwrap();
            assert_eq!(dataset.name, "images");
            assert_eq!(dataset.report.ignored, 2);
            dataset.report.ignored -= 1;
            check_two_parts(&dataset);
            assert_eq!(dataset.digest(), load(&folder(&two_parts())).unwrap().digest());
        }
    }

    #[test]
    fn without_a_train_folder_the_classes_are_at_the_top() {
        let files = [("b/1.png", png(2)), ("a/1.png", png(1)), ("a/2.png", png(3)), ("README", vec![])];
        let dataset = load(&folder(&files)).unwrap();
        assert_eq!((dataset.classes, dataset.train.labels), (vec!["a".into(), "b".into()], vec![0, 0, 1]));
        assert!(dataset.test.is_none());
        let root = archive(&files);
        let dataset = load_archive(&root.path().join("images.tar.gz"), 8, &mut |_| {}).unwrap();
        assert_eq!((greys(&dataset.train), dataset.train.labels), (vec![1, 3, 2], vec![0, 0, 1]));
    }

    #[test]
    fn files_that_cannot_be_used_are_skipped_and_counted() {
        let mut half = png(1);
        half.truncate(half.len() / 2);
        let root =
            folder(&[("a/1.png", png(1)), ("a/2.png", b"text".to_vec()), ("b/1.png", png(2)), ("b/2.png", half)]);
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere", root.path().join("b/3.png")).unwrap();
        let dataset = load(&root).unwrap();
        assert_eq!(dataset.train.labels, [0, 1]);
        let line = dataset.report.to_string();
        if cfg!(unix) {
            assert!(
                line.starts_with("skipped 3 of 5 files: 1 not images, 1 truncated, 1 unreadable; first: "),
                "{line}"
            );
        }
        assert!(line.contains("2.png: not an image"), "{line}");
    }

    #[test]
    fn a_class_that_ends_up_empty_is_named_with_the_first_reason() {
        let root = folder(&[("train/a/1.png", png(1)), ("train/b/1.png", b"text".to_vec()), ("train/b/2.png", vec![])]);
        let message = load(&root).unwrap_err().to_string();
        assert!(message.starts_with("class `b` in "), "{message}");
        assert!(message.contains("1.png: not an image"), "{message}");

        let root = folder(&[("a/1.png", png(1)), ("b/1.txt", vec![])]);
        let message = load(&root).unwrap_err().to_string();
        assert!(message.contains("class `b`") && message.contains("no image file"), "{message}");
    }

    #[test]
    fn test_has_to_have_the_classes_of_train() {
        let root = folder(&[
            ("train/a/1.png", png(1)),
            ("train/b/1.png", png(1)),
            ("test/b/1.png", png(1)),
            ("test/c/1.png", png(1)),
        ]);
        let message = load(&root).unwrap_err().to_string();
        assert!(message.contains("only in train/ [a], only in test/ [c]"), "{message}");
    }

    #[test]
    fn a_folder_without_images_or_with_one_class_is_explained() {
        let message = load(&folder(&[("a/b.txt", vec![])])).unwrap_err().to_string();
        assert!(message.starts_with("no images found in "), "{message}");
        assert!(message.contains("train/<class>/*.jpg") && message.contains("webp"), "{message}");
        let message = load(&folder(&[("a/1.png", png(1))])).unwrap_err().to_string();
        assert!(message.contains("one class only, `a`"), "{message}");
    }

    #[test]
    fn an_image_size_beyond_reason_is_refused() {
        for size in [0, MAX_IMAGE_SIZE + 1] {
            let error = load_folder(Path::new("nowhere"), size, &mut |_| {}).unwrap_err();
            assert!(matches!(error, DataError::ImageSize { .. }), "{error}");
        }
    }

    #[test]
    fn the_number_of_threads_is_no_matter() {
        let files: Vec<_> =
            (0..40u8).map(|i| (format!("{}/{i}.png", ["a", "b"][usize::from(i) % 2]), png(i))).collect();
        let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
        let root = folder(&files);
        let digests = [1, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| load(&root).unwrap().digest())
        });
        assert_eq!(digests[0], digests[1]);
    }

    /// A `.tar.gz` of whatever members `build` makes.
    fn hostile(build: impl FnOnce(&mut tar::Builder<GzEncoder<File>>)) -> (TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("images.tar.gz");
        let mut builder = tar::Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
        build(&mut builder);
        builder.into_inner().unwrap().finish().unwrap();
        (root, path)
    }

    fn header(kind: tar::EntryType, path: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(path).unwrap();
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn refusal(build: impl FnOnce(&mut tar::Builder<GzEncoder<File>>)) -> String {
        let (_root, path) = hostile(build);
        load_archive(&path, 8, &mut |_| {}).unwrap_err().to_string()
    }

    #[test]
    fn names_and_headers_that_take_memory_are_refused() {
        // A gigabyte of name, in four megabytes of archive.
        let long = refusal(|archive| {
            let header = header(tar::EntryType::GNULongName, "././@LongLink", 1 << 30);
            archive.append(&header, std::io::repeat(b'a').take(1 << 30)).unwrap();
        });
        assert!(long.contains("name that is too long"), "{long}");
        let extended = |record: &'static [u8]| {
            refusal(move |archive| {
                archive.append(&header(tar::EntryType::XHeader, "pax", record.len() as u64), record).unwrap();
            })
        };
        assert!(extended(b"19 size=1000000000\n").contains("says its size twice"));
        assert!(extended(b"22 GNU.sparse.major=1\n").contains("file with holes"));
        let sparse = refusal(|archive| {
            archive.append(&header(tar::EntryType::GNUSparse, "a/1.png", 0), std::io::empty()).unwrap();
        });
        assert!(sparse.contains("file with holes"), "{sparse}");
    }

    #[test]
    fn long_names_are_put_together_as_tar_does() {
        let long = format!("a/{}.png", "long".repeat(60));
        for format in [tar::Header::new_gnu as fn() -> tar::Header, tar::Header::new_ustar] {
            let (_root, path) = hostile(|archive| {
                for (name, grey) in [(long.as_str(), 1), ("a/short.png", 2), ("b/1.png", 3)] {
                    let contents = png(grey);
                    let mut header = format();
                    header.set_size(contents.len() as u64);
                    if name == long && header.as_gnu().is_none() {
                        archive.append_pax_extensions([("path", name.as_bytes())]).unwrap();
                        header.set_path("a/cut").unwrap();
                        header.set_cksum();
                        archive.append(&header, contents.as_slice()).unwrap();
                    } else {
                        archive.append_data(&mut header, name, contents.as_slice()).unwrap();
                    }
                }
            });
            let dataset = load_archive(&path, 8, &mut |_| {}).unwrap();
            assert_eq!((dataset.train.len(), greys(&dataset.train)), (3, vec![1, 2, 3]));
        }
    }

    #[test]
    fn of_two_members_of_one_name_the_first_counts() {
        let (_root, path) = hostile(|archive| {
            for (name, grey) in [("a/1.png", 1), ("b/1.png", 2), ("a/1.png", 3)] {
                let contents = png(grey);
                archive.append(&header(tar::EntryType::Regular, name, contents.len() as u64), &contents[..]).unwrap();
            }
        });
        let dataset = load_archive(&path, 8, &mut |_| {}).unwrap();
        assert_eq!(greys(&dataset.train), [1, 2]);
        assert!(dataset.report.to_string().contains("holds it twice"), "{}", dataset.report);
    }

    #[test]
    fn members_that_point_outside_belong_to_no_class() {
        let (root, path) = hostile(|archive| {
            for (name, grey) in [("a/1.png", 1), ("b/1.png", 2)] {
                let contents = png(grey);
                archive.append(&header(tar::EntryType::Regular, name, contents.len() as u64), &contents[..]).unwrap();
            }
            for name in [&b"../evil/1.png"[..], b"/evil/1.png", b"a/../../evil/1.png"] {
                let contents = png(9);
                let mut header = header(tar::EntryType::Regular, "x", contents.len() as u64);
                header.as_old_mut().name[..name.len()].copy_from_slice(name);
                header.set_cksum();
                archive.append(&header, &contents[..]).unwrap();
            }
            let mut link = header(tar::EntryType::Symlink, "a/link.png", 0);
            link.set_link_name("/etc/passwd").unwrap();
            link.set_cksum();
            archive.append(&link, std::io::empty()).unwrap();
        });
        let dataset = load_archive(&path, 8, &mut |_| {}).unwrap();
        assert_eq!((dataset.classes, greys(&dataset.train)), (vec!["a".into(), "b".into()], vec![1, 2]));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "nothing is unpacked");
    }

    #[test]
    fn an_archive_of_nothing_but_useless_files_is_given_up() {
        let message = refusal(|archive| {
            let header = header(tar::EntryType::Regular, "a/1.png", 0);
            (0..MOST_USELESS + 2 * CHUNK_FILES).for_each(|_| archive.append(&header, std::io::empty()).unwrap());
        });
        assert!(message.contains("image files in") && message.contains("cannot be decoded"), "{message}");
    }

    #[test]
    fn class_names_are_plain_text() {
        for name in ["\u{1b}[2J", &"x".repeat(2000)] {
            let message = refusal(|archive| {
                let contents = png(1);
                let mut header = tar::Header::new_gnu();
                header.set_size(contents.len() as u64);
                archive.append_data(&mut header, format!("{name}/1.png"), &contents[..]).unwrap();
            });
            assert!(message.contains("rename its folder") && message.len() < 300, "{message}");
            assert!(!message.contains('\u{1b}'), "{message}");
        }
    }
}
