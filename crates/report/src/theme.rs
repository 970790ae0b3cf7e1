//! Colors, and the font that texts are measured and rasterized with.
//!
//! The colors of data are from Okabe and Ito (2008) and from Paul Tol's "muted" scheme, which color-blind readers can
//! distinguish. `report.css` replaces some of them in dark mode and refers to them by their values here.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef};

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shade(pub u8, pub u8, pub u8);

impl Shade {
    /// The color in SVG notation.
    pub fn hex(self) -> String {
        let Self(red, green, blue) = self;
        format!("#{red:02X}{green:02X}{blue:02X}")
    }
}

/// Text and axes.
pub(crate) const INK: Shade = Shade(0x23, 0x1d, 0x18);
/// Secondary text.
pub(crate) const SOFT: Shade = Shade(0x65, 0x5b, 0x50);
/// Grid lines.
pub(crate) const LINE: Shade = Shade(0xd6, 0xce, 0xc1);
/// Background of figures in files, and border of texts on data.
pub(crate) const GROUND: Shade = Shade(0xfc, 0xfa, 0xf6);
/// Cells of a matrix, from transparent to opaque, with [`ON_HEAT`] text on the opaque ones.
pub(crate) const HEAT: Shade = Shade(0x0b, 0x5a, 0x8f);
pub(crate) const ON_HEAT: Shade = Shade(0xff, 0xff, 0xff);

pub(crate) const BLUE: Shade = Shade(0x00, 0x72, 0xb2);
pub(crate) const VERMILLION: Shade = Shade(0xd5, 0x5e, 0x00);
pub(crate) const GREEN: Shade = Shade(0x00, 0x9e, 0x73);
pub(crate) const SKY: Shade = Shade(0x56, 0xb4, 0xe9);
const PURPLE: Shade = Shade(0xcc, 0x79, 0xa7);
const ORANGE: Shade = Shade(0xe6, 0x9f, 0x00);

/// Text of correct and of wrong predictions, dark enough to read.
pub(crate) const RIGHT: Shade = Shade(0x00, 0x7a, 0x56);
pub(crate) const WRONG: Shade = Shade(0xb8, 0x3a, 0x00);

/// Colors of runs; they repeat after the last.
pub(crate) const RUNS: [Shade; 6] = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY];

/// Colors of classes; they repeat after the last.
pub(crate) const CLASSES: [Shade; 10] = [
    Shade(0xcc, 0x66, 0x77),
    Shade(0x4a, 0x3a, 0xa8),
    Shade(0xdd, 0xcc, 0x77),
    Shade(0x11, 0x77, 0x33),
    Shade(0x88, 0xcc, 0xee),
    Shade(0x88, 0x22, 0x55),
    Shade(0x44, 0xaa, 0x99),
    Shade(0x99, 0x99, 0x33),
    Shade(0xaa, 0x44, 0x99),
    Shade(0x8c, 0x8c, 0x8c),
];

/// matplotlib's viridis from dark to bright, at equal distances over 0..1.
const VIRIDIS: [Shade; 5] = [
    Shade(0x44, 0x01, 0x54),
    Shade(0x3b, 0x52, 0x8b),
    Shade(0x21, 0x91, 0x8c),
    Shade(0x5e, 0xc9, 0x62),
    Shade(0xfd, 0xe7, 0x25),
];

/// The color for a value in 0..1, interpolated in [`VIRIDIS`].
pub(crate) fn viridis(share: f32) -> Shade {
    let position = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let below = (position as usize).min(VIRIDIS.len() - 2);
    let part = position - below as f32;
    let (low, high) = (VIRIDIS[below], VIRIDIS[below + 1]);
    let between = |low: u8, high: u8| (f32::from(low) + part * (f32::from(high) - f32::from(low))).round() as u8;
    Shade(between(low.0, high.0), between(low.1, high.1), between(low.2, high.2))
}

/// Text on axes, in legends and below images, in CSS pixels.
pub(crate) const SMALL: f64 = 11.5;
/// Titles of panels.
pub(crate) const LARGE: f64 = 14.0;

/// A subset of Roboto; see `fonts/README.md`.
pub(crate) static FONT: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("../fonts/Roboto-Regular.ttf")).expect("the font in this program is whole")
});

/// CSS pixels per unit of [`FONT`], for a text of this size.
pub(crate) fn font_scale(size: f64) -> f64 {
    size / f64::from(FONT.units_per_em().expect("every font has a scale"))
}

/// Width in CSS pixels of a text in [`FONT`] at this size.
pub(crate) fn advance(text: &str, size: f64) -> f64 {
    let advances = text.chars().map(|letter| f64::from(FONT.h_advance_unscaled(FONT.glyph_id(letter))));
    advances.sum::<f64>() * font_scale(size)
}

/// Width in CSS pixels to reserve for a text of this size. Browsers use the reader's font, and some fonts, such as
/// Verdana and DejaVu Sans, are a fifth wider than [`FONT`].
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    1.2 * advance(text, size)
}

/// The text, shortened with an ellipsis if it is wider than `most` CSS pixels.
pub(crate) fn fitted(text: &str, size: f64, most: f64) -> String {
    if text_width(text, size) <= most {
        return text.to_owned();
    }
    let mut cut: String = text.to_owned();
    while cut.pop().is_some() && text_width(&cut, size) + text_width("…", size) > most {}
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_to_its_room() {
        assert_eq!(fitted("cat", 12.0, 100.0), "cat");
        let cut = fitted("Rhinoceros of the northern plains", 12.0, 80.0);
        assert!(cut.starts_with("Rhino") && cut.ends_with('…'), "{cut}");
        assert!(text_width(&cut, 12.0) <= 80.0);
        assert_eq!(fitted("long", 12.0, 0.0), "…");
    }

    #[test]
    fn a_text_is_as_wide_as_its_letters() {
        // Roboto's digits are 1150 of 2048 units wide.
        assert!((advance("0000000000", 20.0) - 200.0 * 1150.0 / 2048.0).abs() < 0.1);
    }

    #[test]
    fn the_dark_style_replaces_colors_that_there_are() {
        let known = [INK, SOFT, LINE, GROUND, HEAT, RIGHT, WRONG].into_iter().chain(RUNS).chain(CLASSES);
        let known: Vec<String> = known.map(Shade::hex).collect();
        let rules = include_str!("report.css").lines().filter_map(|line| line.split_once("=\"#"));
        let replaced: Vec<String> = rules.map(|(_, rest)| format!("#{}", &rest[..6])).collect();
        assert!(replaced.len() > 10);
        for color in replaced {
            assert!(known.contains(&color), "{color} is not a color of a figure");
        }
    }

    #[test]
    fn viridis_goes_from_its_first_color_to_its_last() {
        assert_eq!([0.0, 0.5, 1.0, 7.0].map(viridis), [VIRIDIS[0], VIRIDIS[2], VIRIDIS[4], VIRIDIS[4]]);
        assert_eq!(viridis(f32::NAN).hex().len(), 7);
    }
}
