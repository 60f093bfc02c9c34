//! Custom actions: programs of the administrator that run at fixed places of an upgrade (requirements area CA).

use crate::{Problem, Side, UpgradeState};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The title of the entries of the activity log below which custom actions stand (CA-38, AL-15).
pub const EXECUTE_CUSTOM_ACTIONS: &str = "Execute custom actions";

/// The most of each output stream of an action that is kept, in bytes: with both streams, and with the escapes that the
/// journal needs for the worst of them, an action's end fits into one record of 1 MiB (gap G.4.54).
pub const MAX_ACTION_OUTPUT: usize = 64 << 10;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$item])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every value, in the order of the guide.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Returns the exact word.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// Finds a value by its exact word.
            pub fn find(word: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|v| v.name() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// When an action runs (CA-10).
    ControlType {
        /// Whenever applications have to be started.
        StartApplication = "Start Application",
        /// Whenever applications have to be stopped.
        StopApplication = "Stop Application",
        /// Once, in the readiness check before a session.
        ReadinessCheck = "Readiness Check",
        /// In every step, on each side that is there.
        Advanced = "Advanced",
        /// In the merge, before the data volumes are unmounted.
        Backup = "Backup",
    }
}

words! {
    /// The order of Advanced actions among themselves (CA-17).
    Timing {
        /// Before Default and Late.
        Early = "Early",
        /// In the order of the list.
        Default = "Default",
        /// After Early and Default.
        Late = "Late",
    }
}

words! {
    /// What an action is run for: the value of `ACTIVE_UPGRADE_REQUEST` (CA-29).
    UpgradeRequest {
        /// No task runs; no action is run with it (gap G.4.52).
        Idle = "Idle",
        /// The readiness check.
        CheckReadiness = "CheckReadiness",
        /// Preparing the split.
        PrepareSplit = "PrepareSplit",
        /// The split, after the division.
        ExecuteSplit = "ExecuteSplit",
        /// Preparing the merge.
        PrepareMerge = "PrepareMerge",
        /// The merge.
        ExecuteMerge = "ExecuteMerge",
        /// The commit.
        Commit = "Commit",
        /// The abort.
        Abort = "Abort",
        /// Applications have to be started.
        Start = "Start",
        /// Applications have to be stopped.
        Stop = "Stop",
        /// Files have to be saved.
        Backup = "Backup",
    }
}

words! {
    /// Where an action's program lies and runs. The guide has the guest only; the host is our addition.
    ActionPlace {
        /// In the guest.
        Guest = "guest",
        /// On the host, beside the server.
        Host = "host",
    }
}

words! {
    /// What a failing action does.
    OnFailure {
        /// The request stops and is Broken (CA-35).
        Stop = "stop",
        /// A Warning, and the request goes on: our addition, chosen action by action.
        Warn = "warn",
    }
}

/// One custom action of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomAction {
    /// The program, an absolute path; `%NAME%` is expanded when it runs (CA-04).
    pub file: String,
    /// Its arguments, already divided into words; `%NAME%` is expanded in each when it runs (CA-33).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// When it runs.
    pub control_type: ControlType,
    /// Its place among the Advanced actions.
    pub timing: Timing,
    /// How long it may run, in seconds; no limit of its own without it (CA-22, CA-23).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where it runs.
    pub place: ActionPlace,
    /// What its failure does.
    pub on_failure: OnFailure,
}

impl CustomAction {
    /// Returns file and arguments as the administrator wrote them, for lists.
    pub fn shown(&self) -> String {
        let words = std::iter::once(&self.file).chain(&self.arguments);
        let quoted = words.map(|w| {
            if w.is_empty() || w.contains(char::is_whitespace) {
                format!("\"{w}\"")
            } else {
                w.clone()
            }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }
}

/// Puts actions into the order in which they run: the order of the list, stable by timing (CA-17, CA-20; gap G.3.38).
pub fn in_order<'a>(actions: impl IntoIterator<Item = &'a CustomAction>) -> Vec<&'a CustomAction> {
    let mut ordered: Vec<&CustomAction> = actions.into_iter().collect();
    if !crate::planted::is("late-actions-first") {
        ordered.sort_by_key(|a| a.timing);
    } else {
        ordered.sort_by_key(|a| std::cmp::Reverse(a.timing));
    }
    ordered
}

/// The circumstances of one run, which the action is told (CA-27 to CA-32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionContext {
    /// The side on which, or on whose behalf, it runs.
    pub side: Side,
    /// The stage.
    pub state: UpgradeState,
    /// What it is run for.
    pub request: UpgradeRequest,
    /// Whether two systems run at this moment (CA-30).
    pub hw_split: bool,
}

