//! RGBA bytes of any size to what a network sees: the middle square, resized with a triangle filter,
//! rounded to 0..255, then `(level / 255 - mean) / std`. Alpha is dropped.
//!
//! The same as `crop_rgba` and `fill_batch` of `kiln-data`, which the page runs: see shaders/README.md
//! for why.

pub mod reference;
pub mod wgsl;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Runner;

    /// Whole levels that `value` may be: two where rounding is a matter of the last digit.
    fn rounds_to(level: f64, found: f64) -> bool {
        (level - 1e-3).round() <= found && found <= (level + 1e-3).round()
    }

    #[test]
    fn the_shader_agrees_with_the_reference() {
        let Some(adapter) = crate::inference::gpu::for_tests() else { return };
        let runner = pollster::block_on(Runner::new(&adapter)).unwrap();
        let (mean, std) = ([0.5, 0.25, 0.0], [0.5, 0.25, 1.0]);
        for (sizes, size) in [
            ([32, 32], 32),
            ([1, 1], 8),
            ([1, 2000], 5),
            ([2000, 1], 3),
            ([7, 5], 32),
            ([300, 77], 32),
            ([65, 129], 33),
            ([640, 480], 1),
        ] {
            let len = (sizes[0] * sizes[1]) as usize;
            // Alpha of 0 to 255 changes nothing.
            let pixels: Vec<u8> = (0..len * 4).map(|at| (at * 7919 % 256) as u8).collect();
            let words: Vec<u32> = pixels.chunks(4).map(|rgba| u32::from_le_bytes(rgba.try_into().unwrap())).collect();
            let output = runner.poisoned(3 * size * size);
            let buffers = [&runner.upload(&words), &runner.upload(&wgsl::square(sizes)), &output];
            pollster::block_on(runner.run(&wgsl::launch(size, mean, std), &buffers)).unwrap();
            let found = pollster::block_on(runner.read(&output)).unwrap();
            for (at, level) in reference::levels(&pixels, sizes, size).into_iter().enumerate() {
                let channel = at / (size * size);
                let level_found = f64::from((found[at] * std[channel] + mean[channel]) * 255.0);
                assert!((level_found - level_found.round()).abs() < 1e-3, "{sizes:?} to {size}: {level_found}");
                assert!(rounds_to(level, level_found.round()), "{sizes:?} to {size}: {level_found} is not {level}");
            }
        }
    }
}
