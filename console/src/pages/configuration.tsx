// Which configuration is in force, and how to choose another one.
import { useEffect, useState } from "preact/hooks";
import { type ConfigText, type Staged, session, staged } from "../api";
import { clean, cleanLines } from "../clean";
import { ProblemBox, problemOf } from "../problem";
import type { Problem, Status } from "../types";

/** The server takes a mebibyte of all files together. */
const LARGEST = 1 << 20;

async function readFiles(files: FileList): Promise<ConfigText> {
  const all = Array.from(files);
  if (all.reduce((sum, file) => sum + file.size, 0) > LARGEST) throw new Error("these files are larger than a configuration can be");
  const read = await Promise.all(all.map(async (file) => ({ name: file.name, text: await file.text() })));
  // The file that none of the others names calls the others.
  const parent = read.find((file) => !read.some((other) => other !== file && other.text.includes(`"${file.name}"`))) ?? read[0];
  if (parent === undefined) throw new Error("no file was chosen");
  return { path: parent.name, text: parent.text, children: read.filter((file) => file !== parent) };
}

export function Configuration(props: { status: Status; operator: boolean; checked: () => void }) {
  const { status } = props;
  const [found, setFound] = useState<Staged | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    staged(status.system).then(setFound, (error: unknown) => { setProblem(problemOf(error)); });
  }, [status.system, status.config, status.upgrade_state]);
  const may = status.allowed.includes("check") && props.operator;
  const check = async (config: Promise<ConfigText | null>) => {
    setProblem(null);
    try {
      await session(status.system, "check", status.last_seq, await config);
      props.checked();
    } catch (error) {
      setProblem(problemOf(error));
    }
  };
  const files = (list: FileList | null | undefined) => { if (list != null && list.length > 0) void check(readFiles(list)); };
  const texts = (found?.config.files ?? []) as { name: string; text: string }[];
  return (
    <div onDragOver={(event) => { event.preventDefault(); }} onDrop={(event) => { event.preventDefault(); if (may) files(event.dataTransfer?.files); }}>
      <section class="card">
        <h2>Choose a configuration</h2>
        <div class="choice">
          <label class="button">Load Configuration File
            <input type="file" multiple accept=".Config" disabled={!may} onChange={(event) => { files(event.currentTarget.files); event.currentTarget.value = ""; }} />
          </label>
          <p>Takes a file from this computer, or drop it on this page; with the files that it calls, choose all of them. It is checked by the server, then the readiness check runs with it.</p>
        </div>
        <div class="choice">
          <button disabled={!may} onClick={() => void check(Promise.resolve(null))}>No Configuration File</button>
          <p>Goes on without one: no application services are controlled. The readiness check runs at once.</p>
        </div>
        <p class="quiet">Files are made and changed on the command line: <code>flipside config new</code>, <code>flipside config edit</code>.</p>
      </section>
      {problem !== null && <ProblemBox problem={problem} />}
      <section class="card" aria-label="Configuration in force">
        <h2>{status.config === null ? "No configuration file is in force" : `In force: ${clean(status.config)}`}</h2>
        {texts.map((file) => <details key={file.name} open={texts.length === 1}><summary>{clean(file.name)}</summary><pre tabIndex={0}>{cleanLines(file.text).join("\n")}</pre></details>)}
      </section>
    </div>
  );
}
