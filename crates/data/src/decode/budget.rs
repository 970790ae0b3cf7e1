//! Memory shared by all threads that decode: one that needs more than is left waits for the others.

use std::sync::{Condvar, Mutex, PoisonError};

use super::MAX_MEMORY;

static LEFT: Mutex<u64> = Mutex::new(MAX_MEMORY);
static GIVEN_BACK: Condvar = Condvar::new();

/// A part of the memory; given back when it is dropped.
pub(super) struct Share(u64);

impl Share {
    /// Waits until `bytes` are left, [`MAX_MEMORY`] at most.
    pub(super) fn take(bytes: u64) -> Self {
        let bytes = bytes.min(MAX_MEMORY);
        let left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = GIVEN_BACK.wait_while(left, |left| *left < bytes).unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
        Self(bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *LEFT.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        GIVEN_BACK.notify_all();
    }
}
