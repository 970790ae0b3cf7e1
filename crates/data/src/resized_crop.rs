//! A random part of a picture, brought to the network's size: torchvision's `RandomResizedCrop`.

use serde::{Deserialize, Serialize};

use crate::random::KeyedRng;

/// Rectangles that are tried before the middle of the picture is taken.
const ATTEMPTS: usize = 10;

/// Cuts a random rectangle out of the picture and resizes it to the network's size, as torchvision's `RandomResizedCrop`
/// does (Szegedy et al. 2015). Of files it is the original that is cut, not the image that evaluation sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResizedCrop {
    /// The rectangle's area is drawn from this share of the picture's up to all of it; 1 for no crop. torchvision's default
    /// is 0.08.
    pub min_area: f64,
    /// Width over height is drawn, evenly in its logarithm, between 1 over this and this; 4/3 as in torchvision.
    pub max_aspect: f64,
}

impl Default for ResizedCrop {
    fn default() -> Self {
        Self { min_area: 1.0, max_aspect: 4.0 / 3.0 }
    }
}

/// The crop of one image in one epoch. Where it lies depends on the size of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropDraw {
    settings: ResizedCrop,
    seed: u64,
    epoch: u64,
    index: u32,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rectangle {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl ResizedCrop {
    /// Whether it cuts anything.
    pub fn is_on(&self) -> bool {
        self.min_area < 1.0
    }

    /// The crop of image `index` of its set in `epoch`, if it is on; a pure function.
    pub fn draw(&self, seed: u64, epoch: u64, index: u32) -> Option<CropDraw> {
        self.is_on().then_some(CropDraw { settings: *self, seed, epoch, index })
    }
}

impl CropDraw {
    /// All that it depends on.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn key(&self) -> [u64; 5] {
        let Self { settings: ResizedCrop { min_area, max_aspect }, seed, epoch, index } = *self;
        [min_area.to_bits(), max_aspect.to_bits(), seed, epoch, index.into()]
    }

    /// Where it lies in a picture of `[width, height]` pixels.
    ///
    /// Words of the stream `crop....` of (seed, epoch, index): area and aspect of each attempt, then left and top of the
    /// first that fits into the picture. `libm` gives the same bits on every platform.
    pub(crate) fn rectangle(&self, [width, height]: [u32; 2]) -> Rectangle {
        let ResizedCrop { min_area, max_aspect } = self.settings;
        let mut rng = KeyedRng::new(b"crop....", self.seed, self.epoch, self.index.into());
        let mut unit = || f64::from(rng.uniform(0.0, 1.0));
        let tries: [[f64; 2]; ATTEMPTS] = std::array::from_fn(|_| [unit(), unit()]);
        let area = f64::from(width) * f64::from(height);
        for [share, log_aspect] in tries {
            let area = area * (min_area + (1.0 - min_area) * share);
            let aspect = libm::exp(libm::log(max_aspect) * (2.0 * log_aspect - 1.0));
            let (w, h) = ((area * aspect).sqrt().round() as u32, (area / aspect).sqrt().round() as u32);
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let (left, top) = (rng.below(width - w + 1), rng.below(height - h + 1));
                return Rectangle { left, top, width: w, height: h };
            }
        }
        // The middle, as much of it as its sides may differ.
        let most = |other: u32| ((f64::from(other) * max_aspect).round() as u32).max(1);
        let (w, h) = (width.min(most(height)), height.min(most(width)));
        Rectangle { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rectangles(settings: ResizedCrop, size: [u32; 2]) -> Vec<Rectangle> {
        (0..2000).map(|index| settings.draw(5, 1, index).unwrap().rectangle(size)).collect()
    }

    #[test]
    fn areas_and_aspects_are_spread_as_torchvision_spreads_them() {
        let settings = ResizedCrop { min_area: 0.08, ..ResizedCrop::default() };
        let found = rectangles(settings, [500, 375]);
        let mean = |value: &dyn Fn(&Rectangle) -> f64| found.iter().map(value).sum::<f64>() / found.len() as f64;
        // The means of 100,000 draws of torchvision 0.29's `RandomResizedCrop.get_params`: 0.4338, 1.0452 and 0.4987. Large
        // areas fit less often.
        let area = mean(&|r| f64::from(r.width * r.height) / (500.0 * 375.0));
        let aspect = mean(&|r| f64::from(r.width) / f64::from(r.height));
        assert!((area - 0.434).abs() < 0.015, "{area}");
        assert!((aspect - 1.045).abs() < 0.015, "{aspect}");
        let left = mean(&|r| f64::from(r.left) / f64::from((500 - r.width).max(1)));
        assert!((left - 0.5).abs() < 0.03, "{left}");
        for Rectangle { left, top, width, height } in found {
            assert!(left + width <= 500 && top + height <= 375 && width > 0 && height > 0);
            let aspect = f64::from(width) / f64::from(height);
            assert!((0.73..1.36).contains(&aspect), "{aspect}");
        }
    }

    #[test]
    fn of_a_long_picture_the_middle_is_taken() {
        let settings = ResizedCrop { min_area: 0.9, ..ResizedCrop::default() };
        for found in rectangles(settings, [1000, 10]) {
            assert_eq!(found, Rectangle { left: 493, top: 0, width: 13, height: 10 });
        }
        for found in rectangles(settings, [9, 900]) {
            assert_eq!(found, Rectangle { left: 0, top: 444, width: 9, height: 12 });
        }
        for found in rectangles(settings, [1, 1]) {
            assert_eq!(found, Rectangle { left: 0, top: 0, width: 1, height: 1 });
        }
    }

    #[test]
    fn a_draw_depends_on_seed_epoch_and_index() {
        let settings = ResizedCrop { min_area: 0.08, ..ResizedCrop::default() };
        let of = |seed, epoch, index| settings.draw(seed, epoch, index).unwrap().rectangle([640, 480]);
        assert_eq!(of(1, 2, 3), of(1, 2, 3));
        assert!([of(2, 2, 3), of(1, 3, 3), of(1, 2, 4)].iter().all(|other| *other != of(1, 2, 3)));
        assert_eq!(ResizedCrop::default().draw(0, 0, 0), None);
    }
}
