//! `flipside logs`: the logs that a side has, to choose from for log backup (LB-01).

use super::SideArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::report::columns;
use flipside_activity::{clean, size};
use flipside_model::{LogSource, SystemName};

const LONG: &str = "\
Lists the logs that the guest has: its journals, and what lies under /var/log. What stands in the column LOG is written \
into `logs` of `[log_backup]` in a configuration file; any other file or directory may be named there as well. In the \
merge flipside copies what they got since the split from the Production Side, because a commit overwrites it.";

const EXAMPLES: &str = "\
Examples:
  flipside logs web
  flipside logs web --side upgrade --json";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Which side [default: production]
    #[arg(long)]
    side: Option<SideArg>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let side = args.side.unwrap_or(SideArg::Production);
    let path = format!("/v1/systems/{system}/logs?side={}", side.query());
    let logs: Vec<LogSource> = ctx.client.get(&path).await?;
    if ctx.json {
        return ctx.object(&serde_json::json!({ "side": side.query(), "logs": logs }));
    }
    if logs.is_empty() {
        return ctx.line("the guest has no logs");
    }
    let mut rows = vec![["LOG", "KIND", "SIZE"].map(str::to_owned)];
    rows.extend(logs.iter().map(|log| {
        [
            clean(&log.log.to_string()),
            clean(&log.kind),
            size(log.bytes),
        ]
    }));
    ctx.line(&columns(&rows))
}
