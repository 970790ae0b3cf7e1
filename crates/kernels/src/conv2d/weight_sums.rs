//! The gradient of a weight, summed on a CPU: what its two ways, by vectors (`cpu`) and by tile registers (`amx`), share.
#![allow(unsafe_code, reason = "threads write interleaved parts")]

use std::ops::Range;

use rayon::prelude::*;

use super::{Geometry, Precision};
use kiln_infer::cpu_conv::bf16;
use kiln_infer::parallel::{self, Shared, TASKS};

/// The largest weights whose gradients several parts of a batch make apart, in numbers.
const SMALL_WEIGHTS: usize = 1 << 19;
/// Input channels of a block that are unpacked together, so that what is read stays in the nearest cache.
const UNPACKED_TOGETHER: usize = 16;

/// The sums of one part of a batch, `[O / block, K, K, C, block]`.
pub struct PartSums<'a> {
    sums: Shared<'a>,
    start: usize,
    block_len: usize,
}

impl<'a> PartSums<'a> {
    /// # Safety
    /// Nobody else may have that block of this part meanwhile.
    pub unsafe fn block(&self, index: usize) -> &'a mut [f32] {
        // Safety: the caller's.
        unsafe { self.sums.part(self.start + index * self.block_len, self.block_len) }
    }
}

/// The gradient of a weight, `[O, C, K, K]`, of parts of a batch that are summed apart. It has that many `units` to be cut
/// into parts; `sum` adds some of them to some blocks of `block` output channels, and has these to itself.
pub fn sum_parts<B: Default + Send>(
    geometry: &Geometry,
    block: usize,
    units: usize,
    sum: impl Fn(&mut B, Range<usize>, Range<usize>, PartSums) + Sync,
) -> Vec<f32> {
    let ([channels, ..], [out, ..], area) = (geometry.input, geometry.outputs, geometry.area());
    let blocks = out.div_ceil(block);
    let block_len = area * channels * block;
    let parts = if out * channels * area <= SMALL_WEIGHTS { TASKS } else { TASKS.div_ceil(blocks) };
    let part_len = units.div_ceil(parts).max(1);
    let parts = units.div_ceil(part_len);
    // Where every part has all blocks, the input is read once; where it has not, the blocks are tasks.
    let cuts = TASKS.div_ceil(parts.max(1)).min(blocks);
    let mut sums = vec![0.0; parts * blocks * block_len];
    let shared = Shared::new(&mut sums);
    (0..parts * cuts).into_par_iter().for_each_init(B::default, |buffers, task| {
        let (part, cut) = (task / cuts, task % cuts);
        let units = part * part_len..units.min((part + 1) * part_len);
        let blocks_of_task = blocks * cut / cuts..blocks * (cut + 1) / cuts;
        sum(buffers, units, blocks_of_task, PartSums { sums: shared, start: part * blocks * block_len, block_len });
    });
    unpack(&mut sums, [parts, blocks, area, channels, block], out)
}

/// Rows of `[N, H, W, C]` as words, numbered through all images; in bf16 through pairs of them, and after the last
/// image there are zeros.
pub fn image_words<'a>(
    values: &'a [f32],
    [channels, height, width]: [usize; 3],
    rows: Range<usize>,
    precision: Precision,
    buffer: &'a mut Vec<f32>,
) -> &'a [f32] {
    let row_len = width * channels;
    if precision == Precision::F32 {
        return &values[rows.start * row_len..rows.end * row_len];
    }
    buffer.resize(rows.len() * row_len, 0.0);
    for (words, row) in buffer.chunks_exact_mut(row_len.max(1)).zip(rows) {
        let start = (row / height * 2 * height + row % height) * row_len;
        let (first, second) = (&values[start..][..row_len], start + height * row_len);
        match values.get(second..second + row_len) {
            Some(second) => bf16::pairs(first, second, words),
            None => words.iter_mut().zip(first).for_each(|(word, first)| *word = bf16::word(*first, 0.0)),
        }
    }
    buffer
}

/// Adds the parts `[parts, O / block, K K, C, block]` up, in the place of the first, to `[O, C, K K]`.
fn unpack(sums: &mut [f32], [parts, blocks, area, channels, block]: [usize; 5], out: usize) -> Vec<f32> {
    let groups = channels.div_ceil(UNPACKED_TOGETHER);
    let sums = Shared::new(sums);
    let write = |weight_grad: Shared| {
        parallel::for_each(blocks * groups, |task| {
            let (index, first) = (task / groups, task % groups * UNPACKED_TOGETHER);
            let count = UNPACKED_TOGETHER.min(channels - first);
            for tap in 0..area {
                let start = |part: usize| (((part * blocks + index) * area + tap) * channels + first) * block;
                // Safety: no other task has these channels of this block, in any part.
                let total = unsafe { sums.part(start(0), count * block) };
                for part in 1..parts {
                    // Safety: as above.
                    let part = unsafe { sums.part(start(part), count * block) };
                    total.iter_mut().zip(part).for_each(|(total, sum)| *total += *sum);
                }
                for lane in 0..block.min(out - index * block) {
                    let start = ((index * block + lane) * channels + first) * area;
                    // Safety: as above.
                    let filter = unsafe { weight_grad.unwritten(start, count * area) };
                    let values = filter[tap..].iter_mut().step_by(area);
                    values.zip(total[lane..].iter().step_by(block)).for_each(|(value, sum)| _ = value.write(*sum));
                }
            }
        });
    };
    // Safety: the tasks have all channels of all filters.
    unsafe { parallel::make(out * channels * area, write) }
}
