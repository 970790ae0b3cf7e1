//! An evaluation as text, at most 100 columns wide, paths apart.

use kiln_train::{Averages, Corrupted, EvaluationReport, Interval, Metrics, Temperature};

const COLUMNS: usize = 100;
/// Longest class name that is shown whole.
const NAME: usize = 20;

/// The whole report, each part a paragraph.
pub fn evaluation_text(report: &EvaluationReport) -> String {
    let EvaluationReport { model, dataset, split, metrics, .. } = report;
    let title = format!("{model} on {dataset} ({split}, {} images)\n", metrics.samples);
    let mut parts = vec![title, headline(report), by_class(metrics)];
    parts.extend(confusion(metrics));
    if !report.corruptions.is_empty() {
        parts.push(corrupted(&report.corruptions, metrics.accuracy));
    }
    parts.join("\n")
}

/// A line a metric, with its interval.
fn headline(report: &EvaluationReport) -> String {
    let EvaluationReport { metrics, intervals, flip_tta, temperature, .. } = report;
    let shares = |Interval { low, high }: Interval| format!("{:.2} to {:.2} %", 100.0 * low, 100.0 * high);
    let numbers = |Interval { low, high }: Interval| format!("{low:.4} to {high:.4}");
    let header = line("", "".into(), format!("{:.0} % interval", 100.0 * intervals.level));
    let mut lines = vec![header, line("accuracy", percent(metrics.accuracy), shares(intervals.accuracy))];
    if let Some(balanced) = metrics.balanced_accuracy() {
        lines.push(line("balanced accuracy", percent(balanced), "mean over the classes, whose sizes differ".into()));
    }
    if let Some(averaged) = flip_tta {
        let points = 100.0 * (averaged.accuracy - metrics.accuracy);
        lines.push(line("  over mirror images", percent(averaged.accuracy), format!("{points:+.2} points")));
    }
    let k = metrics.top_k_accuracy.len();
    if let Some(accuracy) = metrics.top_k_accuracy.last().filter(|_| k < metrics.classes.len()) {
        lines.push(line(&format!("top-{k} accuracy"), percent(*accuracy), shares(intervals.top_k_accuracy)));
    }
    lines.push(line("macro F1", percent(metrics.macro_average.f1), shares(intervals.f1)));
    lines.push(line("loss (NLL)", format!("{:.4}", metrics.loss), numbers(intervals.loss)));
    lines.push(line("Brier score", format!("{:.4}", metrics.brier), numbers(intervals.brier)));
    let error = metrics.calibration.expected_calibration_error;
    lines.push(line("calibration error", percent(error), "expected, in 15 bins".into()));
    lines.push(match temperature {
        Temperature::Skipped(reason) => line("temperature", "skipped".into(), reason.clone()),
        Temperature::Fitted(fitted) => line(
            "temperature",
            format!("{:.3}", fitted.temperature),
            format!(
                "from {} validation images; loss {:.4}, calibration error {}",
                fitted.fitted_on,
                fitted.loss,
                percent(fitted.calibration.expected_calibration_error)
            ),
        ),
    });
    lines.join("\n") + "\n"
}

/// A note that does not fit continues below its beginning.
fn line(name: &str, value: String, note: String) -> String {
    let mut text = format!("{name:<20}{value:>10}  ");
    let indent = text.chars().count();
    let mut column = indent;
    for word in note.split(' ') {
        let width = word.chars().count() + 1;
        if column + width > COLUMNS && column > indent {
            text += &format!("\n{:indent$}", "");
            column = indent;
        }
        text += &format!(" {word}");
        column += width;
    }
    text.trim_end().to_owned()
}

/// Precision, recall and F1 of each class and on average.
fn by_class(metrics: &Metrics) -> String {
    let names = metrics.classes.iter().map(|class| class.class.chars().count()).max().unwrap_or(0);
    let width = names.clamp("weighted average".len(), NAME);
    let mut text = format!("{:<width$}  images  precision    recall        F1  most often predicted\n", "class");
    for (label, class) in metrics.classes.iter().enumerate() {
        let [precision, recall, f1] =
            [class.precision, class.recall, class.f1].map(|share| share.map_or("-".into(), percent));
        let row = &metrics.confusion[label];
        // The first of equals.
        let wrong = (0..row.len()).rev().filter(|other| *other != label).max_by_key(|other| row[*other]);
        let wrong = wrong.filter(|other| row[*other] > 0);
        let wrong = wrong.map(|other| format!("{} ({})", shortened(&metrics.classes[other].class, NAME), row[other]));
        let (name, images) = (shortened(&class.class, width), class.support);
        let line =
            format!("{name:<width$}  {images:>6}  {precision:>9} {recall:>9} {f1:>9}  {}", wrong.unwrap_or_default());
        text += &(line.trim_end().to_owned() + "\n");
    }
    for (name, averages) in [("macro average", metrics.macro_average), ("weighted average", metrics.weighted_average)] {
        let Averages { precision, recall, f1 } = averages;
        let [precision, recall, f1] = [precision, recall, f1].map(percent);
        text += &format!("{name:<width$}  {:>6}  {precision:>9} {recall:>9} {f1:>9}\n", metrics.samples);
    }
    text
}

