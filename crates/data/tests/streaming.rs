//! Sets whose images are read whenever they are asked for.

use std::{fs, path::Path};

use image::{Rgb, RgbImage};
use kiln_data::{
    Augment, Augmentation, Corruption, DataError, Dataset, Flip, ImageSet, Interpolation, LoadOptions, Preprocessing,
    ResizedCrop, Source, channel_statistics, corrupt, fill_batch, load, prefetch, usual_image_size,
};
use tempfile::TempDir;

/// A picture that is different everywhere.
fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x * 3 + seed, y * 5 + seed, x ^ y ^ seed].map(|value| value as u8)))
}

/// Two classes of twelve pictures of several sizes, with parts.
fn pictures() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 8), ("val", 2), ("test", 2)] {
        for (class, name) in (0..).zip(["cat", "dog"]) {
            let folder = root.path().join(part).join(name);
            fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let seed = class * 100 + index + part.len() as u32 * 37;
                picture(seed, 60 + 7 * index, 90 - 5 * index).save(folder.join(format!("{index}.png"))).unwrap();
            }
        }
    }
    root
}

fn open(path: &Path, originals: bool) -> Dataset {
    let preprocessing = Some(Preprocessing { resize: 36, interpolation: Interpolation::Bilinear });
    let source = Source::from_path(path).unwrap();
    let options = LoadOptions { source, image_size: Some(32), preprocessing, originals, ..LoadOptions::default() };
    load(&options, &mut |_| {}).unwrap().dataset
}

fn images(set: &ImageSet) -> Vec<Vec<u8>> {
    (0..set.len()).map(|index| set.image(index).unwrap().into_owned()).collect()
}

/// Random crops of the originals, and what else there is.
fn augment() -> Augment {
    let resized_crop = ResizedCrop { min_area: 0.2, ..ResizedCrop::default() };
    let mut augment = Augment { resized_crop, crop_padding: 0, ..Augment::default() };
    augment.mix.mixup_chance = 0.5;
    augment
}

fn batch(data: &Dataset, indices: &[u32], augment: &Augment, epoch: u64) -> Vec<f32> {
    let partners: Vec<u32> = (0..data.train.len() as u32).collect();
    let augmentation = Augmentation { augment, seed: 3, epoch, partners: &partners };
    let mut out = vec![];
    fill_batch(&data.train, indices, Some(&augmentation), data.mean, data.std, &mut out).unwrap();
    out
}

#[test]
fn a_stream_has_the_images_of_a_set_in_memory() {
    let root = pictures();
    let [memory, stream] = [false, true].map(|originals| open(root.path(), originals));
    assert!(stream.is_streamed() && stream.report.is_streamed && !memory.is_streamed());
    for (a, b) in [(&memory.train, &stream.train), (memory.test.as_ref().unwrap(), stream.test.as_ref().unwrap())] {
        assert_eq!(a.labels, b.labels);
        assert_eq!(images(a), images(b));
        let some = [3, 0, 2];
        assert_eq!(images(&a.select(&some)), images(&b.select(&some)));
        let [noisy_a, noisy_b] = [a, b].map(|set| images(&corrupt(set, Corruption::GaussianNoise, 3, 1)));
        assert_eq!(noisy_a, noisy_b);
        assert_ne!(noisy_a, images(a));
        assert_eq!(channel_statistics(a).unwrap(), channel_statistics(b).unwrap());
    }
    assert_eq!((memory.mean, memory.std), (stream.mean, stream.std));
    assert_eq!(memory.validation, stream.validation);
    // Either knows the other's digest as its own, but for a stream that would have to read all pixels.
    let (of_memory, of_stream) = (memory.digest(), stream.digest());
    assert_ne!(of_memory, of_stream);
    assert!(memory.has_digest(&of_memory) && memory.has_digest(&of_stream) && stream.has_digest(&of_stream));
    let mut fewer = stream.clone();
    fewer.limit(4, 0);
    assert!(!fewer.has_digest(&of_stream));
    assert_eq!(fewer.train.len(), 6);
}

