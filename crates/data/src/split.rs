//! Splits validation images off the training images, and takes balanced subsets.

use serde::{Deserialize, Serialize};

use crate::{error::DataError, random::KeyedRng};

/// How many training images are held out for validation. In a recipe, this is a fraction such as `0.1` or a number
/// of images such as `5000`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Validation {
    /// A number of images, below the total. `0` for none.
    Count(usize),
    /// A fraction of the images in `[0, 1)`.
    Fraction(f32),
}

/// Indices of the images for training and for validation.
///
/// Both lists are sorted. Together they contain every image exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Images to train on.
    pub train: Vec<u32>,
    /// Images that select the best epoch.
    pub validation: Vec<u32>,
}

/// Splits validation images off the images with these `labels` `[N]`, in proportion to the size of each class
/// (rounded by largest remainder). `seed` selects the images.
///
/// If any images are split off, every class of two or more has one among them, and every class keeps at least one to
/// train on; validation may then get more or fewer images than requested. This is a pure function.
///
/// # Errors
///
/// [`DataError::Validation`] if the fraction is not in `[0, 1)` or the count is not below `N`.
pub fn split(labels: &[u32], validation: Validation, seed: u64) -> Result<Split, DataError> {
    let refused = |asked: String| DataError::Validation { asked, images: labels.len() };
    let count = match validation {
        Validation::Count(0) => 0,
        Validation::Count(n) if n < labels.len() => n,
        Validation::Fraction(f) if (0.0..1.0).contains(&f) => (f64::from(f) * labels.len() as f64).round() as usize,
        Validation::Count(n) => return Err(refused(n.to_string())),
        Validation::Fraction(f) => return Err(refused(format!("a fraction of {f}"))),
    };

    let mut in_validation = vec![false; labels.len()];
    let classes = shuffled_by_class(labels, b"split...", seed);
    for (members, share) in classes.iter().zip(shares(&classes, count)) {
        for &index in &members[..share] {
            in_validation[index as usize] = true;
        }
    }
    let (validation, train) = (0..labels.len() as u32).partition(|&index| in_validation[index as usize]);
    Ok(Split { train, validation })
}

/// At most `limit` sorted indices of the images with these `labels` `[N]`, with the classes as balanced as possible.
/// `seed` selects the images.
pub fn balanced_subset(labels: &[u32], limit: usize, seed: u64) -> Vec<u32> {
    let classes = shuffled_by_class(labels, b"subset..", seed);
    let rounds = classes.iter().map(Vec::len).max().unwrap_or(0);
    let mut subset: Vec<u32> = (0..rounds)
        .flat_map(|round| classes.iter().filter_map(move |members| members.get(round)))
        .copied()
        .take(limit)
        .collect();
    subset.sort_unstable();
    subset
}

/// The indices of each class, in random order.
fn shuffled_by_class(labels: &[u32], domain: &[u8; 8], seed: u64) -> Vec<Vec<u32>> {
    let classes = labels.iter().max().map_or(0, |&last| last as usize + 1);
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in (0..).zip(labels) {
        members[label as usize].push(index);
    }
    for (class, members) in (0..).zip(&mut members) {
        KeyedRng::new(domain, seed, 0, class).shuffle(members);
    }
    members
}

