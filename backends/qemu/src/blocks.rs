//! Reads a machine's block graph from its own answers. Pure and total: whatever the answers are, it says what
//! is there or that it is not ours, and never panics.

use crate::nodes;
use flipside_model::{DiskName, Leg, LegPaths};
use flipside_platform::DiskSource;
use serde_json::Value;
use std::collections::BTreeMap;

/// One change bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bitmap {
    /// Bytes marked.
    pub(crate) count: u64,
    /// It follows new writes; one that does not cannot be trusted.
    pub(crate) recording: bool,
    /// Left by a crash while it was stored: cannot be trusted.
    pub(crate) inconsistent: bool,
    /// A job uses it.
    pub(crate) busy: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Node {
    /// What it is made of, in QEMU's words.
    pub(crate) file: String,
    /// Block driver.
    pub(crate) driver: String,
    /// Opened read-only.
    pub(crate) read_only: bool,
    /// Named bitmaps on it.
    pub(crate) bitmaps: BTreeMap<String, Bitmap>,
}

/// The block graph of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Graph {
    /// All nodes by name.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// The root of every plugged disk; empty when the device has none.
    pub(crate) disks: BTreeMap<DiskName, String>,
}

impl Graph {
    /// Reads the answers to `query-block` and `query-named-block-nodes`.
    pub(crate) fn read(block: &Value, named: &Value) -> Result<Self, String> {
        let mut graph = Graph::default();
        let named = named.as_array().ok_or("no list of block nodes")?;
        for node in named {
            let name = text(node, "node-name").ok_or("a block node without a name")?;
            graph.nodes.insert(name, read_node(node));
        }
        for entry in block.as_array().ok_or("no list of block devices")? {
            let Some(disk) = text(entry, "qdev").and_then(|q| nodes::read_device(&q)) else {
                continue;
            };
            let root = entry.get("inserted").and_then(|i| text(i, "node-name"));
            graph.disks.insert(disk, root.unwrap_or_default());
        }
        Ok(graph)
    }

