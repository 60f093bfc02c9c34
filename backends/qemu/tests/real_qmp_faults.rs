//! Every QMP command of every operation fails once, or its reply is lost, on real QEMU: a proxy stands between flipside
//! and QEMU. In each case the operation says which command failed, does no more than take back what it did, and succeeds
//! when it is asked for again.
#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "shared with the other real tests")]
mod machine;

use flipside_model::{Leg, MachineId};
use flipside_platform::{
    DiskPort, DiskSource, MachinePort, PortError, PortErrorKind, PortResult, ResyncPhase,
    ResyncStart, RunState,
};
use machine::program::Program;
use machine::proxy::{Proxy, Spoil, wrapper};
use machine::spoil::{Operation, named, spoil_each};
use machine::{Bench, M1, M2, disk, legs, until};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const BOTH: [Leg; 2] = [Leg::A, Leg::B];
async fn bench(program: &Program) -> (Bench, Proxy) {
    let bench = Bench::with_qemu(program, wrapper).await;
    let proxy = Proxy::serve(&bench, M1);
    bench.boot().await;
    bench.writes(M1, 5).await;
    (bench, proxy)
}

async fn settle(bench: &Bench, run: RunState) {
    let now = bench.view(M1).await.run;
    match (run, now) {
        (RunState::Running, RunState::Paused) => bench.system.resume(M1).await.expect("continued"),
        (RunState::Paused, RunState::Running) => bench.system.pause(M1).await.expect("paused"),
        _ => {}
    }
    assert_eq!(bench.view(M1).await.run, run);
}

// Faults 30 and 31.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "hundreds of machines and operations, up to minutes on a busy host: `./dev test --full`"]
async fn what_is_done_to_a_machine_fails_at_every_command() {
    let (bench, proxy) = bench(&Program::QUIET).await;
    let system = &bench.system;
    let plain = |name| Operation {
        name,
        undo: &[],
        harmless: &[],
    };
    let run = async |wanted| assert_eq!(bench.view(M1).await.run, wanted);
    spoil_each(
        &proxy,
        plain("pause"),
        async || settle(&bench, RunState::Running).await,
        async || system.pause(M1).await,
        async || run(RunState::Paused).await,
    )
    .await;
    spoil_each(
        &proxy,
        plain("resume"),
        async || settle(&bench, RunState::Paused).await,
        async || system.resume(M1).await,
        async || run(RunState::Running).await,
    )
    .await;
    for up in [true, false] {
        spoil_each(
            &proxy,
            plain("set_link"),
            async || system.set_link(M1, !up).await.expect("set"),
            async || system.set_link(M1, up).await,
            async || assert_eq!(bench.view(M1).await.link_up, up),
        )
        .await;
    }
    spoil_each(
        &proxy,
        plain("reset"),
        async || settle(&bench, RunState::Running).await,
        async || system.reset(M1).await,
        async || run(RunState::Running).await,
    )
    .await;
    spoil_each(
        &proxy,
        plain("power_down"),
        async || settle(&bench, RunState::Running).await,
        async || system.power_down(M1).await,
        async || run(RunState::Running).await,
    )
    .await;
    bench.system.pause(M1).await.expect("paused");
    assert!(bench.equal("data0"));
}

// Faults 30 and 31.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "hundreds of machines and operations, up to minutes on a busy host: `./dev test --full`"]
async fn a_start_and_an_end_fail_at_every_command() {
    let (bench, proxy) = bench(&Program::QUIET).await;
    let begun = Instant::now();
    spoil_each(
        &proxy,
        Operation {
            name: "start",
            // A machine that could not be started is ended.
            undo: &["quit"],
            // Greeted once more while its start lasts.
            harmless: &["qmp_capabilities", "query-uuid", "query-name"],
        },
        async || bench.system.end(M1).await.expect("ended"),
        async || {
            let plan = flipside_platform::StartPlan {
                copy_limit: None,
                mode: flipside_platform::StartMode::Boot { after: None },
                disks: [disk("system0"), disk("data0")]
                    .map(|d| (d, legs(&BOTH)))
                    .into(),
            };
            bench.system.start(M1, &plan).await
        },
        async || {
            assert_eq!(bench.view(M1).await.run, RunState::Running);
            assert!(!bench.view(M1).await.link_up);
        },
    )
    .await;
    println!("start {} ms", begun.elapsed().as_millis());
    spoil_each(
        &proxy,
        Operation {
            name: "end",
            undo: &[],
            harmless: &["qmp_capabilities", "query-uuid", "query-name", "quit"],
        },
        async || bench.boot().await,
        async || bench.system.end(M1).await,
        async || assert!(bench.system.list().await.expect("listed").is_empty()),
    )
    .await;
}

