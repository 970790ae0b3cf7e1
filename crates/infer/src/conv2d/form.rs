//! The forms of a shader: several ways to compute the same convolution for training in f32, of which each GPU has
//! its own fastest. [`crate::tune`] finds out which.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Geometry;

/// What of a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    Forward,
    /// The gradient of the input.
    BackwardData,
    /// The gradient of the weights.
    BackwardWeight,
}

impl Pass {
    pub const ALL: [Self; 3] = [Self::Forward, Self::BackwardData, Self::BackwardWeight];
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Forward => "forward",
            Self::BackwardData => "backward data",
            Self::BackwardWeight => "backward weight",
        })
    }
}

/// How a pass is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// Every invocation loads what it multiplies: `conv2d.wgsl` and `conv2d_backward_weight.wgsl`.
    #[default]
    Registers,
    /// A workgroup shares what it multiplies: `conv2d_tiled.wgsl` and `conv2d_backward_weight_tiled.wgsl`.
    Tiled(Tile),
}

/// The tile of a workgroup: `channels` output channels by `4096 / channels` pixels or numbers under the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// 16, 32 or 64.
    pub channels: usize,
    /// Terms of the sums that are loaded at a time.
    pub chunk: usize,
    /// Whether the sum is cut into parts so that there are workgroups for a large GPU. The gradient of the weights, a long
    /// sum over pixels for few weights, always is.
    pub is_split: bool,
}

/// Sizes of tiles, and what of the sums fits beside each other in the 16 KiB of memory that WebGPU grants a workgroup.
const TILES: [(usize, usize); 3] = [(64, 16), (32, 16), (16, 8)];
/// Numbers that a workgroup makes.
pub(super) const TILE_AREA: usize = 4096;
/// Workgroups that keep a large GPU busy.
pub(super) const WORKGROUPS: usize = 1024;
/// Terms of a sum below which cutting it costs more than it brings.
const SHORTEST_PART: usize = 64;

impl Tile {
    pub const fn new(channels: usize, chunk: usize) -> Self {
        Self { channels, chunk, is_split: false }
    }

    /// Bytes of workgroup memory.
    pub fn memory(&self) -> usize {
        // A vector more in each row, as the gradient of the weights has it.
        16 * self.chunk * (self.channels / 4 + 1 + TILE_AREA / self.channels / 4 + 1)
    }

    /// Parts of the sums of a convolution to `outputs`, each of `terms` terms.
    pub(super) fn parts(&self, tiles: usize, terms: usize) -> usize {
        let most = (terms / SHORTEST_PART).max(1);
        if self.is_split { WORKGROUPS.div_ceil(tiles.max(1)).clamp(1, most) } else { 1 }
    }
}

impl Form {
    /// All that a pass could take on any device that WebGPU allows; the first is what runs untuned.
    pub fn candidates(geometry: &Geometry, pass: Pass) -> Vec<Self> {
        let mut forms = vec![Self::Registers];
        let channels = if pass == Pass::BackwardData { geometry.input[0] } else { geometry.outputs[0] };
        for (at, (size, chunk)) in TILES.into_iter().enumerate() {
            // A tile of which half would be empty is never the best, unless there is no smaller one.
            if channels <= size / 2 && at + 1 < TILES.len() {
                continue;
            }
            let tile = Tile::new(size, chunk);
            forms.push(Self::Tiled(tile));
            let split = Tile { is_split: true, ..tile };
            if pass != Pass::BackwardWeight && super::wgsl::parts(geometry, pass, split) > 1 {
                forms.push(Self::Tiled(split));
            }
        }
        forms
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Registers => f.pad("registers"),
            Self::Tiled(Tile { channels, is_split, .. }) => {
                let pixels = TILE_AREA / channels;
                f.pad(&format!("tiles {channels}x{pixels}{}", if *is_split { " split" } else { "" }))
            }
        }
    }
}

