//! Writes what is covered, and what is not.

use std::fmt::Write as _;

use super::{Area, Citations, Row};

/// Rows of the list shown on one line.
const PER_LINE: usize = 16;

/// The kinds, in the order in which they are counted.
const KINDS: [(&str, &str); 4] = [
    ("must", "must"),
    ("recommendation", "recommended"),
    ("documentation-only", "documentation"),
    ("hardware-specific", "hardware"),
];

/// Writes the counts of every area, and the rows that nothing covers.
pub(crate) fn report(areas: &[Area], citations: &Citations, later: &[(&str, &str)]) -> String {
    let issue = |area: &Area| later.iter().find(|(name, _)| *name == area.name);
    let (now, then): (Vec<&Area>, Vec<&Area>) = areas.iter().partition(|a| issue(a).is_none());
    let mut text = String::from(
        "requirements: rows that a test cites, of all (in the manual, where only documentation is asked for)\n",
    );
    let _ = write!(text, "{:<6}", "");
    for (_, head) in KINDS {
        let _ = write!(text, "{head:>15}");
    }
    let _ = writeln!(text, "{:>10}{:>9}", "all", "in code");
    for area in &now {
        line(&mut text, &area.name, &[area], citations);
    }
    line(&mut text, "now", &now, citations);
    for area in &then {
        line(&mut text, &area.name, &[area], citations);
    }
    let all: Vec<&Area> = areas.iter().collect();
    line(&mut text, "all", &all, citations);
    for (kind, _) in KINDS {
        missing(&mut text, kind, &now, citations);
    }
    for area in &then {
        let open = uncovered(area, citations, None).len();
        let issue = issue(area).map_or("", |(_, issue)| issue);
        let _ = writeln!(
            text,
            "later: {} ({}, {issue}): {open} of {} rows have no test",
            area.name,
            area.title,
            area.rows.len()
        );
    }
    let covered = |areas: &[&Area]| -> usize {
        let rows = areas.iter().flat_map(|area| &area.rows);
        rows.filter(|row| citations.covers(row)).count()
    };
    let total = |areas: &[&Area]| areas.iter().map(|area| area.rows.len()).sum::<usize>();
    let _ = writeln!(
        text,
        "requirements: {} of {} rows are covered; {} of the {} of areas built so far",
        covered(&all),
        total(&all),
        covered(&now),
        total(&now)
    );
    text
}

fn line(text: &mut String, name: &str, areas: &[&Area], citations: &Citations) {
    let rows = || areas.iter().flat_map(|area| &area.rows);
    // Writing to a string cannot fail.
    let _ = write!(text, "{name:<6}");
    for (kind, _) in KINDS {
        let of_kind = || rows().filter(|row| row.kind == kind);
        let covered = of_kind().filter(|row| citations.covers(row)).count();
        let _ = write!(text, "{:>15}", format!("{covered}/{}", of_kind().count()));
    }
    let covered = rows().filter(|row| citations.covers(row)).count();
    let in_code = rows()
        .filter(|row| citations.code.contains(&row.number))
        .count();
    let _ = writeln!(
        text,
        "{:>10}{in_code:>9}",
        format!("{covered}/{}", rows().count())
    );
}

fn uncovered<'a>(area: &'a Area, citations: &Citations, kind: Option<&str>) -> Vec<&'a Row> {
    let asked = |row: &&Row| kind.is_none_or(|kind| row.kind == kind);
    let open = area.rows.iter().filter(asked);
    open.filter(|row| !citations.covers(row)).collect()
}

fn missing(text: &mut String, kind: &str, areas: &[&Area], citations: &Citations) {
    let open: Vec<(&str, Vec<&Row>)> = areas
        .iter()
        .map(|area| (area.name.as_str(), uncovered(area, citations, Some(kind))))
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    if open.is_empty() {
        return;
    }
    let count: usize = open.iter().map(|(_, rows)| rows.len()).sum();
    let _ = writeln!(text, "no test ({kind}, {count}; * is cited by code):");
    for (area, rows) in open {
        for rows in rows.chunks(PER_LINE) {
            let shown: Vec<String> = rows
                .iter()
                .map(|row| {
                    let star = if citations.code.contains(&row.number) {
                        "*"
                    } else {
                        ""
                    };
                    format!(
                        "{}{star}",
                        row.number.trim_start_matches(area).trim_start_matches('-')
                    )
                })
                .collect();
            let _ = writeln!(text, "  {area}  {}", shown.join(" "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::areas;
    use super::*;
    use std::collections::BTreeSet;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn rows_are_counted_once_and_what_is_open_is_named() {
        let list = "# ZZ Zeds\nZZ-01 must\nZZ-02 must\nZZ-03 documentation-only\nZZ-04 documentation-only\n\
                    # ZY Later\nZY-01 must\n";
        let citations = Citations {
            code: set(&["ZZ-01", "ZZ-02"]),
            tests: set(&["ZZ-01"]),
            manual: set(&["ZZ-03", "ZZ-02"]),
        };
        let text = report(&areas(list).unwrap(), &citations, &[("ZY", "issue 5")]);
        let words = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words("ZZ"), ["ZZ", "1/2", "0/0", "1/2", "0/0", "2/4", "2"]);
        assert_eq!(words("now")[5], "2/4");
        assert_eq!(words("all")[5], "2/5");
        assert!(
            text.contains("no test (must, 1; * is cited by code):\n  ZZ  02*\n"),
            "{text}"
        );
        assert!(text.contains("no test (documentation-only, 1; * is cited by code):\n  ZZ  04\n"));
        assert!(text.contains("later: ZY (Later, issue 5): 1 of 1 rows have no test"));
        assert!(text.ends_with("2 of 5 rows are covered; 2 of the 4 of areas built so far\n"));
    }
}
