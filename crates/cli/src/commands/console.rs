//! `flipside console`: the serial console of a side.

use super::SideArg;
use crate::client::{checked, empty, request};
use crate::context::Context;
use crate::failure::Failure;
use crate::{side_banner, terminal, url};
use flipside_activity::clean_lines;
use flipside_model::SystemName;
use http_body_util::BodyExt as _;
use hyper::Method;

const LONG: &str = "\
Opens the serial console of a side: what the boot loader, the kernel and the login on `ttyS0` show and take. It works \
without an operating system that answers, and stays connected while the side restarts.

Without --side it is the Upgrade Side in Split, and in Idle the system. '~.' at the start of a line ends it. With --tail \
it prints what the console showed last: the way to find out why a side does not boot.";

const EXAMPLES: &str = "\
Examples:
  flipside console web
  flipside console web --tail | less
  flipside console web --side production";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Side; without it the Upgrade Side in Split, in Idle the system
    #[arg(long)]
    side: Option<SideArg>,
    /// Print the end of what it showed, so many KiB, and return
    #[arg(long, value_name = "KIB", num_args = 0..=1, default_missing_value = "16",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    tail: Option<u32>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let base = format!("/v1/systems/{system}/console");
    let side = |uri: &mut String| {
        if let Some(side) = args.side {
            url::add(uri, "side", side.query());
        }
    };
    if let Some(kib) = args.tail {
        let mut uri = format!("{base}/tail");
        side(&mut uri);
        url::add(&mut uri, "bytes", &(u64::from(kib) << 10).to_string());
        return tail(ctx, &uri).await;
    }
    let status = ctx.status(&system).await?;
    let meant = side_banner::meant(&status, args.side.map(SideArg::side));
    let mut uri = base;
    side(&mut uri);
    terminal::connect(ctx, &uri, (&status, meant), "flipside-console", "console").await
}

/// The guest's own bytes: what could move the cursor is not printed as it is.
async fn tail(ctx: &Context, uri: &str) -> Result<(), Failure> {
    let response = ctx.client.send(request(Method::GET, uri, empty())?).await?;
    let body = checked(response).await?.collect().await;
    let bytes = body
        .map_err(|error| {
            Failure::failed(format!("the connection to the server was lost: {error}"))
        })?
        .to_bytes();
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    if ctx.json {
        return ctx.object(&serde_json::json!({ "console": text }));
    }
    clean_lines(&text)
        .into_iter()
        .try_for_each(|line| ctx.line(&line))
}
