//! A whole upgrade by hand, call by call, with the client at work and every invariant checked in between.
#![allow(dead_code, reason = "every test uses its own part of it")]

use flipside_backend_sim::{SimOptions, SimWorld, example_spec};
use flipside_model::{
    DiskName, HealthCheck, Leg, LegBook, LegRole, MachineId, MountPoint, ResyncFigures, StaleReason,
};
use flipside_platform::{
    DiskSource, Held, HoldSet, Lease, PortResult, Ports, ResyncPhase, ResyncStart, StartMode,
    StartPlan, UnitStart,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) const M1: MachineId = MachineId(1);
pub(crate) const M2: MachineId = MachineId(2);
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn system0() -> DiskName {
    DiskName::new("system0").expect("valid")
}

pub(crate) fn data0() -> DiskName {
    DiskName::new("data0").expect("valid")
}

pub(crate) struct Story {
    pub(crate) world: SimWorld,
    pub(crate) ports: Ports,
    pub(crate) lease: Option<Lease>,
    pub(crate) held: Held,
    pub(crate) acknowledged: u32,
    pub(crate) resyncs: Vec<ResyncFigures>,
}

impl Story {
    pub(crate) async fn new() -> Self {
        Self::with(SimOptions::default()).await
    }

    pub(crate) async fn with(options: SimOptions) -> Self {
        Self::of(SimWorld::new(&example_spec(1, 1), options)).await
    }

    pub(crate) async fn of(world: SimWorld) -> Self {
        world.power_on().expect("powers on");
        let ports = world.ports();
        let mut story = Self {
            lease: Some(ports.legs.lease().await.expect("lease")),
            world,
            ports,
            held: Held::default(),
            acknowledged: 0,
            resyncs: Vec::new(),
        };
        story.check();
        story
    }

    /// Checks every invariant, lets client and guests write, and checks again.
    pub(crate) fn check(&mut self) {
        self.world.check_invariants().expect("before the writes");
        if self.world.client_write().acknowledged() {
            self.acknowledged += 1;
        }
        for id in self.world.machines() {
            self.world.system_write(id);
        }
        self.world.check_invariants().expect("after the writes");
    }

    pub(crate) fn done<T>(&mut self, result: PortResult<T>) -> T {
        let last = self.world.trace().last().cloned().unwrap_or_default();
        let value = result.unwrap_or_else(|e| panic!("{last}: {e}"));
        self.check();
        value
    }

    pub(crate) async fn book(&mut self, change: impl FnOnce(&mut LegBook)) {
        let mut book = self.ports.legs.load().await.expect("loads");
        change(&mut book);
        let stored = self.ports.legs.store(&book).await;
        self.done(stored);
    }

    pub(crate) fn units(&self) -> Vec<String> {
        vec!["db.service".to_owned(), "web.service".to_owned()]
    }

    pub(crate) fn starts(&self) -> Vec<UnitStart> {
        let start = |unit| UnitStart {
            unit,
            required: true,
        };
        self.units().into_iter().map(start).collect()
    }

    pub(crate) fn mounts(&self) -> Vec<MountPoint> {
        vec![MountPoint {
            disk: data0(),
            target: "/srv/data0".to_owned(),
            source: "LABEL=data0".to_owned(),
        }]
    }

    pub(crate) fn set(&self) -> HoldSet {
        HoldSet {
            units: self.units(),
            mounts: self.mounts(),
            quiesce: vec!["*.timer".to_owned(), "cron.service".to_owned()],
        }
    }

    pub(crate) async fn fork(&mut self) {
        let p = self.ports.clone();
        let until = p.clock.now_ms() + 60_000;
        self.book(|b| {
            b.last_machine = M2;
            b.pause_until_ms = Some(until);
            for (disk, a, z) in [
                (system0(), LegRole::Original, LegRole::Upgraded),
                (data0(), LegRole::Live, LegRole::Frozen),
            ] {
                let pair = b.disks.get_mut(&disk).expect("there");
                (pair.a.role, pair.b.role) = (a, z);
            }
        })
        .await;
        let plan = StartPlan {
            copy_limit: None,
            mode: StartMode::Incoming { from: M1 },
            disks: BTreeMap::from([
                (system0(), DiskSource::Legs(vec![Leg::B])),
                (data0(), DiskSource::Overlay(Leg::B)),
            ]),
        };
        let r = p.machine.start(M2, &plan).await;
        self.done(r);
        let r = p.machine.fork_begin(M1, M2).await;
        self.done(r);
        loop {
            let view = p.machine.fork_poll(M1).await;
            if self.done(view).ready {
                break;
            }
        }
        let keep = BTreeMap::from([(system0(), Leg::A), (data0(), Leg::A)]);
        let r = p.machine.fork_switch(M1, M2, &keep).await;
        self.done(r);
        self.book(|b| b.pause_until_ms = None).await;
        let r = p.machine.resume(M2).await;
        self.done(r);
    }

    pub(crate) async fn split(&mut self) {
        self.fork().await;
        let p = self.ports.clone();
        let (set, units) = (self.set(), self.units());
        self.held = p.guest.startup(M2, &set).await.expect("startup");
        let held = self.held.clone();
        let r = p.guest.hold(M2, &set, &held).await;
        self.done(r);
        let mut all = units;
        all.extend(held.quiesced.iter().map(|q| q.unit.clone()));
        let r = p.guest.stop(M2, &all, LONG).await;
        self.done(r);
        let r = p.guest.close_data(M2, &["data0".to_owned()]).await;
        self.done(r);
        let r = p.disk.unplug(M2, &data0()).await;
        self.done(r);
        self.resync(M1, data0(), Leg::A, ResyncStart::Bitmap).await;
    }

