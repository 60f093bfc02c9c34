//! What a Windows guest says through the QEMU guest agent: its services, their startup types, its programs and its
//! disks, and how services are stopped and started.
//!
//! **Not chosen for any guest yet.** Holding services over restarts, closing data volumes and the rest of the guest port
//! are not written for Windows, so a Windows guest cannot be split; this is the part that could be written against
//! answers of the agent. The answers in `fixtures/` were written by hand from Microsoft's documentation of the cmdlets
//! and of `ConvertTo-Json`: they were **not recorded from a real Windows**.
//!
//! Every question is one run of PowerShell that prints JSON. Values go in as JSON on its standard input, and never
//! into the text of a script.

use super::escape::words;
use flipside_model::{
    DeviceKind, GuestDevice, GuestMount, GuestSwap, Inventory, MAX_DEVICES, Package, StartupType,
};
use flipside_platform::{ListedService, PortError, PortErrorKind, PortResult};
use flipside_qmp::{AgentClient, Exec, OsInfo};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// PowerShell takes seconds to start under load; its answers come at once after that.
const ANSWER: Duration = Duration::from_secs(60);

/// The most services and programs that are read; a server has a few hundred of either.
const LISTED: usize = 4096;

/// Errors end a script with a status, and output is UTF-8 whatever the guest's language is.
const PROLOGUE: &str =
    "$ErrorActionPreference='Stop';[Console]::OutputEncoding=[Text.UTF8Encoding]::new($false);";

const SERVICES: &str = "ConvertTo-Json -Compress @(Get-CimInstance Win32_Service|Select-Object Name,DisplayName,State,StartMode,DelayedAutoStart)";
const PROGRAMS: &str = "ConvertTo-Json -Compress @(Get-ItemProperty -ErrorAction SilentlyContinue HKLM:\\Software\\Microsoft\\Windows\\CurrentVersion\\Uninstall\\*,HKLM:\\Software\\WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall\\*|Where-Object DisplayName|Select-Object DisplayName,DisplayVersion)";
const DISKS: &str = "ConvertTo-Json -Compress -Depth 4 @{disks=@(Get-Disk|Select-Object Number,SerialNumber,Size);partitions=@(Get-Partition|Select-Object DiskNumber,PartitionNumber,Offset,Size,GptType,AccessPaths);volumes=@(Get-Volume|Select-Object Path,FileSystemLabel,FileSystem);paging=@(Get-CimInstance Win32_PageFileUsage|Select-Object Name,AllocatedBaseSize)}";
const STOP: &str =
    "[Console]::In.ReadToEnd()|ConvertFrom-Json|ForEach-Object{Stop-Service -Name $_ -Force}";
const START: &str =
    "[Console]::In.ReadToEnd()|ConvertFrom-Json|ForEach-Object{Start-Service -Name $_}";

/// Says whether an answer to `guest-get-osinfo` is a Windows guest's.
pub fn is_windows(info: &OsInfo) -> bool {
    info.id.as_deref() == Some("mswindows")
}

/// Says which services there are, by name.
pub async fn services(client: &AgentClient) -> PortResult<Vec<ListedService>> {
    Ok(read_services(&ask(client, SERVICES, &[]).await?))
}

/// Says which programs are installed, by name.
pub async fn programs(client: &AgentClient) -> PortResult<Vec<Package>> {
    Ok(read_programs(&ask(client, PROGRAMS, &[]).await?))
}

/// Says which disks, partitions, volumes and paging files there are.
pub async fn inventory(client: &AgentClient) -> PortResult<Inventory> {
    Ok(read_disks(&ask(client, DISKS, &[]).await?))
}

/// Stops services and those that depend on them, in reverse order.
pub async fn stop(client: &AgentClient, units: &[String]) -> PortResult<()> {
    let reversed: Vec<String> = units.iter().rev().cloned().collect();
    ask(client, STOP, &reversed).await.map(drop)
}

/// Starts services in order.
pub async fn start(client: &AgentClient, units: &[String]) -> PortResult<()> {
    ask(client, START, units).await.map(drop)
}

/// The command of a script: the text is fixed, the names are data.
fn command(script: &str, units: &[String]) -> Exec {
    let text = format!("{PROLOGUE}{script}");
    let mut exec = Exec::new(
        "powershell.exe",
        ["-NoProfile", "-NonInteractive", "-Command", &text].map(str::to_owned),
    );
    let names = serde_json::Value::from(units.to_vec()).to_string();
    exec.input = Some(names.into_bytes());
    exec
}

async fn ask(client: &AgentClient, script: &str, units: &[String]) -> PortResult<Vec<u8>> {
    let failed = |why: String| {
        PortError::new(PortErrorKind::Failed, "PowerShell in the guest failed").advise(why)
    };
    let exec = command(script, units);
    let status = client.exec_wait(&exec, ANSWER).await;
    let status = status.map_err(|error| failed(words(error.to_string().as_bytes())))?;
    if status.success() && !status.out_truncated {
        return Ok(status.out);
    }
    Err(failed(words(&status.err)))
}

