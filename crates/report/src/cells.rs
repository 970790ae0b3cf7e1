//! The images in the cells of a confusion matrix, for the page's script (`report.js`).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;
use image::imageops::{FilterType, resize};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use kiln_train::{Metrics, Predictions};
use maud::{Markup, html};
use serde::Serialize;

use crate::quality::Grid;

/// Larger images are reduced to this many pixels per side.
const SIDE: u32 = 64;
/// Maximum number of images in a page. For CIFAR-10 they take one megabyte as JPEG; PNG would take five.
const MOST: usize = 2000;
const MOST_PIXELS: usize = MOST * 32 * 32;
/// JPEG quality. Without chroma subsampling, its errors are not visible on 32 x 32 pixels.
const QUALITY: u8 = 90;
/// Side of a JPEG block. Images that share no block do not affect each other's colors.
const BLOCK: u32 = 8;

/// A small image in a cell of the confusion matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct CellImage {
    /// Its class and the prediction, indices into the classes.
    pub label: usize,
    pub predicted: usize,
    /// Probability of the prediction, 0..1.
    pub confidence: f64,
    /// The image, of the same size as all others.
    pub image: RgbImage,
}

impl CellImage {
    /// The image with the prediction at `index`.
    pub fn new(image: &RgbImage, predictions: &Predictions, index: usize) -> Self {
        let predicted = predictions.predicted(index);
        let confidence = predictions.probabilities(index)[predicted];
        let [width, height] = reduced(image.width(), image.height());
        let image = match [width, height] == [image.width(), image.height()] {
            true => image.clone(),
            false => resize(image, width, height, FilterType::Triangle),
        };
        Self { label: predictions.labels[index], predicted, confidence, image }
    }

    /// Maximum number of images of this size in a page.
    pub fn most(width: usize, height: usize) -> usize {
        let [width, height] = reduced(width as u32, height as u32);
        (MOST_PIXELS / (width * height).max(1) as usize).min(MOST)
    }
}

/// A size in pixels, reduced to at most [`SIDE`] with the same aspect ratio.
fn reduced(width: u32, height: u32) -> [u32; 2] {
    let longer = width.max(height);
    [width, height].map(|side| if longer > SIDE { (side * SIDE / longer).max(1) } else { side })
}

/// The data for the script. Images are in the sheet row by row, in the order of the cells and, within a cell, of their
/// confidences.
#[derive(Serialize)]
struct Explored {
    grid: Grid,
    /// Width and height of an image.
    image: [u32; 2],
    /// Distance from one image of the sheet to the next, across and down.
    step: [u32; 2],
    /// Images in a row of the sheet.
    columns: u32,
    /// For each cell that is not empty: label, prediction, number of images, then the confidences in percent of the
    /// images in the sheet.
    cells: Vec<Vec<usize>>,
}

/// The panel beside the matrix, hidden without the script. `images` are in the order of `cell_examples`.
pub(crate) fn explorer(metrics: &Metrics, grid: Grid, images: &[CellImage]) -> Markup {
    let mut cells = vec![];
    let mut rest = images;
    for (label, row) in metrics.confusion.iter().enumerate() {
        for (predicted, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
            let here = rest.iter().take_while(|image| (image.label, image.predicted) == (label, predicted)).count();
            let (shown, after) = rest.split_at(here);
            rest = after;
            let confidences = shown.iter().map(|image| (100.0 * image.confidence).round() as usize);
            cells.push([label, predicted, *count].into_iter().chain(confidences).collect());
        }
    }
    let image = images.first().map_or([0, 0], |first| first.image.dimensions().into());
    let step = image.map(|side| side.next_multiple_of(BLOCK));
    let columns = (images.len() as f64).sqrt().ceil() as u32;
    let told = Explored { grid, image, step, columns, cells };
    let told = serde_json::to_string(&told).expect("plain numbers");
    html! {
        div.cells data-matrix=(told) hidden {
            p { "Choose a cell here, or in the matrix with a click or the arrow keys." }
            div.choice {
                label { "True class " select {
                    @for (index, class) in metrics.classes.iter().enumerate() { option value=(index) { (class.class) } }
                } }
                label { "Prediction " select {} }
                label { "Zoom " input type="range" min="1" max="8" step="0.5" value="1"; }
            }
            p role="status" {}
            @if images.is_empty() {
                p { "The images are not available." }
            } @else {
                ul tabindex="0" aria-label="Images in this cell" {}
                img src=(sheet(images, step, columns)) alt="" hidden;
            }
        }
    }
}

