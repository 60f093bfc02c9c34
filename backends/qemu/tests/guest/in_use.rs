//! What is in use is refused by name, and nothing is forced.

use super::*;

pub(crate) async fn refuses_what_is_in_use(machine: &Machine) -> Result<()> {
    let guest = &machine.guest;
    let disks = units(&["data0"]);
    let busy = request(&["sh", "-c", "exec 3>/srv/data/busy; sleep 600"], &[], None);
    let user = guest.exec_start(ID, &busy).await?;
    let private = request(
        &[
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sleep",
            "1234",
        ],
        &[],
        None,
    );
    let other = guest.exec_start(ID, &private).await?;
    let until = Instant::now() + Duration::from_secs(20);
    while machine
        .sh("test -e /srv/data/busy && pgrep -x sleep | wc -l")
        .await?
        .1
        != "2"
    {
        ensure!(Instant::now() < until);
    }
    let begun = Instant::now();
    let error = guest
        .close_data(ID, &disks)
        .await
        .expect_err("a file is open");
    println!(
        "close_data, refused: {} ms: {error}",
        begun.elapsed().as_millis()
    );
    ensure!(error.kind == PortErrorKind::InUse, "{error:?}");
    ensure!(error.component.as_deref() == Some("/srv/data"), "{error:?}");
    ensure!(
        error.message.contains("sh (process") || error.message.contains("sleep (process"),
        "{error:?}"
    );
    ensure!(
        error.causes.iter().any(|c| c.contains("/srv/data/busy")),
        "{error:?}"
    );
    ensure!(
        guest.mounts(ID, &crate::data0()).await?.len() == 1,
        "nothing was unmounted"
    );
    guest.exec_kill(ID, user).await?;
    machine.finish(user).await?;

    let begun = Instant::now();
    let error = guest
        .close_data(ID, &disks)
        .await
        .expect_err("another namespace");
    println!(
        "close_data, refused: {} ms: {error}",
        begun.elapsed().as_millis()
    );
    ensure!(
        error.kind == PortErrorKind::InUse && error.message.contains("sleep (process"),
        "{error:?}"
    );
    guest.exec_kill(ID, other).await?;
    machine.finish(other).await?;

    timed("close_data", guest.close_data(ID, &disks)).await?;
    timed("close_data again", guest.close_data(ID, &disks)).await?;
    ensure!(guest.mounts(ID, &crate::data0()).await? == Vec::<MountPoint>::new());

    // A process that has the bare device open, without claiming it.
    let raw = request(
        &[
            "sh",
            "-c",
            "exec 3</dev/disk/by-label/flipside-data; sleep 600",
        ],
        &[],
        None,
    );
    let raw = guest.exec_start(ID, &raw).await?;
    let until = Instant::now() + Duration::from_secs(20);
    while machine.sh("pgrep -x sleep | wc -l").await?.1 != "1" {
        ensure!(Instant::now() < until);
    }
    let error = guest
        .close_data(ID, &disks)
        .await
        .expect_err("the device is open");
    println!("close_data, refused: {error}");
    ensure!(error.kind == PortErrorKind::InUse, "{error:?}");
    guest.exec_kill(ID, raw).await?;
    machine.finish(raw).await?;
    timed("close_data, third", guest.close_data(ID, &disks)).await?;
    Ok(())
}
