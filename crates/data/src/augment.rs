//! What is done to a training image before the model sees it.

use serde::{Deserialize, Serialize};

use crate::random::KeyedRng;

/// Random changes of a training image; the default is the usual one of CIFAR-10 (He et al. 2015):
/// crops out of a border of 4 pixels, and a mirror image half of the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Width in pixels of the black border from which a crop of the image's own size is taken; 0 for
    /// no crop.
    pub crop_padding: usize,
    /// When an image is mirrored left to right.
    pub flip: Flip,
}

impl Default for Augment {
    fn default() -> Self {
        Self { crop_padding: 4, flip: Flip::Random }
    }
}

/// When an image is mirrored left to right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flip {
    /// Never.
    None,
    /// By a fair coin, each image and epoch.
    #[default]
    Random,
    /// By a fair coin in the first epoch, then every other epoch, so that two epochs in a row show an
    /// image both ways round (airbench, Jordan 2024).
    Alternating,
}

/// The outcome of the draws for one image in one epoch: crop first, then mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Top edge of the crop within the padded image, `0..=2 * crop_padding`.
    pub row: usize,
    /// Left edge of the crop within the padded image, `0..=2 * crop_padding`.
    pub column: usize,
    /// Whether the crop is mirrored left to right.
    pub flip: bool,
}

impl Augment {
    /// Draws for image `index` of its set in `epoch`, a function of nothing but the arguments.
    ///
    /// Words of the stream `augment.` of (seed, epoch, index): row, column, flip. Each has its place
    /// whatever is switched on, so that changing one setting leaves the other draws alone. The coin of
    /// [`Flip::Alternating`] is the first word of the stream `flip....` of (seed, 0, index).
    pub fn draw(&self, seed: u64, epoch: u64, index: u32) -> Transform {
        let mut rng = KeyedRng::new(b"augment.", seed, epoch, index.into());
        let offsets = self.crop_padding.saturating_mul(2).saturating_add(1);
        let offsets = u32::try_from(offsets).unwrap_or(u32::MAX);
        let row = rng.below(offsets) as usize;
        let column = rng.below(offsets) as usize;
        let flip = match self.flip {
            Flip::None => false,
            Flip::Random => rng.coin(),
            Flip::Alternating => {
                let first = KeyedRng::new(b"flip....", seed, 0, index.into()).coin();
                first ^ (epoch % 2 == 1)
            }
        };
        Transform { row, column, flip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;

    #[test]
    fn crop_offsets_cover_all_positions_evenly() {
        let augment = Augment::default();
        let (mut rows, mut columns) = ([0; 9], [0; 9]);
        for index in 0..9000 {
            let transform = augment.draw(SEED, 0, index);
            rows[transform.row] += 1;
            columns[transform.column] += 1;
        }
        // Binomial(9000, 1/9): a standard deviation of 30.
        for count in rows.into_iter().chain(columns) {
            assert!((850..1150).contains(&count), "{rows:?} {columns:?}");
        }
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        for flip in [Flip::Random, Flip::Alternating] {
            let augment = Augment { crop_padding: 0, flip };
            let flips = (0..10_000).filter(|&i| augment.draw(SEED, 0, i).flip).count();
            assert!((4800..5200).contains(&flips), "{flip:?}: {flips}");
        }
        let never = Augment { crop_padding: 4, flip: Flip::None };
        assert!((0..1000).all(|i| !never.draw(SEED, 0, i).flip));
    }

    #[test]
    fn alternating_shows_the_other_side_in_each_epoch() {
        let augment = Augment { crop_padding: 4, flip: Flip::Alternating };
        for index in 0..100 {
            for epoch in 0..4 {
                assert_ne!(augment.draw(SEED, epoch, index).flip, augment.draw(SEED, epoch + 1, index).flip);
            }
        }
    }

    #[test]
    fn changing_one_setting_leaves_the_other_draws_alone() {
        for index in 0..100 {
            let both = Augment::default().draw(SEED, 3, index);
            let crop = Augment { crop_padding: 4, flip: Flip::None }.draw(SEED, 3, index);
            let flip = Augment { crop_padding: 0, flip: Flip::Random }.draw(SEED, 3, index);
            assert_eq!((both.row, both.column), (crop.row, crop.column));
            assert_eq!(both.flip, flip.flip);
            assert_eq!((flip.row, flip.column), (0, 0));
        }
    }

    #[test]
    fn a_recipe_names_flips_in_snake_case_and_mistakes_are_refused() {
        let read = serde_json::from_str::<Augment>;
        assert_eq!(read("{}").unwrap(), Augment::default());
        let alternating = read(r#"{"flip": "alternating", "crop_padding": 2}"#).unwrap();
        assert_eq!(alternating, Augment { crop_padding: 2, flip: Flip::Alternating });
        assert!(read(r#"{"crop_pading": 2}"#).is_err());
    }
}
