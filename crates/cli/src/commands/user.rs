//! `flipside user`: who may log in to the web console.

use crate::context::Context;
use crate::failure::Failure;
use crate::report::columns;
use flipside_model::SystemName;
use flipside_model::api::{ConsoleUser, ConsoleUserRequest};
use std::io::Read as _;

const SET: &str = "\
Adds a user of the web console, or gives one another password and role. The password is read from standard input: one line \
of 12 to 256 bytes. Whoever is logged in under that name logs in again.

At its first start the server makes the user `admin` with a random password, which is in a file of the state directory that \
only its owner can read: console/first-password.";

const EXAMPLES: &str = "\
Examples:
  flipside user set ada --role operator < password-file
  systemd-ask-password | flipside user set eve --role viewer";

/// What to do with users.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Add a user, or give one another password and role
    Set(SetArgs),
    /// List the users
    List,
    /// Remove a user
    Remove(RemoveArgs),
}

#[derive(Debug, clap::Args)]
#[command(long_about = SET, after_help = EXAMPLES)]
pub(crate) struct SetArgs {
    /// Name of the user
    user: SystemName,
    /// What the user may do: a viewer looks, an operator does everything that the command line can do
    #[arg(long, value_name = "ROLE", default_value = "operator")]
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Viewer,
    Operator,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Name of the user
    user: SystemName,
}

/// More than any password has; the server says which lengths it takes.
const MOST: u64 = 4096;

pub(crate) async fn run(ctx: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Set(args) => {
            let mut password = String::new();
            std::io::stdin().take(MOST).read_to_string(&mut password)?;
            let body = ConsoleUserRequest {
                operator: args.role == Role::Operator,
                password: password.trim_end_matches(['\r', '\n']).to_owned(),
            };
            let path = format!("/v1/console/users/{}", args.user);
            ctx.client.put(&path, &body).await?;
            ctx.say(&format!("`{}` may log in to the console", args.user))
        }
        Command::List => {
            let users: Vec<ConsoleUser> = ctx.client.get("/v1/console/users").await?;
            if ctx.json {
                return users.iter().try_for_each(|user| ctx.object(user));
            }
            let role = |user: &ConsoleUser| if user.operator { "operator" } else { "viewer" };
            let rows = users.iter().map(|u| [u.name.clone(), role(u).to_owned()]);
            ctx.line(&columns(&rows.collect::<Vec<_>>()))
        }
        Command::Remove(args) => {
            let path = format!("/v1/console/users/{}", args.user);
            ctx.client.delete(&path).await?;
            ctx.say(&format!("`{}` may not log in any more", args.user))
        }
    }
}
