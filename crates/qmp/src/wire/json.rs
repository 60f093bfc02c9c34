//! Parses one line of JSON, after a look at what it would cost.

use std::sync::Arc;

use serde_json::Value;

use super::Violation;

/// Levels of nesting a message may have. `query-qmp-schema` has 6, a guest
/// agent's replies less; a long chain of disk images, which `query-block`
/// nests, still fits.
pub const MAX_DEPTH: usize = 64;

/// Commas and opening brackets a message may have. `query-qmp-schema`, the
/// largest reply known, has 16 thousand in QEMU 7.2. A parsed element takes up to
/// some hundreds of bytes, so without this a hostile `[0,0,0,…` would cost
/// sixteen times its size.
pub const MAX_ELEMENTS: usize = 256 * 1024;

/// Holds what a single message may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels of nesting.
    pub depth: usize,
    /// Commas and opening brackets.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: MAX_DEPTH,
            elements: MAX_ELEMENTS,
        }
    }
}

/// Parses one line within the limits.
///
/// # Errors
/// The [`Violation`] that was met first: limits, then UTF-8, then syntax.
pub fn parse(line: &[u8], limits: Limits) -> Result<Value, Violation> {
    check(line, limits)?;
    let text = std::str::from_utf8(line).map_err(|_| Violation::NotUtf8)?;
    serde_json::from_str(text).map_err(|e| Violation::NotJson(Arc::new(e)))
}

/// Walks over the brackets and commas outside of strings. On bytes that are
/// not JSON its counts mean little, but the parser refuses those anyway.
fn check(line: &[u8], limits: Limits) -> Result<(), Violation> {
    let (mut depth, mut elements) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in line {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                elements += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => elements += 1,
            _ => {}
        }
        if depth > limits.depth {
            return Err(Violation::TooDeep {
                limit: limits.depth,
            });
        }
        if elements > limits.elements {
            return Err(Violation::TooManyElements {
                limit: limits.elements,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Vec<u8> {
        [b"[".repeat(depth), b"]".repeat(depth)].concat()
    }

    #[test]
    fn depth_is_exact() {
        assert!(parse(&nested(MAX_DEPTH), Limits::default()).is_ok());
        assert!(matches!(
            parse(&nested(MAX_DEPTH + 1), Limits::default()),
            Err(Violation::TooDeep { limit: MAX_DEPTH })
        ));
    }

    #[test]
    fn a_very_deep_line_costs_no_stack() {
        let line = b"[".repeat(4 * 1024 * 1024);
        assert!(matches!(
            parse(&line, Limits::default()),
            Err(Violation::TooDeep { .. })
        ));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = format!(r#"{{"a\"{0}":"{0},,\\"}}"#, "[".repeat(100));
        let limits = Limits {
            depth: 1,
            elements: 1,
        };
        assert!(parse(text.as_bytes(), limits).is_ok());
    }

    #[test]
    fn many_elements_are_refused_before_they_are_built() {
        let line = [b"[0".to_vec(), b",0".repeat(MAX_ELEMENTS), b"]".to_vec()].concat();
        assert!(matches!(
            parse(&line, Limits::default()),
            Err(Violation::TooManyElements { .. })
        ));
    }

    #[test]
    fn other_refusals_are_told_apart() {
        let parse = |line: &[u8]| parse(line, Limits::default());
        assert!(matches!(parse(b"\"\xC3\x28\""), Err(Violation::NotUtf8)));
        assert!(matches!(parse(b"{\"a\""), Err(Violation::NotJson(_))));
        assert!(matches!(parse(b"{} {}"), Err(Violation::NotJson(_))));
    }
}
