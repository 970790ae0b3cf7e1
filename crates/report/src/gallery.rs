//! Figures of images: as the network sees them, with its predictions.

use image::imageops::{FilterType, grayscale, resize};
use image::{ImageBuffer, Luma, Rgb, RgbImage};

use crate::drawing::{Drawing, Point, Text};
use crate::figure::{Figure, Panel};
use crate::theme::{BLUE, INK, LINE, RIGHT, SMALL, SOFT, Shade, WRONG, fitted, viridis};
use crate::words::count;

/// An image and the network's prediction.
#[derive(Clone, Debug)]
pub struct Shown {
    pub image: RgbImage,
    /// Its class, an index into the classes.
    pub label: usize,
    /// Softmax of the logits, `[classes]`.
    pub probabilities: Vec<f64>,
    /// Class activation map of the prediction, `[H', W']` row by row; see `InferenceNetwork::class_activation`.
    pub activation: Vec<f32>,
    /// Width W' of the activation map.
    pub activation_width: usize,
}

/// Images of one class that are predicted as another.
#[derive(Clone, Debug)]
pub struct ConfusedPair {
    pub label: usize,
    pub predicted: usize,
    /// Total number of such images.
    pub count: usize,
    pub examples: Vec<Shown>,
}

/// One augmentation, applied to some images.
#[derive(Clone, Debug)]
pub struct AugmentedRow {
    /// Name of the augmentation, such as `crop`; `original` for none, `all` for all together.
    pub name: String,
    pub images: Vec<RgbImage>,
}

/// Weights of the first convolution.
#[derive(Clone, Debug)]
pub struct Filters {
    /// `[out, 3, K, K]`
    pub weights: Vec<f32>,
    /// K
    pub kernel: usize,
}

/// Side of a shown image in CSS pixels.
const SHOWN: f64 = 76.0;

/// Images with each augmentation, one row each, as the network gets them in the first epoch.
pub fn augmented(rows: &[AugmentedRow]) -> Figure {
    const SIDE: f64 = 46.0;
    const STEP: f64 = SIDE + 4.0;
    let panel = |row: &AugmentedRow| {
        let mut drawing = Drawing::default();
        drawing.text(Text::new(&row.name, [0.0, 9.0], SMALL, SOFT));
        for (column, image) in row.images.iter().enumerate() {
            draw(&mut drawing, image, [STEP * column as f64, 20.0], SIDE);
        }
        let size = [STEP * row.images.len() as f64, 20.0 + SIDE];
        Panel { label: format!("Images with {}", row.name), size, drawing }
    };
    Figure {
        name: "augmentation",
        title: "Training images as the network sees them".to_owned(),
        caption:
            "Each augmentation of the recipe alone, applied to every image, then all of them together as in training."
                .to_owned(),
        panels: rows.iter().map(panel).collect(),
        columns: 1,
    }
}

/// Some test images and their predictions.
pub fn predictions(shown: &[Shown], classes: &[String]) -> Figure {
    let panel = |shown: &Shown| {
        let mut drawing = Drawing::default();
        draw(&mut drawing, &shown.image, [0.0, 0.0], SHOWN);
        // Leaves room for " 100 %" beside the name.
        let label = title(&mut drawing, shown, classes, SHOWN + 10.0, 62.0);
        Panel { label, size: [SHOWN + 24.0, SHOWN + 34.0], drawing }
    };
    Figure {
        name: "predictions",
        title: "Predictions on some test images".to_owned(),
        caption: "Green predictions are correct. Red ones are wrong, and the line below shows the true class."
            .to_owned(),
        panels: shown.iter().map(panel).collect(),
        columns: 8,
    }
}

/// The wrong predictions with the highest confidence.
pub fn errors(shown: &[Shown], classes: &[String]) -> Figure {
    Figure {
        name: "errors",
        title: "The most confident errors".to_owned(),
        caption: READING.to_owned(),
        panels: shown.iter().map(|shown| explained(shown, classes)).collect(),
        columns: 4,
    }
}

/// Examples of the most frequent confusions.
pub fn confused(pairs: &[ConfusedPair], classes: &[String]) -> Figure {
    let examples = pairs.iter().flat_map(|pair| &pair.examples);
    let of = |pair: &ConfusedPair| {
        let images = count(pair.count, "image", "images");
        format!("{} predicted as {} ({images})", classes[pair.label], classes[pair.predicted])
    };
    let order: Vec<String> = pairs.iter().map(of).collect();
    Figure {
        name: "confused",
        title: "The most frequent confusions".to_owned(),
        caption: format!("In order: {}. {READING}", order.join("; ")),
        panels: examples.map(|shown| explained(shown, classes)).collect(),
        columns: 4,
    }
}

const READING: &str = "Beside each image is a heat map, its class activation map (Zhou et al. 2016): the brighter an \
                       area, the more it contributes to the prediction. Below are the three most likely classes.";

