//! Who is logged in: random ids that only the server and one browser know, with an end.

use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A login ends when nothing was asked with it for so long: a browser that somebody left open over a weekend. An open
/// stream counts as being there, as long as its page is.
const IDLE: Duration = Duration::from_secs(12 * 3600);

/// It ends after this time in any case: within a week somebody types the password again.
const ABSOLUTE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Logins kept at most; the one that was idle longest goes first. Each takes some hundred bytes.
const MOST: usize = 512;

/// Bytes of an id from the operating system's random numbers: 256 bits, guessed by nobody.
const ID_BYTES: usize = 32;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Looks at everything, changes nothing.
    Viewer,
    /// Does everything that the command line can do.
    Operator,
}

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) name: String,
    pub(crate) role: Role,
}

struct Login {
    who: Who,
    began: Instant,
    used: Instant,
}

/// All logins. They are not stored: after a restart of the server one logs in again, with the same password.
#[derive(Default)]
pub(crate) struct Sessions {
    logins: Mutex<HashMap<[u8; 32], Login>>,
}

/// Only the digest is kept, so that comparing tells nothing by its time, and a memory dump holds no id.
fn digest(id: &str) -> [u8; 32] {
    Sha256::digest(id.as_bytes()).into()
}

/// Returns so many random bytes in hexadecimal digits.
pub(crate) fn random(bytes: usize) -> anyhow::Result<String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer)
        .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a login and returns its id.
    pub(crate) fn begin(&self, who: Who, now: Instant) -> anyhow::Result<String> {
        let id = random(ID_BYTES)?;
        let mut logins = self.lock();
        logins.retain(|_, login| login.lives(now));
        while logins.len() >= MOST {
            let oldest = logins.iter().min_by_key(|(_, login)| login.used);
            let Some(key) = oldest.map(|(key, _)| *key) else {
                break;
            };
            logins.remove(&key);
        }
        let login = Login {
            who,
            began: now,
            used: now,
        };
        logins.insert(digest(&id), login);
        Ok(id)
    }

    /// Says who an id belongs to; using it keeps it alive.
    pub(crate) fn who(&self, id: &str, now: Instant) -> Option<Who> {
        let mut logins = self.lock();
        let key = digest(id);
        let login = logins.get_mut(&key)?;
        if !login.lives(now) {
            logins.remove(&key);
            return None;
        }
        login.used = now;
        Some(login.who.clone())
    }

    /// Ends a login: its id is worth nothing from here on.
    pub(crate) fn end(&self, id: &str) {
        self.lock().remove(&digest(id));
    }

    /// Ends every login of a user.
    pub(crate) fn end_all(&self, name: &str) {
        self.lock().retain(|_, login| login.who.name != name);
    }
}

impl Login {
    fn lives(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < IDLE
            && now.saturating_duration_since(self.began) < ABSOLUTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Who {
        Who {
            name: name.to_owned(),
            role: Role::Viewer,
        }
    }

    // Security 8.
    #[test]
    fn a_login_ends_by_idleness_by_age_and_by_the_user() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let id = sessions.begin(who("ada"), start).expect("random");
        assert_eq!(id.len(), 64);
        assert_eq!(sessions.who(&id, start), Some(who("ada")));
        let later = start + IDLE;
        assert_eq!(sessions.who(&id, later), None, "idle");
        let id = sessions.begin(who("ada"), start).expect("random");
        let mut now = start;
        while now < start + ABSOLUTE {
            assert!(sessions.who(&id, now).is_some());
            now += IDLE / 2;
        }
        assert_eq!(sessions.who(&id, now), None, "old");
        let (one, two) = (
            sessions.begin(who("ada"), start).expect("random"),
            sessions.begin(who("ada"), start).expect("random"),
        );
        assert_ne!(one, two);
        sessions.end(&one);
        assert_eq!(sessions.who(&one, start), None);
        assert!(sessions.who(&two, start).is_some());
        sessions.end_all("ada");
        assert_eq!(sessions.who(&two, start), None);
    }

    #[test]
    fn the_number_of_logins_is_bounded() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let ids: Vec<String> = (0..=MOST as u64)
            .map(|n| {
                let at = start + Duration::from_millis(n);
                sessions.begin(who("ada"), at).expect("random")
            })
            .collect();
        let now = start + Duration::from_secs(1);
        assert_eq!(sessions.who(&ids[0], now), None, "the oldest went");
        assert!(ids[1..].iter().all(|id| sessions.who(id, now).is_some()));
    }
}