impl FromStr for Form {
    type Err = UnknownForm;

    /// By its name, as it is displayed.
    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        let tiles = TILES.into_iter().flat_map(|(channels, chunk)| {
            [false, true].map(|is_split| Self::Tiled(Tile { channels, chunk, is_split }))
        });
        let mut all = std::iter::once(Self::Registers).chain(tiles);
        all.find(|form| form.to_string() == name).ok_or_else(|| UnknownForm(name.to_owned()))
    }
}

/// What became of a form.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Median time of a run, or of the only one if that was far too long to win.
    Right(Duration),
    /// It gave other numbers: the largest difference over the largest number.
    Wrong(f64),
    /// The device or its compiler refused it, or was lost.
    Refused(String),
    /// It did not come to an end in time, compilation included.
    TooLong(Duration),
}

/// A form, and what became of it.
#[derive(Clone, Debug)]
pub struct Trial {
    pub form: Form,
    pub outcome: Outcome,
}

/// The form that is fastest on one device, for each pass of each convolution that was tried there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices(Vec<Choice>);

#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub geometry: Geometry,
    pub pass: Pass,
    pub form: Form,
}

impl Choices {
    /// Replaces what was known of that pass.
    pub fn insert(&mut self, choice: Choice) {
        self.0.retain(|known| (known.geometry, known.pass) != (choice.geometry, choice.pass));
        self.0.push(choice);
    }

    /// The form for a pass: the one of the same batch, else of the batch that is nearest, as a last batch is smaller than the
    /// others. `None` for a convolution that was not tried.
    pub fn get(&self, geometry: &Geometry, pass: Pass) -> Option<Form> {
        let same =
            |known: &&Choice| known.pass == pass && Geometry { batch: geometry.batch, ..known.geometry } == *geometry;
        let distance = |known: &&Choice| known.geometry.batch.abs_diff(geometry.batch);
        self.0.iter().filter(same).min_by_key(distance).map(|known| known.form)
    }

    /// In the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Choice> {
        self.0.iter()
    }
}

/// A name that no form has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no form of a convolution is called '{0}'")]
pub struct UnknownForm(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_known_by_their_names() {
        let geometry = Geometry::new([8, 512, 4, 4], [512, 512, 3, 3], 1, 1);
        for pass in Pass::ALL {
            let forms = Form::candidates(&geometry, pass);
            assert_eq!(forms[0], Form::default());
            assert!(forms.iter().all(|form| form.to_string().parse() == Ok(*form)), "{forms:?}");
        }
        assert_eq!(Form::candidates(&geometry, Pass::Forward).len(), 7);
        assert!("tiles 48x12".parse::<Form>().is_err());
    }

    #[test]
    fn the_nearest_batch_decides() {
        let of = |batch| Geometry::new([batch, 16, 8, 8], [16, 16, 3, 3], 1, 1);
        let mut choices = Choices::default();
        assert_eq!(choices.get(&of(8), Pass::Forward), None);
        let tiled = Form::Tiled(Tile::new(16, 8));
        choices.insert(Choice { geometry: of(128), pass: Pass::Forward, form: Form::Registers });
        choices.insert(Choice { geometry: of(128), pass: Pass::Forward, form: tiled });
        choices.insert(Choice { geometry: of(8), pass: Pass::Forward, form: Form::Registers });
        assert_eq!(choices.iter().count(), 2);
        assert_eq!(choices.get(&of(80), Pass::Forward), Some(tiled));
        assert_eq!(choices.get(&of(9), Pass::Forward), Some(Form::Registers));
        assert_eq!(choices.get(&of(8), Pass::BackwardData), None);
    }

    #[test]
    fn every_tile_fits_the_memory_that_webgpu_grants() {
        for (channels, chunk) in TILES {
            assert!(Tile::new(channels, chunk).memory() <= 16 << 10, "{channels}");
        }
    }
}
