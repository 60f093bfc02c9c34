// The activity log as a tree, kept from the events of the server.
import type { LogEvent, LogLine } from "./types";

export interface Log {
  lines: Map<number, LogLine>;
  /** Numbers of the lines below each line, in the order in which they came; those of `null` are the stages. */
  below: Map<number | null, number[]>;
}

export const EMPTY: Log = { lines: new Map(), below: new Map() };

/** Returns the log with what an event says. */
export function merged(log: Log, event: LogEvent): Log {
  const lines = event.reset ? new Map<number, LogLine>() : new Map(log.lines);
  const below = event.reset ? new Map<number | null, number[]>() : new Map(log.below);
  for (const line of event.lines) {
    if (!lines.has(line.node)) {
      below.set(line.parent, [...(below.get(line.parent) ?? []), line.node]);
    }
    lines.set(line.node, line);
  }
  return { lines, below };
}

/** Returns the lines below one, or the stages. */
export function children(log: Log, parent: number | null): LogLine[] {
  const found = log.below.get(parent) ?? [];
  return found.flatMap((node) => log.lines.get(node) ?? []);
}

/** Returns all lines that need somebody's eye and have nothing of their kind below them: what a readiness check found. */
export function findings(log: Log): LogLine[] {
  const serious = (line: LogLine) => line.severity === "Warning" || line.severity === "Error";
  const checks = children(log, null).filter((line) => /readiness/iu.test(line.text)).at(-1);
  const found: LogLine[] = [];
  const walk = (line: LogLine) => {
    const under = children(log, line.node).filter(serious);
    if (under.length === 0 && serious(line)) found.push(line);
    under.forEach(walk);
  };
  if (checks !== undefined) walk(checks);
  return found;
}
