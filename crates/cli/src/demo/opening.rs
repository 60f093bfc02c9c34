//! Chapters 1 and 2: a server, a system of two legs per disk, people who use it, and the upgrade copied in.

use super::earlier::Marker;
use super::limits::{CHECK, COPY, CREATE, PAGE, SERVER, SHORT, START, UNPACK};
use super::place::{SYSTEM, free_port};
use super::process::Process;
use super::runner::Show;
use super::stage::{Stage, late};
use super::teller::typed;
use super::trouble::{Trouble, cannot};
use super::visitors::Visitors;
use flipside_model::api::Version;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Ports of the host that are tried first.
const HTTP: u16 = 18080;
const POSTGRES: u16 = 15432;
const CONSOLE: u16 = 17070;

/// How long the client watches before anything is done, so that there is something to compare with.
const WATCH: Duration = Duration::from_secs(10);

/// The phases of the client in these chapters.
pub(super) const BEFORE: &str = "before the split";

/// What is controlled and how health is told. The check needs nothing but bash.
const CONFIG: &str = r#"version = 1
title = "Debian packages, a kernel, and release 2.0 of the page"

# What the users depend on, in start order. Everything else on the server is the operating system's.
services = ["postgresql@15-main.service", "demo-page.service", "nginx.service"]

# Users are let in when the page answers through nginx, with a row from the database.
[[health]]
command = ["/bin/bash", "-c", '''exec 3<>/dev/tcp/127.0.0.1/80; printf "GET /health HTTP/1.0\r\n\r\n" >&3; grep -q "^ok" <&3''']
"#;

pub(super) async fn tell(stage: &mut Stage) -> Result<(), Trouble> {
    stage.teller.say(
        "This is the story of one upgrade. A Debian server with PostgreSQL on a data disk, nginx and a small page serves \
         people the whole time; it is upgraded, kernel included, on its flip side.",
    )?;
    stage.chapter("a duplexed server")?;
    serve(stage).await?;
    create(stage).await?;
    stage.chapter("before the split")?;
    copy_in(stage).await?;
    configure(stage).await
}

