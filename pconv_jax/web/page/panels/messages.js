/**
 * Short messages over the photograph. Those about errors and warnings stay until they are closed.
 */

import { icon } from "./icons.js";

const SECONDS = 6;
const MOST = 4; // Messages that are visible at once.

/**
 * Shows a message.
 *
 * @param {string} text a full sentence; nothing is shown if it is empty.
 * @param {{stays?: boolean, error?: boolean, key?: string}} options whether it stays until it is closed, whether it
 *   is an error, and a name: a message replaces the one of the same name.
 */
export function say(text, { stays = false, error = false, key = stays ? text : "passing" } = {}) {
  const list = document.getElementById("messages");
  for (const other of [...list.children]) {
    if (other.dataset.key === key) {
      other.remove();
    }
  }
  if (!text) {
    return;
  }
  const message = document.createElement("div");
  message.className = error ? "message error" : "message";
  message.dataset.key = key;
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  message.append(paragraph);
  if (error) {
    message.setAttribute("role", "alert");
  }
  if (stays) {
    message.append(closing(message));
  } else {
    setTimeout(() => message.remove(), SECONDS * 1000);
  }
  list.append(message);
  while (list.children.length > MOST) {
    list.firstElementChild.remove();
  }
}

/** Shows an error, until it is closed. */
export function complain(text) {
  say(text, { stays: true, error: true });
}

function closing(message) {
  const button = document.createElement("button");
  button.className = "only-icon";
  button.setAttribute("aria-label", "Close this message");
  button.append(icon("close"));
  button.addEventListener("click", () => message.remove());
  return button;
}