/// How many images of each class add up to about `count`: in proportion to the class, by largest remainder, but one or
/// more, and fewer than the class has.
fn shares(classes: &[Vec<u32>], count: usize) -> Vec<usize> {
    let total = classes.iter().map(Vec::len).sum::<usize>().max(1);
    let mut shares: Vec<usize> = classes.iter().map(|c| c.len() * count / total).collect();
    let mut by_remainder: Vec<usize> = (0..classes.len()).collect();
    by_remainder.sort_by_key(|&c| std::cmp::Reverse(classes[c].len() * count % total));
    for &class in by_remainder.iter().take(count - shares.iter().sum::<usize>()) {
        shares[class] += 1;
    }
    for (share, class) in shares.iter_mut().zip(classes) {
        let least = usize::from(count > 0);
        *share = (*share).max(least).min(class.len().saturating_sub(1));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 classes with 600, 300 and 100 images, mixed.
    fn labels() -> Vec<u32> {
        (0..1000)
            .map(|i| match i % 10 {
                0..6 => 0,
                6..9 => 1,
                _ => 2,
            })
            .collect()
    }

    fn count(labels: &[u32], indices: &[u32], class: u32) -> usize {
        indices.iter().filter(|&&i| labels[i as usize] == class).count()
    }

    #[test]
    fn train_and_validation_are_disjoint_and_cover_all() {
        let labels = labels();
        for validation in [Validation::Fraction(0.1), Validation::Count(333), Validation::Count(0)] {
            let split = split(&labels, validation, 5).unwrap();
            assert!(split.train.is_sorted() && split.validation.is_sorted());
            let mut all = [split.train, split.validation].concat();
            all.sort_unstable();
            assert_eq!(all, (0..1000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn each_class_gives_its_share() {
        let labels = labels();
        let by_fraction = split(&labels, Validation::Fraction(0.1), 0).unwrap().validation;
        assert_eq!([0, 1, 2].map(|c| count(&labels, &by_fraction, c)), [60, 30, 10]);
        let by_count = split(&labels, Validation::Count(55), 0).unwrap().validation;
        assert_eq!(by_count.len(), 55);
        assert_eq!([0, 1, 2].map(|c| count(&labels, &by_count, c)), [33, 17, 5]);
    }

    #[test]
    fn the_split_depends_on_the_seed_and_on_nothing_else() {
        let labels = labels();
        let of_seed = |seed| split(&labels, Validation::Fraction(0.2), seed).unwrap();
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
    }

    #[test]
    fn a_class_keeps_an_image_to_train_on() {
        let split = split(&[0, 0, 0, 0, 1], Validation::Fraction(0.9), 0).unwrap();
        assert_eq!(split.train.len(), 2);
        assert!(split.train.contains(&4));
    }

    #[test]
    fn a_share_that_cannot_be_taken_is_refused() {
        for asked in [
            Validation::Fraction(1.0),
            Validation::Fraction(-0.1),
            Validation::Fraction(f32::NAN),
            Validation::Count(1000),
        ] {
            let error = split(&labels(), asked, 0).unwrap_err();
            assert!(error.to_string().contains("of 1000 images"), "{error}");
        }
        assert!(split(&[], Validation::Fraction(0.1), 0).unwrap().train.is_empty());
        assert!(split(&[], Validation::Count(0), 0).is_ok());
    }

    #[test]
    fn a_subset_is_balanced_sorted_and_takes_more_of_others_when_a_class_runs_out() {
        let labels = labels();
        let subset = balanced_subset(&labels, 30, 9);
        assert_eq!([0, 1, 2].map(|c| count(&labels, &subset, c)), [10, 10, 10]);
        assert!(subset.is_sorted());
        let subset = balanced_subset(&labels, 500, 9);
        assert_eq!([0, 1, 2].map(|c| count(&labels, &subset, c)), [200, 200, 100]);
        assert_eq!(balanced_subset(&labels, 5000, 9).len(), 1000);
        assert!(balanced_subset(&[], 10, 9).is_empty());
    }

    #[test]
    fn a_recipe_gives_a_fraction_or_a_count() {
        let read = |text| serde_json::from_str::<Validation>(text).unwrap();
        assert_eq!(read("0.1"), Validation::Fraction(0.1));
        assert_eq!(read("5000"), Validation::Count(5000));
    }

    #[test]
    fn every_class_of_two_or_more_is_validated() {
        // 100, 3, 2 and 1 images.
        let labels: Vec<u32> = [100, 3, 2, 1].iter().zip(0..).flat_map(|(count, label)| vec![label; *count]).collect();
        let found = split(&labels, Validation::Fraction(0.1), 0).unwrap();
        let count = |of: &[u32], class| of.iter().filter(|index| labels[**index as usize] == class).count();
        assert_eq!([0, 1, 2, 3].map(|class| count(&found.validation, class)), [11, 1, 1, 0]);
        assert_eq!([0, 1, 2, 3].map(|class| count(&found.train, class)), [89, 2, 1, 1]);
        assert!(split(&labels, Validation::Fraction(0.0), 0).unwrap().validation.is_empty());
    }
}
