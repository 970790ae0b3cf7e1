//! Writes small valid files for each target to start from: `seeds FOLDER` makes `FOLDER/<target>/*`.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use kiln_convert::{OnnxOptions, to_onnx, to_pytorch};
use kiln_fuzz::{bundle, checkpoint, epoch, transformer};
use kiln_model::NormKind;
use kiln_model::container::Storage;
use kiln_report::History;
// Everything here is compiled with instrumentation, whose run-time part this brings.
use kiln_train::{
    Corrupted, EvaluationReport, Intervals, LrFind, LrPoint, Metrics, Predictions, Temperature, TemperatureScaling,
};
use libfuzzer_sys as _;

#[path = "../../tests/bombs/mod.rs"]
#[allow(dead_code, reason = "the tests make more of them")]
mod bombs;

#[path = "../../tests/weights/mod.rs"]
#[allow(dead_code, reason = "the tests make more of them")]
mod weights;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("name the folder to write to: seeds FOLDER")?);
    bundles(&folder.join("bundle"))?;
    let target = folder.join("checkpoint");
    write(&target, "whole", &checkpoint().to_bytes()?)?;
    write(&target, "header", &serde_json::to_vec(&checkpoint().header)?)?;
    for (name, text) in kiln_train::recipe::BUILT_IN {
        write(&folder.join("recipe"), name, text.as_bytes())?;
    }
    write(&folder.join("recipe"), "overrides", b"\0optimizer.lr=1\0model.width=2\0schedule.milestones=[0.1, 0.2]")?;
    foreign(&folder)?;
    images(&folder.join("image"))?;
    archives(&folder.join("archive"))?;
    write(&folder.join("cifar"), "batch", &batch())?;
    tables(&folder.join("labels"))?;
    runs(&folder.join("run"))
}

type Written = Result<(), Box<dyn std::error::Error>>;

fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name), bytes)
}

fn bundles(folder: &Path) -> Written {
    for (bundle, choice) in [bundle(NormKind::Batch), bundle(NormKind::Group), transformer()].into_iter().zip(0..) {
        for (storage, index) in [(Storage::F32, 0_u8), (Storage::F16, 1), (Storage::Int8, 2)] {
            let bundle = bundle.clone().stored_as(storage);
            let name = format!("{choice}-{}", storage.name());
            write(folder, &name, &bundle.to_bytes()?)?;
            let metadata = [&[choice + 3 * index][..], &serde_json::to_vec(&bundle.metadata)?].concat();
            write(folder, &format!("{name}-metadata"), &metadata)?;
        }
    }
    Ok(())
}

/// Files of other programs.
fn foreign(folder: &Path) -> Written {
    let tensors = bundle(NormKind::Batch).metadata.architecture.tensors();
    let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let target = folder.join("checkpoint-file");
    write(&target, "zip", &weights::state_dict(&tensors))?;
    write(&target, "wrapped", &weights::wrapped("state_dict", &tensors))?;
    write(&target, "legacy", &weights::legacy(&tensors))?;
    write(&target, "pickle", &weights::Pickle::new().state_dict(&tensors[..2]).op(b".").0)?;
    write(&target, "safetensors", &to_pytorch(&bundle(NormKind::Batch))?)?;
    for unfolded in [false, true] {
        let model = to_onnx(&bundle(NormKind::Batch), OnnxOptions { unfolded, softmax: unfolded })?;
        write(&folder.join("onnx"), &format!("unfolded-{unfolded}"), &model)?;
    }
    write(&folder.join("onnx"), "transformer", &to_onnx(&transformer(), OnnxOptions::default())?)?;
    Ok(write(&folder.join("onnx"), "group-norm", &to_onnx(&bundle(NormKind::Group), OnnxOptions::default())?)?)
}

fn images(folder: &Path) -> Written {
    let photo = RgbImage::from_fn(19, 13, |x, y| Rgb([x * 11, y * 17, x * y].map(|value| value as u8)));
    let photo = DynamicImage::from(photo);
    let mut kinds =
        vec![("photo", photo.clone()), ("grey", photo.to_luma8().into()), ("alpha", photo.to_rgba8().into())];
    kinds.push(("deep", photo.to_rgba16().into()));
    for (name, picture) in kinds {
        for (format, ending) in [
            (ImageFormat::Jpeg, "jpg"),
            (ImageFormat::Png, "png"),
            (ImageFormat::Bmp, "bmp"),
            (ImageFormat::WebP, "webp"),
            (ImageFormat::Gif, "gif"),
            (ImageFormat::Tiff, "tif"),
            (ImageFormat::Pnm, "ppm"),
            (ImageFormat::Tga, "tga"),
            (ImageFormat::Ico, "ico"),
            (ImageFormat::Qoi, "qoi"),
        ] {
            let mut bytes = Cursor::new(vec![]);
            // JPEG has no alpha, and only PNG has 16 bits.
            if picture.write_to(&mut bytes, format).is_ok() {
                write(folder, &format!("{name}.{ending}"), bytes.get_ref())?;
            }
        }
    }
    // What these encoders do not write.
    for (name, bytes) in [
        ("baseline.jpg", bombs::jpeg([24, 17], 3, [2, 2], false)),
        ("progressive.jpg", bombs::jpeg([24, 17], 3, [2, 1], true)),
        ("cmyk.jpg", bombs::jpeg([24, 17], 4, [1, 1], false)),
        ("profile.png", bombs::png_profile(1000)),
        ("animated.gif", bombs::gif([20, 20], [20, 16], 3)),
        ("lossy.webp", bombs::webp_lossy([40, 24])),
        ("lossless.webp", bombs::webp_lossless([40, 24])),
        ("animated.webp", bombs::webp_animation([20, 20], 2)),
        ("codes.webp", bombs::webp_codes(3)),
        ("lies.webp", bombs::webp_that_lies([40, 24])),
        ("claims.webp", bombs::webp_with_a_claim()),
    ] {
        write(folder, name, &bytes)?;
    }
    Ok(())
}

