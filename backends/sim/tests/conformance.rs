//! The conformance suite of the ports on the simulation.

use async_trait::async_trait;
use flipside_backend_sim::{SimOptions, SimWorld, example_spec};
use flipside_model::{DiskName, MachineId, MountPoint, SystemSpec};
use flipside_platform::Ports;
use flipside_platform::conformance::{self, Fixture, GuestFixture};

struct Sim {
    world: SimWorld,
    guest: bool,
}

impl Sim {
    fn new(guest: bool) -> Self {
        let world = SimWorld::new(&example_spec(1, 1), SimOptions::default());
        Self { world, guest }
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
        *self = Self::new(self.guest);
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
    let results = conformance::run_all(&mut Sim::new(true)).await;
    assert_eq!(results.len(), conformance::names().len());
    let wrong: Vec<String> = results
        .iter()
        .filter_map(|(name, result)| result.as_ref().err().map(|why| format!("{name}: {why}")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn without_a_guest_only_the_machines_are_checked() {
    let results = conformance::run_all(&mut Sim::new(false)).await;
    let names: Vec<&str> = results.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, conformance::without_guest());
}
