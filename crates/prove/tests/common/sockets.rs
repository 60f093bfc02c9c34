//! A story of a service that somebody always knocks at: as long as its socket is up, it never stays down.

use flipside_backend_sim::{SimOptions, SimService};
use flipside_model::{Command, OperationalState as O, Side, UpgradeState as S};
use flipside_prove::{Bench, End};

/// Says what is wrong with the socket and the startup types of a side.
async fn as_before(bench: &Bench, side: Side) -> Result<(), String> {
    let machine = bench
        .system()
        .machine_for(Some(side))
        .map_err(|p| p.to_string())?;
    let ports = bench.world.ports();
    let units = ["db.socket", "off.socket", "db.service", "web.service"].map(str::to_owned);
    let views = ports
        .guest
        .services(machine, &units)
        .await
        .map_err(|e| e.to_string())?;
    let seen: Vec<(bool, &str)> = views
        .iter()
        .map(|v| (v.active, v.startup.0.as_str()))
        .collect();
    let expected = [
        (true, "static"),
        (false, "enabled"),
        (true, "enabled"),
        (true, "enabled"),
    ];
    if seen == expected {
        return Ok(());
    }
    Err(format!("{side}: {seen:?}, not {expected:?}"))
}

/// Two sockets start db: one that is up and cannot be enabled, one that is enabled and was stopped on purpose. Both are
/// afterwards what they were, whether the upgrade is made permanent or taken back (SV-03, SV-09).
pub async fn a_socket_starts_its_service_again() -> Result<(), String> {
    for end in [Command::Commit, Command::Abort] {
        let socket = |unit: &str, startup: &str| SimService {
            startup: startup.to_owned(),
            ..SimService::socket(unit, "db.service")
        };
        let data = ["/srv/data0"];
        let options = SimOptions {
            busy_guests: true,
            // Not before the socket was stopped: that is the administrator's doing, not the product's.
            check_every_call: false,
            services: vec![
                SimService::controlled("db.service", &data),
                SimService::controlled("web.service", &data),
                SimService::by_itself("cron.service"),
                socket("db.socket", "static"),
                socket("off.socket", "enabled"),
            ],
            ..SimOptions::default()
        };
        let mut bench = Bench::with(1, 1, options).await;
        bench.power_on().await;
        let production = bench.system().machine_for(Some(Side::Production));
        let production = production.map_err(|p| p.to_string())?;
        let guest = bench.world.ports().guest;
        let limit = std::time::Duration::from_secs(10);
        let off = ["off.socket".to_owned()];
        guest
            .stop(production, &off, limit)
            .await
            .map_err(|e| e.to_string())?;
        let on = [flipside_platform::UnitStart {
            unit: "db.socket".to_owned(),
            required: true,
        }];
        guest
            .start(production, &on, limit)
            .await
            .map_err(|e| e.to_string())?;
        as_before(&bench, Side::Production).await?;
        bench.world.set_options(|o| o.check_every_call = true);
        let last = match end {
            Command::Commit => S::Commit,
            _ => S::Abort,
        };
        for (command, state) in [
            (Command::Split, S::Split),
            (Command::Merge, S::Merge),
            (end, last),
        ] {
            let ended = bench.command(command).await.map_err(|p| p.to_string())?;
            bench.check()?;
            if ended != End::State(state, O::Ready, None) {
                return Err(format!("{command} ended in {ended:?}"));
            }
            match state {
                // SV-06, SV-07: the Production Side is not touched, and restored by what was saved alone.
                S::Split => as_before(&bench, Side::Production).await?,
                S::Merge => as_before(&bench, Side::Upgrade).await?,
                _ => {}
            }
        }
        let ended = bench
            .command(Command::Finish)
            .await
            .map_err(|p| p.to_string())?;
        if ended != End::State(S::Idle, O::Ready, None) {
            return Err(format!("finish ended in {ended:?}"));
        }
        bench.duplex().await?;
        as_before(&bench, Side::Production).await?;
    }
    Ok(())
}
