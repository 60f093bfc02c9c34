//! The developers' chores behind `./dev`.
fn main() {}
