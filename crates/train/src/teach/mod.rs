//! A new head for a network that stays as it is: multinomial logistic regression on what its backbone makes of pictures.
//!
//! Everything here is arithmetic in a fixed order with one thread, and no function of it is a platform's own: a page and a
//! terminal get the same bits from the same features.

mod lbfgs;
mod logistic;

use crate::metrics::Interval;
use crate::predictions::Predictions;

use self::logistic::Problem;

/// Strengths of the penalty that are tried, from the strongest: each starts where the one before it ended.
const STRENGTHS: [f64; 8] = [1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5];
/// Where there are too few pictures to choose by.
const DEFAULT_STRENGTH: f64 = 1e-2;
/// Most parts that the pictures of each class are cut into, of which one at a time is held out.
const MAX_FOLDS: usize = 5;

/// Pictures as a backbone sees them, with their classes.
#[derive(Clone, Debug)]
pub struct Examples {
    /// Names in the order of the labels.
    pub classes: Vec<String>,
    /// `[N]`, each below the number of classes.
    pub labels: Vec<usize>,
    /// `[N, F]`, what the head sees ([`kiln_model::Prediction::features`]).
    pub features: Vec<f32>,
}

/// A linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[classes, F]`
    pub weight: Vec<f32>,
    /// `[classes]`
    pub bias: Vec<f32>,
}

/// What was taught.
#[derive(Clone, Debug)]
pub struct Taught {
    pub head: Head,
    /// Strength of the L2 penalty on the weights, for features of mean square 1 after centering.
    pub strength: f64,
    /// The answers for each picture by a head that was fitted without it; `None` where a class has a single picture.
    pub held_out: Option<Predictions>,
}

/// Why nothing can be taught.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TeachError {
    #[error("there is only the class '{0}': a network tells two or more apart")]
    OneClass(String),
    #[error("the class '{0}' has no picture")]
    Empty(String),
    #[error("there are {features} features for {labels} pictures of {classes} classes")]
    Shape { features: usize, labels: usize, classes: usize },
    #[error("a feature of picture {0} is not finite")]
    NotFinite(usize),
    #[error("all pictures look the same to the network: teach it by others, or choose another network")]
    Same,
}

impl Examples {
    /// Numbers of a picture.
    fn width(&self) -> usize {
        self.features.len() / self.labels.len().max(1)
    }

    fn check(&self) -> Result<(), TeachError> {
        let (features, labels, classes) = (self.features.len(), self.labels.len(), self.classes.len());
        let width = self.width();
        if width == 0 || features != width * labels || self.labels.iter().any(|label| *label >= classes) {
            return Err(TeachError::Shape { features, labels, classes });
        }
        if let [only] = &self.classes[..] {
            return Err(TeachError::OneClass(only.clone()));
        }
        if let Some(class) = (0..classes).find(|class| !self.labels.contains(class)) {
            return Err(TeachError::Empty(self.classes[class].clone()));
        }
        match self.features.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(TeachError::NotFinite(at / width)),
            None => Ok(()),
        }
    }

    /// Those of these indices.
    fn select(&self, indices: &[usize]) -> Self {
        let width = self.width();
        Self {
            classes: self.classes.clone(),
            labels: indices.iter().map(|index| self.labels[*index]).collect(),
            features: indices.iter().flat_map(|index| &self.features[index * width..][..width]).copied().collect(),
        }
    }

    /// The fold of each picture: the pictures of a class in as many runs as there are folds. Pictures that follow each other often
    /// show the same, and so are held out together.
    fn folds(&self, count: usize) -> Vec<usize> {
        let mut totals = vec![0; self.classes.len()];
        self.labels.iter().for_each(|label| totals[*label] += 1);
        let mut seen = vec![0; self.classes.len()];
        let fold = |label: &usize| {
            seen[*label] += 1;
            (seen[*label] - 1) * count / totals[*label]
        };
        self.labels.iter().map(fold).collect()
    }

    /// Pictures of the smallest class.
    fn least(&self) -> usize {
        let count = |class| self.labels.iter().filter(|label| **label == class).count();
        (0..self.classes.len()).map(count).min().unwrap_or(0)
    }
}