    /// Says whether a node exists.
    pub(crate) fn has(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// Says what backs a plugged disk; an error describes a graph that is not ours.
    pub(crate) fn source(&self, disk: &DiskName, paths: &LegPaths) -> Result<DiskSource, String> {
        let root = self
            .disks
            .get(disk)
            .ok_or_else(|| format!("disk {disk} is not plugged"))?;
        if *root == nodes::hole(disk) {
            return Ok(DiskSource::Placeholder);
        }
        let files = self.nodes.get(root).map_or("", |node| node.file.as_str());
        if let Some(below) = nodes::read_overlay(disk, root) {
            return match files_below(files, "backing").as_slice() {
                [file] if same(file, paths, below) => Ok(DiskSource::Overlay(below)),
                other => Err(foreign(disk, root, &other.join(", "))),
            };
        }
        let Some((_, legs)) = nodes::read_root(disk, root) else {
            return Err(foreign(disk, root, files));
        };
        let found = files_below(files, "children");
        let ours = found.len() == legs.len()
            && legs
                .iter()
                .zip(&found)
                .all(|(leg, file)| same(file, paths, *leg));
        if ours {
            Ok(DiskSource::Legs(legs))
        } else {
            Err(foreign(disk, root, &found.join(", ")))
        }
    }

    /// Returns a bitmap on a leg.
    pub(crate) fn bitmap(&self, disk: &DiskName, leg: Leg, name: &str) -> Option<Bitmap> {
        self.on(&nodes::leg(disk, leg), name)
    }

    /// Returns a bitmap on a node.
    pub(crate) fn on(&self, node: &str, name: &str) -> Option<Bitmap> {
        self.nodes.get(node)?.bitmaps.get(name).copied()
    }

    /// Lists the quorum nodes of a disk with their numbers, in use or left over.
    pub(crate) fn roots(&self, disk: &DiskName) -> Vec<(u32, String)> {
        let numbered = |name: &String| {
            let (number, _) = nodes::read_root(disk, name)?;
            Some((number, name.clone()))
        };
        self.nodes.keys().filter_map(numbered).collect()
    }

    /// Returns a number no root of this disk has.
    pub(crate) fn next_root(&self, disk: &DiskName) -> u32 {
        let used = self.roots(disk).into_iter().map(|(number, _)| number);
        used.max().unwrap_or(0).saturating_add(1)
    }

    /// Lists the legs of a disk that are open, whether the root uses them or not.
    pub(crate) fn open_legs(&self, disk: &DiskName) -> Vec<Leg> {
        let open = |leg: &Leg| self.has(&nodes::leg(disk, *leg));
        Leg::BOTH.into_iter().filter(open).collect()
    }
}

fn foreign(disk: &DiskName, root: &str, found: &str) -> String {
    let found: String = found.chars().take(400).collect();
    format!("disk {disk} is backed by `{root}` ({found}), which flipside did not build")
}

fn same(file: &str, paths: &LegPaths, leg: Leg) -> bool {
    paths.get(leg).to_str() == Some(file)
}

fn text(value: &Value, key: &str) -> Option<String> {
    Some(value.get(key)?.as_str()?.to_owned())
}

fn read_node(node: &Value) -> Node {
    let flag = |value: &Value, key: &str| value.get(key).and_then(Value::as_bool);
    let mut bitmaps = BTreeMap::new();
    let listed = node.get("dirty-bitmaps").and_then(Value::as_array);
    for bitmap in listed.into_iter().flatten() {
        // Jobs keep bitmaps without a name; they are not ours.
        let Some(name) = text(bitmap, "name") else {
            continue;
        };
        let read = Bitmap {
            count: bitmap
                .get("count")
                .and_then(Value::as_u64)
                .unwrap_or(u64::MAX),
            recording: flag(bitmap, "recording").unwrap_or(false),
            inconsistent: flag(bitmap, "inconsistent").unwrap_or(false),
            busy: flag(bitmap, "busy").unwrap_or(false),
        };
        bitmaps.insert(name, read);
    }
    Node {
        file: text(node, "file").unwrap_or_default(),
        driver: text(node, "drv").unwrap_or_default(),
        read_only: flag(node, "ro").unwrap_or(false),
        bitmaps,
    }
}

/// Reads `json:{…}` as QEMU describes a node and lists the files below one of its members.
fn files_below(described: &str, member: &str) -> Vec<String> {
    let Some(json) = described.strip_prefix("json:") else {
        return Vec::new();
    };
    let Ok(value) = serde_json::from_str::<Value>(json) else {
        return Vec::new();
    };
    match value.get(member) {
        Some(Value::Array(children)) => children.iter().map(lowest_file).collect(),
        Some(child) => vec![lowest_file(child)],
        None => Vec::new(),
    }
}

/// The file at the bottom of a chain. Filters (a test's fault, the copy-before-write of a running backup) hang
/// between a leg and its parent; `serde_json` bounds the depth.
fn lowest_file(mut node: &Value) -> String {
    loop {
        if let Some(name) = node.get("filename").and_then(Value::as_str) {
            return name.to_owned();
        }
        match node.get("file").or_else(|| node.get("image")) {
            Some(below) => node = below,
            None => return String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data0() -> DiskName {
        DiskName::new("data0").expect("valid")
    }

    fn paths() -> LegPaths {
        LegPaths {
            a: "/e/a/data0.raw".into(),
            b: "/e/b/data0.raw".into(),
        }
    }

    fn graph(root: &str, file: &str) -> Graph {
        let block = json!([
            { "qdev": "cd0", "device": "" },
            { "qdev": "dev-data0", "inserted": { "node-name": root, "file": file } },
        ]);
        let named = json!([
            { "node-name": root, "drv": "quorum", "file": file, "ro": false },
            { "node-name": "leg-data0-a", "drv": "raw", "file": "/e/a/data0.raw", "ro": false,
              "dirty-bitmaps": [
                { "recording": false, "count": 9, "busy": true, "granularity": 65536 },
                { "name": "changes", "recording": true, "count": 131072, "busy": false },
            ]},
        ]);
        Graph::read(&block, &named).expect("read")
    }

    const BOTH: &str = r#"json:{"read-pattern": "fifo", "children": [{"driver": "raw", "file":
        {"driver": "file", "filename": "/e/a/data0.raw"}}, {"driver": "raw", "file": {"driver": "file",
        "filename": "/e/b/data0.raw"}}], "driver": "quorum", "vote-threshold": 2}"#;
    // As QEMU 7.2 describes it while a backup job runs.
    const COPYING: &str = r#"json:{"children": [{"driver": "copy-before-write", "file": {"driver": "raw",
        "file": {"driver": "file", "filename": "/e/a/data0.raw"}}, "target": {"driver": "raw", "file":
        {"driver": "file", "filename": "/e/b/data0.raw"}}}], "driver": "quorum", "vote-threshold": 1}"#;

    #[test]
    fn a_quorum_is_its_legs_in_order() {
        let two = graph("root-data0-1-ab", BOTH);
        assert_eq!(
            two.source(&data0(), &paths()),
            Ok(DiskSource::Legs(vec![Leg::A, Leg::B]))
        );
        let one = graph("root-data0-2-a", COPYING);
        assert_eq!(
            one.source(&data0(), &paths()),
            Ok(DiskSource::Legs(vec![Leg::A]))
        );
        let changes = one.bitmap(&data0(), Leg::A, "changes").expect("there");
        assert_eq!((changes.count, changes.recording), (131_072, true));
        assert_eq!(one.next_root(&data0()), 3);
        assert_eq!(one.open_legs(&data0()), vec![Leg::A]);
    }

    // Fault 66: whoever acts behind our back is noticed, whatever the names say.
    #[test]
    fn a_root_with_other_files_than_its_name_says_is_foreign() {
        for (root, file) in [
            ("root-data0-1-ba", BOTH),
            ("root-data0-1-a", BOTH),
            ("root-data0-1-ab", COPYING),
            ("root-data0-1-ab", "json:{broken"),
            ("root-data0-1-a", "/e/a/data0.raw"),
            ("root-data1-1-ab", BOTH),
            ("", ""),
        ] {
            assert!(
                graph(root, file).source(&data0(), &paths()).is_err(),
                "{root}"
            );
        }
    }

    #[test]
    fn placeholders_and_overlays_are_recognised() {
        let hole = graph("hole-data0", "json:{}");
        assert_eq!(hole.source(&data0(), &paths()), Ok(DiskSource::Placeholder));
        let over = r#"json:{"backing": {"driver": "raw", "file": {"driver": "file", "filename":
            "/e/b/data0.raw"}}, "driver": "qcow2", "file": {"driver": "file", "filename": "/s/o.qcow2"}}"#;
        let overlay = graph("overlay-data0-b", over);
        assert_eq!(
            overlay.source(&data0(), &paths()),
            Ok(DiskSource::Overlay(Leg::B))
        );
        assert!(
            graph("overlay-data0-a", over)
                .source(&data0(), &paths())
                .is_err()
        );
    }

    #[test]
    fn any_answer_is_read_or_refused() {
        let odd = [
            json!(null),
            json!([]),
            json!({}),
            json!([{}]),
            json!([{ "node-name": 3 }]),
            json!([{ "node-name": "x", "dirty-bitmaps": [{ "name": "changes" }] }]),
            json!([{ "qdev": "dev-data0", "inserted": 7 }]),
        ];
        for block in &odd {
            for named in &odd {
                if let Ok(graph) = Graph::read(block, named) {
                    let _ = graph.source(&data0(), &paths());
                    let _ = graph.next_root(&data0());
                }
            }
        }
    }
}
