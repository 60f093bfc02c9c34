//! Every target over its seeds and over some thousands of repeatable mutations of them.
#![allow(
    clippy::print_stdout,
    reason = "the figures are what a run is read for"
)]

use flipside_fuzzing::mutate::{Random, mutate};
use flipside_fuzzing::{TARGETS, Target};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Mutations of each target, and the time after which fewer will do: these run beside all other tests.
const MUTATIONS: u64 = 20_000;
const LONGEST: Duration = Duration::from_secs(5);

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz_folder().join("seeds").join(target);
    let entries = std::fs::read_dir(&folder).expect("the target has a folder of seeds");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("listed").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        (name.unwrap_or_default(), std::fs::read(path).expect("read"))
    };
    paths.into_iter().map(read).collect()
}

/// Tells the input if the target panics.
struct Running<'a>(&'a str, &'a str, &'a [u8]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(target, name, input) = self;
            println!("{target}: {name}: b\"{}\"", input.escape_ascii());
        }
    }
}

fn run(name: &str) {
    let (name, body): Target = *TARGETS.iter().find(|t| t.0 == name).expect("a target");
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "`{name}` has no seeds");
    for (seed, input) in &seeds {
        let _told = Running(name, seed, input);
        body(input);
    }
    let inputs: Vec<Vec<u8>> = seeds.into_iter().map(|(_, input)| input).collect();
    let (mut random, begun) = (Random::new(1), Instant::now());
    let mut count = 0;
    while count < MUTATIONS && begun.elapsed() < LONGEST {
        let input = mutate(&inputs, &mut random);
        let number = format!("mutation {count}");
        let _told = Running(name, &number, &input);
        body(&input);
        count += 1;
    }
    println!(
        "{name}: {} seeds, {count} mutations, {:?}",
        inputs.len(),
        begun.elapsed()
    );
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        /// The list here, the library's, the folders of seeds and the entry points for libFuzzer are the same.
        #[test]
        fn every_target_is_run_has_seeds_and_an_entry_point() {
            let here = [$(stringify!($name)),*];
            let listed: Vec<&str> = TARGETS.iter().map(|t| t.0).collect();
            assert_eq!(listed, here);
            let found = |folder: &str, end: &str| {
                let entries = std::fs::read_dir(fuzz_folder().join(folder)).expect("a folder");
                let names = entries.map(|e| e.expect("listed").file_name());
                let names = names.map(|n| n.to_string_lossy().trim_end_matches(end).to_owned());
                let mut names: Vec<String> = names.collect();
                names.sort();
                names
            };
            assert_eq!(found("seeds", ""), here);
            assert_eq!(found("fuzz_targets", ".rs"), here);
            let manifest = std::fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("read");
            for name in here {
                assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name}");
            }
        }
    };
}

targets! {
    agent agent_client api config graph guard guest image journal legbook nested qmp qmp_client story text values
}
