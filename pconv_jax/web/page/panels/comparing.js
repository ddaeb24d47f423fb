/**
 * The border between before and after, which a pointer or the arrow keys move; and what else depends on the stage.
 */

const KEYS = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 };

/** Connects the border and returns a function that brings it up to date. */
export function comparing(app) {
  const loading = document.getElementById("loading");
  const divider = document.getElementById("divider");
  const move = (share) => {
    app.stage.before = Math.min(1, Math.max(0, share));
    app.stage.draw();
    app.refresh();
  };
  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    event.preventDefault();
    divider.focus({ focusVisible: false });
  });
  divider.addEventListener("pointermove", (event) => {
    if (divider.hasPointerCapture(event.pointerId)) {
      move(app.stage.fromPointer(event).x / app.stage.size.width);
    }
  });
  divider.addEventListener("keydown", (event) => {
    if (event.key in KEYS) {
      event.preventDefault();
      event.stopPropagation();
      move(app.stage.before + KEYS[event.key]);
    }
  });
  return () => {
    const original = Boolean(app.element.dataset.original);
    divider.hidden = !app.comparing || original;
    divider.style.left = `${100 * app.stage.before}%`;
    divider.setAttribute("aria-valuenow", Math.round(100 * app.stage.before));
    document.getElementById("tag-before").hidden = !app.comparing && !original;
    document.getElementById("tag-after").hidden = !app.comparing || original;
    app.element.hidden = !app.photo;
    document.getElementById("zoom").hidden = !app.ready;
    loading.hidden = !app.photo || app.ready;
    loading.textContent = app.photo?.problem || "Opening the photograph …";
    loading.classList.toggle("problem", Boolean(app.photo?.problem));
    if (app.ready) {
      const percent = 100 * app.photo.viewport.scale;
      document.getElementById("zoom-percent").textContent = `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
    }
  };
}
