//! Every story passes; with a mistake planted, `planted.rs` demands that one does not.

mod common;

use common::stories::STORIES;

#[test]
fn every_story_ends_well() {
    let failed: Vec<String> = STORIES
        .iter()
        .filter_map(|(name, story)| timed(name, story).err().map(|why| format!("{name}: {why}")))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn timed<T>(name: &str, story: impl FnOnce() -> T) -> T {
    let began = std::time::Instant::now();
    let result = story();
    eprintln!("{name}: {} ms", began.elapsed().as_millis());
    result
}
