//! Formats numbers for the report.

/// A fraction as `87.56 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// The difference of two fractions as `1 point` or `3.1 points`.
pub(crate) fn points(share: f64) -> String {
    let text = format!("{:.1}", 100.0 * share);
    if text == "1.0" { "1 point".to_owned() } else { format!("{text} points") }
}

/// `10,000`
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 image`, `10,000 images`
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `45 s`, `12 min 03 s` or `2 h 05 min`
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `cat, dog and ship`
pub(crate) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_readers_expect() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            (percent(0.87561), points(0.01), points(-0.0312)),
            ("87.56 %".into(), "1 point".into(), "-3.1 points".into())
        );
        assert_eq!([3.2, 75.0, 7500.0].map(duration), ["3 s", "1 min 15 s", "2 h 05 min"]);
        assert_eq!(count(1, "image", "images"), "1 image");
        assert_eq!(list(&["a".into(), "b".into(), "c".into()]), "a, b and c");
    }
}
