// A real server with a real system definition, and a real browser. Nothing of either is replaced.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type Browser, type Page, chromium } from "playwright-core";
import { expect } from "vitest";

const ROOT = resolve(import.meta.dirname, "../..");
const BINARY = join(ROOT, "target/debug/flipside");
/** The pages as they were built. */
export const PAGES = join(ROOT, "target/console");
const PATIENCE_MS = 30_000;

/** Waits for a condition. */
export async function until<T>(what: string, look: () => T | undefined | null | false): Promise<T> {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = look();
    if (found !== undefined && found !== null && found !== false) return found;
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

export class Server {
  readonly dir = mkdtempSync(join(tmpdir(), "flipside-console-"));
  private child: ChildProcess | null = null;
  /** The port of the first start, so that the pages find the server again after a restart. */
  private port = 0;

  private env() {
    return { ...process.env, FLIPSIDE_SOCKET: join(this.dir, "s"), FLIPSIDE_CONSOLE_DIR: PAGES };
  }

  async start(): Promise<void> {
    const file = join(this.dir, "state/console/url");
    rmSync(file, { force: true });
    const log = openSync(join(this.dir, "log"), "a");
    const args = ["serve", "--listen", `127.0.0.1:${this.port}`, "--state-dir", join(this.dir, "state")];
    this.child = spawn(BINARY, args, { env: this.env(), stdio: ["ignore", log, log] });
    closeSync(log);
    await until("the console listens", () => existsSync(file));
    this.port = Number(new URL(this.url()).port);
  }

  url(): string {
    return readFileSync(join(this.dir, "state/console/url"), "utf8").trim();
  }

  password(): string {
    return readFileSync(join(this.dir, "state/console/first-password"), "utf8").trim();
  }

  /** Runs a command of the command line. */
  run(args: string[], input = ""): string {
    return execFileSync(BINARY, args, { env: this.env(), encoding: "utf8", input, stdio: ["pipe", "pipe", "pipe"] });
  }

  /** Creates a system of two small disks; nothing is started. */
  create(name: string): void {
    const image = join(this.dir, "image.raw");
    writeFileSync(image, Buffer.alloc(1 << 20, 7));
    const enclosures = ["a", "b"].flatMap((e) => ["--enclosure", join(this.dir, e)]);
    this.run(["system", "create", name, "--system-disk", image, "--data-disk", "1M", "--memory", "128M", ...enclosures]);
  }

  async kill(): Promise<void> {
    const child = this.child;
    this.child = null;
    if (child === null) return;
    child.kill("SIGKILL");
    await until("the server ends", () => child.exitCode !== null || child.signalCode !== null);
  }

  async end(): Promise<void> {
    await this.kill();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.FLIPSIDE_CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
}

/** Opens a page that notes every error, every broken policy and every request to somebody else. */
export async function open(browser: Browser, server: Server, scheme: "light" | "dark" = "light"): Promise<{ page: Page; wrong: string[] }> {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width: 1280, height: 900 }, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const wrong: string[] = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("console", (message) => { if (/policy|refused to/iu.test(message.text())) wrong.push(message.text()); });
  page.on("request", (request) => { if (!request.url().startsWith(server.url()) && !request.url().startsWith("blob:")) wrong.push(request.url()); });
  await page.goto(server.url());
  return { page, wrong };
}

export async function logIn(page: Page, name: string, password: string): Promise<void> {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.keyboard.press("Enter");
}

interface Violation { id: string; impact: string | null; help: string; nodes: { html: string; failureSummary?: string }[] }

/** axe finds nothing serious on what is shown now. */
export async function accessible(page: Page): Promise<void> {
  const source = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  // Evaluated by the debugger, not by the page: its policy stays as it is.
  await page.evaluate(source);
  const found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] }).then((r) => r.violations)");
  const serious = (found as Violation[]).filter((v) => v.impact === "serious" || v.impact === "critical");
  expect(serious.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => `${n.html} ${n.failureSummary ?? ""}`).join(" | ")}`)).toEqual([]);
}

/** Takes a picture when pictures are asked for. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env.FLIPSIDE_SCREENSHOTS;
  if (folder === undefined) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}
