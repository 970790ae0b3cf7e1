//! Products of bf16 numbers by tile registers: Intel's AMX multiplies 16 rows of 16 words by 16 rows of 16 words in one
//! instruction, many times as fast as AVX512-BF16.
//!
//! Registers 0 to 3 hold sums, 4 and 5 pixels, 6 and 7 weights (or gradients). Rust has no stable intrinsics for them; it makes no
//! use of them by itself either, so that they keep what one instruction leaves for the next. Linux alone is asked for them.
//! Source: Intel's Software Developer's Manual, volume 1, chapter 18.
#![allow(unsafe_code, reason = "instructions that Rust does not have yet")]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::arch::asm;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::arch::x86_64::__cpuid_count;
use std::array;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use pulp::Simd;

use super::{Convolution, Kernel, MultiplyAdd, Runs, advance, bf16, run_len, store};
use crate::parallel::Shared;

/// Rows of a tile, and words in each.
pub const SIDE: usize = 16;
/// Tiles of sums.
pub const SUMS: usize = 4;

/// Words from the start of a cache line on: weights whose rows cross from one line to the next cost up to half of the speed.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub struct Line(pub [f32; SIDE]);

/// Whether processor and system have tiles; the system is asked for them once.
pub fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    ALLOWED.get() && *AVAILABLE.get_or_init(|| bf16::is_available() && request())
}

/// Asks Linux for the tiles' state, which a process has only then.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn request() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let mut answer = ARCH_PRCTL;
    // Safety: a system call that writes no memory. Old systems, and those on processors without tiles, refuse it.
    unsafe {
        asm!("syscall", inout("rax") answer, in("rdi") REQUEST_PERMISSION, in("rsi") TILE_DATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    answer == 0 && __cpuid_count(7, 0).edx & AMX_BF16 != 0
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn request() -> bool {
    false
}

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(true) };
}

/// Whether calls from this thread may use tiles. Tests forbid it, to reach the code that other processors run.
#[doc(hidden)]
pub fn allow_tiles(allowed: bool) {
    ALLOWED.set(allowed);
}

/// The tile registers of this thread, given their shapes while this lives.
pub struct TileRegisters {
    not_send: PhantomData<*const ()>,
}

/// Rows of words that lie `stride` words apart.
#[derive(Clone, Copy)]
pub struct Rows {
    pub start: *const f32,
    pub stride: usize,
}

impl TileRegisters {
    /// Tiles of sums and pixels have that many rows, of weights 16.
    ///
    /// # Panics
    /// Where there are no tiles, or not so many rows.
    pub fn new(rows: usize) -> Self {
        assert!(is_available() && (1..=SIDE).contains(&rows), "{rows} rows of a tile");
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        {
            // Palette 1; bytes in a row from byte 16 on, two for each tile; rows from byte 48 on.
            let mut shapes = Line::default();
            let bytes = bytemuck::bytes_of_mut(&mut shapes.0);
            bytes[0] = 1;
            for tile in 0..8 {
                bytes[16 + 2 * tile] = (4 * SIDE) as u8;
                bytes[48 + tile] = if tile < 6 { rows } else { SIDE } as u8;
            }
            // Safety: there are tiles, and the shapes are 64 bytes.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly)) };
        }
        Self { not_send: PhantomData }
    }

