//! Training takes no more memory the longer it goes on: counted to the byte, where the system's own figures are rounded
//! to the pieces that an allocator takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

use burn::tensor::Device;
use kiln_train::recipe::BUILT_IN;
use kiln_train::{Event, Recipe, Trainer};

/// The system's allocator, counting the bytes that are in use.
struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);

#[allow(unsafe_code, reason = "an allocator")]
// Safety: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as isize, Relaxed);
        // Safety: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as isize, Relaxed);
        // Safety: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn memory_in_use_is_the_same_after_every_step() {
    let steps: usize = std::env::var("KILN_STEPS").map_or(400, |text| text.parse().expect("a number"));
    let overrides = ["model.width=2", "training.batch_size=16"].map(str::to_owned);
    let recipe = Recipe::parse(BUILT_IN[0].1, &overrides).unwrap();
    let data = kiln_data::synthetic(2000, 0, 0);
    let mut trainer = Trainer::new(recipe, &data, Some(steps), &Device::flex()).unwrap();
    // All at once, lest it be seen to grow.
    let mut in_use = Vec::with_capacity(steps);
    while let Some(event) = pollster::block_on(trainer.next()).unwrap() {
        if let Event::Step(_) = event {
            in_use.push(IN_USE.load(Relaxed));
        }
    }
    let quarter = in_use.len() / 4;
    let mean = |part: &[isize]| part.iter().sum::<isize>() as f64 / part.len() as f64;
    let (early, late) = (mean(&in_use[quarter..2 * quarter]), mean(&in_use[3 * quarter..]));
    let growth = (late - early) / (steps as f64 / 2.0);
    println!("{steps} steps: {early:.0} bytes in use in the second quarter, {late:.0} in the last, {growth:.2} a step");
    // The metrics of an epoch stay, 112 steps long.
    assert!(growth < 4.0, "{growth} bytes stay from every step");
}
