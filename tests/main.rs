//! What crosses crates: the built program, files that it reads and writes, and parity with PyTorch. One program, so that
//! burn is linked once; `cargo test --release --workspace --test kiln hostile` runs the tests of one file.

mod bombs;
mod cli;
mod evaluate;
mod hostile;
mod import;
mod page_fixture;
mod parity;
mod pictures;
mod program;
#[cfg(unix)]
mod reliability;
mod report;
mod sample;
mod sweep;
mod teach;
#[allow(dead_code, reason = "crates/convert makes more of them")]
mod weights;
