//! Changed files, and carrying them over by a scratch disk.

use crate::call::{Class, SimPorts};
use crate::state::State;
use flipside_model::{CarriedFiles, ChangeList, ChangedFile, ChangedKind, MachineId};
use flipside_platform::{CarryPlan, PortError, PortErrorKind, PortResult};
use std::collections::BTreeMap;

/// The files of a guest.
type FileMap = BTreeMap<String, Vec<u8>>;

/// The scratch disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    /// There is a file of it.
    pub(crate) made: bool,
    /// The machine that has it.
    pub(crate) with: Option<MachineId>,
    /// What is on it: all names, and the files that changed.
    packed: Option<(Vec<String>, FileMap)>,
}

fn under(rules: &[String], path: &str) -> bool {
    rules.iter().any(|rule| {
        let below = path.strip_prefix(rule.as_str());
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl State {
    fn plug_scratch(&mut self, id: MachineId) -> PortResult<()> {
        if !self.machine(id)?.active() {
            return Err(PortError::failed(format!(
                "Machine {id} has given its disks up."
            )));
        }
        match self.scratch.with {
            Some(other) if other != id && self.machines.contains_key(&other) => {
                let text = format!("The scratch disk is in use by machine {other}.");
                Err(PortError::new(PortErrorKind::InUse, text))
            }
            _ => {
                self.scratch.made = true;
                self.scratch.with = Some(id);
                Ok(())
            }
        }
    }

    fn has_scratch(&self, id: MachineId) -> PortResult<()> {
        if self.scratch.with == Some(id) {
            return Ok(());
        }
        let text = format!("The guest of {id} does not see the scratch disk.");
        Err(PortError::timed_out(text))
    }

    fn pack(&mut self, id: MachineId, plan: &CarryPlan) -> PortResult<CarriedFiles> {
        self.has_scratch(id)?;
        let config = self.guest_config(id)?;
        let Some(mark) = config.mark.clone() else {
            return Err(PortError::absent("The mark of the split is not there."));
        };
        let ours = config.files.iter().filter(|(p, _)| under(&plan.rules, p));
        let names: Vec<String> = ours.clone().map(|(path, _)| path.clone()).collect();
        let changed: FileMap = ours
            .filter(|(path, bytes)| mark.get(*path) != Some(bytes))
            .map(|(path, bytes)| (path.clone(), bytes.clone()))
            .collect();
        let bytes = changed.values().map(|b| b.len() as u64).sum();
        if bytes > plan.most {
            let text = format!("{bytes} bytes changed, {} fit.", plan.most);
            return Err(PortError::new(PortErrorKind::NoSpace, text));
        }
        let files = changed.len() as u64;
        self.scratch.packed = Some((names, changed));
        Ok(CarriedFiles {
            files,
            bytes,
            mark: plan.mark.clone(),
            ..CarriedFiles::default()
        })
    }

    fn unpack(&mut self, id: MachineId, rules: &[String]) -> PortResult<CarriedFiles> {
        self.has_scratch(id)?;
        let config = self.guest_config(id)?;
        let Some((names, packed)) = self.scratch.packed.clone() else {
            return Err(PortError::absent("The scratch disk holds no list."));
        };
        let Some(mark) = config.mark.clone() else {
            return Err(PortError::absent("The mark of the split is not there."));
        };
        let touched = |path: &String| {
            let now = config.files.get(path);
            now != config.ours.get(path).or(mark.get(path)) && now.is_some()
        };
        let mut done = CarriedFiles::default();
        let mut put = FileMap::new();
        for (path, bytes) in packed {
            if config.files.get(&path) == Some(&bytes) {
                continue;
            }
            if touched(&path) {
                done.conflicts.push(path);
            } else {
                done.files += 1;
                put.insert(path, bytes);
            }
        }
        let gone: Vec<String> = config
            .files
            .keys()
            .filter(|path| under(rules, path) && !names.contains(path) && !touched(path))
            .cloned()
            .collect();
        done.removed = gone.len() as u64;
        self.change_config(id, |c| {
            c.files.retain(|path, _| !gone.contains(path));
            c.ours.extend(put.clone());
            c.files.extend(put);
        })?;
        Ok(done)
    }
}

impl SimPorts {
    pub(crate) async fn lend_scratch(&self, id: MachineId) -> PortResult<()> {
        let name = format!("disk.plug_scratch.{id}");
        self.call(Class::Leased, Some(id), name, |s, _| s.plug_scratch(id))
            .await
    }

    pub(crate) async fn fetch_scratch(&self, id: MachineId) -> PortResult<()> {
        let name = format!("disk.unplug_scratch.{id}");
        self.call(Class::Leased, Some(id), name, |s, _| {
            s.machine(id)?;
            if s.scratch.with == Some(id) {
                s.scratch.with = None;
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn forget_scratch(&self) -> PortResult<()> {
        let name = "disk.drop_scratch".to_owned();
        self.call(Class::Leased, None, name, |s, _| {
            if let Some(id) = s.scratch.with
                && s.machines.contains_key(&id)
            {
                s.violate(format!("the scratch disk was removed while {id} had it"));
            }
            s.scratch = Scratch::default();
            Ok(())
        })
        .await
    }

    pub(crate) async fn mark(&self, id: MachineId, set: bool) -> PortResult<()> {
        let name = format!("guest.mark_split.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.change_config(id, |c| {
                c.mark = set.then(|| c.files.clone());
                c.ours.clear();
            })
        })
        .await
    }

    pub(crate) async fn list_changes(&self, id: MachineId, most: usize) -> PortResult<ChangeList> {
        let name = format!("guest.changes.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            let config = s.guest_config(id)?;
            let Some(mark) = config.mark.clone() else {
                return Err(PortError::absent("The mark of the split is not there."));
            };
            let changed = config.files.iter().filter(|(p, b)| mark.get(*p) != Some(b));
            let all: Vec<ChangedFile> = changed
                .map(|(path, bytes)| ChangedFile {
                    path: path.clone(),
                    bytes: bytes.len() as u64,
                    kind: ChangedKind::File,
                    log: path.starts_with("/var/log/"),
                    rule: None,
                })
                .collect();
            let total = all.len() as u64;
            let files: Vec<ChangedFile> = all.into_iter().take(most).collect();
            Ok(ChangeList {
                total,
                listed: files.len() as u64,
                files,
                ..ChangeList::default()
            })
        })
        .await
    }

    pub(crate) async fn pack_files(
        &self,
        id: MachineId,
        plan: &CarryPlan,
    ) -> PortResult<CarriedFiles> {
        let name = format!("guest.pack.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.pack(id, plan)
        })
        .await
    }

    pub(crate) async fn unpack_files(
        &self,
        id: MachineId,
        rules: &[String],
    ) -> PortResult<CarriedFiles> {
        let name = format!("guest.unpack.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.unpack(id, rules)
        })
        .await
    }
}
