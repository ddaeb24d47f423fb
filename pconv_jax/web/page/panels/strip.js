/**
 * The strip of open photographs.
 */

import * as api from "../server/api.js";
import { icon } from "./icons.js";
import { ask } from "./question.js";

/** Connects the strip and returns a function that brings it up to date. */
export function strip(app) {
  const [nav, list, count, file, name, facts] = [
    "strip",
    "strip-list",
    "strip-count",
    "file",
    "file-name",
    "file-facts",
  ].map((id) => document.getElementById(id));
  const items = new Map();
  return () => {
    const { photos, current, folder } = app.photos;
    nav.hidden = photos.length < 2;
    const open = new Set(photos); // A folder may have thousands of photographs, and this runs with every frame.
    for (const [photo, item] of items) {
      if (!open.has(photo)) {
        item.element.remove();
        items.delete(photo);
      }
    }
    for (const photo of photos) {
      if (!items.has(photo)) {
        items.set(photo, entry(app, photo));
        list.append(items.get(photo).element);
      }
      items.get(photo).update();
    }
    count.textContent = current ? `${photos.indexOf(current) + 1} of ${photos.length}` : "";
    file.hidden = !current;
    name.textContent = folder === null || current?.file ? current?.name : `${folder}/${current?.name}`;
    facts.textContent = "";
    if (current?.info) {
      const { width, height, bits } = current.info;
      facts.textContent = `${width} × ${height}${bits > 8 ? `, ${bits} bits` : ""}`;
      document.title = `${current.name}: pconv_jax`;
      app.element.setAttribute("aria-label", `Photograph ${current.name}, ${width} by ${height} pixels`);
    }
  };
}

function entry(app, photo) {
  const element = document.createElement("li");
  const button = document.createElement("button");
  button.className = "thumbnail";
  const image = document.createElement("img");
  image.alt = "";
  image.loading = "lazy";
  image.src = api.thumbnailAddress(photo.id);
  image.addEventListener("error", () => image.replaceWith(icon("damaged")));
  button.append(image);
  button.addEventListener("click", () => app.show(photo));
  element.append(button);
  if (app.photos.folder === null) {
    element.append(removing(app, photo));
  }
  button.title = photo.name;
  let shown = null;
  let shownSaved = null;
  const update = () => {
    const current = photo === app.photo;
    const saved = photo.saved !== null || Boolean(photo.version.parent && photo.version === photo.savedVersion);
    if (current === shown && saved === shownSaved) {
      return;
    }
    shownSaved = saved;
    button.setAttribute("aria-current", current);
    button.setAttribute("aria-label", saved ? `${photo.name}, saved` : photo.name);
    if (saved && !button.querySelector(".saved")) {
      const check = icon("check");
      check.classList.add("saved");
      button.append(check);
    }
    if (current && !shown) {
      element.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    shown = current;
  };
  return { element, update };
}

function removing(app, photo) {
  const button = document.createElement("button");
  button.className = "remove only-icon";
  button.setAttribute("aria-label", `Close ${photo.name}`);
  button.append(icon("close"));
  button.addEventListener("click", async () => {
    if (photo.unsaved && !(await ask(`${photo.name} has changes that are not saved. Close it?`, "Close it"))) {
      return;
    }
    const shown = photo === app.photo;
    const next = app.photos.remove(photo);
    if (shown) {
      await app.show(next);
    }
    app.refresh();
  });
  return button;
}
