//! Ten classes of pictures drawn in code: a dataset that needs no files.
//!
//! A picture shows one shape or pattern. Its position, size, direction, two colors, light and noise are random, with
//! the same distribution for every class, so only the form distinguishes the classes. Mirroring and small shifts keep
//! the class, as with photographs.
//!
//! The pictures are the same on every platform: floating-point code uses only operations that IEEE 754 defines to the
//! last bit (no sine, no logarithm).

use crate::{
    dataset::{Dataset, channel_statistics},
    found::LoadReport,
    images::{ImageSet, Images},
    random::KeyedRng,
};

/// The classes; their positions are the labels.
pub const SYNTHETIC_CLASSES: [&str; 10] = [
    "disc",
    "square",
    "triangle",
    "ring",
    "cross",
    "star",
    "horizontal stripes",
    "vertical stripes",
    "diagonal stripes",
    "checkerboard",
];

/// Pixels per side of the pictures in [`synthetic`].
const SIDE: usize = 32;

/// A dataset of `train` training and `test` test pictures of 32 x 32 pixels; the classes alternate.
///
/// This is a pure function: a picture is drawn from the stream `synth.tr` or `synth.te` of (seed, 0, its index), so a
/// longer set starts with the shorter one. If `test` is 0, there is no test set.
pub fn synthetic(train: usize, test: usize, seed: u64) -> Dataset {
    let train = draw_set(b"synth.tr", train, seed);
    let (mean, std) = channel_statistics(&train).expect("in memory");
    Dataset {
        name: "synthetic".into(),
        classes: SYNTHETIC_CLASSES.map(String::from).to_vec(),
        test: (test > 0).then(|| draw_set(b"synth.te", test, seed)),
        train,
        validation: None,
        mean,
        std,
        preprocessing: None,
        report: LoadReport::default(),
    }
}

/// One picture of a class, `[3, size, size]`, from the stream `synth.on` of (seed, 0, class).
///
/// # Panics
///
/// If `class` is not below 10.
pub fn synthetic_image(class: usize, seed: u64, size: usize) -> Vec<u8> {
    assert!(class < SYNTHETIC_CLASSES.len(), "there are ten synthetic classes, not {class}");
    let mut pixels = vec![0; 3 * size * size];
    draw_picture(class, &mut KeyedRng::new(b"synth.on", seed, 0, class as u64), size, &mut pixels);
    pixels
}

fn draw_set(domain: &[u8; 8], count: usize, seed: u64) -> ImageSet {
    let mut images = vec![0; count * 3 * SIDE * SIDE];
    let mut labels = Vec::with_capacity(count);
    for (index, pixels) in images.chunks_exact_mut(3 * SIDE * SIDE).enumerate() {
        let class = index % SYNTHETIC_CLASSES.len();
        draw_picture(class, &mut KeyedRng::new(domain, seed, 0, index as u64), SIDE, pixels);
        labels.push(class as u32);
    }
    ImageSet { height: SIDE, width: SIDE, images: Images::InMemory(images), labels }
}

/// A point or direction in the picture, whose sides have length 1; x points right, y down.
#[derive(Clone, Copy)]
struct Vector {
    x: f32,
    y: f32,
}

impl Vector {
    fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y
    }

    fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    fn normalised(self) -> Self {
        let length = self.length();
        Self { x: self.x / length, y: self.y / length }
    }

    /// A uniformly random direction. Sampled from the unit disc, because sine and cosine differ in the last bit
    /// between platforms.
    fn direction(rng: &mut KeyedRng) -> Self {
        loop {
            let v = Self { x: rng.uniform(-1.0, 1.0), y: rng.uniform(-1.0, 1.0) };
            if (0.1..=1.0).contains(&v.length()) {
                return v.normalised();
            }
        }
    }
}

/// The random parameters of a picture, except for the noise.
struct Scene {
    centre: Vector,
    radius: f32,
    /// Direction of the shape's own x axis.
    turn: Vector,
    /// Width of one light and one dark stripe together.
    period: f32,
    phase: [f32; 2],
    colors: [[f32; 3]; 2],
    /// Increase of brightness from the center to the edge in this direction.
    light: Vector,
    noise: f32,
}