/// Fits a head. The strength of its penalty is that of the least held-out loss, by stratified cross-validation.
///
/// # Errors
/// If there are fewer than two classes, one of them has no picture, or the features are not numbers to learn from.
pub fn teach(examples: &Examples) -> Result<Taught, TeachError> {
    examples.check()?;
    let folds = examples.least().min(MAX_FOLDS);
    if folds < 2 {
        let head = fit(examples, &[DEFAULT_STRENGTH])?.pop().ok_or(TeachError::Same)?;
        return Ok(Taught { head, strength: DEFAULT_STRENGTH, held_out: None });
    }
    let answers = held_out(examples, folds)?;
    let losses: Vec<f64> = answers.iter().map(loss).collect();
    // The stronger of equals.
    let best = (0..losses.len()).fold(0, |best, at| if losses[at] < losses[best] { at } else { best });
    let head = fit(examples, &STRENGTHS[..=best])?.pop().ok_or(TeachError::Same)?;
    Ok(Taught { head, strength: STRENGTHS[best], held_out: answers.into_iter().nth(best) })
}

/// Mean cross-entropy in nats. [`Predictions::loss`] takes the platform's own functions, which may choose another strength.
fn loss(answers: &Predictions) -> f64 {
    let mut scores = vec![0.0; answers.classes.len()];
    let losses = answers.rows().map(|(label, logits)| {
        scores.iter_mut().zip(logits).for_each(|(score, logit)| *score = f64::from(*logit));
        logistic::cross_entropy(&mut scores, label)
    });
    losses.sum::<f64>() / answers.len() as f64
}

/// The answers of heads that have not seen the picture, for each strength.
fn held_out(examples: &Examples, folds: usize) -> Result<Vec<Predictions>, TeachError> {
    let (fold_of, width, classes) = (examples.folds(folds), examples.width(), examples.classes.len());
    let mut logits = vec![vec![0.0; examples.labels.len() * classes]; STRENGTHS.len()];
    for fold in 0..folds {
        let (out, rest): (Vec<_>, Vec<_>) = (0..fold_of.len()).partition(|index| fold_of[*index] == fold);
        for (head, logits) in fit(&examples.select(&rest), &STRENGTHS)?.iter().zip(&mut logits) {
            for &index in &out {
                let answer = head.logits(&examples.features[index * width..][..width]);
                logits[index * classes..][..classes].copy_from_slice(&answer);
            }
        }
    }
    let answers = |logits| Predictions {
        classes: examples.classes.clone(),
        labels: examples.labels.clone(),
        logits,
        features: vec![],
    };
    Ok(logits.into_iter().map(answers).collect())
}

/// Heads for strengths that fall.
fn fit(examples: &Examples, strengths: &[f64]) -> Result<Vec<Head>, TeachError> {
    let problem = Problem::new(examples).ok_or(TeachError::Same)?;
    let mut parameters = problem.start();
    let heads = strengths.iter().map(|strength| {
        parameters = problem.solve(std::mem::take(&mut parameters), *strength);
        problem.head(&parameters)
    });
    Ok(heads.collect())
}

impl Head {
    /// Class scores `[classes]` of a picture's features `[F]`.
    pub fn logits(&self, features: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(features.len());
        rows.zip(&self.bias).map(|(row, bias)| logistic::dot(row, features) + bias).collect()
    }
}

