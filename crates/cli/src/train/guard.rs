//! Panics of a GPU's runtime, told as errors.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs what a lost GPU or one out of memory may end with a panic, which is what wgpu and CUDA's runtime do: it is told
/// as an error. Anywhere else a panic stays one.
pub fn guarded<T>(is_queued: bool, work: impl FnOnce() -> T) -> Result<T, String> {
    if !is_queued {
        return Ok(work());
    }
    let first = Arc::new(Mutex::new(None));
    let seen = first.clone();
    // The first of several threads' panics is the cause, the others follow from it.
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        crate::exit_without_reader(info);
        let told = info.payload_as_str().unwrap_or("no reason was given").to_owned();
        // Whose fault it was: the driver's, or one of this program.
        let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
        seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((told, place));
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(usual);
    result.map_err(|_| {
        let (told, place) = first.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        // Of a chain of causes the last is the one that says something.
        let idle = |line: &&str| !line.starts_with("No backtrace") && !line.ends_with(':') && !line.is_empty();
        told.lines().map(str::trim).rfind(idle).unwrap_or(&told).to_owned() + &place
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A test of its own: the hook that it exchanges is the whole program's.
    #[test]
    fn a_panic_is_told_by_its_first_cause_and_where_that_was() {
        assert_eq!(guarded(true, || 5), Ok(5));
        let line = line!() + 2;
        let fault = guarded(true, || -> () {
            panic!("wgpu error:\n\nCaused by:\n    not enough memory left\nNo backtrace was taken");
        });
        assert_eq!(fault.unwrap_err(), format!("not enough memory left ({}:{line})", file!()));
        let fault = guarded(true, || {
            let _ = thread::spawn(|| panic!("the device is lost")).join();
            panic!("nobody answers");
        });
        assert!(fault.is_err_and(|fault: String| fault.starts_with("the device is lost (")));
        assert!(panic::catch_unwind(|| guarded(false, || -> () { panic!("a fault of ours") })).is_err());
    }
}
