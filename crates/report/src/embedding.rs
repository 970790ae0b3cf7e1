//! The network's features in two dimensions: t-SNE (van der Maaten and Hinton 2008) with Barnes-Hut trees (van der
//! Maaten 2014).

use bhtsne::Neighbor;
use kiln_train::Predictions;
use rayon::prelude::*;

use crate::chart::legend;
use crate::drawing::{Anchor, Drawing, Point, Text};
use crate::figure::{Figure, Panel};
use crate::theme::{CLASSES, INK, LINE, SKY, SMALL, Shade, VERMILLION, fitted, text_width};
use crate::words::{count, percent};

/// Minimum number of images: fewer have no meaningful neighborhoods.
const LEAST: usize = 30;

/// Positions of images in the plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Indices of the images in the predictions.
    pub indices: Vec<usize>,
    pub points: Vec<[f32; 2]>,
}

impl Embedding {
    /// Embeds the features of at most `most` images, evenly spaced over the set. The start is their first two principal
    /// components (Kobak and Berens 2019), so that the same features give the same embedding.
    ///
    /// `None` if there are fewer than 30 images, or if the features are not finite or do not differ.
    pub fn of(predictions: &Predictions, most: usize) -> Option<Self> {
        let images = predictions.len().min(most);
        if images < LEAST || predictions.features.is_empty() {
            return None;
        }
        let width = predictions.features.len() / predictions.len();
        let indices: Vec<usize> = (0..images).map(|image| image * predictions.len() / images).collect();
        let features: Vec<&[f32]> =
            indices.iter().map(|index| &predictions.features[index * width..][..width]).collect();
        let start = principal_components(&features)?;
        let perplexity = PERPLEXITY.min((images - 1) / 3);
        let neighbors = neighbors(&features, 3 * perplexity);
        let mut tsne = bhtsne::tSNE::<f32, &[f32], 2>::new(&features);
        tsne.perplexity(perplexity as f32).epochs(EPOCHS).initial_embedding(start);
        let points = tsne.barnes_hut_with_neighbors(0.5, &neighbors);
        let points: Vec<[f32; 2]> = points.embedding().chunks_exact(2).map(|point| [point[0], point[1]]).collect();
        points.iter().flatten().all(|value| value.is_finite()).then_some(Self { indices, points })
    }
}

/// Steps of gradient descent.
const EPOCHS: usize = 750;
/// Average effective number of neighbors of an image.
const PERPLEXITY: usize = 30;

/// The `count` nearest neighbors of every row, by ascending distance. All pairs are compared: in this many dimensions a
/// tree saves little, and the library's tree is random.
fn neighbors(rows: &[&[f32]], count: usize) -> Vec<Vec<Neighbor<f32>>> {
    let nearest = |(row, features): (usize, &&[f32])| {
        let others = rows.iter().enumerate().filter(|(index, _)| *index != row);
        let mut found: Vec<_> = others
            .map(|(index, other)| Neighbor { index, distance: squared_distance(features, other).sqrt() })
            .collect();
        let order =
            |a: &Neighbor<f32>, b: &Neighbor<f32>| a.distance.total_cmp(&b.distance).then(a.index.cmp(&b.index));
        found.select_nth_unstable_by(count - 1, order);
        found.truncate(count);
        found.sort_unstable_by(order);
        found
    };
    rows.par_iter().enumerate().map(nearest).collect()
}

/// Sums in lanes, which the compiler keeps in registers.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += (a - b) * (a - b));
    }
    lanes.iter().sum()
}