async fn serve(stage: &mut Stage) -> Result<(), Trouble> {
    stage.say(
        "The server of flipside runs without privileges, in a directory of its own. All other commands are clients of it, \
         and what it runs outlives it.",
    )?;
    let place = &stage.place;
    let listen = format!("127.0.0.1:{}", free_port(CONSOLE)?);
    let (state, socket) = (place.state(), place.socket());
    let (state, socket) = (state.to_string_lossy(), socket.to_string_lossy());
    let argv = [
        "serve",
        "--state-dir",
        &state,
        "--socket",
        &socket,
        "--listen",
        &listen,
    ];
    stage.teller.line("")?;
    stage
        .teller
        .command(&format!("flipside {} 2>server.log &", typed(&argv)))?;
    Marker::default().write(place)?;
    let log = place.server_log();
    let open = || -> std::io::Result<(File, File)> {
        let out = File::create(&log)?;
        Ok((out.try_clone()?, out))
    };
    let (out, err) = open().map_err(cannot(format!("write `{}`", log.display())))?;
    // A session of its own: neither an interrupt of the demo nor the end of its terminal is one of the server.
    // `setsid` becomes the program that it starts, so the process id stays.
    let mut server = Command::new("setsid")
        .arg(&stage.runner.exe)
        .args(argv)
        .current_dir(&place.dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(cannot("start the server"))?;
    let pid = i32::try_from(server.id()).unwrap_or(0);
    let marker = Marker {
        server: Process::of(pid),
        ..Marker::default()
    };
    marker.clone().write(place)?;
    let deadline = Instant::now() + SERVER.after;
    let version: Version = loop {
        match stage.client().get("/v1/version").await {
            Ok(version) => break version,
            Err(failure) if Instant::now() >= deadline => {
                return Err(late(SERVER, failure.text().trim()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        if let Ok(Some(status)) = server.try_wait() {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<String> = log.lines().map(flipside_activity::clean).collect();
            let tail = lines[lines.len().saturating_sub(20)..].to_vec();
            return Err(Trouble::new(format!("the server ended with {status}"))
                .of(&format!("flipside {}", typed(&argv)), tail));
        }
    };
    stage.note(&format!(
        "flipside {} serves as process {}",
        version.version, version.pid
    ))?;
    stage.http = free_port(HTTP)?;
    stage.postgres = free_port(POSTGRES)?;
    let marker = Marker {
        http: stage.http,
        postgres: stage.postgres,
        ..marker
    };
    marker.write(&stage.place)
}

async fn create(stage: &mut Stage) -> Result<(), Trouble> {
    stage.say(
        "A system is made from the images: every disk gets two legs, one in each enclosure, and every write goes to both. \
         Its ports are published on this machine by the front door.",
    )?;
    let (system, data) = (stage.guest.system.clone(), stage.guest.data.clone());
    let (system, data) = (system.to_string_lossy(), data.to_string_lossy());
    let (http, postgres) = (
        format!("{}:80", stage.http),
        format!("{}:5432", stage.postgres),
    );
    let argv = [
        "system",
        "create",
        SYSTEM,
        "--system-disk",
        &system,
        "--data-disk",
        &data,
        "--memory",
        "1G",
        "--cpus",
        "2",
        "--enclosure",
        "enclosure-a",
        "--enclosure",
        "enclosure-b",
        "--publish",
        &http,
        "--publish",
        &postgres,
    ];
    stage.live(&argv, CREATE).await?;
    stage.live(&["system", "start", SYSTEM], START).await?;
    let began = Instant::now();
    stage.fetch(PAGE).await?;
    stage.note(&format!(
        "{} answers {:.1} s after the start returned",
        stage.url(),
        began.elapsed().as_secs_f64()
    ))?;
    let page = stage.show_page().await?;
    stage.figures.old_kernel = page.kernel;
    let status = stage.status().await?;
    stage.figures.accelerator = status.accelerator.unwrap_or_default();
    stage.live(&["status"], SHORT).await?;
    stage.say(
        "From now on people use the page: ten requests a second, each on a new connection, every second one a write to the \
         database. Every acknowledged write is remembered.",
    )?;
    stage.visitors = Some(Visitors::start(stage.address(), BEFORE));
    tokio::time::sleep(WATCH).await;
    stage.none_failed(&[BEFORE])?;
    Ok(())
}

async fn copy_in(stage: &Stage) -> Result<(), Trouble> {
    let quick = stage.options.quick;
    stage.say(if quick {
        "The new release of the page is copied in before the split, so that both sides have it."
    } else {
        "What is to be installed is copied in before the split, so that both sides have it: newer Debian packages, a kernel \
         among them, and release 2.0 of the page."
    })?;
    let file = if quick {
        &stage.guest.page
    } else {
        &stage.guest.upgrade
    };
    let file = file.to_string_lossy();
    let to = if quick {
        format!("{SYSTEM}:/opt/page-2.0.deb")
    } else {
        format!("{SYSTEM}:/opt/upgrade.tar")
    };
    stage.live(&["copy", &file, &to], COPY).await?;
    if !quick {
        let argv = [
            "run",
            "--side",
            "production",
            "--",
            "tar",
            "-C",
            "/opt",
            "-xf",
            "/opt/upgrade.tar",
        ];
        stage.runner.flipside(&argv, UNPACK, Show::Lines).await?;
    }
    Ok(())
}

async fn configure(stage: &Stage) -> Result<(), Trouble> {
    stage.say(
        "An upgrade configuration file names what must stop and start for the users, and how to tell that all is well. \
         `flipside config new shop` makes one in which every key is explained; this is a short one.",
    )?;
    let path = stage.place.path("shop.Config");
    std::fs::write(&path, CONFIG).map_err(cannot(format!("write `{}`", path.display())))?;
    stage.teller.line("")?;
    stage.teller.command("cat shop.Config")?;
    CONFIG
        .lines()
        .try_for_each(|line| stage.teller.line(line))?;
    stage.lines(&["config", "check", "shop.Config"]).await?;
    stage.say(
        "The readiness check looks at everything that could go wrong later, as often as you like; it changes nothing.",
    )?;
    stage
        .live(&["check", "--config", "shop.Config"], CHECK)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::CONFIG;

    #[test]
    fn the_configuration_is_valid() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("shop.Config");
        std::fs::write(&path, CONFIG).expect("written");
        let (_, resolved) = flipside_config::load(&path).expect("valid");
        let config = resolved.config;
        let services: Vec<String> = config.services.iter().map(|s| s.unit()).collect();
        assert_eq!(
            services,
            [
                "postgresql@15-main.service",
                "demo-page.service",
                "nginx.service"
            ]
        );
        assert_eq!(config.health.len(), 1);
        assert!(config.health[0].command[2].contains(r#"HTTP/1.0\r\n\r\n"#));
    }
}
