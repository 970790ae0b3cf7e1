//! Random draws for the augmentation of training images; [`pixels`](crate::pixels) applies them.

use serde::{Deserialize, Serialize};

use crate::{random::KeyedRng, resized_crop::ResizedCrop};

/// Augmentation of training images. The default is the usual one for CIFAR-10 (He et al. 2015): random crops
/// with a border of 4 pixels, and mirroring with probability 0.5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Width in pixels of the black border that is added before a crop of the image's own size; 0 for no crop.
    pub crop_padding: usize,
    /// When an image is mirrored left to right.
    pub flip: Flip,
    /// Probability, 0 to 1, that [`Flip::Random`] mirrors an image.
    pub flip_chance: f64,
    /// Side in pixels of a square that is filled with the mean color, centered anywhere in the image
    /// (DeVries & Taylor 2017); 0 for none.
    pub cutout: usize,
    /// Fraction of the run, at its end, that uses only what `final_keeps` says.
    pub final_share: f64,
    /// What stays on in the final part of the run.
    pub final_keeps: FinalKeeps,
    /// A random part of the picture, brought to the network's size; before everything else.
    pub resized_crop: ResizedCrop,
    /// Rotation, translation, scale and shear.
    pub affine: Affine,
    /// Brightness, contrast and saturation.
    #[serde(alias = "colour")]
    pub color: Color,
    /// Mixup and cutmix.
    pub mix: Mix,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            crop_padding: 4,
            flip: Flip::Random,
            flip_chance: 0.5,
            cutout: 0,
            final_share: 0.0,
            final_keeps: FinalKeeps::Nothing,
            resized_crop: ResizedCrop::default(),
            affine: Affine::default(),
            color: Color::default(),
            mix: Mix::default(),
        }
    }
}

/// When an image is mirrored left to right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flip {
    /// Never.
    None,
    /// With probability [`Augment::flip_chance`], for each image and epoch.
    #[default]
    Random,
    /// With probability 0.5 in the first epoch, then alternating, so that two epochs in a row show an image
    /// in both orientations (airbench, Jordan 2024).
    Alternating,
}

/// What stays on in the final part of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalKeeps {
    /// Nothing: images are not augmented.
    #[default]
    Nothing,
    /// Crops and mirroring.
    CropAndFlip,
}

/// A random affine map about the image's center, like torchvision's `RandomAffine` with bilinear
/// interpolation. Areas from outside the image are black.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Affine {
    /// Probability, 0 to 1, that an image is mapped.
    pub chance: f64,
    /// Largest angle in degrees, in either direction.
    pub rotation: f64,
    /// Largest shift in either direction, as a fraction of the image's height and width.
    pub translation: f64,
    /// The size is multiplied by a factor of 1 - scale to 1 + scale.
    pub scale: f64,
    /// Largest horizontal shear in degrees, in either direction.
    pub shear: f64,
}

/// Random factors for an image's colors, like torchvision's `ColorJitter`, applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Color {
    /// Values are multiplied by a factor of 1 - brightness to 1 + brightness.
    pub brightness: f64,
    /// Distances from the image's mean gray are multiplied by a factor of 1 - contrast to 1 + contrast.
    pub contrast: f64,
    /// Distances from the pixel's own gray are multiplied by a factor of 1 - saturation to 1 + saturation.
    pub saturation: f64,
}

/// Mixes two images, and their targets in the same proportion.
///
/// One draw decides between mixup, cutmix and neither. The partner is any training image, augmented as in that
/// epoch; it does not depend on the other images of the batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    /// Probability, 0 to 1, of a weighted sum of two images (Zhang et al. 2018).
    pub mixup_chance: f64,
    /// The weights are drawn from Beta(alpha, alpha).
    pub mixup_alpha: f64,
    /// Probability, 0 to 1, of a rectangle from another image (Yun et al. 2019).
    pub cutmix_chance: f64,
    /// The area of the rectangle is drawn from Beta(alpha, alpha).
    pub cutmix_alpha: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { mixup_chance: 0.0, mixup_alpha: 1.0, cutmix_chance: 0.0, cutmix_alpha: 1.0 }
    }
}

