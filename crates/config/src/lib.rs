//! System definitions and upgrade configuration files: parse, merge, check.
