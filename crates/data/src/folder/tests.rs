use std::fs::File;
use std::io::{Cursor, Read, Write};

use flate2::{Compression, write::GzEncoder};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

use super::{archive::MOST_USELESS, *};

/// A PNG of one color.
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
    assert_eq!(last, Some(LoadProgress::Decoding { done: 6, total: Some(6) }));
}

#[test]
fn an_archive_gives_the_same_as_its_folder() {
    for prefix in ["", "./", "wrapper/"] {
        let mut files: Vec<_> = two_parts();
        // Belongs to no class, because there is a train/.
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
    let root = folder(&[("a/1.png", png(1)), ("a/2.png", b"text".to_vec()), ("b/1.png", png(2)), ("b/2.png", half)]);
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", root.path().join("b/3.png")).unwrap();
    let dataset = load(&root).unwrap();
    assert_eq!(dataset.train.labels, [0, 1]);
    let line = dataset.report.to_string();
    if cfg!(unix) {
        assert!(line.starts_with("skipped 3 of 5 files: 1 not images, 1 truncated, 1 unreadable; first: "), "{line}");
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
    assert!(message.contains("only one class, `a`"), "{message}");
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
    let files: Vec<_> = (0..40u8).map(|i| (format!("{}/{i}.png", ["a", "b"][usize::from(i) % 2]), png(i))).collect();
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    let root = folder(&files);
    let digests = [1, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| load(&root).unwrap().digest())
    });
    assert_eq!(digests[0], digests[1]);
}

/// A `.tar.gz` of the members that `build` makes.
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
    // A name of one gigabyte in an archive of four megabytes.
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
    assert!(extended(b"19 size=1000000000\n").contains("states its size twice"));
    assert!(extended(b"22 GNU.sparse.major=1\n").contains("sparse file"));
    let sparse = refusal(|archive| {
        archive.append(&header(tar::EntryType::GNUSparse, "a/1.png", 0), std::io::empty()).unwrap();
    });
    assert!(sparse.contains("sparse file"), "{sparse}");
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
    assert!(dataset.report.to_string().contains("contains it twice"), "{}", dataset.report);
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

#[test]
fn images_are_arranged_in_place() {
    let mut pixels = vec![0, 0, 1, 1, 2, 2, 3, 3, 4, 4];
    arrange(&mut pixels, 2, &[3, 0, 4, 2]);
    assert_eq!(pixels, [3, 3, 0, 0, 4, 4, 2, 2]);
    arrange(&mut pixels, 2, &[0, 1]);
    assert_eq!(pixels, [3, 3, 0, 0]);
    arrange(&mut pixels, 2, &[]);
    assert!(pixels.is_empty());
}