/// The draws for one image in one epoch, in the order in which they are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transform {
    /// The affine map, if any.
    pub affine: Option<AffineDraw>,
    /// Factors of brightness, contrast and saturation, if any of them is on.
    pub color: Option<[f32; 3]>,
    /// Top edge of the crop within the padded image, `0..=2 * crop_padding`.
    pub row: usize,
    /// Left edge of the crop within the padded image, `0..=2 * crop_padding`.
    pub column: usize,
    /// Whether the crop is mirrored left to right.
    pub flip: bool,
    /// Center of the cutout square, as a fraction of the height from the top and of the width from the left.
    pub cutout: Option<[f32; 2]>,
}

/// One affine map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineDraw {
    /// Degrees.
    pub rotation: f32,
    /// Shift right and down, as a fraction of width and height.
    pub translation: [f32; 2],
    /// Scale factor.
    pub scale: f32,
    /// Degrees.
    pub shear: f32,
}

/// How an image is mixed with another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixDraw {
    /// Index of the other image in the set.
    pub partner: u32,
    /// The image's own weight in the result, 0 to 1.
    pub share: f32,
    /// The rectangle that cutmix replaces; if `None`, all pixels are weighted sums.
    pub patch: Option<Patch>,
}

/// A rectangle of pixels; `bottom` and `right` are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    pub top: usize,
    pub bottom: usize,
    pub left: usize,
    pub right: usize,
}

impl Augment {
    /// The draws for image `index` of its set in `epoch`; a pure function.
    ///
    /// They come from the stream `augment.` of (seed, epoch, index), one word each: row, column, flip; chance,
    /// angle, shift right, shift down, scale and shear of the affine map; brightness, contrast, saturation; row
    /// and column of the cutout. The order is the same whichever are on, so changing one setting does not
    /// change the other draws. The coin of [`Flip::Alternating`] is the first word of the stream `flip....` of
    /// (seed, 0, index).
    pub fn draw(&self, seed: u64, epoch: u64, index: u32) -> Transform {
        let mut rng = KeyedRng::new(b"augment.", seed, epoch, index.into());
        let offsets = self.crop_padding.saturating_mul(2).saturating_add(1);
        let offsets = u32::try_from(offsets).unwrap_or(u32::MAX);
        let row = rng.below(offsets) as usize;
        let column = rng.below(offsets) as usize;
        let coin = rng.chance(self.flip_chance);
        let flip = match self.flip {
            Flip::None => false,
            Flip::Random => coin,
            Flip::Alternating => {
                let first = KeyedRng::new(b"flip....", seed, 0, index.into()).coin();
                first ^ (epoch % 2 == 1)
            }
        };
        let mapped = rng.chance(self.affine.chance);
        let mut within = |limit: f64| rng.uniform(-1.0, 1.0) * limit as f32;
        let affine = AffineDraw {
            rotation: within(self.affine.rotation),
            translation: [within(self.affine.translation), within(self.affine.translation)],
            scale: 1.0 + within(self.affine.scale),
            shear: within(self.affine.shear),
        };
        let Color { brightness, contrast, saturation } = self.color;
        let factors = [brightness, contrast, saturation].map(|limit| 1.0 + within(limit));
        let centre = [rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0)];
        Transform {
            affine: mapped.then_some(affine),
            color: (self.color != Color::default()).then_some(factors),
            row,
            column,
            flip,
            cutout: (self.cutout > 0).then_some(centre),
        }
    }

    /// Draws how image `index` of `[height, width]` pixels is mixed in `epoch` with one of `partners`; `None`
    /// if there are no partners.
    ///
    /// Words of the stream `mix.....` of (seed, epoch, index): the choice, the partner, row and column of the
    /// patch, then as many as Beta(alpha, alpha) needs.
    pub fn draw_mix(
        &self,
        seed: u64,
        epoch: u64,
        index: u32,
        partners: &[u32],
        [height, width]: [usize; 2],
    ) -> Option<MixDraw> {
        let mix = &self.mix;
        if mix.mixup_chance + mix.cutmix_chance == 0.0 {
            return None;
        }
        let mut rng = KeyedRng::new(b"mix.....", seed, epoch, index.into());
        let choice = f64::from(rng.uniform(0.0, 1.0));
        let partner = *partners.get(rng.below(partners.len() as u32) as usize)?;
        let centre = [height, width].map(|side| rng.below(side as u32) as usize);
        if choice < mix.mixup_chance {
            return Some(MixDraw { partner, share: beta(&mut rng, mix.mixup_alpha), patch: None });
        }
        if choice >= mix.mixup_chance + mix.cutmix_chance {
            return None;
        }
        let ratio = (1.0 - beta(&mut rng, mix.cutmix_alpha)).sqrt();
        let ends = |centre: usize, side: usize| {
            let half = (ratio * side as f32 / 2.0).round() as usize;
            (centre.saturating_sub(half), (centre + half).min(side))
        };
        let ((top, bottom), (left, right)) = (ends(centre[0], height), ends(centre[1], width));
        let area = (bottom - top) * (right - left);
        let share = 1.0 - area as f32 / (height * width) as f32;
        Some(MixDraw { partner, share, patch: Some(Patch { top, bottom, left, right }) })
    }

    /// Whether images stay as they are.
    pub fn is_off(&self) -> bool {
        let Self { resized_crop, crop_padding, flip, flip_chance, cutout, affine, color, mix, .. } = self;
        let flips = match flip {
            Flip::None => false,
            Flip::Random => *flip_chance > 0.0,
            Flip::Alternating => true,
        };
        let colors = [color.brightness, color.contrast, color.saturation].iter().any(|factor| *factor > 0.0);
        let mixes = mix.mixup_chance > 0.0 || mix.cutmix_chance > 0.0;
        let crops = *crop_padding > 0 || resized_crop.is_on();
        !crops && !flips && *cutout == 0 && affine.chance == 0.0 && !colors && !mixes
    }

    /// The augmentation in the final part of a run.
    pub fn in_the_end(&self) -> Self {
        let plain = Self { crop_padding: 0, flip: Flip::None, ..Self::default() };
        match self.final_keeps {
            FinalKeeps::Nothing => plain,
            FinalKeeps::CropAndFlip => {
                let Self { resized_crop, crop_padding, flip, flip_chance, .. } = *self;
                Self { resized_crop, crop_padding, flip, flip_chance, ..plain }
            }
        }
    }
}

