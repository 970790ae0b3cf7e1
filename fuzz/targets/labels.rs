//! Bytes as a table of labels for two images, and lines of them as paths of images in an archive.

#![no_main]

use std::fs;
use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use kiln_data::{LabelTable, LoadOptions, Source, load};
use libfuzzer_sys::fuzz_target;

/// Paths of a table's lines that become members of an archive.
const MOST_PATHS: usize = 50;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut png = Cursor::new(vec![]);
    RgbImage::from_pixel(2, 2, Rgb([9, 99, 200])).write_to(&mut png, ImageFormat::Png).expect("a small picture");
    let photos = folder.path().join("photos");
    fs::create_dir(&photos).and_then(|()| fs::write(photos.join("1.png"), png.get_ref())).expect("a file");
    fs::write(photos.join("2.png"), png.get_ref()).expect("a file");
    let table = folder.path().join("labels.csv");
    fs::write(&table, data).expect("a file");
    let labels = Some(LabelTable { path: table, columns: None });
    let options = LoadOptions { source: Source::Folder(photos), labels, image_size: Some(2), ..LoadOptions::default() };
    let _ = load(&options, &mut |_| {});

    let mut archive = tar::Builder::new(vec![]);
    for path in data.split(|byte| *byte == b'\n').take(MOST_PATHS).filter(|path| path.len() < 90) {
        let mut header = tar::Header::new_old();
        header.set_size(png.get_ref().len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.set_cksum();
        archive.append(&header, &png.get_ref()[..]).expect("memory");
    }
    let packed = folder.path().join("photos.tar");
    fs::write(&packed, archive.into_inner().expect("memory")).expect("a file");
    let options = LoadOptions { source: Source::Archive(packed), image_size: Some(2), ..LoadOptions::default() };
    if let Ok(loaded) = load(&options, &mut |_| {}) {
        let dataset = loaded.dataset;
        assert!(dataset.train.labels.iter().all(|label| (*label as usize) < dataset.classes.len()));
    }
});
