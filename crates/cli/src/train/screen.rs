//! What `kiln train` shows.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use kiln::Tuned;
use kiln_report::duration;
use kiln_train::{EpochMetrics, MAX_SKIPPED, SkippedStep, StepMetrics, Trainer};
use serde_json::{Value, json};

/// Where lines go: text or JSON on stdout.
pub struct Screen {
    pub json: bool,
}

impl Screen {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    pub fn say(&self, event: Value, text: impl FnOnce() -> String) {
        if self.json {
            println!("{event}");
        } else {
            println!("{}", text());
        }
    }
}

/// A bar on a terminal and a line an epoch everywhere.
pub struct Progress<'a> {
    pub bar: ProgressBar,
    screen: &'a Screen,
    batch_size: usize,
    rate: Cell<(usize, Instant, f64)>,
}

impl<'a> Progress<'a> {
    pub fn new(trainer: &Trainer, screen: &'a Screen) -> Self {
        let header = trainer.header();
        let bar = if !screen.json && std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(header.total_steps as u64);
            let template = "epoch {prefix} {bar:24} {pos}/{len} {msg} ETA {eta}";
            bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
            bar.reset_eta();
            bar.set_position(header.step as u64);
            bar
        } else {
            ProgressBar::hidden()
        };
        let rate = Cell::new((header.step, Instant::now(), 0.0));
        Self { bar, screen, batch_size: trainer.batch_size(), rate }
    }

    pub fn step(&self, metrics: StepMetrics) {
        if self.bar.is_hidden() {
            return;
        }
        let (step, since, mut rate) = self.rate.get();
        if since.elapsed() > Duration::from_secs(1) {
            rate = ((metrics.step - step) * self.batch_size) as f64 / since.elapsed().as_secs_f64();
            self.rate.set((metrics.step, Instant::now(), rate));
        }
        let rate = if rate > 0.0 { format!("{rate:.0} images/s ") } else { String::new() };
        self.bar.set_prefix(metrics.epoch.to_string());
        self.bar.set_position(metrics.step as u64);
        self.bar.set_message(format!(
            "{rate}loss {:.3} accuracy {:.1} % lr {:.2e}",
            metrics.loss,
            100.0 * metrics.accuracy,
            metrics.learning_rate
        ));
    }

    pub fn tuned(&self, tuned: &Tuned) {
        let Tuned { seconds, passes: [done, all], changed } = *tuned;
        self.screen.say(
            json!({"event": "tuned", "seconds": seconds, "passes": done, "of": all, "changed": changed}),
            || {
                let rest = if done < all { format!(" (of {all}; kiln tune does the rest)") } else { String::new() };
                format!(
                    "tuned    {done} passes of convolutions{rest} on this GPU in {seconds:.1} s; {changed} run faster in another \
                     form"
                )
            },
        );
    }

    pub fn warn(&self, text: &str) {
        self.bar.suspend(|| eprintln!("warning: {text}"));
    }

    pub fn skipped(&self, skipped: &SkippedStep) {
        let SkippedStep { step, loss, ref place, in_a_row, learning_rate } = *skipped;
        if self.screen.json {
            let event = json!({
                "event": "skipped", "step": step, "loss": loss, "place": place, "in_a_row": in_a_row,
                "learning_rate": learning_rate,
            });
            return println!("{event}");
        }
        self.warn(&format!(
            "step {step} left out, {in_a_row} in a row: the loss was {loss:?}, and {place} was not finite; going on at half \
             the rate, {learning_rate:.3e}, and giving up after {MAX_SKIPPED} in a row"
        ));
    }

    pub fn epoch(&self, metrics: &EpochMetrics, is_best: bool) {
        if self.screen.json {
            println!("{}", json!({"event": "epoch", "metrics": metrics, "is_best": is_best}));
            return;
        }
        let validation = match (metrics.validation_loss, metrics.validation_accuracy) {
            (Some(loss), Some(accuracy)) => {
                let balanced = metrics.validation_balanced_accuracy;
                let balanced = balanced.map(|balanced| format!(", balanced {:>5.2} %", 100.0 * balanced));
                let balanced = balanced.unwrap_or_default();
                format!("   validation loss {loss:.3} accuracy {:>5.2} %{balanced}", 100.0 * accuracy)
            }
            _ => String::new(),
        };
        let line = format!(
            "epoch {:>3}  {:>6.0} images/s  lr {:.2e}   train loss {:.3} accuracy {:>5.2} %{validation}{}   {}",
            metrics.epoch,
            metrics.images_per_second,
            metrics.learning_rate,
            metrics.train_loss,
            100.0 * metrics.train_accuracy,
            if is_best { " *" } else { "  " },
            duration(metrics.seconds)
        );
        self.bar.suspend(|| println!("{line}"));
    }
}
