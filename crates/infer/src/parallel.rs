//! Work on several threads where there are any; in a browser that is WebAssembly with atomics.
#![allow(unsafe_code, reason = "threads write interleaved parts of one slice")]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

pub use loops::Awake;
pub use loops::{awake, for_each};

/// Tasks that keep a processor busy, where there are as many.
pub const TASKS: usize = 8;

#[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
mod loops {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rayon::prelude::*;

    /// Calls `task` with every number below `count`, in any order.
    pub fn for_each(count: usize, task: impl Fn(usize) + Sync + Send) {
        (0..count).into_par_iter().for_each(task);
    }

    /// Calls `run` in the pool, and keeps its threads awake meanwhile.
    pub fn awake<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        rayon::scope(|_| {
            let _awake = Awake::new();
            run()
        })
    }

    /// Keeps the pool's other threads awake while it lives, for many short loops that follow each other: waking one for
    /// each would take as long as a small loop itself.
    pub struct Awake(Arc<AtomicBool>);

    impl Awake {
        #[allow(clippy::new_without_default, reason = "it is there for what it does")]
        pub fn new() -> Self {
            let is_over = Arc::new(AtomicBool::new(false));
            let seen = is_over.clone();
            let caller = rayon::current_thread_index();
            // A thread that is alone in its pool would never take what is sent to it.
            if rayon::current_num_threads() > 1 {
                rayon::spawn_broadcast(move |context| {
                    if Some(context.index()) != caller {
                        work_until(&seen);
                    }
                });
            }
            Self(is_over)
        }
    }

    impl Drop for Awake {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Takes part in the pool's work, and ends soon where there is none: another thread may wait for what this one
    /// has put off.
    fn work_until(is_over: &AtomicBool) {
        const MOST_IDLE_ROUNDS: usize = 10_000;
        let mut idle_rounds = 0;
        while idle_rounds < MOST_IDLE_ROUNDS && !is_over.load(Ordering::Relaxed) {
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                idle_rounds = 0;
            } else {
                idle_rounds += 1;
                std::thread::yield_now();
            }
        }
    }
}

/// The same on the one thread there is.
#[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
mod loops {
    pub fn for_each(count: usize, task: impl Fn(usize)) {
        (0..count).for_each(task);
    }

    pub fn awake<T>(run: impl FnOnce() -> T) -> T {
        run()
    }

    pub struct Awake;

    impl Awake {
        #[allow(clippy::new_without_default, reason = "as above")]
        pub fn new() -> Self {
            Self
        }
    }
}

/// A vector that `write` fills, for which nothing has to clear it before.
///
/// # Safety
/// `write` must write every number.
pub unsafe fn make(len: usize, write: impl FnOnce(Shared)) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    write(Shared { start: values.as_mut_ptr(), len, slice: PhantomData });
    // Safety: there is room for so many, and the caller has written them.
    unsafe { values.set_len(len) };
    values
}

/// Runs `work` with this machine's vectors, if it is `#[inline(always)]` and so is what it calls: a function of its own
/// has the vectors of any machine.
pub fn vectorized(work: impl FnMut()) {
    struct Inlined<F>(F);
    impl<F: FnMut()> pulp::WithSimd for Inlined<F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(mut self, _: S) {
            (self.0)();
        }
    }
    pulp::Arch::new().dispatch(Inlined(work));
}

/// A vector of which `write` makes each chunk, [`vectorized`].
///
/// # Safety
/// `write` must write all of it.
pub unsafe fn make_chunks(
    len: usize,
    chunk: usize,
    write: impl Fn(Range<usize>, &mut [MaybeUninit<f32>]) + Sync + Send,
) -> Vec<f32> {
    let write = |values: Shared| {
        for_each(len.div_ceil(chunk), |index| {
            let range = index * chunk..len.min((index + 1) * chunk);
            // Safety: every chunk is one task's.
            let values = unsafe { values.unwritten(range.start, range.len()) };
            vectorized(
                #[inline(always)]
                || write(range.clone(), values),
            );
        });
    };
    // Safety: the chunks are all there is.
    unsafe { make(len, write) }
}

/// A slice that several threads write into, each its own part.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// Safety: whoever takes parts sees to it that they do not overlap.
unsafe impl Send for Shared<'_> {}
// Safety: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// A part of what [`make`] gives.
    ///
    /// # Safety
    /// No two parts that are alive may overlap.
    ///
    /// # Panics
    /// If the part does not lie within the slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    pub unsafe fn unwritten(&self, start: usize, len: usize) -> &'a mut [MaybeUninit<f32>] {
        assert!(start + len <= self.len);
        // Safety: within the slice, and no other task has this part; unwritten numbers stay uninitialized.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start).cast(), len) }
    }

    /// Where a part starts.
    ///
    /// # Panics
    /// If the part does not lie within the slice.
    pub fn pointer(&self, start: usize, len: usize) -> *mut f32 {
        assert!(start + len <= self.len);
        self.start.wrapping_add(start)
    }

    /// A part of a slice that holds numbers.
    ///
    /// # Safety
    /// No two parts that are alive may overlap, and the slice must be written.
    ///
    /// # Panics
    /// If the part does not lie within the slice.
    #[allow(clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    pub unsafe fn part(&self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start + len <= self.len);
        // Safety: within the slice, and no other task has this part.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