// Faults 30 and 31.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "hundreds of machines and operations, up to minutes on a busy host: `./dev test --full`"]
async fn changes_of_disks_fail_at_every_command() {
    let (bench, proxy) = bench(&Program::SYSTEM).await;
    let (system, data0) = (&bench.system, disk("data0"));
    bench.system.pause(M1).await.expect("paused");
    // A swap that fails is finished backwards: the old root is built again.
    let back = ["qom-set", "blockdev-add", "blockdev-del"];
    for wanted in [&[Leg::A][..], &BOTH] {
        let before = if wanted.len() == 2 {
            &[Leg::A][..]
        } else {
            &BOTH
        };
        spoil_each(
            &proxy,
            Operation {
                name: "set_legs",
                undo: &back,
                harmless: &[],
            },
            async || system.set_legs(M1, &data0, before).await.expect("set"),
            async || system.set_legs(M1, &data0, wanted).await,
            async || {
                let view = bench.view(M1).await;
                assert_eq!(view.run, RunState::Paused);
                assert_eq!(view.disks[&data0].source, legs(wanted));
                assert_eq!(view.disks[&data0].dirty_bytes.is_some(), wanted.len() == 1);
            },
        )
        .await;
    }
    bench.system.resume(M1).await.expect("continued");
    let plug = async |on: &[Leg]| system.plug(M1, &data0, on).await;
    spoil_each(
        &proxy,
        Operation {
            name: "unplug",
            undo: &[],
            // Asking twice is refused by QEMU as well: whether the disk goes is what counts.
            harmless: &["device_del"],
        },
        async || plug(&BOTH).await.expect("plugged"),
        async || system.unplug(M1, &data0).await,
        async || assert!(!bench.view(M1).await.disks.contains_key(&data0)),
    )
    .await;
    for on in [&[Leg::A][..], &BOTH] {
        spoil_each(
            &proxy,
            Operation {
                name: "plug",
                undo: &["blockdev-del"],
                harmless: &[],
            },
            async || system.unplug(M1, &data0).await.expect("unplugged"),
            async || plug(on).await,
            async || assert_eq!(bench.disk_view(M1, "data0").await.source, legs(on)),
        )
        .await;
    }
    bench.writes(M1, 5).await;
}

// Faults 30 and 31: what a disk's changes are is never guessed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "hundreds of machines and operations, up to minutes on a busy host: `./dev test --full`"]
async fn carrying_changes_fails_at_every_command() {
    let (bench, proxy) = bench(&Program::QUIET).await;
    let (system, data0) = (&bench.system, disk("data0"));
    bench.simplex().await;
    bench.writes(M1, 20).await;
    bench.system.pause(M1).await.expect("paused");
    let marked = bench.disk_view(M1, "data0").await.dirty_bytes;
    assert_eq!(marked, Some(65_536));
    let marks = async || assert_eq!(bench.disk_view(M1, "data0").await.dirty_bytes, marked);
    let closes = |name| Operation {
        name,
        undo: &["blockdev-del"],
        harmless: &[],
    };
    spoil_each(
        &proxy,
        closes("carry_out"),
        async || system.drop_carried(&data0).await.expect("dropped"),
        async || {
            let carried = system.carry_out(M1, &data0).await?;
            assert_eq!(carried.dirty_bytes, 65_536);
            Ok(())
        },
        marks,
    )
    .await;
    spoil_each(
        &proxy,
        closes("carry_in"),
        async || {},
        async || {
            assert_eq!(system.carry_in(M1, &data0).await?, 65_536);
            Ok(())
        },
        marks,
    )
    .await;
}

async fn nearly(bench: &Bench) -> PortResult<()> {
    let begun = Instant::now();
    loop {
        match bench.system.resync_poll(M1, &disk("data0")).await?.phase {
            ResyncPhase::Nearly => return Ok(()),
            ResyncPhase::Copying if begun.elapsed() < machine::PATIENCE => {}
            other => return Err(PortError::failed(format!("{other:?}"))),
        }
    }
}

async fn start(bench: &Bench) -> PortResult<()> {
    let how = ResyncStart::Bitmap;
    let system = &bench.system;
    system
        .resync_start(M1, &disk("data0"), Leg::A, Leg::B, how, 0)
        .await
}

