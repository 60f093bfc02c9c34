import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { PAGES, Server, accessible, launch, logIn, open, picture, until } from "./harness";

let browser: Browser;
let server: Server;

beforeAll(async () => {
  server = new Server();
  [browser] = await Promise.all([launch(), server.start()]);
});

afterAll(async () => {
  await browser.close();
  await server.end();
});

const bar = (page: Page) => page.getByRole("contentinfo", { name: "Status bar" });

describe("an empty server", () => {
  it("asks for a login, says what is wrong with one, and leads to the first system", async () => {
    const { page, wrong } = await open(browser, server);
    await page.getByRole("heading", { name: "flipside" }).waitFor();
    await accessible(page);
    await picture(page, "login");
    await logIn(page, "admin", "not the password");
    await page.getByRole("alert").getByText("the name or the password is wrong").waitFor();
    await logIn(page, "admin", server.password());
    await page.getByText("There is no system yet").waitFor();
    await accessible(page);
    await picture(page, "first");
    server.create("shop");
    // It appears by itself.
    await page.getByRole("heading", { level: 1, name: "Configuration" }).waitFor();
    expect(wrong).toEqual([]);
    await page.context().close();
  });
});

describe("a system", () => {
  let page: Page;
  let wrong: string[];

  beforeEach(async () => {
    ({ page, wrong } = await open(browser, server));
    await logIn(page, "admin", server.password());
    await bar(page).waitFor();
    return async () => {
      expect(wrong).toEqual([]);
      await page.context().close();
    };
  });

  // CO-01, CO-02, CO-03, CO-06: the parts of the window, the name of the page in its title bar with Help about it; without a
  // session the console opens on Configuration.
  it("has a window of four parts that opens on Configuration", async () => {
    await page.getByRole("banner").getByRole("heading", { name: "Configuration" }).waitFor();
    await page.getByRole("navigation", { name: "Pages" }).waitFor();
    await page.getByRole("main").waitFor();
    expect((await bar(page).locator("dd").allTextContents()).slice(0, 1)).toEqual(["No configuration file"]);
    expect(await bar(page).locator("dd").count()).toBe(5);
    await page.getByRole("button", { name: "Help" }).click();
    await page.getByRole("dialog", { name: "Help: Configuration" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await accessible(page);
    await picture(page, "configuration");
    await page.getByRole("link", { name: "Active Upgrade" }).click();
    await page.getByRole("banner").getByRole("heading", { name: "Active Upgrade" }).waitFor();
    await page.getByRole("button", { name: "Help" }).click();
    await page.getByRole("dialog", { name: "Help: Active Upgrade" }).waitFor();
  });

  // RC-04, RC-05: No Configuration File opens the Active Upgrade page and runs the check; Retry runs it again.
  it("is checked without a configuration file, tells every finding with its advice, and again on Retry", async () => {
    await page.getByRole("button", { name: "No Configuration File" }).click();
    await page.getByRole("heading", { level: 1, name: "Active Upgrade" }).waitFor();
    await bar(page).getByText("Broken").waitFor();
    const readiness = page.getByRole("region", { name: "Readiness" });
    await readiness.getByText("✘ Error").first().waitFor();
    expect(await readiness.getByText("→").count()).toBeGreaterThan(0);
    await accessible(page);
    await picture(page, "active-upgrade");
    const checks = () => page.getByRole("region", { name: "Activity log" }).getByRole("button", { name: /^Readiness check/u }).count();
    const before = await checks();
    await page.getByRole("button", { name: "Retry" }).click();
    await expect.poll(checks, { timeout: 30_000 }).toBe(before + 1);
  });

  // What the law does not allow cannot be pressed, and what each step costs is said beforehand.
  it("shows what each step does, and lets only what is allowed be pressed", async () => {
    await page.getByRole("link", { name: "Active Upgrade" }).click();
    const choices = page.getByRole("region", { name: "What can be done" });
    await choices.getByText("What can be undone").first().waitFor();
    expect(await choices.getByRole("button", { name: "Abort" }).isDisabled()).toBe(true);
    expect(await choices.getByRole("button", { name: "Split" }).isEnabled()).toBe(true);
    await choices.getByRole("button", { name: "Split" }).click();
    const dialog = page.getByRole("dialog", { name: "Split shop?" });
    await dialog.getByText("each side runs simplex").waitFor();
    await accessible(page);
    await picture(page, "split-dialog");
    await dialog.getByRole("button", { name: "Cancel" }).click();
    await dialog.waitFor({ state: "detached" });
  });

  // AL-11 to AL-13: the detail window, and the way from one item of a severity to the next.
  it("shows the log as a tree, and each item with its neighbours of a severity", async () => {
    // It ends with status 1, since the system does not run.
    expect(() => server.run(["check", "shop", "--no-config"])).toThrow();
    await page.getByRole("link", { name: "Active Upgrade" }).click();
    const log = page.getByRole("region", { name: "Activity log" });
    await log.getByRole("button", { name: /^Readiness check/u }).last().click();
    const dialog = page.getByRole("dialog", { name: "Activity log detail" });
    await dialog.getByLabel("Show severity").selectOption("Error");
    await dialog.getByText("✘ Error").waitFor();
    await accessible(page);
    await picture(page, "log-detail");
    const text = dialog.locator("p").nth(1);
    const first = await text.textContent();
    await dialog.getByRole("button", { name: "Next" }).click();
    await expect.poll(() => text.textContent()).not.toBe(first);
    await dialog.getByRole("button", { name: "Previous" }).click();
    await expect.poll(() => text.textContent()).toBe(first);
    await dialog.getByRole("button", { name: "Close" }).click();
    const [saved] = await Promise.all([page.waitForEvent("download"), log.getByRole("button", { name: "Save as XML" }).click()]);
    expect(saved.suggestedFilename()).toBe("shop-log.xml");
  });

  // A server that was killed and started again is followed again, and pages follow what the command line does.
  it("is live, and correct again after the server was killed", async () => {
    await page.getByRole("link", { name: "Active Upgrade" }).click();
    await server.kill();
    await page.getByRole("alert").getByText("The server does not answer").waitFor();
    await picture(page, "server-away");
    await server.start();
    // A restart ends every login, and says so by asking for it.
    await logIn(page, "admin", server.password());
    await bar(page).waitFor();
    server.create("mail");
    await expect.poll(() => page.getByLabel("System").locator("option").allTextContents()).toEqual(["mail", "shop"]);
    await page.getByLabel("System").selectOption("mail");
    await expect.poll(() => page.title()).toContain("mail");
    server.run(["system", "delete", "mail", "--yes"]);
    await page.getByText("There is no system mail").waitFor();
  });

  it("is used by the keyboard alone, and fits a screen of 320 pixels", async () => {
    await page.setViewportSize({ width: 320, height: 640 });
    const wide = () => page.evaluate("document.documentElement.scrollWidth");
    expect(await wide()).toBeLessThanOrEqual(320);
    await picture(page, "narrow-configuration");
    const focused = () => page.evaluate("document.activeElement?.textContent ?? ''");
    for (let tries = 0; tries < 40 && (await focused()) !== "Active Upgrade"; tries += 1) await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "Active Upgrade" }).waitFor();
    expect(await wide()).toBeLessThanOrEqual(320);
    await accessible(page);
    await picture(page, "narrow-active-upgrade");
  });
});