/// The first two principal components of each row by power iteration, scaled to a standard deviation of 1e-4, which
/// t-SNE starts with. `None` if the rows do not differ or are not finite.
fn principal_components(rows: &[&[f32]]) -> Option<Vec<f32>> {
    let width = rows[0].len();
    let mut mean = vec![0.0_f64; width];
    for row in rows {
        mean.iter_mut().zip(*row).for_each(|(sum, value)| *sum += f64::from(*value) / rows.len() as f64);
    }
    let centered = |row: &[f32], direction: &[f64]| -> f64 {
        row.iter().zip(&mean).zip(direction).map(|((value, mean), weight)| (f64::from(*value) - mean) * weight).sum()
    };
    let mut components: Vec<Vec<f64>> = vec![];
    for component in 0..2.min(width) {
        // Any start that is not orthogonal to the component works.
        let mut direction: Vec<f64> = (0..width).map(|at| 1.0 + ((at * 7 + component) % 5) as f64).collect();
        for _ in 0..30 {
            let mut next = vec![0.0; width];
            for row in rows {
                let along = centered(row, &direction);
                next.iter_mut()
                    .zip(*row)
                    .zip(&mean)
                    .for_each(|((sum, value), mean)| *sum += along * (f64::from(*value) - mean));
            }
            for found in &components {
                let along: f64 = next.iter().zip(found).map(|(a, b)| a * b).sum();
                next.iter_mut().zip(found).for_each(|(value, found)| *value -= along * found);
            }
            let norm = next.iter().map(|value| value * value).sum::<f64>().sqrt();
            if !(norm.is_finite() && norm > 0.0) {
                return None;
            }
            next.iter_mut().for_each(|value| *value /= norm);
            direction = next;
        }
        components.push(direction);
    }
    let mut start = vec![0.0_f32; 2 * rows.len()];
    let mut scale = 0.0;
    for (component, direction) in components.iter().enumerate() {
        let places: Vec<f64> = rows.iter().map(|row| centered(row, direction)).collect();
        if component == 0 {
            scale = 1e-4 / (places.iter().map(|place| place * place).sum::<f64>() / rows.len() as f64).sqrt();
        }
        places.iter().enumerate().for_each(|(row, place)| start[2 * row + component] = (place * scale) as f32);
    }
    start.iter().all(|value| value.is_finite()).then_some(start)
}

const SIDE: f64 = 400.0;
const TOP: f64 = 52.0;

/// The features by class, and by whether the prediction is correct.
pub fn embedding(embedding: &Embedding, predictions: &Predictions) -> Figure {
    let places = places(&embedding.points);
    let label = |position: usize| predictions.labels[embedding.indices[position]];
    let is_wrong = |position: &usize| predictions.predicted(embedding.indices[*position]) != label(*position);
    let all = 0..places.len();

    let by_class: Vec<Group> = (0..predictions.classes.len())
        .map(|class| Group {
            color: CLASSES[class % CLASSES.len()],
            radius: 1.7,
            places: all.clone().filter(|position| label(*position) == class).map(|position| places[position]).collect(),
        })
        .collect();
    let names = labels(&by_class, &predictions.classes);
    let (wrong, right): (Vec<usize>, Vec<usize>) = all.clone().partition(is_wrong);
    let group = |color, radius, positions: &[usize]| Group {
        color,
        radius,
        places: positions.iter().map(|position| places[*position]).collect(),
    };
    let by_answer = [group(SKY, 1.5, &right), group(VERMILLION, 2.1, &wrong)];
    let legend = [(SKY, format!("correct ({})", right.len())), (VERMILLION, format!("wrong ({})", wrong.len()))];
    let share = wrong.len() as f64 / places.len() as f64;
    Figure {
        name: "t-sne",
        title: "Features of the test images (t-SNE)".to_owned(),
        caption: format!(
            "The features before the last layer for {}, placed by t-SNE: images with similar features are close \
             together, but distances between clusters mean little. Names are at the center of their class{}. {} of \
             these predictions are wrong.",
            count(places.len(), "test image", "test images"),
            if predictions.classes.len() > CLASSES.len() { " if there is room; colors repeat" } else { "" },
            percent(share)
        ),
        panels: vec![scatter("By class", &by_class, &[], &names), scatter("By correctness", &by_answer, &legend, &[])],
        columns: 2,
    }
}

/// Dots of one color.
struct Group {
    color: Shade,
    radius: f64,
    places: Vec<Point>,
}

/// The points in CSS pixels of a panel, with the same aspect ratio.
fn places(points: &[[f32; 2]]) -> Vec<Point> {
    let bounds = |axis: usize| {
        let values = points.iter().map(move |point| f64::from(point[axis]));
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
    };
    let ((left, right), (low, high)) = (bounds(0), bounds(1));
    let length = (right - left).max(high - low).max(f64::MIN_POSITIVE);
    let scale = (SIDE - 30.0) / length;
    let middle = [(left + right) / 2.0, (low + high) / 2.0];
    let place = |value: f32, axis: usize| (f64::from(value) - middle[axis]) * scale + SIDE / 2.0;
    points.iter().map(|&[x, y]| [place(x, 0), TOP + place(y, 1)]).collect()
}

