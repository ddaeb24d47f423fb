/**
 * Commands that fill, cancel, undo and redo.
 */

import { UNFINISHED } from "../input/painter.js";
import { fill } from "../photographs/filling.js";

const GROUP = "Filling";

/** Returns the commands of filling and of the history. */
export function fillingCommands(app) {
  const idle = () => app.ready && !app.photo.filling && !app.painter.active;
  return [
    {
      name: "fill",
      group: GROUP,
      title: "Fill the painted area",
      keys: ["Enter"],
      enabled: () => idle() && app.photo.mask.area > 0,
      otherwise: () =>
        app.painter.active ? UNFINISHED : idle() ? "Paint over what should go, then press Fill." : "",
      run: () => fillArea(app),
    },
    {
      name: "cancel",
      group: GROUP,
      title: "Cancel the filling, or the stroke",
      keys: ["Escape"],
      enabled: () => Boolean(app.photo?.filling) || app.painter.active || app.comparing,
      run: () => {
        if (app.painter.active) {
          app.painter.cancel();
        } else if (app.photo.filling) {
          app.photo.filling.cancel();
        } else {
          app.run("compare");
        }
      },
    },
    {
      name: "undo",
      group: GROUP,
      title: "Undo",
      keys: ["Ctrl+Z"],
      enabled: () => idle() && app.photo.history.canUndo,
      run: () => app.photo.history.undo(),
    },
    {
      name: "redo",
      group: GROUP,
      title: "Redo",
      keys: ["Ctrl+Shift+Z", "Ctrl+Y"],
      enabled: () => idle() && app.photo.history.canRedo,
      run: () => app.photo.history.redo(),
    },
  ];
}

async function fillArea(app) {
  const { photo } = app;
  const { width, height, data } = photo.mask;
  const area = { width, height, data: data.slice() };
  app.showCursor(null);
  const version = await fill(photo, app.settings, () => app.refresh());
  if (version) {
    app.lastArea = area;
    photo.opaque = false;
    app.warn(version.warnings, photo === app.photo ? "" : photo.name);
    app.say(`Filled in ${version.seconds.toFixed(1)} seconds. Hold Tab or press Compare to see it as it was.`);
  } else {
    app.say("The filling was cancelled. Your painting is still there.");
  }
}
