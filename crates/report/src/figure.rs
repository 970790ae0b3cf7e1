//! Pictures: panels that a page puts beside or below each other, or a file into one grid.

use std::sync::{Arc, LazyLock};

use maud::{Markup, PreEscaped, html};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

use crate::ReportError;
use crate::theme::{FAMILY, FONT, GROUND, INK, has_glyph, hex};

/// One picture.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Name of its files, without ending.
    pub name: &'static str,
    pub title: String,
    /// What is to be seen, and how to read it.
    pub caption: String,
    pub panels: Vec<Panel>,
    /// Panels a row in a file of its own.
    pub columns: usize,
}

/// A part of a picture that stays whole on a narrow screen.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Width and height in CSS pixels.
    pub size: [f64; 2],
    /// `viewBox` of the contents.
    pub(crate) view: [f64; 2],
    /// What stands between `<svg>` and `</svg>`.
    pub(crate) contents: String,
    /// What it shows, for those who hear the page.
    pub label: String,
}

/// Pixels between panels of a file, and around them.
const GAP: f64 = 20.0;
/// Height of the title of a file.
const TITLE: f64 = 30.0;

impl Panel {
    /// As an element of a page or, at `[x, y]`, of another SVG.
    pub fn element(&self, at: Option<[f64; 2]>) -> Markup {
        let ([width, height], [view_width, view_height]) = (self.size, self.view);
        let view = format!("0 0 {view_width} {view_height}");
        html! {
            svg x=[at.map(|[x, _]| x)] y=[at.map(|[_, y]| y)] width=(width) height=(height) viewBox=(view)
                role="img" aria-label=(self.label) { (PreEscaped(&self.contents)) }
        }
    }
}

impl Figure {
    /// The whole picture as an SVG file.
    pub fn svg(&self) -> String {
        let columns = self.columns.clamp(1, self.panels.len().max(1));
        let (mut elements, mut width, mut y) = (vec![], 0.0_f64, GAP + TITLE);
        for row in self.panels.chunks(columns) {
            let mut x = GAP;
            for panel in row {
                elements.push(panel.element(Some([x, y])));
                x += panel.size[0] + GAP;
            }
            width = width.max(x);
            y += row.iter().fold(0.0, |height: f64, panel| height.max(panel.size[1])) + GAP;
        }
        let view = format!("0 0 {width} {y}");
        let markup = html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(y) viewBox=(view) {
                title { (self.title) }
                rect width=(width) height=(y) fill=(hex(GROUND)) {}
                text x=(GAP) y=(GAP + 14.0) font-family=(FAMILY) font-size="17" fill=(hex(INK)) { (self.title) }
                @for element in elements { (element) }
            }
        };
        markup.into_string()
    }

    /// The whole picture as a PNG file with `scale` pixels for each of CSS.
    ///
    /// # Errors
    ///
    /// If it is too large for memory.
    pub fn png(&self, scale: f32) -> Result<Vec<u8>, ReportError> {
        let svg = self.svg();
        let options = usvg::Options { fontdb: fonts(&svg), ..usvg::Options::default() };
        let failed = |reason: String| ReportError::Picture { name: self.name, reason };
        let tree = usvg::Tree::from_str(&svg, &options).map_err(|error| failed(error.to_string()))?;
        let size = tree.size().to_int_size().scale_by(scale).ok_or_else(|| failed("it has no size".to_owned()))?;
        let mut pixels = Pixmap::new(size.width(), size.height())
            .ok_or_else(|| failed(format!("{} x {} pixels are too many", size.width(), size.height())))?;
        resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
        pixels.encode_png().map_err(|error| failed(error.to_string()))
    }
}

/// Fonts that have every letter of `svg`, as far as this machine has one: Kiln's own, and the system's only
/// where that lacks a letter, for they are slow to list.
fn fonts(svg: &str) -> Arc<fontdb::Database> {
    static OWN: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| Arc::new(own_font()));
    static ALL: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
        let mut fonts = own_font();
        fonts.load_system_fonts();
        Arc::new(fonts)
    });
    let own = |letter: char| letter.is_control() || has_glyph(letter);
    if svg.chars().all(own) { OWN.clone() } else { ALL.clone() }
}

fn own_font() -> fontdb::Database {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family("Roboto");
    fonts
}
