/**
 * Says above the photograph that the server does not answer.
 */

import { connection } from "../server/connection.js";
import { say } from "./messages.js";

export function connectionBanner() {
  const banner = document.getElementById("banner");
  let lost = false;
  connection.addEventListener("change", () => {
    banner.hidden = !connection.lost;
    banner.textContent = connection.moved
      ? "The server was started again under another address, which the terminal shows. Your painting is still here: " +
        "save the painted area as PNG, then open that address."
      : "The server does not answer. Your painting and its history are kept. Start the server again with the same " +
        "command, and work goes on.";
    if (lost && !connection.lost) {
      say("The server is back.");
    }
    lost = connection.lost;
  });
}
