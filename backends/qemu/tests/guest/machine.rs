//! The machine that the guest port's tests talk to: the mini image, booted under TCG on overlays that are thrown away.

use crate::{ID, Result};
use flipside_backend_qemu::guest::LinuxGuest;
use flipside_platform::{ExecOutput, ExecRequest, GuestPort};
use flipside_qmp::{QUERY_TIMEOUT, QmpClient};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::time::sleep;

/// A bound, not a target: 20 s on an idle machine, minutes on one that is busy.
const BOOT: Duration = Duration::from_secs(600);

/// Where the images are, or why they are not.
pub(crate) fn images() -> Result<PathBuf, String> {
    let folder = std::env::var_os("FLIPSIDE_GUEST_IMAGES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest"),
        PathBuf::from,
    );
    for image in ["mini.raw", "mini-data.raw"] {
        if !folder.join(image).is_file() {
            return Err(format!(
                "{} is missing: run guest/build.sh --only mini",
                folder.join(image).display()
            ));
        }
    }
    Ok(folder)
}

/// A machine on overlays in a temporary folder.
pub(crate) struct Machine {
    _folder: tempfile::TempDir,
    pub(crate) qemu: Child,
    qmp: QmpClient,
    pub(crate) guest: LinuxGuest,
}

impl Machine {
    pub(crate) async fn start(images: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-nodefaults",
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi,tb-size=128",
        ])
        .args(["-cpu", "Nehalem", "-m", "512", "-display", "none"])
        .args(["-serial", &format!("file:{}", at("serial"))])
        .args(["-device", "pcie-root-port,id=p1,chassis=1"])
        .args(["-device", "pcie-root-port,id=p2,chassis=2"])
        .args(["-device", "virtio-scsi-pci,id=scsi,bus=p1"])
        .args(["-device", "virtio-serial-pci,bus=p2"])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", at("qmp"))])
        .args([
            "-chardev",
            &format!("socket,id=agent,path={},server=on,wait=off", at("agent")),
        ])
        .args([
            "-device",
            "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        ]);
        for (disk, image) in [("system0", "mini.raw"), ("data0", "mini-data.raw")] {
            let image = images.join(image).canonicalize()?;
            let overlay = at(disk);
            let made = Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .args([image.as_os_str(), overlay.as_ref()])
                .status()
                .await?;
            ensure!(made.success(), "qemu-img");
            qemu.args([
                "-blockdev",
                &format!("driver=qcow2,node-name={disk},file.driver=file,file.filename={overlay}"),
                "-device",
                &format!(
                    "scsi-hd,bus=scsi.0,drive={disk},serial={disk},device_id={disk},id={disk}"
                ),
            ]);
        }
        let mut qemu = qemu.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let path = folder.path().join("qmp");
        let until = Instant::now() + Duration::from_secs(30);
        let qmp = loop {
            match QmpClient::connect(&path, Duration::from_secs(5)).await {
                Ok((qmp, _events)) => break qmp,
                Err(error) if Instant::now() > until => bail!("no QMP: {error}"),
                Err(_) => {}
            }
            ensure!(qemu.try_wait()?.is_none(), "QEMU ended");
            sleep(Duration::from_millis(50)).await;
        };
        let agent = folder.path().join("agent");
        let guest = LinuxGuest::new(move |id| (id == ID).then(|| agent.clone()));
        Ok(Self {
            _folder: folder,
            qemu,
            qmp,
            guest,
        })
    }

    /// Waits for a boot other than the one named.
    pub(crate) async fn booted(&self, before: Option<&str>) -> Result<String> {
        let until = Instant::now() + BOOT;
        loop {
            match self.guest.ping(ID).await {
                Ok(info) if before != Some(info.boot_id.as_str()) => return Ok(info.boot_id),
                _ if Instant::now() > until => bail!("the guest did not boot"),
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Runs a shell line of the test's own and returns its exit status and output.
    pub(crate) async fn sh(&self, line: &str) -> Result<(i32, String)> {
        let (exit, output) = self.run(&["sh", "-c", line], &[], None).await?;
        let text = String::from_utf8_lossy(&output.out).into_owned()
            + &String::from_utf8_lossy(&output.err);
        Ok((exit, text.trim().to_owned()))
    }

    pub(crate) async fn run(
        &self,
        argv: &[&str],
        env: &[&str],
        limit: Option<Duration>,
    ) -> Result<(i32, ExecOutput)> {
        let handle = self
            .guest
            .exec_start(ID, &request(argv, env, limit))
            .await?;
        self.finish(handle).await
    }

    pub(crate) async fn finish(&self, handle: u64) -> Result<(i32, ExecOutput)> {
        let mut all = ExecOutput::default();
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let new = self.guest.exec_poll(ID, handle).await?;
            all.out.extend(new.out);
            all.err.extend(new.err);
            if let Some(exit) = new.exit {
                return Ok((exit, all));
            }
            ensure!(Instant::now() < until, "the program did not end: {all:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything under /etc and what else a hold touches, as one text.
    pub(crate) async fn traces(&self) -> Result<String> {
        let (exit, text) = self
            .sh(
                "cd / && find etc usr/sbin/policy-rc.d var/lib/flipside 2>/dev/null \
                 \\( -type l -printf '%p -> %l\\n' -o -type d -printf '%p %m\\n' \\) | sort; \
                 find etc -type f -exec md5sum {} + | sort -k 2; stat -c '%n %a %u %g' /etc/fstab; \
                 ls usr/sbin/policy-rc.d* 2>/dev/null; true",
            )
            .await?;
        ensure!(exit == 0 && text.len() > 1000, "{text}");
        Ok(text)
    }

    pub(crate) async fn qmp(&self, command: &str, arguments: Value) -> Result<Value> {
        Ok(self.qmp.execute(command, arguments, QUERY_TIMEOUT).await?)
    }
}

pub(crate) fn request(argv: &[&str], env: &[&str], limit: Option<Duration>) -> ExecRequest {
    ExecRequest {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: env.iter().map(|e| (*e).to_owned()).collect(),
        timeout: limit,
    }
}
