//! What a long load says while it goes on.

/// How far loading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes received of an archive, also those of an earlier attempt.
    Downloading {
        /// Bytes so far.
        received: u64,
        /// Bytes in all, if the server said.
        total: Option<u64>,
    },
    /// The archive is complete and is being checked and unpacked.
    Unpacking,
    /// Image files decoded.
    Decoding {
        /// Files so far.
        done: usize,
        /// Files in all; unknown while an archive is being read.
        total: Option<usize>,
    },
}
