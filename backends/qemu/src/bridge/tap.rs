//! Taps: one per machine process, made before it and removed after it.
//!
//! A tap is on no bridge and down until its machine owns the network, so nothing that the other side sends leaves the
//! host, whatever its card does (invariant 3). Its name tells system and machine; its alias says that it is ours.

use super::link::{Link, NET};
use super::tool::run;
use crate::system::QemuSystem;
use flipside_model::{MachineId, SystemSpec};
use flipside_platform::{PortError, PortErrorKind, PortResult};

/// The beginning of the names of a system's taps; names have 15 characters at most.
pub(super) fn prefix(spec: &SystemSpec) -> String {
    let id = spec.uuid.simple().to_string();
    format!("fs{}-", &id[..7])
}

/// The name of a machine's tap. Two machines of a system whose numbers are 100 000 apart are never there together.
pub(crate) fn name(spec: &SystemSpec, id: MachineId) -> String {
    format!("{}{}", prefix(spec), id.0 % 100_000)
}

/// Which machine a port of a bridge belongs to, if it is a tap of this system.
pub(super) fn machine_of(spec: &SystemSpec, port: &str) -> Option<MachineId> {
    let number = port.strip_prefix(&prefix(spec))?.parse().ok()?;
    Some(MachineId(number))
}

/// The taps of a system that exist.
pub(super) fn taps(spec: &SystemSpec) -> Vec<(MachineId, String)> {
    let entries = std::fs::read_dir(NET).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names
        .filter_map(|name| Some((machine_of(spec, &name)?, name)))
        .collect()
}

fn alias(spec: &SystemSpec, id: MachineId) -> String {
    format!("flipside {} {id} {}", spec.name, spec.uuid)
}

impl QemuSystem {
    /// Makes the tap of a machine that is about to start: on no bridge, and down. Does nothing in user mode.
    pub(crate) async fn make_tap(&self, id: MachineId) -> PortResult<()> {
        let spec = &self.inner.spec;
        let Some(bridge) = spec.network.bridge() else {
            return Ok(());
        };
        let there = Link::new(bridge);
        if !there.is_bridge() {
            return Err(missing_bridge(bridge));
        }
        // What is left of a machine that was ended behind our back.
        self.sweep_taps().await?;
        self.remove_tap(id).await?;
        let name = name(spec, id);
        let user = rustix::process::geteuid().as_raw().to_string();
        let add = ["tuntap", "add", "dev", &name, "mode", "tap", "user", &user];
        run("ip", &add, "").await?;
        // A port with a smaller MTU would make the bridge's smaller, for everybody on it. The host itself says nothing
        // on a tap, so it needs no address there.
        let mtu = there.mtu().unwrap_or(1500).to_string();
        let alias = alias(spec, id);
        let set = [
            "link",
            "set",
            "dev",
            &name,
            "alias",
            &alias,
            "addrgenmode",
            "none",
            "mtu",
            &mtu,
        ];
        run("ip", &set, "").await.map(drop)
    }

    /// Removes the tap of a machine that has ended; one that is not ours is refused by name (fault 49).
    pub(crate) async fn remove_tap(&self, id: MachineId) -> PortResult<()> {
        let spec = &self.inner.spec;
        if spec.network.bridge().is_none() {
            return Ok(());
        }
        let name = name(spec, id);
        let link = Link::new(&name);
        if !link.exists() {
            return Ok(());
        }
        // Between its making and its marking it has no alias.
        let unmarked = link.alias().is_empty() && link.master().is_none();
        if !link.is_tap() || !(unmarked || link.alias() == alias(spec, id)) {
            return Err(PortError::new(
                PortErrorKind::InUse,
                format!("there is a network device `{name}` that flipside did not make"),
            )
            .about(name.clone())
            .advise(format!(
                "rename it: `ip link set dev {name} name OTHER`, or remove it if nobody needs it"
            )));
        }
        match run("ip", &["link", "delete", "dev", &name], "").await {
            Err(e) if e.kind == PortErrorKind::Absent => Ok(()),
            other => other.map(drop),
        }
    }

