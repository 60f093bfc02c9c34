//! Creates and deletes systems. Everything is checked before the first byte is written, and a failure leaves nothing.

use crate::answer::Answer;
use crate::registry::Registry;
use crate::streams::{channel, lines};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use flipside_backend_qemu::bridge::usable;
use flipside_backend_qemu::{DiskContent, create_disk, open_system};
use flipside_config::{parse_mac, parse_network, parse_publish};
use flipside_model::api::{CreateEvent, CreateRequest, DiskSourceSpec};
use flipside_model::{
    DiskName, DiskRole, DiskSpec, Leg, LegBook, LegEntry, LegPair, LegPaths, LegRole, NetworkSpec,
    Problem, ProblemCode, Progress, Publish, SystemSpec,
};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// The smallest and the largest memory of a guest, in MiB: below, no Linux with systemd starts; above, no host.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 128..=4_194_304;

/// The largest number of virtual CPUs of the machine type.
const MAX_CPUS: u32 = 255;

/// The largest number of disks: the addresses on the disk controller of machine layout 1.
const MAX_DISKS: usize = 16;

pub(crate) async fn create(
    State(registry): State<Arc<Registry>>,
    Json(request): Json<CreateRequest>,
) -> Answer<Response> {
    let publish = check(&registry, &request).await?;
    let (sender, receiver) = channel();
    tokio::spawn(async move {
        let name = request.name.clone();
        let end = match make(&registry, request, publish, &sender).await {
            Ok(status) => CreateEvent::Done(Box::new(status)),
            Err(problem) => {
                tracing::warn!(system = %name, %problem, "not created");
                CreateEvent::Failed(problem)
            }
        };
        let _ = sender.send(end).await;
    });
    Ok(lines(receiver))
}

fn usage(message: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::Usage, message)
}

async fn check(registry: &Registry, request: &CreateRequest) -> Result<Vec<Publish>, Problem> {
    if registry.contains(&request.name).await || registry.directory(&request.name).exists() {
        return Err(Problem::new(
            ProblemCode::InUse,
            format!("there is a system `{}` already", request.name),
        )
        .advise("give the new one another name, or `flipside system delete` the old one"));
    }
    if request.system_disks.is_empty() {
        return Err(
            usage("a system needs at least one system disk").advise("`--system-disk IMAGE`")
        );
    }
    if request.system_disks.len() + request.data_disks.len() > MAX_DISKS {
        return Err(usage(format!("a system has at most {MAX_DISKS} disks")));
    }
    if !MEMORY_MIB.contains(&request.memory_mib) {
        return Err(usage(format!(
            "{} MiB of memory are out of range: 128 MiB to 4 TiB",
            request.memory_mib
        )));
    }
    if !(1..=MAX_CPUS).contains(&request.cpus) {
        return Err(usage(format!(
            "{} virtual CPUs are out of range: 1 to {MAX_CPUS}",
            request.cpus
        )));
    }
    if let Some(enclosures) = &request.enclosures {
        can_fail_apart(enclosures)?;
    }
    if let NetworkSpec::Bridge(bridge) = parse_network(&request.network)? {
        if !request.publish.is_empty() {
            return Err(usage(format!(
                "ports are not published on `bridge={bridge}`: the guest has an address of its own there"
            ))
            .advise("leave `--publish` out, or use `--network user`"));
        }
        usable(&bridge).await?;
        if let Some(mac) = &request.mac {
            mac_is_free(registry, &parse_mac(mac)?).await?;
        }
    }
    if let Some(mac) = &request.mac {
        parse_mac(mac)?;
    }
    let publish: Vec<Publish> = request
        .publish
        .iter()
        .map(|p| parse_publish(p))
        .collect::<Result<_, _>>()?;
    ports_are_free(registry, &publish).await?;
    Ok(publish)
}

/// Refuses two enclosures of which one is the other or holds it, whatever names they were given.
fn can_fail_apart(enclosures: &[PathBuf; 2]) -> Result<(), Problem> {
    let (a, b) = (resolved(&enclosures[0])?, resolved(&enclosures[1])?);
    let text = if a == b {
        format!("both enclosures are the same directory `{}`", a.display())
    } else if a.starts_with(&b) {
        format!(
            "the enclosure `{}` lies inside `{}`",
            a.display(),
            b.display()
        )
    } else if b.starts_with(&a) {
        format!(
            "the enclosure `{}` lies inside `{}`",
            b.display(),
            a.display()
        )
    } else {
        return Ok(());
    };
    Err(usage(text).advise("two failure domains need two directories, best on two devices"))
}

