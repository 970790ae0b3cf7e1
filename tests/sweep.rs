//! Truncations and flipped bits of a bundle: an error each time, no panic, bounded memory. In a process
//! of its own, whose memory is measured.
//!
//! Of a small bundle every seventh of them; with `KILN_WHOLE_SWEEP=1` each, and each of a bundle of 64 KiB.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kiln_model::container::Storage;
use kiln_model::{Bundle, ResNetConfig};

use crate::program::is_alone;
use crate::sample;

fn bundle(width: usize, storage: Storage) -> Vec<u8> {
    let architecture = ResNetConfig { width, ..ResNetConfig::new(18, 10) };
    let mut bundle = sample::bundle(architecture.into(), |at| (at as f32 * 1.7).sin());
    bundle.metadata.dataset_digest = "0123456789abcdef".repeat(4);
    bundle.stored_as(storage).to_bytes().unwrap()
}

/// Reads every `step`th damaged form of `whole` on all threads; how many there were.
fn sweep(whole: &[u8], step: usize) -> usize {
    assert!(Bundle::from_bytes(whole).is_ok());
    let (cuts, flips) = (whole.len(), 8 * whole.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut bytes = whole.to_vec();
                loop {
                    let case = next.fetch_add(step, Ordering::Relaxed);
                    if case < cuts {
                        assert!(
                            Bundle::from_bytes(&whole[..case]).is_err(),
                            "{case} bytes of {cuts} were taken for a bundle"
                        );
                        continue;
                    }
                    let bit = case - cuts;
                    if bit >= flips {
                        break;
                    }
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    assert!(Bundle::from_bytes(&bytes).is_err(), "bit {bit} of {flips} can be flipped unnoticed");
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            });
        }
    });
    (cuts + flips).div_ceil(step)
}

/// Most memory that this program had, in MiB; 0 where Linux is not.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    line.map_or(0, |kilobytes| kilobytes.parse::<usize>().unwrap() / 1024)
}

#[test]
fn no_damaged_bundle_is_read() {
    if !is_alone("sweep::no_damaged_bundle_is_read") {
        return;
    }
    let mut bundles = vec![bundle(1, Storage::Int8)];
    let is_whole = std::env::var_os("KILN_WHOLE_SWEEP").is_some();
    if is_whole {
        // Names of classes make up what 64 KiB want.
        let mut large = Bundle::from_bytes(&bundle(2, Storage::F32)).unwrap();
        let len = large.to_bytes().unwrap().len();
        let names = large.metadata.classes.iter_mut();
        names.for_each(|name| name.extend(std::iter::repeat_n('x', (65_536 - len) / 10)));
        bundles.push(large.to_bytes().unwrap());
    }
    for whole in bundles {
        let start = Instant::now();
        let cases = sweep(&whole, if is_whole { 1 } else { 7 });
        println!("{cases} forms of {} bytes: {cases} errors in {:.1?}, {} MiB", whole.len(), start.elapsed(), peak());
    }
    assert!(peak() < 64, "{} MiB", peak());
}
