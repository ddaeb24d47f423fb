/**
 * Commands on photographs: opening, choosing, saving.
 */

import { copyResult, saveResult } from "../photographs/saving.js";

const GROUP = "Photographs";

/** Returns the commands on photographs. */
export function photographCommands(app) {
  const ready = () => app.ready && !app.photo.filling;
  return [
    {
      name: "open",
      group: GROUP,
      title: "Open photographs",
      keys: ["Ctrl+O"],
      run: () => document.getElementById("file-input").click(),
    },
    {
      name: "save",
      group: GROUP,
      title: "Save the result",
      keys: ["Ctrl+S"],
      enabled: ready,
      run: () => saveResult(app),
    },
    {
      name: "copy",
      group: GROUP,
      title: "Copy the result to the clipboard",
      keys: ["Ctrl+C"],
      enabled: ready,
      run: () => copyResult(app),
    },
    {
      name: "previous",
      group: GROUP,
      title: "Show the previous photograph",
      keys: ["PageUp"],
      enabled: () => Boolean(app.photos.neighbour(-1)),
      run: () => app.show(app.photos.neighbour(-1)),
    },
    {
      name: "next",
      group: GROUP,
      title: "Show the next photograph",
      keys: ["PageDown"],
      enabled: () => Boolean(app.photo && app.photos.neighbour(1)),
      run: () => app.show(app.photos.neighbour(1)),
    },
    {
      name: "keys",
      group: GROUP,
      title: "Show this list of keys",
      keys: ["?"],
      run: () => document.getElementById("keys-sheet").showModal(),
    },
  ];
}
