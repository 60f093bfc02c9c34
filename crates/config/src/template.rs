//! The commented file that `flipside config new` writes.

/// Returns a configuration file that is valid as it is, and says what every key means.
pub fn template() -> &'static str {
    include_str!("template.Config")
}
