// The stream of everything that a page shows. It is read with `fetch`, because an `EventSource` cannot send our header; it
// comes back by itself, from where it was, after a sleep, a lost network or a restart of the server.
import { OURS } from "./api";
import type { LogEvent, Status } from "./types";

export interface Handlers {
  systems: (names: string[]) => void;
  status: (status: Status) => void;
  log: (event: LogEvent) => void;
  /** Whether the stream is there now. */
  connected: (there: boolean) => void;
  /** The login has ended. */
  loggedOut: () => void;
}

/** The server says something every ten seconds; after this time without a word the connection is dead. */
const SILENCE_MS = 25_000;

/** Pauses before trying again, in milliseconds; the last one is repeated. Short first: a server restarts in a second. */
const PAUSES = [250, 500, 1000, 2000, 5000];

export interface Event {
  name: string;
  id: string | null;
  data: string;
}

/** Takes whole events out of a text, and returns the rest. */
export function parse(text: string): { events: Event[]; rest: string } {
  const parts = text.split("\n\n");
  const rest = parts.pop() ?? "";
  const events = parts.flatMap((part) => {
    const event: Event = { name: "message", id: null, data: "" };
    for (const line of part.split("\n")) {
      if (line.startsWith("event: ")) event.name = line.slice(7);
      else if (line.startsWith("id: ")) event.id = line.slice(4);
      else if (line.startsWith("data: ")) event.data += line.slice(6);
    }
    return event.data === "" ? [] : [event];
  });
  return { events, rest };
}

/** Follows the server until it is stopped; `system` is the one whose log is wanted. */
export function follow(system: string | null, handlers: Handlers): () => void {
  let stopped = false;
  // A function, since it changes while others are awaited.
  const over = () => stopped;
  let cursor: string | null = null;
  let tries = 0;
  let current: AbortController | null = null;

  const take = (event: Event) => {
    tries = 0;
    if (event.id !== null) cursor = event.id;
    const data: unknown = JSON.parse(event.data);
    if (event.name === "systems") handlers.systems((data as { systems: string[] }).systems);
    else if (event.name === "status") handlers.status(data as Status);
    else if (event.name === "log") handlers.log(data as LogEvent);
  };

  const once = async (): Promise<void> => {
    const abort = new AbortController();
    current = abort;
    const quiet = () => { abort.abort(); };
    let timer = setTimeout(quiet, SILENCE_MS);
    try {
      const headers: Record<string, string> = { ...OURS };
      if (cursor !== null) headers["Last-Event-ID"] = cursor;
      const query = system === null ? "" : `?system=${encodeURIComponent(system)}`;
      const response = await fetch(`/v1/events${query}`, { headers, signal: abort.signal });
      if (response.status === 401) {
        stopped = true;
        handlers.loggedOut();
        return;
      }
      if (!response.ok || response.body === null) return;
      handlers.connected(true);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let pending = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(quiet, SILENCE_MS);
        const { events, rest } = parse(pending + value);
        pending = rest;
        events.forEach(take);
      }
    } finally {
      clearTimeout(timer);
    }
  };

  const run = async () => {
    for (;;) {
      await once().catch(() => undefined);
      if (over()) return;
      handlers.connected(false);
      const pause = PAUSES[Math.min(tries, PAUSES.length - 1)] ?? 1000;
      tries += 1;
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (over()) return;
    }
  };
  void run();
  // A machine that wakes has a connection that is dead and does not know it.
  const wake = () => { if (document.visibilityState === "visible" && tries > 0) current?.abort(); };
  document.addEventListener("visibilitychange", wake);
  return () => {
    stopped = true;
    document.removeEventListener("visibilitychange", wake);
    current?.abort();
  };
}
