//! A panel with axes: lines, bars and marks, drawn by plotters.

use std::ops::Range;

use plotters::coord::ranged1d::BindKeyPoints;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figure::Panel;
use crate::theme::{INK, LINE, SOFT, UNIT, fitted, font, px, text_width};

/// What is drawn between two axes.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub title: String,
    /// In CSS pixels.
    pub size: [f64; 2],
    pub x: Axis,
    pub y: Axis,
    pub bars: Vec<Bar>,
    pub lines: Vec<Line>,
    pub rules: Vec<Rule>,
    /// Values with a ring around them and a text beside it.
    pub marks: Vec<([f64; 2], String)>,
    /// Colours and what they stand for, below the title.
    pub legend: Vec<(RGBColor, String)>,
}

/// One axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub name: &'static str,
    /// Of the values, widened to something with a length where they have none.
    pub range: Range<f64>,
    pub scale: Scale,
}

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// With ticks at whole numbers alone.
    Whole,
    Log,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub colour: RGBColor,
    /// In CSS pixels.
    pub width: f64,
    /// Values that are no numbers leave a gap.
    pub points: Vec<[f64; 2]>,
    /// Whether each value has a dot.
    pub dots: bool,
}

/// A filled rectangle from corner to corner, in the axes' values.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub colour: RGBColor,
    pub opacity: f64,
    pub from: [f64; 2],
    pub to: [f64; 2],
}

/// A dashed line across, with a text at its end.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Horizontal(f64, String),
    Vertical(f64, String),
}

/// Size of letters on axes and in legends, in CSS pixels.
const SMALL: f64 = 11.5;
/// Between a chart's edge and what is drawn in it.
const MARGIN: f64 = 8.0;

type Coord = BindKeyPoints<RangedCoordf64>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Context<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<Coord, Coord>>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Axis {
    /// An axis over the finite ones of `values`, a twentieth wider at both ends.
    pub fn over(name: &'static str, scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let usable = |value: &f64| value.is_finite() && (scale != Scale::Log || *value > 0.0);
        let mut range = f64::INFINITY..f64::NEG_INFINITY;
        for value in values.filter(usable) {
            let value = if scale == Scale::Log { value.log10() } else { value };
            range = range.start.min(value)..range.end.max(value);
        }
        if range.start > range.end {
            range = 0.0..1.0;
        }
        let length = range.end - range.start;
        // Of one value, or of values that differ in their last digits alone, too.
        let room = if length > 1e-9 * range.end.abs() { 0.05 * length } else { 0.5 * range.end.abs().max(1.0) };
        range = range.start - room..range.end + room;
        if scale == Scale::Log {
            range = 10.0_f64.powf(range.start)..10.0_f64.powf(range.end);
        }
        Self { name, range, scale }
    }

    /// The same, no lower than 0 and no higher than `most`.
    pub fn within(mut self, most: f64) -> Self {
        let range = self.range.start.max(0.0)..self.range.end.min(most);
        if range.end > range.start {
            self.range = range;
        }
        self
    }

    /// The same, from 0.
    pub fn from_zero(mut self) -> Self {
        self.range.start = 0.0;
        self.range.end = self.range.end.max(f64::MIN_POSITIVE);
        self
    }

    /// Where a value lies for plotters.
    fn place(&self, value: f64) -> f64 {
        if self.scale == Scale::Log { value.log10() } else { value }
    }

    /// At most about that many values to be named, and the distance between them on a linear axis.
    fn ticks(&self, most: usize) -> (Vec<f64>, f64) {
        match self.scale {
            Scale::Log => (log_ticks(&self.range, most), 0.0),
            scale => {
                let least = if scale == Scale::Whole { 1.0 } else { 0.0 };
                let step = step(self.range.end - self.range.start, most).max(least);
                let first = (self.range.start / step).ceil() as i64;
                let last = (self.range.end / step + 1e-9).floor() as i64;
                ((first..=last).map(|tick| tick as f64 * step).collect(), step)
            }
        }
    }

    /// A tick in words, on a linear axis with as many digits as its steps need.
    fn text(&self, value: f64, step: f64) -> String {
        match self.scale {
            Scale::Log => rate(value),
            _ => {
                let decimals = (-step.log10()).ceil().max(0.0) as usize;
                // 0.25 needs one digit more than its size says.
                let exact = (step * 10.0_f64.powi(decimals as i32)).fract() < 1e-6;
                format!("{value:.*}", if exact { decimals } else { decimals + 1 })
            }
        }
    }
}

/// A number over many orders of magnitude, such as a learning rate: `0.05`, `3e-5`.
pub(crate) fn rate(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().expect("a number that was just written");
    if (1e-3..1e4).contains(&rounded.abs()) || rounded == 0.0 { format!("{rounded}") } else { format!("{rounded:e}") }
}

