//! The guest port against a real guest: the mini image of `guest/`, booted once under TCG and taken through a hold,
//! a restart without its data disk, a release and a clean-up.
#![allow(clippy::print_stdout)]

use flipside_model::{HealthCheck, MachineId, MountPoint, UpgradeConfig};
use flipside_platform::{ExecOutput, GuestPort, HoldSet, PortErrorKind, PortResult, UnitStart};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

macro_rules! bail {
    ($($message:tt)*) => { return Err(format!($($message)*).into()) };
}

/// Fails the test with the place, and the message if there is one.
macro_rules! ensure {
    ($condition:expr $(,)?) => { ensure!($condition, "not so") };
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            let message = format!($($message)*);
            bail!("line {}: `{}`: {message}", line!(), stringify!($condition));
        }
    };
}

const ID: MachineId = MachineId(1);
const SERVICE: Duration = Duration::from_secs(60);
const WRITER: &str = "mini-writer.service";
const NGINX: &str = "nginx.service";
const TIMER: &str = "flipside-test.timer";

#[path = "guest/in_use.rs"]
mod in_use;
#[path = "guest/kinds.rs"]
mod kinds;
#[path = "guest/machine.rs"]
mod machine;

use machine::{Machine, images, request};

fn units(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn starts(names: &[&str]) -> Vec<UnitStart> {
    let start = |unit: &&str| UnitStart {
        unit: (*unit).to_owned(),
        required: true,
    };
    names.iter().map(start).collect()
}

/// Runs a step and prints how long it took.
async fn timed<T>(what: &str, step: impl Future<Output = PortResult<T>>) -> Result<T> {
    let begun = Instant::now();
    let outcome = step.await;
    println!("{what}: {} ms", begun.elapsed().as_millis());
    outcome.map_err(|e| format!("{what}: {e}\n{e:#?}").into())
}

fn lines(text: &str) -> std::collections::BTreeSet<&str> {
    text.lines().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_guest_is_held_released_and_left_as_it_was() -> Result<()> {
    let images = match images() {
        Ok(images) => images,
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    let begun = Instant::now();
    let mut machine = Machine::start(&images).await?;
    let boot = machine.booted(None).await?;
    println!("boot: {} ms", begun.elapsed().as_millis());

    describes(&machine).await?;
    runs_programs(&machine).await?;
    writes_files(&machine).await?;
    kinds::are_held_and_restored(&machine).await?;
    let set = prepare(&machine).await?;
    holds_and_releases(&machine, &set, &boot).await?;

    timed("shut_down", machine.guest.shut_down(ID)).await?;
    timeout(Duration::from_secs(60), machine.qemu.wait()).await??;
    let gone = machine.guest.ping(ID).await.expect_err("it is gone");
    ensure!(gone.kind == PortErrorKind::Absent, "{gone:?}");
    let none = machine
        .guest
        .ping(MachineId(9))
        .await
        .expect_err("no such machine");
    ensure!(none.kind == PortErrorKind::Absent, "{none:?}");
    println!("all: {} ms", begun.elapsed().as_millis());
    Ok(())
}

pub(crate) fn data0() -> [flipside_model::DiskName; 1] {
    [flipside_model::DiskName::new("data0").expect("valid")]
}

async fn describes(machine: &Machine) -> Result<()> {
    let guest = &machine.guest;
    let info = timed("ping", guest.ping(ID)).await?;
    ensure!(
        info.boot_id.len() == 36 && !info.agent.is_empty(),
        "{info:?}"
    );
    timed("start", guest.start(ID, &starts(&[WRITER, NGINX]), SERVICE)).await?;
    let asked = units(&[NGINX, "no-such.service", WRITER]);
    let views = timed("services", guest.services(ID, &asked)).await?;
    ensure!(views[0].active && views[0].exists && views[0].startup.0 == "enabled");
    ensure!(!views[1].exists && !views[1].active && views[1].startup.0 == "not-found");
    ensure!(views[2].active && !views[2].gated, "{views:?}");
    let mounts = timed("mounts", guest.mounts(ID, &data0())).await?;
    ensure!(
        mounts.len() == 1 && mounts[0].target == "/srv/data",
        "{mounts:?}"
    );
    ensure!(mounts[0].disk.as_str() == "data0" && mounts[0].source == "LABEL=flipside-data");
    ensure!(guest.has_disk(ID, "data0").await? && !guest.has_disk(ID, "data").await?);

    let files = timed("open_files", guest.open_files(ID, &asked)).await?;
    ensure!(
        files.iter().all(|f| f.disk == "data0"),
        "the services write on a system disk: {files:?}"
    );
    machine
        .sh("systemd-run -q --unit=open-test sh -c 'exec 3>/var/lib/open-test; sleep 600'")
        .await?;
    let files = guest.open_files(ID, &units(&["open-test.service"])).await?;
    ensure!(
        files.len() == 1 && files[0].path == "/var/lib/open-test",
        "{files:?}"
    );
    ensure!(
        files[0].disk == "system0" && files[0].unit == "open-test.service",
        "{files:?}"
    );
    machine
        .sh("systemctl stop open-test; rm /var/lib/open-test; date -s @1000000000")
        .await?;

    timed("set_clock", guest.set_clock(ID)).await?;
    timed("sync", guest.sync(ID)).await?;
    let check = |command: &[&str]| HealthCheck {
        command: units(command),
    };
    let good = check(&["systemctl", "is-active", WRITER]);
    timed("healthy", guest.healthy(ID, std::slice::from_ref(&good))).await?;
    let bad = check(&["sh", "-c", "echo it is ill >&2; exit 3"]);
    let error = guest.healthy(ID, &[good, bad]).await.expect_err("ill");
    ensure!(
        error.causes.iter().any(|c| c.contains("it is ill")),
        "{error:?}"
    );
    let error = guest
        .healthy(ID, &[check(&["/no/such"])])
        .await
        .expect_err("none");
    ensure!(error.kind == PortErrorKind::Failed, "{error:?}");
    Ok(())
}

async fn runs_programs(machine: &Machine) -> Result<()> {
    let guest = &machine.guest;
    let begun = Instant::now();
    let script = "echo \"$0 $VALUE\"; echo oops >&2; read -r go </run/go; echo $go; exit 7";
    machine.sh("mkfifo /run/go").await?;
    println!("exec round trip: {} ms", begun.elapsed().as_millis());
    let asked = request(&["sh", "-c", script, "a'b $(c)"], &["VALUE=x y"], None);
    let handle = guest.exec_start(ID, &asked).await?;
    let mut seen = ExecOutput::default();
    let until = Instant::now() + Duration::from_secs(20);
    while seen.out.is_empty() || seen.err.is_empty() {
        let new = guest.exec_poll(ID, handle).await?;
        seen.out.extend(new.out);
        seen.err.extend(new.err);
        ensure!(new.exit.is_none() && Instant::now() < until, "{seen:?}");
        sleep(Duration::from_millis(20)).await;
    }
    ensure!(
        seen.out == b"a'b $(c) x y\n" && seen.err == b"oops\n",
        "{seen:?}"
    );
    let asked = "systemctl show -p ActiveEnterTimestampMonotonic --value qemu-guest-agent";
    let (_, agent) = machine.sh(asked).await?;
    // A restart of the agent, as an upgrade brings it, does not end the program.
    machine
        .guest
        .exec_start(
            ID,
            &request(&["systemctl", "restart", "qemu-guest-agent"], &[], None),
        )
        .await?;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        // A look may fall into the restart: a time-out means to look again.
        match guest.exec_poll(ID, handle).await {
            Ok(seen) if seen.exit.is_some() => bail!("it ended with the agent: {seen:?}"),
            Ok(_) => {}
            Err(error) if error.kind == PortErrorKind::TimedOut => break,
            Err(error) => bail!("{error:?}"),
        }
        if machine.sh(asked).await.is_ok_and(|(_, now)| now != agent) {
            break;
        }
        ensure!(Instant::now() < until, "the agent was not restarted");
    }
    machine.booted(None).await?;
    machine.sh("echo on >/run/go; rm /run/go").await?;
    let (exit, rest) = machine.finish(handle).await?;
    ensure!(
        exit == 7 && rest.out == b"on\n" && rest.err.is_empty(),
        "{exit} {rest:?}"
    );

    for (argv, expected) in [(["/no/such/program"], 127), (["/etc/passwd"], 126)] {
        let (exit, output) = machine.run(&argv, &[], None).await?;
        ensure!(
            exit == expected && !output.err.is_empty(),
            "{exit} {output:?}"
        );
    }
    let (exit, _) = machine
        .run(&["sleep", "60"], &[], Some(Duration::from_secs(1)))
        .await?;
    ensure!(exit == 124, "time-out: {exit}");

    let asked = request(&["sh", "-c", "sleep 4321 & echo up; wait"], &[], None);
    let handle = guest.exec_start(ID, &asked).await?;
    timed("exec_kill", guest.exec_kill(ID, handle)).await?;
    let (exit, _) = machine.finish(handle).await?;
    ensure!(exit == 143, "killed: {exit}");
    let (_, left) = machine
        .sh("pgrep -f 'sleep 432[1]'; ls /run/flipside")
        .await?;
    ensure!(!left.contains(&format!("{handle:016x}")), "{left}");
    ensure!(
        lines(&left)
            .iter()
            .all(|l| l.starts_with("exec.") || *l == "lock"),
        "{left}"
    );

    let (exit, output) = machine
        .run(&["sh", "-c", "head -c 3000000 /dev/zero"], &[], None)
        .await?;
    ensure!(exit == 0 && output.out.len() == 3_000_000);
    Ok(())
}

async fn writes_files(machine: &Machine) -> Result<()> {
    const SIZE: usize = 3 << 20;
    let guest = &machine.guest;
    let bytes: Vec<u8> = (0..SIZE as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8)
        .collect();
    let path = "/var/tmp/up load";
    let begun = Instant::now();
    for (index, piece) in bytes.chunks(1 << 20).enumerate() {
        let offset = (index as u64) << 20;
        guest.write_file(ID, path, offset, piece).await?;
    }
    let took = begun.elapsed();
    println!(
        "write_file: {SIZE} bytes in {} ms, {:.1} MB/s",
        took.as_millis(),
        SIZE as f64 / 1e6 / took.as_secs_f64()
    );
    // A piece sent again lands where it was; a gap is refused.
    guest
        .write_file(ID, path, 1 << 20, &bytes[1 << 20..2 << 20])
        .await?;
    let gap = guest
        .write_file(ID, path, 1 << 30, b"x")
        .await
        .expect_err("a gap");
    ensure!(gap.kind == PortErrorKind::Mismatch, "{gap:?}");
    let folder = tempfile::tempdir()?;
    let local = folder.path().join("file");
    std::fs::write(&local, &bytes)?;
    let sum = Command::new("md5sum").arg(&local).output().await?.stdout;
    let (_, seen) = machine
        .sh("md5sum <'/var/tmp/up load'; stat -c %a '/var/tmp/up load'")
        .await?;
    let sum = String::from_utf8_lossy(&sum[..32]).into_owned();
    ensure!(
        seen.starts_with(&sum) && seen.ends_with("644"),
        "{seen} {sum}"
    );
    guest.write_file(ID, path, 0, b"short").await?;
    let (_, seen) = machine
        .sh("cat '/var/tmp/up load'; rm '/var/tmp/up load'")
        .await?;
    ensure!(seen == "short", "{seen}");
    let error = guest
        .write_file(ID, "/no/such/x", 0, b"")
        .await
        .expect_err("no folder");
    ensure!(error.kind == PortErrorKind::Absent, "{error:?}");
    Ok(())
}

/// Makes the guest less forgiving than the image is.
async fn prepare(machine: &Machine) -> Result<HoldSet> {
    let (exit, said) = machine
        .sh("sed -i 's/,nofail//; s/noatime,x-systemd/noatime,x-systemd/' /etc/fstab && cd /etc/systemd/system && \
             printf '[Timer]\\nOnCalendar=2030-01-01\\nUnit=flipside-test.service\\n[Install]\\nWantedBy=timers.target\\n' >flipside-test.timer && \
             printf '[Service]\\nType=oneshot\\nExecStart=true\\n' >flipside-test.service && \
             mkdir -p rescue.target.wants && ln -s /lib/systemd/system/nginx.service rescue.target.wants/ && \
             systemctl daemon-reload && systemctl enable --now flipside-test.timer && ! grep nofail /etc/fstab")
        .await?;
    ensure!(exit == 0, "{said}");
    Ok(HoldSet {
        units: units(&[WRITER, NGINX]),
        mounts: machine.guest.mounts(ID, &data0()).await?,
        quiesce: UpgradeConfig::none().quiesce,
    })
}

async fn holds_and_releases(machine: &Machine, set: &HoldSet, boot: &str) -> Result<()> {
    let guest = &machine.guest;
    let before = machine.traces().await?;
    let held = timed("startup", guest.startup(ID, set)).await?;
    ensure!(
        held.units
            .iter()
            .all(|u| u.active && u.startup.0 == "enabled"),
        "{held:?}"
    );
    let timer = held.quiesced.iter().find(|q| q.unit == TIMER);
    ensure!(
        timer.is_some_and(|t| t.active && t.startup.0 == "enabled"),
        "{held:?}"
    );
    ensure!(
        held.quiesced.iter().all(|q| q.unit.ends_with(".timer")),
        "{held:?}"
    );
    timed("hold", guest.hold(ID, set, &held)).await?;
    timed("hold again", guest.hold(ID, set, &held)).await?;
    let all = units(&[WRITER, NGINX, TIMER, "srv-data.mount"]);
    let views = guest.services(ID, &all).await?;
    ensure!(views.iter().all(|v| v.gated), "{views:?}");
    ensure!(
        views[..3].iter().all(|v| v.startup.0 == "disabled"),
        "{views:?}"
    );
    ensure!(!views[2].active, "{views:?}");
    ensure!(!guest.lifted(ID).await?);

    timed("stop", guest.stop(ID, &set.units, SERVICE)).await?;
    timed("stop again", guest.stop(ID, &set.units, SERVICE)).await?;
    ensure!(guest.start(ID, &starts(&[WRITER]), SERVICE).await.is_err());
    let error = guest
        .start(ID, &starts(&[NGINX]), SERVICE)
        .await
        .expect_err("held");
    ensure!(
        error.causes.iter().any(|c| c.contains("Assertion")),
        "{error:?}"
    );
    let (_, said) = machine
        .sh("/usr/sbin/policy-rc.d nginx restart; echo $?; /usr/sbin/policy-rc.d nginx.service start; echo $?; \
             /usr/sbin/policy-rc.d other start; echo $?")
        .await?;
    ensure!(said == "101\n101\n0", "{said}");

    in_use::refuses_what_is_in_use(machine).await?;

    // A restart without the data disk.
    machine.qmp("device_del", json!({ "id": "data0" })).await?;
    let until = Instant::now() + Duration::from_secs(20);
    while guest.has_disk(ID, "data0").await? {
        ensure!(Instant::now() < until, "the disk stays");
    }
    timed("restart", guest.restart(ID)).await?;
    let begun = Instant::now();
    machine.booted(Some(boot)).await?;
    println!(
        "restart until the agent answers: {} ms",
        begun.elapsed().as_millis()
    );
    let (_, state) = machine
        .sh("timeout 60 systemctl is-system-running --wait; systemctl is-active emergency.target multi-user.target \
             mini-writer nginx flipside-test.timer srv-data.mount")
        .await?;
    ensure!(
        state.ends_with("inactive\nactive\ninactive\ninactive\ninactive\ninactive"),
        "{state}"
    );
    println!(
        "state after the restart: {}",
        state.lines().next().unwrap_or("")
    );
    let views = guest.services(ID, &all).await?;
    ensure!(views.iter().all(|v| v.gated && !v.active), "{views:?}");

    // MG-15: the saved startup types are restored. An installer that meddles with one does not win.
    machine
        .sh("systemctl enable nginx; systemctl mask flipside-test.service")
        .await?;
    machine.sh("systemctl unmask flipside-test.service").await?;
    timed("prepare_release", guest.prepare_release(ID, set, &held)).await?;
    timed(
        "prepare_release again",
        guest.prepare_release(ID, set, &held),
    )
    .await?;
    let views = guest.services(ID, &all).await?;
    ensure!(
        views[..3]
            .iter()
            .all(|v| v.startup.0 == "enabled" && v.gated),
        "{views:?}"
    );
    ensure!(guest.start(ID, &starts(&[NGINX]), SERVICE).await.is_err());
    // A failed PrepareMerge puts the hold back.
    timed("hold after release", guest.hold(ID, set, &held)).await?;
    let views = guest.services(ID, &all).await?;
    ensure!(
        views[..3].iter().all(|v| v.startup.0 == "disabled"),
        "{views:?}"
    );
    guest.prepare_release(ID, set, &held).await?;

    let device = json!({ "driver": "scsi-hd", "bus": "scsi.0", "drive": "data0", "serial": "data0",
        "device_id": "data0", "id": "data0" });
    machine.qmp("device_add", device).await?;
    timed("lift", guest.lift(ID)).await?;
    ensure!(guest.lifted(ID).await?);
    timed("open_data", guest.open_data(ID, &set.mounts)).await?;
    timed("open_data again", guest.open_data(ID, &set.mounts)).await?;
    ensure!(guest.mounts(ID, &data0()).await? == set.mounts);
    timed("start", guest.start(ID, &starts(&[WRITER, NGINX]), SERVICE)).await?;
    let views = guest.services(ID, &all).await?;
    ensure!(views.iter().all(|v| !v.gated), "{views:?}");
    timed(
        "start what was quiesced",
        guest.start(ID, &starts(&[TIMER]), SERVICE),
    )
    .await?;

    timed("lower", guest.lower(ID)).await?;
    ensure!(!guest.lifted(ID).await?);
    guest.lift(ID).await?;
    timed("cleanup", guest.cleanup(ID)).await?;
    timed("cleanup again", guest.cleanup(ID)).await?;
    let views = guest.services(ID, &all).await?;
    ensure!(views.iter().all(|v| v.active && !v.gated), "{views:?}");
    let after = machine.traces().await?;
    let (was, is) = (lines(&before), lines(&after));
    let differences: Vec<_> = was.symmetric_difference(&is).collect();
    ensure!(differences.is_empty(), "traces: {differences:#?}");

    // Once more as at the merge on Production, where nothing is held.
    timed("stop (no gates)", guest.stop(ID, &set.units, SERVICE)).await?;
    timed(
        "close_data (no gates)",
        guest.close_data(ID, &units(&["data0"])),
    )
    .await?;
    timed("open_data (no gates)", guest.open_data(ID, &set.mounts)).await?;
    timed(
        "start (no gates)",
        guest.start(ID, &starts(&[WRITER, NGINX]), SERVICE),
    )
    .await?;
    Ok(())
}
