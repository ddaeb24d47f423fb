/**
 * Commands that change what is seen.
 */

const GROUP = "Looking";
const ZOOM_STEP = 1.25;

/** Returns the commands of zooming and comparing. */
export function viewCommands(app) {
  const ready = () => app.ready;
  const view = (name, title, keys, change) => ({
    name,
    group: GROUP,
    title,
    keys,
    enabled: ready,
    run: () => {
      change(app.photo.viewport);
      app.stage.draw();
      app.showCursor(null);
    },
  });
  return [
    view("zoom-in", "Zoom in (or the wheel)", ["+", "="], (viewport) => viewport.zoomTo(viewport.scale * ZOOM_STEP)),
    view("zoom-out", "Zoom out", ["-"], (viewport) => viewport.zoomTo(viewport.scale / ZOOM_STEP)),
    view("fit", "Show the whole photograph", ["0"], (viewport) => viewport.fit()),
    view("actual-size", "Show it at 100 %", ["1"], (viewport) => viewport.zoomTo(1)),
    {
      name: "compare",
      group: GROUP,
      title: "Compare before and after side by side",
      keys: ["C"],
      enabled: ready,
      pressed: () => app.comparing,
      run: () => {
        app.comparing = !app.comparing;
        app.stage.before = app.comparing ? 0.5 : 0;
        app.stage.draw();
        app.showCursor(null);
      },
    },
  ];
}
