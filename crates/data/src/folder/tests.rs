use std::fs::{self, File};
use std::io::{Cursor, Read, Write};

use flate2::{
    Compression, Crc,
    write::{DeflateEncoder, GzEncoder},
};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

use super::{archive::MOST_USELESS, assemble::arrange, *};
use crate::{Aside, ImageSet, LabelTable};

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

fn wish(size: usize) -> Wish<'static> {
    Wish { size, ..Wish::default() }
}

fn load(root: &TempDir) -> Result<Dataset, DataError> {
    load_folder(root.path(), &wish(8), &mut |_| {})
}

/// First pixel of each image.
fn greys(set: &ImageSet) -> Vec<u8> {
    (0..set.len()).map(|index| set.image(index).unwrap()[0]).collect()
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
    assert_eq!((dataset.report.files, dataset.report.aside.count(Aside::NotAnImage)), (6, 1));
    assert_eq!(dataset.report.aside.count(Aside::Leftover), 1, ".DS_Store");
    assert!(dataset.report.arrangement.ends_with("train/, test/") || dataset.report.arrangement.contains("wrapper/"));
    assert!((dataset.mean[0] - 2.5 / 255.0).abs() < 1e-6, "of train only: {:?}", dataset.mean);
}

#[test]
fn classes_are_alphabetical_and_images_in_the_order_of_their_paths() {
    let root = folder(&two_parts());
    let mut last = None;
    let dataset = load_folder(root.path(), &wish(8), &mut |progress| last = Some(progress)).unwrap();
    check_two_parts(&dataset);
    assert_eq!(last, Some(LoadProgress::Decoding { done: 6, total: Some(6) }));
}

/// A zip of these files, every second one deflated.
fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (vec![], vec![]);
    for (index, (name, contents)) in files.iter().enumerate() {
        let packed = match index % 2 {
            0 => contents.clone(),
            _ => {
                let mut deflate = DeflateEncoder::new(vec![], Compression::fast());
                deflate.write_all(contents).unwrap();
                deflate.finish().unwrap()
            }
        };
        let mut sum = Crc::new();
        sum.update(contents);
        let mut header = [20, 0, 0, 0, 8 * (index % 2) as u8, 0, 0, 0, 0, 0].to_vec();
        for field in [sum.sum(), packed.len() as u32, contents.len() as u32, name.len() as u32] {
            header.extend(field.to_le_bytes());
        }
        let at = bytes.len() as u32;
        bytes.extend([b"PK\x03\x04", &header[..], name.as_bytes(), &packed].concat());
        directory.extend([b"PK\x01\x02\x14\0", &header[..], &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat());
    }
    let (start, size, count) = (bytes.len() as u32, directory.len() as u32, files.len() as u16);
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    bytes.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    bytes.extend([0; 2]);
    bytes
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
        let packed = root.path().join("images.tar.gz");
        let plain = root.path().join("images.TAR");
        let mut tar = vec![];
        flate2::read::GzDecoder::new(File::open(&packed).unwrap()).read_to_end(&mut tar).unwrap();
        fs::write(&plain, tar).unwrap();
        let zipped = root.path().join("images.zip");
        fs::write(&zipped, zip(&files)).unwrap();
        for path in [packed, plain, zipped] {
            let dataset = load_archive(&path, &wish(8), &mut |_| {}).unwrap();
            assert_eq!(dataset.name, "images");
            assert_eq!(dataset.report.aside.count(Aside::Outside), 1);
            check_two_parts(&dataset);
            assert_eq!(dataset.digest(), load(&folder(&two_parts())).unwrap().digest(), "{}", path.display());
        }
    }
}

#[test]
fn a_damaged_zip_is_refused_and_says_so() {
    let whole = zip(&[("a/1.png", png(1)), ("b/1.png", png(2)), ("b/2.png", png(3))]);
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("images.zip");
    let refusal = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        load_archive(&path, &wish(8), &mut |_| {}).unwrap_err().to_string()
    };
    for length in [2, 30, whole.len() / 2, whole.len() - 1] {
        let message = refusal(&whole[..length]);
        assert!(message.contains("damaged") || message.contains("no images"), "{length}: {message}");
    }
    let mut changed = whole.clone();
    changed[60] ^= 1;
    assert!(refusal(&changed).contains("checksum"));
    // The central directory far away, and larger than the file.
    for at in [whole.len() - 10, whole.len() - 6] {
        let mut changed = whole.clone();
        changed[at + 3] = 0x7F;
        assert!(refusal(&changed).contains("cut off"));
    }
}

