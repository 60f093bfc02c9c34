// The console: who is logged in, what is known of the server, and which page is shown.
import { useEffect, useState } from "preact/hooks";
import { Refused, logOut, me } from "./api";
import { clean } from "./clean";
import { follow } from "./live";
import { EMPTY, type Log, merged } from "./log";
import { Login } from "./pages/login";
import { First } from "./pages/first";
import { Frame } from "./frame";
import type { Me, Status } from "./types";

type Who = "asking" | "nobody" | Me;

/** The system and the page that the address names, such as `#/shop/configuration`. */
function route(): { system: string | null; page: string | null } {
  const [, system, page] = location.hash.split("/");
  return { system: system === undefined || system === "" ? null : decodeURIComponent(system), page: page ?? null };
}

export function App() {
  const [who, setWho] = useState<Who>("asking");
  const [unreachable, setUnreachable] = useState(false);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = () => {
      me().then(
        (found) => { setUnreachable(false); setWho(found); },
        (error: unknown) => {
          const known = error instanceof Refused && error.status === 401;
          setUnreachable(!known);
          if (known) setWho("nobody");
          else timer = setTimeout(look, 2000);
        },
      );
    };
    look();
    return () => { clearTimeout(timer); };
  }, []);
  if (who === "asking") return <main class="login"><h1>flipside</h1>{unreachable && <p role="alert">The server does not answer. It is asked again every two seconds; machines and open sessions go on.</p>}</main>;
  if (who === "nobody") return <Login done={setWho} />;
  return <Console me={who} out={() => { setWho("nobody"); }} />;
}

function Console(props: { me: Me; out: () => void }) {
  const [names, setNames] = useState<string[] | null>(null);
  const [statuses, setStatuses] = useState<Record<string, Status>>({});
  const [log, setLog] = useState<Log>(EMPTY);
  const [connected, setConnected] = useState(true);
  const [at, setAt] = useState(route);
  useEffect(() => {
    const changed = () => { setAt(route()); };
    addEventListener("hashchange", changed);
    return () => { removeEventListener("hashchange", changed); };
  }, []);
  const system = at.system ?? names?.[0] ?? null;
  useEffect(() => {
    setLog(EMPTY);
    return follow(system, {
      systems: (list) => { setNames(list); },
      status: (status) => { setStatuses((old) => ({ ...old, [status.system]: status })); },
      log: (event) => { setLog((old) => merged(old, event)); },
      connected: setConnected,
      loggedOut: props.out,
    });
  }, [system]);
  const status = system === null ? undefined : statuses[system];
  const leave = () => { void logOut().catch(() => undefined).then(props.out); };
  if (names === null) return <main class="login"><h1>flipside</h1>{!connected && <p role="alert">The server does not answer. It is asked again; machines and open sessions go on.</p>}</main>;
  if (names.length === 0 || status === undefined || system === null || !names.includes(system)) {
    return (
      <main class="login">
        <h1>flipside</h1>
        {names.length === 0 ? <First /> : (
          <section class="card">
            <h2>{system !== null && !names.includes(system) ? `There is no system ${clean(system)}` : "Systems"}</h2>
            <ul>{names.map((name) => <li key={name}><a href={`#/${name}`}>{name}</a></li>)}</ul>
          </section>
        )}
        <p><button onClick={leave}>Log out</button></p>
      </main>
    );
  }
  return <Frame me={props.me} names={names} statuses={statuses} status={status} log={log} connected={connected} page={at.page} leave={leave} />;
}