/// A sample from Beta(alpha, alpha) by Jöhnk's method (1964), which is simple, and fast up to an alpha of about 4.
/// `libm` gives the same bits on every platform; the system's `pow` does not.
fn beta(rng: &mut KeyedRng, alpha: f64) -> f32 {
    loop {
        let [x, y] = [(); 2].map(|()| libm::pow(1.0 - f64::from(rng.uniform(0.0, 1.0)), 1.0 / alpha));
        if x + y <= 1.0 {
            return (x / (x + y)) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;

    fn none() -> Augment {
        Augment { crop_padding: 0, flip: Flip::None, ..Augment::default() }
    }

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
    fn images_are_mirrored_as_often_as_asked_for() {
        let flips = |flip, flip_chance| {
            let augment = Augment { flip, flip_chance, ..none() };
            (0..10_000).filter(|&i| augment.draw(SEED, 0, i).flip).count()
        };
        assert!((4800..5200).contains(&flips(Flip::Random, 0.5)));
        assert!((4800..5200).contains(&flips(Flip::Alternating, 0.0)));
        assert!((1850..2150).contains(&flips(Flip::Random, 0.2)));
        assert_eq!([0.0, 1.0].map(|chance| flips(Flip::Random, chance)), [0, 10_000]);
        assert_eq!(flips(Flip::None, 1.0), 0);
    }

    #[test]
    fn alternating_shows_the_other_side_in_each_epoch() {
        let augment = Augment { flip: Flip::Alternating, ..Augment::default() };
        for index in 0..100 {
            for epoch in 0..4 {
                assert_ne!(augment.draw(SEED, epoch, index).flip, augment.draw(SEED, epoch + 1, index).flip);
            }
        }
    }

    #[test]
    fn changing_one_setting_leaves_the_other_draws_alone() {
        let affine = Affine { chance: 0.5, rotation: 10.0, translation: 0.1, scale: 0.1, shear: 5.0 };
        let color = Color { brightness: 0.2, contrast: 0.2, saturation: 0.2 };
        let all = Augment { cutout: 8, affine, color, ..Augment::default() };
        for index in 0..100 {
            let together = all.draw(SEED, 3, index);
            let crop = Augment { crop_padding: 4, ..none() }.draw(SEED, 3, index);
            let flip = Augment { flip: Flip::Random, ..none() }.draw(SEED, 3, index);
            let affine = Augment { affine: all.affine.clone(), ..none() }.draw(SEED, 3, index);
            let color = Augment { color: all.color.clone(), ..none() }.draw(SEED, 3, index);
            let cutout = Augment { cutout: 8, ..none() }.draw(SEED, 3, index);
            assert_eq!((together.row, together.column), (crop.row, crop.column));
            assert_eq!(together.flip, flip.flip);
            assert_eq!((flip.row, flip.column), (0, 0));
            assert_eq!(together.affine, affine.affine);
            assert_eq!(together.color, color.color);
            assert_eq!(together.cutout, cutout.cutout);
        }
        assert_eq!(none().draw(SEED, 3, 0), Transform::default());
    }

    #[test]
    fn an_affine_map_comes_as_often_and_goes_as_far_as_asked_for() {
        let affine = Affine { chance: 0.2, rotation: 30.0, translation: 0.1, scale: 0.25, shear: 10.0 };
        let augment = Augment { affine, ..none() };
        let drawn: Vec<_> = (0..10_000).filter_map(|i| augment.draw(SEED, 0, i).affine).collect();
        assert!((1850..2150).contains(&drawn.len()), "{}", drawn.len());
        let reaches = |low: f32, high: f32, value: fn(&AffineDraw) -> f32| {
            let (least, most) = drawn.iter().map(value).fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(v), b.max(v)));
            let slack = (high - low) * 0.01;
            assert!(least >= low && least < low + slack && most <= high && most > high - slack, "{least} {most}");
        };
        reaches(-30.0, 30.0, |draw| draw.rotation);
        reaches(-0.1, 0.1, |draw| draw.translation[0]);
        reaches(-0.1, 0.1, |draw| draw.translation[1]);
        reaches(0.75, 1.25, |draw| draw.scale);
        reaches(-10.0, 10.0, |draw| draw.shear);
    }

    #[test]
    fn mixup_and_cutmix_share_the_draws_by_their_chances() {
        let mix = Mix { mixup_chance: 0.3, cutmix_chance: 0.5, ..Mix::default() };
        let augment = Augment { mix, ..none() };
        let partners = [3, 4, 9];
        let (mut mixup, mut cutmix) = (0, 0);
        for index in 0..10_000 {
            let Some(draw) = augment.draw_mix(SEED, 0, index, &partners, [32, 16]) else { continue };
            assert!(partners.contains(&draw.partner) && (0.0..=1.0).contains(&draw.share));
            match draw.patch {
                None => mixup += 1,
                Some(Patch { top, bottom, left, right }) => {
                    cutmix += 1;
                    assert!(top <= bottom && bottom <= 32 && left <= right && right <= 16);
                    let area = ((bottom - top) * (right - left)) as f32 / 512.0;
                    assert!((draw.share - (1.0 - area)).abs() < 1e-6);
                }
            }
        }
        assert!((2800..3200).contains(&mixup) && (4800..5200).contains(&cutmix), "{mixup} {cutmix}");
        assert_eq!(augment.draw_mix(SEED, 0, 0, &[], [32, 16]), None, "there is no partner");
        assert_eq!(none().draw_mix(SEED, 0, 0, &partners, [32, 16]), None);
    }

    #[test]
    fn beta_has_its_mean_and_variance() {
        for alpha in [0.1, 0.4, 1.0, 2.0] {
            let mut rng = KeyedRng::new(b"test....", 7, 0, 0);
            let drawn: Vec<_> = (0..20_000).map(|_| f64::from(beta(&mut rng, alpha))).collect();
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            let variance = drawn.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.015, "{alpha}: {mean}");
            assert!((variance - expected).abs() < 0.03 * expected, "{alpha}: {variance}, not {expected}");
        }
    }

    #[test]
    fn the_end_of_a_run_keeps_what_the_recipe_says() {
        let mix = Mix { mixup_chance: 0.5, ..Mix::default() };
        let all = Augment { cutout: 8, mix, flip: Flip::Alternating, ..Augment::default() };
        assert_eq!(all.in_the_end(), none());
        let kept = Augment { final_keeps: FinalKeeps::CropAndFlip, ..all }.in_the_end();
        assert_eq!((kept.crop_padding, kept.flip, kept.cutout), (4, Flip::Alternating, 0));
        assert_eq!(kept.mix, Mix::default());
    }

    #[test]
    fn a_recipe_names_flips_in_snake_case_and_mistakes_are_refused() {
        let read = serde_json::from_str::<Augment>;
        assert_eq!(read("{}").unwrap(), Augment::default());
        let alternating = read(r#"{"flip": "alternating", "crop_padding": 2}"#).unwrap();
        assert_eq!(alternating, Augment { crop_padding: 2, flip: Flip::Alternating, ..Augment::default() });
        assert!(read(r#"{"crop_pading": 2}"#).is_err());
        assert!(read(r#"{"mix": {"mixup": 1.0}}"#).is_err());
    }
}
