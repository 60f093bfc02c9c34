//! The decoders of this crate, opened to `crates/fuzzing`, with what can be asserted of types that are private here.

use crate::blocks::Graph;
use crate::guard::fuzzing as guard_side;
use crate::nodes;
use flipside_model::{DiskName, DiskRole, LegBook, LegPaths, Problem};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub use crate::guest::fuzzing::{guest, is_pattern, is_unit};

/// Reads the first bytes of an image: its format and the size of its disk, or why it is refused.
pub fn image(head: &[u8], length: u64) -> Result<(&'static str, u64), String> {
    crate::image::header(head, length).map_err(|refusal| refusal.why)
}

/// Reads a leg book.
pub fn legbook(bytes: &[u8]) -> Result<LegBook, Problem> {
    crate::book::decode(Path::new("legs.json"), bytes).map_err(Problem::from)
}

/// Reads a message or a file of the guard; returns the problem that it tells, if it is one.
pub fn guard(bytes: &[u8]) -> Option<Problem> {
    guard_side::read(bytes)
}

/// Reads the answers to `query-named-block-nodes` and `query-block`, a line each, and an event in the third.
///
/// # Panics
/// When a disk is taken for ours although its files are not those of its legs.
pub fn graph(bytes: &[u8]) {
    let mut lines = bytes.split(|b| *b == b'\n');
    let mut value = || -> Value {
        let line = lines.next().unwrap_or_default();
        serde_json::from_slice(line).unwrap_or_default()
    };
    let (named, block, event) = (value(), value(), value());
    guard_side::event(event);
    let Ok(graph) = Graph::read(&block, &named) else {
        return;
    };
    let paths = LegPaths {
        a: PathBuf::from("/a/system0"),
        b: PathBuf::from("/b/system0"),
    };
    let disk = DiskName::numbered(DiskRole::System, 0);
    assert!(graph.open_legs(&disk).len() <= 2);
    let roots = graph.roots(&disk);
    let next = graph.next_root(&disk);
    assert!(next == u32::MAX || roots.iter().all(|(number, _)| *number < next));
    let Ok(source) = graph.source(&disk, &paths) else {
        return;
    };
    let root = &graph.disks[&disk];
    let known = root == &nodes::hole(&disk) || graph.has(root);
    assert!(known, "{source:?} below a node that does not exist");
    if let Some((_, legs)) = nodes::read_root(&disk, root) {
        let described = &graph.nodes[root].file;
        for leg in legs {
            let path = paths.get(leg).to_string_lossy();
            // The text of JSON: a slash may be escaped there.
            let plain = described.replace("\\/", "/");
            assert!(
                plain.contains(&*path) || plain.contains('\\'),
                "{described} is not {path}"
            );
        }
    }
}
