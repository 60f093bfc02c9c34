// The one place where text that may come from a guest is made harmless. Preact puts text into the page as text, so markup
// does nothing; what is left are characters that hide, reorder or imitate.

// Control characters, marks that turn the direction of text, and those that have no width.
// eslint-disable-next-line no-control-regex
const HARMFUL = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]/gu;

// Colours and movements of a terminal, whole: what is left of them without their first character would only be noise.
// eslint-disable-next-line no-control-regex
const TERMINAL = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-_])/gu;

/** The longest text of one line; what is longer belongs into a detail. */
export const LONGEST = 2000;

function shown(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}

/** Returns one line: harmful characters are shown by their number. */
export function clean(text: string): string {
  const whole = text.replace(TERMINAL, "").replace(/\s*[\r\n]+\s*/gu, " ").replace(/\t/gu, " ").replace(HARMFUL, shown);
  return whole.length > LONGEST ? `${whole.slice(0, LONGEST)}…` : whole;
}

/** Returns lines, of a longer text such as the output of a program. */
export function cleanLines(text: string): string[] {
  return text.split(/\r\n|\r|\n/u).map((line) => clean(line.replace(/\t/gu, "    ")));
}
