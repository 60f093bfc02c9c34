//! A story of disks that are System for four different reasons: made so, marked, by need, and by spreading.

use flipside_backend_sim::{SimOptions, SimVolume};
use flipside_model::{
    Command, DiskName, DiskRole, MountPoint, OperationalState as O, UpgradeState as S,
};
use flipside_prove::{Bench, End};

fn disk(name: &str) -> DiskName {
    DiskName::new(name).expect("valid")
}

fn volume(disks: &[&str], target: Option<&str>, swap: bool) -> SimVolume {
    SimVolume {
        disks: disks.iter().map(|d| disk(d)).collect(),
        target: target.map(str::to_owned),
        swap,
    }
}

/// data1 is marked and shares a volume with data2, data3 is paged to, data5 has a swap file and data4 holds its mount
/// point. Only data0 is data.
pub async fn what_a_disk_is_meant_to_be() -> Result<(), String> {
    let system = ["data1", "data2", "data3", "data4", "data5"];
    let options = SimOptions {
        busy_guests: true,
        check_every_call: true,
        roles: system.iter().map(|d| (disk(d), DiskRole::System)).collect(),
        volumes: vec![
            volume(&["data1", "data2"], None, false),
            volume(&["data3"], None, true),
            volume(&["data4"], Some("/srv"), false),
            volume(&["data5"], Some("/srv/deep"), true),
        ],
        mounts: vec![MountPoint {
            disk: disk("data0"),
            target: "/srv/data0".to_owned(),
            source: "LABEL=data0".to_owned(),
        }],
        ..SimOptions::default()
    };
    let mut bench = Bench::with(1, 6, options).await;
    bench.config.system_disks = vec![disk("data1")];
    bench.power_on().await;
    for (command, state) in [
        (Command::Split, S::Split),
        (Command::Merge, S::Merge),
        (Command::Commit, S::Commit),
        (Command::Finish, S::Idle),
    ] {
        let end = bench.command(command).await.map_err(|p| p.to_string())?;
        bench.check()?;
        if end != End::State(state, O::Ready, None) {
            return Err(format!("{command} ended in {end:?}"));
        }
        if command == Command::Split {
            let upgrade = bench
                .system()
                .machine_for(None)
                .map_err(|p| p.to_string())?;
            let view = bench.world.view(upgrade);
            let has: Vec<&str> = view.disks.keys().map(DiskName::as_str).collect();
            if has != ["data1", "data2", "data3", "data4", "data5", "system0"] {
                return Err(format!(
                    "the Upgrade Side has other disks than the System ones: {has:?}"
                ));
            }
        }
    }
    bench.duplex().await?;
    bench.check()
}