/// All images in one sheet, as a data URI.
fn sheet(images: &[CellImage], [across, down]: [u32; 2], columns: u32) -> String {
    let rows = (images.len() as u32).div_ceil(columns);
    let whole = RgbImage::from_fn(columns * across, rows * down, |x, y| {
        let at = y / down * columns + x / across;
        // The border pixels of an image repeat up to the end of the block.
        images.get(at as usize).map_or(image::Rgb([128; 3]), |CellImage { image, .. }| {
            *image.get_pixel((x % across).min(image.width() - 1), (y % down).min(image.height() - 1))
        })
    });
    let mut bytes = vec![];
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    encoder.set_optimized_huffman_tables(true);
    let sides = [whole.width(), whole.height()].map(|side| u16::try_from(side).expect("a sheet of small images"));
    encoder.encode(whole.as_raw(), sides[0], sides[1], ColorType::Rgb).expect("writing to memory");
    format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// Four images of three classes: 0 predicted once as 0 and twice as 1, 2 predicted as 2. Their shades differ.
    fn images() -> (Metrics, Vec<CellImage>) {
        let predictions = Predictions {
            classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            labels: vec![0, 0, 0, 2],
            logits: vec![2.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0],
            features: vec![],
        };
        let shade = |index: usize| RgbImage::from_fn(10, 6, |x, y| Rgb([40 + 50 * index as u8 + (2 * x + y) as u8; 3]));
        let images = (0..4).map(|index| CellImage::new(&shade(index), &predictions, index)).collect();
        (Metrics::of(&predictions).unwrap(), images)
    }

    #[test]
    fn the_script_is_told_where_each_image_lies() {
        let (metrics, images) = images();
        let html = explorer(&metrics, Grid { left: 30.0, top: 20.0, cell: 15.0 }, &images).into_string();
        let told = html.split_once("data-matrix=\"").unwrap().1.split_once('"').unwrap().0.replace("&quot;", "\"");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["grid"], serde_json::json!({"left": 30.0, "top": 20.0, "cell": 15.0}));
        // e^2 / (e^2 + 2) and so on, in percent.
        assert_eq!(told["cells"], serde_json::json!([[0, 0, 1, 79], [0, 1, 2, 96, 91], [2, 2, 1, 58]]));

        let data = html.split_once("data:image/jpeg;base64,").unwrap().1.split_once('"').unwrap().0;
        let sheet = image::load_from_memory(&BASE64_STANDARD.decode(data).unwrap()).unwrap().to_rgb8();
        let pair = |name: &str| [0, 1].map(|at| told[name][at].as_u64().unwrap() as u32);
        let ([width, height], step, columns) = (pair("image"), pair("step"), told["columns"].as_u64().unwrap() as u32);
        for (index, expected) in images.iter().enumerate() {
            let at = [index as u32 % columns * step[0], index as u32 / columns * step[1]];
            for (x, y) in [(0, 0), (width - 1, height - 1)] {
                let found = sheet.get_pixel(at[0] + x, at[1] + y).0[0];
                let expected = expected.image.get_pixel(x, y).0[0];
                assert!(found.abs_diff(expected) <= 3, "image {index}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn large_images_are_reduced_and_fewer_of_them_taken() {
        let (_, images) = images();
        assert_eq!(images[0].image.dimensions(), (10, 6));
        let predictions = Predictions {
            classes: vec!["a".to_owned(), "b".to_owned()],
            labels: vec![0],
            logits: vec![0.0, 0.0],
            features: vec![],
        };
        let large = CellImage::new(&RgbImage::new(224, 112), &predictions, 0);
        assert_eq!((large.image.dimensions(), large.confidence), ((64, 32), 0.5));
        assert_eq!(
            [(32, 32), (8, 8), (64, 64), (224, 224)].map(|(w, h)| CellImage::most(w, h)),
            [2000, 2000, 500, 500]
        );
    }
}
