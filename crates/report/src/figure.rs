//! Figures: panels that a page arranges by its width, and a file in a grid.

use std::io::Cursor;

use image::{ImageFormat, RgbaImage};
use maud::{Markup, html};
use tiny_skia::{Color, Pixmap, Transform};

use crate::ReportError;
use crate::drawing::{Drawing, Text};
use crate::letters::NumberedNames;
use crate::theme::{GROUND, INK, Shade, fitted};

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Name of its files, without extension.
    pub name: &'static str,
    pub title: String,
    /// What the figure shows, and how to read it.
    pub caption: String,
    pub panels: Vec<Panel>,
    /// Panels per row in a file.
    pub columns: usize,
}

/// A part of a figure that is not broken up on a narrow screen.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it shows, for screen readers.
    pub label: String,
    /// Width and height in CSS pixels.
    pub size: [f64; 2],
    pub(crate) drawing: Drawing,
}

/// Pixels between and around the panels of a file.
const GAP: f64 = 20.0;
/// Height and font size of a file's title.
const TITLE: f64 = 30.0;
const LETTERS: f64 = 17.0;

impl Panel {
    /// The panel as an element of a page or, at `[x, y]`, of another SVG.
    pub(crate) fn element(&self, at: Option<[f64; 2]>) -> Markup {
        let [width, height] = self.size;
        html! {
            svg x=[at.map(|[x, _]| x)] y=[at.map(|[_, y]| y)] width=(width) height=(height)
                viewBox={ "0 0 " (width) " " (height) } role="img" aria-label=(self.label) { (self.drawing.svg()) }
        }
    }
}

impl Figure {
    /// The position of each panel in a file, and the file's size.
    fn layout(&self) -> (Vec<[f64; 2]>, [f64; 2]) {
        let (mut places, mut width, mut y) = (vec![], 0.0_f64, GAP + TITLE);
        for row in self.panels.chunks(self.columns.max(1)) {
            let mut x = GAP;
            for panel in row {
                places.push([x, y]);
                x += panel.size[0] + GAP;
            }
            width = width.max(x);
            y += row.iter().fold(0.0, |height: f64, panel| height.max(panel.size[1])) + GAP;
        }
        (places, [width, y])
    }

    /// The title of a file of this width.
    fn heading(&self, width: f64) -> Drawing {
        let mut drawing = Drawing::default();
        let words = fitted(&self.title, LETTERS, width - 2.0 * GAP);
        drawing.text(Text::new(words, [GAP, GAP + TITLE / 3.0], LETTERS, INK));
        drawing
    }

    /// The whole figure as an SVG file.
    pub fn svg(&self) -> String {
        let (places, [width, height]) = self.layout();
        let markup = html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
                title { (self.title) }
                rect width=(width) height=(height) fill=(GROUND.hex()) {}
                (self.heading(width).svg())
                @for (panel, place) in self.panels.iter().zip(places) { (panel.element(Some(place))) }
            }
        };
        markup.into_string()
    }

    /// The whole figure as a PNG file, with `scale` pixels per CSS pixel.
    ///
    /// Where class names have letters that the built-in font lacks (it has Latin, Greek and Cyrillic), `names` gives numbers
    /// instead; other such letters appear as boxes.
    ///
    /// # Errors
    ///
    /// If the figure is too large for memory.
    pub fn png(&self, scale: f32, names: &NumberedNames) -> Result<Vec<u8>, ReportError> {
        let (places, [width, height]) = self.layout();
        let [columns, rows] = [width, height].map(|pixels| (pixels as f32 * scale).ceil() as u32);
        let failed = |reason: String| ReportError::Picture { name: self.name, reason };
        let mut pixels =
            Pixmap::new(columns, rows).ok_or_else(|| failed(format!("{columns} x {rows} pixels are too many")))?;
        let Shade(red, green, blue) = GROUND;
        pixels.fill(Color::from_rgba8(red, green, blue, 255));
        let whole = Transform::from_scale(scale, scale);
        self.heading(width).paint(&mut pixels, whole, names);
        for (panel, [x, y]) in self.panels.iter().zip(places) {
            panel.drawing.paint(&mut pixels, whole.pre_translate(x as f32, y as f32), names);
        }
        // The background is opaque, so premultiplied colors equal plain ones.
        let image = RgbaImage::from_raw(columns, rows, pixels.take()).expect("four bytes a pixel");
        let mut bytes = Cursor::new(vec![]);
        image::DynamicImage::from(image)
            .to_rgb8()
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(|error| failed(error.to_string()))?;
        Ok(bytes.into_inner())
    }
}
