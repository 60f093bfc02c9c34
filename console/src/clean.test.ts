import { describe, expect, it } from "vitest";
import { LONGEST, clean, cleanLines } from "./clean";

describe("text of a guest", () => {
  // Security 13
  it("neither hides, reorders nor imitates", () => {
    expect(clean("a\u202egnp.exe")).toBe("a\\u{202e}gnp.exe");
    expect(clean("pay\u200bpal")).toBe("pay\\u{200b}pal");
    expect(clean("\u001b[31mred\u001b[0m \u001b]0;title\u0007x")).toBe("red x");
    expect(clean("one\r\ntwo\tthree")).toBe("one two three");
    expect(clean("\u0000\u0007")).toBe("\\u{0}\\u{7}");
  });

  it("stays what it is otherwise", () => {
    const text = "<b>ä ö ü</b> & \"日本\" שלום 🙂";
    expect(clean(text)).toBe(text);
  });

  it("is bounded, and long texts keep their lines", () => {
    expect(clean("x".repeat(LONGEST * 3))).toHaveLength(LONGEST + 1);
    expect(cleanLines("a\n\tb\r\nc")).toEqual(["a", "    b", "c"]);
  });
});
