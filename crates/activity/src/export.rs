//! The saved log: one XML file that any browser opens and a program can check and read (AL-16, AL-17, AL-23).
//!
//! It holds every record once: each is shown by one entry of the tree, or by the bookkeeping at the end (invariant 26).
//! What scripts and guests print may hold anything. What XML 1.0 cannot hold, and what would make a viewer show something
//! else than there is, is written out visibly as `\u{…}`, so the file is always well-formed (security line 13).

use crate::Node;
use crate::clean::is_harmful;
use crate::tree::{Kept, Tree};
use flipside_model::Severity;
use flipside_model::api::SessionLog;
use jiff::Timestamp;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesPI, BytesStart, BytesText, Event};
use std::io::{self, Write};

/// The schema of a saved log.
pub const SCHEMA: &str = include_str!("export/log.xsd");

/// How a browser without XSLT shows it; most have none any more.
const CSS: &str = include_str!("export/log.css");

/// How a browser with XSLT shows it: entries can be opened and closed there.
const XSL: &str = include_str!("export/log.xsl");

const NAMESPACE: &str = "urn:flipside:log:1";

/// All details together take at most so many bytes: far above what a session says, far below what an editor refuses.
const MAX_DETAIL_BYTES: usize = 64 << 20;

/// What a saved log says of itself.
#[derive(Debug, Clone)]
pub struct ExportHead {
    /// Product version of the server.
    pub version: String,
    /// Name of the system.
    pub system: String,
    /// Configuration, Hardware State, Upgrade State, Operational State and Partner State, as the status bar shows them.
    pub status: [String; 5],
    /// When it is saved, in milliseconds since 1970.
    pub saved_ms: i64,
    /// The session that it is the log of, if it is one.
    pub session: Option<SessionLog>,
}

/// Writes the log as XML.
///
/// # Errors
///
/// Those of the writer.
pub fn export(head: &ExportHead, tree: &Tree, to: impl Write) -> io::Result<()> {
    let mut out = Export {
        xml: Writer::new_with_indent(to, b' ', 1),
        left: MAX_DETAIL_BYTES,
    };
    out.head(head, tree.overall())?;
    out.xml
        .write_event(Event::Start(BytesStart::new("entries")))?;
    for node in tree.nodes() {
        out.entry(node)?;
    }
    out.end("entries")?;
    out.xml
        .write_event(Event::Start(BytesStart::new("bookkeeping")))?;
    for kept in tree.bookkeeping() {
        out.record(kept)?;
    }
    out.end("bookkeeping")?;
    out.end("log")?;
    let mut to = out.xml.into_inner();
    to.write_all(b"\n")?;
    to.flush()
}

struct Export<W: Write> {
    xml: Writer<W>,
    /// Bytes of details that may still be written.
    left: usize,
}

impl<W: Write> Export<W> {
    fn head(&mut self, head: &ExportHead, worst: Severity) -> io::Result<()> {
        let xml = &mut self.xml;
        xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let style = "xml-stylesheet type=\"text/xsl\" href=\"#flipside-log-style\"";
        xml.write_event(Event::PI(BytesPI::new(style)))?;
        let mut log = BytesStart::new("log");
        log.push_attribute(("xmlns", NAMESPACE));
        log.push_attribute(("version", "1"));
        log.push_attribute(("product", "flipside"));
        attribute(&mut log, "product-version", &head.version);
        attribute(&mut log, "system", &head.system);
        attribute(&mut log, "saved", &time(head.saved_ms));
        attribute(&mut log, "severity", &worst.to_string());
        xml.write_event(Event::Start(log))?;
        let mut style = BytesStart::new("style");
        style.push_attribute(("xmlns", "http://www.w3.org/1999/xhtml"));
        xml.write_event(Event::Start(style))?;
        xml.write_event(Event::Text(BytesText::new(CSS)))?;
        xml.write_event(Event::End(BytesEnd::new("style")))?;
        // It is XML already, and a part of the program.
        xml.write_event(Event::Text(BytesText::from_escaped("\n")))?;
        xml.write_event(Event::Text(BytesText::from_escaped(XSL)))?;
        let mut status = BytesStart::new("status");
        let names = [
            "configuration",
            "hardware",
            "upgrade",
            "operational",
            "partner",
        ];
        for (name, value) in names.iter().zip(&head.status) {
            attribute(&mut status, name, value);
        }
        xml.write_event(Event::Empty(status))?;
        if let Some(session) = &head.session {
            xml.write_event(Event::Empty(session_element(session)))?;
        }
        Ok(())
    }

    fn entry(&mut self, node: &Node) -> io::Result<()> {
        let mut start = BytesStart::new("entry");
        attribute(&mut start, "id", &node.seq.to_string());
        attribute(&mut start, "time", &time(node.at_ms));
        if let Some(ended) = node.ended_ms {
            attribute(&mut start, "ended", &time(ended));
        }
        attribute(&mut start, "severity", &node.overall().to_string());
        attribute(&mut start, "own", &node.severity.to_string());
        let records: Vec<String> = node.records.iter().map(u64::to_string).collect();
        attribute(&mut start, "records", &records.join(" "));
        self.xml.write_event(Event::Start(start))?;
        self.text(BytesStart::new("text"), "text", &node.text)?;
        if let Some(component) = &node.component {
            self.text(BytesStart::new("component"), "component", component)?;
        }
        if let Some(advice) = &node.advice {
            self.text(BytesStart::new("advice"), "advice", advice)?;
        }
        if let Some(detail) = &node.detail {
            self.detail(detail)?;
        }
        for child in &node.children {
            self.entry(child)?;
        }
        self.end("entry")
    }

    fn detail(&mut self, detail: &str) -> io::Result<()> {
        let mut start = BytesStart::new("detail");
        let kept = &detail[..detail.floor_char_boundary(self.left)];
        self.left -= kept.len();
        if kept.len() < detail.len() {
            attribute(&mut start, "cut-from", &detail.len().to_string());
        }
        self.text(start, "detail", kept)
    }

    fn record(&mut self, kept: &Kept) -> io::Result<()> {
        let mut start = BytesStart::new("record");
        attribute(&mut start, "number", &kept.seq.to_string());
        attribute(&mut start, "time", &time(kept.at_ms));
        self.text(start, "record", &kept.text)
    }

    fn text(&mut self, start: BytesStart<'_>, name: &str, text: &str) -> io::Result<()> {
        self.xml.write_event(Event::Start(start))?;
        self.xml
            .write_event(Event::Text(BytesText::new(&visible(text))))?;
        self.end(name)
    }

    fn end(&mut self, name: &str) -> io::Result<()> {
        self.xml.write_event(Event::End(BytesEnd::new(name)))
    }
}

fn session_element(session: &SessionLog) -> BytesStart<'static> {
    let mut element = BytesStart::new("session");
    attribute(&mut element, "number", &session.number.to_string());
    attribute(&mut element, "id", &session.id.to_string());
    let config = session.config.as_deref().unwrap_or_default();
    attribute(&mut element, "configuration", config);
    attribute(&mut element, "began", &time(session.began_ms));
    if let Some(ended) = session.ended_ms {
        attribute(&mut element, "ended", &time(ended));
    }
    attribute(&mut element, "outcome", &session.outcome.to_string());
    element
}

fn attribute(element: &mut BytesStart<'_>, name: &str, value: &str) {
    element.push_attribute((name, visible(value).as_str()));
}

fn time(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or_default();
    format!("{time:.3}")
}

/// Writes out what XML 1.0 cannot hold and what changes how the rest is shown; lines and tabs stay.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if is_harmful(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}
