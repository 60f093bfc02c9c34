//! Logs: which there are, and saving them (requirements area LB).

use super::actions::check_paths;
use super::escape::words;
use super::link::{Script, refused};
use super::services::nonsense;
use super::{LinuxGuest, limits, records, script};
use flipside_model::{LogCopy, LogSelection, LogSource, MachineId};
use flipside_platform::{LogRequest, PortResult};

static LIST: Script = script!("list the logs", "logs");
static MARK: Script = script!("mark the logs", "logs_mark");
static COPY: Script = script!("save the logs", "logs_copy");

impl LinuxGuest {
    pub(super) async fn list_logs(&self, id: MachineId) -> PortResult<Vec<LogSource>> {
        let out = self.link.script(id, &LIST, &[], limits::LOOK).await?;
        Ok(sources(&String::from_utf8_lossy(&out)))
    }

    pub(super) async fn set_log_mark(&self, id: MachineId) -> PortResult<()> {
        self.link
            .script(id, &MARK, &[], limits::FLAG)
            .await
            .map(drop)
    }

    pub(super) async fn copy_logs(
        &self,
        id: MachineId,
        request: &LogRequest,
    ) -> PortResult<Vec<LogCopy>> {
        check_paths(&[request.target.clone(), request.directory.clone()])?;
        let mut arguments = vec![request.target.clone(), request.directory.clone()];
        arguments.push(request.limit.as_secs().max(1).to_string());
        arguments.extend(request.logs.iter().map(LogSelection::to_string));
        let deadline = request.limit + limits::MARGIN;
        let status = self.link.attempt(id, &COPY, &arguments, deadline).await?;
        if !status.success() {
            return Err(refused(id, COPY.what, &status).about(words(request.directory.as_bytes())));
        }
        let copies = copies(&request.logs, &String::from_utf8_lossy(&status.out));
        copies.ok_or_else(|| nonsense(id, COPY.what))
    }
}

fn sources(text: &str) -> Vec<LogSource> {
    let source = |record: Vec<&str>| match record.as_slice() {
        ["log", kind, bytes, name] if !name.is_empty() => Some(LogSource {
            log: LogSelection::from(words(name.as_bytes())),
            kind: words(kind.as_bytes()),
            bytes: bytes.parse().ok()?,
        }),
        _ => None,
    };
    records(text).filter_map(source).collect()
}

/// Reads one answer for each log, in their order; none when the script did not come to its end.
fn copies(logs: &[LogSelection], text: &str) -> Option<Vec<LogCopy>> {
    let mut copies = Vec::new();
    for record in records(text).filter(|r| r[0] == "log") {
        let [_, index, files, bytes, why @ ..] = record.as_slice() else {
            return None;
        };
        if index.parse() != Ok(copies.len()) {
            return None;
        }
        let why = words(why.join(" ").as_bytes());
        copies.push(LogCopy {
            log: logs.get(copies.len())?.clone(),
            files: files.parse().ok()?,
            bytes: bytes.parse().ok()?,
            failure: (!why.is_empty()).then_some(why),
        });
    }
    let whole = text.lines().any(|line| line == "done") && copies.len() == logs.len();
    whole.then_some(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_logs_is_read_as_far_as_it_makes_sense() {
        let found = sources(
            "log\tjournal\t8388608\tsystem journal\nlog\tdirectory\t4096\t/var/log/nginx\nlog\tx\nlog\tfile\tmany\t/x\n",
        );
        let told: Vec<_> = found.iter().map(|s| (s.log.to_string(), s.bytes)).collect();
        assert_eq!(
            told,
            [
                ("system journal".to_owned(), 8 << 20),
                ("/var/log/nginx".to_owned(), 4096)
            ]
        );
    }

    // LB-11: nothing that was not said to be saved counts as saved.
    #[test]
    fn every_log_has_its_answer_or_none_counts() {
        let logs = [
            LogSelection::SystemJournal,
            LogSelection::Path("/var/log/x".to_owned()),
        ];
        let good = "log\t0\t2\t100\t\nlog\t1\t0\t0\tcp: no space\ndone\n";
        let read = copies(&logs, good).expect("makes sense");
        assert_eq!((read[0].files, read[0].failure.as_deref()), (2, None));
        assert_eq!(read[1].failure.as_deref(), Some("cp: no space"));
        for bad in [
            "",
            "log\t0\t2\t100\t\ndone\n",
            "log\t0\t2\t100\t\nlog\t1\t0\t0\t\n",
            "log\t1\t2\t100\t\nlog\t0\t0\t0\t\ndone\n",
            "log\t0\t2\t100\t\nlog\t1\tmany\t0\t\ndone\n",
        ] {
            assert_eq!(copies(&logs, bad), None, "{bad:?}");
        }
    }
}
