//! Random numbers that depend only on what they are used for.
//!
//! Each use draws from its own ChaCha8 stream. The 32-byte ChaCha key is
//!
//! ```text
//! bytes  0..8   domain: the purpose, 8 ASCII bytes, such as `augment.`
//! bytes  8..16  seed of the run                  (u64, little-endian)
//! bytes 16..24  epoch, or 0 if there is none     (u64, little-endian)
//! bytes 24..32  sample index in its image set    (u64, little-endian)
//! ```
//!
//! so a draw does not depend on earlier draws, the batch, the thread or the platform. Numbers are made from the raw
//! 32-bit words here instead of with `rand`'s distributions, whose values may change between versions.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A stream of random numbers for one (domain, seed, epoch, sample index).
#[derive(Clone, Debug)]
pub struct KeyedRng(ChaCha8Rng);

impl KeyedRng {
    /// The stream of this key; see the [module's documentation](self) for the layout.
    pub fn new(domain: &[u8; 8], seed: u64, epoch: u64, index: u64) -> Self {
        let mut key = [0; 32];
        key[0..8].copy_from_slice(domain);
        key[8..16].copy_from_slice(&seed.to_le_bytes());
        key[16..24].copy_from_slice(&epoch.to_le_bytes());
        key[24..32].copy_from_slice(&index.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// An integer in `0..bound`, from one 32-bit word; 0 if `bound` is 0.
    ///
    /// Multiply and shift: some results are more likely than others, by at most `bound` / 2^32.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// A fair coin, from one 32-bit word.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    /// `true` with probability `chance`, 0 to 1, from one 32-bit word.
    pub fn chance(&mut self, chance: f64) -> bool {
        // Compared from above, so that a chance of 0.5 equals [`coin`](Self::coin) exactly.
        f64::from(self.uniform(0.0, 1.0)) >= 1.0 - chance
    }

    /// A number in `[low, high)`, one of 2^24 equally spaced values, from one 32-bit word.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        const STEP: f32 = 1.0 / (1 << 24) as f32;
        let unit = (self.0.next_u32() >> 8) as f32 * STEP;
        low + (high - low) * unit
    }

    /// Shuffles `items` (Fisher–Yates) with one word per item.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u32 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_key_changes_the_stream() {
        let first = |domain, seed, epoch, index| KeyedRng::new(domain, seed, epoch, index).below(u32::MAX);
        let draws = [
            first(b"augment.", 0, 0, 0),
            first(b"order...", 0, 0, 0),
            first(b"augment.", 1, 0, 0),
            first(b"augment.", 0, 1, 0),
            first(b"augment.", 0, 0, 1),
        ];
        for (i, a) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|b| a != b), "{draws:?}");
        }
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut rng = KeyedRng::new(b"test....", 7, 0, 0);
        for _ in 0..10_000 {
            assert!(rng.below(9) < 9);
            assert!((-0.5..2.0).contains(&rng.uniform(-0.5, 2.0)));
        }
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn a_chance_of_a_half_is_the_fair_coin() {
        for index in 0..1000 {
            let rng = || KeyedRng::new(b"test....", 7, 0, index);
            assert_eq!(rng().chance(0.5), rng().coin());
        }
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..1000).collect();
        KeyedRng::new(b"test....", 7, 0, 0).shuffle(&mut items);
        assert_ne!(items[..10], (0..10).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
