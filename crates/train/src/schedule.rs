//! The learning rate at each step.

use std::f64::consts::PI;

use crate::recipe::{Schedule, ScheduleKind};

impl Schedule {
    /// The factor of the optimizer's rate at `step` of `total`, both counted from 0.
    ///
    /// The warm-up is PyTorch's `LinearLR`, the cosine its `CosineAnnealingLR`, stepped every batch:
    /// both would arrive one step after the last.
    pub fn factor(&self, step: usize, total: usize) -> f64 {
        let warmup = (self.warmup * total as f64).round();
        let step = step as f64;
        if step < warmup {
            return self.start_factor + (1.0 - self.start_factor) * step / warmup;
        }
        let progress = (step - warmup) / (total as f64 - warmup).max(1.0);
        let span = 1.0 - self.final_factor;
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine => self.final_factor + span * 0.5 * (1.0 + (PI * progress).cos()),
            ScheduleKind::OneCycle => 1.0 - span * progress,
            ScheduleKind::MultiStep => {
                let passed = self.milestones.iter().filter(|share| step >= (**share * total as f64).round()).count();
                self.gamma.powi(passed as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, warmup: 0.1, start_factor: 0.5, final_factor: 0.0, milestones: vec![0.6, 0.8], gamma: 0.1 }
    }

    #[test]
    fn every_kind_warms_up_linearly_to_the_full_rate() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Cosine, ScheduleKind::MultiStep, ScheduleKind::OneCycle] {
            let factors = [0, 5, 10].map(|step| schedule(kind).factor(step, 100));
            assert_eq!(factors, [0.5, 0.75, 1.0], "{kind:?}");
        }
    }

    #[test]
    fn cosine_and_one_cycle_fall_steadily_to_their_end() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::OneCycle] {
            let factors: Vec<_> = (10..100).map(|step| schedule(kind).factor(step, 100)).collect();
            assert!(factors.windows(2).all(|pair| pair[1] < pair[0]), "{kind:?}");
            assert!((factors[45] - 0.5).abs() < 1e-9, "{kind:?}");
            assert!(factors[89] < 0.02, "{kind:?}");
        }
    }

    #[test]
    fn multi_step_drops_at_each_milestone() {
        let factors = [59, 60, 79, 80].map(|step| schedule(ScheduleKind::MultiStep).factor(step, 100));
        for (factor, expected) in factors.into_iter().zip([1.0, 0.1, 0.1, 0.01]) {
            assert!((factor - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_run_of_one_step_has_a_rate() {
        for warmup in [0.0, 1.0] {
            assert!(Schedule { warmup, ..schedule(ScheduleKind::Cosine) }.factor(0, 1) > 0.0);
        }
    }
}