/// The search path of an action; the same as of programs started by `flipside run`.
pub const ACTION_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl ActionContext {
    /// Returns the whole environment of an action, in a fixed order: the four variables of the guide, which try of this
    /// action it is (it may run more than once, fault 58), and what every program expects.
    pub fn environment(&self, attempt: u32) -> Vec<(&'static str, String)> {
        let side = match self.side {
            Side::Production => "Production",
            Side::Upgrade => "Upgrade",
        };
        let split = if self.hw_split { "Yes" } else { "No" };
        vec![
            ("ACTIVE_UPGRADE_SIDE", side.to_owned()),
            ("ACTIVE_UPGRADE_STATE", self.state.name().to_owned()),
            ("ACTIVE_UPGRADE_REQUEST", self.request.name().to_owned()),
            ("ACTIVE_UPGRADE_HW_SPLIT", split.to_owned()),
            ("ATTEMPT", attempt.to_string()),
            ("PATH", ACTION_PATH.to_owned()),
            ("HOME", "/root".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
        ]
    }

    /// Replaces every `%NAME%` of a variable of the environment by its value; what is no such name stays as it is typed
    /// (gap G.4.53). Values are not expanded again.
    pub fn expand(&self, text: &str, attempt: u32) -> String {
        let environment = self.environment(attempt);
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let end = after.find('%');
            let known = end.and_then(|end| {
                let name = &after[..end];
                environment
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| (value, end))
            });
            match known {
                Some((value, end)) => {
                    out.push_str(value);
                    rest = &after[end + 1..];
                }
                None => {
                    out.push('%');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Nothing.
    Missing,
    /// A regular file, also through a link.
    Regular,
    /// A directory.
    Directory,
    /// Something else.
    Other,
}

/// A file or directory, as it is seen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileView {
    /// The path that was asked about.
    pub path: String,
    /// What is there.
    pub kind: FileKind,
    /// Whether it can be executed.
    pub executable: bool,
    /// Whether it can be written to.
    pub writable: bool,
    /// SHA-256 of a regular file in hexadecimal digits, else empty.
    pub sha256: String,
    /// The serial number of the disk it lies on, empty when unknown.
    pub disk: String,
    /// The kind of its file system, such as `ext4` or `nfs4`, empty when unknown.
    pub filesystem: String,
    /// Why others than the administrator could change it, if so (security checklist 22, 25).
    pub flaw: Option<String>,
}

impl FileView {
    /// Makes the view of a path where nothing is.
    pub fn missing(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            kind: FileKind::Missing,
            executable: false,
            writable: false,
            sha256: String::new(),
            disk: String::new(),
            filesystem: String::new(),
            flaw: None,
        }
    }
}

/// The fingerprint of an action's file, taken in PrepareSplit; a file that differs later is not run (fault 60).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFile {
    /// The side whose disk it lies on; none for the host.
    pub side: Option<Side>,
    /// The path.
    pub path: String,
    /// SHA-256 of its contents, in hexadecimal digits.
    pub sha256: String,
}

/// One run of an action, recorded before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRun {
    /// The number by which the running program is found again, also by another life of the server.
    pub handle: u64,
    /// The place of the action in the configuration, from 0.
    pub index: u32,
    /// When it runs.
    pub control_type: ControlType,
    /// Where it runs.
    pub place: ActionPlace,
    /// The program and its arguments, expanded.
    pub argv: Vec<String>,
    /// Its circumstances.
    pub context: ActionContext,
    /// 1 for the first run of this action for this request on this side.
    pub attempt: u32,
}

impl ActionRun {
    /// Identifies what is tried again: the action, the request and the side.
    pub fn key(&self) -> String {
        action_key(self.index, &self.context)
    }

    /// Returns the name under which it is shown (CA-22).
    pub fn shown(&self) -> String {
        let place = match self.place {
            ActionPlace::Guest => self.context.side.to_string(),
            ActionPlace::Host => format!("host, for the {}", self.context.side),
        };
        format!("{}: {} ({place})", self.control_type, self.argv.join(" "))
    }
}

/// Identifies an action within a request on a side.
pub fn action_key(index: u32, context: &ActionContext) -> String {
    format!(
        "{index}/{}/{}/{:?}",
        context.state.name(),
        context.request.name(),
        context.side
    )
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionResult {
    /// By itself, with this exit value; 128 and the signal's number for one that was killed.
    Exit(i32),
    /// It was ended because its time was over.
    TimedOut(Problem),
    /// It was ended because the operation was aborted, or because the session went on without it.
    Ended,
    /// It was not started, or nobody knows how it ended.
    Failed(Problem),
}

/// What a program printed on one stream, as far as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The text; bytes that are no text are replaced.
    pub text: String,
    /// Whether more was printed than is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// The end of a run, with what it printed (CA-38, CA-41).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionEnd {
    /// Which run.
    pub handle: u64,
    /// How.
    pub result: ActionResult,
    /// Standard output.
    pub out: Captured,
    /// Standard error.
    pub err: Captured,
    /// Whether a failure is only a Warning, because the configuration says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tolerated: bool,
}

impl ActionEnd {
    /// Says whether the action did what it should.
    pub fn success(&self) -> bool {
        self.result == ActionResult::Exit(0)
    }

