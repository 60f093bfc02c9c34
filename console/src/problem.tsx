import { clean } from "./clean";
import { Refused } from "./api";
import type { Problem } from "./types";

/** Turns whatever was thrown into what can be shown. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Refused) return error.problem;
  return { code: "internal", message: `The console failed: ${String(error)}`, advice: "Load the page again." };
}

/** What went wrong, why, and what to do. */
export function ProblemBox(props: { problem: Problem }) {
  const { message, causes, advice, component } = props.problem;
  return (
    <div class="problem" role="alert">
      <p><span class="badge error">✘ Error</span> {clean(message)}{component != null && !message.includes(component) ? ` [${clean(component)}]` : ""}</p>
      {causes?.map((cause) => <p key={cause} class="quiet">because {clean(cause)}</p>)}
      {advice != null && <p>→ {clean(advice)}</p>}
    </div>
  );
}
