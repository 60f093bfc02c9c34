// What travels over the API, as `crates/model` has it.

export const SEVERITIES = ["Success", "Pending", "Information", "Warning", "Error"] as const;
export type Severity = (typeof SEVERITIES)[number];
export type UpgradeState = "Idle" | "PrepareSplit" | "Split" | "PrepareMerge" | "Merge" | "Commit" | "Abort" | "Finish";
export type Command = "check" | "split" | "merge" | "commit" | "abort" | "finish" | "retry";

export interface Problem {
  code: string;
  message: string;
  causes?: string[];
  component?: string | null;
  advice?: string | null;
}

export interface Progress {
  what: string;
  done_bytes: number;
  total_bytes: number;
  rate: number;
  left_seconds: number | null;
}

export interface DiskStatus {
  name: string;
  role: string;
  size: number;
  mirror: string;
  legs: { leg: string; path: string; role: string; reason?: string }[];
}

export interface Status {
  system: string;
  running: boolean;
  hardware_state: string;
  upgrade_state: UpgradeState;
  operational_state: "Ready" | "Busy" | "Broken";
  partner_state: string | null;
  config: string | null;
  allowed: Command[];
  problem: Problem | null;
  step: string | null;
  progress: Progress | null;
  warnings: number;
  errors: number;
  action?: string;
  not_saved?: string[];
  disks: DiskStatus[];
  outage_ms: number | null;
  pause_ms: number | null;
  checkpoint_ms?: number;
  accelerator: string | null;
  last_seq: number;
  version: string;
}

export interface LogLine {
  node: number;
  parent: number | null;
  at_ms: number;
  severity: Severity;
  text: string;
  component: string | null;
  advice: string | null;
  detail: boolean;
  took_ms: number | null;
}

export interface LogEvent {
  system: string;
  reset: boolean;
  lines: LogLine[];
}

export interface LogItem {
  id: number;
  time: string;
  severity: Severity;
  path: string[];
  text: string;
  component: string | null;
  advice: string | null;
  detail: string | null;
  took_ms: number | null;
  walked: Severity;
  previous: number | null;
  next: number | null;
  counts: Partial<Record<Severity, number>>;
}

export interface Me {
  name: string;
  role: "viewer" | "operator";
  version: string;
}
