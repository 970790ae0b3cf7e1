//! What a network says of a set of images: everything that metrics and pictures are made of.

/// A network's answers on N images, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Names in the order of the logits.
    pub classes: Vec<String>,
    /// Class of each image `[N]`, an index into `classes`.
    pub labels: Vec<usize>,
    /// Scores before softmax `[N, classes]`.
    pub logits: Vec<f32>,
    /// What the classifier saw `[N, F]`; empty unless asked for.
    pub features: Vec<f32>,
}

/// How well they score, in the three numbers that training goes by; [`Metrics`](crate::Metrics) has more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Images evaluated.
    pub samples: usize,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of images whose class scored highest, 0..1.
    pub accuracy: f64,
}

impl Predictions {
    /// What training goes by.
    pub fn evaluation(&self) -> Evaluation {
        Evaluation { samples: self.len(), loss: self.loss(), accuracy: self.accuracy() }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Logits of one image `[classes]`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn row(&self, index: usize) -> &[f32] {
        &self.logits[index * self.classes.len()..][..self.classes.len()]
    }

    /// Label and logits of each image.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.labels.iter().copied().zip(self.logits.chunks_exact(self.classes.len().max(1)))
    }

    /// The class that scored highest for one image, the first of equals.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn predicted(&self, index: usize) -> usize {
        argmax(self.row(index))
    }

    /// Softmax of one image's logits `[classes]`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn probabilities(&self, index: usize) -> Vec<f64> {
        softmax(self.row(index), 1.0)
    }

    /// Mean cross-entropy, the negative log-likelihood of the labels, in nats; 0 of no images.
    pub fn loss(&self) -> f64 {
        self.scaled_loss(1.0)
    }

    /// [`loss`](Self::loss) of the logits divided by a temperature.
    pub(crate) fn scaled_loss(&self, temperature: f64) -> f64 {
        mean(self.rows().map(|(label, logits)| cross_entropy(logits, label, temperature)))
    }

    /// Share of images whose class is among the `k` that scored highest, 0..1; 0 of no images.
    pub fn top_k_accuracy(&self, k: usize) -> f64 {
        mean(self.rows().map(|(label, logits)| f64::from(u8::from(rank(logits, label) < k))))
    }

    /// Share of images whose class scored highest, 0..1; 0 of no images.
    pub fn accuracy(&self) -> f64 {
        self.top_k_accuracy(1)
    }

    /// The mean over the classes of the share of their images whose class scored highest, 0..1 (scikit-learn's
    /// `balanced_accuracy_score`), where that says something else than the accuracy: one class has more than twice as many
    /// images as another.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let mut counts = vec![[0_usize; 2]; self.classes.len()];
        for (label, logits) in self.rows() {
            let [images, correct] = &mut counts[label];
            *images += 1;
            *correct += usize::from(argmax(logits) == label);
        }
        counts.retain(|[images, _]| *images > 0);
        differ_in_size(counts.iter().map(|[images, _]| *images))
            .then(|| mean(counts.iter().map(|[images, correct]| *correct as f64 / *images as f64)))
    }
}

/// Whether one class has more than twice as many images as another; those without images do not count.
pub(crate) fn differ_in_size(images: impl Iterator<Item = usize> + Clone) -> bool {
    let images = images.filter(|images| *images > 0);
    images.clone().max().zip(images.min()).is_some_and(|(most, least)| most > 2 * least)
}

/// Index of the largest value, the first of equals.
pub(crate) fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0)
}

/// How many classes scored better than `label`; of equals, the first is the best, as for [`argmax`].
pub(crate) fn rank(logits: &[f32], label: usize) -> usize {
    let better = |(class, logit): &(usize, &f32)| logit.total_cmp(&logits[label]).then(label.cmp(class)).is_gt();
    logits.iter().enumerate().filter(better).count()
}

/// `softmax(logits / temperature)` in double precision.
pub(crate) fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let mut values = exponentials(logits, temperature);
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}

/// `-log softmax(logits / temperature)[label]`, in nats; without a detour by the probability, which may round to 0.
pub(crate) fn cross_entropy(logits: &[f32], label: usize, temperature: f64) -> f64 {
    let sum: f64 = exponentials(logits, temperature).iter().sum();
    sum.ln() - (f64::from(logits[label]) - greatest(logits)) / temperature
}

/// `exp((logit - greatest) / temperature)`, which cannot overflow.
fn exponentials(logits: &[f32], temperature: f64) -> Vec<f64> {
    let greatest = greatest(logits);
    logits.iter().map(|logit| ((f64::from(*logit) - greatest) / temperature).exp()).collect()
}

fn greatest(logits: &[f32]) -> f64 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max).into()
}

/// 0 of no values.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_first_class_is_the_answer_and_ranks_best() {
        let logits = [1.0, 3.0, 3.0, 2.0];
        assert_eq!(argmax(&logits), 1);
        assert_eq!([0, 1, 2, 3].map(|label| rank(&logits, label)), [3, 0, 1, 2]);
    }

    #[test]
    fn the_balanced_accuracy_is_that_of_classes_whose_sizes_differ() {
        let of = |labels: &[usize]| {
            let classes = ["a", "b", "c"].map(String::from).to_vec();
            // The first class is always the answer.
            let logits = [1.0, 0.0, 0.0].repeat(labels.len());
            Predictions { classes, labels: labels.to_vec(), logits, features: vec![] }.balanced_accuracy()
        };
        assert_eq!(of(&[0, 0, 0, 0, 0, 1, 1]), Some(0.5), "nothing is known of the third class");
        assert_eq!(of(&[0, 0, 0, 1, 2, 2]), Some(1.0 / 3.0));
        assert_eq!(of(&[0, 0, 1, 2]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn large_logits_overflow_nowhere() {
        let predictions = Predictions {
            classes: vec!["a".into(), "b".into()],
            labels: vec![1],
            logits: vec![2e4, -2e4],
            features: vec![],
        };
        assert_eq!((predictions.probabilities(0), predictions.loss()), (vec![1.0, 0.0], 4e4));
    }
}
