//! How a command ends when it does not end well.

use flipside_activity::{clean, clean_lines};
use flipside_model::{Problem, ProblemCode};

/// Exit status: failed, or the system is Broken.
pub(crate) const FAILED: u8 = 1;
/// Exit status: the command line or a file is wrong, and nothing was done.
pub(crate) const USAGE: u8 = 2;
/// Exit status: legal at another time, refused in this state.
pub(crate) const REFUSED: u8 = 3;
/// Exit status after an interrupt, as shells report it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be printed.
    Problem(Box<Problem>),
    /// The connection to the server was lost or never made; an operation may go on behind it.
    Lost(Box<Problem>),
    /// All was said already.
    Status(u8),
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Problem::new(ProblemCode::Usage, message).into()
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Problem::new(ProblemCode::Failed, message).into()
    }

    /// Adds what to do next.
    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        match self {
            Self::Problem(problem) => problem.advise(advice).into(),
            other => other,
        }
    }

    /// Returns the exit status (design section 6). What does not exist was named wrongly: usage.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Status(status) => *status,
            Self::Lost(_) => FAILED,
            Self::Problem(problem) => match problem.code {
                ProblemCode::Usage | ProblemCode::NotFound => USAGE,
                ProblemCode::Refused => REFUSED,
                _ => FAILED,
            },
        }
    }

    /// Returns what is printed on standard error, nothing when all was said.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Problem(problem) | Self::Lost(problem) => problem_text("error: ", problem),
            Self::Status(_) => String::new(),
        }
    }
}

/// Renders a problem: the sentence, its causes, the advice.
pub(crate) fn problem_text(lead: &str, problem: &Problem) -> String {
    let mut out = format!("{lead}{}\n", clean(&problem.message));
    for cause in problem.causes.iter().flat_map(|c| clean_lines(c)) {
        out.push_str(&format!("  cause: {cause}\n"));
    }
    for line in problem.advice.iter().flat_map(|a| clean_lines(a)) {
        out.push_str(&format!("  advice: {line}\n"));
    }
    out
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// A reader that went away, such as `head`, is no error: the command ends quietly.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::Status(0);
        }
        Problem::new(ProblemCode::Failed, "cannot write the output")
            .because(&error)
            .into()
    }
}

/// Turns whatever the server crate returns into a problem, keeping its kind when it is one.
pub(crate) fn from_any(error: anyhow::Error) -> Failure {
    match error.downcast::<Problem>() {
        Ok(problem) => problem.into(),
        Err(error) => {
            let mut problem = Problem::new(ProblemCode::Failed, error.to_string());
            problem.causes = error.chain().skip(1).map(ToString::to_string).collect();
            problem.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Design section 6: 0 done; 1 failed or Broken; 2 usage; 3 refused in this state.
    #[test]
    fn the_kind_of_a_problem_decides_the_exit_status() {
        for (code, status) in [
            (ProblemCode::Usage, 2),
            (ProblemCode::NotFound, 2),
            (ProblemCode::Refused, 3),
            (ProblemCode::InUse, 1),
            (ProblemCode::Failed, 1),
            (ProblemCode::TimedOut, 1),
            (ProblemCode::Mismatch, 1),
            (ProblemCode::NotReady, 1),
            (ProblemCode::NoSpace, 1),
            (ProblemCode::Internal, 1),
        ] {
            assert_eq!(Failure::from(Problem::new(code, "x")).status(), status);
        }
    }

    #[test]
    fn a_problem_is_told_with_causes_and_advice_and_cannot_paint() {
        let problem = Problem {
            causes: vec!["disk full\nreally".to_owned()],
            ..Problem::new(ProblemCode::Failed, "no \x1b[2J").advise("free some")
        };
        assert_eq!(
            Failure::from(problem).text(),
            "error: no \\u{1b}[2J\n  cause: disk full\n  cause: really\n  advice: free some\n"
        );
    }
}