/// An image, the heat map of its prediction, and its three most likely classes.
fn explained(shown: &Shown, classes: &[String]) -> Panel {
    const WIDTH: f64 = 2.0 * SHOWN + 4.0;
    let mut drawing = Drawing::default();
    let label = title(&mut drawing, shown, classes, 8.0, 110.0);
    let mut y = 36.0;
    draw(&mut drawing, &shown.image, [0.0, y], SHOWN);
    draw(&mut drawing, &activation_map(shown), [SHOWN + 4.0, y], SHOWN);
    y += SHOWN + 12.0;
    for (class, probability) in ranked(&shown.probabilities).into_iter().take(3) {
        drawing.text(Text::new(fitted(&classes[class], SMALL, 74.0), [0.0, y], SMALL, INK));
        drawing.rectangle([78.0, y - 4.0], [36.0, 8.0], LINE, 1.0);
        drawing.rectangle([78.0, y - 4.0], [36.0 * probability, 8.0], BLUE, 1.0);
        drawing.text(Text::new(format!("{:.0} %", 100.0 * probability), [119.0, y], SMALL, SOFT));
        y += 17.0;
    }
    Panel { label, size: [WIDTH, y - 5.0], drawing }
}

/// Draws the prediction at height `y` and, if it is wrong, the true class, with names no wider than `room`. Returns the
/// same text.
fn title(drawing: &mut Drawing, shown: &Shown, classes: &[String], y: f64, room: f64) -> String {
    let (answer, probability) = ranked(&shown.probabilities)[0];
    let mut lines = vec![format!("{} {:.0} %", fitted(&classes[answer], SMALL, room), 100.0 * probability)];
    let color = if answer == shown.label { RIGHT } else { WRONG };
    if answer != shown.label {
        lines.push(format!("is {}", fitted(&classes[shown.label], SMALL, room)));
    }
    for (index, line) in lines.iter().enumerate() {
        drawing.text(Text::new(line, [0.0, y + 15.0 * index as f64], SMALL, color));
    }
    lines.join(", ")
}

/// Classes and their probabilities, most likely first.
fn ranked(probabilities: &[f64]) -> Vec<(usize, f64)> {
    let mut ranked: Vec<_> = probabilities.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked
}

/// The image in gray under the heat map of its prediction, from dark to bright.
fn activation_map(shown: &Shown) -> RgbImage {
    let width = shown.activation_width as u32;
    let height = shown.activation.len() as u32 / width;
    let most = shown.activation.iter().copied().fold(0.0_f32, f32::max).max(f32::MIN_POSITIVE);
    let map: ImageBuffer<Luma<f32>, Vec<f32>> = ImageBuffer::from_fn(width, height, |x, y| {
        Luma([(shown.activation[(y * width + x) as usize] / most).max(0.0)])
    });
    let side = 2 * SHOWN as u32;
    let map = resize(&map, side, side, FilterType::Triangle);
    let grey = resize(&grayscale(&shown.image), side, side, FilterType::Nearest);
    RgbImage::from_fn(side, side, |x, y| {
        let Shade(red, green, blue) = viridis(map.get_pixel(x, y).0[0]);
        let grey = f32::from(grey.get_pixel(x, y).0[0]);
        Rgb([red, green, blue].map(|value| (0.65 * f32::from(value) + 0.35 * grey) as u8))
    })
}

/// The first convolution's filters as colors, each scaled to its own range.
pub fn filters(filters: &Filters) -> Figure {
    const SIDE: f64 = 36.0;
    let area = filters.kernel * filters.kernel;
    let panel = |(index, filter): (usize, &[f32])| {
        let most = filter.iter().fold(0.0_f32, |most, weight| most.max(weight.abs())).max(f32::MIN_POSITIVE);
        let side = filters.kernel as u32;
        let image = RgbImage::from_fn(side, side, |x, y| {
            let at = y as usize * filters.kernel + x as usize;
            Rgb([0, 1, 2].map(|channel| (127.5 * (1.0 + filter[channel * area + at] / most)).round() as u8))
        });
        let mut drawing = Drawing::default();
        draw(&mut drawing, &image, [0.0, 0.0], SIDE);
        Panel { label: format!("Filter {index}"), size: [SIDE, SIDE], drawing }
    };
    Figure {
        name: "filters",
        title: "Filters of the first layer".to_owned(),
        caption:
            "Each filter's weights for red, green and blue as a color, gray for 0, each filter scaled to its own range."
                .to_owned(),
        panels: filters.weights.chunks_exact(3 * area).enumerate().map(panel).collect(),
        columns: 16,
    }
}

/// Draws an image into a square.
fn draw(drawing: &mut Drawing, image: &RgbImage, at: Point, side: f64) {
    // Twice the displayed resolution is enough for any screen.
    let most = 2 * side as u32;
    let (width, height) = image.dimensions();
    let image = match width.max(height) > most {
        true => resize(image, most, most, FilterType::Triangle),
        false => image.clone(),
    };
    drawing.image(image, at, [side, side]);
}
