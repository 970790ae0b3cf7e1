//! A panel with axes, lines, bars and marks.

use std::ops::Range;

use crate::drawing::{Anchor, Drawing, Point, Text};
use crate::figure::Panel;
use crate::theme::{INK, LARGE, LINE, SMALL, SOFT, Shade, fitted, text_width};

/// A chart with two axes.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub title: String,
    /// Size in CSS pixels.
    pub size: [f64; 2],
    pub x: Axis,
    pub y: Axis,
    pub bars: Vec<Bar>,
    pub lines: Vec<Line>,
    pub rules: Vec<Rule>,
    /// Points marked with a ring.
    pub marks: Vec<[f64; 2]>,
    /// Colors and their meaning, below the title.
    pub legend: Vec<(Shade, String)>,
}

/// One axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub name: &'static str,
    /// Range of the values, widened if its length would be 0.
    pub range: Range<f64>,
    pub scale: Scale,
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Linear, with ticks only at whole numbers.
    Whole,
    Log,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub color: Shade,
    /// Width in CSS pixels.
    pub width: f64,
    /// Points that are not finite or outside the axes leave a gap.
    pub points: Vec<[f64; 2]>,
    /// Whether each point has a dot.
    pub dots: bool,
}

/// A filled rectangle between two corners, in values of the axes.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub color: Shade,
    pub opacity: f64,
    pub from: [f64; 2],
    pub to: [f64; 2],
}

/// A dashed line across the plot.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// At this y value, with a text at its end.
    Horizontal(f64, String),
    /// At this x value, with a text at its top.
    Vertical(f64, String),
    /// From corner to corner.
    Diagonal,
}

/// Distance between a chart's edge and its contents.
const MARGIN: f64 = 8.0;
/// Room to the right of the plot for the end of the last tick's text.
const RIGHT: f64 = 18.0;

