//! What a guest says of its surroundings: what readiness asks beyond services and disks.

/// A network card of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestCard {
    /// Its name in the guest.
    pub name: String,
    /// Its address on the wire, in lower case.
    pub mac: String,
    /// Whether it is a card rather than something made of cards (a bridge, a bond, a VLAN).
    pub physical: bool,
    /// What it is a part of: a bond, a bridge, a team.
    pub master: Option<String>,
    /// Its addresses with which others reach it.
    pub addresses: Vec<String>,
    /// Whether one of them was given by a DHCP server.
    pub dhcp: bool,
}

/// A lease that was renewed, or was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The server answered.
    Renewed,
    /// The server did not answer in time; the address is still there.
    Silent,
    /// It cannot be tried here, for this reason.
    Untried(String),
}

/// Storage that the guest reaches over a network (design 3.5): it counts as external data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteStorage {
    /// `nfs`, `cifs`, `iscsi`, `nbd`, `rbd`, `nvme`, `drbd`, …
    pub kind: String,
    /// What it is reached as: an export, a target, a device.
    pub source: String,
    /// Where it is mounted, empty where it is not.
    pub target: String,
}

/// What a guest says of its surroundings; its own words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Its network cards.
    pub cards: Vec<GuestCard>,
    /// Services for remote access that run, such as `ssh.service`.
    pub logins: Vec<String>,
    /// Rules of its firewall that drop or refuse what comes in.
    pub blocking: Vec<String>,
    /// Units that install software by themselves.
    pub updaters: Vec<String>,
    /// Services that are known to hold what a split must take away, or to act on what it does.
    pub blockers: Vec<String>,
    /// Local accounts that may administer it and can log in without a directory server.
    pub administrators: Vec<String>,
    /// Storage over the network.
    pub remote: Vec<RemoteStorage>,
    /// Lines of the mount table that name a disk by its place, such as `/dev/sdb1 /srv`.
    pub by_place: Vec<String>,
    /// Encrypted devices that need somebody to type at a boot.
    pub typed_keys: Vec<String>,
}