/// 1, 2, 2.5 or 5 times a power of ten, so that at most about `most` of them make `length`.
fn step(length: f64, most: usize) -> f64 {
    let least = length / most as f64;
    let power = 10.0_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|factor| factor * power >= least * 0.999);
    factor.unwrap_or(10.0) * power
}

/// Powers of ten in the range; also their double and fivefold, or their ninefold and all between, where
/// the range has few.
fn log_ticks(range: &Range<f64>, most: usize) -> Vec<f64> {
    let decades = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let every = |factors: &[f64], stride: usize| -> Vec<f64> {
        let decades = decades.clone().filter(|decade| decade.rem_euclid(stride as i32) == 0);
        let ticks = decades.flat_map(|decade| factors.iter().map(move |factor| factor * 10.0_f64.powi(decade)));
        ticks.filter(|tick| (range.start..=range.end * (1.0 + 1e-9)).contains(tick)).collect()
    };
    let dense: [&[f64]; 3] =
        [&[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], &[1.0, 2.0, 5.0], &[1.0]];
    let found = dense.into_iter().map(|factors| every(factors, 1)).find(|ticks| ticks.len() <= most);
    found.unwrap_or_else(|| every(&[1.0], (range.end / range.start).log10() as usize / most + 1))
}

impl Chart {
    /// Draws it.
    pub fn draw(&self) -> Panel {
        let size = self.size.map(|pixels| px(pixels) as u32);
        let mut svg = String::new();
        let drawn = self.draw_on(SVGBackend::with_string(&mut svg, (size[0], size[1])).into_drawing_area());
        drawn.expect("nothing fails in a string");
        let start = svg.find('>').map_or(0, |end| end + 1);
        let end = svg.rfind("</svg>").unwrap_or(svg.len());
        Panel {
            size: self.size,
            view: size.map(f64::from),
            contents: svg[start..end].trim().to_owned(),
            label: self.title.clone(),
        }
    }

