use super::super::tests::{book, good, spec};
use super::super::{count, judge};
use super::*;
use flipside_model::{LegRole, MachineId, NetworkSpec, Severity, UpgradeConfig, Uplink};

fn uplink(name: &str, carrier: bool) -> Uplink {
    let name = name.to_owned();
    Uplink { name, carrier }
}

fn fine() -> NetworkSeen {
    let bridge = BridgeFacts {
        exists: true,
        up: true,
        connected: vec![MachineId(1)],
        uplinks: vec![uplink("eth0", true), uplink("eth1", true)],
        ..BridgeFacts::missing("br0")
    };
    NetworkSeen {
        bridge: Some(bridge),
        connected: true,
    }
}

/// What is found beyond successes: severity, text, component.
fn found(
    change: impl FnOnce(&mut NetworkSeen, &mut BridgeFacts),
) -> Vec<(Severity, String, String)> {
    let mut network = fine();
    let mut bridge = network.bridge.take().expect("a bridge");
    change(&mut network, &mut bridge);
    network.bridge = Some(bridge);
    let mut spec = spec();
    spec.network = NetworkSpec::Bridge("br0".to_owned());
    let (config, book) = (UpgradeConfig::none(), book(LegRole::Live));
    let mut seen = good(&spec, &config, &book);
    seen.network = Ok(network);
    let findings = judge(&seen);
    let bad = findings
        .into_iter()
        .filter(|f| f.severity > Severity::Information);
    bad.map(|f| {
        assert!(f.advice.is_some(), "{} has no advice", f.text);
        (f.severity, f.text, f.component.expect("a component"))
    })
    .collect()
}

fn one(severity: Severity, text: &str, component: &str) -> Vec<(Severity, String, String)> {
    vec![(severity, text.to_owned(), component.to_owned())]
}

// RC-23, RC-50, RC-51, fault 49: no bridge, a bridge that is down, a tap that was taken away.
#[test]
fn a_card_that_is_on_no_network_is_an_error() {
    let expected = one(
        Severity::Error,
        "Embedded NIC not teamed",
        "52:54:00:00:00:01 on `br0`",
    );
    assert_eq!(found(|_, _| ()), []);
    assert_eq!(found(|_, b| *b = BridgeFacts::missing("br0")), expected);
    assert_eq!(found(|_, b| b.up = false), expected);
    assert_eq!(found(|n, _| n.connected = false), expected);
}

// RC-24: one way out, or none, for both enclosures is a Warning.
#[test]
fn a_network_without_a_second_way_out_is_a_warning() {
    let found_with = |uplinks: Vec<Uplink>| found(|_, b| b.uplinks = uplinks);
    assert_eq!(
        found_with(vec![uplink("eth0", true)]),
        one(
            Severity::Warning,
            "`eth0` is the only card in `br0`, so its failure cuts both enclosures off",
            "br0"
        )
    );
    assert_eq!(
        found_with(Vec::new()),
        one(
            Severity::Warning,
            "no card of the host is in `br0`: only this host reaches the guest",
            "br0"
        )
    );
}

// RC-25, RC-50: each card without a link is named.
#[test]
fn a_card_without_a_link_is_an_error() {
    let text = "Team does not have link on both sides";
    assert_eq!(
        found(|_, b| b.uplinks[1].carrier = false),
        one(Severity::Error, text, "`eth1` of `br0`")
    );
    assert_eq!(
        found(|_, b| b.uplinks.iter_mut().for_each(|u| u.carrier = false)).len(),
        2
    );
}

// Design 4
#[test]
fn a_network_that_cannot_be_moved_at_once_is_told() {
    let slow = found(|_, b| b.delay_s = 30);
    assert_eq!(slow[0].0, Severity::Warning);
    assert!(slow[0].1.contains("passes nothing for 30 s"), "{slow:?}");
    let unable = found(|_, b| b.unable = Some("no right".to_owned()));
    assert_eq!(unable[0].0, Severity::Error);
    assert!(unable[0].1.ends_with("no right"), "{unable:?}");
}

// Fault 49: somebody else has our address.
#[test]
fn a_second_machine_with_the_address_is_an_error() {
    let twice = found(|_, b| b.same_mac = vec!["eth0".to_owned()]);
    assert_eq!(twice.len(), 1);
    assert_eq!((twice[0].0, twice[0].2.as_str()), (Severity::Error, "eth0"));
}

// RC-08: what the host did not say is no success, and a user-mode network has nothing to be judged.
#[test]
fn a_network_that_could_not_be_looked_at_is_no_success() {
    let (spec, config, book) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let mut seen = good(&spec, &config, &book);
    seen.network = Ok(NetworkSeen::default());
    assert_eq!(count(&judge(&seen)), (0, 0));
    seen.network = Err("no answer".to_owned());
    assert_eq!(count(&judge(&seen)), (0, RULES.len()));
}