/// Follows the links of as much of a path as exists; the rest is yet to be made.
fn resolved(path: &Path) -> Result<PathBuf, Problem> {
    let path = absolute(path)?;
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(&path);
    let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
    let there = there
        .canonicalize()
        .map_err(|e| usage(format!("`{}` is not a usable path", path.display())).because(&e))?;
    // Joined only if there is something: a file would get a slash at its end.
    Ok(if rest.as_os_str().is_empty() {
        there
    } else {
        there.join(rest)
    })
}

/// The directories that have to be made for this one, the deepest first.
fn missing(path: &Path) -> Vec<PathBuf> {
    path.ancestors()
        .take_while(|p| !p.exists())
        .map(Path::to_owned)
        .collect()
}

/// Two systems with one address could never be on a wire together (fault 49).
async fn mac_is_free(registry: &Registry, mac: &str) -> Result<(), Problem> {
    for system in registry.list().await {
        let spec = system.spec();
        if spec.mac == mac && spec.network.bridge().is_some() {
            let text = format!("the MAC address {mac} is that of system `{}`", spec.name);
            return Err(Problem::new(ProblemCode::InUse, text)
                .about(mac)
                .advise("choose another one, or leave `--mac` out: then it is a random one"));
        }
    }
    Ok(())
}

async fn ports_are_free(registry: &Registry, publish: &[Publish]) -> Result<(), Problem> {
    for (index, port) in publish.iter().enumerate() {
        let same = |p: &Publish| (p.address, p.host_port) == (port.address, port.host_port);
        let shown = format!("{}:{}", port.address, port.host_port);
        if publish[..index].iter().any(same) {
            return Err(usage(format!("port {shown} is published twice")));
        }
        for system in registry.list().await {
            if system.spec().publish.iter().any(same) {
                let text = format!(
                    "port {shown} is published by system `{}` already",
                    system.spec().name
                );
                return Err(Problem::new(ProblemCode::InUse, text)
                    .about(shown)
                    .advise("choose another host port"));
            }
        }
        if let Err(error) = TcpListener::bind((port.address, port.host_port)) {
            return Err(Problem::new(
                ProblemCode::InUse,
                format!("port {shown} cannot be used: {error}"),
            )
            .about(shown)
            .advise("choose another host port, or end what uses it: `ss -ltnp`"));
        }
    }
    Ok(())
}

fn random_mac() -> String {
    let b = *uuid::Uuid::new_v4().as_bytes();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2])
}

async fn make(
    registry: &Registry,
    request: CreateRequest,
    publish: Vec<Publish>,
    sender: &mpsc::Sender<CreateEvent>,
) -> Result<flipside_model::Status, Problem> {
    let _one = registry.making.lock().await;
    let directory = registry.directory(&request.name);
    if directory.exists() {
        return Err(Problem::new(
            ProblemCode::InUse,
            format!("there is a system `{}` already", request.name),
        ));
    }
    let enclosures = request.enclosures.clone().unwrap_or_else(|| {
        let base = registry.state_dir().join("enclosures");
        [base.join("a"), base.join("b")]
    });
    let sources = sources(&request);
    let mut spec = SystemSpec {
        version: SystemSpec::VERSION,
        layout: SystemSpec::LAYOUT,
        name: request.name.clone(),
        uuid: uuid::Uuid::new_v4(),
        memory_mib: request.memory_mib,
        cpus: request.cpus,
        firmware: request.firmware,
        network: parse_network(&request.network)?,
        mac: match &request.mac {
            Some(mac) => parse_mac(mac)?,
            None => random_mac(),
        },
        publish,
        enclosures: enclosures.clone(),
        disks: Vec::new(),
    };
    let fresh: Vec<PathBuf> = enclosures
        .iter()
        .flat_map(|enclosure| missing(&enclosure.join(spec.name.as_str())))
        .collect();
    let made = fill(registry, &mut spec, &sources, sender).await;
    let adopted = match made {
        Ok(()) => registry.adopt(&spec).await,
        Err(problem) => Err(problem),
    };
    match adopted {
        Ok(system) => Ok(system.fresh_status().await),
        Err(problem) => {
            // Best effort on the way out of a failure, which is what the caller hears about.
            let _ = remove_files(&spec, &directory);
            for made in fresh {
                // Only if it is empty now: what another system has put there meanwhile stays.
                let _ = std::fs::remove_dir(made);
            }
            Err(problem)
        }
    }
}

