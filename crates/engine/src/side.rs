//! What an administrator does with one side beside running programs on it: its console and keys, the private way to it,
//! how its software is, its dump files (US-05, US-09, US-23, VC-03 to VC-08, AB-11).

use crate::driver::System;
use crate::monitor;
use flipside_model::api::SideAccess;
use flipside_model::{
    Condition, Dump, KeySequence, MachineId, PackageFault, Problem, ProblemCode, Severity, Side,
    UpgradeState,
};
use flipside_platform::ShellStream;

impl System {
    /// Returns the side that a command without a side means: in Idle the only one, in Split the Upgrade Side.
    pub fn side_for(&self, side: Option<Side>) -> Result<Side, Problem> {
        monitor::side_for(self.cx(), side)
    }

    fn near(&self, side: Option<Side>) -> Result<(Side, MachineId), Problem> {
        let side = self.side_for(side)?;
        Ok((side, self.cx().machine(side)?))
    }

    /// Says how the guest's SSH is reached on the private card, and with which host keys it answers.
    pub async fn access(&self, side: Option<Side>) -> Result<SideAccess, Problem> {
        let (side, machine) = self.near(side)?;
        let ports = &self.cx().ports;
        let address = ports.side.access(machine).await?;
        // A guest that does not answer may still accept a connection; then its keys are those seen before.
        let host_keys = ports.guest.host_keys(machine).await.unwrap_or_default();
        Ok(SideAccess {
            side,
            address,
            host_keys,
        })
    }

    /// Writes a line into the activity log, about something that is done on a side.
    pub fn note(&self, severity: Severity, text: String) -> Result<(), Problem> {
        self.cx().ledger.log(severity, text).map(drop)
    }

    /// Opens the serial console.
    pub async fn console(&self, side: Option<Side>) -> Result<Box<dyn ShellStream>, Problem> {
        let (_, machine) = self.near(side)?;
        Ok(self.cx().ports.side.console(machine).await?)
    }

    /// Returns what the serial console printed last.
    pub async fn console_tail(&self, side: Option<Side>, most: usize) -> Result<Vec<u8>, Problem> {
        let (_, machine) = self.near(side)?;
        Ok(self.cx().ports.side.printed(machine, 0, most).await?)
    }

    /// Presses keys. On the Production Side of a divided system Ctrl-Alt-Del would restart it (US-21).
    pub async fn send_keys(&self, side: Option<Side>, keys: KeySequence) -> Result<Side, Problem> {
        let (side, machine) = self.near(side)?;
        let idle = self.cx().state().upgrade == UpgradeState::Idle;
        if keys == KeySequence::CtrlAltDel && side == Side::Production && !idle {
            return Err(Problem::new(
                ProblemCode::Refused,
                "the Production Side is never restarted during an upgrade",
            )
            .advise("`--side upgrade`, if that one is meant"));
        }
        let text = format!("{keys} is sent to the {side}");
        self.cx().ledger.log(Severity::Information, text)?;
        self.cx().ports.side.send_keys(machine, keys).await?;
        Ok(side)
    }

    /// How the operating system of a side is.
    pub async fn condition(&self, side: Side) -> Result<Condition, Problem> {
        let machine = self.cx().machine(side)?;
        Ok(self.cx().ports.guest.condition(machine).await?)
    }

    /// Compares the installed packages of a side with their files; takes minutes.
    pub async fn verify_packages(&self, side: Side) -> Result<Vec<PackageFault>, Problem> {
        let machine = self.cx().machine(side)?;
        Ok(self.cx().ports.guest.verify_packages(machine).await?)
    }

    /// Lists the dump files that are kept.
    pub async fn dumps(&self) -> Result<Vec<Dump>, Problem> {
        Ok(self.cx().ports.side.dumps().await?)
    }

    /// Saves the memory of the Upgrade Side now, such as of one that hangs; it stands still meanwhile.
    pub async fn take_dump(&self) -> Result<Dump, Problem> {
        let state = self.cx().state();
        if !matches!(
            state.upgrade,
            UpgradeState::Split | UpgradeState::PrepareMerge
        ) {
            return Err(Problem::new(
                ProblemCode::Refused,
                format!(
                    "the memory of the Upgrade Side can be saved in Split, and this is {}",
                    state.upgrade
                ),
            )
            .advise("elsewhere that machine serves the users, and would stand still"));
        }
        let machine = self.cx().machine(Side::Upgrade)?;
        let dump = self.cx().ports.side.dump_memory(machine).await?;
        let text = format!(
            "the memory of the Upgrade Side was saved as `{}`",
            dump.path.display()
        );
        self.cx().ledger.log(Severity::Information, text)?;
        Ok(dump)
    }
}
