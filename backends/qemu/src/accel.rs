//! Chooses between KVM and emulation, by trial.
//!
//! `/dev/kvm` may open, QEMU may start with it, and the guest still hang. Only a guest that answers proves KVM.
//! So a boot sector of eight bytes is run: it writes to QEMU's debug port, and QEMU ends with a status nothing
//! else gives. By then the firmware has run in real and in protected mode as well. Where KVM has to interpret these
//! modes itself (a virtual machine in a virtual machine) the guest does answer, a hundred times later than under
//! emulation, and a boot loader takes ten minutes: KVM is used only when it is not much slower than emulation.
//!
//! The answer is kept for this boot of the host and this version of QEMU. `FLIPSIDE_ACCEL` overrides it.

use crate::error;
use crate::host::version;
use crate::layout::Accelerator;
use crate::paths::{private_dir, write_atomically};
use crate::process::host_boot;
use flipside_platform::{PortError, PortResult};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long the tiny guest may take. It takes a tenth of a second, under emulation and with KVM that works.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// With KVM the tiny guest may take so many times as long as under emulation: the host may be busy with other things.
const MUCH_SLOWER: u32 = 5;

/// So long it may always take: less is nearly all start of the process.
const QUICK: Duration = Duration::from_secs(1);

/// What the guest writes to the debug port.
const WORD: u8 = 0x2a;

/// `isa-debug-exit` ends QEMU with twice the value plus one.
const STATUS: i32 = (WORD as i32) * 2 + 1;

/// The boot sector, in 16-bit real mode:
const PROGRAM: [u8; 8] = [
    0xb0, WORD, // mov al, WORD
    0xe6, 0xf4, // out 0xf4, al
    0xfa, // cli
    0xf4, // hlt
    0xeb, 0xfd, // jmp to the hlt
];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    boot: String,
    qemu: String,
    accelerator: Accelerator,
}

/// Reads `FLIPSIDE_ACCEL`.
pub(crate) fn from_environment() -> PortResult<Option<Accelerator>> {
    match std::env::var("FLIPSIDE_ACCEL").as_deref() {
        Ok("kvm") => Ok(Some(Accelerator::Kvm)),
        Ok("tcg") => Ok(Some(Accelerator::Tcg)),
        Ok("") | Err(_) => Ok(None),
        Ok(other) => Err(PortError::failed(format!(
            "FLIPSIDE_ACCEL is `{other}`: it may be `kvm` or `tcg`"
        ))),
    }
}

/// Says which accelerator works here, by what is known or by trial.
pub(crate) async fn choose(program: &Path, state: &Path) -> PortResult<Accelerator> {
    let (boot, qemu) = (host_boot().unwrap_or_default(), version(program).await?);
    let path = state.join("accel.json");
    let known = fs::read(&path).ok();
    let known = known.and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok());
    if let Some(known) = known
        && known.boot == boot
        && known.qemu == qemu
    {
        return Ok(known.accelerator);
    }
    let accelerator = if rustix::fs::access("/dev/kvm", rustix::fs::Access::WRITE_OK).is_ok() {
        let emulated = answers(program, state, Accelerator::Tcg, PROBE_TIMEOUT).await?;
        let limit = kvm_limit(emulated);
        match answers(program, state, Accelerator::Kvm, limit).await? {
            Some(_) => Accelerator::Kvm,
            None => Accelerator::Tcg,
        }
    } else {
        Accelerator::Tcg
    };
    tracing::info!(accelerator = accelerator.name(), "chosen by trial");
    let known = Known {
        boot,
        qemu,
        accelerator,
    };
    let bytes = serde_json::to_vec(&known)
        .map_err(|e| PortError::failed("cannot write down the accelerator").because(&e))?;
    write_atomically(&path, &bytes)?;
    Ok(accelerator)
}

