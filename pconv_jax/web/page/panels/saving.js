/**
 * The choice of the format in which the result is saved.
 */

/** Connects the panel and returns a function that brings it up to date. */
export function savingPanel(app) {
  const list = document.getElementById("formats");
  let shown = null;
  list.addEventListener("change", (event) => {
    app.photo.format = event.target.value;
  });
  return () => {
    const photo = app.photo?.info ? app.photo : null;
    if (photo !== shown) {
      shown = photo;
      list.replaceChildren(list.firstElementChild, ...(photo ? photo.info.formats.map((f) => choice(photo, f)) : []));
    }
  };
}

function choice(photo, { format, lossless, problem, warnings }) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "format", value: format, disabled: Boolean(problem) });
  input.checked = format === (photo.format ?? photo.info.default_format);
  const name = document.createElement("span");
  const original = format === photo.info.format ? ", the original's format" : "";
  name.textContent = `${format === "webp" ? "WebP" : format.toUpperCase()}${original}`;
  const about = document.createElement("small");
  const lossy = lossless ? "" : "With loss: all pixels change slightly.";
  about.textContent = problem ? `Not possible: ${problem}` : [lossy, ...warnings].filter(Boolean).join(" ");
  label.append(input, name, about);
  return label;
}
