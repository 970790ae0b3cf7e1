//! What the browser tests (`crates/web/tests`) compare with: the native answers to two pictures.
//!
//! `KILN_WRITE_FIXTURES=1 cargo test --release --workspace page_fixture` draws the pictures and stores the answers anew.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use image::{DynamicImage, ImageFormat, RgbImage};
use kiln_data::{decode_image, normalize, synthetic_image};
use kiln_model::{Bundle, Metadata, Predictor};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A picture that is neither square nor of the network's size.
fn draw(format: ImageFormat) -> Vec<u8> {
    const SIZE: usize = 97;
    let planar = synthetic_image(3, 1, SIZE);
    let value = |channel: usize, x: u32, y: u32| planar[(channel * SIZE + y as usize) * SIZE + x as usize];
    let image = RgbImage::from_fn(97, 71, |x, y| image::Rgb([0, 1, 2].map(|channel| value(channel, x, y))));
    let mut bytes = Cursor::new(vec![]);
    DynamicImage::from(image).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn page_fixture_holds_the_native_answers() {
    let folder = root().join("crates/web/tests/fixture");
    let bundle = Bundle::from_bytes(&fs::read(root().join("web/models/quick.safetensors")).unwrap()).unwrap();
    let size = bundle.metadata.image_size;
    let model = bundle.model(&Device::flex()).unwrap();
    let mut predictor = Predictor::new(bundle.clone()).unwrap();
    for (name, format) in [("picture.png", ImageFormat::Png), ("picture.jpg", ImageFormat::Jpeg)] {
        let (picture, answer) = (folder.join(name), folder.join(name).with_extension(format!("{}.json", &name[8..])));
        let write = std::env::var_os("KILN_WRITE_FIXTURES").is_some();
        if write {
            fs::write(&picture, draw(format)).unwrap();
        }
        let file = fs::read(&picture).unwrap();
        let Metadata { mean, std, .. } = bundle.metadata;
        let pixels = normalize(&decode_image(&file, size).unwrap(), mean, std);
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, size, size]), &Device::flex());
        let logits = model.forward(images).into_data().try_into_vec::<f32>().unwrap();
        if write {
            fs::write(&answer, serde_json::to_string_pretty(&logits).unwrap() + "\n").unwrap();
        }
        let stored: Vec<f32> = serde_json::from_str(&fs::read_to_string(&answer).unwrap()).unwrap();
        let folded = predictor.classify_file(&picture).unwrap().logits;
        for ((logit, stored), folded) in logits.iter().zip(&stored).zip(&folded) {
            assert!((logit - stored).abs() < 1e-4, "{name}: {logits:?} where {stored:?} was stored");
            assert!((logit - folded).abs() < 1e-4, "{name}: {logits:?}, folded {folded:?}");
        }
        assert_eq!((stored.len(), folded.len()), (logits.len(), logits.len()));
    }
}