/// Writes the tiny guest's disk: one sector, and a hole.
fn write_boot_disk(image: &Path) -> std::io::Result<()> {
    let mut sector = [0_u8; 512];
    sector[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut file = fs::File::create(image)?;
    file.write_all(&sector)?;
    // The firmware reads no disk smaller than one of its cylinders.
    file.set_len(1024 * 1024)
}

/// How long the tiny guest may take with KVM, by what it took under emulation.
fn kvm_limit(emulated: Option<Duration>) -> Duration {
    let limit = emulated.map_or(PROBE_TIMEOUT, |took| took * MUCH_SLOWER);
    limit.clamp(QUICK, PROBE_TIMEOUT)
}

/// Runs the tiny guest; says after what time it answered, none when it did not in time.
pub(crate) async fn answers(
    program: &Path,
    state: &Path,
    accelerator: Accelerator,
    limit: Duration,
) -> PortResult<Option<Duration>> {
    private_dir(state)?;
    let image = state.join(format!("probe-{}.img", std::process::id()));
    if let Err(e) = write_boot_disk(&image) {
        // What a full file system took must not stay.
        crate::paths::remove_file(&image)?;
        return Err(error::file(&e, "write", &image));
    }
    let node = serde_json::json!({
        "driver": "raw", "node-name": "boot", "read-only": true,
        "file": { "driver": "file", "filename": image, "read-only": true },
    });
    let mut command = tokio::process::Command::new(program);
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args([
            "-machine",
            "pc-q35-7.2",
            "-m",
            "16",
            "-cpu",
            accelerator.cpu(),
        ])
        .args(["-accel", accelerator.name(), "-blockdev", &node.to_string()])
        .args(["-device", "virtio-blk-pci,drive=boot,bootindex=1"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .args([
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let begun = Instant::now();
    let ended = match command.spawn() {
        Ok(mut child) => {
            let ended = tokio::time::timeout(limit, child.wait()).await;
            if ended.is_err() {
                // A process that hangs in KVM may not even die; it is not waited for.
                let _ = child.start_kill();
            }
            ended
        }
        Err(e) => Ok(Err(e)),
    };
    crate::paths::remove_file(&image)?;
    match ended {
        Ok(Ok(status)) => {
            tracing::debug!(?status, signal = status.signal(), "the probe ended");
            Ok((status.code() == Some(STATUS)).then(|| begun.elapsed()))
        }
        Ok(Err(e)) => Err(
            PortError::failed(format!("cannot start `{}`", program.display()))
                .because(&e)
                .advise("Install QEMU (Debian: qemu-system-x86)"),
        ),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen: KVM 10.1 s, emulation 0.11 s, and ten minutes in GRUB.
    #[test]
    fn kvm_that_is_slower_than_emulation_is_not_waited_for() {
        let seconds = Duration::from_secs_f64;
        assert_eq!(kvm_limit(Some(seconds(0.11))), QUICK);
        assert_eq!(kvm_limit(Some(seconds(0.5))), seconds(2.5));
        assert_eq!(kvm_limit(Some(seconds(9.0))), PROBE_TIMEOUT);
        assert_eq!(kvm_limit(None), PROBE_TIMEOUT);
    }

    // The boot sector itself is proved with emulation, which always works.
    #[tokio::test]
    async fn the_tiny_guest_answers_under_emulation_and_the_choice_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let qemu = Path::new("qemu-system-x86_64");
        let answered = answers(qemu, dir.path(), Accelerator::Tcg, PROBE_TIMEOUT).await;
        assert!(answered.expect("it ran").is_some());
        let none = answers(qemu, dir.path(), Accelerator::Tcg, Duration::ZERO).await;
        assert_eq!(none.expect("it ran"), None, "too late is no answer");
        let known = Known {
            boot: host_boot().expect("known"),
            qemu: version(qemu).await.expect("said"),
            accelerator: Accelerator::Kvm,
        };
        let path = dir.path().join("accel.json");
        fs::write(&path, serde_json::to_vec(&known).expect("written down")).expect("written");
        let chosen = choose(qemu, dir.path()).await.expect("chosen");
        assert_eq!(chosen, Accelerator::Kvm, "what is known is not tried again");
        let others: Vec<_> = fs::read_dir(dir.path()).expect("listed").collect();
        assert_eq!(others.len(), 1, "the probe leaves nothing");
    }
}
