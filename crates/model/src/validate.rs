//! What a file says of a network, checked before anything is made of it: a right digest only proves
//! that the file is whole, not that its author meant well.

use kiln_data::Preprocessing;

use crate::Architecture;

/// Most pixels a side of the images that a network takes.
pub const MAX_IMAGE_SIZE: usize = 1024;
/// Most pixels of a picture's shorter side before its middle is cut out.
const MAX_RESIZE: usize = 2048;
/// Longest name, in bytes; a folder's name has 255 at most.
const MAX_NAME: usize = 1024;

/// Metadata that no training writes.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ClaimError {
    #[error("the metadata names {names} classes for a network of {classes}")]
    Classes { names: usize, classes: usize },
    #[error("the metadata says that {what} is {found}, which must be {expected}")]
    Value { what: &'static str, found: String, expected: &'static str },
    #[error("the metadata has only a part of the accuracy: it must name its value, its split and its images, or none")]
    PartOfAccuracy,
    #[error("the metadata's {what} {name} cannot be used: it {fault}")]
    Name { what: &'static str, name: String, fault: &'static str },
}

/// Refuses empty names, too many or too few of them, and duplicates.
pub fn check_classes(names: &[String], architecture: &Architecture) -> Result<(), ClaimError> {
    let classes = architecture.classes();
    if names.len() != classes {
        return Err(ClaimError::Classes { names: names.len(), classes });
    }
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(bad_name("class", pair[0], "is there twice"));
    }
    names.iter().try_for_each(|name| match name.is_empty() {
        true => Err(bad_name("class", name, "is empty")),
        false => check_name("class", name),
    })
}

/// Refuses what would do harm on a terminal or fill it.
pub fn check_name(what: &'static str, name: &str) -> Result<(), ClaimError> {
    if name.len() > MAX_NAME {
        return Err(bad_name(what, name, "is longer than 1024 bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err(bad_name(what, name, "holds control characters"));
    }
    Ok(())
}

fn bad_name(what: &'static str, name: &str, fault: &'static str) -> ClaimError {
    let start: String = name.chars().take(40).collect();
    ClaimError::Name { what, name: format!("{start:?}"), fault }
}

/// Height and width of a network's images.
pub fn check_image_size(size: usize) -> Result<(), ClaimError> {
    check("the image size", size, (1..=MAX_IMAGE_SIZE).contains(&size), "between 1 and 1024")
}

/// Resize and crop of a network's pictures.
pub fn check_preprocessing(preprocessing: Option<Preprocessing>, image_size: usize) -> Result<(), ClaimError> {
    let Some(Preprocessing { resize, .. }) = preprocessing else { return Ok(()) };
    let holds = (image_size..=MAX_RESIZE).contains(&resize);
    check("the resize", resize, holds, "at least the image size and at most 2048")
}

/// Mean and standard deviation of the channels, pixels scaled to 0..1.
pub fn check_normalization(mean: [f32; 3], std: [f32; 3]) -> Result<(), ClaimError> {
    for mean in mean {
        check("a channel's mean", mean, (0.0..=1.0).contains(&mean), "between 0 and 1")?;
    }
    for std in std {
        check("a channel's standard deviation", std, std > 0.0 && std <= 1.0, "above 0 and at most 1")?;
    }
    Ok(())
}

/// A share such as an accuracy.
pub fn check_share(what: &'static str, share: f64) -> Result<(), ClaimError> {
    check(what, share, (0.0..=1.0).contains(&share), "between 0 and 1")
}

fn check(
    what: &'static str,
    found: impl std::fmt::Display,
    holds: bool,
    expected: &'static str,
) -> Result<(), ClaimError> {
    if holds { Ok(()) } else { Err(ClaimError::Value { what, found: found.to_string(), expected }) }
}
