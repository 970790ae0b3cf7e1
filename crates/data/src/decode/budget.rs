//! The memory budget that all decoding threads share. A thread that needs more than is left waits for the others.

use std::sync::{Condvar, Mutex, PoisonError};

use super::MAX_MEMORY;

static LEFT: Mutex<u64> = Mutex::new(MAX_MEMORY);
static GIVEN_BACK: Condvar = Condvar::new();

/// A share of the budget, returned on drop.
pub(super) struct Share(u64);

impl Share {
    /// Waits until `bytes` (at most [`MAX_MEMORY`]) are available, and takes them.
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