fn archives(folder: &Path) -> Written {
    let mut png = Cursor::new(vec![]);
    RgbImage::from_pixel(4, 4, Rgb([9, 99, 200])).write_to(&mut png, ImageFormat::Png)?;
    let png = png.into_inner();
    let record = vec![1; 3073];
    let long = format!("train/cat/{}.png", "long".repeat(40));
    let layouts: [(&str, Vec<(&str, &[u8])>); 3] = [
        (
            "images",
            vec![
                ("train/cat/1.png", &png),
                ("train/dog/1.png", &png),
                ("test/cat/1.png", &png),
                ("test/dog/1.png", &png),
            ],
        ),
        ("flat", vec![("cat/1.png", &png), ("dog/1.png", &png), ("README", b"text"), (&long, &png)]),
        ("cifar", (1..=5).map(|_| "").zip(std::iter::repeat(&record[..])).collect()),
    ];
    for (name, members) in layouts {
        let mut builder = tar::Builder::new(vec![]);
        for (index, (path, contents)) in members.into_iter().enumerate() {
            let batch = format!("cifar-10-batches-bin/data_batch_{}.bin", index + 1);
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, if path.is_empty() { &batch } else { path }, contents)?;
        }
        if name == "cifar" {
            let mut header = tar::Header::new_ustar();
            header.set_size(record.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, "cifar-10-batches-bin/test_batch.bin", &record[..])?;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, "link", "/etc/passwd")?;
        }
        write(folder, name, &builder.into_inner()?)?;
    }
    Ok(write(folder, "zip", &zip(&[("cat/1.png", &png), ("dog/1.png", &png)]))?)
}

/// A zip of files as they are.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (vec![], vec![]);
    for (name, contents) in files {
        let mut sum = flate2::Crc::new();
        sum.update(contents);
        let length = (contents.len() as u32).to_le_bytes();
        let numbers = [sum.sum().to_le_bytes(), length, length, (name.len() as u32).to_le_bytes()].concat();
        let header = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &numbers].concat();
        let at = (bytes.len() as u32).to_le_bytes();
        directory.extend([b"PK\x01\x02\x14\0", &header[..], &[0; 10], &at, name.as_bytes()].concat());
        bytes.extend([b"PK\x03\x04", &header[..], name.as_bytes(), contents].concat());
    }
    let count = (files.len() as u16).to_le_bytes();
    let [size, start] = [directory.len(), bytes.len()].map(|number| (number as u32).to_le_bytes());
    bytes.extend(directory);
    bytes.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &size, &start, &[0, 0]].concat());
    bytes
}

/// A pickle of one image for Python, as NumPy's protocol 2 has it.
fn batch() -> Vec<u8> {
    let array = b"U\x04datacnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01K\x01M\0\x0c\x86";
    let kind =
        b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T\0\x0c\0\0";
    let labels = b"tbU\x06labels](K\x03eU\x0bfine_labels](K\x03eU\x0dcoarse_labels](K\x03eu.";
    [&b"\x80\x02}q\x01("[..], array, kind, &[7; 3072], labels].concat()
}

fn tables(folder: &Path) -> Written {
    write(folder, "ids", b"id,breed\n1,cat\n2,\"dog, large\"\n")?;
    write(folder, "files", b"1.png;cat\n2.png;dog\n")?;
    write(folder, "paths", b"train/cat/1.png\ntrain/dog/1.png\nval/cat/2.png\nTest/cat/3.png\n@eaDir/4.png\n")?;
    Ok(write(folder, "flat", b"a/cat/train/1.png\na/dog/test/2.png\n\xb9\xb7/1.png\n./x\n")?)
}

fn runs(folder: &Path) -> Written {
    let line = |at: usize| {
        let mut epoch = epoch();
        (epoch.epoch, epoch.step) = (at, at * 4);
        epoch
    };
    let history: Vec<_> = (1..4).map(line).collect();
    assert!(!History::of(&history).sentences(&kiln_fuzz::recipe()).is_empty());
    let metrics: Vec<String> = history.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let predictions = Predictions {
        classes: vec!["cat".into(), "dog".into(), "fox".into()],
        labels: (0..12).map(|at| at % 3).collect(),
        logits: (0..36).map(|at| (at as f32).sin()).collect(),
        features: vec![],
    };
    let scaling = TemperatureScaling::fit(&predictions, &predictions);
    let evaluation = EvaluationReport {
        model: "model.safetensors".into(),
        dataset: "synthetic".into(),
        split: "test".into(),
        metrics: Metrics::of(&predictions)?,
        intervals: Intervals::of(&predictions, 0)?,
        flip_tta: Some(Metrics::of(&predictions)?),
        temperature: scaling.map_or_else(|error| Temperature::Skipped(error.to_string()), Temperature::Fitted),
        corruptions: vec![Corrupted { corruption: "blur".into(), severity: 1, accuracy: 0.5, loss: 1.0 }],
    };
    let points = (0..5).map(|at| f64::from(at)).map(|at| LrPoint { learning_rate: at + 0.1, loss: at, smoothed: at });
    let lr_find = LrFind { points: points.collect(), steepest: Some(0.1), tenth_of_minimum: None };
    let texts = [metrics.join("\n"), serde_json::to_string(&evaluation)?, serde_json::to_string(&lr_find)?];
    write(folder, "metrics", texts[0].as_bytes())?;
    Ok(write(folder, "evaluated", texts.join("\0").as_bytes())?)
}
