import { expect, it } from "vitest";
import { parse } from "./live";

it("takes whole events out of a stream, wherever it is cut", () => {
  const text = 'event: log\nid: 1-2\ndata: {"a":"\\n\\n"}\n\n: still here\n\nevent: status\ndata: {}\n\n';
  const whole = parse(text);
  expect(whole.rest).toBe("");
  expect(whole.events).toEqual([
    { name: "log", id: "1-2", data: '{"a":"\\n\\n"}' },
    { name: "status", id: null, data: "{}" },
  ]);
  for (let at = 0; at <= text.length; at += 1) {
    const first = parse(text.slice(0, at));
    const second = parse(first.rest + text.slice(at));
    expect([...first.events, ...second.events]).toEqual(whole.events);
  }
});
