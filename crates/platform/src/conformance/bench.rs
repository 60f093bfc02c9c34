//! What every check stands on: the fixture of the backend, and small tools over the ports.

use super::CheckResult;
use crate::{
    DiskSource, Lease, MachineView, PortResult, Ports, ResyncPhase, RunState, StartMode, StartPlan,
};
use async_trait::async_trait;
use flipside_model::{
    DiskName, DiskRole, Leg, LegBook, LegRole, MachineId, MountPoint, StaleReason, SystemSpec,
};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// What the operating system of a fixture has.
#[derive(Debug, Clone)]
pub struct GuestFixture {
    /// Controlled services in start order; enabled, running after power-on, and using the data mounts.
    pub units: Vec<String>,
    /// The data file systems, mounted after power-on.
    pub mounts: Vec<MountPoint>,
    /// Patterns of units that act by themselves.
    pub quiesce: Vec<String>,
}

/// What may happen to the file of a leg (fault 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegDamage {
    /// Another file with the same content has its name.
    Replaced,
    /// Its name is a symbolic link, even if to the right file.
    Linked,
    /// It has become shorter.
    Shrunk,
    /// It is gone.
    Removed,
}

impl LegDamage {
    /// Every kind.
    pub const ALL: [LegDamage; 4] = [
        LegDamage::Replaced,
        LegDamage::Linked,
        LegDamage::Shrunk,
        LegDamage::Removed,
    ];
}

/// A backend under test: a system with one system disk and one data disk, `system0` and `data0`.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Returns the ports under test.
    fn ports(&self) -> Ports;
    /// Returns the definition of the system.
    fn spec(&self) -> SystemSpec;
    /// Makes everything new: no process, no front door, no stored bitmap, both legs equal, a book that says so
    /// and names no owner, nobody with the lease.
    async fn reset(&mut self) -> Result<(), String>;
    /// Changes something on a disk of a running machine, as its guest would; different seeds, different places.
    /// Returns false when this fixture cannot.
    async fn write(&mut self, id: MachineId, disk: &DiskName, seed: u64) -> Result<bool, String>;
    /// Compares the legs of a disk byte for byte. The machine is paused meanwhile.
    async fn legs_equal(&mut self, disk: &DiskName) -> Result<bool, String>;
    /// Changes the file of a leg behind everybody's back; none brings the recorded one back.
    async fn change_leg(
        &mut self,
        disk: &DiskName,
        leg: Leg,
        how: Option<LegDamage>,
    ) -> Result<(), String>;
    /// Makes the image of a CD, small and empty.
    async fn image(&mut self) -> Result<PathBuf, String>;
    /// Starts the first machine; a fixture may restore a saved one instead of booting.
    async fn power_on(&mut self, id: MachineId, plan: &StartPlan) -> PortResult<()> {
        self.ports().machine.start(id, plan).await
    }
    /// Says what the guest has; none when nothing answers in it.
    fn guest(&self) -> Option<GuestFixture> {
        None
    }
    /// How long anything may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// A fixture in use by a check.
pub(crate) struct Bench<'f> {
    pub(crate) fixture: &'f mut dyn Fixture,
    pub(crate) p: Ports,
    pub(crate) lease: Option<Lease>,
    pub(crate) system: DiskName,
    pub(crate) data: DiskName,
}

/// An id that no machine ever had.
pub(crate) const NOBODY: MachineId = MachineId(4_000_000);

/// Fails a check unless this is so.
pub(crate) fn expect(so: bool, otherwise: impl Display) -> CheckResult {
    if so {
        return Ok(());
    }
    Err(otherwise.to_string())
}

/// Names what was tried when it failed.
pub(crate) fn ok<T>(what: &str, result: PortResult<T>) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {e} ({:?})", e.kind))
}

/// Fails a check when something succeeds that must be refused.
pub(crate) fn refused<T>(what: &str, result: &PortResult<T>) -> CheckResult {
    expect(result.is_err(), format!("{what}: must be refused"))
}