/// The confusion matrix, if it is narrow enough.
fn confusion(metrics: &Metrics) -> Option<String> {
    let names = metrics.classes.iter().map(|class| class.class.chars().count()).max()?;
    let digits = metrics.confusion.iter().flatten().max()?.to_string().len();
    let first = names.clamp("class".len(), NAME);
    // Numbers fit a column whole, names as far as there is room.
    let (least, room) = (digits.max(3) + 1, (COLUMNS - first) / metrics.classes.len());
    if room < least {
        return None;
    }
    let column = (names + 1).clamp(least, room);
    let cells = |cells: Vec<String>| cells.iter().map(|cell| format!("{cell:>column$}")).collect::<String>();
    let header = metrics.classes.iter().map(|class| shortened(&class.class, column - 1)).collect();
    let mut text =
        format!("images of each class (rows) by prediction (columns)\n{:<first$}{}\n", "class", cells(header));
    for (class, row) in metrics.classes.iter().zip(&metrics.confusion) {
        let row = row.iter().map(|images| if *images == 0 { ".".into() } else { images.to_string() }).collect();
        text += &format!("{:<first$}{}\n", shortened(&class.class, first), cells(row));
    }
    Some(text)
}

/// Accuracies by corruption and severity.
fn corrupted(results: &[Corrupted], clean: f64) -> String {
    let mean = |accuracies: &[f64]| accuracies.iter().sum::<f64>() / accuracies.len() as f64;
    let all: Vec<f64> = results.iter().map(|result| result.accuracy).collect();
    let mut text =
        format!("{:<20}  severity 1         2         3         4         5      mean\n", "corrupted images");
    for results in results.chunk_by(|a, b| a.corruption == b.corruption) {
        let mut accuracies: Vec<f64> = results.iter().map(|result| result.accuracy).collect();
        accuracies.push(mean(&accuracies));
        let cells: String = accuracies.into_iter().map(|accuracy| format!("{:>10}", percent(accuracy))).collect();
        text += &format!("{:<22}{cells}\n", results[0].corruption);
    }
    let fall = 100.0 * (clean - mean(&all));
    text + &format!(
        "{:<22}{:>60}\n{fall:.2} points below the accuracy on images as they are\n",
        "mean",
        percent(mean(&all))
    )
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// At most `width` characters, the last of them an ellipsis where something is left out.
fn shortened(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use kiln_train::Predictions;

    use super::*;

    fn metrics(names: &[&str]) -> Metrics {
        let classes: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let labels = (0..classes.len()).collect();
        // Every image is taken for the first class.
        let logits = (0..classes.len()).flat_map(|_| (0..classes.len()).map(|class| -(class as f32))).collect();
        Metrics::of(&Predictions { classes, labels, logits, features: vec![] }).unwrap()
    }

    #[test]
    fn a_confusion_matrix_takes_what_room_there_is() {
        let small = confusion(&metrics(&["a", "b"])).unwrap();
        assert_eq!(
            small,
            "images of each class (rows) by prediction (columns)\nclass   a   b\na       1   .\nb       1   .\n"
        );
        let wide = confusion(&metrics(&["extraordinarily long"; 12])).unwrap();
        let lines: Vec<_> = wide.lines().collect();
        assert_eq!((lines.len(), lines[1].chars().count()), (14, 92));
        assert!(lines[1].contains(" extr…"), "{wide}");
        assert_eq!(confusion(&metrics(&["a class"; 40])), None);
    }

    #[test]
    fn a_long_note_goes_on_below_its_beginning() {
        let text = line("temperature", "skipped".into(), "no".repeat(30) + " and " + &"no".repeat(30));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("nono"), lines[1].find("nono"));
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{text}");
    }
}
