//! Running the built program, for tests of it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A network so small that a step takes milliseconds.
pub const TINY: [&str; 4] = ["--set", "model.width=2", "--set", "training.batch_size=16"];

pub fn kiln(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// `kiln train` of the tiny network on a little of the synthetic set, on the CPU.
pub fn train(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = kiln(folder);
    command
        .args(["train", "--dataset", "synthetic", "--limit", "200", "--device", "cpu", "--no-report"])
        .args(arguments);
    command.output().unwrap()
}

/// Whether this is the process of that test alone, such as `sweep::no_damaged_bundle_is_read`: one whose memory is
/// measured must not share it with others. Otherwise it starts such a process and waits for it to succeed.
pub fn is_alone(test: &str) -> bool {
    const ALONE: &str = "KILN_TEST_ALONE";
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let status = command.args(["--exact", test, "--nocapture"]).env(ALONE, test).status().unwrap();
    assert!(status.success(), "{test} failed in a process of its own");
    false
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that the program failed with `code` and said all of `words` on stderr, without a panic.
pub fn fails(output: &Output, code: i32, words: &[&str]) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    for word in words {
        assert!(error.contains(word), "'{word}' is not in: {error}");
    }
}

pub fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A grey picture, written without a library.
pub fn bitmap(shade: u8, size: u32) -> Vec<u8> {
    let row = (size as usize * 3).next_multiple_of(4);
    let len = 54 + row * size as usize;
    let mut bytes = b"BM".to_vec();
    for number in [len as u32, 0, 54, 40, size, size, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.resize(len, shade);
    bytes
}

/// `train/<class>/` with `images` bright and dark pictures.
pub fn image_folder(folder: &Path, images: u8) {
    for (class, base) in [("dark", 10), ("light", 200)] {
        let class = folder.join("train").join(class);
        fs::create_dir_all(&class).unwrap();
        for index in 0..images {
            fs::write(class.join(format!("{index:03}.bmp")), bitmap(base + index, 32)).unwrap();
        }
    }
}