/// The 95 % interval of a share of `right` in `total`, after Wilson: it holds for small numbers too.
pub fn wilson(right: usize, total: usize) -> Interval {
    const Z: f64 = 1.959_963_984_540_054;
    if total == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, share) = (total as f64, right as f64 / total as f64);
    let center = share + Z * Z / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Interval { low: ((center - reach) / scale).max(0.0), high: ((center + reach) / scale).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clouds of points around a center for each class.
    fn clouds(counts: &[usize], width: usize, spread: f32) -> Examples {
        let classes = (0..counts.len()).map(|class| format!("class {class}")).collect();
        let labels: Vec<usize> = counts.iter().enumerate().flat_map(|(class, count)| vec![class; *count]).collect();
        let mut state = 1_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        let mut features = vec![];
        for label in &labels {
            for at in 0..width {
                let center = ((label * width + at) as f32 * 1.7).sin() + 3.0;
                features.push(center + spread * next());
            }
        }
        Examples { classes, labels, features }
    }

    #[test]
    fn classes_that_lie_apart_are_told_apart() {
        let examples = clouds(&[12, 9, 30], 16, 1.0);
        let taught = teach(&examples).unwrap();
        let held_out = taught.held_out.unwrap();
        assert_eq!((held_out.len(), held_out.accuracy()), (51, 1.0));
        for (label, features) in examples.labels.iter().zip(examples.features.chunks(16)) {
            let logits = taught.head.logits(features);
            assert!(logits.iter().all(|logit| *logit <= logits[*label]));
        }
    }

    #[test]
    fn held_out_answers_know_nothing_of_the_picture() {
        // Classes that do not differ: whoever has seen a picture knows its class, and nobody else does.
        let mut examples = clouds(&[40, 40], 64, 1.0);
        let mean = clouds(&[80], 64, 1.0);
        examples.features = mean.features;
        let taught = teach(&examples).unwrap();
        let accuracy = taught.held_out.unwrap().accuracy();
        assert!((0.3..0.7).contains(&accuracy), "{accuracy}");
        assert!(taught.strength > 1e-3, "{}", taught.strength);
    }

    #[test]
    fn a_single_picture_each_is_enough_to_begin_with() {
        let taught = teach(&clouds(&[1, 1, 3], 8, 0.1)).unwrap();
        assert!(taught.held_out.is_none());
        assert_eq!(taught.head.bias.len(), 3);
    }

    #[test]
    fn neither_scale_nor_offset_of_the_features_matters() {
        let examples = clouds(&[10, 12], 8, 2.0);
        let moved = Examples {
            features: examples.features.iter().map(|value| 1024.0 * value - 4096.0).collect(),
            ..examples.clone()
        };
        let (one, other) = (teach(&examples).unwrap(), teach(&moved).unwrap());
        assert_eq!(one.strength, other.strength);
        for (a, b) in examples.features.chunks(8).zip(moved.features.chunks(8)) {
            let (a, b) = (one.head.logits(a), other.head.logits(b));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.02), "{a:?} {b:?}");
        }
    }

    #[test]
    fn the_same_pictures_give_the_same_bits() {
        let examples = clouds(&[9, 7, 8], 33, 3.0);
        let (one, other) = (teach(&examples).unwrap(), teach(&examples).unwrap());
        assert_eq!(one.head, other.head);
    }

    #[test]
    fn what_cannot_be_learned_from_is_refused() {
        let fine = clouds(&[3, 3], 4, 1.0);
        let with = |change: &dyn Fn(&mut Examples)| {
            let mut examples = fine.clone();
            change(&mut examples);
            teach(&examples).unwrap_err()
        };
        assert_eq!(with(&|it| it.features[9] = f32::NAN), TeachError::NotFinite(2));
        assert_eq!(with(&|it| it.features.fill(2.0)), TeachError::Same);
        assert_eq!(with(&|it| it.labels.fill(0)), TeachError::Empty("class 1".into()));
        assert!(matches!(with(&|it| it.labels[0] = 2), TeachError::Shape { .. }));
        assert!(matches!(with(&|it| it.features.truncate(7)), TeachError::Shape { .. }));
        assert!(matches!(with(&|it| it.features.clear()), TeachError::Shape { .. }));
        let one = Examples { classes: vec!["a".into()], labels: vec![0], features: vec![1.0] };
        assert_eq!(teach(&one).unwrap_err(), TeachError::OneClass("a".into()));
    }

    #[test]
    fn intervals_are_wilsons() {
        // statsmodels.stats.proportion.proportion_confint(.., method="wilson")
        for (right, total, low, high) in
            [(0, 10, 0.0, 0.277_533), (9, 10, 0.595_850, 0.982_124), (50, 100, 0.403_832, 0.596_168)]
        {
            let Interval { low: found_low, high: found_high } = wilson(right, total);
            assert!((found_low - low).abs() < 1e-6 && (found_high - high).abs() < 1e-6, "{found_low} {found_high}");
        }
    }
}
