//! Progress of loading a dataset.

/// How far loading has progressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// Bytes of an archive received, including those of an earlier attempt.
    Downloading {
        /// Bytes so far.
        received: u64,
        /// Total bytes, if the server sent it.
        total: Option<u64>,
    },
    /// The archive is complete and is being checked and unpacked.
    Unpacking,
    /// Image files decoded.
    Decoding {
        /// Files so far.
        done: usize,
        /// Total files; unknown while an archive is being read.
        total: Option<usize>,
    },
}
