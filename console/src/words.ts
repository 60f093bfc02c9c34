// What is said of a system and of each step, in the guide's words; every text is a pure function of the status.
import type { Command, Status, UpgradeState } from "./types";

export const SPACED: Record<UpgradeState, string> = {
  Idle: "Idle",
  PrepareSplit: "Prepare Split",
  Split: "Split",
  PrepareMerge: "Prepare Merge",
  Merge: "Merge",
  Commit: "Commit",
  Abort: "Abort",
  Finish: "Finish",
};

/** The five fields of the status bar, with what each is called for those who hear the page. */
export function statusBar(status: Status): [string, string][] {
  return [
    ["Configuration", status.config ?? "No configuration file"],
    ["Hardware state", status.hardware_state],
    ["Upgrade state", SPACED[status.upgrade_state]],
    ["Operational state", status.operational_state],
    ["Partner", status.partner_state === null ? "No partner" : `Partner: ${status.partner_state}`],
  ];
}

/** The pages of the Active Upgrade section, in order. */
export const STAGES = ["Active Upgrade", "Split System", "Merge System", "Commit Upgrade", "Abort Upgrade", "Finish"] as const;
export type Stage = (typeof STAGES)[number];

/** The page of a status: a console that is opened again comes up here. */
export function stageOf(state: UpgradeState): Stage {
  switch (state) {
    case "Idle":
    case "PrepareSplit":
      return "Active Upgrade";
    case "Split":
    case "PrepareMerge":
      return "Split System";
    case "Merge":
      return "Merge System";
    case "Commit":
      return "Commit Upgrade";
    case "Abort":
      return "Abort Upgrade";
    case "Finish":
      return "Finish";
  }
}

/** The buttons of a page, in order. Those that the law does not allow now are shown and cannot be pressed. */
export const BUTTONS: Record<Stage, Command[]> = {
  "Active Upgrade": ["split", "retry", "abort"],
  "Split System": ["merge", "retry", "abort"],
  "Merge System": ["commit", "retry", "abort"],
  "Commit Upgrade": ["finish", "retry"],
  "Abort Upgrade": ["finish", "retry"],
  Finish: ["retry"],
};

export const LABELS: Record<Command, string> = {
  check: "Check",
  split: "Split",
  merge: "Merge",
  commit: "Commit",
  abort: "Abort",
  finish: "Finish",
  retry: "Retry",
};

/** What a step does, what it costs and what can be undone. */
export interface Effect {
  happens: string;
  costs: string;
  undo: string;
  /** It asks for the name of the system. */
  byName: boolean;
}

export function effect(status: Status, command: Command): Effect {
  const kept = status.checkpoint_ms !== undefined;
  switch (command) {
    case "check":
    case "retry":
      return status.upgrade_state === "Idle"
        ? { happens: "Runs the readiness check again. It changes nothing.", costs: "Nothing.", undo: "Nothing to undo.", byName: false }
        : { happens: "Repeats the operation that failed, from where it stands.", costs: "What the operation costs.", undo: "As before.", byName: false };
    case "split":
      return {
        happens: "Checks once more, then divides the system: the Production Side keeps serving, the isolated Upgrade Side is yours to change. Split is not split-brain.",
        costs: "The users notice nothing; production pauses for milliseconds. Until Commit or Abort each side runs simplex: a failure of the Production Side is then an outage.",
        undo: "Everything: Abort takes it back without downtime.",
        byName: false,
      };
    case "merge":
      return {
        happens: "The applications stop on the Production Side, data disks and network move, and they start on the Upgrade Side. Merge moves the users; no data is merged.",
        costs: "A brief outage, so choose its moment. New connections wait meanwhile.",
        undo: kept
          ? "Everything until Commit; data written after the merge stays, unless you discard it at the command line (abort --discard-data)."
          : "Everything until Commit, but the data: what is written after the merge stays, also after an Abort.",
        byName: true,
      };
    case "commit":
      return {
        happens: "Makes the upgrade permanent: the old Production Side is ended, and the mirrors are resynchronised (RDR) from the Upgrade Side.",
        costs: "No downtime. Until the resync ends, the system has no redundancy. Everything changed on the Production Side's system disks since the split is lost, its logs included.",
        undo: "Nothing: it is irreversible.",
        byName: true,
      };
    case "abort":
      return status.upgrade_state === "Merge" || status.upgrade_state === "PrepareMerge"
        ? {
            happens: "Moves the users back to the paused Production Side, which goes on where it was, and ends the Upgrade Side.",
            costs: "A brief outage without a reboot. Everything installed on the Upgrade Side's system disks is lost.",
            undo: "Nothing. Data written since the merge stays, in the form in which the upgraded applications wrote it.",
            byName: status.upgrade_state === "Merge",
          }
        : {
            happens: "Ends the Upgrade Side; the mirrors are resynchronised (RDR) from the Production Side.",
            costs: "No downtime. Everything installed on the Upgrade Side is lost.",
            undo: "Nothing: the Upgrade Side is gone.",
            byName: false,
          };
    case "finish":
      return { happens: "Cleans up and ends the session.", costs: "Nothing.", undo: "The log of the session stays.", byName: false };
  }
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function size(bytes: number): string {
  let [value, unit] = [bytes, 0];
  while (value >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit] ?? ""}`;
}

export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A time in the viewer's zone. */
export function time(at_ms: number): string {
  return new Date(at_ms).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
}