    /// Rewrites the other leg from this one, recorded first and after.
    pub(crate) async fn resync(
        &mut self,
        id: MachineId,
        disk: DiskName,
        from: Leg,
        how: ResyncStart,
    ) {
        let p = self.ports.clone();
        let to = from.other();
        self.book(|b| {
            let pair = b.disks.get_mut(&disk).expect("there");
            pair.authority = from;
            pair.get_mut(from).role = LegRole::Live;
            pair.get_mut(to).role = LegRole::Stale(StaleReason::Session);
        })
        .await;
        let r = p.disk.resync_start(id, &disk, from, to, how, 0).await;
        self.done(r);
        loop {
            let view = p.disk.resync_poll(id, &disk).await;
            match self.done(view).phase {
                ResyncPhase::Nearly => break,
                ResyncPhase::Copying => {}
                other => panic!("{other:?}"),
            }
        }
        let until = p.clock.now_ms() + 10_000;
        self.book(|b| b.pause_until_ms = Some(until)).await;
        let r = p.disk.resync_finish(id, &disk).await;
        let figures = self.done(r);
        self.resyncs.push(figures);
        self.book(|b| {
            b.disks.get_mut(&disk).expect("there").get_mut(to).role = LegRole::Live;
            b.pause_until_ms = None;
        })
        .await;
        assert!(self.world.legs_equal(&disk));
    }

    /// Moves the users from one machine to another, which runs.
    pub(crate) async fn take(&mut self, from: MachineId) {
        let p = self.ports.clone();
        let units = self.units();
        let r = p.network.hold().await;
        self.done(r);
        let r = p.network.drain(2000).await;
        self.done(r);
        let r = p.guest.stop(from, &units, LONG).await;
        self.done(r);
        let r = p.guest.close_data(from, &["data0".to_owned()]).await;
        self.done(r);
        let r = p.guest.sync(from).await;
        self.done(r);
        let r = p.disk.unplug(from, &data0()).await;
        self.done(r);
        let r = p.network.cut().await;
        self.done(r);
        let r = p.machine.set_link(from, false).await;
        self.done(r);
    }

    pub(crate) async fn give(&mut self, to: MachineId) {
        let p = self.ports.clone();
        self.book(|b| b.owner = Some(to)).await;
        let r = p.machine.resume(to).await;
        self.done(r);
        let r = p.guest.set_clock(to).await;
        self.done(r);
        let legs = self.world.book().disks[&data0()].live();
        let r = p.disk.plug(to, &data0(), &legs).await;
        self.done(r);
        let r = p.machine.set_link(to, true).await;
        self.done(r);
        let r = p.guest.lift(to).await;
        self.done(r);
        let r = p.guest.open_data(to, &self.mounts()).await;
        self.done(r);
        let starts = self.starts();
        let r = p.guest.start(to, &starts, LONG).await;
        self.done(r);
        let check = HealthCheck {
            command: vec!["true".to_owned()],
        };
        let r = p.guest.healthy(to, &[check]).await;
        self.done(r);
        let r = p.network.open(to).await;
        self.done(r);
        assert!(self.world.client_ok(), "{:?}", self.world.serving());
    }

    pub(crate) async fn merge(&mut self) {
        let p = self.ports.clone();
        let (set, held) = (self.set(), self.held.clone());
        let r = p.guest.prepare_release(M2, &set, &held).await;
        self.done(r);
        self.take(M1).await;
        let r = p.machine.pause(M1).await;
        self.done(r);
        self.give(M2).await;
    }

    /// Ends a machine and gives the other its bitmap.
    pub(crate) async fn carry(&mut self, from: MachineId, to: MachineId) {
        let p = self.ports.clone();
        let r = p.disk.carry_out(from, &system0()).await;
        let carried = self.done(r);
        let r = p.machine.end(from).await;
        self.done(r);
        let r = p.disk.carry_in(to, &system0()).await;
        assert!(self.done(r) >= carried.dirty_bytes);
    }

    pub(crate) async fn commit(&mut self) {
        let p = self.ports.clone();
        self.book(|b| {
            let pair = b.disks.get_mut(&system0()).expect("there");
            pair.authority = Leg::B;
            pair.b.role = LegRole::Live;
            pair.a.role = LegRole::Stale(StaleReason::Session);
        })
        .await;
        self.carry(M1, M2).await;
        self.resync(M2, system0(), Leg::B, ResyncStart::Bitmap)
            .await;
        let r = p.disk.drop_carried(&system0()).await;
        self.done(r);
        let r = p.guest.cleanup(M2).await;
        self.done(r);
    }

    pub(crate) async fn abort(&mut self) {
        let p = self.ports.clone();
        self.take(M2).await;
        let r = p.machine.pause(M2).await;
        self.done(r);
        self.give(M1).await;
        self.book(|b| {
            let pair = b.disks.get_mut(&system0()).expect("there");
            pair.a.role = LegRole::Live;
            pair.b.role = LegRole::Stale(StaleReason::Session);
        })
        .await;
        self.carry(M2, M1).await;
        self.resync(M1, system0(), Leg::A, ResyncStart::Bitmap)
            .await;
        let r = p.disk.drop_carried(&system0()).await;
        self.done(r);
    }
}