    fn draw_on(&self, root: Area) -> Drawn {
        let header = self.draw_header(&root)?;
        let (x_ticks, x_step) = self.x.ticks((self.size[0] / 60.0) as usize);
        let (y_ticks, y_step) = self.y.ticks((self.size[1] / 40.0) as usize);
        let y_texts = y_ticks.iter().map(|tick| text_width(&self.y.text(*tick, y_step), SMALL));
        let y_room = y_texts.fold(0.0, f64::max) + 12.0;
        let named = |axis: &Axis| if axis.name.is_empty() { 0.0 } else { SMALL * 1.6 };

        let mut builder = ChartBuilder::on(&root);
        builder
            .margin_top(px(header))
            .margin_left(px(MARGIN))
            .margin_right(px(14.0))
            .margin_bottom(px(4.0))
            .x_label_area_size(px(SMALL * 1.8 + named(&self.x)))
            .y_label_area_size(px(y_room + named(&self.y)));
        let coord = |axis: &Axis, ticks: &[f64]| {
            let ticks = ticks.iter().map(|tick| axis.place(*tick)).collect();
            (axis.place(axis.range.start)..axis.place(axis.range.end)).with_key_points(ticks)
        };
        let mut chart = builder.build_cartesian_2d(coord(&self.x, &x_ticks), coord(&self.y, &y_ticks))?;
        let value = |axis: &Axis, place: f64| if axis.scale == Scale::Log { 10.0_f64.powf(place) } else { place };
        let small = font(SMALL).color(&SOFT);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(LINE.stroke_width(px(1.0) as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(SOFT.stroke_width(px(1.0) as u32))
            .set_all_tick_mark_size(px(4.0))
            .label_style(small.clone())
            .axis_desc_style(small)
            .x_desc(self.x.name)
            .y_desc(self.y.name)
            .x_label_formatter(&|place| self.x.text(value(&self.x, *place), x_step))
            .y_label_formatter(&|place| self.y.text(value(&self.y, *place), y_step))
            .draw()?;
        for Bar { colour, opacity, from, to } in &self.bars {
            let corners = [from, to].map(|[x, y]| (self.x.place(*x), self.y.place(*y)));
            chart.plotting_area().draw(&Rectangle::new(corners, colour.mix(*opacity).filled()))?;
        }
        self.rules.iter().try_for_each(|rule| self.draw_rule(&chart, rule))?;
        self.lines.iter().try_for_each(|line| self.draw_line(&chart, line))?;
        self.marks.iter().try_for_each(|(at, text)| self.draw_mark(&chart, *at, text))
    }

    /// Title and legend; the height that they take.
    fn draw_header(&self, root: &Area) -> Result<f64, DrawingAreaErrorKind<std::io::Error>> {
        let mut y = MARGIN + 8.0;
        let anchor = Pos::new(HPos::Left, VPos::Center);
        let title = fitted(&self.title, 14.0, self.size[0] - 2.0 * MARGIN);
        root.draw(&Text::new(title, (px(MARGIN), px(y)), font(14.0).color(&INK).pos(anchor)))?;
        if !self.legend.is_empty() {
            y += 20.0;
        }
        let mut x = MARGIN;
        for (colour, name) in &self.legend {
            let name = fitted(name, SMALL, self.size[0] - 2.0 * MARGIN - 18.0);
            let width = text_width(&name, SMALL) + 32.0;
            if x > MARGIN && x + width - 14.0 > self.size[0] - MARGIN {
                (x, y) = (MARGIN, y + 17.0);
            }
            let swatch = [(px(x), px(y - 1.5)), (px(x + 12.0), px(y + 1.5))];
            root.draw(&Rectangle::new(swatch, colour.filled()))?;
            root.draw(&Text::new(name, (px(x + 17.0), px(y)), font(SMALL).color(&INK).pos(anchor)))?;
            x += width;
        }
        Ok(y + 16.0)
    }

    fn draw_rule(&self, chart: &Context, rule: &Rule) -> Drawn {
        let area = chart.plotting_area();
        let at = |x: f64, y: f64| area.map_coordinate(&(self.x.place(x), self.y.place(y)));
        let (x, y) = (&self.x.range, &self.y.range);
        let (from, to, text) = match rule {
            Rule::Horizontal(value, text) => (at(x.start, *value), at(x.end, *value), text),
            Rule::Vertical(value, text) => (at(*value, y.start), at(*value, y.end), text),
        };
        let root = area.strip_coord_spec();
        // Of a stripped area, the corner is its origin.
        let (left, top) = root.get_base_pixel();
        let inside = |(x, y): (i32, i32)| (x - left, y - top);
        let (from, to) = (inside(from), inside(to));
        let style = SOFT.stroke_width(px(1.2) as u32);
        root.draw(&DashedPathElement::new(vec![from, to], px(5.0), px(4.0), style))?;
        let (anchor, place) = match rule {
            Rule::Horizontal(..) => (Pos::new(HPos::Right, VPos::Bottom), (to.0 - px(2.0), to.1 - px(2.0))),
            Rule::Vertical(..) => (Pos::new(HPos::Left, VPos::Top), (to.0 + px(3.0), to.1 + px(1.0))),
        };
        root.draw(&Text::new(text.clone(), place, font(SMALL).color(&SOFT).pos(anchor)))
    }

    fn draw_line(&self, chart: &Context, line: &Line) -> Drawn {
        let style = line.colour.stroke_width(px(line.width) as u32);
        let place = |[x, y]: &[f64; 2]| (self.x.place(*x), self.y.place(*y));
        let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let places: Vec<_> = line.points.iter().map(place).collect();
        let area = chart.plotting_area();
        for run in places.split(|place| !finite(place)).filter(|run| !run.is_empty()) {
            if let [_, _, ..] = run {
                area.draw(&PathElement::new(run, style))?;
            }
            if line.dots || run.len() == 1 {
                for place in run {
                    area.draw(&Circle::new(*place, px(line.width * 1.3), line.colour.filled()))?;
                }
            }
        }
        Ok(())
    }

    fn draw_mark(&self, chart: &Context, [x, y]: [f64; 2], text: &str) -> Drawn {
        let area = chart.plotting_area();
        let (at_x, at_y) = area.map_coordinate(&(self.x.place(x), self.y.place(y)));
        let root = area.strip_coord_spec();
        let (left, top) = root.get_base_pixel();
        let (at_x, at_y) = (at_x - left, at_y - top);
        root.draw(&Circle::new((at_x, at_y), px(5.0), INK.stroke_width(px(1.5) as u32)))?;
        let (width, height) = root.dim_in_pixel();
        // Where there is room: on the side that is further from the edge, below where the ring is at the top.
        let right = at_x > width as i32 / 2;
        let below = at_y < height as i32 / 2;
        let anchor =
            Pos::new(if right { HPos::Right } else { HPos::Left }, if below { VPos::Top } else { VPos::Bottom });
        let place = (at_x, at_y + if below { px(9.0) } else { px(-9.0) });
        root.draw(&Text::new(text.to_owned(), place, font(SMALL).color(&INK).pos(anchor)))
    }
}

/// A panel that plotters draws without axes, by pixels of CSS times [`UNIT`].
pub(crate) fn canvas(label: String, size: [f64; 2], draw: impl FnOnce(&Area) -> Drawn) -> Panel {
    let units = size.map(|pixels| px(pixels) as u32);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (units[0], units[1])).into_drawing_area();
        draw(&root).and_then(|()| root.present()).expect("nothing fails in a string");
    }
    let start = svg.find('>').map_or(0, |end| end + 1);
    let end = svg.rfind("</svg>").unwrap_or(svg.len());
    Panel { size, view: units.map(f64::from), contents: svg[start..end].trim().to_owned(), label }
}
