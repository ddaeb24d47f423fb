/**
 * Commands on the painted area.
 */

import { reach, spread } from "../mask/morphology.js";
import { encode } from "../mask/png.js";
import { download, stem } from "../photographs/saving.js";
import { paintTransparent } from "../photographs/area_files.js";

const GROUP = "Painting";
const SIZE_STEP = 1.15;

/** Returns the commands on the painted area. */
export function areaCommands(app) {
  const ready = () => app.ready;
  const painted = () => app.ready && app.photo.mask.area > 0;
  const nothing = () => "Nothing is painted yet.";
  const distance = () => {
    const { value, max } = document.getElementById("distance");
    return Math.min(Number(max), Math.max(1, Number(value) || 1));
  };
  const tool = (name, title, key) => ({
    name,
    group: GROUP,
    title,
    keys: [key],
    enabled: ready,
    pressed: () => app.tool === name,
    run: () => {
      app.tool = name;
    },
  });
  return [
    tool("brush", "Brush", "B"),
    tool("eraser", "Eraser (the right mouse button erases, too)", "E"),
    tool("rectangle", "Rectangle", "R"),
    {
      name: "smaller",
      group: GROUP,
      title: "Smaller brush",
      keys: ["["],
      enabled: ready,
      run: () => app.changeSize(1 / SIZE_STEP),
    },
    {
      name: "larger",
      group: GROUP,
      title: "Larger brush",
      keys: ["]"],
      enabled: ready,
      run: () => app.changeSize(SIZE_STEP),
    },
    {
      name: "pen",
      group: GROUP,
      title: "Put the brush down or lift it; the arrow keys move it",
      keys: ["P"],
      enabled: ready,
      run: () => app.keyboardBrush.toggle(),
    },
    {
      name: "show-area",
      group: GROUP,
      title: "Show or hide the painted area",
      keys: ["M"],
      enabled: ready,
      pressed: () => app.areaVisible,
      run: () => {
        app.areaVisible = !app.areaVisible;
      },
    },
    {
      name: "grow",
      group: GROUP,
      title: "Grow the painted area",
      keys: ["G"],
      enabled: painted,
      otherwise: nothing,
      run: () => {
        const rect = reach(app.photo.mask, distance());
        app.edit(rect, (mask) => spread(mask, rect, 1, distance()));
      },
    },
    {
      name: "shrink",
      group: GROUP,
      title: "Shrink the painted area",
      keys: ["Shift+G"],
      enabled: painted,
      otherwise: nothing,
      run: () => {
        const rect = reach(app.photo.mask, distance());
        app.edit(rect, (mask) => spread(mask, rect, 0, distance()));
      },
    },
    {
      name: "invert",
      group: GROUP,
      title: "Invert the painted area",
      keys: ["I"],
      enabled: ready,
      run: () => app.edit(app.photo.mask.all, (mask) => mask.invert()),
    },
    {
      name: "clear",
      group: GROUP,
      title: "Clear the painted area",
      keys: ["Delete", "Backspace"],
      enabled: painted,
      otherwise: nothing,
      run: () => app.edit(app.photo.mask.bounds(), (mask) => mask.paintRectangle(mask.all, 0)),
    },
    {
      name: "last-area",
      group: GROUP,
      title: "Paint the area that was filled last",
      keys: ["L"],
      enabled: () => app.ready && app.lastArea !== null,
      otherwise: () => "No area was filled yet.",
      run: () => paintLast(app),
    },
    {
      name: "transparent-area",
      group: GROUP,
      title: "Paint what is transparent in the photograph",
      keys: [],
      enabled: ready,
      run: () => paintTransparent(app),
    },
    {
      name: "load-area",
      group: GROUP,
      title: "Load the painted area from a file",
      keys: [],
      enabled: ready,
      run: () => document.getElementById("area-input").click(),
    },
    {
      name: "save-area",
      group: GROUP,
      title: "Save the painted area as PNG",
      keys: ["Ctrl+Shift+S"],
      enabled: painted,
      otherwise: nothing,
      run: async () => {
        const { photo } = app;
        download(await encode(photo.mask, photo.mask.all), `${stem(photo.name)}_mask.png`);
      },
    },
  ];
}

function paintLast(app) {
  const { width, height, data } = app.lastArea;
  if (width !== app.photo.info.width || height !== app.photo.info.height) {
    app.say(`The last area belongs to a photograph of ${width} × ${height} pixels, so it does not fit this one.`);
    return;
  }
  app.edit(app.photo.mask.all, (mask) => mask.replace(data));
}
