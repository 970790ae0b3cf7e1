//! Work on several threads where there are any; in a browser on the one there is.
#![allow(unsafe_code, reason = "threads write interleaved parts of one slice")]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
#[cfg(feature = "burn")]
use std::ops::Range;

/// Calls `task` with every number below `count`, in any order.
pub fn for_each(count: usize, task: impl Fn(usize) + Sync + Send) {
    #[cfg(not(target_family = "wasm"))]
    rayon::prelude::ParallelIterator::for_each(rayon::prelude::IntoParallelIterator::into_par_iter(0..count), task);
    #[cfg(target_family = "wasm")]
    (0..count).for_each(task);
}

/// A vector that `write` fills, for which nothing has to clear it before.
///
/// # Safety
/// `write` must write every number.
#[cfg(feature = "burn")]
pub unsafe fn make(len: usize, write: impl FnOnce(Shared)) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    write(Shared { start: values.as_mut_ptr(), len, slice: PhantomData });
    // Safety: there is room for so many, and the caller has written them.
    unsafe { values.set_len(len) };
    values
}

/// A vector of which `write` makes each chunk, with this machine's vectors.
///
/// # Safety
/// `write` must write all of it.
#[cfg(feature = "burn")]
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
            pulp::Arch::new().dispatch(|| write(range, values));
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
        // Safety: within the slice, and nobody else's; unwritten numbers may be seen as such.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start).cast(), len) }
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
        // Safety: within the slice, and nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