fn sources(request: &CreateRequest) -> Vec<(DiskRole, DiskContent)> {
    let system = request
        .system_disks
        .iter()
        .map(|path| (DiskRole::System, DiskContent::Image(path.clone())));
    let data = request.data_disks.iter().map(|source| {
        let content = match source {
            DiskSourceSpec::Image(path) => DiskContent::Image(path.clone()),
            DiskSourceSpec::Size(bytes) => DiskContent::Blank(*bytes),
        };
        (DiskRole::Data, content)
    });
    system.chain(data).collect()
}

/// Makes the legs of every disk and the first leg book.
async fn fill(
    registry: &Registry,
    spec: &mut SystemSpec,
    sources: &[(DiskRole, DiskContent)],
    sender: &mpsc::Sender<CreateEvent>,
) -> Result<(), Problem> {
    let mut disks = BTreeMap::new();
    let mut counts: BTreeMap<DiskRole, usize> = BTreeMap::new();
    for (role, content) in sources {
        let index = counts.entry(*role).or_default();
        let name = DiskName::numbered(*role, *index);
        *index += 1;
        let leg = |enclosure: &Path| {
            enclosure
                .join(spec.name.as_str())
                .join(format!("{name}.raw"))
        };
        let legs = LegPaths {
            a: absolute(&leg(&spec.enclosures[0]))?,
            b: absolute(&leg(&spec.enclosures[1]))?,
        };
        let began = Instant::now();
        let report = |share: f64| {
            let progress = progress(&name, content, share, began);
            // A client that is slow or gone must not stop the work.
            let _ = sender.try_send(CreateEvent::Progress(progress));
        };
        let made = create_disk(content, &legs, &report).await?;
        let entry = |leg: Leg, inode| LegEntry {
            path: legs.get(leg).clone(),
            inode,
            role: LegRole::Live,
        };
        let pair = LegPair {
            a: entry(Leg::A, made.inode_a),
            b: entry(Leg::B, made.inode_b),
            authority: Leg::A,
        };
        disks.insert(name.clone(), pair);
        spec.disks.push(DiskSpec {
            name,
            role: *role,
            size: made.size,
            legs,
        });
    }
    let book = LegBook::new(disks);
    open_system(spec.clone(), registry.state_dir())?
        .legs()
        .store(&book)
        .await?;
    Ok(())
}

fn progress(name: &DiskName, content: &DiskContent, share: f64, began: Instant) -> Progress {
    let total = match content {
        DiskContent::Blank(bytes) => *bytes,
        DiskContent::Image(path) => std::fs::metadata(path).map(|m| m.len()).unwrap_or(0),
    };
    let done = (total as f64 * share.clamp(0.0, 1.0)) as u64;
    let seconds = began.elapsed().as_secs_f64();
    Progress::after(seconds, format!("Copying {name}"), done, total)
}

fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    std::path::absolute(path)
        .map_err(|e| usage(format!("`{}` is not a usable path", path.display())).because(&e))
}

/// Removes the legs and the directory of a system; only what flipside itself made.
pub(crate) fn remove_files(spec: &SystemSpec, directory: &Path) -> Result<(), Problem> {
    let failed = |path: &Path, e: &std::io::Error| {
        Problem::new(
            ProblemCode::Failed,
            format!("cannot remove `{}`", path.display()),
        )
        .because(e)
    };
    for disk in &spec.disks {
        for leg in [&disk.legs.a, &disk.legs.b] {
            match std::fs::remove_file(leg) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(leg, &e)),
            }
        }
    }
    for enclosure in &spec.enclosures {
        // Only if it is empty now: somebody else's files stay.
        let _ = std::fs::remove_dir(enclosure.join(spec.name.as_str()));
    }
    match std::fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(directory, &e)),
    }
}