/// Whatever an earlier case left: one leg, nothing under way, and something to copy.
async fn one_leg(bench: &Bench) {
    let (system, data0) = (&bench.system, disk("data0"));
    system.resync_cancel(M1, &data0).await.expect("given up");
    settle(bench, RunState::Paused).await;
    system.set_legs(M1, &data0, &[Leg::A]).await.expect("set");
    settle(bench, RunState::Running).await;
    bench.writes(M1, 1).await;
}

// Faults 30 and 31: legs are equal after a resynchronisation, whichever command of it failed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "hundreds of machines and operations, up to minutes on a busy host: `./dev test --full`"]
async fn a_resynchronisation_fails_at_every_command() {
    let (bench, proxy) = bench(&Program::QUIET).await;
    let (system, data0) = (&bench.system, disk("data0"));
    let both = async || {
        assert_eq!(bench.disk_view(M1, "data0").await.source, legs(&BOTH));
        settle(&bench, RunState::Running).await;
        bench.writes(M1, 1).await;
        settle(&bench, RunState::Paused).await;
        assert!(bench.equal("data0"));
        settle(&bench, RunState::Running).await;
    };
    spoil_each(
        &proxy,
        Operation {
            name: "resync_start and poll",
            // The target is closed when the first round cannot begin; later rounds begin by themselves.
            undo: &["blockdev-del"],
            harmless: &[],
        },
        async || one_leg(&bench).await,
        async || {
            start(&bench).await?;
            nearly(&bench).await
        },
        async || {},
    )
    .await;
    spoil_each(
        &proxy,
        Operation {
            name: "resync_cancel",
            undo: &[],
            harmless: &["job-cancel"],
        },
        async || {
            one_leg(&bench).await;
            start(&bench).await.expect("started");
        },
        async || system.resync_cancel(M1, &data0).await,
        async || {
            assert_eq!(bench.resync_phase().await, ResyncPhase::None);
            assert_eq!(bench.disk_view(M1, "data0").await.source, legs(&[Leg::A]));
        },
    )
    .await;
    spoil_each(
        &proxy,
        Operation {
            name: "resync_finish",
            // Whatever fails in the pause: the old root, and the guest runs on.
            undo: &[
                "stop",
                "cont",
                "qom-set",
                "blockdev-add",
                "blockdev-del",
                "block-dirty-bitmap-remove",
                "job-cancel",
                "job-dismiss",
            ],
            harmless: &[],
        },
        async || {
            one_leg(&bench).await;
            start(&bench).await.expect("started");
            nearly(&bench).await.expect("nearly done");
        },
        async || finish_as_the_keeper(&bench).await,
        both,
    )
    .await;
}

/// Looks at what there is, and finishes or begins again: as the engine's keeper does after a failure.
async fn finish_as_the_keeper(bench: &Bench) -> PortResult<()> {
    let (system, data0) = (&bench.system, disk("data0"));
    let view = system.observe(M1).await?;
    if view.run == RunState::Unresponsive {
        return Err(PortError::timed_out("no answer"));
    }
    let source = &view.disks[&data0].source;
    if *source == DiskSource::Placeholder {
        settle(bench, RunState::Paused).await;
        system.resync_cancel(M1, &data0).await?;
        system.set_legs(M1, &data0, &[Leg::A]).await?;
    }
    if view.run == RunState::Paused {
        system.resume(M1).await?;
    }
    // What is in the quorum was proved before: the keeper corrects the book, and that is all.
    if *source != legs(&BOTH) {
        if system.resync_poll(M1, &data0).await?.phase == ResyncPhase::None {
            start(bench).await?;
        }
        nearly(bench).await?;
        system.resync_finish(M1, &data0).await?;
    }
    Ok(())
}

