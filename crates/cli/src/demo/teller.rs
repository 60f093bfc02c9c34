//! How the story looks: chapters, explanations, the commands as they are typed.

use crate::context::Context;
use crate::failure::Failure;
use std::io::{IsTerminal as _, Write as _};

/// Longer lines are hard to read.
const WIDTH: usize = 100;

/// Prints the story; with `--json` on standard error, because standard output is for the figures.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    color: bool,
    aside: bool,
    terminal: bool,
}

impl Teller {
    pub(super) fn new(ctx: &Context) -> Self {
        let aside = ctx.json;
        let terminal = !aside && std::io::stdout().is_terminal();
        Self {
            // The resolved colour is about standard output.
            color: ctx.color && !aside,
            aside,
            terminal,
        }
    }

    /// Says whether people watch: then programs print to the terminal themselves, with their moving lines.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn color(&self) -> bool {
        self.color
    }

    /// Begins a chapter.
    pub(super) fn chapter(&self, title: &str) -> Result<(), Failure> {
        self.line("")?;
        self.painted("1", &format!("== {title} "))
    }

    /// Explains something.
    pub(super) fn say(&self, text: &str) -> Result<(), Failure> {
        self.line("")?;
        wrap(text, WIDTH)
            .iter()
            .try_for_each(|line| self.line(line))
    }

    /// Shows a command as it is typed.
    pub(super) fn command(&self, line: &str) -> Result<(), Failure> {
        self.painted("1;36", &format!("$ {line}"))
    }

    /// Remarks something that is no output of a program.
    pub(super) fn note(&self, text: &str) -> Result<(), Failure> {
        self.painted("32", &format!("-> {text}"))
    }

    /// Tells that something is wrong.
    pub(super) fn wrong(&self, text: &str) -> Result<(), Failure> {
        self.painted("1;31", text)
    }

    /// Prints one line.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        if self.aside {
            writeln!(std::io::stderr(), "{text}")?;
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    fn painted(&self, code: &str, text: &str) -> Result<(), Failure> {
        if self.color {
            self.line(&format!("\x1b[{code}m{text}\x1b[0m"))
        } else {
            self.line(text)
        }
    }
}

/// Breaks a paragraph into lines; every line break of the text stays.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let long = line.chars().count() + 1 + word.chars().count() > width;
            if long && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// Writes arguments as they would be typed to a shell.
pub(super) fn typed<S: AsRef<str>>(argv: &[S]) -> String {
    let words: Vec<String> = argv.iter().map(|word| quoted(word.as_ref())).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.contains('\'') {
        return format!("'{word}'");
    }
    // Double quotes read better than '\'' when nothing in the word means anything there.
    if !word.contains(['"', '$', '`', '\\', '!']) {
        return format!("\"{word}\"");
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_typed_again() {
        assert_eq!(
            typed(&["flipside", "split", "--config", "shop.Config"]),
            "flipside split --config shop.Config"
        );
        assert_eq!(typed(&["su", "-c", "psql -c 'x'"]), "su -c \"psql -c 'x'\"");
        assert_eq!(typed(&["sh", "-c", "a $b", ""]), "sh -c 'a $b' ''");
        assert_eq!(typed(&["it's $x"]), r"'it'\''s $x'");
    }

    #[test]
    fn paragraphs_are_wrapped_between_words() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaa b\n\nc", 5), ["aaaaaaa", "b", "", "c"]);
    }
}
