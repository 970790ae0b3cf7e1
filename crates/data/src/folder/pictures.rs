//! Image files, decoded once at the start to know that they can be: then their pixels are kept or, of a large set, only where
//! they came from.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{Candidate, Contents, Wish, layout::Layout, names::Part};
use crate::{
    dataset::Histogram,
    decode::{DecodeError, Input, View, decode_view, with_file},
    digest::short,
    error::DataError,
    images::ImageSource,
    resized_crop::CropDraw,
};

/// Images that could be decoded.
pub(super) struct Pictures {
    /// What each image is brought to.
    pub input: Input,
    pub kept: Kept,
    /// The digest of each image's pixels `[N]`.
    pub digests: Vec<u128>,
    /// Values of the training images.
    pub histogram: Histogram,
    /// Which image each candidate became, by its position.
    pub outcomes: Vec<Option<Result<usize, DecodeError>>>,
    /// Whether each candidate is to be trained on.
    is_train: Vec<bool>,
}

/// What stays of the images.
pub(super) enum Kept {
    /// `[N, 3, size, size]`: one buffer, which becomes the dataset's, so that no image is held twice.
    Pixels(Vec<u8>),
    /// Where each image `[N]` is read from.
    Files(Vec<File>),
}

/// An image file, to be decoded again.
pub(super) struct File {
    held: Held,
    /// The start of the SHA-256 of its contents.
    fingerprint: u64,
}

enum Held {
    OnDisk(Box<Path>),
    /// Of an archive.
    InMemory(Box<[u8]>),
}

/// A file that was decoded.
struct Good {
    pixels: Vec<u8>,
    digest: u128,
    file: Option<File>,
}

impl Pictures {
    pub fn new(wish: &Wish, layout: &Layout) -> Self {
        let is_train: Vec<bool> = layout.placed.iter().map(|(_, place)| place.part == Part::Train).collect();
        let kept = if wish.streams(is_train.len()) { Kept::Files(vec![]) } else { Kept::Pixels(vec![]) };
        let outcomes = vec![None; is_train.len()];
        Self { input: wish.input(), kept, digests: vec![], histogram: Histogram::default(), outcomes, is_train }
    }

    /// Decodes on all threads, and adds the images in the order given.
    pub fn decode(&mut self, candidates: Vec<Candidate>) {
        let input = self.input;
        let keeps_files = matches!(self.kept, Kept::Files(_));
        let decode = |Candidate { position, contents }| (position, Good::decode(contents, input, keeps_files));
        for (position, image) in candidates.into_par_iter().map(decode).collect::<Vec<_>>() {
            self.outcomes[position] = Some(image.map(|image| self.add(image, self.is_train[position])));
        }
    }

    /// The number of the added image.
    fn add(&mut self, Good { pixels, digest, file }: Good, is_train: bool) -> usize {
        if is_train {
            self.histogram.add(&pixels);
        }
        match (&mut self.kept, file) {
            (Kept::Files(files), Some(file)) => files.push(file),
            (Kept::Pixels(all), _) => all.extend_from_slice(&pixels),
            (Kept::Files(_), None) => unreachable!("files are kept"),
        }
        self.digests.push(digest);
        self.digests.len() - 1
    }

    /// Number of files that could not be decoded so far.
    pub fn useless(&self) -> usize {
        self.outcomes.iter().flatten().filter(|outcome| outcome.is_err()).count()
    }
}

impl Good {
    fn decode(contents: Contents, input: Input, keeps_file: bool) -> Result<Self, DecodeError> {
        let view = View { input, crop: None };
        let decode = |bytes: &[u8]| {
            let image = decode_view(bytes, view, false)?;
            let fingerprint = if keeps_file { fingerprint(bytes) } else { 0 };
            image.damage.map_or(Ok((image.pixels, fingerprint)), Err)
        };
        let ((pixels, fingerprint), held) = match contents {
            Contents::OnDisk(path) => (with_file(&path, decode)?, Held::OnDisk(path.into())),
            Contents::InMemory(bytes) => (decode(&bytes)?, Held::InMemory(bytes.into())),
            Contents::Refused(error) => return Err(error),
        };
        let file = keeps_file.then_some(File { held, fingerprint });
        Ok(Self { digest: short(&pixels), pixels, file })
    }
}

fn fingerprint(bytes: &[u8]) -> u64 {
    short(bytes) as u64
}

/// Image files that are decoded whenever an image is asked for.
pub(super) struct Files {
    files: Vec<File>,
    digests: Vec<u128>,
    input: Input,
}

impl Files {
    pub fn new(mut files: Vec<File>, mut digests: Vec<u128>, input: Input) -> Self {
        files.shrink_to_fit();
        digests.shrink_to_fit();
        Self { files, digests, input }
    }

    /// Bytes of the files that are in memory.
    pub fn bytes_in_memory(&self) -> usize {
        let bytes = |file: &File| if let Held::InMemory(bytes) = &file.held { bytes.len() } else { 0 };
        self.files.iter().map(bytes).sum()
    }
}

impl ImageSource for Files {
    fn image(&self, index: u32, crop: Option<&CropDraw>) -> Result<Vec<u8>, DataError> {
        let File { held, fingerprint: expected } = &self.files[index as usize];
        let view = View { input: self.input, crop };
        // The same bytes as at the start have no damage now either.
        let decode = |bytes: &[u8]| match fingerprint(bytes) == *expected {
            true => decode_view(bytes, view, true).map(|image| Some(image.pixels)),
            false => Ok(None),
        };
        match held {
            Held::InMemory(bytes) => decode(bytes).map(|image| image.expect("nothing changes it")),
            Held::OnDisk(path) => match with_file(path, decode) {
                Ok(Some(image)) => return Ok(image),
                Ok(None) => return Err(DataError::Changed { path: path.to_path_buf() }),
                Err(error) => Err(error),
            },
        }
        .map_err(|error| DataError::Gone { path: held.path(), error })
    }

    fn digest(&self, index: u32) -> u128 {
        self.digests[index as usize]
    }
}

impl Held {
    fn path(&self) -> PathBuf {
        match self {
            Self::OnDisk(path) => path.to_path_buf(),
            Self::InMemory(_) => "a picture of the archive".into(),
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} image files", self.files.len())
    }
}
