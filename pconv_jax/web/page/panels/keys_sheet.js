/**
 * The sheet of all keys.
 */

const KEY = "pconv_jax.letters";
const ON_MAC = /Mac|iP(hone|ad)/.test(navigator.platform);
const NAMES = { Escape: "Esc", Delete: "Del", PageUp: "Page up", PageDown: "Page down" };
// By group, in the order of the sheet; what no command does.
const WITHOUT_COMMAND = {
  Painting: [
    ["Change the brush's size", ["Alt+Wheel"]],
    ["Straight line, or from the last point by a click", ["Shift"]],
  ],
  Photographs: [["Paste a photograph", ["Ctrl+V"]]],
  Filling: [],
  Looking: [
    ["Move the photograph while held (or the middle button)", ["Space"]],
    ["See the photograph as it was, while held", ["Tab"]],
  ],
};

/** Fills the sheet. */
export function keysSheet(app) {
  const sheet = document.getElementById("keys-sheet");
  document.getElementById("keys-close").addEventListener("click", () => sheet.close());
  sheet.addEventListener("click", (event) => {
    if (event.target === sheet) {
      sheet.close(); // Outside of what the sheet contains.
    }
  });
  const groups = Object.entries(WITHOUT_COMMAND).map(([group, others]) => {
    const entries = app.commands
      .filter((command) => command.group === group && command.keys.length)
      .map(({ title, keys }) => [title, keys.slice(0, 1)]);
    return section(group, [...entries, ...others]);
  });
  document.getElementById("keys-groups").append(...groups);
  rememberLetters();
}

function section(title, entries) {
  const part = document.createElement("section");
  const heading = document.createElement("h3");
  heading.textContent = title;
  const list = document.createElement("dl");
  for (const [text, keys] of entries) {
    const term = document.createElement("dt");
    term.textContent = text;
    const value = document.createElement("dd");
    for (const key of keys[0]
      .split("+")
      .filter(Boolean)
      .concat(keys[0] === "+" ? ["+"] : [])) {
      const cap = document.createElement("kbd");
      cap.textContent = key === "Ctrl" && ON_MAC ? "⌘" : (NAMES[key] ?? key);
      value.append(cap, " ");
    }
    list.append(term, value);
  }
  part.append(heading, list);
  return part;
}

/** Keeps the choice whether keys without Ctrl work. */
function rememberLetters() {
  const letters = document.getElementById("letters");
  try {
    letters.checked = localStorage.getItem(KEY) !== "off";
    letters.addEventListener("change", () => localStorage.setItem(KEY, letters.checked ? "on" : "off"));
  } catch {
    // A browser may forbid it; the choice then lasts until the page is closed.
  }
}
