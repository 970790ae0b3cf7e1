//! Digests of pixels.

use sha2::{Digest, Sha256};

/// The first 16 bytes of a SHA-256.
pub(crate) fn short(bytes: &[u8]) -> u128 {
    let digest = Sha256::digest(bytes);
    u128::from_le_bytes(std::array::from_fn(|at| digest[at]))
}

/// Bytes as lowercase hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