    /// Makes four tiles of sums, whose rows lie `stride` words apart: with two vectors of channels `sums[2 p + v] =
    /// pixels[p] weights[v]`, and with one `sums[p] = pixels[p] weights`; or adds to what is there. Runs are whole tiles
    /// long; the weights lie run after run, with adjacent vectors.
    ///
    /// # Safety
    /// All that is read must exist, and no other thread may use the sums; two threads may write the same sums of the same products.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[allow(clippy::too_many_arguments, reason = "two operands, a result, and how they lie")]
    pub unsafe fn multiply(
        &self,
        vectors: usize,
        pixels: [Rows; SUMS],
        runs: Runs,
        weights: *const f32,
        sums: [*mut f32; SUMS],
        stride: usize,
        add: bool,
    ) {
        const BYTES: usize = size_of::<f32>();
        macro_rules! tile {
            (load $tile:literal, $start:expr, $stride:expr) => {
                asm!(concat!("tileloadd tmm", $tile, ", [{} + {}]"), in(reg) $start, in(reg) $stride,
                    options(nostack, preserves_flags, readonly))
            };
            (store $tile:literal, $start:expr, $stride:expr) => {
                asm!(concat!("tilestored [{} + {}], tmm", $tile), in(reg) $start, in(reg) $stride,
                    options(nostack, preserves_flags))
            };
            (multiply $sums:literal, $pixels:literal, $weights:literal) => {
                asm!(concat!("tdpbf16ps tmm", $sums, ", tmm", $pixels, ", tmm", $weights),
                    options(nostack, preserves_flags, nomem))
            };
        }
        let width = vectors * SIDE;
        // Safety: the caller's, and the tiles have their shapes.
        unsafe {
            if add {
                tile!(load 0, sums[0], stride * BYTES);
                tile!(load 1, sums[1], stride * BYTES);
                tile!(load 2, sums[2], stride * BYTES);
                tile!(load 3, sums[3], stride * BYTES);
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, preserves_flags, nomem)
                );
            }
            let mut weights = weights;
            for run in 0..runs.count {
                for word in (0..runs.len).step_by(SIDE) {
                    let at = |p: usize| pixels[p].start.add(run * runs.apart + word);
                    let apart = |p: usize| pixels[p].stride * BYTES;
                    tile!(load 6, weights, width * BYTES);
                    tile!(load 4, at(0), apart(0));
                    tile!(multiply 0, 4, 6);
                    if vectors == 2 {
                        tile!(load 7, weights.add(SIDE), width * BYTES);
                        tile!(multiply 1, 4, 7);
                        tile!(load 5, at(1), apart(1));
                        tile!(multiply 2, 5, 6);
                        tile!(multiply 3, 5, 7);
                    } else {
                        tile!(load 5, at(1), apart(1));
                        tile!(multiply 1, 5, 6);
                        tile!(load 4, at(2), apart(2));
                        tile!(multiply 2, 4, 6);
                        tile!(load 5, at(3), apart(3));
                        tile!(multiply 3, 5, 6);
                    }
                    weights = weights.add(SIDE * width);
                }
            }
            tile!(store 0, sums[0], stride * BYTES);
            tile!(store 1, sums[1], stride * BYTES);
            tile!(store 2, sums[2], stride * BYTES);
            tile!(store 3, sums[3], stride * BYTES);
        }
    }

    /// As above, on processors that have none.
    ///
    /// # Safety
    /// None is needed.
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    #[allow(clippy::too_many_arguments, reason = "as above")]
    pub unsafe fn multiply(
        &self,
        _: usize,
        _: [Rows; SUMS],
        _: Runs,
        _: *const f32,
        _: [*mut f32; SUMS],
        _: usize,
        _: bool,
    ) {
        unreachable!("there are no tiles")
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
impl Drop for TileRegisters {
    fn drop(&mut self) {
        // Safety: there are tiles. A thread that has none in use is switched faster.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// Some blocks of output channels of some pixels. A tile's pixels lie in one row.
pub(super) struct Convolve<'a> {
    pub convolution: &'a Convolution<'a>,
    pub blocks: Range<usize>,
    pub pixels: Range<usize>,
    pub output: Shared<'a>,
}

impl Kernel for Convolve<'_> {
    #[inline(always)]
    fn run<S: Simd, M: MultiplyAdd<S>>(self, simd: S, _: M) {
        assert!(S::F32_LANES == SIDE);
        let columns = self.convolution.pixels[2];
        // TileRegisters of a row that are about as wide as each other; the last may cover what the one before has made.
        let per_row = columns.div_ceil(SIDE);
        let width = columns.div_ceil(per_row);
        let tiles = TileRegisters::new(width);
        for block in self.blocks.clone() {
            match self.convolution.weights.vectors {
                1 => self.make::<S, 1>(simd, &tiles, width, per_row, block),
                _ => self.make::<S, 2>(simd, &tiles, width, per_row, block),
            }
        }
    }
}

impl Convolve<'_> {
    /// One block, by tiles of so many pixels, so many in a row.
    #[inline(always)]
    fn make<S: Simd, const V: usize>(
        &self,
        simd: S,
        tiles: &TileRegisters,
        width: usize,
        per_row: usize,
        block: usize,
    ) {
        let Self { convolution, pixels, output, .. } = self;
        let Convolution { x, from, runs, to, residual, relu, weights, .. } = convolution;
        let ([_, rows, columns], first) = (convolution.pixels, block * V * SIDE);
        assert!(pixels.start % columns == 0 && pixels.end % columns == 0, "tiles are cut from whole rows");
        let runs = Runs { len: run_len(runs.len, true), ..*runs };
        let (weight, bias) = weights.block(block);
        assert!(weight.len() == runs.count * runs.len * V * SIDE && bias.len() == V * SIDE);
        let channels = (V * SIDE).min(weights.outputs - first);
        // Where sums are the output as they are, they go there at once. On the way through memory nearby, reading them
        // would wait until all that was written before has left the processor.
        let is_plain = channels == V * SIDE && residual.is_none() && !relu && bias.iter().all(|bias| *bias == 0.0);
        let mut sums = [[Line::default(); V]; SUMS * SIDE];
        let mut at = [pixels.start / columns / rows, pixels.start / columns % rows, 0];
        let (count, together) = (pixels.len() / columns * per_row, SUMS / V);
        for start in (0..count).step_by(together) {
            let made = together.min(count - start);
            // Beyond the last tile there is that one again.
            let mut place = at;
            let places: [_; SUMS] = array::from_fn(|p| {
                if p < made {
                    place = [at[0], at[1], at[2].min(columns - width)];
                    at[2] = (at[2] + width).min(columns) - 1;
                    advance(&mut at, rows, columns);
                }
                place
            });
            let (parts, stride) = if is_plain {
                let len = (width - 1) * to.steps[2] + channels;
                let starts = places.map(|at| output.pointer(to.at(at) + first, len));
                (array::from_fn(|part| starts[part / V].wrapping_add(part % V * SIDE)), to.steps[2])
            } else {
                (array::from_fn(|part| sums[part / V * SIDE][part % V..].as_mut_ptr().cast()), V * SIDE)
            };
            // Safety: by the assertions of `Convolution::run`, every run lies in `x`; the sums are this call's.
            unsafe {
                let pixels = places.map(|at| Rows { start: x.as_ptr().add(from.at(at)), stride: from.steps[2] });
                tiles.multiply(V, pixels, runs, weight.as_ptr(), parts, stride, false);
            }
            if is_plain {
                continue;
            }
            for (place, sums) in places[..made].iter().zip(sums.chunks_exact(SIDE)) {
                for (column, sums) in sums[..width].iter().enumerate() {
                    let at = [place[0], place[1], place[2] + column];
                    let residual = residual.map(|(values, view)| &values[view.at(at) + first..][..channels]);
                    // Safety: the caller's of `Convolution::run`.
                    let y = unsafe { output.unwritten(to.at(at) + first, channels) };
                    let sums: [S::f32s; V] = array::from_fn(|v| {
                        simd.add_f32s(S::as_simd_f32s(&sums[v].0).0[0], S::as_simd_f32s(&bias[v * SIDE..]).0[0])
                    });
                    store(simd, &sums, residual, *relu, y);
                }
            }
        }
    }
}