#[test]
fn a_part_to_validate_on_is_used_for_that() {
    let mut files = two_parts();
    files.extend([("VALID/cat/1.png", png(7)), ("VALID/dog/1.png", png(8)), ("VALID/dog/2.png", png(1))]);
    let mut dataset = load(&folder(&files)).unwrap();
    assert_eq!(greys(&dataset.train), [1, 2, 3, 4, 7, 8, 1]);
    assert_eq!(dataset.validation, Some(vec![4, 5, 6]));
    assert!((dataset.mean[0] - 2.5 / 255.0).abs() < 1e-6, "of the training images alone");
    let split = dataset.split(crate::Validation::Fraction(0.5), 0).unwrap();
    assert_eq!((split.train, split.validation), (vec![0, 1, 2, 3], vec![4, 5, 6]));
    assert!(
        dataset.report.notes.iter().any(|note| note.starts_with("1 of 3 validation images are also training images"))
    );
    dataset.limit(2, 0);
    assert_eq!((dataset.train.labels, dataset.validation), (vec![0, 1, 0, 1], Some(vec![2, 3])));
}

#[test]
fn a_test_part_alone_can_be_evaluated() {
    let dataset = load(&folder(&[("test/cat/1.png", png(1)), ("test/dog/1.png", png(2))])).unwrap();
    assert!(dataset.train.is_empty());
    assert_eq!((greys(dataset.test.as_ref().unwrap()), dataset.classes.len()), (vec![1, 2], 2));
}

#[test]
fn images_are_known_by_any_usual_ending_or_by_their_contents() {
    let files = [
        ("a/1.jfif", png(1)),
        ("a/2.JPE", png(2)),
        ("a/3", png(3)),
        ("b/4.download", png(4)),
        ("b/5.xml", b"<a/>".to_vec()),
    ];
    let heic = b"\0\0\0\x24ftypheic\0\0\0\0mif1".to_vec();
    let dataset = load(&folder(&[&files[..], &[("b/6.heic", heic.clone()), ("b/7", heic)]].concat())).unwrap();
    assert_eq!(greys(&dataset.train), [1, 2, 3, 4]);
    assert_eq!(dataset.report.aside.to_string(), "1 not images (b/5.xml)");
    let skipped = dataset.report.skipped_files();
    assert!(
        skipped.contains("2 of a format that is not read") && skipped.contains("HEIC images are not read"),
        "{skipped}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn folders_named_in_an_old_encoding_are_different_classes() {
    use std::os::unix::ffi::OsStringExt;

    let root = tempfile::tempdir().unwrap();
    // The same character in the encoding of other systems: dog, bird and cat in GBK.
    let names = [&b"\xb9\xb7"[..], b"\xc4\xf1", b"\xc3\xa8\xff"];
    for (name, grey) in names.iter().zip(1..) {
        let class = root.path().join("train").join(std::ffi::OsString::from_vec(name.to_vec()));
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("1.png"), png(grey)).unwrap();
    }
    let dataset = load(&root).unwrap();
    assert_eq!(dataset.classes, ["\\xb9\\xb7", "\\xc4\\xf1", "è\\xff"]);
    assert!(dataset.report.notes[0].contains("not UTF-8"), "{:?}", dataset.report.notes);

    let (_root, path) = hostile(|archive| {
        for (name, grey) in names.iter().zip(1..) {
            let contents = png(grey);
            let mut header = header(tar::EntryType::Regular, "x", contents.len() as u64);
            let path = [name, &b"/1.png"[..]].concat();
            header.as_old_mut().name[..path.len()].copy_from_slice(&path);
            header.set_cksum();
            archive.append(&header, &contents[..]).unwrap();
        }
    });
    assert_eq!(load_archive(&path, &wish(8), &mut |_| {}).unwrap().digest(), dataset.digest());
}

