//! `flipside media`: the CD drive.

use super::SideArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::url;
use flipside_activity::clean;
use flipside_model::api::{MediaRequest, MediumStatus};
use flipside_model::{Problem, ProblemCode, SystemName};
use std::path::{Path, PathBuf};

const LONG: &str = "\
Puts the image of a CD or DVD into the drive, read-only, or empties it: in Idle that of the system, in Split that of the \
Upgrade Side. A restart of the guest or of the system keeps what is in it.

The Upgrade Side begins with an empty drive: unmount a disc before the split. Merge, commit and abort leave the drives \
alone.";

const EXAMPLES: &str = "\
Examples:
  flipside media insert debian-12.iso web
  flipside run web -- mount -o ro /dev/sr0 /mnt
  flipside media eject web
  flipside media show web";

/// The CD drive.
#[derive(Debug, clap::Subcommand)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Put an image into the drive
    Insert {
        /// Image of a CD or DVD (ISO 9660 or UDF)
        image: PathBuf,
        #[command(flatten)]
        drive: Drive,
        /// Also when the guest uses the one that is in it
        #[arg(long)]
        force: bool,
    },
    /// Empty the drive
    Eject {
        #[command(flatten)]
        drive: Drive,
        /// Also when the guest uses it, as pulling it out would
        #[arg(long)]
        force: bool,
    },
    /// Say what is in the drive
    Show {
        #[command(flatten)]
        drive: Drive,
    },
}

/// Which drive.
#[derive(Debug, clap::Args)]
pub(crate) struct Drive {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Side; without it the Upgrade Side in Split, in Idle the system
    #[arg(long)]
    side: Option<SideArg>,
}

pub(crate) async fn run(ctx: &Context, command: Command) -> Result<(), Failure> {
    let (drive, image, force) = match command {
        Command::Show { drive } => return show(ctx, &drive).await,
        Command::Insert {
            image,
            drive,
            force,
        } => (drive, Some(whole(&image)?), force),
        Command::Eject { drive, force } => (drive, None, force),
    };
    let system = ctx.system(drive.system.as_ref()).await?;
    let path = format!("/v1/systems/{system}/media");
    let request = MediaRequest {
        side: drive.side.map(SideArg::side),
        image,
        force,
    };
    say(ctx, &ctx.client.post(&path, &request).await?)
}

async fn show(ctx: &Context, drive: &Drive) -> Result<(), Failure> {
    let system = ctx.system(drive.system.as_ref()).await?;
    let mut uri = format!("/v1/systems/{system}/media");
    if let Some(side) = drive.side {
        url::add(&mut uri, "side", side.query());
    }
    say(ctx, &ctx.client.get(&uri).await?)
}

fn say(ctx: &Context, medium: &MediumStatus) -> Result<(), Failure> {
    if ctx.json {
        return ctx.object(medium);
    }
    let used = if medium.locked {
        " (in use by the guest)"
    } else {
        ""
    };
    ctx.line(&match &medium.image {
        Some(image) => format!(
            "CD drive of the {}: {}{used}",
            medium.side,
            clean(&image.to_string_lossy())
        ),
        None => format!("CD drive of the {}: empty", medium.side),
    })
}

/// The server opens the file, so it needs the whole path.
fn whole(image: &Path) -> Result<PathBuf, Failure> {
    image.canonicalize().map_err(|error| {
        Problem::new(
            ProblemCode::Usage,
            format!("the image `{}` cannot be found", image.display()),
        )
        .because(&error)
        .advise("name a file on the machine that the server runs on")
        .into()
    })
}
