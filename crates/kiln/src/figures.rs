//! Pictures as files.

use std::fs;
use std::path::Path;

use kiln_report::{Figure, NumberedNames};
use kiln_train::run_dir::write_whole;

use crate::Error;

/// Pixels of a PNG for each of CSS.
const SCALE: f32 = 2.0;

/// The file that says which class a number in a PNG stands for.
pub const CLASS_KEY: &str = "classes.txt";

/// Writes each picture as SVG and as PNG. Where names of `classes` have letters that the PNGs' font lacks, these show numbers, and
/// [`CLASS_KEY`] is written beside them.
pub fn write_figures<'a>(
    folder: &Path,
    figures: impl Iterator<Item = &'a Figure>,
    classes: &[String],
) -> Result<(), Error> {
    let names = NumberedNames::of(classes);
    fs::create_dir_all(folder).map_err(|source| Error::Io { action: "create", path: folder.to_owned(), source })?;
    for figure in figures {
        write_whole(&folder.join(format!("{}.svg", figure.name)), figure.svg().as_bytes())?;
        write_whole(&folder.join(format!("{}.png", figure.name)), &figure.png(SCALE, &names)?)?;
    }
    if !names.is_empty() {
        write_whole(&folder.join(CLASS_KEY), names.key().as_bytes())?;
    }
    Ok(())
}