describe("others", () => {
  it("the pages weigh less than 300 KB", () => {
    const files = readdirSync(PAGES, { recursive: true, withFileTypes: true }).filter((file) => file.isFile());
    const bytes = files.reduce((sum, file) => sum + statSync(join(file.parentPath, file.name)).size, 0);
    expect(files.length).toBeGreaterThan(2);
    expect(bytes).toBeLessThan(300_000);
  });

  it("a viewer sees the same and can press nothing; dark is legible too", async () => {
    server.run(["user", "set", "eve", "--role", "viewer"], "a long password\n");
    const { page } = await open(browser, server, "dark");
    await logIn(page, "eve", "a long password");
    await page.getByRole("link", { name: "Active Upgrade" }).click();
    await page.getByText("You may look. Only an operator can change something.").waitFor();
    const buttons = page.getByRole("region", { name: "What can be done" }).getByRole("button");
    for (const button of await buttons.all()) expect(await button.isDisabled()).toBe(true);
    await accessible(page);
    await picture(page, "dark-viewer");
    await page.context().close();
  });

  // Security 13: what is hostile in a name of a file is shown and does nothing.
  it("hostile text stays text", async () => {
    const { page, wrong } = await open(browser, server);
    await logIn(page, "admin", server.password());
    await bar(page).waitFor();
    const name = "<img src=x onerror=document.title='owned'>\u202e.Config";
    await page.locator("input[type=file]").setInputFiles({ name, mimeType: "text/plain", buffer: Buffer.from("version = 1\n<b>\u001b[31m") });
    const problem = page.getByRole("alert");
    await problem.waitFor();
    expect(await page.locator("main img").count()).toBe(0);
    const shown = (await page.locator("main").textContent()) ?? "";
    expect(["\u202e", "\u001b"].filter((hostile) => shown.includes(hostile))).toEqual([]);
    expect(await page.title()).not.toContain("owned");
    await until("nothing is wrong", () => wrong.length === 0);
    await page.context().close();
  });
});
