// Requests to the server.
import type { LogItem, Me, Problem, Command } from "./types";

/** A request that was refused, or that nobody answered. */
export class Refused extends Error {
  readonly status: number;
  readonly problem: Problem;

  constructor(status: number, problem: Problem) {
    super(problem.message);
    this.status = status;
    this.problem = problem;
  }
}

/** No page of somebody else can send this header. */
export const OURS = { "X-Flipside": "1" };

/** Answers come within milliseconds; a check of a busy guest may take some seconds. */
const DEADLINE_MS = 30_000;

const UNREACHABLE: Problem = {
  code: "failed",
  message: "The server does not answer.",
  advice: "Machines and open sessions go on. Make sure that `flipside serve` runs and that the network is there.",
};

export async function ask(method: string, path: string, body?: unknown): Promise<Response> {
  const request: RequestInit = { method, headers: { ...OURS, "Content-Type": "application/json" }, signal: AbortSignal.timeout(DEADLINE_MS) };
  if (body !== undefined) request.body = JSON.stringify(body);
  const response = await fetch(path, request).catch(() => {
    throw new Refused(0, UNREACHABLE);
  });
  if (response.ok) return response;
  const said: unknown = await response.json().catch(() => null);
  const fallback: Problem = { code: "failed", message: `The server answered with status ${response.status}.` };
  throw new Refused(response.status, isProblem(said) ? said : fallback);
}

function isProblem(value: unknown): value is Problem {
  return typeof value === "object" && value !== null && "message" in value && typeof value.message === "string";
}

async function json<T>(response: Promise<Response>): Promise<T> {
  return (await (await response).json()) as T;
}

export const me = () => json<Me>(ask("GET", "/console/me"));
export const logIn = (name: string, password: string) => json<Me>(ask("POST", "/console/login", { name, password }));
export const logOut = () => ask("POST", "/console/logout");

const of = (system: string) => `/v1/systems/${encodeURIComponent(system)}`;

/** A configuration file as the browser read it. */
export interface ConfigText {
  path: string;
  text: string;
  children: { name: string; text: string }[];
}

/** Asks for the next step; `seen` is the record that the page had seen, so that nothing is asked of another state. */
export function session(system: string, command: Command, seen: number, config?: ConfigText | null) {
  const chosen = config === null ? { no_config: true } : config === undefined ? {} : { config };
  return ask("POST", `${of(system)}/session`, { command, seen, ...chosen });
}

export function logItem(system: string, id: number, go?: "previous" | "next", severity?: string): Promise<LogItem> {
  const query = new URLSearchParams();
  if (go !== undefined) query.set("go", go);
  if (severity !== undefined) query.set("severity", severity);
  return json(ask("GET", `${of(system)}/log/${id}?${query.toString()}`));
}

export interface Staged {
  session: string | null;
  name: string | null;
  config: Record<string, unknown>;
}

export const staged = (system: string) => json<Staged>(ask("GET", `${of(system)}/config`));