impl Scene {
    /// Draws the same number of values of the same kind for every class, so that only the form depends on the class.
    fn draw(rng: &mut KeyedRng) -> Self {
        let centre = Vector { x: rng.uniform(0.38, 0.62), y: rng.uniform(0.38, 0.62) };
        let radius = rng.uniform(0.26, 0.42);
        // Up to 22 degrees in either direction: a square on its corner looks like a disc at 32 pixels.
        let turn = Vector { x: 1.0, y: rng.uniform(-0.4, 0.4) }.normalised();
        let period = rng.uniform(0.16, 0.34);
        let phase = [rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0)];
        let colors = contrasting_colors(rng);
        let light = Vector::direction(rng);
        let strength = rng.uniform(0.0, 0.4);
        let noise = rng.uniform(0.02, 0.08);
        let light = Vector { x: light.x * strength, y: light.y * strength };
        Self { centre, radius, turn, period, phase, colors, light, noise }
    }

    /// The fraction, 0 to 1, of a pixel of side `pixel` at `at` that the class's form covers.
    fn coverage(&self, class: usize, at: Vector, pixel: f32) -> f32 {
        let from_centre = Vector { x: at.x - self.centre.x, y: at.y - self.centre.y };
        // In the shape's own coordinates, where its radius is 1.
        let p = Vector {
            x: from_centre.dot(self.turn) / self.radius,
            y: from_centre.dot(Vector { x: -self.turn.y, y: self.turn.x }) / self.radius,
        };
        let (x, y) = (p.x.abs(), p.y.abs());
        // The edge is one pixel wide.
        let soft = |distance: f32| (0.5 - distance / pixel).clamp(0.0, 1.0);
        let shape = |distance: f32| soft(distance * self.radius);
        let stripes = |along: Vector, phase: f32| {
            let turns = at.dot(along) / self.period + phase;
            soft(((turns - turns.floor() - 0.5).abs() - 0.25) * self.period)
        };
        match class {
            0 => shape(p.length() - 1.0),
            1 => shape(x.max(y) - 0.85),
            2 => shape(nth_largest(p, &TRIANGLE, 0) - 0.6),
            3 => shape((p.length() - 0.78).abs() - 0.22),
            4 => shape((x - 1.0).max(y - 0.3).min((y - 1.0).max(x - 0.3))),
            // A point in the star may be outside one of its five edges, but not outside two.
            5 => shape(nth_largest(p, &PENTAGON, 1) - 0.38),
            6 => stripes(self.tilted(0.0, 1.0), self.phase[0]),
            7 => stripes(self.tilted(1.0, 0.0), self.phase[0]),
            8 => {
                // Rising or falling, because mirroring turns one into the other.
                let side = if self.phase[1] < 0.5 { -HALF_ROOT } else { HALF_ROOT };
                stripes(self.tilted(HALF_ROOT, side), self.phase[0])
            }
            _ => {
                let across = self.tilted(1.0, 0.0);
                let down = Vector { x: -across.y, y: across.x };
                let (a, b) = (stripes(across, self.phase[0]), stripes(down, self.phase[1]));
                a * (1.0 - b) + b * (1.0 - a)
            }
        }
    }

    /// The direction (x, y), rotated by up to 8 degrees in either direction.
    fn tilted(&self, x: f32, y: f32) -> Vector {
        let tilt = self.turn.y * 0.38;
        Vector { x: x - tilt * y, y: y + tilt * x }.normalised()
    }
}

/// Half the square root of 2: the sine of 45 degrees.
const HALF_ROOT: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Normals of the edges of a triangle, and of a pentagon or five-pointed star.
const TRIANGLE: [[f32; 2]; 3] = [[0.0, 1.0], [0.866_025_4, -0.5], [-0.866_025_4, -0.5]];
const PENTAGON: [[f32; 2]; 5] = [
    [0.0, 1.0],
    [0.951_056_54, 0.309_017],
    [0.587_785_24, -0.809_017],
    [-0.587_785_24, -0.809_017],
    [-0.951_056_54, 0.309_017],
];

/// The `n`-th largest (from 0) of the distances of `p` along the given directions.
fn nth_largest<const N: usize>(p: Vector, directions: &[[f32; 2]; N], n: usize) -> f32 {
    let mut distances = directions.map(|[x, y]| p.dot(Vector { x, y }));
    distances.sort_unstable_by(|a, b| b.total_cmp(a));
    distances[n]
}