impl<'f> Bench<'f> {
    pub(crate) async fn new(fixture: &'f mut dyn Fixture) -> Result<Bench<'f>, String> {
        let p = fixture.ports();
        let spec = fixture.spec();
        let first = |role| {
            let disk = spec.disks_of(role).next();
            disk.map(|d| d.name.clone())
                .ok_or_else(|| format!("the fixture has no {role} disk"))
        };
        Ok(Bench {
            lease: Some(ok("lease", p.legs.lease().await)?),
            system: first(DiskRole::System)?,
            data: first(DiskRole::Data)?,
            p,
            fixture,
        })
    }

    pub(crate) async fn see(&self, id: MachineId) -> Result<MachineView, String> {
        ok("observe", self.p.machine.observe(id).await)
    }

    pub(crate) async fn is(&self, id: MachineId, run: RunState) -> CheckResult {
        let view = self.see(id).await?;
        expect(
            view.run == run,
            format!("{id} is {:?}, not {run:?}", view.run),
        )
    }

    /// Checks what backs a disk, none for a disk that is not plugged.
    pub(crate) async fn backed(
        &self,
        id: MachineId,
        disk: &DiskName,
        by: Option<DiskSource>,
    ) -> CheckResult {
        let view = self.see(id).await?;
        let source = view.disks.get(disk).map(|d| d.source.clone());
        expect(
            source == by,
            format!("{disk} of {id} is {source:?}, not {by:?}"),
        )
    }

    pub(crate) async fn dirty(&self, id: MachineId, disk: &DiskName) -> Result<u64, String> {
        let view = self.see(id).await?;
        let disk_view = view.disks.get(disk);
        disk_view
            .and_then(|d| d.dirty_bytes)
            .ok_or_else(|| format!("{disk} of {id} has no change bitmap"))
    }

    /// Changes the book.
    pub(crate) async fn book(&self, change: impl FnOnce(&mut LegBook)) -> Result<LegBook, String> {
        let mut book = ok("load", self.p.legs.load().await)?;
        change(&mut book);
        ok("store", self.p.legs.store(&book).await)
    }

    /// Records a role of a leg.
    pub(crate) async fn role(&self, disk: &DiskName, leg: Leg, role: LegRole) -> CheckResult {
        self.book(|b| {
            if let Some(pair) = b.disks.get_mut(disk) {
                pair.get_mut(leg).role = role;
            }
        })
        .await
        .map(|_| ())
    }

    pub(crate) async fn stale(&self, disk: &DiskName, leg: Leg) -> CheckResult {
        self.role(disk, leg, LegRole::Stale(StaleReason::Session))
            .await
    }

    pub(crate) fn both(&self) -> DiskSource {
        DiskSource::Legs(vec![Leg::A, Leg::B])
    }

    pub(crate) fn boot_plan(&self) -> StartPlan {
        StartPlan {
            copy_limit: None,
            mode: StartMode::Boot { after: None },
            disks: BTreeMap::from([
                (self.system.clone(), self.both()),
                (self.data.clone(), self.both()),
            ]),
        }
    }

    /// Powers the system on, through ports only.
    pub(crate) async fn power_on(&mut self) -> Result<MachineId, String> {
        let book = self
            .book(|b| {
                b.last_machine = b.last_machine.next();
                b.owner = Some(b.last_machine);
                b.clean = false;
            })
            .await?;
        let plan = self.boot_plan();
        let id = book.last_machine;
        ok("start", self.fixture.power_on(id, &plan).await)?;
        self.is(id, RunState::Running).await?;
        Ok(id)
    }

    /// Starts the machine that a fork goes into.
    pub(crate) async fn incoming(&mut self, from: MachineId) -> Result<MachineId, String> {
        let (system, data) = (self.system.clone(), self.data.clone());
        let book = self
            .book(|b| {
                b.last_machine = b.last_machine.next();
                for (disk, a, z) in [
                    (&system, LegRole::Original, LegRole::Upgraded),
                    (&data, LegRole::Live, LegRole::Frozen),
                ] {
                    if let Some(pair) = b.disks.get_mut(disk) {
                        (pair.a.role, pair.b.role) = (a, z);
                    }
                }
            })
            .await?;
        let plan = StartPlan {
            copy_limit: None,
            mode: StartMode::Incoming { from },
            disks: BTreeMap::from([
                (system, DiskSource::Legs(vec![Leg::B])),
                (data, DiskSource::Overlay(Leg::B)),
            ]),
        };
        let to = book.last_machine;
        ok("start incoming", self.p.machine.start(to, &plan).await)?;
        self.is(to, RunState::Incoming).await?;
        Ok(to)
    }

    pub(crate) async fn until_ready(&self, from: MachineId) -> CheckResult {
        let began = Instant::now();
        loop {
            let view = ok("fork_poll", self.p.machine.fork_poll(from).await)?;
            if view.ready {
                return Ok(());
            }
            self.wait(began, "the fork to be ready").await?;
        }
    }

    pub(crate) fn keep(&self) -> BTreeMap<DiskName, Leg> {
        BTreeMap::from([(self.system.clone(), Leg::A), (self.data.clone(), Leg::A)])
    }

    /// Forks a machine; the other one is left paused.
    pub(crate) async fn fork(&mut self, from: MachineId) -> Result<MachineId, String> {
        let to = self.incoming(from).await?;
        ok("fork_begin", self.p.machine.fork_begin(from, to).await)?;
        self.until_ready(from).await?;
        let keep = self.keep();
        ok(
            "fork_switch",
            self.p.machine.fork_switch(from, to, &keep).await,
        )?;
        Ok(to)
    }

    /// Waits a little, unless it took too long already.
    pub(crate) async fn wait(&self, began: Instant, what: &str) -> CheckResult {
        let patience = self.fixture.patience();
        expect(
            began.elapsed() < patience,
            format!("{patience:?} were not enough for {what}"),
        )?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    /// Waits until a resynchronisation is nearly done.
    pub(crate) async fn until_nearly(&self, id: MachineId, disk: &DiskName) -> CheckResult {
        let began = Instant::now();
        loop {
            let view = ok("resync_poll", self.p.disk.resync_poll(id, disk).await)?;
            match view.phase {
                ResyncPhase::Nearly => return Ok(()),
                ResyncPhase::Copying => {}
                other => return Err(format!("the resynchronisation is {other:?}")),
            }
            self.wait(began, "the resynchronisation").await?;
        }
    }

    /// Says whether the services of a guest run; its agent answers earlier.
    async fn serves(&self, id: MachineId, guest: &GuestFixture) -> Result<bool, String> {
        let views = ok("services", self.p.guest.services(id, &guest.units).await)?;
        Ok(views.iter().all(|v| v.active))
    }

    /// Powers on and waits for the guest and its services; returns what it has.
    pub(crate) async fn boot(&mut self) -> Result<(MachineId, GuestFixture), String> {
        let id = self.power_on().await?;
        self.answers(id).await?;
        let guest = self.fixture.guest().ok_or("the fixture has no guest")?;
        let began = Instant::now();
        while !self.serves(id, &guest).await? {
            self.wait(began, "the services to run").await?;
        }
        Ok((id, guest))
    }

    /// Waits until the guest answers; returns its boot id.
    pub(crate) async fn answers(&self, id: MachineId) -> Result<String, String> {
        let began = Instant::now();
        loop {
            if let Ok(info) = self.p.guest.ping(id).await {
                return Ok(info.boot_id);
            }
            self.wait(began, "the guest to answer").await?;
        }
    }
}
