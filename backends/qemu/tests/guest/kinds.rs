//! Units of every kind of startup type, and a socket that would start its service again: held and restored exactly.

use crate::machine::Machine;
use crate::{ID, Result, SERVICE, lines, starts, timed, units};
use flipside_platform::{GuestPort, HoldSet};

const SOCKET: &str = "flipside-sock.socket";
const KNOCKED: &str = "flipside-sock.service";
const INSTANCE: &str = "flipside-inst@a.service";
const STATIC: &str = "flipside-static.service";
const MASKED: &str = "flipside-masked.service";

/// Makes the units in a folder of systemd's that is neither the packages' nor the administrator's.
const MAKE: &str = "set -e; mkdir -p /usr/local/lib/systemd/system; cd /usr/local/lib/systemd/system
for unit in sock static masked inst@; do
    printf '[Service]\\nExecStart=tail -f /dev/null\\n' >flipside-$unit.service
done
printf '[Install]\\nWantedBy=multi-user.target\\n' >>flipside-inst@.service
printf '[Socket]\\nListenStream=127.0.0.1:7777\\n[Install]\\nWantedBy=sockets.target\\n' >flipside-sock.socket
ln -sf flipside-static.service flipside-other.service
systemctl daemon-reload
systemctl mask flipside-masked.service
systemctl enable --now flipside-inst@a.service flipside-sock.socket
systemctl start flipside-static.service
bash -c '</dev/tcp/127.0.0.1/7777'
timeout 20 sh -c 'until systemctl is-active --quiet flipside-sock.service; do sleep 0.2; done'";

/// Startup type and activity of every unit, as systemd tells it.
const TELL: &str =
    "for unit in flipside-sock.socket flipside-sock.service flipside-inst@a.service \
flipside-static.service flipside-masked.service; do
    echo $unit $(systemctl is-enabled $unit) $(systemctl is-active $unit)
done";

const BEFORE: &str = "flipside-sock.socket enabled active
flipside-sock.service static active
flipside-inst@a.service enabled active
flipside-static.service static active
flipside-masked.service masked inactive";

// SV-02, SV-03, SV-09: static, masked, an instance of a template, and a service behind a socket.
pub(crate) async fn are_held_and_restored(machine: &Machine) -> Result<()> {
    let guest = &machine.guest;
    let (exit, said) = machine.sh(MAKE).await?;
    ensure!(exit == 0, "{said}");
    let (_, told) = machine.sh(TELL).await?;
    ensure!(told == BEFORE, "{told}");
    let before = machine.traces().await?;
    let set = HoldSet {
        units: units(&[INSTANCE, KNOCKED, STATIC, MASKED]),
        mounts: Vec::new(),
        quiesce: Vec::new(),
    };
    // RC-32: another name is told as such.
    let other = guest
        .services(ID, &units(&["flipside-other.service"]))
        .await?;
    ensure!(other[0].alias_of.as_deref() == Some(STATIC), "{other:?}");
    // SV-01: the list has the instance and the static one, not the template and not the other name.
    let all = timed("all_services", guest.all_services(ID)).await?;
    let listed: Vec<&str> = all.iter().map(|s| s.unit.as_str()).collect();
    ensure!(
        [INSTANCE, KNOCKED, STATIC]
            .iter()
            .all(|u| listed.contains(u)),
        "{listed:?}"
    );
    ensure!(
        !listed.contains(&"flipside-inst@.service") && !listed.contains(&"flipside-other.service"),
        "{listed:?}"
    );

    let held = timed("startup of all kinds", guest.startup(ID, &set)).await?;
    let saved: Vec<(&str, &str, bool)> = held
        .units
        .iter()
        .map(|s| (s.unit.as_str(), s.startup.0.as_str(), s.active))
        .collect();
    let expected = [
        (INSTANCE, "enabled", true),
        (KNOCKED, "static", true),
        (STATIC, "static", true),
        (MASKED, "masked", false),
        (SOCKET, "enabled", true),
    ];
    ensure!(saved == expected, "{saved:?}");
    for _ in 0..2 {
        timed("hold all kinds", guest.hold(ID, &set, &held)).await?;
    }
    let everything = units(&[INSTANCE, KNOCKED, STATIC, MASKED, SOCKET]);
    timed("stop all kinds", guest.stop(ID, &everything, SERVICE)).await?;
    // Nobody is at home, and nobody comes home.
    let (knocked, _) = machine.sh("bash -c '</dev/tcp/127.0.0.1/7777'").await?;
    ensure!(knocked != 0, "the socket still listens");
    machine.sh("systemctl start flipside-sock.socket").await?;
    let (_, told) = machine.sh(TELL).await?;
    let held_now = "flipside-sock.socket enabled inactive
flipside-sock.service static inactive
flipside-inst@a.service disabled inactive
flipside-static.service static inactive
flipside-masked.service masked inactive";
    ensure!(told == held_now, "{told}");

    timed("release all kinds", guest.prepare_release(ID, &set, &held)).await?;
    guest.lift(ID).await?;
    let order = starts(&[SOCKET, INSTANCE, KNOCKED, STATIC]);
    timed("start all kinds", guest.start(ID, &order, SERVICE)).await?;
    timed("cleanup", guest.cleanup(ID)).await?;
    let (_, told) = machine.sh(TELL).await?;
    ensure!(told == BEFORE, "{told}");
    let after = machine.traces().await?;
    let (was, is) = (lines(&before), lines(&after));
    let differences: Vec<_> = was.symmetric_difference(&is).collect();
    ensure!(differences.is_empty(), "traces: {differences:#?}");
    Ok(())
}
