//! `files`: keeps Rust files short enough to be read at once.

use anyhow::Result;

use crate::repo;

/// From here on a file is listed, so that it is divided while that is still easy.
const LISTED_LINES: usize = 600;

/// From here on the check fails.
const REFUSED_LINES: usize = 700;

pub(crate) fn run() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut count = 0;
    for file in repo::tracked_files()?
        .iter()
        .filter(|file| repo::is_rust(file))
    {
        count += 1;
        let lines = repo::read(file)?.lines().count();
        match judge(lines) {
            Verdict::Fine => {}
            Verdict::Listed => println!(
                "files: `{}` has {lines} lines, divide it soon",
                file.display()
            ),
            Verdict::Refused => problems.push(format!(
                "`{}` has {lines} lines, {REFUSED_LINES} are allowed: divide it",
                file.display()
            )),
        }
    }
    println!("files: {count} Rust files, {} too long", problems.len());
    Ok(problems)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Listed,
    Refused,
}

fn judge(lines: usize) -> Verdict {
    if lines > REFUSED_LINES {
        Verdict::Refused
    } else if lines > LISTED_LINES {
        Verdict::Listed
    } else {
        Verdict::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_listed_and_then_refused() {
        assert_eq!(judge(600), Verdict::Fine);
        assert_eq!(judge(601), Verdict::Listed);
        assert_eq!(judge(700), Verdict::Listed);
        assert_eq!(judge(701), Verdict::Refused);
    }
}
