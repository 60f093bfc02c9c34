//! Shows a page of Markdown on a terminal or in a pipe: wrapped, without marks that only a browser needs.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use textwrap::{Options as Wrap, fill};

/// Bold, for headings and strong words.
const BOLD: (&str, &str) = ("\x1b[1m", "\x1b[0m");

/// Renders a page so many columns wide.
pub(crate) fn render(text: &str, width: usize, color: bool) -> String {
    let mut page = Page {
        out: String::new(),
        line: String::new(),
        width,
        color,
        lists: Vec::new(),
        item: None,
        quote: false,
        code: false,
        head: Vec::new(),
        cells: Vec::new(),
    };
    let options = Options::ENABLE_TABLES;
    for event in Parser::new_ext(text, options) {
        page.event(event);
    }
    page.flush();
    page.out.trim_end().to_owned()
}

struct Page {
    out: String,
    /// The paragraph that is being read.
    line: String,
    width: usize,
    color: bool,
    /// Numbers of the lists that are open; none for a list of points.
    lists: Vec<Option<u64>>,
    /// The mark of an item whose first paragraph comes next.
    item: Option<String>,
    quote: bool,
    code: bool,
    /// Headings of the columns of the open table.
    head: Vec<String>,
    cells: Vec<String>,
}

impl Page {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.code => {
                for line in text.lines() {
                    self.out.push_str(format!("    {line}").trim_end());
                    self.out.push('\n');
                }
            }
            Event::Text(text) => self.line.push_str(&text),
            Event::Code(text) => {
                self.line.push('`');
                self.line.push_str(&text);
                self.line.push('`');
            }
            Event::SoftBreak | Event::HardBreak => self.line.push(' '),
            // Comments are for those who write the manual.
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { .. } => self.flush(),
            Tag::List(number) => {
                self.flush();
                self.lists.push(number);
            }
            Tag::Item => {
                self.flush();
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "* ".to_owned(),
                };
                self.item = Some(mark);
            }
            Tag::BlockQuote(_) => {
                self.flush();
                self.quote = true;
            }
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.flush();
                self.code = true;
            }
            Tag::Strong if self.color => self.line.push_str(BOLD.0),
            Tag::TableHead | Tag::TableRow => self.cells.clear(),
            Tag::TableCell => self.line.clear(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let text = std::mem::take(&mut self.line);
                let shown = fill(text.trim(), self.width);
                if self.color {
                    self.out.push_str(&format!("{}{shown}{}\n", BOLD.0, BOLD.1));
                } else {
                    let rule = if level as usize == 1 { "=" } else { "-" };
                    let widest = shown.lines().map(|line| line.chars().count()).max();
                    let rule = rule.repeat(widest.unwrap_or(0));
                    self.out.push_str(&format!("{shown}\n{rule}\n"));
                }
                self.out.push('\n');
            }
            TagEnd::Paragraph => self.paragraph(true),
            TagEnd::Item => self.flush(),
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
                if self.lists.is_empty() {
                    self.out.push('\n');
                }
            }
            TagEnd::BlockQuote(_) => self.quote = false,
            TagEnd::CodeBlock => {
                self.code = false;
                self.out.push('\n');
            }
            TagEnd::Strong if self.color => self.line.push_str(BOLD.1),
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.line);
                self.cells.push(cell.trim().to_owned());
            }
            TagEnd::TableHead => self.head = std::mem::take(&mut self.cells),
            TagEnd::TableRow => self.row(),
            _ => {}
        }
    }

    /// Ends a paragraph that has no end of its own, such as that of a short item of a list.
    fn flush(&mut self) {
        self.paragraph(false);
    }

    fn paragraph(&mut self, space: bool) {
        let text = std::mem::take(&mut self.line);
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let depth = self.lists.len();
        let margin = "  ".repeat(depth.saturating_sub(1));
        let (first, rest) = match self.item.take() {
            Some(mark) => (
                format!("{margin}{mark}"),
                format!("{margin}{}", " ".repeat(mark.len())),
            ),
            None if self.quote => ("  | ".to_owned(), "  | ".to_owned()),
            None => {
                let margin = "  ".repeat(depth);
                (margin.clone(), margin)
            }
        };
        self.write(text, &first, &rest);
        if space && depth == 0 {
            self.out.push('\n');
        }
    }

    /// A row of a table: its first cell, and below it the others under the headings of their columns.
    fn row(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        let named = cells.len() > 2;
        for (at, cell) in cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| !cell.is_empty())
        {
            if at == 0 {
                self.write(cell, "* ", "  ");
                continue;
            }
            let head = self.head.get(at).filter(|head| named && !head.is_empty());
            let text = head.map_or_else(|| cell.clone(), |head| format!("{head}: {cell}"));
            self.write(&text, "    ", "      ");
        }
        self.out.push('\n');
    }

    fn write(&mut self, text: &str, first: &str, rest: &str) {
        let wrap = Wrap::new(self.width)
            .initial_indent(first)
            .subsequent_indent(rest)
            .break_words(false);
        self.out.push_str(&fill(text, wrap));
        self.out.push('\n');
    }
}
