//! Colours, and the font that pictures are measured and rasterised with.
//!
//! Colours of data are those of Okabe and Ito (2008) and of Paul Tol's "muted" scheme, which colour-blind
//! readers tell apart. The report's style sheet replaces [`INK`], [`SOFT`], [`LINE`], [`BLUE`] and
//! [`VERMILLION`] on a dark screen, by the very values that stand here.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef};
use plotters::prelude::*;

/// Roboto, cut down; see `fonts/README.md`.
pub(crate) static FONT: &[u8] = include_bytes!("../fonts/Roboto-Regular.ttf");

/// Text and axes.
pub(crate) const INK: RGBColor = RGBColor(0x23, 0x1d, 0x18);
/// Text beside the matter.
pub(crate) const SOFT: RGBColor = RGBColor(0x65, 0x5b, 0x50);
/// Lines of the grid.
pub(crate) const LINE: RGBColor = RGBColor(0xd6, 0xce, 0xc1);
/// Behind a picture in a file of its own.
pub(crate) const GROUND: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// Cells of a heat map, from clear to opaque, with [`WHITE`] text on the opaque ones.
pub(crate) const HEAT: RGBColor = RGBColor(0x0b, 0x5a, 0x8f);

pub(crate) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
pub(crate) const VERMILLION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
pub(crate) const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);
const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const SKY: RGBColor = RGBColor(0x56, 0xb4, 0xe9);

/// Of runs side by side; they come again after the last.
pub(crate) const RUNS: [RGBColor; 6] = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY];

/// Of classes; they come again after the last.
pub(crate) const CLASSES: [RGBColor; 10] = [
    RGBColor(0xcc, 0x66, 0x77),
    RGBColor(0x4a, 0x3a, 0xa8),
    RGBColor(0xdd, 0xcc, 0x77),
    RGBColor(0x11, 0x77, 0x33),
    RGBColor(0x88, 0xcc, 0xee),
    RGBColor(0x88, 0x22, 0x55),
    RGBColor(0x44, 0xaa, 0x99),
    RGBColor(0x99, 0x99, 0x33),
    RGBColor(0xaa, 0x44, 0x99),
    RGBColor(0x8c, 0x8c, 0x8c),
];

/// As SVG writes it.
pub(crate) fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// Units of a drawing in a CSS pixel: plotters rounds every coordinate to a whole unit.
pub(crate) const UNIT: f64 = 10.0;

/// CSS pixels as units.
pub(crate) fn px(pixels: f64) -> i32 {
    (pixels * UNIT).round() as i32
}

/// The name that [`FONT`] is registered under, and one that every browser knows.
pub(crate) const FAMILY: &str = "sans-serif";

/// The font at that many CSS pixels.
pub(crate) fn font(pixels: f64) -> FontDesc<'static> {
    static REGISTERED: LazyLock<()> = LazyLock::new(|| {
        let result = plotters::style::register_font(FAMILY, FontStyle::Normal, FONT);
        assert!(result.is_ok(), "the font in this program is whole");
    });
    LazyLock::force(&REGISTERED);
    // plotters' size is that of a line, 1.24 of the letters'.
    (FAMILY, pixels * UNIT * 1.24).into_font()
}

/// [`FONT`], to be asked for its letters.
static LETTERS: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::try_from_slice(FONT).expect("the font in this program is whole"));

/// Whether [`FONT`] has that letter.
pub(crate) fn has_glyph(letter: char) -> bool {
    LETTERS.glyph_id(letter).0 != 0
}

/// Width in CSS pixels of a text in that size.
pub(crate) fn text_width(text: &str, pixels: f64) -> f64 {
    let width: f32 = text.chars().map(|letter| LETTERS.h_advance_unscaled(LETTERS.glyph_id(letter))).sum();
    f64::from(width / LETTERS.units_per_em().expect("every font has a scale")) * pixels
}

/// The text, cut with an ellipsis where it is wider than that many CSS pixels.
pub(crate) fn fitted(text: &str, pixels: f64, most: f64) -> String {
    if text_width(text, pixels) <= most {
        return text.to_owned();
    }
    let mut cut: Vec<char> = text.chars().collect();
    while cut.len() > 1 && text_width(&format!("{}…", cut.iter().collect::<String>()), pixels) > most {
        cut.pop();
    }
    format!("{}…", cut.iter().collect::<String>().trim_end())
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
        assert_eq!(fitted("", 12.0, 0.0), "");
    }

    #[test]
    fn a_text_is_as_wide_as_its_letters() {
        // Roboto's digits are 1150 of 2048 units wide.
        let width = text_width("0000000000", 20.0);
        assert!((width - 200.0 * 1150.0 / 2048.0).abs() < 0.1, "{width}");
        assert!(has_glyph('ł') && !has_glyph('漢'));
    }
}