#[test]
fn an_archive_streams_the_same_as_its_folder() {
    let root = pictures();
    let file = root.path().join("pictures.tar");
    let mut archive = tar::Builder::new(fs::File::create(&file).unwrap());
    for part in ["test", "train", "val"] {
        archive.append_dir_all(part, root.path().join(part)).unwrap();
    }
    archive.finish().unwrap();
    let (folder, archive) = (open(root.path(), true), open(&file, true));
    assert_eq!(archive.digest(), folder.digest());
    let all: Vec<u32> = (0..20).collect();
    assert_eq!(batch(&folder, &all, &augment(), 0), batch(&archive, &all, &augment(), 0));
}

#[test]
fn crops_are_of_the_originals_and_depend_on_seed_epoch_and_index_alone() {
    let root = pictures();
    let [memory, stream] = [false, true].map(|originals| open(root.path(), originals));
    let augment = augment();
    let all: Vec<u32> = (0..20).collect();
    let first = batch(&stream, &all, &augment, 0);
    assert_ne!(first, batch(&stream, &all, &augment, 1));
    assert_ne!(first, batch(&memory, &all, &augment, 0), "of the originals");
    // Alone, in another order, and read in the background before.
    let len = stream.train.image_len();
    let partners = all.clone();
    let augmentation = Augmentation { augment: &augment, seed: 3, epoch: 0, partners: &partners };
    for index in [7, 0, 19, 7] {
        prefetch(&stream.train, &[index, 4], Some(&augmentation));
        assert_eq!(batch(&stream, &[index], &augment, 0), first[index as usize * len..][..len], "{index}");
    }
    // Without crops a stream is augmented as a set in memory is.
    let plain = Augment { resized_crop: ResizedCrop::default(), flip: Flip::Alternating, ..augment };
    assert_eq!(batch(&memory, &all, &plain, 5), batch(&stream, &all, &plain, 5));
}

#[test]
fn a_file_that_is_gone_or_another_one_is_an_error_that_names_it() {
    let root = pictures();
    let stream = open(root.path(), true);
    let file = root.path().join("train/cat/3.png");
    let error = |stream: &Dataset| {
        let found: Result<Vec<_>, DataError> = (0..16).map(|index| stream.train.image(index)).collect();
        found.unwrap_err().to_string()
    };
    fs::copy(root.path().join("train/cat/4.png"), &file).unwrap();
    let changed = error(&stream);
    assert!(changed.contains("3.png has changed since the data was loaded"), "{changed}");
    fs::remove_file(&file).unwrap();
    let gone = error(&stream);
    assert!(gone.contains("3.png could be read when the data was loaded"), "{gone}");
    let mut out = vec![];
    let all: Vec<u32> = (0..16).collect();
    prefetch(&stream.train, &all, None);
    assert!(fill_batch(&stream.train, &all, None, stream.mean, stream.std, &mut out).is_err());
}

#[test]
fn the_usual_size_is_the_largest_that_most_pictures_have() {
    for (side, expected) in [(300, 224), (224, 224), (223, 128), (70, 64), (63, 32), (8, 32)] {
        let root = tempfile::tempdir().unwrap();
        for (index, longer) in (0..5).zip([0, 10, 20, 30, 900]) {
            // One small picture among large ones changes nothing.
            let shorter = if index == 0 { 4 } else { side };
            let folder = root.path().join(["a", "b"][index % 2]);
            fs::create_dir_all(&folder).unwrap();
            picture(0, shorter + longer, shorter).save(folder.join(format!("{index}.png"))).unwrap();
        }
        let source = Source::from_path(root.path()).unwrap();
        assert_eq!(usual_image_size(&source).unwrap(), expected, "{side}");
    }
    assert_eq!(usual_image_size(&Source::Synthetic).unwrap(), 32);
}
