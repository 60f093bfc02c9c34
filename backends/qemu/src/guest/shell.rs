//! An interactive shell on a side: a virtio port of its own, so that it needs no network, no SSH and no key.

use super::LinuxGuest;
use super::limits;
use super::link;
use super::script;
use flipside_model::MachineId;
use flipside_platform::{PortError, PortErrorKind, PortResult, ShellStream};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use uuid::Uuid;

/// The socket is on this host and QEMU answers at once, unless somebody else is connected to it.
const CONNECT: Duration = Duration::from_secs(5);

/// What is on the way at once: a burst of output.
const PIPE: usize = 16 << 10;

static SHELL: link::Script = script!("start a shell", "shell");

impl LinuxGuest {
    /// Connects to the port first, so that nothing the shell prints is lost, then starts the shell in the guest.
    pub(super) async fn open_shell(
        &self,
        id: MachineId,
        (rows, columns): (u16, u16),
        label: &str,
    ) -> PortResult<Box<dyn ShellStream>> {
        let path = self
            .shells
            .as_ref()
            .and_then(|resolve| resolve(id))
            .ok_or_else(|| {
                PortError::new(
                    PortErrorKind::Absent,
                    format!("machine {id} has no shell port"),
                )
            })?;
        let connecting = tokio::time::timeout(CONNECT, UnixStream::connect(&path)).await;
        let stream = match connecting {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(
                    PortError::failed(format!("the shell port of {id} cannot be reached"))
                        .because(&error),
                );
            }
            Err(_) => {
                return Err(PortError::new(
                    PortErrorKind::InUse,
                    format!("the shell port of {id} does not answer"),
                )
                .advise("end the other shell on this side first"));
            }
        };
        // The host is not told that the guest closed its end of a port, so the guest says so itself, in a word of its own.
        let end = format!("\u{1b}]flipside-end-{}\u{7}", Uuid::new_v4().simple());
        let arguments = [
            rows.to_string(),
            columns.to_string(),
            end.clone(),
            label.to_owned(),
        ];
        let status = self
            .link
            .attempt(id, &SHELL, &arguments, limits::LOOK)
            .await?;
        if !status.success() {
            return Err(link::refused(id, SHELL.what, &status));
        }
        let (client, port) = tokio::io::duplex(PIPE);
        tokio::spawn(until_the_end(stream, port, end.into_bytes()));
        Ok(Box::new(client))
    }
}

/// Carries bytes both ways until either side leaves or the guest says the word.
async fn until_the_end(guest: UnixStream, client: DuplexStream, end: Vec<u8>) {
    let (mut from_guest, mut to_guest) = tokio::io::split(guest);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let typing = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_guest).await;
        // A client that has typed everything still listens; one that left is noticed when it is written to.
        std::future::pending::<()>().await;
    };
    let showing = async {
        let (mut held, mut chunk) = (Vec::new(), vec![0; PIPE]);
        while let Ok(read @ 1..) = from_guest.read(&mut chunk).await {
            held.extend_from_slice(&chunk[..read]);
            let (say, ended) = before(&held, &end);
            if to_client.write_all(&held[..say]).await.is_err() || ended {
                return;
            }
            held.drain(..say);
        }
    };
    tokio::select! {
        () = typing => {}
        () = showing => {}
    }
}

/// How many bytes come before the word, and whether the word is there; what may be its beginning is kept back.
fn before(text: &[u8], word: &[u8]) -> (usize, bool) {
    if let Some(at) = text.windows(word.len()).position(|w| w == word) {
        return (at, true);
    }
    let longest = text.len().min(word.len() - 1);
    let kept = (1..=longest).rev().find(|n| text.ends_with(&word[..*n]));
    (text.len() - kept.unwrap_or(0), false)
}

#[cfg(test)]
mod tests {
    use super::before;

    #[test]
    fn the_word_is_found_wherever_it_is_cut() {
        let word = b"<end>";
        let text = b"a <e <en <end> more";
        for cut in 1..text.len() {
            let (mut held, mut said, mut ended) = (Vec::new(), Vec::new(), false);
            for part in [&text[..cut], &text[cut..]] {
                if ended {
                    break;
                }
                held.extend_from_slice(part);
                let (say, end) = before(&held, word);
                said.extend(held.drain(..say));
                ended = end;
            }
            assert_eq!((said.as_slice(), ended), (&b"a <e <en "[..], true), "{cut}");
        }
        assert_eq!(before(b"nothing", word), (7, false));
        assert_eq!(before(b"nothing <", word), (8, false));
    }
}
