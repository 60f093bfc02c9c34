//! Edits the mount table so that a restart without the data disks is an ordinary one, and puts it back.
//!
//! A held line gets options at the end of its fourth field, the last of which (`x-…`: comments to mount and
//! systemd) marks it. So a line is put back by cutting that ending off, whatever else was edited meanwhile.

/// What is added to the options of a held line. The short device time-out keeps services that want the mount, but
/// are not held, from delaying a boot by 90 s.
const HELD: &[u8] = b",noauto,nofail,x-systemd.device-timeout=1s,x-flipside.held";
/// The options of a held line that had none.
const ADDED: &[u8] = b"noauto,nofail,x-systemd.device-timeout=1s,x-flipside.added";
/// The line above a held one.
const NOTE: &[u8] =
    b"# flipside: the next line is held while an upgrade is in progress and put back at the merge.\n";

/// One line of the table, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) spec: String,
    pub(super) target: String,
    pub(super) options: Vec<String>,
}

impl Entry {
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// Holds every line whose mount point is one of the targets.
pub(super) fn hold(table: &[u8], targets: &[&str]) -> Vec<u8> {
    let mut edited = Vec::with_capacity(table.len() + 256);
    for line in table.split_inclusive(|b| *b == b'\n') {
        let fields = fields(line);
        let held = fields.len() >= 3
            && targets
                .iter()
                .any(|t| normal(&unescape(&line[fields[1].clone()])) == normal(t));
        let options = fields.get(3).filter(|f| line[f.start] != b'#');
        let at = match (held, options) {
            (true, Some(field)) if !ends_held(&line[field.clone()]) => field.end,
            (true, None) => fields[2].end,
            _ => {
                edited.extend_from_slice(line);
                continue;
            }
        };
        edited.extend_from_slice(NOTE);
        edited.extend_from_slice(&line[..at]);
        if options.is_some() {
            edited.extend_from_slice(HELD);
        } else {
            edited.push(b' ');
            edited.extend_from_slice(ADDED);
        }
        edited.extend_from_slice(&line[at..]);
    }
    edited
}

/// Puts held lines back; everything else stays as it is.
pub(super) fn restore(table: &[u8]) -> Vec<u8> {
    let mut restored = Vec::with_capacity(table.len());
    for line in table.split_inclusive(|b| *b == b'\n') {
        if line == NOTE || line == NOTE.trim_ascii_end() {
            continue;
        }
        let fields = fields(line);
        match fields.get(3).cloned() {
            Some(field) if line[field.clone()] == *ADDED => {
                restored.extend_from_slice(&line[..field.start.saturating_sub(1)]);
                restored.extend_from_slice(&line[field.end..]);
            }
            Some(field) if line[field.clone()].ends_with(HELD) => {
                restored.extend_from_slice(&line[..field.end - HELD.len()]);
                restored.extend_from_slice(&line[field.end..]);
            }
            _ => restored.extend_from_slice(line),
        }
    }
    restored
}

/// Reads one line; `None` for comments, blank and broken ones.
pub(super) fn entry(line: &[u8]) -> Option<Entry> {
    let fields = fields(line);
    let text = |index: usize| fields.get(index).map(|f| unescape(&line[f.clone()]));
    Some(Entry {
        spec: text(0)?,
        target: normal(&text(1)?).to_owned(),
        options: text(3)
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect(),
    })
    .filter(|_| fields.len() >= 3)
}

/// Decodes the octal escapes of mount tables.
pub(super) fn unescape(field: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let code = digits
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok())
            // No path has one, and an argument would end there.
            .filter(|code| *code != 0);
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ends_held(options: &[u8]) -> bool {
    options.ends_with(HELD) || options == ADDED
}

/// Drops slashes at the end, except of the root.
fn normal(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { path } else { trimmed }
}

/// Where the fields of a line are; none for a comment.
fn fields(line: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut fields = Vec::new();
    let mut start = None;
    for (index, byte) in line.iter().enumerate() {
        let blank = matches!(byte, b' ' | b'\t' | b'\n');
        match (blank, start) {
            (true, Some(from)) => {
                fields.push(from..index);
                start = None;
            }
            (false, None) => start = Some(index),
            _ => {}
        }
    }
    if let Some(from) = start {
        fields.push(from..line.len());
    }
    if fields.first().is_some_and(|f| line[f.start] == b'#') {
        fields.clear();
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# a comment\nUUID=1 / ext4 errors=remount-ro 0 1\n\
        LABEL=data\t/srv/data \text4  noatime,x-systemd.device-timeout=30s 0 2 # why\n\
        /dev/mapper/vg-lv /srv/my\\040data/ xfs\n\n  LABEL=s none swap sw 0 0\nLABEL=b /b ext4 ro";

    #[test]
    fn only_the_lines_of_the_targets_are_held() {
        let held = hold(TABLE.as_bytes(), &["/srv/data", "/srv/my data"]);
        let text = String::from_utf8(held.clone()).expect("utf-8");
        assert!(text.contains("ext4  noatime,x-systemd.device-timeout=30s,noauto,nofail,"));
        assert!(text.contains("/srv/my\\040data/ xfs noauto,nofail,"));
        assert!(text.contains("UUID=1 / ext4 errors=remount-ro 0 1\n"));
        assert_eq!(text.lines().count(), TABLE.lines().count() + 2);
        assert_eq!(
            hold(&held, &["/srv/data", "/srv/my data"]),
            held,
            "idempotent"
        );
        assert_eq!(restore(&held), TABLE.as_bytes());
        assert_eq!(restore(TABLE.as_bytes()), TABLE.as_bytes());
    }

    #[test]
    fn edits_by_others_survive() {
        let held = hold(TABLE.as_bytes(), &["/srv/data"]);
        let text = String::from_utf8(held).expect("utf-8");
        let edited = text
            .replace("LABEL=data\t", "LABEL=renamed\t")
            .replace("# a comment", "# another comment")
            + "\ntmpfs /tmp tmpfs defaults 0 0\n";
        let restored = String::from_utf8(restore(edited.as_bytes())).expect("utf-8");
        let expected = TABLE
            .replace("LABEL=data\t", "LABEL=renamed\t")
            .replace("# a comment", "# another comment")
            + "\ntmpfs /tmp tmpfs defaults 0 0\n";
        assert_eq!(restored, expected);
        // The note was moved away, or deleted: the line is put back all the same.
        let bare: String = edited
            .lines()
            .filter(|l| !l.starts_with("# flipside"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(restore(bare.as_bytes()), expected.as_bytes());
    }

    #[test]
    fn entries_are_decoded() {
        let entry =
            entry(b"/dev/mapper/vg-lv /srv/my\\040data/ xfs ro,noauto 0 0\n").expect("a line");
        assert_eq!(entry.target, "/srv/my data");
        assert!(entry.has("noauto") && !entry.has("nofail"));
        for none in ["", "# x y z w", "one two", "\n"] {
            assert_eq!(super::entry(none.as_bytes()), None);
        }
        assert_eq!(unescape(b"a\\134b\\9\\04"), "a\\b\\9\\04");
        assert_eq!(unescape(b"/etc\\000/x"), "/etc\\000/x");
    }

    /// A small generator of numbers, so that the cases are the same every time.
    fn next(seed: &mut u64) -> usize {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        usize::try_from(*seed >> 33).expect("fits")
    }

    #[test]
    fn whatever_the_table_holds_it_is_put_back_exactly() {
        const PIECES: [&str; 20] = [
            "LABEL=x",
            "/srv/data",
            "/srv/data/",
            "/srv",
            "ext4",
            "noatime",
            "defaults",
            "noauto",
            "nofail",
            "0",
            "2",
            " ",
            "\t",
            "  ",
            "\n",
            "\n",
            "#",
            "\\040",
            "é",
            "\r",
        ];
        let mut seed = 0x1234_5678_9abc_def1;
        for _ in 0..20_000 {
            let count = next(&mut seed) % 30;
            let mut table: Vec<u8> = Vec::new();
            for _ in 0..count {
                table.extend_from_slice(PIECES[next(&mut seed) % PIECES.len()].as_bytes());
                if next(&mut seed).is_multiple_of(3) {
                    table.push(b' ');
                }
                if next(&mut seed).is_multiple_of(40) {
                    table.push(0xff);
                }
            }
            let held = hold(&table, &["/srv/data"]);
            assert_eq!(hold(&held, &["/srv/data"]), held);
            assert_eq!(
                restore(&held),
                table,
                "{:?}",
                String::from_utf8_lossy(&table)
            );
            // Held once more with a further target, restored once.
            assert_eq!(restore(&hold(&held, &["/srv"])), table);
        }
    }
}
