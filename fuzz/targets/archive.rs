//! Bytes as a tar, packed with gzip, first as CIFAR-10's archive and then as one of images, and as a zip. Nothing may appear
//! beside the folder that they are unpacked to.

#![no_main]

use std::fs::{self, File};
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use kiln_data::cifar::{CIFAR10, CIFAR100};
use kiln_data::{LoadOptions, Source, load, unpack_cifar};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = folder.path().join("archive.tar.gz");
    let mut packed = GzEncoder::new(File::create(&archive).expect("a file"), Compression::fast());
    packed.write_all(data).and_then(|()| packed.finish().map(drop)).expect("a file of a few kilobytes");

    let unpacked = folder.path().join("unpacked");
    for (cifar, name) in [(&CIFAR10, CIFAR10.folder), (&CIFAR100, CIFAR100.folder)] {
        let is_made = unpack_cifar(cifar, &archive, &unpacked).is_ok();
        let made: Vec<_> = fs::read_dir(&unpacked).expect("made before").flatten().map(|e| e.file_name()).collect();
        assert!(made.is_empty() || is_made && made.iter().all(|found| found == name), "{made:?}");
        let _ = fs::remove_dir_all(unpacked.join(name));
    }
    let zip = folder.path().join("archive.zip");
    fs::write(&zip, data).expect("a file of a few kilobytes");
    for path in [&archive, &zip] {
        if let Ok(source) = Source::from_path(path) {
            let options = LoadOptions { source, image_size: Some(4), offline: true, ..LoadOptions::default() };
            let _ = load(&options, &mut |_| {});
        }
    }
    let mut beside: Vec<_> = fs::read_dir(&folder).expect("still there").flatten().map(|e| e.file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["archive.tar.gz", "archive.zip", "unpacked"]);
});