    /// Returns the sentence of a failure, none after a success (CA-35: exact).
    pub fn failure(&self) -> Option<String> {
        match &self.result {
            ActionResult::Exit(0) => None,
            ActionResult::Exit(value) => {
                Some(format!("Custom action failed with exit value {value}"))
            }
            ActionResult::TimedOut(problem) | ActionResult::Failed(problem) => {
                Some(problem.message.clone())
            }
            ActionResult::Ended => Some("the custom action was ended".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> ActionContext {
        ActionContext {
            side: Side::Upgrade,
            state: UpgradeState::Split,
            request: UpgradeRequest::ExecuteSplit,
            hw_split: true,
        }
    }

    // CA-10, CA-17, CA-28, CA-29, CA-31: the exact words, and no other.
    #[test]
    fn the_words_are_the_guides() {
        let names = |all: Vec<&str>| all.join(",");
        assert_eq!(
            names(ControlType::ALL.iter().map(|c| c.name()).collect()),
            "Start Application,Stop Application,Readiness Check,Advanced,Backup"
        );
        assert_eq!(
            names(Timing::ALL.iter().map(|c| c.name()).collect()),
            "Early,Default,Late"
        );
        assert_eq!(
            names(UpgradeRequest::ALL.iter().map(|c| c.name()).collect()),
            "Idle,CheckReadiness,PrepareSplit,ExecuteSplit,PrepareMerge,ExecuteMerge,Commit,Abort,Start,Stop,Backup"
        );
        assert_eq!(ControlType::find("start application"), None);
        let json = serde_json::to_string(&ControlType::StartApplication).expect("serialises");
        assert_eq!(json, "\"Start Application\"");
    }

    // CA-27 to CA-30: the four variables with their values.
    #[test]
    fn the_environment_has_the_four_variables() {
        let environment = context().environment(2);
        let value = |name: &str| {
            environment
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(value("ACTIVE_UPGRADE_SIDE"), Some("Upgrade"));
        assert_eq!(value("ACTIVE_UPGRADE_STATE"), Some("Split"));
        assert_eq!(value("ACTIVE_UPGRADE_REQUEST"), Some("ExecuteSplit"));
        assert_eq!(value("ACTIVE_UPGRADE_HW_SPLIT"), Some("Yes"));
        // Fault 58.
        assert_eq!(value("ATTEMPT"), Some("2"));
    }

    // CA-33, CA-34, gap G.4.53: names are expanded once, everything else stays as typed.
    #[test]
    fn names_are_expanded_and_nothing_else_is() {
        let context = context();
        for (text, expanded) in [
            (
                "%ACTIVE_UPGRADE_SIDE% %ACTIVE_UPGRADE_REQUEST%",
                "Upgrade ExecuteSplit",
            ),
            (
                "a%ACTIVE_UPGRADE_STATE%b%ACTIVE_UPGRADE_HW_SPLIT%c",
                "aSplitbYesc",
            ),
            (
                "%Active_Upgrade_Side%%NOTHING%%%",
                "%Active_Upgrade_Side%%NOTHING%%%",
            ),
            ("100%", "100%"),
            ("%%ACTIVE_UPGRADE_SIDE%%", "%Upgrade%"),
            ("50% of %ACTIVE_UPGRADE_SIDE%", "50% of Upgrade"),
            ("/opt/%LANG%/x", "/opt/C.UTF-8/x"),
            ("", ""),
            ("ü%ATTEMPT%ü", "ü1ü"),
        ] {
            assert_eq!(context.expand(text, 1), expanded, "{text}");
        }
    }

    fn action(file: &str, timing: Timing) -> CustomAction {
        CustomAction {
            file: file.to_owned(),
            arguments: Vec::new(),
            control_type: ControlType::Advanced,
            timing,
            limit: None,
            place: ActionPlace::Guest,
            on_failure: OnFailure::Stop,
        }
    }

    // CA-17, CA-20: Early, Default, Late, and within each the order of the list.
    #[test]
    fn timing_sorts_stably() {
        let list = [
            action("/1", Timing::Late),
            action("/2", Timing::Default),
            action("/3", Timing::Early),
            action("/4", Timing::Default),
            action("/5", Timing::Late),
            action("/6", Timing::Early),
        ];
        let order: Vec<&str> = in_order(&list).iter().map(|a| a.file.as_str()).collect();
        assert_eq!(order, ["/3", "/6", "/2", "/4", "/1", "/5"]);
    }

    // CA-35: the exact text, whatever the value.
    #[test]
    fn a_failure_is_told_in_the_guides_words() {
        let end = |result| ActionEnd {
            handle: 1,
            result,
            out: Captured::default(),
            err: Captured::default(),
            tolerated: false,
        };
        assert_eq!(end(ActionResult::Exit(0)).failure(), None);
        for value in [1, 3, 126, 127, 137, 255] {
            assert_eq!(
                end(ActionResult::Exit(value)).failure(),
                Some(format!("Custom action failed with exit value {value}"))
            );
        }
    }
}
