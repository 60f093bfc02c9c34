//! Who may log in: local users in one private file, and a first one whose password the server makes.

use super::sessions::{Role, Who, random};
use anyhow::{Context, bail};
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use flipside_model::{Problem, ProblemCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The file of users within the console's directory, and the one with the first password.
const USERS: &str = "users.json";
const SECRET: &str = "first-password";

/// The first user.
pub(crate) const FIRST: &str = "admin";

/// The file of a few hundred users is far below this.
const LARGEST: u64 = 256 << 10;

/// Bytes of the first password: 128 bits.
const SECRET_BYTES: usize = 16;

/// Verified for a user that does not exist, so that both take the same time; of the same costs as ours, and of no password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Bytes of salt, as the standard of argon2 recommends.
const SALT_BYTES: usize = 16;

/// The shortest and the longest password that is taken: shorter ones are guessed, longer ones only cost time.
pub(crate) const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 12..=256;

/// A user as the file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    role: Role,
    /// In the format of PHC, with its own salt.
    hash: String,
}

type Users = BTreeMap<String, User>;

/// The users of the console.
pub(crate) struct Accounts {
    directory: PathBuf,
}

fn hash(password: &str) -> anyhow::Result<String> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| anyhow::anyhow!("{error}"))?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hash
        .map_err(|error| anyhow::anyhow!("the password cannot be hashed: {error}"))?
        .to_string())
}

impl Accounts {
    /// Opens the users; makes the first one when there are none, with a password in a file that only our user may read.
    pub(crate) fn open(state_dir: &Path) -> anyhow::Result<Self> {
        let directory = state_dir.join("console");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot create `{}`", directory.display()))?;
        crate::private::check_dir(&directory)
            .with_context(|| format!("`{}` is refused", directory.display()))?;
        let accounts = Self { directory };
        if accounts.read()?.is_empty() {
            let password = random(SECRET_BYTES)?;
            accounts.write_file(SECRET, &format!("{password}\n"))?;
            let user = User {
                role: Role::Operator,
                hash: hash(&password)?,
            };
            accounts.write(&Users::from([(FIRST.to_owned(), user)]))?;
        }
        Ok(accounts)
    }

    /// Returns the file with the first password, as long as it is there.
    pub(crate) fn first_password(&self) -> Option<PathBuf> {
        let path = self.directory.join(SECRET);
        path.is_file().then_some(path)
    }

    /// Checks a password. Whether the name or the password is wrong is not told, neither by words nor by time.
    pub(crate) fn check(&self, name: &str, password: &str) -> anyhow::Result<Option<Who>> {
        let users = self.read()?;
        let user = users.get(name);
        let known = user.map_or(NOBODY, |user| &user.hash);
        let parsed = PasswordHash::new(known)
            .map_err(|error| anyhow::anyhow!("a hash of `{USERS}` cannot be read: {error}"))?;
        let fits = Argon2::default()
            .verify_password(password.as_bytes(), &parsed)
            .is_ok();
        Ok(user.filter(|_| fits).map(|user| Who {
            name: name.to_owned(),
            role: user.role,
        }))
    }

    /// Lists the users.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<Who>> {
        let users = self.read()?.into_iter();
        Ok(users
            .map(|(name, user)| Who {
                name,
                role: user.role,
            })
            .collect())
    }

    /// Adds a user, or gives one a new password and role.
    pub(crate) fn set(&self, name: &str, role: Role, password: &str) -> Result<(), Problem> {
        check_name(name)?;
        if !PASSWORD_LENGTH.contains(&password.len()) || password.contains(['\n', '\0']) {
            let message = format!(
                "a password has {} to {} bytes in one line",
                PASSWORD_LENGTH.start(),
                PASSWORD_LENGTH.end()
            );
            return Err(Problem::new(ProblemCode::Usage, message));
        }
        let user = User {
            role,
            hash: hash(password).map_err(internal)?,
        };
        let mut users = self.read().map_err(internal)?;
        users.insert(name.to_owned(), user);
        self.store(&users)?;
        if name == FIRST {
            // The first password is not valid any more.
            let _ = fs::remove_file(self.directory.join(SECRET));
        }
        Ok(())
    }

    /// Removes a user; the last operator stays.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Problem> {
        let mut users = self.read().map_err(internal)?;
        if users.remove(name).is_none() {
            let message = format!("there is no user `{}`", name.escape_debug());
            return Err(Problem::new(ProblemCode::NotFound, message));
        }
        if !users.values().any(|user| user.role == Role::Operator) {
            let message = format!("`{name}` is the last operator");
            return Err(Problem::new(ProblemCode::Refused, message)
                .advise("add another one first: `flipside user set NAME --role operator`"));
        }
        self.store(&users)
    }

    fn store(&self, users: &Users) -> Result<(), Problem> {
        self.write(users).map_err(internal)
    }

    fn read(&self) -> anyhow::Result<Users> {
        let path = self.directory.join(USERS);
        if path.symlink_metadata().is_err() {
            return Ok(Users::new());
        }
        let text = crate::private::read(&path, LARGEST)
            .with_context(|| format!("the users in `{}` cannot be read", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("the users in `{}` cannot be read", path.display()))
    }

    fn write(&self, users: &Users) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(users).context("users cannot be written")?;
        self.write_file(USERS, &(text + "\n"))
    }

    /// Replaces a file in one step; nobody else can read it at any moment.
    pub(crate) fn write_file(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, new) = (
            self.directory.join(name),
            self.directory.join(format!("{name}.tmp")),
        );
        let failed = || format!("cannot write `{}`", path.display());
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                bail!("{}: {error}", failed())
            }
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| fs::File::open(&self.directory)?.sync_all())
            .with_context(failed)
    }
}