// Faults 30 and 31: Production runs on, whichever command of a fork failed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "ninety forks: `./dev test --full`"]
async fn a_fork_fails_at_every_command() {
    let (bench, proxy) = bench(&Program::QUIET).await;
    let other = Proxy::serve(&bench, M2);
    let system = &bench.system;
    let ready = async || {
        bench.await_fork().await;
        system.fork_begin(M1, M2).await.expect("begun");
        until("the fork is ready", || async {
            system.fork_poll(M1).await.expect("polled").ready
        })
        .await;
    };
    let runs_on = async || {
        system.fork_cancel(M1).await.expect("given up");
        system.end(M2).await.expect("ended");
        assert_eq!(bench.view(M1).await.run, RunState::Running);
        bench.writes(M1, 2).await;
    };
    let begin = Operation {
        name: "fork_begin",
        undo: &["migrate_cancel", "blockdev-del"],
        harmless: &[],
    };
    // A fork that failed half-way is given up, and begun again with a new process.
    let begin_again = async || {
        let begun = system.fork_begin(M1, M2).await;
        proxy.over();
        if begun.is_err() {
            runs_on().await;
            bench.await_fork().await;
        }
        begun
    };
    spoil_each(
        &proxy,
        begin,
        async || bench.await_fork().await,
        begin_again,
        runs_on,
    )
    .await;
    let keep = BTreeMap::from([(disk("system0"), Leg::A), (disk("data0"), Leg::A)]);
    for (spoiled, side) in [(&proxy, "source"), (&other, "target")] {
        spoil_each(
            spoiled,
            Operation {
                name: side,
                undo: &[
                    "migrate_cancel",
                    "migrate-continue",
                    "cont",
                    "qom-set",
                    "blockdev-add",
                    "blockdev-del",
                    "block-dirty-bitmap-add",
                ],
                harmless: &[],
            },
            ready,
            async || {
                let switched = system.fork_switch(M1, M2, &keep).await.map(drop);
                spoiled.over();
                if switched.is_err() {
                    // What the engine does: Production first, and everything anew.
                    runs_on().await;
                    duplex(&bench).await;
                    ready().await;
                }
                switched
            },
            async || {
                assert_eq!(bench.view(M1).await.run, RunState::Running);
                assert_eq!(bench.view(M2).await.run, RunState::Paused);
                assert!(!bench.view(M2).await.link_up);
                system.end(M2).await.expect("ended");
                bench.writes(M1, 2).await;
                duplex(&bench).await;
            },
        )
        .await;
    }
}

/// Gives machine 1 both legs again, copied by hand.
async fn duplex(bench: &Bench) {
    settle(bench, RunState::Paused).await;
    for name in ["system0", "data0"] {
        std::fs::copy(bench.leg(name, Leg::A), bench.leg(name, Leg::B)).expect("copied");
        let set = bench.system.set_legs(M1, &disk(name), &BOTH).await;
        set.expect("set");
    }
    settle(bench, RunState::Running).await;
}

// Fault 32: no event comes, and the polled state is enough.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "hundreds of machines and operations, up to minutes on a busy host: `./dev test --full`"]
async fn a_fork_and_a_resynchronisation_need_no_event() {
    let (bench, proxy) = bench(&Program::BUSY).await;
    Proxy::serve(&bench, M2).mute(true);
    proxy.mute(true);
    let begun = Instant::now();
    bench.await_fork().await;
    bench.system.fork_begin(M1, M2).await.expect("begun");
    until("the fork is ready", || async {
        bench.system.fork_poll(M1).await.expect("polled").ready
    })
    .await;
    let keep = BTreeMap::from([(disk("system0"), Leg::A), (disk("data0"), Leg::A)]);
    let figures = bench.system.fork_switch(M1, M2, &keep).await;
    println!("{figures:?} in {} ms", begun.elapsed().as_millis());
    figures.expect("switched");
    bench.system.end(M2).await.expect("ended");
    bench.writes(M1, 300).await;
    start(&bench).await.expect("started");
    nearly(&bench).await.expect("nearly");
    let data0 = disk("data0");
    let finished = bench.system.resync_finish(M1, &data0).await;
    finished.expect("finished");
    bench.system.pause(M1).await.expect("paused");
    assert!(bench.equal("data0"));
}

// Faults 29 and 31: a reply that is later than any deadline is a time-out, and nothing is mistaken for it afterwards.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for a deadline of 10 s: `./dev test --full`"]
async fn a_reply_later_than_its_deadline_is_a_time_out() {
    let (bench, proxy) = bench(&Program::QUIET).await;
    let before = bench.view(M1).await;
    // The connection is there: the next commands are `query-status` and `stop`.
    proxy.arm(1, Spoil::Delay(Duration::from_secs(12)));
    let late = bench.system.pause(M1).await.expect_err("late");
    let (command, later) = proxy.disarm().expect("met");
    assert_eq!(
        (late.kind, command.as_str()),
        (PortErrorKind::TimedOut, "stop")
    );
    assert!(later.is_empty(), "{later:?}");
    assert!(named(&late, "stop"), "{late:?}");
    until("it answers", || async {
        bench.view(M1).await.run == RunState::Paused
    })
    .await;
    bench.system.resume(M1).await.expect("continued");
    assert_eq!(bench.view(M1).await.disks, before.disks);
    bench.writes(M1, 5).await;
    assert_eq!(
        bench.system.list().await.expect("listed"),
        vec![MachineId(1)]
    );
}