impl Axis {
    /// An axis over the finite `values`, extended by a twentieth at both ends.
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
        // Also for one value, or for values that differ only in their last digits.
        let room = match length > 1e-9 * range.end.abs() {
            true => 0.05 * length,
            false if scale == Scale::Log => 0.5,
            false => 0.5 * range.end.abs().max(1.0),
        };
        range = range.start - room..range.end + room;
        if scale == Scale::Log {
            range = 10.0_f64.powf(range.start)..10.0_f64.powf(range.end);
        }
        Self { name, range, scale }
    }

    /// The same axis, limited to 0..`most`.
    pub fn within(mut self, most: f64) -> Self {
        let range = self.range.start.max(0.0)..self.range.end.min(most);
        if range.end > range.start {
            self.range = range;
        }
        self
    }

    /// The same axis, starting at 0.
    pub fn starting_at_zero(mut self) -> Self {
        self.range.start = 0.0;
        self.range.end = self.range.end.max(f64::MIN_POSITIVE);
        self
    }

    /// Position of a value: 0 at the start of the axis, 1 at its end.
    fn share(&self, value: f64) -> f64 {
        let place = |value: f64| if self.scale == Scale::Log { value.log10() } else { value };
        (place(value) - place(self.range.start)) / (place(self.range.end) - place(self.range.start))
    }

    /// Whether a value is on the axis, with tolerance for rounding errors.
    fn has(&self, value: f64) -> bool {
        (-1e-9..=1.0 + 1e-9).contains(&self.share(value))
    }

    /// At most about `most` values for ticks, and the distance between them on a linear axis.
    fn ticks(&self, most: usize) -> (Vec<f64>, f64) {
        match self.scale {
            Scale::Log => (log_ticks(&self.range, most), 0.0),
            scale => {
                let length = self.range.end - self.range.start;
                let step = step(length, most, if scale == Scale::Whole { 1.0 } else { 0.0 });
                let first = (self.range.start / step).ceil() as i64;
                let last = (self.range.end / step + 1e-9).floor() as i64;
                ((first..=last).map(|tick| tick as f64 * step).collect(), step)
            }
        }
    }

    /// The text of a tick. On a linear axis it has as many digits as the step needs.
    fn text(&self, value: f64, step: f64) -> String {
        match self.scale {
            Scale::Log => rate(value),
            _ => {
                let decimals = (-step.log10()).ceil().max(0.0) as usize;
                // A step of 0.25 needs one digit more than its magnitude suggests.
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

/// 1, 2, 2.5 or 5 times a power of ten, so that at most about `most` steps fit in `length`; a multiple of `whole`
/// unless that is 0.
fn step(length: f64, most: usize, whole: f64) -> f64 {
    let least = (length / most as f64).max(whole);
    let power = 10.0_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    let fits = |step: &f64| *step >= least * 0.95 && (whole == 0.0 || (step / whole).fract() < 1e-9);
    steps.into_iter().find(fits).unwrap_or(10.0 * power)
}

/// Powers of ten in the range. If there are few, also their multiples by 2 and 5, or by 1.5 to 9.
fn log_ticks(range: &Range<f64>, most: usize) -> Vec<f64> {
    let decades = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let every = |factors: &[f64], stride: usize| -> Vec<f64> {
        let decades = decades.clone().filter(|decade| decade.rem_euclid(stride as i32) == 0);
        let ticks = decades.flat_map(|decade| factors.iter().map(move |factor| factor * 10.0_f64.powi(decade)));
        ticks.filter(|tick| (range.start..=range.end * (1.0 + 1e-9)).contains(tick)).collect()
    };
    let dense: [&[f64]; 3] = [&[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], &[1.0, 2.0, 5.0], &[1.0]];
    let found = dense.into_iter().map(|factors| every(factors, 1)).find(|ticks| ticks.len() <= most);
    found.unwrap_or_else(|| every(&[1.0], (range.end / range.start).log10() as usize / most + 1))
}

/// The area of a panel between the axes.
struct Plot<'a> {
    chart: &'a Chart,
    at: Point,
    size: [f64; 2],
}

impl Chart {
    /// Draws the chart.
    pub fn draw(&self) -> Panel {
        let mut drawing = Drawing::default();
        let top = self.header(&mut drawing);
        let (x_ticks, x_step) = self.x.ticks((self.size[0] / 50.0) as usize);
        let (y_ticks, y_step) = self.y.ticks((self.size[1] / 40.0) as usize);
        let y_texts: Vec<String> = y_ticks.iter().map(|tick| self.y.text(*tick, y_step)).collect();
        let widest = y_texts.iter().map(|text| text_width(text, SMALL)).fold(0.0, f64::max);
        let named = |axis: &Axis| if axis.name.is_empty() { 0.0 } else { 18.0 };
        let at = [MARGIN + named(&self.y) + widest + 6.0, top];
        let size = [self.size[0] - at[0] - RIGHT, self.size[1] - top - 22.0 - named(&self.x)];
        let plot = Plot { chart: self, at, size };
        let ([left, top], [width, height]) = (at, size);
        let bottom = top + height;

        for (tick, text) in y_ticks.iter().zip(y_texts) {
            let y = plot.y(*tick);
            drawing.path(vec![[left, y], [left + width, y]], LINE, 1.0);
            drawing.text(Text::new(text, [left - 6.0, y], SMALL, SOFT).anchored(Anchor::End));
        }
        drawing.path(vec![[left, bottom], [left + width, bottom]], SOFT, 1.0);
        for tick in x_ticks {
            let x = plot.x(tick);
            drawing.path(vec![[x, bottom], [x, bottom + 4.0]], SOFT, 1.0);
            drawing
                .text(Text::new(self.x.text(tick, x_step), [x, bottom + 12.0], SMALL, SOFT).anchored(Anchor::Middle));
        }
        let middle = [left + width / 2.0, bottom + 29.0];
        drawing.text(Text::new(self.x.name, middle, SMALL, SOFT).anchored(Anchor::Middle));
        let middle = [MARGIN + 5.0, top + height / 2.0];
        drawing.text(Text::new(self.y.name, middle, SMALL, SOFT).anchored(Anchor::Middle).upward());

        self.bars.iter().for_each(|bar| plot.bar(&mut drawing, bar));
        self.rules.iter().enumerate().for_each(|(index, rule)| plot.rule(&mut drawing, index, rule));
        self.lines.iter().for_each(|line| plot.line(&mut drawing, line));
        self.marks.iter().for_each(|[x, y]| drawing.ring([plot.x(*x), plot.y(*y)], 5.0, INK));
        Panel { label: self.title.clone(), size: self.size, drawing }
    }

    /// Draws title and legend, and returns their height.
    fn header(&self, drawing: &mut Drawing) -> f64 {
        drawing.title(fitted(&self.title, LARGE, self.size[0] - 2.0 * MARGIN));
        let y = legend(drawing, &self.legend, self.size[0]);
        y + 18.0
    }
}

/// Draws colors and their meaning below a title, in as many lines as they need. Returns the y of the last line's
/// middle.
pub(crate) fn legend(drawing: &mut Drawing, entries: &[(Shade, String)], width: f64) -> f64 {
    let mut y = if entries.is_empty() { 16.0 } else { 36.0 };
    let mut x = MARGIN;
    for (color, name) in entries {
        let name = fitted(name, SMALL, width - 2.0 * MARGIN - 17.0);
        let length = 17.0 + text_width(&name, SMALL);
        if x > MARGIN && x + length > width - MARGIN {
            (x, y) = (MARGIN, y + 17.0);
        }
        drawing.rectangle([x, y - 2.0], [12.0, 4.0], *color, 1.0);
        drawing.text(Text::new(name, [x + 17.0, y], SMALL, INK));
        x += length + 16.0;
    }
    y
}

impl Plot<'_> {
    fn x(&self, value: f64) -> f64 {
        self.at[0] + self.size[0] * self.chart.x.share(value)
    }

    fn y(&self, value: f64) -> f64 {
        self.at[1] + self.size[1] * (1.0 - self.chart.y.share(value))
    }

    fn bar(&self, drawing: &mut Drawing, Bar { color, opacity, from, to }: &Bar) {
        let ([x0, x1], [y0, y1]) = ([self.x(from[0]), self.x(to[0])], [self.y(from[1]), self.y(to[1])]);
        drawing.rectangle([x0.min(x1), y0.min(y1)], [(x1 - x0).abs(), (y1 - y0).abs()], *color, *opacity);
    }

    /// Draws the `index`th rule. The texts of vertical rules are placed one below the other.
    fn rule(&self, drawing: &mut Drawing, index: usize, rule: &Rule) {
        let ([left, top], [width, height]) = (self.at, self.size);
        let (right, bottom) = (left + width, top + height);
        let text = match rule {
            Rule::Horizontal(value, text) => {
                let y = self.y(*value);
                drawing.dashes([left, y], [right, y], SOFT);
                Text::new(text, [right - 2.0, y - 8.0], SMALL, SOFT).anchored(Anchor::End)
            }
            Rule::Vertical(value, text) => {
                let x = self.x(*value);
                drawing.dashes([x, bottom], [x, top], SOFT);
                let y = top + 7.0 + 16.0 * index as f64;
                match x < left + 0.66 * width {
                    true => Text::new(text, [x + 4.0, y], SMALL, SOFT),
                    false => Text::new(text, [x - 4.0, y], SMALL, SOFT).anchored(Anchor::End),
                }
            }
            Rule::Diagonal => return drawing.dashes([left, bottom], [right, top], SOFT),
        };
        drawing.text(text.with_halo());
    }

    fn line(&self, drawing: &mut Drawing, Line { color, width, points, dots }: &Line) {
        let (x, y) = (&self.chart.x, &self.chart.y);
        let visible = |point: &[f64; 2]| x.has(point[0]) && y.has(point[1]);
        for run in points.split(|point| !visible(point)).filter(|run| !run.is_empty()) {
            let places: Vec<Point> = run.iter().map(|point| [self.x(point[0]), self.y(point[1])]).collect();
            if *dots || run.len() == 1 {
                drawing.dots(places.clone(), *color, width * 1.3, 1.0);
            }
            if run.len() > 1 {
                drawing.path(places, *color, *width);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, values: &[f64]) -> Axis {
        Axis::over("", scale, values.iter().copied())
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let texts = |axis: &Axis, most| {
            let (ticks, step) = axis.ticks(most);
            ticks.iter().map(|tick| axis.text(*tick, step)).collect::<Vec<_>>()
        };
        assert_eq!(texts(&axis(Scale::Linear, &[0.12, 2.31]), 5), ["0.5", "1.0", "1.5", "2.0"]);
        assert_eq!(texts(&axis(Scale::Linear, &[0.0, 1.0]), 5), ["0.00", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(texts(&axis(Scale::Whole, &[1.0, 3.0]), 7), ["1", "2", "3"]);
        assert_eq!(texts(&axis(Scale::Whole, &[1.0]), 7), ["1"]);
        assert_eq!(texts(&axis(Scale::Whole, &[1.0, 14.0]), 7), ["2", "4", "6", "8", "10", "12", "14"]);
        assert_eq!(texts(&axis(Scale::Log, &[1e-5, 0.2]), 7), ["1e-5", "1e-4", "0.001", "0.01", "0.1"]);
        assert_eq!(texts(&axis(Scale::Log, &[0.05, 0.2]), 7), ["0.05", "0.1", "0.2"]);
    }

    #[test]
    fn axes_have_a_length_whatever_the_values() {
        for values in [&[][..], &[0.0], &[3.0, 3.0], &[f64::NAN], &[f64::INFINITY, 1.0], &[-1e300, 1e300], &[1e-320]] {
            for scale in [Scale::Linear, Scale::Whole, Scale::Log] {
                let axis = axis(scale, values);
                let Range { start, end } = axis.range;
                assert!(start.is_finite() && end.is_finite() && end > start, "{axis:?} of {values:?}");
                assert!(axis.ticks(7).0.len() < 30, "{axis:?}");
            }
        }
    }

    #[test]
    fn learning_rates_are_short() {
        assert_eq!([0.1, 0.05, 3e-4, 1e-6, 0.0, 0.123456].map(rate), ["0.1", "0.05", "3e-4", "1e-6", "0", "0.123"]);
    }
}
