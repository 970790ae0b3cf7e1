//! What tests and `kiln doctor` compare operators with: inputs for them, and the error of what comes out.

/// From -0.5 to 0.5, the same for the same seed.
pub fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

/// Largest difference over the largest value; infinite if anything is not a number.
pub fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let scale = expected.iter().fold(1e-30_f64, |max, value| max.max(value.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    // `max` of f64 ignores NaN; a NaN must fail.
    worst.fold(0.0_f64, |max, error| if error.is_nan() { f64::INFINITY } else { max.max(error) }) / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_an_error_without_end() {
        assert_eq!(relative_error(&[1.0, -4.0], &[1.0, -4.5]), 0.5 / 4.5);
        for found in [vec![1.0, f32::NAN], vec![f32::INFINITY, 2.0], vec![1.0]] {
            assert_eq!(relative_error(&found, &[1.0, 2.0]), f64::INFINITY, "{found:?}");
        }
    }
}
