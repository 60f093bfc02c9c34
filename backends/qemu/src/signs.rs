//! The signs by which a partner state is told, from QEMU itself: resets, what was read from the disks, what the serial
//! console printed (PS-04 to PS-15).

use crate::conn::Conn;
use crate::error;
use crate::system::QemuSystem;
use flipside_model::MachineId;
use flipside_platform::{PortResult, Signs};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The serial log is cut when it is longer: a guest that prints without end must not fill the host's disk.
const LOG_MOST: u64 = 1 << 20;

/// What is kept of it then; a boot with all its messages has 40 to 100 KiB.
const LOG_KEPT: u64 = 256 << 10;

/// From this layout on the log may be cut, because QEMU appends to it.
pub(crate) const APPENDING_LAYOUT: u32 = 2;

/// What is remembered of one machine; a server that starts anew begins at zero.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    resets: u64,
    /// The next count of bytes read is the new zero.
    anew: bool,
    zero: u64,
    /// Bytes cut off the beginning of the serial log.
    cut: u64,
}

/// By machine; shared with the tasks that listen.
pub(crate) type Ears = Arc<Mutex<HashMap<MachineId, Heard>>>;

fn lock(ears: &Ears) -> MutexGuard<'_, HashMap<MachineId, Heard>> {
    ears.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens on a new connection until it ends.
pub(crate) fn listen(conn: &Conn, ears: &Ears) {
    let (id, ears) = (conn.launch.machine, Arc::clone(ears));
    let mut events = conn.listen();
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            if event.name == "RESET" {
                let mut ears = lock(&ears);
                let heard = ears.entry(id).or_default();
                heard.resets += 1;
                heard.anew = true;
            }
        }
    });
}

impl QemuSystem {
    pub(crate) async fn read_signs(&self, id: MachineId) -> PortResult<Signs> {
        let conn = self.conn(id).await?;
        let stats = conn.query("query-blockstats").await?;
        let total = bytes_read(&stats);
        let printed = self.length_of_log(id)?;
        let mut ears = lock(&self.inner.ears);
        let heard = ears.entry(id).or_default();
        if std::mem::take(&mut heard.anew) || total < heard.zero {
            heard.zero = total;
        }
        Ok(Signs {
            resets: heard.resets,
            read_bytes: total - heard.zero,
            printed,
        })
    }

    /// Returns how much was printed, and cuts the log when it has become too long.
    fn length_of_log(&self, id: MachineId) -> PortResult<u64> {
        let paths = self.files(id);
        let path = paths.serial();
        let length = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            Err(e) => return Err(error::file(&e, "examine", &path)),
        };
        if length > LOG_MOST && self.inner.spec.layout >= APPENDING_LAYOUT {
            let kept = tail(&path, length, LOG_KEPT)?;
            let old = paths.old_serial();
            fs::write(&old, kept).map_err(|e| error::file(&e, "write", &old))?;
            // What is printed between the copy and this is lost: a few bytes of a flood.
            let file = fs::OpenOptions::new().write(true).open(&path);
            file.and_then(|f| f.set_len(0))
                .map_err(|e| error::file(&e, "cut", &path))?;
            let mut ears = lock(&self.inner.ears);
            let heard = ears.entry(id).or_default();
            heard.cut += length;
            return Ok(heard.cut);
        }
        let ears = lock(&self.inner.ears);
        Ok(length + ears.get(&id).map_or(0, |heard| heard.cut))
    }

    pub(crate) fn printed_after(
        &self,
        id: MachineId,
        after: u64,
        most: usize,
    ) -> PortResult<Vec<u8>> {
        let paths = self.files(id);
        let total = self.length_of_log(id)?;
        let wanted = total.saturating_sub(after).min(most as u64);
        let read = |path: &Path, most: u64| match fs::metadata(path) {
            Ok(meta) => tail(path, meta.len(), most),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(error::file(&e, "examine", path)),
        };
        let new = read(&paths.serial(), wanted)?;
        let missing = wanted.saturating_sub(new.len() as u64);
        let mut all = read(&paths.old_serial(), missing)?;
        all.extend(new);
        Ok(all)
    }
}

/// Reads the end of a file.
fn tail(path: &Path, length: u64, most: u64) -> PortResult<Vec<u8>> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        file.take(most).read_to_end(&mut bytes)
    });
    read.map_err(|e| error::file(&e, "read", path))?;
    Ok(bytes)
}

/// Adds up what the devices have read.
fn bytes_read(stats: &Value) -> u64 {
    let devices = stats.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |device: &Value| device.get("stats")?.get("rd_bytes")?.as_u64();
    devices.iter().filter_map(read).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_all_devices_read_is_added_up() {
        let stats = json!([
            { "qdev": "dev-system0", "stats": { "rd_bytes": 5 } },
            { "qdev": "cd0", "stats": { "rd_bytes": 7 } },
            { "qdev": "odd" },
        ]);
        assert_eq!(bytes_read(&stats), 12);
        assert_eq!(bytes_read(&json!({})), 0);
    }

    #[test]
    fn the_end_of_a_file_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        fs::write(&path, b"0123456789").expect("written");
        assert_eq!(tail(&path, 10, 3).expect("read"), b"789");
        assert_eq!(tail(&path, 10, 30).expect("read"), b"0123456789");
        assert_eq!(tail(&path, 10, 0).expect("read"), b"");
    }
}
