//! What readiness asks about the guest's surroundings.

use super::Guest;
use crate::context::Cx;
use flipside_model::{MachineId, Renewal, Surroundings};
use flipside_session::readiness::{Asked, GuestSeen};

pub(super) async fn look(cx: &Cx, guest: &Guest) -> Asked<GuestSeen> {
    let machine = guest.clone()?;
    let around = cx.ports.guest.surroundings(machine).await;
    let around = around.map_err(|error| error.to_string())?;
    let ssh = around.logins.iter().any(|unit| unit.starts_with("ssh"));
    let private_path = match ssh {
        // A platform that cannot tell does not say that it is blocked.
        true => cx.ports.network.answers(machine).await.ok(),
        false => None,
    };
    Ok(GuestSeen {
        renewals: renewals(cx, machine, &around).await,
        around,
        private_path,
    })
}

/// Renews the leases that come from outside (RC-29): those of a user-mode network are the platform's own.
async fn renewals(cx: &Cx, machine: MachineId, around: &Surroundings) -> Vec<(String, Renewal)> {
    let mut renewed = Vec::new();
    if cx.spec.network.bridge().is_none() {
        return renewed;
    }
    let ours = around
        .cards
        .iter()
        .filter(|card| card.mac == cx.spec.mac && card.dhcp);
    for card in ours {
        let renewal = match cx.ports.guest.renew_lease(machine, &card.name).await {
            Ok(renewal) => renewal,
            Err(error) => Renewal::Untried(error.to_string()),
        };
        renewed.push((card.name.clone(), renewal));
    }
    renewed
}
