//! Loads CIFAR-10 from image files if there is a copy: set `KILN_CIFAR10_FOLDER` to a folder or `.tar.gz` with
//! `train/<class>/` and `test/<class>/`.

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use kiln_data::{Affine, Augment, Augmentation, Color, LoadOptions, Mix, Source, cifar::CIFAR10, fill_batch, load};

#[test]
fn all_of_cifar10_decodes_in_seconds() {
    let Some(path) = std::env::var_os("KILN_CIFAR10_FOLDER") else {
        // Written directly to stderr, because the test harness captures output.
        let _ = writeln!(std::io::stderr(), "skipped: KILN_CIFAR10_FOLDER is not set");
        return;
    };
    let source = Source::from_path(Path::new(&path)).unwrap();
    let start = Instant::now();
    let options = LoadOptions { source, ..LoadOptions::default() };
    let dataset = load(&options, &mut |_| {}).unwrap().dataset;
    let decoding = start.elapsed();

    assert_eq!(dataset.classes, CIFAR10.classes);
    assert!(dataset.report.is_clean(), "{}", dataset.report);
    let test = dataset.test.as_ref().unwrap();
    assert_eq!((dataset.train.len(), test.len()), (50_000, 10_000));
    for class in 0..10 {
        let count = |labels: &[u32]| labels.iter().filter(|&&label| label == class).count();
        assert_eq!((count(&dataset.train.labels), count(&test.labels)), (5000, 1000));
    }
    assert!(dataset.train.labels.is_sorted());
    for channel in 0..3 {
        assert!((dataset.mean[channel] - CIFAR10.mean[channel]).abs() < 0.01, "{:?}", dataset.mean);
        assert!((dataset.std[channel] - CIFAR10.std[channel]).abs() < 0.01, "{:?}", dataset.std);
    }

    let everything = Augment {
        cutout: 8,
        affine: Affine { chance: 1.0, rotation: 15.0, translation: 0.1, scale: 0.1, shear: 5.0 },
        color: Color { brightness: 0.2, contrast: 0.2, saturation: 0.2 },
        mix: Mix { mixup_chance: 0.5, cutmix_chance: 0.5, ..Mix::default() },
        ..Augment::default()
    };
    let indices: Vec<u32> = (0..50_000).collect();
    let mut batch = Vec::new();
    let [an_image, at_most] = [Augment::default(), everything].map(|augment| {
        let start = Instant::now();
        for (epoch, batch_indices) in (0..).zip(indices.chunks(512)) {
            let augmentation = Augmentation { augment: &augment, seed: 0, epoch, partners: &indices };
            let (mean, std) = (dataset.mean, dataset.std);
            fill_batch(&dataset.train, batch_indices, Some(&augmentation), mean, std, &mut batch).unwrap();
        }
        start.elapsed() / 50_000
    });
    let _ = writeln!(
        std::io::stderr(),
        "decoded 60,000 images in {decoding:.2?}; batches take {an_image:.2?} per image with crop and flip, \
         {at_most:.2?} with every augmentation; digest {}",
        dataset.digest()
    );
    // Generous, for busy machines.
    assert!(decoding < Duration::from_secs(60), "{decoding:?}");
    assert!(an_image < Duration::from_micros(100), "{an_image:?}");
}
