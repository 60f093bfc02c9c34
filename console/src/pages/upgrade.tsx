// The pages of the Active Upgrade section: what is now, what can be done, what that does, costs and leaves undoable.
import { useEffect, useState } from "preact/hooks";
import { session } from "../api";
import { clean } from "../clean";
import { Dialog } from "../dialog";
import { type Log, findings } from "../log";
import { ProblemBox, problemOf } from "../problem";
import type { Command, Problem, Progress, Status } from "../types";
import { BUTTONS, LABELS, type Stage, duration, effect, size } from "../words";
import { Badge } from "./log";

const ABOUT: Record<Stage, string> = {
  "Active Upgrade": "Check whether the system is ready, then divide it. Correct every Error, and look at every Warning, before you split.",
  "Split System": "The Production Side serves the users; the Upgrade Side is isolated. Install and restart there, verify it, and keep looking after the applications on the Production Side. Then merge.",
  "Merge System": "The users are on the Upgrade Side. Verify the upgrade in production, then commit it, or abort.",
  "Commit Upgrade": "The upgrade is permanent, and the mirrors are resynchronised.",
  "Abort Upgrade": "The upgrade was taken back, and the mirrors are resynchronised.",
  Finish: "The session is being ended.",
};

function Bar(props: { progress: Progress }) {
  const { what, done_bytes, total_bytes, rate, left_seconds } = props.progress;
  const left = left_seconds === null ? "" : `, ${duration(left_seconds)} left`;
  const text = `${size(done_bytes)} of ${size(total_bytes)}, ${size(rate)}/s${left}`;
  return (
    <div>
      <p>{clean(what)}: {text}</p>
      <progress aria-label={clean(what)} max={Math.max(total_bytes, 1)} value={done_bytes} />
    </div>
  );
}

/** How long the operation has been running, and that an outage is going on while users wait. */
function Clock(props: { status: Status }) {
  const [since] = useState(() => Date.now());
  const [now, setNow] = useState(since);
  useEffect(() => {
    const timer = setInterval(() => { setNow(Date.now()); }, 1000);
    return () => { clearInterval(timer); };
  }, []);
  const seconds = duration((now - since) / 1000);
  const { upgrade_state } = props.status;
  return <p>{upgrade_state === "Merge" ? `The users are being moved: outage clock ${seconds}.` : `Seen for ${seconds}.`}</p>;
}

function Now(props: { status: Status }) {
  const { status } = props;
  return (
    <section class="card" aria-label="What goes on" aria-live="polite">
      {status.operational_state === "Busy" && (
        <>
          <p><Badge severity="Pending" /> {status.step === null ? "Working." : clean(status.step)}</p>
          <Clock key={status.upgrade_state} status={status} />
          {status.action !== undefined && <p>Custom action: {clean(status.action)}</p>}
        </>
      )}
      {status.progress !== null && <Bar progress={status.progress} />}
      {status.operational_state === "Broken" && status.problem !== null && <ProblemBox problem={status.problem} />}
      {status.operational_state === "Ready" && <p><Badge severity="Success" /> Nothing is in progress.</p>}
      {status.outage_ms !== null && <p>The last outage of the users: {duration(status.outage_ms / 1000)}.</p>}
      {status.pause_ms !== null && <p>Pause of production at the last split: {status.pause_ms.toFixed(0)} ms.</p>}
      {(status.not_saved?.length ?? 0) > 0 && (
        <div class="problem"><p><Badge severity="Warning" /> Not saved, and lost at Commit:</p><ul>{status.not_saved?.map((what) => <li key={what}>{clean(what)}</li>)}</ul></div>
      )}
      {status.accelerator === "tcg" && <p class="quiet">This host has no KVM: the machine is emulated, and slow.</p>}
    </section>
  );
}

function Findings(props: { log: Log; status: Status }) {
  const found = findings(props.log);
  const { errors, warnings } = props.status;
  return (
    <section class="card" aria-label="Readiness">
      <h2>Readiness</h2>
      <p>{errors === 0 && warnings === 0 ? "The last check found nothing to correct." : `The last check found ${errors} Errors and ${warnings} Warnings. An Error keeps the system from being split.`}</p>
      <ul class="findings">
        {found.map((line) => (
          <li key={line.node}>
            <p><Badge severity={line.severity} /> {clean(line.text)}{line.component !== null && !line.text.includes(line.component) ? ` [${clean(line.component)}]` : ""}</p>
            {line.advice !== null && <p class="advice">→ {clean(line.advice)}</p>}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Confirm(props: { status: Status; command: Command; close: () => void; act: () => void }) {
  const { status, command } = props;
  const said = effect(status, command);
  const [typed, setTyped] = useState("");
  const fits = !said.byName || typed.trim() === status.system;
  return (
    <Dialog title={`${LABELS[command]} ${clean(status.system)}?`} close={props.close}>
      <form onSubmit={(event) => { event.preventDefault(); if (fits) props.act(); }}>
        <Says status={status} command={command} />
        {said.byName && (
          <label>Type <strong>{clean(status.system)}</strong> to go on{" "}
            <input value={typed} autocomplete="off" spellcheck={false} onInput={(event) => { setTyped(event.currentTarget.value); }} />
          </label>
        )}
        <div class="row end">
          <button type="button" onClick={props.close}>Cancel</button>
          <button class={command === "abort" || command === "commit" ? "danger" : "primary"} disabled={!fits}>{LABELS[command]}</button>
        </div>
      </form>
    </Dialog>
  );
}

function Says(props: { status: Status; command: Command }) {
  const said = effect(props.status, props.command);
  return (
    <dl>
      <dt>What happens</dt><dd>{said.happens}</dd>
      <dt>What it costs</dt><dd>{said.costs}</dd>
      <dt>What can be undone</dt><dd>{said.undo}</dd>
    </dl>
  );
}

export function Upgrade(props: { status: Status; log: Log; stage: Stage; operator: boolean; failed: (problem: Problem | null) => void }) {
  const { status, stage } = props;
  const [asked, setAsked] = useState<Command | null>(null);
  const [sent, setSent] = useState(false);
  const act = async (command: Command) => {
    setAsked(null);
    setSent(true);
    props.failed(null);
    // In Idle nothing failed that could be repeated but the check itself.
    const wanted = command === "retry" && status.upgrade_state === "Idle" ? "check" : command;
    try {
      await session(status.system, wanted, status.last_seq);
    } catch (error) {
      props.failed(problemOf(error));
    }
    setSent(false);
  };
  const press = (command: Command) => {
    if (command === "retry" || command === "finish") void act(command);
    else setAsked(command);
  };
  return (
    <>
      <p>{ABOUT[stage]}</p>
      <Now status={status} />
      {stage === "Active Upgrade" && <Findings log={props.log} status={status} />}
      <section class="card" aria-label="What can be done">
        {BUTTONS[stage].map((command) => {
          const may = status.allowed.includes(command) && props.operator && !sent;
          return (
            <div class="choice" key={command}>
              <button class={may && command === BUTTONS[stage][0] ? "primary" : ""} disabled={!may} onClick={() => { press(command); }}>{LABELS[command]}</button>
              <Says status={status} command={command} />
            </div>
          );
        })}
        {!props.operator && <p class="quiet">You may look. Only an operator can change something.</p>}
      </section>
      {asked !== null && <Confirm status={status} command={asked} close={() => { setAsked(null); }} act={() => void act(asked)} />}
    </>
  );
}