    /// Removes the taps of machines of this system that do not run.
    pub(super) async fn sweep_taps(&self) -> PortResult<()> {
        let running = self.running()?;
        for (machine, _) in taps(&self.inner.spec) {
            if !running.contains(&machine) {
                self.remove_tap(machine).await?;
            }
        }
        Ok(())
    }

    /// Lets a machine's frames onto the bridge. Refuses while another machine of this system is on it (invariant 1).
    pub(crate) async fn join_bridge(&self, id: MachineId) -> PortResult<()> {
        let spec = &self.inner.spec;
        let Some(bridge) = spec.network.bridge() else {
            return Ok(());
        };
        let name = name(spec, id);
        let (port, there) = (Link::new(&name), Link::new(bridge));
        if !there.is_bridge() {
            return Err(missing_bridge(bridge));
        }
        if !port.exists() {
            return Err(missing_tap(&name, id));
        }
        for other in there.ports() {
            let machine = machine_of(spec, &other).filter(|machine| *machine != id);
            let Some(machine) = machine else { continue };
            if self.running()?.contains(&machine) {
                return Err(PortError::new(
                    PortErrorKind::InUse,
                    format!("machine {machine} is still connected to `{bridge}`"),
                )
                .about(other)
                .advise("two machines with one address must never be on a wire together: retry"));
            }
            self.remove_tap(machine).await?;
        }
        run(
            "ip",
            &["link", "set", "dev", &name, "master", bridge, "up"],
            "",
        )
        .await?;
        if self.is_joined(id) {
            return Ok(());
        }
        Err(PortError::failed(format!("`{name}` did not join `{bridge}`")).about(name))
    }

    /// Takes a machine's frames off the bridge. A tap that is gone lets nothing through.
    pub(crate) async fn leave_bridge(&self, id: MachineId) -> PortResult<()> {
        let spec = &self.inner.spec;
        if spec.network.bridge().is_none() {
            return Ok(());
        }
        let name = name(spec, id);
        if !Link::new(&name).exists() {
            return Ok(());
        }
        match run("ip", &["link", "set", "dev", &name, "down", "nomaster"], "").await {
            Err(e) if e.kind == PortErrorKind::Absent => Ok(()),
            other => other.map(drop),
        }
    }

    /// Says whether frames of this machine can reach the bridge: always in user mode, where there is none.
    pub(crate) fn is_joined(&self, id: MachineId) -> bool {
        let spec = &self.inner.spec;
        let Some(bridge) = spec.network.bridge() else {
            return true;
        };
        let port = Link::new(&name(spec, id));
        port.is_up() && port.master().as_deref() == Some(bridge)
    }
}

/// The bridge that a definition names is not there.
pub(super) fn missing_bridge(bridge: &str) -> PortError {
    PortError::absent(format!("there is no bridge `{bridge}` on this host"))
        .about(bridge)
        .advise(format!(
            "make it: `ip link add {bridge} type bridge && ip link set {bridge} up`, with the host's card in it; \
             make it permanent in the host's network configuration"
        ))
}

/// Somebody removed the tap of a machine that runs; QEMU cannot be given another one.
pub(super) fn missing_tap(name: &str, id: MachineId) -> PortError {
    PortError::absent(format!("the tap `{name}` of machine {id} is gone"))
        .about(name)
        .advise("somebody removed it. A machine gets a new one when it is started: restart the system, or `flipside abort` when it is the Upgrade Side's")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::spec;

    #[test]
    fn names_of_taps_fit_and_lead_back_to_their_machine() {
        let spec = spec();
        for number in [1, 7, 99_999] {
            let name = name(&spec, MachineId(number));
            assert!(name.len() <= 15, "{name}");
            assert_eq!(machine_of(&spec, &name), Some(MachineId(number)));
        }
        for other in ["eth0", "fs", "fs0000000", "fs0000000-x", "fs1111111-1"] {
            assert_eq!(machine_of(&spec, other), None, "{other}");
        }
    }
}
