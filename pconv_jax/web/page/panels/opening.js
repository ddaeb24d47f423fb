/**
 * Opens photographs that are chosen, dropped or pasted, and mask files.
 */

import { loadArea } from "../photographs/area_files.js";

/** Connects the ways to open files; nothing of it has to be brought up to date but what shows before that. */
export function openingPanel(app) {
  choose("file-input", (files) => app.open(files));
  choose("area-input", ([file]) => loadArea(app, file).catch((error) => app.fail(error)));
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) {
      event.preventDefault();
      app.open(files);
    }
  });
  dropping((files) => app.open(files));
  const transparent = document.querySelector("[data-command=transparent-area]");
  return () => {
    document.getElementById("empty").hidden = Boolean(app.photo);
    transparent.hidden = !app.photo?.info?.transparent;
  };
}

function choose(id, open) {
  const input = document.getElementById(id);
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // The same file may be chosen again.
    if (files.length) {
      open(files);
    }
  });
}

function dropping(open) {
  const shade = document.getElementById("drop");
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    shade.hidden = !carriesFiles(event);
  });
  document.addEventListener("dragover", (event) => {
    if (carriesFiles(event)) {
      event.preventDefault(); // Else the browser would leave the page and show the file.
    }
  });
  shade.addEventListener("dragleave", () => {
    shade.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    shade.hidden = true;
    if (carriesFiles(event)) {
      event.preventDefault();
      open([...event.dataTransfer.files]);
    }
  });
}
