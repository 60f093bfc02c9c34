//! Makes text that a guest wrote harmless for a terminal.

/// Says whether a character may change how the rest of a line is shown, or is not shown itself.
///
/// Control characters (so every ANSI sequence), the bidirectional overrides and isolates, line and paragraph
/// separators, zero-width characters, tags and private-use fillers are such characters.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes every harmful character of one line as `\u{…}`; newline and tab become `\n` and `\t`.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_harmful(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Splits a longer text, such as the output of a program, into clean lines; tabs become spaces.
pub fn clean_lines(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| clean(&line.replace('\t', "    ")))
        .collect()
}

/// Escapes what JSON itself leaves in strings and a terminal would obey; the JSON stays equal in meaning.
pub(crate) fn clean_json(json: &str) -> String {
    if !json.chars().any(is_harmful) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 16);
    let mut units = [0u16; 2];
    for c in json.chars() {
        if is_harmful(c) {
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(clean("a\u{1b}[31mred\u{7}"), "a\\u{1b}[31mred\\u{7}");
        assert_eq!(clean("safe\u{202e}txt.exe"), "safe\\u{202e}txt.exe");
        assert_eq!(clean("one\ntwo\r\tthree"), "one\\ntwo\\r\\tthree");
        assert_eq!(clean("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(clean("größer – ✔ 日本"), "größer – ✔ 日本");
        assert_eq!(clean_lines("a\tb\n\u{1b}c"), ["a    b", "\\u{1b}c"]);
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "a\u{9b}\u{202e}\u{e0041}\u{7f}b";
        let json = clean_json(&serde_json::to_string(text).expect("serialises"));
        assert!(!json.chars().any(is_harmful), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("parses"), text);
    }
}
