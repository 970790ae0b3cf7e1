//! One pass each way, where burn's composed form takes two and a mask.
#![allow(unsafe_code, reason = "vectors that start unwritten")]

use kiln_infer::parallel;

/// Numbers a task handles: enough to be worth a thread's while.
const CHUNK: usize = 1 << 15;

/// `max(x + y, 0)`
pub fn forward(x: &[f32], y: &[f32]) -> Vec<f32> {
    // Not `max`, which would make a number of NaN.
    combine(x, y, |x, y| if x + y < 0.0 { 0.0 } else { x + y })
}

/// `x + y`
pub fn add(x: &[f32], y: &[f32]) -> Vec<f32> {
    combine(x, y, |x, y| x + y)
}

/// Gradient of each of the two inputs.
pub fn backward(output: &[f32], grad: &[f32]) -> Vec<f32> {
    combine(output, grad, |output, grad| if output > 0.0 { grad } else { 0.0 })
}

fn combine(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Send) -> Vec<f32> {
    assert_eq!(x.len(), y.len());
    // Safety: all of a chunk is written.
    unsafe {
        parallel::make_chunks(
            x.len(),
            CHUNK,
            #[inline(always)]
            |range, output| {
                for (output, (x, y)) in output.iter_mut().zip(x[range.clone()].iter().zip(&y[range])) {
                    output.write(f(*x, *y));
                }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_sums_are_cut_and_pass_no_gradient() {
        assert_eq!(forward(&[1.0, -3.0, 0.5], &[2.0, 1.0, -0.5]), [3.0, 0.0, 0.0]);
        assert_eq!(backward(&[3.0, 0.0, 0.0], &[5.0, 6.0, 7.0]), [5.0, 0.0, 0.0]);
    }

    #[test]
    fn nothing_is_lost_at_the_ends_of_chunks() {
        let x: Vec<f32> = (0..CHUNK * 2 + 3).map(|index| index as f32).collect();
        let expected: Vec<f32> = x.iter().map(|x| x * 2.0).collect();
        assert_eq!(forward(&x, &x), expected);
    }
}
