//! Machine layout, versions 1 and 2: what the guest finds in its machine, and what the host has of it.
//!
//! Both sides of a fork must have exactly the same devices at the same addresses, for ever: a system keeps the
//! layout it was made with. So nothing here may change for a version that is out; a new device means a new version.
//!
//! * **1**: the first.
//! * **2**: the serial console is a socket; its log is appended to, so that it can be cut. The guest sees the same.
//!
//! Choices that are not obvious:
//! * **`-no-shutdown`, `-action panic=pause`**: a guest that ends or panics leaves its process to be looked at;
//!   what happens next is decided by the engine, not by a disappearing process.
//! * **`-rtc clock=host`**: a guest that restarts after a long pause must read the true time; with `clock=vm`
//!   its clock would lack the pause.
//! * **`max` and `host` CPUs**: never `max` under TCG (2 of 9 forks were corrupted); `host` only with KVM.
//! * **Root ports**: twelve, of which six are used. A device added later needs no new port.
//! * **`queue`s of virtio-scsi are fixed**, because QEMU's default depends on the number of CPUs.
//! * **No iothreads**: they break the root swap in 7.2 ("Different aio context").

use crate::bridge::tap;
use crate::nodes::{self, LegOpen};
use crate::paths::MachinePaths;
use crate::signs::APPENDING_LAYOUT;
use flipside_model::{DiskName, Firmware, Leg, MachineId, SystemSpec};
use flipside_platform::{DiskSource, StartMode, StartPlan};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use uuid::Uuid;

/// The address of the private (VTM) card; the same on both sides and in every system, for no two of them ever
/// share a wire.
pub(crate) const VTM_MAC: &str = "52:54:00:f1:75:01";

/// What a machine is emulated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The host's virtualisation.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accelerator {
    /// Its name, as a machine's view shows it.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }

    /// The CPU model of the machine.
    pub fn cpu(self) -> &'static str {
        match self {
            Accelerator::Kvm => "host",
            Accelerator::Tcg => "Nehalem",
        }
    }

    /// The cache of translated code holds 128 MiB instead of up to 1 GiB: what a guest ran before its restart stays in it, and
    /// while a page has code there every store into it is checked against each piece. With a full GiB the next kernel's
    /// decompression took minutes. No guest sees it and no migration carries it.
    fn option(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg,thread=multi,tb-size=128",
        }
    }
}

/// Everything a command line depends on.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    pub(crate) spec: &'a SystemSpec,
    pub(crate) plan: &'a StartPlan,
    pub(crate) id: MachineId,
    pub(crate) paths: &'a MachinePaths,
    pub(crate) accelerator: Accelerator,
    /// Recognises the process.
    pub(crate) token: &'a str,
    /// Tells the guest that it is not the one it was copied from.
    pub(crate) generation_id: Uuid,
    /// Host port by guest port, for the production card.
    pub(crate) forwards: &'a BTreeMap<u16, u16>,
    /// Host port of the guest's SSH on the private card.
    pub(crate) ssh: u16,
    /// Code and variables of the UEFI firmware.
    pub(crate) firmware: Option<(PathBuf, PathBuf)>,
    /// Legs whose file system refuses to bypass the cache.
    pub(crate) cached: &'a [(DiskName, Leg)],
    /// Faults injected by tests.
    pub(crate) faults: &'a BTreeMap<String, Value>,
}

/// The name a process bears, by which it is told from its other side and from its predecessors.
pub(crate) fn process_name(spec: &SystemSpec, id: MachineId, token: &str) -> String {
    format!("{}:{id}:{token}", spec.name)
}

/// The key of a leg in a table of faults.
pub(crate) fn fault_key(disk: &DiskName, leg: Leg) -> String {
    format!("{disk}/{leg}")
}

struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }
    fn option(&mut self, flag: &str, value: impl Into<String>) {
        self.flag(flag);
        self.0.push(value.into());
    }
    fn json(&mut self, flag: &str, value: &Value) {
        self.option(flag, value.to_string());
    }
    /// A device on a root port of its own.
    fn on_port(&mut self, port: u32, mut device: Value) {
        device["bus"] = json!(format!("port{port}"));
        device["addr"] = json!("0x0");
        self.json("-device", &device);
    }
}

