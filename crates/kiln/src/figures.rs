//! Pictures as files.

use std::fs;
use std::path::Path;

use kiln_report::Figure;
use kiln_train::run_dir::write_whole;

use crate::Error;

/// Pixels of a PNG for each of CSS.
const SCALE: f32 = 2.0;

/// Writes each picture as SVG and as PNG.
pub fn write_figures<'a>(folder: &Path, figures: impl Iterator<Item = &'a Figure>) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Io { action: "create", path: folder.to_owned(), source })?;
    for figure in figures {
        write_whole(&folder.join(format!("{}.svg", figure.name)), figure.svg().as_bytes())?;
        write_whole(&folder.join(format!("{}.png", figure.name)), &figure.png(SCALE)?)?;
    }
    Ok(())
}
