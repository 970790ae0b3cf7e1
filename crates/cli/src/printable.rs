//! Text from files, names and errors on its way to a terminal.

/// Longest error message, in characters: a damaged file's own lines may be quoted in it.
const MOST: usize = 4000;

/// The text with control characters written out, so that no file's name or contents moves the cursor, sets
/// colors or asks the terminal for anything.
pub fn printable(text: impl ToString) -> String {
    let text = text.to_string();
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\t' => shown.push(char),
            char if char.is_control() => shown.extend(char.escape_unicode()),
            char => shown.push(char),
        }
    }
    shown
}

/// An error message, not longer than a screen or two.
pub fn message(text: impl ToString) -> String {
    let text = printable(text);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} .. ({} bytes more)", &text[..end], text.len() - end),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(printable("cat\u{1b}[2J\r\u{9b}1m\u{7f}\nü\t%"), "cat\\u{1b}[2J\\u{d}\\u{9b}1m\\u{7f}\nü\t%");
    }

    #[test]
    fn a_message_ends() {
        let long = message("é".repeat(1_000_000));
        assert!(long.ends_with("(1992000 bytes more)") && long.chars().count() < 4100, "{}", long.len());
        assert_eq!(message("short"), "short");
    }
}
