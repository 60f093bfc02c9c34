//! The conformance suite of the ports on the simulation (SP-03: what is held does not start; MG-15: what was saved is
//! restored).

use async_trait::async_trait;
use flipside_backend_sim::{SimOptions, SimWorld, example_spec};
use flipside_model::{DiskName, Leg, MachineId, MountPoint, SystemSpec};
use flipside_platform::conformance::{self, Fixture, GuestFixture, LegDamage};
use flipside_platform::{ExecOutput, Ports};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Every method of the ports.
const METHODS: [&str; 80] = [
    "disk.carry_in",
    "disk.carry_out",
    "disk.drop_carried",
    "disk.plug",
    "disk.resync_cancel",
    "disk.resync_finish",
    "disk.resync_poll",
    "disk.resync_start",
    "disk.set_legs",
    "disk.unplug",
    "guest.cleanup",
    "guest.close_data",
    "guest.condition",
    "guest.crash_files",
    "guest.exec_kill",
    "guest.exec_poll",
    "guest.exec_start",
    "guest.has_disk",
    "guest.healthy",
    "guest.hold",
    "guest.host_keys",
    "guest.lift",
    "guest.lifted",
    "guest.lower",
    "guest.mounts",
    "guest.open_data",
    "guest.open_files",
    "guest.ping",
    "guest.prepare_release",
    "guest.publish",
    "guest.read_file",
    "guest.restart",
    "guest.services",
    "guest.set_clock",
    "guest.shut_down",
    "guest.software_stamp",
    "guest.start",
    "guest.startup",
    "guest.stop",
    "guest.sync",
    "guest.verify_packages",
    "guest.write_file",
    "host.check_legs",
    "host.facts",
    "legs.lease",
    "legs.load",
    "legs.store",
    "machine.end",
    "machine.fork_begin",
    "machine.fork_cancel",
    "machine.fork_poll",
    "machine.fork_switch",
    "machine.list",
    "machine.observe",
    "machine.pause",
    "machine.power_down",
    "machine.reset",
    "machine.resume",
    "machine.set_link",
    "machine.start",
    "network.cut",
    "network.drain",
    "network.ensure",
    "network.hold",
    "network.open",
    "network.shut",
    "network.view",
    "side.access",
    "side.check_image",
    "side.console",
    "side.dump_keep",
    "side.dump_memory",
    "side.dump_part",
    "side.dumps",
    "side.eject",
    "side.insert",
    "side.medium",
    "side.printed",
    "side.send_keys",
    "side.signs",
];

struct Sim {
    world: SimWorld,
    guest: bool,
    /// Methods called so far.
    called: BTreeSet<String>,
}

impl Sim {
    fn new(guest: bool) -> Self {
        // What a check needs beyond what every simulated guest has.
        let made = ExecOutput {
            exit: Some(0),
            ..ExecOutput::default()
        };
        let options = SimOptions {
            programs: [("/bin/mkdir".to_owned(), made)].into(),
            ..SimOptions::default()
        };
        let world = SimWorld::new(&example_spec(1, 1), options);
        Self {
            world,
            guest,
            called: BTreeSet::new(),
        }
    }

    /// Notes which methods were called in this world.
    fn note(&mut self) {
        let method = |name: String| name.split('.').take(2).collect::<Vec<_>>().join(".");
        self.called
            .extend(self.world.trace().into_iter().map(method));
    }
}

#[async_trait]
impl Fixture for Sim {
    fn ports(&self) -> Ports {
        self.world.ports()
    }

    fn spec(&self) -> SystemSpec {
        example_spec(1, 1)
    }

    async fn reset(&mut self) -> Result<(), String> {
        self.note();
        self.world = Self::new(self.guest).world;
        Ok(())
    }

    async fn write(&mut self, id: MachineId, disk: &DiskName, _seed: u64) -> Result<bool, String> {
        if self.world.guest_write(id, disk) {
            return Ok(true);
        }
        Err(format!("{id} did not write to {disk}"))
    }

    async fn legs_equal(&mut self, disk: &DiskName) -> Result<bool, String> {
        Ok(self.world.legs_equal(disk))
    }

    async fn change_leg(
        &mut self,
        disk: &DiskName,
        leg: Leg,
        how: Option<LegDamage>,
    ) -> Result<(), String> {
        let what = how.map(|how| format!("is {how:?}"));
        self.world.change_leg(disk, leg, what.as_deref());
        Ok(())
    }

    async fn image(&mut self) -> Result<PathBuf, String> {
        Ok("/sim/x.iso".into())
    }

    fn guest(&self) -> Option<GuestFixture> {
        self.guest.then(|| GuestFixture {
            units: vec!["db.service".to_owned(), "web.service".to_owned()],
            mounts: vec![MountPoint {
                disk: DiskName::new("data0").expect("valid"),
                target: "/srv/data0".to_owned(),
                source: "LABEL=data0".to_owned(),
            }],
            quiesce: vec!["*.timer".to_owned(), "cron.service".to_owned()],
        })
    }
}

#[tokio::test(start_paused = true)]
async fn the_simulation_conforms() {
    let mut sim = Sim::new(true);
    let results = conformance::run_all(&mut sim).await;
    sim.note();
    assert_eq!(results.len(), conformance::names().len());
    let wrong: Vec<String> = results
        .iter()
        .filter_map(|(name, result)| result.as_ref().err().map(|why| format!("{name}: {why}")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let not_called: Vec<&str> = METHODS
        .into_iter()
        .filter(|m| !sim.called.contains(*m))
        .collect();
    assert!(not_called.is_empty(), "{not_called:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_guest_only_the_machines_are_checked() {
    let results = conformance::run_all(&mut Sim::new(false)).await;
    let names: Vec<&str> = results.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, conformance::without_guest());
}
