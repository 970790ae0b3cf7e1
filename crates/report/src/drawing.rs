//! The shapes of figures, written as SVG or rasterized.

use std::fmt::Write;
use std::io::Cursor;

use ab_glyph::{Font, OutlineCurve};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{ImageFormat, RgbImage};
use maud::{Markup, html};
use tiny_skia::{
    Color, FillRule, FilterQuality, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, PixmapPaint, Rect, Stroke,
    StrokeDash, Transform,
};

use crate::letters::NumberedNames;
use crate::theme::{FONT, GROUND, INK, LARGE, Shade, advance, font_scale};

/// A point in CSS pixels from the top left corner.
pub(crate) type Point = [f64; 2];

/// Shapes; later ones are drawn on top of earlier ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drawing(Vec<Shape>);

#[derive(Clone, Debug)]
enum Shape {
    Rectangle { at: Point, size: Point, color: Shade, opacity: f64 },
    Path { points: Vec<Point>, color: Shade, width: f64, dashed: bool },
    Dots { points: Vec<Point>, color: Shade, radius: f64, opacity: f64 },
    Ring { at: Point, radius: f64, color: Shade },
    Text(Text),
    Image { at: Point, size: Point, image: RgbImage },
}

/// Text at a point.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    words: String,
    /// The start, middle or end of the baseline.
    at: Point,
    size: f64,
    color: Shade,
    anchor: Anchor,
    upward: bool,
    halo: bool,
}

/// Which part of a text is at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Height of a digit as a fraction of the text's size.
const DIGIT: f64 = 0.71;
/// Width of the border around a text on data, on each side.
const HALO: f64 = 1.5;

impl Text {
    /// A text that is vertically centered on the point.
    pub fn new(words: impl Into<String>, [x, y]: Point, size: f64, color: Shade) -> Self {
        let at = [x, y + size * DIGIT / 2.0];
        Self { words: words.into(), at, size, color, anchor: Anchor::Start, upward: false, halo: false }
    }

    pub fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// The same text, rotated to read upward, around the same point.
    pub fn upward(self) -> Self {
        let rise = self.size * DIGIT / 2.0;
        Self { at: [self.at[0] + rise, self.at[1] - rise], upward: true, ..self }
    }

    /// The same text with a border that keeps it legible on data.
    pub fn with_halo(self) -> Self {
        Self { halo: true, ..self }
    }
}

impl Drawing {
    pub fn rectangle(&mut self, at: Point, size: Point, color: Shade, opacity: f64) {
        self.0.push(Shape::Rectangle { at, size, color, opacity });
    }

    pub fn path(&mut self, points: Vec<Point>, color: Shade, width: f64) {
        self.0.push(Shape::Path { points, color, width, dashed: false });
    }

    pub fn dashes(&mut self, from: Point, to: Point, color: Shade) {
        self.0.push(Shape::Path { points: vec![from, to], color, width: 1.2, dashed: true });
    }

    pub fn frame(&mut self, [x, y]: Point, [width, height]: Point, color: Shade) {
        let corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]];
        self.path(corners.to_vec(), color, 1.0);
    }

    pub fn dots(&mut self, points: Vec<Point>, color: Shade, radius: f64, opacity: f64) {
        self.0.push(Shape::Dots { points, color, radius, opacity });
    }

    pub fn ring(&mut self, at: Point, radius: f64, color: Shade) {
        self.0.push(Shape::Ring { at, radius, color });
    }

    pub fn text(&mut self, text: Text) {
        self.0.push(Shape::Text(text));
    }

    /// Draws a title in the top left corner.
    pub fn title(&mut self, words: impl Into<String>) {
        self.text(Text::new(words, [8.0, 16.0], LARGE, INK));
    }

    /// Draws an image scaled to `size`; if it is enlarged, pixels stay square.
    pub fn image(&mut self, image: RgbImage, at: Point, size: Point) {
        self.0.push(Shape::Image { at, size, image });
    }

    /// The shapes as SVG elements.
    pub fn svg(&self) -> Markup {
        html! { @for shape in &self.0 { (shape.svg()) } }
    }

    /// Rasterizes the shapes, transformed by `transform`, with numbers in place of `names`.
    pub fn paint(&self, pixels: &mut Pixmap, transform: Transform, names: &NumberedNames) {
        self.0.iter().for_each(|shape| shape.paint(pixels, transform, names));
    }
}

