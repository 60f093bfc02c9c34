//! What is asserted of every decoder that meets foreign bytes.
//!
//! Each target is a function over bytes that panics when a promise is broken. It is run in two ways: by this package's own
//! test, over the committed seeds and some thousands of repeatable mutations of them, and by libFuzzer (`./dev fuzz`), whose
//! entry points in `fuzz/fuzz_targets` hold nothing but a call. `docs/fuzzing.md` lists what each target asserts.
#![forbid(unsafe_code)]

pub mod mutate;
mod oracle;
mod targets;

pub use targets::{
    agent, agent_client, api, config, graph, guard, guest, image, journal, legbook, nested, qmp,
    qmp_client, story, text, values,
};

/// One target: its name, which is that of its seeds' folder and its libFuzzer binary, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("agent", agent),
    ("agent_client", agent_client),
    ("api", api),
    ("config", config),
    ("graph", graph),
    ("guard", guard),
    ("guest", guest),
    ("image", image),
    ("journal", journal),
    ("legbook", legbook),
    ("nested", nested),
    ("qmp", qmp),
    ("qmp_client", qmp_client),
    ("story", story),
    ("text", text),
    ("values", values),
];
