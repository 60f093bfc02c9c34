//! The JSON schema of configuration files, for editors. A test holds it against the parser.

use crate::file::CONFIG_VERSION;
use crate::nest::MAX_FILES;
use crate::resolve::named;
use flipside_model::{
    ActionPlace, ControlType, MAX_TIMEOUT_SECONDS, OnFailure, QUIESCE_UNITS, Timeouts, Timing,
};
use serde_json::{Map, Value, json};

/// The name under which the template expects the schema, in the directory of the file.
pub const SCHEMA_FILE: &str = "flipside.schema.json";

/// Returns the schema. It accepts what the parser accepts in form; what only the whole can show is left to
/// `flipside config check`.
pub fn schema() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "flipside configuration file",
        "description": "The settings of one upgrade.",
        "type": "object",
        "additionalProperties": false,
        "required": ["version"],
        "properties": {
            "version": { "const": CONFIG_VERSION, "description": "Version of the format." },
            "title": text("Title of the upgrade."),
            "comments": text("Free text."),
            "children": children(),
            "services": list("Services to control, in start order; stopped in reverse.", None),
            "accept_loss": list("Directories whose loss at Commit is accepted.", Some("^/")),
            "data_paths": list("Further directories that count as data.", Some("^/")),
            "rehearsal": {
                "type": "boolean", "default": false,
                "description": "Leave the throw-away copy of the data on the Upgrade Side."
            },
            "carry": list("Files and directories of the Production Side that the merge carries over: absolute paths, \
                perhaps with `*` and `?`, and the word `default` for the well-known ones.", Some("^(/|default$)")),
            "checkpoint": {
                "type": "boolean", "default": false,
                "description": "Keep the data as they are at the merge, for `flipside abort --discard-data`."
            },
            "quiesce": quiesce(),
            "health": health(),
            "timeouts": timeouts(),
            "action": actions(),
            "log_backup": {
                "type": "object", "additionalProperties": false,
                "description": "Logs saved from the Production Side in the merge.",
                "properties": {
                    "directory": {
                        "type": "string", "pattern": "^/",
                        "description": "A directory on a data or external disk of the guest; there is no default."
                    },
                    "logs": list(
                        "\"system journal\", \"user journals\", and files or directories.",
                        Some("^(system journal|user journals|/.*)$")
                    )
                }
            },
            "disks": {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "system": list("Disks marked System besides the mandatory system disks: only software and its configuration, no persistent data.", None),
                    "data": list("Disks marked Data although they were made system disks; never a mandatory system disk.", None)
                }
            }
        }
    })
}

fn list(description: &str, pattern: Option<&str>) -> Value {
    let mut item = json!({ "type": "string", "minLength": 1 });
    if let Some(pattern) = pattern {
        item["pattern"] = json!(pattern);
    }
    json!({ "type": "array", "uniqueItems": true, "items": item, "description": description })
}

fn children() -> Value {
    let name = json!({ "type": "string", "pattern": "^[^./][^/]*\\.Config$" });
    json!({
        "type": "array",
        "maxItems": MAX_FILES - 1,
        "description": "Files of the same directory whose settings apply too; what this file says itself wins.",
        "items": {
            "anyOf": [
                name,
                {
                    "type": "object", "additionalProperties": false, "required": ["file"],
                    "properties": {
                        "file": name,
                        "enabled": { "type": "boolean", "default": true }
                    }
                }
            ]
        }
    })
}

fn quiesce() -> Value {
    let mut units = list("Replaces the list of units.", None);
    units["default"] = json!(QUIESCE_UNITS);
    json!({
        "type": "object", "additionalProperties": false,
        "description": "Units that are stopped on the Upgrade Side because they act by themselves.",
        "properties": {
            "units": units,
            "also": list("Adds to the list.", None),
            "except": list("Takes out of the list.", None)
        }
    })
}

fn health() -> Value {
    json!({
        "type": "array",
        "description": "Programs that run in the guest after the start; the users are let in when all end with 0.",
        "items": {
            "type": "object", "additionalProperties": false, "required": ["command"],
            "properties": {
                "command": {
                    "type": "array", "minItems": 1,
                    "items": { "type": "string" },
                    "description": "Program, as an absolute path, and its arguments."
                }
            }
        }
    })
}

fn actions() -> Value {
    let words =
        |all: Vec<&str>, description: &str| json!({ "enum": all, "description": description });
    let arguments = json!({ "type": "array", "items": { "type": "string" } });
    json!({
        "type": "array", "uniqueItems": true,
        "description": "Custom actions: programs that run at fixed places of the upgrade, one after another.",
        "items": {
            "type": "object", "additionalProperties": false, "required": ["file", "control_type"],
            "properties": {
                "file": {
                    "type": "string", "pattern": "^/",
                    "description": "The program, as an absolute path; %NAME% is expanded."
                },
                "arguments": {
                    "anyOf": [{ "type": "string" }, arguments],
                    "description": "Its arguments: one text (quotes group words), or a list; %NAME% is expanded."
                },
                "control_type": words(
                    ControlType::ALL.iter().map(|c| c.name()).collect(),
                    "When it runs."
                ),
                "timing": words(
                    Timing::ALL.iter().map(|t| t.name()).collect(),
                    "The order of Advanced actions among themselves."
                ),
                "limit": {
                    "type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_SECONDS,
                    "description": "Seconds after which it is ended, with everything it started."
                },
                "where": words(
                    ActionPlace::ALL.iter().map(|p| p.name()).collect(),
                    "Where it lies and runs; guest by default."
                ),
                "on_failure": words(
                    OnFailure::ALL.iter().map(|o| o.name()).collect(),
                    "What its failure does; stop by default."
                )
            }
        }
    })
}

fn timeouts() -> Value {
    let properties: Map<String, Value> = named(&Timeouts::default())
        .into_iter()
        .map(|(key, seconds)| {
            let value = json!({
                "type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_SECONDS, "default": seconds
            });
            (key.to_owned(), value)
        })
        .collect();
    json!({
        "type": "object", "additionalProperties": false,
        "description": "Deadlines in seconds.",
        "properties": properties
    })
}
