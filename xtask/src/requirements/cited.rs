//! Finds citations in a text, and tells tests from code.

use std::collections::BTreeSet;
use std::path::Path;

/// How long a number is: two capital letters, a hyphen and two digits.
const LENGTH: usize = 5;

/// What stands between the ends of a range.
const RANGES: [&str; 4] = ["..=", "..", " to ", "–"];

/// Returns the numbers that a text cites, with those between the ends of a range.
pub(crate) fn cited(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at + LENGTH <= text.len() {
        let Some((area, first)) = number(text, at) else {
            at += 1;
            continue;
        };
        at += LENGTH;
        let last = range_end(&text[at..], area).unwrap_or(first);
        found.extend((first..=last.max(first)).map(|row| format!("{area}-{row:02}")));
    }
    found
}

/// Reads the number at a place, if it is a whole word.
fn number(text: &str, at: usize) -> Option<(&str, u32)> {
    let bytes = text.as_bytes();
    let in_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let word = bytes.get(at..at + LENGTH)?;
    let shape = word[..2].iter().all(u8::is_ascii_uppercase)
        && word[2] == b'-'
        && word[3..].iter().all(u8::is_ascii_digit);
    if !shape || (at > 0 && in_word(at - 1)) || in_word(at + LENGTH) {
        return None;
    }
    let row = text[at + 3..at + LENGTH].parse().ok()?;
    Some((&text[at..at + 2], row))
}

/// Reads the other end of a range, such as `..ZZ-25`, ` to ZZ-25` or `..25`.
fn range_end(rest: &str, area: &str) -> Option<u32> {
    let after = RANGES.iter().find_map(|word| rest.strip_prefix(word))?;
    let after = after.trim_start();
    if let Some((name, row)) = number(after, 0) {
        return (name == area).then_some(row);
    }
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    (digits.len() == 2).then(|| digits.parse().ok())?
}

/// Where the console's pages are.
const CONSOLE: &str = "console";

/// Says whether a file is a source of the console.
pub(crate) fn is_console(file: &Path) -> bool {
    let source = file.extension().is_some_and(|e| e == "ts" || e == "tsx");
    source && file.starts_with(CONSOLE)
}

/// Divides a source of the console: `NAME.test.ts` and `NAME.test.tsx` are all tests, everything else is code.
pub(crate) fn split_console(file: &Path, text: &str) -> (String, String) {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    if stem.ends_with(".test") {
        (String::new(), text.to_owned())
    } else {
        (text.to_owned(), String::new())
    }
}

/// Divides a file into its code and its tests.
///
/// A folder `tests` and a file `tests.rs` or `*_tests.rs` is all tests; elsewhere every item under `#[cfg(test)]` is one.
pub(crate) fn split_tests(file: &Path, text: &str) -> (String, String) {
    let folder = file.iter().any(|part| part == "tests");
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    if folder || stem == "tests" || stem.ends_with("_tests") {
        return (String::new(), text.to_owned());
    }
    let (mut code, mut tests) = (String::new(), String::new());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        inside |= line.trim_start().starts_with("#[cfg(test)]");
        if inside {
            tests.push_str(line);
        } else {
            code.push_str(line);
        }
        // Formatted code closes an item at the margin; one without a body ends with a semicolon there.
        let at_margin = !line.starts_with([' ', '\t']);
        inside &= !(at_margin && (line.starts_with('}') || line.trim_end().ends_with(';')));
    }
    (code, tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn citations_are_whole_words() {
        assert_eq!(
            cited("(ZZ-08, ZY-18): éZX-01."),
            set(&["ZZ-08", "ZY-18", "ZX-01"])
        );
        assert_eq!(cited("AZZ-08 ZZ-081 zz-08 ZZ-0 ZZ_08"), set(&[]));
    }

    #[test]
    fn ranges_cite_what_is_between_their_ends() {
        let three = set(&["ZZ-09", "ZZ-10", "ZZ-11"]);
        for text in [
            "ZZ-09..ZZ-11",
            "ZZ-09..=ZZ-11",
            "ZZ-09..11",
            "ZZ-09 to ZZ-11",
            "ZZ-09–11",
        ] {
            assert_eq!(cited(text), three, "{text}");
        }
        assert_eq!(cited("ZZ-11, ZZ-12"), set(&["ZZ-11", "ZZ-12"]));
        assert_eq!(cited("ZZ-02 to ZY-04"), set(&["ZZ-02", "ZY-04"]));
        assert_eq!(cited("ZZ-01 to 2026"), set(&["ZZ-01"]));
        assert_eq!(cited("ZZ-03..ZZ-01"), set(&["ZZ-03", "ZZ-01"]));
    }

    #[test]
    fn tests_of_the_console_are_told_by_their_names() {
        for (name, console, test) in [
            ("console/src/a.test.ts", true, true),
            ("console/browser/a.test.tsx", true, true),
            ("console/src/a.ts", true, false),
            ("console/src/test.ts", true, false),
            ("console/a.test.js", false, true),
            ("src/a.test.ts", false, true),
        ] {
            let file = Path::new(name);
            assert_eq!(is_console(file), console, "{name}");
            let (code, tests) = split_console(file, "// ZZ-01");
            assert_eq!((code.is_empty(), tests.is_empty()), (test, !test), "{name}");
        }
    }

    #[test]
    fn tests_are_told_from_code() {
        let split = |name: &str, text: &str| split_tests(Path::new(name), text);
        let text = "// one\n#[cfg(test)]\nmod far;\n// two\n#[cfg(test)]\nmod tests {\n    // three;\n}\n// four\n";
        let (code, tests) = split("src/a.rs", text);
        assert_eq!(code, "// one\n// two\n// four\n");
        assert!(tests.contains("three") && tests.contains("far"), "{tests}");
        for name in ["x/tests/a.rs", "src/a/tests.rs", "src/a_tests.rs"] {
            assert_eq!(
                split(name, text),
                (String::new(), text.to_owned()),
                "{name}"
            );
        }
        assert_eq!(split("src/a.rs", "no tests").1, "");
    }
}
