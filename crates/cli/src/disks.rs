//! Draws the disks of a system: each to scale in a line of text, with roles in words and the guide's colours.

use flipside_activity::{clean, size};
use flipside_model::{DiskMap, DiskName, MapDisk, Segment, Volume, VolumeColour};
use std::fmt::Write as _;

/// Characters of the longest bar: fits a terminal of 80 with its frame.
const WIDTH: u64 = 64;

/// The letter of a colour, so that nothing depends on seeing it (gap G.3.43).
fn letter(colour: VolumeColour) -> char {
    match colour {
        VolumeColour::Black => '.',
        VolumeColour::Blue => 'D',
        VolumeColour::LightGreen => 'S',
        VolumeColour::DarkGreen => 'M',
        VolumeColour::Red => 'R',
    }
}

/// The guide's colours on a terminal (DK-17 to DK-21).
fn paint(colour: VolumeColour, text: &str, color: bool) -> String {
    let code = match colour {
        VolumeColour::Black => "90",
        VolumeColour::Blue => "34",
        VolumeColour::LightGreen => "92",
        VolumeColour::DarkGreen => "32",
        VolumeColour::Red => "31",
    };
    if color {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Renders the map.
pub(crate) fn text(map: &DiskMap, color: bool) -> String {
    let mut out = String::from("\nDisks and volumes:\n");
    if let Some(why) = &map.not_scanned {
        let _ = writeln!(
            out,
            "  not scanned: {}; volumes, swap and mount points are not known",
            clean(why)
        );
    }
    let largest = map.disks.iter().map(|d| d.size).max().unwrap_or(1).max(1);
    for disk in &map.disks {
        draw(&mut out, disk, &map.volumes, largest, color);
    }
    out.push_str(
        "\n  M mandatory system  S system  D data  R being resynchronised  . unassigned\n",
    );
    for problem in &map.problems {
        let _ = writeln!(out, "\n  ERROR: {}", clean(problem));
    }
    if map
        .disks
        .iter()
        .any(|d| d.kind.role() == flipside_model::DiskRole::System)
    {
        out.push('\n');
        for caution in &map.cautions {
            let _ = writeln!(out, "  {caution}");
        }
    }
    out
}

fn draw(out: &mut String, disk: &MapDisk, volumes: &[Volume], largest: u64, color: bool) {
    let _ = writeln!(
        out,
        "\n  {}  {}  {}, mirror {}",
        disk.name,
        size(disk.size),
        disk.kind,
        disk.mirror
    );
    for why in &disk.why {
        let _ = writeln!(out, "    because: {}", clean(why));
    }
    if disk.plugged == Some(false) {
        out.push_str("    the guest does not see it\n");
    }
    if disk.segments.is_empty() {
        return;
    }
    let _ = writeln!(out, "    [{}]", bar(disk, largest, color));
    for segment in &disk.segments {
        piece(out, disk, segment, volumes, color);
    }
}

/// The pieces to scale, none shorter than a character: the longest disk fills the line.
fn bar(disk: &MapDisk, largest: u64, color: bool) -> String {
    let scaled = |bytes: u64| {
        let cells = u128::from(bytes) * u128::from(WIDTH) / u128::from(largest);
        usize::try_from(cells).unwrap_or(0).max(1)
    };
    let cells = |segment: &Segment| {
        let run = letter(segment.colour)
            .to_string()
            .repeat(scaled(segment.size));
        paint(segment.colour, &run, color)
    };
    let drawn: Vec<String> = disk.segments.iter().map(cells).collect();
    drawn.join("|")
}

fn piece(out: &mut String, disk: &MapDisk, segment: &Segment, volumes: &[Volume], color: bool) {
    let mark = paint(segment.colour, &letter(segment.colour).to_string(), color);
    let name = segment
        .device
        .as_deref()
        .map_or_else(|| "-".to_owned(), clean);
    let _ = writeln!(
        out,
        "    {mark} {name:<8} {:>9}  {}",
        size(segment.size),
        clean(&segment.meaning)
    );
    for volume in segment.volumes.iter().filter_map(|at| volumes.get(*at)) {
        let _ = writeln!(out, "        {}", told(volume, &disk.name));
    }
}

/// A volume in words: what it is, where it is mounted, and on which other disks it lies.
fn told(volume: &Volume, here: &DiskName) -> String {
    let mut text = clean(&volume.title);
    if let Some(format) = &volume.format {
        let _ = write!(text, ", {}", clean(format));
    }
    let _ = write!(text, ", {}", size(volume.size));
    if !volume.mounts.is_empty() {
        let _ = write!(text, ", mounted at {}", clean(&volume.mounts.join(" and ")));
    }
    if volume.paging {
        text.push_str(", paged to");
    }
    let others: Vec<&str> = volume
        .disks
        .iter()
        .filter(|d| *d != here)
        .map(DiskName::as_str)
        .collect();
    if !others.is_empty() {
        let _ = write!(text, ", also on {}", others.join(" and "));
    }
    if volume.outside {
        text.push_str(", partly outside the mirrored disks");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> DiskMap {
        serde_json::from_str(include_str!("../tests/disks.json")).expect("a map")
    }

    // DK-16 to DK-21, gap G.3.43: to scale, every role in letters and words, spanned volumes on both disks.
    #[test]
    fn disks_are_drawn_to_scale_and_in_words() {
        let expected = "
Disks and volumes:

  system0  2.0 GiB  Mandatory System, mirror None
    because: vg/root: it holds the root file system
    [MMMMMMMMMMMMMMMM|MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM|................]
    M sda1       512 MiB  mandatory system
        sda1, ext4, 512 MiB, mounted at /boot
    M sda2       1.0 GiB  mandatory system
        vg/root, ext4, 1.5 GiB, mounted at /, also on system1
    . -          512 MiB  unassigned

  system1  1.0 GiB  System, mirror Resync 42%
    because: volume vg/root lies on it and on `system0`
    [RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR]
    R sdb        1.0 GiB  system, Resync 42%
        vg/root, ext4, 1.5 GiB, mounted at /, also on system0

  M mandatory system  S system  D data  R being resynchronised  . unassigned

  ERROR: something is wrong

  CAUTION: text
";
        assert_eq!(text(&sample(), false), expected);
    }

    // DK-19, DK-20: the colours themselves; without colour there is no escape at all.
    #[test]
    fn colours_are_the_guides() {
        let shown = text(&sample(), true);
        assert!(shown.contains("\u{1b}[32mMMMM") && shown.contains("\u{1b}[31mRRRR"));
        assert!(shown.contains("\u{1b}[90m...."));
        assert!(!text(&sample(), false).contains('\u{1b}'));
    }

    // DK-01: what the host knows, and that it is only that.
    #[test]
    fn a_system_that_was_not_scanned_says_so() {
        let mut map = sample();
        map.not_scanned = Some("the system does not run".to_owned());
        map.disks.truncate(1);
        map.disks[0].segments.clear();
        let shown = text(&map, false);
        assert!(
            shown.contains("not scanned: the system does not run;"),
            "{shown}"
        );
        assert!(
            shown.contains("system0  2.0 GiB  Mandatory System, mirror None"),
            "{shown}"
        );
        assert!(!shown.contains('['), "{shown}");
    }
}
