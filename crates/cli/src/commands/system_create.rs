//! `flipside system create`.

use crate::context::Context;
use crate::failure::Failure;
use crate::follow::ended;
use crate::live::Live;
use crate::report;
use flipside_config::{parse_mac, parse_network, parse_publish, parse_size};
use flipside_model::api::{CreateEvent, CreateRequest, DiskSourceSpec};
use flipside_model::{Firmware, Problem, SystemName};
use std::path::{Path, PathBuf};

const LONG: &str = "\
Creates a system: a virtual machine with every internal disk mirrored on two legs, one in each enclosure.

System disks are made from images (raw or qcow2, copied); data disks from images, or empty by size. The image boots \
with its own boot loader, so that a new kernel installed later is the one that boots.";

const EXAMPLES: &str = "\
Examples:
  flipside system create web --system-disk debian.qcow2 --data-disk 8G --publish 8080:80
  flipside system create db --system-disk db.raw --memory 4G --cpus 2 \\
      --enclosure /mnt/ssd1/db --enclosure /mnt/ssd2/db --publish 0.0.0.0:5432:5432
  flipside system create shop --system-disk shop.qcow2 --data-disk 20G --network bridge=br0";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Name of the new system
    name: SystemName,
    /// Image of a system disk; repeat it for more
    #[arg(long, value_name = "IMAGE", required = true)]
    system_disk: Vec<PathBuf>,
    /// Size such as 8G, or image of a data disk (a file called like a size: ./8G); repeat it for more
    #[arg(long, value_name = "SIZE|IMAGE")]
    data_disk: Vec<PathBuf>,
    /// Memory
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = told(parse_size))]
    memory: u64,
    /// Number of virtual CPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// Directory of legs A, then directory of legs B; give it twice, for two failure domains
    #[arg(long, value_name = "DIR")]
    enclosure: Vec<PathBuf>,
    /// Production network: `user`, or a bridge of the host, which needs root or CAP_NET_ADMIN in the server
    #[arg(long, value_name = "user|bridge=BR", default_value = "user")]
    network: String,
    /// MAC address of the production card [default: a random one]
    #[arg(long, value_parser = told(parse_mac))]
    mac: Option<String>,
    /// Publish a port of the guest on the host: `[ADDR:]HOSTPORT:GUESTPORT`; repeat it for more
    #[arg(long, value_name = "[ADDR:]HOSTPORT:GUESTPORT")]
    publish: Vec<String>,
    /// Firmware
    #[arg(long, default_value = "bios")]
    firmware: FirmwareArg,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FirmwareArg {
    /// SeaBIOS
    Bios,
    /// OVMF
    Uefi,
}

/// Lets clap report a refused value with its advice.
fn told<T>(
    parse: impl Fn(&str) -> Result<T, Problem> + Clone,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |given| {
        parse(given).map_err(|problem| match &problem.advice {
            Some(advice) => format!("{problem}: {advice}"),
            None => problem.to_string(),
        })
    }
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let request = request(args)?;
    let live = Live::new(ctx.json, ctx.color);
    let mut events = ctx.client.post_watch("/v1/systems", &request).await?;
    loop {
        match events.next().await? {
            Some(CreateEvent::Progress(progress)) => live.progress(&progress),
            Some(CreateEvent::Failed(problem)) => return Err(problem.into()),
            Some(CreateEvent::Done(status)) => {
                drop(live);
                if ctx.json {
                    return ctx.object(&*status);
                }
                return ctx.line(&format!(
                    "`{}` was created: {}. Next: `flipside system start {}`",
                    status.system,
                    report::status_bar(&status),
                    status.system
                ));
            }
            None => return Err(ended()),
        }
    }
}

fn request(args: Args) -> Result<CreateRequest, Failure> {
    parse_network(&args.network)?;
    for port in &args.publish {
        parse_publish(port)?;
    }
    let mib = 1 << 20;
    if !args.memory.is_multiple_of(mib) {
        return Err(Failure::usage("`--memory` must be a whole number of MiB"));
    }
    let memory_mib = u32::try_from(args.memory / mib)
        .map_err(|_| Failure::usage("`--memory` is more than any machine has"))?;
    let mut enclosures = Vec::new();
    for dir in &args.enclosure {
        enclosures.push(absolute(dir)?);
    }
    let enclosures = match <[PathBuf; 2]>::try_from(enclosures) {
        Ok(both) if both[0] == both[1] => {
            return Err(Failure::usage("both enclosures are the same directory")
                .advise("two failure domains need two directories, best on two devices"));
        }
        Ok(both) => Some(both),
        Err(none) if none.is_empty() => None,
        Err(_) => {
            return Err(Failure::usage(
                "`--enclosure` is given twice, for the legs A and the legs B, or not at all",
            ));
        }
    };
    let mut data_disks = Vec::new();
    for disk in &args.data_disk {
        let size = disk.to_str().map(parse_size);
        data_disks.push(match size {
            Some(Ok(bytes)) => DiskSourceSpec::Size(bytes),
            // What begins with a digit and is no file was meant as a size.
            Some(Err(problem)) if begins_with_digit(disk) && !disk.exists() => {
                return Err(problem.into());
            }
            _ => DiskSourceSpec::Image(image(disk)?),
        });
    }
    let mut system_disks = Vec::new();
    for disk in &args.system_disk {
        system_disks.push(image(disk)?);
    }
    Ok(CreateRequest {
        name: args.name,
        system_disks,
        data_disks,
        memory_mib,
        cpus: args.cpus,
        enclosures,
        network: args.network,
        mac: args.mac,
        publish: args.publish,
        firmware: match args.firmware {
            FirmwareArg::Bios => Firmware::Bios,
            FirmwareArg::Uefi => Firmware::Uefi,
        },
    })
}

fn begins_with_digit(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit()))
}

/// The server may run in another directory, so it is told whole paths.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("`{}`: {error}", path.display())))
}

fn image(path: &Path) -> Result<PathBuf, Failure> {
    // Only what is plainly missing is refused here; whether it is an image is for the server to say.
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::usage(format!(
            "the image `{}` does not exist",
            path.display()
        ))),
        _ => absolute(path),
    }
}
