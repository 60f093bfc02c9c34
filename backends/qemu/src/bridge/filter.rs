//! Keeps new connections waiting while the users move: what would open one is dropped on its way to the machines, and so is
//! what a guest would answer in refusal. A client whose first packet is dropped sends it again; one that is refused gives up.
//!
//! One table per system, put in place and removed as a whole. It is the kernel's, so it outlives the server, and it is
//! also what is looked at to say whether connections are held.

use super::tap::prefix;
use super::tool::run;
use flipside_model::SystemSpec;
use flipside_platform::PortResult;

fn table(spec: &SystemSpec) -> String {
    format!("flipside-{}", prefix(spec).trim_end_matches('-'))
}

/// The table: `*` stands for every tap of the system. Connections that the guests themselves open, and those that are
/// open, go on.
fn rules(spec: &SystemSpec) -> String {
    let (table, taps) = (table(spec), format!("\"{}*\"", prefix(spec)));
    let to_guest = format!("oifname {taps} tcp flags & (syn|ack) == syn drop");
    let from_guest = format!(
        "iifname {taps} icmp type destination-unreachable drop\n    \
         iifname {taps} icmpv6 type destination-unreachable drop\n    \
         iifname {taps} tcp flags & (rst|ack) == (rst|ack) tcp sequence 0 drop"
    );
    format!(
        "table bridge {table}\ndelete table bridge {table}\ntable bridge {table} {{\n  \
         chain forward {{\n    type filter hook forward priority -300; policy accept;\n    {to_guest}\n    {from_guest}\n  }}\n  \
         chain output {{\n    type filter hook output priority -300; policy accept;\n    {to_guest}\n  }}\n  \
         chain input {{\n    type filter hook input priority -300; policy accept;\n    {from_guest}\n  }}\n}}\n"
    )
}

/// Holds new connections from now on.
pub(super) async fn hold(spec: &SystemSpec) -> PortResult<()> {
    run("nft", &["-f", "-"], &rules(spec)).await.map(drop)
}

/// Lets them through.
pub(super) async fn release(spec: &SystemSpec) -> PortResult<()> {
    if !is_held(spec).await? {
        return Ok(());
    }
    let table = table(spec);
    run("nft", &["delete", "table", "bridge", &table], "")
        .await
        .map(drop)
}

/// Says whether new connections are held.
pub(super) async fn is_held(spec: &SystemSpec) -> PortResult<bool> {
    let tables = run("nft", &["list", "tables", "bridge"], "").await?;
    let ours = format!("table bridge {}", table(spec));
    Ok(tables.lines().any(|line| line.trim() == ours))
}
