// The activity log: a tree, and one item with everything it says.
import { useEffect, useState } from "preact/hooks";
import { logItem, ask } from "../api";
import { clean, cleanLines } from "../clean";
import { Dialog } from "../dialog";
import { type Log, children } from "../log";
import { ProblemBox, problemOf } from "../problem";
import { type LogItem, type LogLine, type Problem, SEVERITIES, type Severity } from "../types";
import { duration, time } from "../words";

export const ICONS: Record<Severity, string> = { Success: "✔", Pending: "…", Information: "i", Warning: "!", Error: "✘" };

export function Badge(props: { severity: Severity }) {
  return <span class={`badge ${props.severity.toLowerCase()}`}><span aria-hidden="true">{ICONS[props.severity]}</span> {props.severity}</span>;
}

interface Shared {
  log: Log;
  open: ReadonlySet<number>;
  toggle: (node: number) => void;
  detail: (node: number) => void;
}

function Line(props: Shared & { line: LogLine }) {
  const { line, open } = props;
  const below = children(props.log, line.node);
  const shown = open.has(line.node);
  return (
    <li>
      <div class="line">
        {below.length > 0 ? (
          <button class="twist" aria-expanded={shown} aria-label={`${below.length} items below: ${clean(line.text)}`} onClick={() => { props.toggle(line.node); }}>
            {shown ? "▾" : "▸"}
          </button>
        ) : <span class="twist" />}
        <Badge severity={line.severity} />
        <button class="text" onClick={() => { props.detail(line.node); }}>{clean(line.text)}</button>
        {line.took_ms !== null && line.took_ms >= 100 && <span class="quiet">{duration(line.took_ms / 1000)}</span>}
        <time class="quiet" dateTime={new Date(line.at_ms).toISOString()}>{time(line.at_ms)}</time>
      </div>
      {line.advice !== null && <p class="advice">→ {clean(line.advice)}</p>}
      {shown && <ul>{below.map((child) => <Line key={child.node} {...props} line={child} />)}</ul>}
    </li>
  );
}

function Detail(props: { system: string; id: number; close: () => void }) {
  const [item, setItem] = useState<LogItem | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const go = (id: number, where?: "previous" | "next", severity?: Severity) => {
    logItem(props.system, id, where, severity).then(
      (found) => { setItem(found); setProblem(null); },
      (error: unknown) => { setProblem(problemOf(error)); },
    );
  };
  useEffect(() => { go(props.id); }, [props.system, props.id]);
  return (
    <Dialog title="Activity log detail" close={props.close}>
      {item !== null && (
        <>
          <p class="quiet">{item.path.map(clean).join(" › ")}</p>
          <p><Badge severity={item.severity} /> {clean(item.text)}</p>
          <dl>
            <dt>Time</dt><dd>{time(Date.parse(item.time))}</dd>
            {item.component !== null && <><dt>About</dt><dd>{clean(item.component)}</dd></>}
            {item.advice !== null && <><dt>What to do</dt><dd>{clean(item.advice)}</dd></>}
          </dl>
          {item.detail !== null && <pre tabIndex={0}>{cleanLines(item.detail).join("\n")}</pre>}
          <div class="row">
            <button disabled={item.previous === null} onClick={() => { go(item.id, "previous", item.walked); }}>Previous</button>
            <button disabled={item.next === null} onClick={() => { go(item.id, "next", item.walked); }}>Next</button>
            <label>Show severity{" "}
              <select value={item.walked} onChange={(event) => {
                const wanted = event.currentTarget.value as Severity;
                go(0, "next", wanted);
              }}>
                {SEVERITIES.map((severity) => (
                  <option key={severity} value={severity} disabled={(item.counts[severity] ?? 0) === 0}>
                    {severity} ({item.counts[severity] ?? 0})
                  </option>
                ))}
              </select>
            </label>
          </div>
        </>
      )}
      {problem !== null && <ProblemBox problem={problem} />}
      <div class="row end"><button onClick={props.close}>Close</button></div>
    </Dialog>
  );
}

export function ActivityLog(props: { system: string; log: Log }) {
  const [toggled, setToggled] = useState<ReadonlySet<number>>(new Set());
  const [detail, setDetail] = useState<number | null>(null);
  const stages = children(props.log, null);
  // What needs an eye is open by itself, and what goes on now; whoever closes it keeps it closed.
  const open = new Set<number>();
  for (const line of props.log.lines.values()) {
    const serious = line.severity === "Error" || line.severity === "Pending" || (line.severity === "Warning" && line.parent === null);
    if (serious !== toggled.has(line.node)) open.add(line.node);
  }
  const toggle = (node: number) => {
    const next = new Set(toggled);
    if (!next.delete(node)) next.add(node);
    setToggled(next);
  };
  return (
    <section class="card log" aria-label="Activity log">
      <div class="row"><h2>Activity log</h2><SaveLog system={props.system} /></div>
      {stages.length === 0 ? <p class="quiet">Nothing has happened yet.</p> : (
        <ul>{stages.map((line) => <Line key={line.node} log={props.log} open={open} toggle={toggle} detail={setDetail} line={line} />)}</ul>
      )}
      {detail !== null && <Detail system={props.system} id={detail} close={() => { setDetail(null); }} />}
    </section>
  );
}

function SaveLog(props: { system: string }) {
  const [problem, setProblem] = useState<Problem | null>(null);
  const save = async () => {
    const answer = await ask("GET", `/v1/systems/${encodeURIComponent(props.system)}/log.xml`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = `${props.system}-log.xml`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return (
    <>
      <button onClick={() => { save().catch((error: unknown) => { setProblem(problemOf(error)); }); }}>Save as XML</button>
      {problem !== null && <ProblemBox problem={problem} />}
    </>
  );
}
