// The window: title bar, navigation bar, main window, status bar.
import { useEffect, useState } from "preact/hooks";
import { clean } from "./clean";
import { Dialog } from "./dialog";
import { HELP } from "./help";
import type { Log } from "./log";
import { Configuration } from "./pages/configuration";
import { Disks } from "./pages/disks";
import { ActivityLog } from "./pages/log";
import { Upgrade } from "./pages/upgrade";
import { ProblemBox } from "./problem";
import type { Me, Problem, Status } from "./types";
import { STAGES, stageOf, statusBar } from "./words";

interface Props {
  me: Me;
  names: string[];
  statuses: Record<string, Status>;
  status: Status;
  log: Log;
  connected: boolean;
  page: string | null;
  leave: () => void;
}

export function Frame(props: Props) {
  const { status } = props;
  const [help, setHelp] = useState(false);
  const [failed, setFailed] = useState<Problem | null>(null);
  const idle = status.upgrade_state === "Idle";
  // Without a session the console opens on Configuration; in one it is where the session is.
  const configuring = idle && props.page !== "active-upgrade";
  const stage = stageOf(status.upgrade_state);
  const title = configuring ? "Configuration" : stage;
  const home = `#/${encodeURIComponent(status.system)}`;
  useEffect(() => { document.title = `${title} – ${clean(status.system)} – flipside`; }, [title, status.system]);
  useEffect(() => { setFailed(null); }, [title, status.system]);
  return (
    <>
      <header>
        <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the main window</a>
        <h1>{title}</h1>
        <label class="systems">System{" "}
          <select value={status.system} onChange={(event) => { location.hash = `#/${encodeURIComponent(event.currentTarget.value)}`; }}>
            {props.names.map((name) => <option key={name} value={name}>{name}{name !== status.system && props.statuses[name]?.operational_state === "Broken" ? " (Broken)" : ""}</option>)}
          </select>
        </label>
        <button onClick={() => { setHelp(true); }}>Help</button>
        <button onClick={props.leave} title={`Logged in as ${props.me.name}, ${props.me.role}. Operations go on without you.`}>Log out</button>
      </header>
      {!props.connected && <p class="lost" role="alert">The server does not answer; what you see may be old. It is asked again. Machines and open sessions go on.</p>}
      <nav aria-label="Pages">
        <h2>Configuration</h2>
        <ul>
          <li>{idle ? <a href={`${home}/configuration`} aria-current={configuring ? "page" : undefined}>Configuration</a> : <span>Configuration</span>}</li>
        </ul>
        <h2>Active Upgrade</h2>
        <ul>
          {STAGES.map((name) => (
            <li key={name}>
              {idle && name === "Active Upgrade"
                ? <a href={`${home}/active-upgrade`} aria-current={configuring ? undefined : "page"}>{name}</a>
                : <span aria-current={!idle && name === stage ? "step" : undefined}>{name}</span>}
            </li>
          ))}
        </ul>
        {!idle && <p class="quiet">A session is open: the buttons in the main window lead through it.</p>}
      </nav>
      <main id="main" tabIndex={-1}>
        {failed !== null && <ProblemBox problem={failed} />}
        {configuring
          ? <Configuration status={status} operator={props.me.role === "operator"} checked={() => { location.hash = `${home}/active-upgrade`; }} />
          : <Upgrade key={stage} status={status} log={props.log} stage={stage} operator={props.me.role === "operator"} failed={setFailed} />}
        <Disks status={status} />
        <ActivityLog key={status.system} system={status.system} log={props.log} />
      </main>
      <footer aria-label="Status bar" role="contentinfo">
        <dl>{statusBar(status).map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{clean(value)}</dd></div>)}</dl>
      </footer>
      {help && (
        <Dialog title={`Help: ${title}`} close={() => { setHelp(false); }}>
          {HELP[title].map((text) => <p key={text}>{text}</p>)}
          <p class="quiet">The whole manual: <code>flipside help</code></p>
          <div class="row end"><button onClick={() => { setHelp(false); }}>Close</button></div>
        </Dialog>
      )}
    </>
  );
}
