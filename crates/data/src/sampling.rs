//! Which images an epoch shows, and how much each class counts, where classes differ in size.

use crate::random::KeyedRng;

/// An epoch of as many images as `indices`, with every class equally often, to within one. A small class's images come
/// up several times; of a large class only some do, and others in another epoch. A function of (seed, epoch).
///
/// # Panics
/// If an index is not below `labels.len()`.
pub fn balanced_order(indices: &[u32], labels: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    let mut classes = by_class(indices, labels);
    classes.retain(|images| !images.is_empty());
    let (share, rest) = (indices.len() / classes.len().max(1), indices.len() % classes.len().max(1));
    // Which classes get an image more changes from epoch to epoch.
    KeyedRng::new(b"classes.", seed, epoch, 0).shuffle(&mut classes);
    let mut order = Vec::with_capacity(indices.len());
    for (rank, images) in classes.iter_mut().enumerate() {
        let first = u64::from(images[0]);
        KeyedRng::new(b"of_class", seed, epoch, first).shuffle(images);
        order.extend(images.iter().cycle().take(share + usize::from(rank < rest)));
    }
    KeyedRng::new(b"order...", seed, epoch, 0).shuffle(&mut order);
    order
}

/// The weight of each class in a loss that counts all classes alike: images in all over classes times the class's
/// images, as scikit-learn's `class_weight="balanced"`. Their mean over the images is 1; a class without images has 1.
///
/// # Panics
/// If an index is not below `labels.len()`, or a label not below `classes`.
pub fn balanced_weights(indices: &[u32], labels: &[u32], classes: usize) -> Vec<f32> {
    let mut counts = vec![0_usize; classes];
    for &index in indices {
        counts[labels[index as usize] as usize] += 1;
    }
    let present = counts.iter().filter(|count| **count > 0).count();
    let weight = |count: usize| if count == 0 { 1.0 } else { indices.len() as f32 / (present * count) as f32 };
    counts.into_iter().map(weight).collect()
}

/// The indices of each class's images.
fn by_class(indices: &[u32], labels: &[u32]) -> Vec<Vec<u32>> {
    let mut classes: Vec<Vec<u32>> = vec![];
    for &index in indices {
        let class = labels[index as usize] as usize;
        if classes.len() <= class {
            classes.resize(class + 1, vec![]);
        }
        classes[class].push(index);
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nine images of class 0, one of class 1, two of class 3.
    const LABELS: [u32; 12] = [0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 3, 0];

    #[test]
    fn every_class_comes_up_equally_often() {
        let all: Vec<u32> = (0..12).collect();
        for epoch in 0..5 {
            let order = balanced_order(&all, &LABELS, 7, epoch);
            let count = |class| order.iter().filter(|index| LABELS[**index as usize] == class).count();
            assert_eq!([count(0), count(1), count(3)], [4; 3]);
            assert_eq!(order, balanced_order(&all, &LABELS, 7, epoch), "a function of seed and epoch");
        }
        let seen: std::collections::BTreeSet<u32> =
            (0..20).flat_map(|epoch| balanced_order(&all, &LABELS, 7, epoch)).collect();
        assert_eq!(seen.len(), 12, "over the epochs every image is shown");
        // 11 images of three classes: two classes get one more.
        let order = balanced_order(&all[..11], &LABELS, 7, 0);
        let count = |class| order.iter().filter(|index| LABELS[**index as usize] == class).count();
        let mut counts = [count(0), count(1), count(3)];
        counts.sort();
        assert_eq!(counts, [3, 4, 4]);
        assert!(balanced_order(&[], &LABELS, 7, 0).is_empty());
    }

    #[test]
    fn weights_make_all_classes_count_alike() {
        let all: Vec<u32> = (0..12).collect();
        let weights = balanced_weights(&all, &LABELS, 4);
        let total =
            |class: u32| LABELS.iter().filter(|label| **label == class).count() as f32 * weights[class as usize];
        assert_eq!([total(0), total(1), total(3)], [4.0; 3]);
        assert_eq!(weights[2], 1.0, "a class without images");
    }
}