/// Two colors that differ enough to be distinguished despite the noise.
fn contrasting_colors(rng: &mut KeyedRng) -> [[f32; 3]; 2] {
    loop {
        let colors = [(); 2].map(|()| [(); 3].map(|()| rng.uniform(0.05, 0.95)));
        let [a, b] = colors;
        let apart: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
        if apart > 0.16 {
            return colors;
        }
    }
}

fn draw_picture(class: usize, rng: &mut KeyedRng, size: usize, pixels: &mut [u8]) {
    let scene = Scene::draw(rng);
    let pixel = 1.0 / size as f32;
    let plane = size * size;
    for position in 0..plane {
        let at = Vector { x: ((position % size) as f32 + 0.5) * pixel, y: ((position / size) as f32 + 0.5) * pixel };
        let coverage = scene.coverage(class, at, pixel);
        let light = 1.0 + scene.light.dot(Vector { x: at.x - 0.5, y: at.y - 0.5 }) * 2.0;
        for channel in 0..3 {
            let [shape, ground] = scene.colors.map(|color| color[channel]);
            // The sum of four uniform numbers is close enough to normal; its standard deviation is 1.
            let noise: f32 = (0..4).map(|_| rng.uniform(-0.866, 0.866)).sum();
            let value = (ground + (shape - ground) * coverage) * light + noise * scene.noise;
            // `as` clamps to black and white.
            pixels[channel * plane + position] = (value * 255.0 + 0.5) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pictures_are_a_function_of_the_seed_on_every_platform() {
        let digest = synthetic(100, 20, 0).digest();
        assert_eq!(digest, "cc7a3c804f313005ab55ca136cf58bc7e872a237e930c2ab5dcfa6f5ddf90bc3");
        assert_ne!(digest, synthetic(100, 20, 1).digest());
    }

    #[test]
    fn a_longer_set_begins_with_the_shorter_one() {
        let (short, long) = (synthetic(10, 10, 5), synthetic(30, 0, 5));
        let pixels = |set: &ImageSet| set.images.in_memory().unwrap().to_vec();
        assert!(pixels(&long.train).starts_with(&pixels(&short.train)));
        assert_ne!(pixels(&short.test.unwrap()), pixels(&short.train));
        assert!(long.test.is_none());
    }

    #[test]
    fn every_class_has_as_many_pictures() {
        let labels = synthetic(1000, 0, 0).train.labels;
        for class in 0..10 {
            assert_eq!(labels.iter().filter(|&&label| label == class).count(), 100);
        }
    }

    #[test]
    fn colors_do_not_tell_the_class() {
        // Classifies by the nearest mean color of a class: guessing is right one time in ten.
        let mean_color = |image: &[u8]| -> [f32; 3] {
            std::array::from_fn(|channel| {
                let plane = &image[channel * 1024..][..1024];
                plane.iter().map(|&v| f32::from(v)).sum::<f32>() / 1024.0
            })
        };
        let dataset = synthetic(2000, 1000, 0);
        let mut centres = [[0.0; 3]; 10];
        for (index, &label) in dataset.train.labels.iter().enumerate() {
            for (sum, value) in centres[label as usize].iter_mut().zip(mean_color(&dataset.train.image(index).unwrap()))
            {
                *sum += value / 200.0;
            }
        }
        let test = dataset.test.unwrap();
        let right = (0..test.len())
            .filter(|&index| {
                let color = mean_color(&test.image(index).unwrap());
                let distance =
                    |centre: &[f32; 3]| -> f32 { centre.iter().zip(color).map(|(a, b)| (a - b) * (a - b)).sum() };
                let nearest = (0..10).min_by(|&a, &b| distance(&centres[a]).total_cmp(&distance(&centres[b])));
                nearest == Some(test.labels[index] as usize)
            })
            .count();
        assert!(right < 180, "{right} of 1000");
    }

    #[test]
    fn a_sample_picture_has_the_size_asked_for() {
        for class in 0..10 {
            let small = synthetic_image(class, 1, 8);
            let large = synthetic_image(class, 1, 100);
            assert_eq!((small.len(), large.len()), (3 * 64, 3 * 10_000));
            assert!(large.iter().any(|&v| v != large[0]));
        }
    }
}