/// Reads JSON; a byte order mark before it is Windows' habit. What is no JSON is nothing.
fn json<T: DeserializeOwned + Default>(bytes: &[u8]) -> T {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes).unwrap_or_default()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    name: String,
    display_name: Option<String>,
    state: Option<String>,
    start_mode: Option<String>,
    delayed_auto_start: Option<bool>,
}

fn line(text: &str) -> String {
    const LONGEST: usize = 255;
    let clean = words(text.as_bytes());
    clean
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
}

/// Reads the list of services; startup types are spelled as the Services console spells them.
pub fn read_services(bytes: &[u8]) -> Vec<ListedService> {
    let told: Vec<Service> = json(bytes);
    let listed = |service: Service| {
        let delayed = service.delayed_auto_start == Some(true);
        let startup = match service.start_mode.as_deref().unwrap_or_default() {
            "Auto" if delayed => "Automatic (Delayed Start)".to_owned(),
            "Auto" => "Automatic".to_owned(),
            other => line(other),
        };
        ListedService {
            unit: line(&service.name),
            description: line(&service.display_name.unwrap_or_default()),
            active: service.state.as_deref() == Some("Running"),
            startup: StartupType(startup),
        }
    };
    let mut all: Vec<ListedService> = told.into_iter().take(LISTED).map(listed).collect();
    all.retain(|s| !s.unit.is_empty());
    all.sort_by(|a, b| a.unit.cmp(&b.unit));
    all.dedup_by(|a, b| a.unit == b.unit);
    all
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Program {
    display_name: Option<String>,
    display_version: Option<String>,
}

/// Reads the list of programs; one without a version has an empty one.
pub fn read_programs(bytes: &[u8]) -> Vec<Package> {
    let told: Vec<Program> = json(bytes);
    let named = |program: Program| {
        let name = line(program.display_name.as_deref()?);
        let version = line(program.display_version.as_deref().unwrap_or_default());
        (!name.is_empty()).then_some(Package { name, version })
    };
    let mut all: Vec<Package> = told.into_iter().take(LISTED).filter_map(named).collect();
    all.sort();
    all.dedup();
    all
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    disks: Vec<Disk>,
    partitions: Vec<Partition>,
    volumes: Vec<Held>,
    paging: Vec<Paging>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Disk {
    number: u32,
    serial_number: Option<String>,
    size: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Partition {
    disk_number: u32,
    partition_number: u32,
    offset: u64,
    size: u64,
    gpt_type: Option<String>,
    access_paths: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Held {
    path: Option<String>,
    file_system_label: Option<String>,
    file_system: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Paging {
    name: String,
    /// In MiB.
    allocated_base_size: u64,
}

/// Reads disks, partitions, volumes and paging files. Spanned (dynamic) volumes are not told apart: Windows calls their
/// partitions by the disk only.
pub fn read_disks(bytes: &[u8]) -> Inventory {
    let told: Told = json(bytes);
    let mut found = Inventory::default();
    for disk in told.disks.iter().take(MAX_DEVICES / 2) {
        let serial = disk.serial_number.as_deref().map(|s| line(s.trim()));
        let name = format!("disk{}", disk.number);
        add(
            &mut found,
            device(name, DeviceKind::Disk, disk.size, serial),
        );
    }
    for partition in told.partitions.iter().take(MAX_DEVICES / 2) {
        let below = format!("disk{}", partition.disk_number);
        if found.device(&below).is_none() {
            continue;
        }
        let name = format!("{below}p{}", partition.partition_number);
        let paths = partition.access_paths.iter().flatten();
        let (volumes, targets): (Vec<&String>, Vec<&String>) =
            paths.partition(|path| path.starts_with("\\\\?\\Volume"));
        let held = told
            .volumes
            .iter()
            .find(|v| volumes.iter().any(|p| v.path.as_ref() == Some(*p)));
        let text = |text: Option<&String>| text.filter(|t| !t.is_empty()).map(|t| line(t));
        let made = GuestDevice {
            start: Some(partition.offset),
            below: vec![below],
            format: text(held.and_then(|h| h.file_system.as_ref())),
            label: text(held.and_then(|h| h.file_system_label.as_ref())),
            part_type: text(partition.gpt_type.as_ref()),
            ..device(name.clone(), DeviceKind::Partition, partition.size, None)
        };
        let format = made.format.clone().unwrap_or_default();
        if !add(&mut found, made) {
            continue;
        }
        let mounts = targets.iter().take(MAX_DEVICES).map(|target| GuestMount {
            target: line(target),
            format: format.clone(),
            source: volumes.first().map_or_else(String::new, |v| line(v)),
            device: Some(name.clone()),
        });
        found.mounts.extend(mounts);
    }
    found.swaps = told
        .paging
        .iter()
        .take(MAX_DEVICES)
        .map(|p| paging(p, &found))
        .collect();
    found
}

fn add(found: &mut Inventory, device: GuestDevice) -> bool {
    let new = found.device(&device.name).is_none();
    if new {
        found.devices.push(device);
    }
    new
}

fn device(name: String, kind: DeviceKind, size: u64, serial: Option<String>) -> GuestDevice {
    GuestDevice {
        name,
        kind,
        title: None,
        size,
        start: None,
        below: Vec::new(),
        serial: serial.filter(|s| !s.is_empty()),
        format: None,
        label: None,
        uuid: None,
        group: None,
        part_type: None,
    }
}

/// A paging file lies on the volume with the longest path above it; Windows does not tell capitals apart.
fn paging(told: &Paging, found: &Inventory) -> GuestSwap {
    let path = line(&told.name);
    let lower = path.to_lowercase();
    let above = |m: &&GuestMount| lower.starts_with(&m.target.to_lowercase());
    let mount = found
        .mounts
        .iter()
        .filter(above)
        .max_by_key(|m| m.target.len());
    GuestSwap {
        path,
        file: true,
        size: told.allocated_base_size.saturating_mul(1 << 20),
        device: mount.and_then(|m| m.device.clone()),
        mount: mount.map(|m| m.target.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_their_startup_types() {
        let all = read_services(include_bytes!("fixtures/services.json"));
        let told: Vec<(&str, bool, &str)> = all
            .iter()
            .map(|s| (s.unit.as_str(), s.active, s.startup.0.as_str()))
            .collect();
        let expected = [
            ("MSSQLSERVER", true, "Automatic"),
            ("QEMU-GA", true, "Automatic"),
            ("Spooler", false, "Disabled"),
            ("W32Time", false, "Manual"),
            ("wuauserv", false, "Automatic (Delayed Start)"),
        ];
        assert_eq!(told, expected);
        assert_eq!(all[0].description, "SQL Server (MSSQLSERVER)");
    }

    #[test]
    fn programs_are_listed_once() {
        let all = read_programs(include_bytes!("fixtures/programs.json"));
        let told: Vec<(&str, &str)> = all
            .iter()
            .map(|p| (p.name.as_str(), p.version.as_str()))
            .collect();
        assert_eq!(told, [("7-Zip 23.01 (x64)", "23.01"), ("Old Tool", "")]);
    }

    // DK-10, DK-16: a paging file lies on the volume of its longest path.
    #[test]
    fn disks_volumes_and_paging_files_are_found() {
        let found = read_disks(include_bytes!("fixtures/disks.json"));
        let serials: Vec<_> = found
            .devices
            .iter()
            .filter_map(|d| d.serial.as_deref())
            .collect();
        assert_eq!(serials, ["system0", "data0"]);
        let mounts: Vec<(&str, Option<&str>)> = found
            .mounts
            .iter()
            .map(|m| (m.target.as_str(), m.device.as_deref()))
            .collect();
        let expected = [
            ("C:\\", Some("disk0p3")),
            ("D:\\", Some("disk1p1")),
            ("C:\\Mail\\", Some("disk1p2")),
        ];
        assert_eq!(mounts, expected);
        let swaps: Vec<_> = found
            .swaps
            .iter()
            .map(|s| (s.path.as_str(), s.device.as_deref()))
            .collect();
        assert_eq!(
            swaps,
            [
                ("c:\\pagefile.sys", Some("disk0p3")),
                ("C:\\mail\\pagefile.sys", Some("disk1p2"))
            ]
        );
        let disks = found.disks_under("disk1p2");
        assert_eq!(disks[0].serial.as_deref(), Some("data0"));
    }

    #[test]
    fn nonsense_gives_nothing() {
        for bytes in [
            &b""[..],
            b"\xef\xbb\xbf[",
            b"{\"disks\":7}",
            b"[{\"Name\":7}]",
            b"null",
        ] {
            assert!(read_services(bytes).is_empty() && read_programs(bytes).is_empty());
            assert_eq!(read_disks(bytes), Inventory::default());
        }
    }

    // A name is data: it never becomes a part of the script.
    #[test]
    fn names_do_not_enter_the_script() {
        let exec = command(STOP, &["x'; Remove-Item C:\\".to_owned()]);
        assert!(
            !format!("{:?}", exec.args).contains("Remove-Item"),
            "{exec:?}"
        );
        let given = exec.input.expect("names");
        assert_eq!(given, br#"["x'; Remove-Item C:\\"]"#);
        assert!(
            exec.env.is_empty(),
            "PowerShell needs the guest's own environment"
        );
    }
}
