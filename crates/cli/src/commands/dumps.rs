//! `flipside dumps`: what was saved of crashes (AB-11).

use crate::context::Context;
use crate::failure::Failure;
use crate::report::columns;
use flipside_activity::{clean, size};
use flipside_model::{Dump, SystemName};

const LONG: &str = "\
Lists the dump files: the memory of an Upgrade Side whose operating system crashed (MemoryN.dmp), and the crash files that \
were collected from it at an abort (CrashN-NAME). The ten newest are kept.

With --take the memory of the Upgrade Side is saved now, such as of one that hangs; it stands still meanwhile.";

const EXAMPLES: &str = "\
Examples:
  flipside dumps web
  flipside dumps web --take
  flipside dumps web --json | jq -r .path";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Save the memory of the Upgrade Side now
    #[arg(long)]
    take: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let path = format!("/v1/systems/{system}/dumps");
    let dumps: Vec<Dump> = if args.take {
        vec![ctx.client.post(&path, &serde_json::json!({})).await?]
    } else {
        ctx.client.get(&path).await?
    };
    if ctx.json {
        return dumps.iter().try_for_each(|dump| ctx.object(dump));
    }
    if dumps.is_empty() {
        return ctx.line("no dump files are kept");
    }
    ctx.line(&columns(&dumps.iter().map(row).collect::<Vec<_>>()))
}

fn row(dump: &Dump) -> [String; 3] {
    let at = jiff::Timestamp::from_millisecond(dump.at_ms).unwrap_or_default();
    let at = at.to_zoned(jiff::tz::TimeZone::system());
    [
        at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        size(dump.bytes),
        clean(&dump.path.to_string_lossy()),
    ]
}
