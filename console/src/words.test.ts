import { describe, expect, it } from "vitest";
import type { Command, Status, UpgradeState } from "./types";
import { BUTTONS, STAGES, duration, effect, size, stageOf, statusBar } from "./words";

function status(more: Partial<Status>): Status {
  return {
    system: "web", running: true, hardware_state: "Fault Tolerant", upgrade_state: "Idle", operational_state: "Ready",
    partner_state: null, config: null, allowed: [], problem: null, step: null, progress: null, warnings: 0, errors: 0,
    disks: [], outage_ms: null, pause_ms: null, accelerator: null, last_seq: 1, version: "0", ...more,
  };
}

const STATES: UpgradeState[] = ["Idle", "PrepareSplit", "Split", "PrepareMerge", "Merge", "Commit", "Abort", "Finish"];

describe("the words of the console", () => {
  it("the status bar has five fields in the guide's words", () => {
    const bar = statusBar(status({ upgrade_state: "PrepareSplit", config: "shop.Config", partner_state: "OS Up" }));
    expect(bar.map(([, value]) => value)).toEqual(["shop.Config", "Fault Tolerant", "Prepare Split", "Ready", "Partner: OS Up"]);
    expect(statusBar(status({})).map(([, value]) => value)).toEqual(["No configuration file", "Fault Tolerant", "Idle", "Ready", "No partner"]);
  });

  // CO-10, CO-12 to CO-16: six pages, each with its buttons; every state has its page.
  it("every state has its page and every page its buttons", () => {
    expect(STAGES).toEqual(["Active Upgrade", "Split System", "Merge System", "Commit Upgrade", "Abort Upgrade", "Finish"]);
    expect(STATES.map(stageOf)).toEqual([
      "Active Upgrade", "Active Upgrade", "Split System", "Split System", "Merge System", "Commit Upgrade", "Abort Upgrade", "Finish",
    ]);
    expect(BUTTONS["Active Upgrade"]).toEqual(["split", "retry", "abort"]);
    expect(BUTTONS["Split System"]).toEqual(["merge", "retry", "abort"]);
    expect(BUTTONS["Merge System"]).toEqual(["commit", "retry", "abort"]);
    expect(BUTTONS["Commit Upgrade"]).toEqual(["finish", "retry"]);
    expect(BUTTONS["Abort Upgrade"]).toEqual(["finish", "retry"]);
  });

  it("merge, commit and an abort in merge ask for the name, nothing else does", () => {
    const asks = (state: UpgradeState, command: Command) => effect(status({ upgrade_state: state }), command).byName;
    expect(asks("Split", "merge") && asks("Merge", "commit") && asks("Merge", "abort")).toBe(true);
    expect(asks("Idle", "split") || asks("Split", "abort") || asks("Commit", "finish") || asks("Idle", "retry")).toBe(false);
  });

  it("what cannot be undone is said", () => {
    expect(effect(status({ upgrade_state: "Merge" }), "commit").undo).toContain("irreversible");
    expect(effect(status({ upgrade_state: "Split" }), "merge").undo).toContain("also after an Abort");
    expect(effect(status({ upgrade_state: "Idle" }), "split").costs).toContain("simplex");
  });

  it("sizes and times are for people", () => {
    expect([size(0), size(1536), size(5 * 1024 ** 3)]).toEqual(["0 B", "1.5 KiB", "5.0 GiB"]);
    expect([duration(59.4), duration(61), duration(3700)]).toEqual(["59 s", "1 min 1 s", "1 h 1 min"]);
  });
});
