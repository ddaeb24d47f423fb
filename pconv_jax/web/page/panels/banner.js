/**
 * Says above the photograph that the server does not answer, or that its address has changed.
 */

import { connection } from "../server/connection.js";
import { say } from "./messages.js";

const LOST =
  "The server does not answer. Your painting and its history are kept while this page is open. " +
  "Start the server again to go on.";

export function connectionBanner() {
  const banner = document.getElementById("banner");
  const text = document.getElementById("banner-text");
  const form = document.getElementById("banner-form");
  const address = document.getElementById("banner-address");
  let lost = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!connection.move(address.value.trim())) {
      say(`This is not an address of the server here: it starts with ${location.origin}/ and ends with a slash.`);
    }
  });
  connection.addEventListener("change", () => {
    banner.hidden = !connection.lost;
    form.hidden = !connection.moved;
    const message = connection.moved
      ? "The server was started again under another address. Paste the address from the terminal, and work goes on."
      : LOST;
    if (text.textContent !== message) {
      text.textContent = message; // Screen readers read it when it changes.
    }
    if (lost && !connection.lost) {
      say("The server is back.");
      address.value = "";
    }
    lost = connection.lost;
  });
}
