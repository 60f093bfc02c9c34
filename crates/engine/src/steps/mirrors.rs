//! Unites the change bitmaps on the surviving machine and starts the resynchronisation (CM-08, AB-14).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use crate::{legs, power};
use async_trait::async_trait;
use flipside_model::{Severity, Side, StaleReason, planted};

pub(super) struct StartMirrors {
    pub survivor: Side,
}

#[async_trait]
impl Action for StartMirrors {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let waiting = cx.book().await?.disks.values().any(|p| p.stale().is_some());
        Ok(if waiting { Seen::Repeat } else { Seen::Done })
    }

    async fn act(&self, cx: &Cx) -> Step {
        power::boot_committed(cx).await?;
        let machine = cx.machine(self.survivor)?;
        let held = cx.exclusive().await?;
        let book = cx.book().await?;
        for (disk, pair) in &book.disks {
            let by_bitmap = matches!(pair.stale(), Some((_, StaleReason::Session)));
            if !by_bitmap || !cx.facts().carried.contains_key(disk) {
                continue;
            }
            let alone = match self.survivor {
                Side::Upgrade => planted::is("one-bitmap-at-commit"),
                Side::Production => planted::is("one-bitmap-at-abort"),
            };
            if alone {
                continue;
            }
            if let Err(error) = cx.ports.disk.carry_in(machine, disk).await {
                cx.ledger.write(flipside_model::Record::problem(
                    Severity::Warning,
                    &error.into(),
                ))?;
                cx.edit_book(&held, |book| legs::distrust_bitmap(book, disk))
                    .await?;
            }
        }
        drop(held);
        crate::mirrors::start_all(cx).await?;
        Ok(())
    }
}
