//! Colors, and the font that texts are measured and rasterized with.
//!
//! The colors of data are from Okabe and Ito (2008) and from Paul Tol's "muted" scheme, which color-blind readers can
//! distinguish. `report.css` replaces some of them in dark mode and refers to them by their values here.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef};

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Colour(pub u8, pub u8, pub u8);

impl Colour {
    /// The color in SVG notation.
    pub fn hex(self) -> String {
        let Self(red, green, blue) = self;
        format!("#{red:02X}{green:02X}{blue:02X}")
    }
}

/// Text and axes.
pub(crate) const INK: Colour = Colour(0x23, 0x1d, 0x18);
/// Secondary text.
pub(crate) const SOFT: Colour = Colour(0x65, 0x5b, 0x50);
/// Grid lines.
pub(crate) const LINE: Colour = Colour(0xd6, 0xce, 0xc1);
/// Background of figures in files, and border of texts on data.
pub(crate) const GROUND: Colour = Colour(0xfc, 0xfa, 0xf6);
/// Cells of a matrix, from transparent to opaque, with [`ON_HEAT`] text on the opaque ones.
pub(crate) const HEAT: Colour = Colour(0x0b, 0x5a, 0x8f);
pub(crate) const ON_HEAT: Colour = Colour(0xff, 0xff, 0xff);

pub(crate) const BLUE: Colour = Colour(0x00, 0x72, 0xb2);
pub(crate) const VERMILLION: Colour = Colour(0xd5, 0x5e, 0x00);
pub(crate) const GREEN: Colour = Colour(0x00, 0x9e, 0x73);
pub(crate) const SKY: Colour = Colour(0x56, 0xb4, 0xe9);
const PURPLE: Colour = Colour(0xcc, 0x79, 0xa7);
const ORANGE: Colour = Colour(0xe6, 0x9f, 0x00);

/// Text of correct and of wrong predictions, dark enough to read.
pub(crate) const RIGHT: Colour = Colour(0x00, 0x7a, 0x56);
pub(crate) const WRONG: Colour = Colour(0xb8, 0x3a, 0x00);

/// Colors of runs; they repeat after the last.
pub(crate) const RUNS: [Colour; 6] = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY];

/// Colors of classes; they repeat after the last.
pub(crate) const CLASSES: [Colour; 10] = [
    Colour(0xcc, 0x66, 0x77),
    Colour(0x4a, 0x3a, 0xa8),
    Colour(0xdd, 0xcc, 0x77),
    Colour(0x11, 0x77, 0x33),
    Colour(0x88, 0xcc, 0xee),
    Colour(0x88, 0x22, 0x55),
    Colour(0x44, 0xaa, 0x99),
    Colour(0x99, 0x99, 0x33),
    Colour(0xaa, 0x44, 0x99),
    Colour(0x8c, 0x8c, 0x8c),
];

/// matplotlib's viridis from dark to bright, at equal distances over 0..1.
const VIRIDIS: [Colour; 5] = [
    Colour(0x44, 0x01, 0x54),
    Colour(0x3b, 0x52, 0x8b),
    Colour(0x21, 0x91, 0x8c),
    Colour(0x5e, 0xc9, 0x62),
    Colour(0xfd, 0xe7, 0x25),
];

/// The color for a value in 0..1, interpolated in [`VIRIDIS`].
pub(crate) fn viridis(share: f32) -> Colour {
    let position = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let below = (position as usize).min(VIRIDIS.len() - 2);
    let part = position - below as f32;
    let (low, high) = (VIRIDIS[below], VIRIDIS[below + 1]);
    let between = |low: u8, high: u8| (f32::from(low) + part * (f32::from(high) - f32::from(low))).round() as u8;
    Colour(between(low.0, high.0), between(low.1, high.1), between(low.2, high.2))
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
    fn the_dark_style_replaces_colours_that_there_are() {
        let known = [INK, SOFT, LINE, GROUND, HEAT, RIGHT, WRONG].into_iter().chain(RUNS).chain(CLASSES);
        let known: Vec<String> = known.map(Colour::hex).collect();
        let rules = include_str!("report.css").lines().filter_map(|line| line.split_once("=\"#"));
        let replaced: Vec<String> = rules.map(|(_, rest)| format!("#{}", &rest[..6])).collect();
        assert!(replaced.len() > 10);
        for colour in replaced {
            assert!(known.contains(&colour), "{colour} is not a color of a figure");
        }
    }

    #[test]
    fn viridis_goes_from_its_first_colour_to_its_last() {
        assert_eq!([0.0, 0.5, 1.0, 7.0].map(viridis), [VIRIDIS[0], VIRIDIS[2], VIRIDIS[4], VIRIDIS[4]]);
        assert_eq!(viridis(f32::NAN).hex().len(), 7);
    }
}
