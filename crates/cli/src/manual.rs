//! The administrator's manual, a part of the program.

mod render;

pub(crate) use render::render;

/// One page.
pub(crate) struct Page {
    /// What is typed.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) title: &'static str,
    /// Markdown.
    pub(crate) text: &'static str,
}

/// All pages in the order of an upgrade.
pub(crate) const PAGES: [Page; 9] = [
    Page {
        name: "manual",
        title: "What the manual has",
        text: include_str!("../../../docs/manual/README.md"),
    },
    Page {
        name: "preparing",
        title: "What can be upgraded, what the system needs, the worksheet",
        text: include_str!("../../../docs/manual/preparing.md"),
    },
    Page {
        name: "configuring",
        title: "Configuration files, disks, services, logs, custom actions",
        text: include_str!("../../../docs/manual/configuring.md"),
    },
    Page {
        name: "keys",
        title: "Every key of a configuration file",
        text: include_str!("../../../docs/configuration.md"),
    },
    Page {
        name: "performing",
        title: "Check, split, install, merge, verify, commit or abort, finish",
        text: include_str!("../../../docs/manual/performing.md"),
    },
    Page {
        name: "troubleshooting",
        title: "What flipside says when something is wrong, and what to do",
        text: include_str!("../../../docs/manual/troubleshooting.md"),
    },
    Page {
        name: "failures",
        title: "Failures of machines, legs and the server",
        text: include_str!("../../../docs/troubleshooting.md"),
    },
    Page {
        name: "glossary",
        title: "The words",
        text: include_str!("../../../docs/manual/glossary.md"),
    },
    Page {
        name: "differences",
        title: "Where flipside departs from the guide it follows",
        text: include_str!("../../../docs/departures.md"),
    },
];

#[cfg(test)]
#[path = "manual_tests.rs"]
mod tests;