impl Layout<'_> {
    /// Returns the arguments of QEMU, without the program.
    pub(crate) fn argv(&self) -> Vec<String> {
        let mut line = Line(Vec::new());
        self.machine(&mut line);
        self.monitors(&mut line);
        self.bridges(&mut line);
        self.disks(&mut line);
        self.channels(&mut line);
        self.networks(&mut line);
        self.console(&mut line);
        if matches!(self.plan.mode, StartMode::Incoming { .. }) {
            line.option("-incoming", "defer");
        }
        line.0
    }

    fn machine(&self, line: &mut Line) {
        let spec = self.spec;
        let mut machine = String::from("pc-q35-7.2,dump-guest-core=off");
        if let Some((code, variables)) = &self.firmware {
            machine.push_str(",pflash0=fw-code,pflash1=fw-vars");
            let flash = |name: &str, file: &PathBuf, read_only: bool| {
                json!({
                    "driver": "raw",
                    "node-name": name,
                    "read-only": read_only,
                    "file": { "driver": "file", "filename": file, "read-only": read_only },
                })
            };
            line.json("-blockdev", &flash("fw-code", code, true));
            line.json("-blockdev", &flash("fw-vars", variables, false));
        }
        debug_assert!(self.firmware.is_some() == (spec.firmware == Firmware::Uefi));
        let name = process_name(spec, self.id, self.token);
        line.option("-name", format!("guest={name},debug-threads=on"));
        line.option("-uuid", spec.uuid.to_string());
        line.option("-machine", machine);
        line.option("-accel", self.accelerator.option());
        line.option("-cpu", self.accelerator.cpu());
        line.option("-m", spec.memory_mib.to_string());
        let cpus = spec.cpus;
        line.option("-smp", format!("{cpus},sockets=1,cores={cpus},threads=1"));
        line.flag("-no-user-config");
        line.flag("-nodefaults");
        // The link is lowered before the first instruction runs.
        line.flag("-S");
        line.flag("-no-shutdown");
        line.option("-action", "panic=pause");
        // Not `strict`: SeaBIOS would hide every other disk, and a boot loader may lie on two.
        line.option("-boot", "menu=off");
        line.option("-rtc", "base=utc,clock=host");
        line.option(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
        line.option("-pidfile", text(self.paths.pid()));
    }

    fn monitors(&self, line: &mut Line) {
        for (name, path) in [("qmp", self.paths.qmp()), ("guard", self.paths.guard())] {
            line.option("-chardev", socket(name, path));
            line.option("-mon", format!("chardev={name},mode=control"));
        }
    }

    fn bridges(&self, line: &mut Line) {
        for port in 0..12u32 {
            let (slot, function) = (2 + port / 8, port % 8);
            line.json(
                "-device",
                &json!({
                    "driver": "pcie-root-port",
                    "id": format!("port{port}"),
                    "bus": "pcie.0",
                    "addr": format!("{slot:#x}.{function:#x}"),
                    "chassis": port + 1,
                    "slot": port + 1,
                    "multifunction": function == 0,
                }),
            );
        }
    }

    fn disks(&self, line: &mut Line) {
        line.on_port(
            0,
            json!({ "driver": "virtio-scsi-pci", "id": "scsi0", "num_queues": self.spec.cpus }),
        );
        for (disk, source) in &self.plan.disks {
            let Some(spec) = self.spec.disk(disk) else {
                continue;
            };
            let open = |leg: Leg, read_only: bool| {
                let direct = !self.cached.contains(&(disk.clone(), leg));
                let fault = self.faults.get(&fault_key(disk, leg));
                let path = spec.legs.get(leg).as_path();
                let open = LegOpen {
                    path,
                    direct,
                    read_only,
                    waits: !read_only && matches!(self.plan.mode, StartMode::Incoming { .. }),
                    fault,
                };
                nodes::leg_node(disk, leg, open)
            };
            let drive = match source {
                DiskSource::Legs(legs) => {
                    for leg in legs {
                        line.json("-blockdev", &open(*leg, false));
                    }
                    line.json("-blockdev", &nodes::quorum(disk, 1, legs));
                    nodes::root(disk, 1, legs)
                }
                DiskSource::Overlay(below) => {
                    line.json("-blockdev", &open(*below, true));
                    let path = self.paths.overlay(disk);
                    let limit = self.plan.copy_limit;
                    let node = nodes::overlay_node(disk, *below, &path, limit);
                    line.json("-blockdev", &node);
                    nodes::overlay(disk, *below)
                }
                // `start` refuses such a plan before it comes here.
                DiskSource::Placeholder => continue,
            };
            let mut device = nodes::device_options(disk, &drive, nodes::named_role(disk));
            if let (DiskSource::Overlay(_), Some(_)) = (source, self.plan.copy_limit) {
                // A copy that is full is the guest's own trouble: it shall see an error, not stand still.
                device["werror"] = json!("report");
            }
            line.json("-device", &device);
        }
        line.json(
            "-device",
            &json!({
                "driver": "scsi-cd", "id": "cd0", "bus": "scsi0.0",
                "channel": 0, "scsi-id": nodes::CD_ID, "lun": 0,
            }),
        );
    }

    fn channels(&self, line: &mut Line) {
        line.on_port(1, json!({ "driver": "virtio-serial-pci", "id": "serial0" }));
        let channels = [
            ("agent", self.paths.agent(), "org.qemu.guest_agent.0"),
            ("shell", self.paths.shell(), "org.flipside.shell"),
        ];
        for (number, (id, path, name)) in channels.into_iter().enumerate() {
            line.option("-chardev", socket(id, path));
            line.json(
                "-device",
                &json!({
                    "driver": "virtserialport", "id": format!("{id}0"), "bus": "serial0.0",
                    "nr": number + 1, "chardev": id, "name": name,
                }),
            );
        }
    }

    fn networks(&self, line: &mut Line) {
        // QEMU gives the state of every user network the same name and number in a fork's stream, so that all of them
        // are loaded into the first one (7.2). Its table of leases then holds the other card's address, and a guest
        // that boots there gets 10.0.2.16, where no client is sent. This one is nobody's: the two others stay empty,
        // and give their first address to whom it belongs.
        line.option(
            "-netdev",
            "user,id=forked,ipv6=off,restrict=on,net=10.0.4.0/24",
        );
        line.option("-netdev", self.production());
        let ssh = self.ssh;
        line.option(
            "-netdev",
            format!(
                "user,id=vtm,ipv6=off,restrict=on,net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{ssh}-:22"
            ),
        );
        let cards = [
            (2, "nic-prod", "prod", self.spec.mac.as_str()),
            (3, "nic-vtm", "vtm", VTM_MAC),
        ];
        for (port, id, netdev, mac) in cards {
            // No boot ROM: the guest boots from its own disk only, and a ROM would be part of the memory.
            line.on_port(
                port,
                json!({ "driver": "virtio-net-pci", "id": id, "netdev": netdev, "mac": mac, "romfile": "" }),
            );
        }
    }

    /// What the production card is connected to: the guest sees no difference.
    fn production(&self) -> String {
        if self.spec.network.bridge().is_some() {
            // Made before, so that QEMU needs no right and runs no script.
            let name = tap::name(self.spec, self.id);
            return format!("tap,id=prod,ifname={name},script=no,downscript=no,vhost=off");
        }
        let mut production = String::from("user,id=prod,ipv6=off");
        for (guest, host) in self.forwards {
            production.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
        }
        production
    }

    fn console(&self, line: &mut Line) {
        line.json(
            "-device",
            &json!({ "driver": "VGA", "id": "video0", "bus": "pcie.0", "addr": "0x1" }),
        );
        line.option("-display", "none");
        line.option("-vnc", format!("unix:{}", comma(&text(self.paths.vnc()))));
        line.on_port(5, json!({ "driver": "qemu-xhci", "id": "usb0" }));
        line.json(
            "-device",
            &json!({ "driver": "usb-tablet", "id": "tablet0", "bus": "usb0.0", "port": "1" }),
        );
        let log = comma(&text(self.paths.serial()));
        let console = if self.spec.layout < APPENDING_LAYOUT {
            format!("file,id=console,path={log}")
        } else {
            let socket = socket("console", self.paths.tty());
            format!("{socket},logfile={log},logappend=on")
        };
        line.option("-chardev", console);
        line.json(
            "-device",
            &json!({ "driver": "isa-serial", "id": "com0", "chardev": "console" }),
        );
        line.json("-device", &json!({ "driver": "pvpanic", "id": "panic0" }));
        line.json(
            "-device",
            &json!({ "driver": "vmgenid", "id": "genid0", "guid": self.generation_id.to_string() }),
        );
        line.option("-object", "rng-random,id=rng0,filename=/dev/urandom");
        line.on_port(
            4,
            json!({ "driver": "virtio-rng-pci", "id": "random0", "rng": "rng0" }),
        );
    }
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

/// In QEMU's option lists a comma is written twice.
fn comma(value: &str) -> String {
    value.replace(',', ",,")
}

fn socket(id: &str, path: PathBuf) -> String {
    format!(
        "socket,id={id},path={},server=on,wait=off",
        comma(&text(path))
    )
}

#[cfg(test)]
#[path = "layout_tests.rs"]
pub(crate) mod tests;
