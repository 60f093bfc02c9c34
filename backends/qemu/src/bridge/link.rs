//! What the kernel shows of network devices, below `/sys/class/net`.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel shows the devices of our network namespace.
pub(super) const NET: &str = "/sys/class/net";

/// A network device.
#[derive(Debug, Clone)]
pub(super) struct Link(PathBuf);

impl Link {
    pub(super) fn new(name: &str) -> Self {
        Self(Path::new(NET).join(name))
    }

    pub(super) fn exists(&self) -> bool {
        self.0.exists()
    }

    fn read(&self, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(file)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, file: &str) -> Option<u64> {
        let text = self.read(file)?;
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }

    pub(super) fn alias(&self) -> String {
        self.read("ifalias").unwrap_or_default()
    }

    pub(super) fn is_tap(&self) -> bool {
        self.0.join("tun_flags").exists()
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.0.join("bridge").is_dir()
    }

    /// A device of the host itself, or a bond of such: not a tap, nor the end of a pair that leads into a container.
    pub(super) fn is_card(&self) -> bool {
        self.0.join("device").exists() || self.0.join("bonding").is_dir()
    }

    /// The members of a bond.
    pub(super) fn slaves(&self) -> Vec<String> {
        let slaves = self.read("bonding/slaves").unwrap_or_default();
        slaves.split_ascii_whitespace().map(str::to_owned).collect()
    }

    /// Whether its administrator has it up (`IFF_UP`).
    pub(super) fn is_up(&self) -> bool {
        self.number("flags").is_some_and(|flags| flags & 1 == 1)
    }

    pub(super) fn carrier(&self) -> bool {
        self.number("carrier") == Some(1)
    }

    pub(super) fn mtu(&self) -> Option<u64> {
        self.number("mtu")
    }

    /// The bridge or bond that it is in.
    pub(super) fn master(&self) -> Option<String> {
        let target = fs::read_link(self.0.join("master")).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The ports of a bridge.
    pub(super) fn ports(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("brif"));
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Seconds for which a port that joins a bridge passes nothing: it listens, then it learns.
    pub(super) fn join_delay_s(&self) -> u32 {
        if self.number("bridge/stp_state").unwrap_or(0) == 0 {
            return 0;
        }
        // In hundredths of a second.
        let delay = self.number("bridge/forward_delay").unwrap_or(0);
        u32::try_from(delay * 2 / 100).unwrap_or(u32::MAX)
    }

    /// Whether a bridge remembers which addresses are behind this port of it.
    pub(super) fn learns(&self, bridge: &Link) -> bool {
        self.number("brport/learning") == Some(1) && bridge.number("bridge/ageing_time") != Some(0)
    }
}