/// A number rounded to tenths of a pixel, as short as possible.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

impl Shape {
    fn svg(&self) -> Markup {
        match self {
            Self::Rectangle { at: [x, y], size: [width, height], color, opacity } => html! {
                rect x=(short(*x)) y=(short(*y)) width=(short(*width)) height=(short(*height)) fill=(color.hex())
                    fill-opacity=[(*opacity < 1.0).then(|| format!("{opacity:.3}"))] {}
            },
            Self::Path { points, color, width, dashed } => {
                let points: Vec<String> = points.iter().map(|[x, y]| format!("{},{}", short(*x), short(*y))).collect();
                html! {
                    polyline points=(points.join(" ")) fill="none" stroke=(color.hex()) stroke-width=(short(*width))
                        stroke-linejoin="round" stroke-dasharray=[dashed.then_some("5 4")] {}
                }
            }
            Self::Dots { points, color, radius, opacity } => {
                // A line of length 0 with round ends is a dot, and takes a tenth of the text of a circle.
                let path = points.iter().fold(String::new(), |mut path, [x, y]| {
                    write!(path, "M{} {}h0", short(*x), short(*y)).expect("a string takes everything");
                    path
                });
                html! {
                    path d=(path) fill="none" stroke=(color.hex()) stroke-width=(short(2.0 * radius))
                        stroke-linecap="round" stroke-opacity=[(*opacity < 1.0).then_some(opacity)] {}
                }
            }
            Self::Ring { at: [x, y], radius, color } => html! {
                circle cx=(short(*x)) cy=(short(*y)) r=(radius) fill="none" stroke=(color.hex()) stroke-width="1.5" {}
            },
            Self::Text(text) => text.svg(),
            Self::Image { at: [x, y], size: [width, height], image } => {
                let rendering = (f64::from(image.width()) < *width).then_some("pixelated");
                html! {
                    image x=(short(*x)) y=(short(*y)) width=(short(*width)) height=(short(*height))
                        preserveAspectRatio="none" image-rendering=[rendering] href=(data_uri(image)) {}
                }
            }
        }
    }

    fn paint(&self, pixels: &mut Pixmap, transform: Transform, names: &NumberedNames) {
        match self {
            Self::Rectangle { at: [x, y], size: [width, height], color, opacity } => {
                let rect = Rect::from_xywh(*x as f32, *y as f32, *width as f32, *height as f32);
                if let Some(rect) = rect {
                    pixels.fill_rect(rect, &paint(*color, *opacity), transform, None);
                }
            }
            Self::Path { points, color, width, dashed } => {
                let dash = dashed.then(|| StrokeDash::new(vec![5.0, 4.0], 0.0)).flatten();
                let stroke = Stroke { width: *width as f32, line_join: LineJoin::Round, dash, ..Stroke::default() };
                if let Some(path) = polyline(points) {
                    pixels.stroke_path(&path, &paint(*color, 1.0), &stroke, transform, None);
                }
            }
            Self::Dots { points, color, radius, opacity } => {
                let mut builder = PathBuilder::new();
                points.iter().for_each(|[x, y]| builder.push_circle(*x as f32, *y as f32, *radius as f32));
                if let Some(path) = builder.finish() {
                    pixels.fill_path(&path, &paint(*color, *opacity), FillRule::Winding, transform, None);
                }
            }
            Self::Ring { at: [x, y], radius, color } => {
                let path = PathBuilder::from_circle(*x as f32, *y as f32, *radius as f32);
                let stroke = Stroke { width: 1.5, ..Stroke::default() };
                if let Some(path) = path {
                    pixels.stroke_path(&path, &paint(*color, 1.0), &stroke, transform, None);
                }
            }
            Self::Text(text) => text.paint(pixels, transform, names),
            Self::Image { at: [x, y], size: [width, height], image } => {
                let (columns, rows) = image.dimensions();
                let Some(mut source) = Pixmap::new(columns, rows) else { return };
                for (to, from) in source.data_mut().chunks_exact_mut(4).zip(image.as_raw().chunks_exact(3)) {
                    to.copy_from_slice(&[from[0], from[1], from[2], 255]);
                }
                let enlarged = f64::from(columns) < *width;
                let quality = if enlarged { FilterQuality::Nearest } else { FilterQuality::Bilinear };
                let scale = [*width as f32 / columns as f32, *height as f32 / rows as f32];
                let placed = transform.pre_translate(*x as f32, *y as f32).pre_scale(scale[0], scale[1]);
                let how = PixmapPaint { quality, ..PixmapPaint::default() };
                pixels.draw_pixmap(0, 0, source.as_ref(), &how, placed, None);
            }
        }
    }
}

