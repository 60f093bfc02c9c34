//! What a custom action needs in a guest and on the host alike: the script that runs it, and its words.

use flipside_platform::{ActionRequest, PortError, PortErrorKind, PortResult};

/// Runs one action; values come as positional parameters only.
pub(crate) const ACTION: &str = include_str!("guest/scripts/action.sh");

/// What `env -i` runs last: the program in its own directory (gap G.2.31).
const IN_ITS_DIRECTORY: &str = r#"cd -- "$1" || exit 126; shift; exec "$@""#;

/// Returns what `action.sh` takes beyond the folder. One byte more than is kept is asked for, so that more can be told
/// from exactly as much.
pub(crate) fn action_words(request: &ActionRequest) -> Vec<String> {
    let mut all = vec![(request.keep + 1).to_string()];
    all.extend(
        request
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    all.extend(["/bin/sh", "-c", IN_ITS_DIRECTORY, "flipside"].map(str::to_owned));
    let program = request.argv.first().map_or("", String::as_str);
    let directory = program
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    all.push(if directory.is_empty() { "/" } else { directory }.to_owned());
    all.extend(request.argv.iter().cloned());
    all
}

/// Refuses what cannot be passed to a program as it is meant.
pub(crate) fn check_request(request: &ActionRequest) -> PortResult<()> {
    let refuse = |why: &str| Err(PortError::new(PortErrorKind::Mismatch, why));
    if !request.argv.first().is_some_and(|p| p.starts_with('/')) {
        return refuse("the program of a custom action must be an absolute path");
    }
    if request.argv.iter().any(|word| word.contains('\0')) {
        return refuse("a NUL character cannot be passed to a program");
    }
    let named = |name: &str| {
        let mut bytes = name.bytes();
        bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let bad = |(name, value): &(String, String)| !named(name) || value.contains('\0');
    if request.env.iter().any(bad) {
        return refuse("a variable of a custom action cannot be passed to a program");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(argv: &[&str], env: &[(&str, &str)]) -> ActionRequest {
        ActionRequest {
            handle: 1,
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            env: env
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            keep: 10,
        }
    }

    // Security checklist 22 to 25: values are words of their own, whatever stands in them.
    #[test]
    fn values_stay_words() {
        let hostile = "$(reboot); `x` \"'\n";
        let words = action_words(&request(&["/opt/x", hostile], &[("A", hostile)]));
        assert_eq!(words[0], "11");
        assert_eq!(words[1], format!("A={hostile}"));
        assert_eq!(words[2..6], ["/bin/sh", "-c", IN_ITS_DIRECTORY, "flipside"]);
        assert_eq!(words[6..], ["/opt", "/opt/x", hostile]);
        assert_eq!(action_words(&request(&["/x"], &[]))[5], "/");
    }

    #[test]
    fn what_no_program_can_be_given_is_refused() {
        assert!(check_request(&request(&["/x", ""], &[("A_1", "b=c")])).is_ok());
        for bad in [
            request(&[], &[]),
            request(&["x"], &[]),
            request(&["/x", "a\0b"], &[]),
            request(&["/x"], &[("1A", "")]),
            request(&["/x"], &[("A=B", "")]),
            request(&["/x"], &[("A", "\0")]),
        ] {
            assert!(check_request(&bad).is_err(), "{bad:?}");
        }
    }
}
