import { describe, expect, it } from "vitest";
import { EMPTY, children, findings, merged } from "./log";
import type { LogLine, Severity } from "./types";

function line(node: number, parent: number | null, severity: Severity, text = `line ${node}`): LogLine {
  return { node, parent, severity, text, at_ms: 0, component: null, advice: null, detail: false, took_ms: null };
}

describe("the log", () => {
  it("is a tree that grows and changes", () => {
    let log = merged(EMPTY, { system: "web", reset: true, lines: [line(1, null, "Pending"), line(2, 1, "Success")] });
    log = merged(log, { system: "web", reset: false, lines: [line(1, null, "Error"), line(5, 1, "Error"), line(7, null, "Pending")] });
    expect(children(log, null).map((l) => [l.node, l.severity])).toEqual([[1, "Error"], [7, "Pending"]]);
    expect(children(log, 1).map((l) => l.node)).toEqual([2, 5]);
  });

  it("begins anew when the server says so", () => {
    const old = merged(EMPTY, { system: "web", reset: true, lines: [line(1, null, "Error")] });
    const log = merged(old, { system: "web", reset: true, lines: [line(9, null, "Success")] });
    expect(children(log, null).map((l) => l.node)).toEqual([9]);
    expect(children(old, null).map((l) => l.node)).toEqual([1]);
  });

  it("tells what the last readiness check found, and nothing of the one before", () => {
    const log = merged(EMPTY, {
      system: "web",
      reset: true,
      lines: [
        line(1, null, "Error", "Readiness check"),
        line(2, 1, "Error", "old"),
        line(3, null, "Error", "Readiness check"),
        line(4, 3, "Warning", "memory"),
        line(5, 3, "Success", "fine"),
        line(6, 3, "Error", "disks"),
        line(7, 6, "Error", "data0"),
      ],
    });
    expect(findings(log).map((l) => l.text)).toEqual(["memory", "data0"]);
  });
});