#[test]
fn a_table_gives_labels_to_images_in_any_folder() {
    let root = folder(&[
        ("train/0001.png", png(1)),
        ("train/0002.png", png(2)),
        ("train/more/0003.png", png(3)),
        ("train/0009.png", png(9)),
        ("test/0004.png", png(4)),
        ("test/0001.png", png(5)),
        ("labels.csv", b"id,breed\n0001,dog\n0002,cat\n0003,dog\n0004,cat\n0005,cat\n".to_vec()),
    ]);
    let table = LabelTable { path: root.path().join("labels.csv"), columns: None };
    let labels = Labels::read(&table).unwrap();
    let dataset = load_folder(root.path(), &Wish { labels: Some(&labels), ..wish(8) }, &mut |_| {}).unwrap();
    assert_eq!((&dataset.classes[..], greys(&dataset.train)), (&["cat".to_owned(), "dog".into()][..], vec![1, 2, 3]));
    assert_eq!((dataset.train.labels, greys(dataset.test.as_ref().unwrap())), (vec![1, 0, 1], vec![4]));
    assert_eq!(dataset.report.aside.count(Aside::NotInTable), 2);
    assert!(dataset.report.notes.iter().any(|note| note.contains("1 of 5 rows")), "{:?}", dataset.report.notes);
    let other = Labels::read(&table).unwrap();
    let elsewhere = folder(&[("a/x.png", png(1))]);
    let message =
        load_folder(elsewhere.path(), &Wish { labels: Some(&other), ..wish(8) }, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("whose first is \"0001\""), "{message}");
}

#[test]
fn what_looks_like_a_mistake_is_said() {
    let mut files: Vec<(String, Vec<u8>)> = (0..30).map(|at| (format!("train/cat/{at}.png"), png(at))).collect();
    files.push(("train/dog/1.png".into(), png(100)));
    files.push(("train/dog/2.png".into(), png(3)));
    files.push(("test/cat/1.png".into(), png(7)));
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    let notes = load(&folder(&files)).unwrap().report.notes;
    for expected in [
        "the test part has no images of dog",
        "the classes are not balanced: cat 30, dog 2",
        "few images to train on: dog 2",
        "1 training images are also there with another label, such as cat and dog",
        "1 of 1 test images are also training images, pixel by pixel",
    ] {
        assert!(notes.iter().any(|note| note == expected), "{expected}: {notes:?}");
    }
}

#[test]
fn without_a_train_folder_the_classes_are_at_the_top() {
    let files = [("b/1.png", png(2)), ("a/1.png", png(1)), ("a/2.png", png(3)), ("README", vec![])];
    let dataset = load(&folder(&files)).unwrap();
    assert_eq!((dataset.classes, dataset.train.labels), (vec!["a".into(), "b".into()], vec![0, 0, 1]));
    assert!(dataset.test.is_none());
    let root = archive(&files);
    let dataset = load_archive(&root.path().join("images.tar.gz"), &wish(8), &mut |_| {}).unwrap();
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
    let line = dataset.report.skipped_files();
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
fn a_folder_without_images_or_with_one_class_is_explained() {
    let message = load(&folder(&[("a/b.txt", vec![])])).unwrap_err().to_string();
    assert!(message.starts_with("no images found in "), "{message}");
    assert!(message.contains("train/<class>/*.jpg") && message.contains(".webp"), "{message}");
    let message = load(&folder(&[("a/1.png", png(1))])).unwrap_err().to_string();
    assert!(message.contains("only one class, `a`"), "{message}");
}

#[test]
fn an_image_size_beyond_reason_is_refused() {
    for size in [0, MAX_IMAGE_SIZE + 1] {
        let error = load_folder(Path::new("nowhere"), &wish(size), &mut |_| {}).unwrap_err();
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
    load_archive(&path, &wish(8), &mut |_| {}).unwrap_err().to_string()
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
        let dataset = load_archive(&path, &wish(8), &mut |_| {}).unwrap();
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
    let dataset = load_archive(&path, &wish(8), &mut |_| {}).unwrap();
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
    let dataset = load_archive(&path, &wish(8), &mut |_| {}).unwrap();
    assert_eq!((dataset.classes, greys(&dataset.train)), (vec!["a".into(), "b".into()], vec![1, 2]));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "nothing is unpacked");
}

#[test]
fn an_archive_of_nothing_but_useless_files_is_given_up() {
    let message = refusal(|archive| {
        let headers = ["a/1.png", "b/1.png"].map(|name| header(tar::EntryType::Regular, name, 0));
        let files = (0..MOST_USELESS + 2 * CHUNK_FILES).map(|index| &headers[index % 2]);
        files.for_each(|header| archive.append(header, std::io::empty()).unwrap());
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
