import { useState } from "preact/hooks";
import { logIn } from "../api";
import { ProblemBox, problemOf } from "../problem";
import type { Me, Problem } from "../types";

export function Login(props: { done: (me: Me) => void }) {
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const text = (name: string) => { const value = form.get(name); return typeof value === "string" ? value : ""; };
    setBusy(true);
    try {
      props.done(await logIn(text("name"), text("password")));
    } catch (error) {
      setProblem(problemOf(error));
    }
    setBusy(false);
  };
  return (
    <main class="login">
      <h1>flipside</h1>
      <form onSubmit={(event) => void submit(event)}>
        <label>Name <input name="name" autocomplete="username" required autofocus /></label>
        <label>Password <input name="password" type="password" autocomplete="current-password" required /></label>
        <button class="primary" disabled={busy}>Log in</button>
      </form>
      {problem !== null && <ProblemBox problem={problem} />}
      <p class="quiet">The first user is <code>admin</code>. The log of <code>flipside serve</code> names the file with the password; <code>flipside user set admin</code> gives a new one.</p>
    </main>
  );
}