/// The names of classes at the median of their dots, largest classes first, without overlap.
fn labels(groups: &[Group], classes: &[String]) -> Vec<(Point, String)> {
    let median = |group: &Group, axis: usize| {
        let mut values: Vec<f64> = group.places.iter().map(|place| place[axis]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut order: Vec<usize> = (0..groups.len()).filter(|class| !groups[*class].places.is_empty()).collect();
    order.sort_by_key(|class| std::cmp::Reverse(groups[*class].places.len()));
    let mut placed: Vec<(Point, String, f64)> = vec![];
    for class in order {
        let name = fitted(&classes[class], SMALL, 110.0);
        let half = text_width(&name, SMALL) / 2.0 + 2.0;
        let x = median(&groups[class], 0).clamp(half, SIDE - half);
        let y = median(&groups[class], 1);
        // One step up or down is still close to the class.
        let free =
            |y: f64| placed.iter().all(|([a, b], _, other)| (a - x).abs() > half + other || (b - y).abs() > 14.0);
        if let Some(y) = [y, y - 15.0, y + 15.0].into_iter().find(|y| free(*y)) {
            placed.push(([x, y], name, half));
        }
    }
    placed.into_iter().map(|(place, name, _)| (place, name)).collect()
}

fn scatter(title: &str, groups: &[Group], entries: &[(Shade, String)], names: &[(Point, String)]) -> Panel {
    let mut drawing = Drawing::default();
    drawing.title(title);
    legend(&mut drawing, entries, SIDE);
    drawing.frame([0.5, TOP + 0.5], [SIDE - 1.0, SIDE - 1.0], LINE);
    for Group { color, radius, places } in groups.iter().filter(|group| !group.places.is_empty()) {
        drawing.dots(places.clone(), *color, *radius, 0.8);
    }
    for (place, name) in names {
        drawing.text(Text::new(name, *place, SMALL, INK).anchored(Anchor::Middle).with_halo());
    }
    Panel { label: format!("Features {}", title.to_lowercase()), size: [SIDE, TOP + SIDE], drawing }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three classes, each around its own corner in ten dimensions.
    fn clusters(images: usize) -> Predictions {
        let labels: Vec<usize> = (0..images).map(|image| image % 3).collect();
        let features = labels.iter().enumerate().flat_map(|(image, label)| {
            let noise = move |at: usize| ((image * 31 + at * 17) % 13) as f32 / 13.0;
            (0..10).map(move |at| if at % 3 == *label { 10.0 } else { 0.0 } + noise(at))
        });
        let logits = labels.iter().flat_map(|label| (0..3).map(move |class| f32::from(u8::from(class == *label))));
        let classes = ["cat", "dog", "ship"].map(str::to_owned).to_vec();
        Predictions { features: features.collect(), logits: logits.collect(), classes, labels }
    }

    #[test]
    fn neighbours_stay_neighbours() {
        let predictions = clusters(120);
        let embedding = Embedding::of(&predictions, 1000).unwrap();
        assert_eq!(embedding.indices, (0..120).collect::<Vec<_>>());
        let distance = |a: usize, b: usize| {
            let [[ax, ay], [bx, by]] = [embedding.points[a], embedding.points[b]];
            (ax - bx).hypot(ay - by)
        };
        for image in 0..120 {
            let nearest = (0..120).filter(|other| *other != image);
            let nearest = nearest.min_by(|a, b| distance(image, *a).total_cmp(&distance(image, *b))).unwrap();
            assert_eq!(image % 3, nearest % 3, "image {image} lies next to {nearest}");
        }
        assert!(Embedding::of(&predictions, 1000).unwrap() == embedding, "the same features give the same picture");
        assert_eq!(Embedding::of(&predictions, 40).unwrap().indices.len(), 40);
    }

    #[test]
    fn what_cannot_be_embedded_is_left_out() {
        assert_eq!(Embedding::of(&clusters(20), 1000), None);
        let mut same = clusters(60);
        same.features.fill(1.5);
        assert_eq!(Embedding::of(&same, 1000), None);
        let mut broken = clusters(60);
        broken.features[7] = f32::NAN;
        assert_eq!(Embedding::of(&broken, 1000), None);
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let classes: Vec<String> = (0..100).map(|class| format!("class {class}")).collect();
        let group = |class: usize| Group { color: SKY, radius: 1.0, places: vec![[200.0 + class as f64, 200.0]] };
        let placed = labels(&(0..100).map(group).collect::<Vec<_>>(), &classes);
        assert!(!placed.is_empty());
        for (index, ([x, y], _)) in placed.iter().enumerate() {
            for ([other_x, other_y], _) in &placed[..index] {
                assert!((x - other_x).abs() > 40.0 || (y - other_y).abs() > 14.0);
            }
        }
    }
}