fn internal(error: anyhow::Error) -> Problem {
    Problem::new(ProblemCode::Internal, format!("{error:#}"))
}

/// Names of users are those of systems: nothing in them can be taken for anything else.
fn check_name(name: &str) -> Result<(), Problem> {
    flipside_model::SystemName::new(name)
        .map(drop)
        .map_err(|error| {
            let message = format!("`{}` is no name of a user", name.escape_debug());
            Problem::new(ProblemCode::Usage, message).because(&error)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const LONG: &str = "correct horse battery";

    fn opened() -> (tempfile::TempDir, Accounts) {
        let directory = tempfile::tempdir().expect("directory");
        let accounts = Accounts::open(directory.path()).expect("opens");
        (directory, accounts)
    }

    // Security 6: no default password; the first one is random, and in a file of ours alone.
    #[test]
    fn the_first_password_is_random_private_and_kept_over_restarts() {
        let (directory, accounts) = opened();
        let path = accounts.first_password().expect("a file");
        assert_eq!(
            fs::metadata(&path).expect("file").permissions().mode() & 0o777,
            0o600
        );
        let text = fs::read_to_string(&path).expect("text");
        let password = text.trim();
        assert_eq!(password.len(), 2 * SECRET_BYTES);
        let again = Accounts::open(directory.path()).expect("opens");
        assert_eq!(fs::read_to_string(&path).expect("text"), text);
        let who = again
            .check(FIRST, password)
            .expect("checked")
            .expect("fits");
        assert_eq!(who.role, Role::Operator);
        let (_other, others) = opened();
        assert_eq!(others.check(FIRST, password).expect("checked"), None);
    }

    // Security 7.
    #[test]
    fn only_the_password_of_the_user_fits() {
        let (directory, accounts) = opened();
        accounts.set("ada", Role::Viewer, LONG).expect("set");
        assert!(accounts.check("ada", LONG).expect("checked").is_some());
        for (name, password) in [
            ("ada", ""),
            ("ada", "x"),
            ("Ada", LONG),
            ("", LONG),
            (FIRST, LONG),
        ] {
            assert_eq!(
                accounts.check(name, password).expect("checked"),
                None,
                "{name}"
            );
        }
        let file = fs::read_to_string(directory.path().join("console/users.json")).expect("file");
        let costs = NOBODY.split('$').nth(3).expect("costs");
        assert!(file.contains(costs), "somebody and nobody cost the same");
        assert!(
            file.contains("$argon2id$") && !file.contains(LONG),
            "{file}"
        );
    }

    #[test]
    fn a_new_password_of_the_first_user_ends_the_first_password() {
        let (_directory, accounts) = opened();
        accounts.set(FIRST, Role::Operator, LONG).expect("set");
        assert_eq!(accounts.first_password(), None);
    }

    #[test]
    fn what_is_no_name_or_no_password_is_refused_and_an_operator_stays() {
        let (_directory, accounts) = opened();
        for (name, password) in [
            ("../x", LONG),
            ("-a", LONG),
            ("ada", "short"),
            ("ada", "long enough\nbut"),
        ] {
            assert!(
                accounts.set(name, Role::Viewer, password).is_err(),
                "{name}"
            );
        }
        accounts.set("ada", Role::Viewer, LONG).expect("set");
        assert_eq!(
            accounts.remove(FIRST).expect_err("the last").code,
            ProblemCode::Refused
        );
        accounts.remove("ada").expect("removed");
        assert_eq!(
            accounts.remove("ada").expect_err("gone").code,
            ProblemCode::NotFound
        );
    }
}
