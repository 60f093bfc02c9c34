use super::*;
use flipside_model::{
    DiskSpec, Firmware, Leg, LegEntry, LegPair, LegPaths, NetworkSpec, SystemName,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

const SESSION: LegRole = LegRole::Stale(StaleReason::Session);
const UNCLEAN: LegRole = LegRole::Stale(StaleReason::Unclean);

fn disk(name: &str) -> DiskName {
    DiskName::new(name).expect("valid")
}

fn book(disks: &[(&str, LegRole, LegRole, Leg)]) -> LegBook {
    let leg = |role: &LegRole| LegEntry {
        path: PathBuf::from("/x"),
        inode: 1,
        role: role.clone(),
    };
    let pairs = disks.iter().map(|(name, a, b, authority)| {
        let pair = LegPair {
            a: leg(a),
            b: leg(b),
            authority: *authority,
        };
        (disk(name), pair)
    });
    LegBook::new(pairs.collect::<BTreeMap<_, _>>())
}

fn spec(disks: &[(&str, DiskRole)]) -> SystemSpec {
    let disks = disks.iter().map(|(name, role)| DiskSpec {
        name: disk(name),
        role: *role,
        size: 1 << 20,
        legs: LegPaths {
            a: PathBuf::from("/a"),
            b: PathBuf::from("/b"),
        },
    });
    SystemSpec {
        version: 1,
        layout: 1,
        name: SystemName::new("web").expect("valid"),
        uuid: uuid::Uuid::nil(),
        memory_mib: 64,
        cpus: 1,
        firmware: Firmware::Bios,
        network: NetworkSpec::User,
        mac: "52:54:00:00:00:01".to_owned(),
        publish: Vec::new(),
        enclosures: [PathBuf::from("/a"), PathBuf::from("/b")],
        disks: disks.collect(),
    }
}

// SM-25: the first system disk leads; a disk whose other leg is stale keeps the leg it can rely on (invariant 10).
#[test]
fn whole_disks_follow_the_first_system_disk_and_others_keep_their_authority() {
    let (live, spec) = (
        LegRole::Live,
        spec(&[
            ("data0", DiskRole::Data),
            ("system0", DiskRole::System),
            ("system1", DiskRole::System),
            ("data1", DiskRole::Data),
        ]),
    );
    let mut book = book(&[
        ("data0", live.clone(), live.clone(), Leg::A),
        ("data1", live.clone(), UNCLEAN, Leg::A),
        ("system0", live.clone(), live.clone(), Leg::B),
        ("system1", live.clone(), live, Leg::A),
    ]);
    align_authority(&mut book, &spec);
    let authority = |name| book.disks[&disk(name)].authority;
    for name in ["data0", "system0", "system1"] {
        assert_eq!(authority(name), Leg::B, "{name}");
    }
    assert_eq!(
        authority("data1"),
        Leg::A,
        "its other leg is not to be used"
    );
}

// SM-14, CM-13: the decision makes the Upgrade Side's leg the authority and live, the other one stale without a bitmap
// that could be trusted; data disks have one content and are left alone.
#[test]
fn the_decision_turns_the_system_disks_and_only_those() {
    let (original, upgraded) = (LegRole::Original, LegRole::Upgraded);
    let mut decided = book(&[
        ("data0", LegRole::Live, SESSION, Leg::A),
        ("system0", original.clone(), upgraded.clone(), Leg::A),
        ("system1", upgraded, original, Leg::B),
    ]);
    decide(&mut decided);
    let expected = book(&[
        ("data0", LegRole::Live, SESSION, Leg::A),
        ("system0", UNCLEAN, LegRole::Live, Leg::B),
        ("system1", LegRole::Live, UNCLEAN, Leg::A),
    ]);
    assert_eq!(decided, expected);
    decide(&mut decided);
    assert_eq!(decided, expected, "deciding twice is deciding once");
}

// Invariant 9: a bitmap that may lack something is not used again; other reasons, and live legs, stay what they are.
#[test]
fn only_what_the_session_left_behind_loses_its_bitmap() {
    let failed = LegRole::Stale(StaleReason::Failed("EIO".to_owned()));
    let new = LegRole::Stale(StaleReason::New);
    let disks = |other: &LegRole| book(&[("data0", LegRole::Live, other.clone(), Leg::A)]);
    let after = |other: &LegRole| {
        let mut book = disks(other);
        distrust_bitmap(&mut book, &disk("data0"));
        distrust_bitmap(&mut book, &disk("data9"));
        book
    };
    assert_eq!(after(&SESSION), disks(&UNCLEAN));
    for other in [LegRole::Live, UNCLEAN, failed, new, LegRole::Frozen] {
        assert_eq!(after(&other), disks(&other), "{other:?}");
    }
}
