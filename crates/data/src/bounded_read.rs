//! Reading files that may not be what they should.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Largest text file: recipes, `metrics.jsonl`, `evaluation.json`.
pub const TEXT_BYTES: u64 = 64 << 20;

/// All of a regular file of `limit` bytes or fewer.
///
/// # Errors
///
/// If it cannot be read, is larger, or is a folder, a pipe or a device, whose end may never come.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if metadata.is_dir() {
        return wrong("it is a folder".to_owned());
    }
    if !metadata.is_file() {
        return wrong("it is no regular file; save what it gives to one first".to_owned());
    }
    let too_large = |bytes| wrong(format!("it has {bytes} bytes, and the limit for such a file is {limit}"));
    if metadata.len() > limit {
        return too_large(metadata.len());
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may have grown since.
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { too_large(bytes.len() as u64) } else { Ok(bytes) }
}

/// A text file of [`TEXT_BYTES`] or fewer, in UTF-8.
///
/// # Errors
///
/// As [`read`], and if it is not text.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path, TEXT_BYTES)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("it is no text in UTF-8: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"four").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"four");
        let error = read(&path, 3).unwrap_err();
        assert_eq!(error.to_string(), "it has 4 bytes, and the limit for such a file is 3");
        fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn what_has_no_end_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), 4).unwrap_err().to_string(), "it is a folder");
        let sparse = folder.path().join("sparse");
        File::create(&sparse).unwrap().set_len(100 << 30).unwrap();
        assert!(read(&sparse, TEXT_BYTES).unwrap_err().to_string().contains("107374182400 bytes"));
        #[cfg(unix)]
        for device in ["/dev/zero", "/dev/tty"].map(Path::new).into_iter().filter(|path| path.exists()) {
            assert!(read(device, 4).unwrap_err().to_string().contains("no regular file"));
        }
        #[cfg(unix)]
        {
            let pipe = folder.path().join("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            assert!(read(&pipe, 4).unwrap_err().to_string().contains("no regular file"));
        }
    }
}
