//! The side port: what surrounds a machine. Each part has a file of its own.

use crate::system::QemuSystem;
use async_trait::async_trait;
use flipside_model::{Dump, KeySequence, MachineId};
use flipside_platform::{Medium, PortError, PortResult, ShellStream, SidePort, Signs};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

#[async_trait]
impl SidePort for QemuSystem {
    async fn access(&self, id: MachineId) -> PortResult<SocketAddr> {
        let Some((launch, _)) = self.find(id)? else {
            return Err(
                PortError::absent(format!("machine {id} does not run")).about(id.to_string())
            );
        };
        Ok((Ipv4Addr::LOCALHOST, launch.ssh).into())
    }

    async fn signs(&self, id: MachineId) -> PortResult<Signs> {
        self.read_signs(id).await
    }

    async fn printed(&self, id: MachineId, after: u64, most: usize) -> PortResult<Vec<u8>> {
        self.printed_after(id, after, most)
    }

    async fn console(&self, id: MachineId) -> PortResult<Box<dyn ShellStream>> {
        self.open_console(id).await
    }

    async fn send_keys(&self, id: MachineId, keys: KeySequence) -> PortResult<()> {
        let codes: Vec<Value> = codes(keys)
            .iter()
            .map(|code| json!({ "type": "qcode", "data": code }))
            .collect();
        let conn = self.conn(id).await?;
        conn.run("send-key", json!({ "keys": codes }))
            .await
            .map(drop)
    }

    async fn check_image(&self, image: &Path) -> PortResult<u64> {
        crate::media::check(image)
    }

    async fn medium(&self, id: MachineId) -> PortResult<Medium> {
        self.look_into_drive(id).await
    }

    async fn insert(&self, id: MachineId, image: &Path) -> PortResult<()> {
        self.insert_medium(id, image).await
    }

    async fn eject(&self, id: MachineId, force: bool) -> PortResult<()> {
        self.eject_medium(id, force).await
    }

    async fn dumps(&self) -> PortResult<Vec<Dump>> {
        self.dump_folder().list()
    }

    async fn dump_memory(&self, id: MachineId) -> PortResult<Dump> {
        self.write_memory_dump(id).await
    }

    async fn dump_part(&self, offset: u64, bytes: &[u8]) -> PortResult<()> {
        self.dump_folder().part(offset, bytes)
    }

    async fn dump_keep(&self, name: Option<&str>) -> PortResult<Dump> {
        self.dump_folder().keep_part(name)
    }
}

/// QEMU's names of the keys.
fn codes(keys: KeySequence) -> &'static [&'static str] {
    match keys {
        KeySequence::CtrlAltDel => &["ctrl", "alt", "delete"],
        KeySequence::CtrlAltF1 => &["ctrl", "alt", "f1"],
        KeySequence::Enter => &["ret"],
    }
}