impl Text {
    fn svg(&self) -> Markup {
        let [x, y] = self.at.map(short);
        let anchor = match self.anchor {
            Anchor::Start => None,
            Anchor::Middle => Some("middle"),
            Anchor::End => Some("end"),
        };
        let halo = self.halo.then(|| GROUND.hex());
        html! {
            text x=(x) y=(y) font-family="sans-serif" font-size=(self.size) fill=(self.color.hex()) text-anchor=[anchor]
                transform=[self.upward.then(|| format!("rotate(-90 {x} {y})"))]
                stroke=[halo] stroke-width=[self.halo.then_some(2.0 * HALO)]
                stroke-linejoin=[self.halo.then_some("round")] paint-order=[self.halo.then_some("stroke")] {
                (self.words)
            }
        }
    }

    fn paint(&self, pixels: &mut Pixmap, transform: Transform, names: &NumberedNames) {
        let words = names.replaced(&self.words);
        let width = advance(&words, self.size);
        let start = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        let mut placed = transform.pre_translate(self.at[0] as f32, self.at[1] as f32);
        if self.upward {
            placed = placed.pre_rotate(-90.0);
        }
        let Some(path) = outline(&words, self.size, start) else { return };
        if self.halo {
            let stroke = Stroke {
                width: 2.0 * HALO as f32,
                line_join: LineJoin::Round,
                line_cap: LineCap::Round,
                ..Stroke::default()
            };
            pixels.stroke_path(&path, &paint(GROUND, 1.0), &stroke, placed, None);
        }
        pixels.fill_path(&path, &paint(self.color, 1.0), FillRule::Winding, placed, None);
    }
}

/// Outlines of the letters in sequence, starting at `x`.
fn outline(words: &str, size: f64, mut x: f64) -> Option<Path> {
    let scale = font_scale(size);
    let mut builder = PathBuilder::new();
    for letter in words.chars() {
        let glyph = FONT.glyph_id(letter);
        let mut end = None;
        for curve in FONT.outline(glyph).map(|outline| outline.curves).unwrap_or_default() {
            let place = |point: ab_glyph::Point| {
                ((x + f64::from(point.x) * scale) as f32, (-f64::from(point.y) * scale) as f32)
            };
            let (from, to) = match curve {
                OutlineCurve::Line(from, to)
                | OutlineCurve::Quad(from, _, to)
                | OutlineCurve::Cubic(from, _, _, to) => (place(from), place(to)),
            };
            if end != Some(from) {
                builder.move_to(from.0, from.1);
            }
            match curve {
                OutlineCurve::Line(..) => builder.line_to(to.0, to.1),
                OutlineCurve::Quad(_, control, _) => {
                    let control = place(control);
                    builder.quad_to(control.0, control.1, to.0, to.1);
                }
                OutlineCurve::Cubic(_, first, second, _) => {
                    let (first, second) = (place(first), place(second));
                    builder.cubic_to(first.0, first.1, second.0, second.1, to.0, to.1);
                }
            }
            end = Some(to);
        }
        x += f64::from(FONT.h_advance_unscaled(glyph)) * scale;
    }
    builder.finish()
}

fn polyline(points: &[Point]) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (index, [x, y]) in points.iter().enumerate() {
        let (x, y) = (*x as f32, *y as f32);
        if index == 0 { builder.move_to(x, y) } else { builder.line_to(x, y) }
    }
    builder.finish()
}

fn paint(Shade(red, green, blue): Shade, opacity: f64) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    let [red, green, blue] = [red, green, blue].map(|value| f32::from(value) / 255.0);
    let opacity = opacity.clamp(0.0, 1.0) as f32;
    paint.set_color(Color::from_rgba(red, green, blue, opacity).expect("shares between 0 and 1"));
    paint
}

/// The image as a PNG in a data URI.
fn data_uri(image: &RgbImage) -> String {
    let mut bytes = Cursor::new(vec![]);
    image.write_to(&mut bytes, ImageFormat::Png).expect("PNG takes every image of eight bits");
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes.into_inner()))
}
