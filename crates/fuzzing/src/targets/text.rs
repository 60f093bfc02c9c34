//! Text of a guest on its way to a terminal.

use crate::oracle::{is_harmful, one_line};
use flipside_activity::{clean, clean_lines};

/// Escapes any text.
pub fn text(data: &[u8]) {
    let given = String::from_utf8_lossy(data);
    let shown = clean(&given);
    one_line(&shown, "an escaped text");
    assert_eq!(clean(&shown), shown, "escaping twice is escaping once");
    if !given.contains(|c: char| is_harmful(c) || !c.is_ascii()) {
        assert_eq!(shown, given, "plain text is left alone");
    }
    // `\u{10ffff}` for a character of at least one byte: no more than ten bytes for one.
    assert!(shown.len() <= given.len() * 10);
    let lines = clean_lines(&given);
    assert!(lines.len() <= given.lines().count());
    for line in lines {
        one_line(&line, "a line of a longer text");
    }
}
