/**
 * Reads a painted area from a file, or from a photograph's transparency. The server reads the file, so that all of its
 * formats and its rules apply.
 */

import { decode } from "../mask/png.js";
import * as api from "../server/api.js";
import { known } from "../server/recovery.js";

/** Replaces the painted area by that of a mask file. */
export async function loadArea(app, file) {
  const polarity = document.getElementById("black-hole").checked ? "black_hole" : "white_hole";
  const area = await read(app, file, polarity);
  if (area === null) {
    return;
  }
  app.say(`The painted area of ${file.name} is loaded. It covers ${(100 * area).toFixed(1)} % of the photograph.`);
}

/** Paints what is transparent; when it is filled, it becomes opaque. */
export async function paintTransparent(app) {
  if ((await read(app, null, "alpha")) !== null) {
    app.photo.opaque = true;
  }
}

/** Paints the area and returns its share of the photograph, or null if it may not be painted now. */
async function read(app, body, polarity) {
  const { photo } = app;
  const answer = await known(photo, photo.version, (id) => api.readMask(id, body, polarity));
  const bytes = Uint8Array.from(atob(answer.mask), (character) => character.charCodeAt(0));
  const { data } = await decode(new Blob([bytes], { type: "image/png" }));
  if (photo !== app.photo) {
    throw new Error(`The area of ${photo.name} was not painted, as another photograph was chosen meanwhile.`);
  }
  if (!app.edit(photo.mask.all, (mask) => mask.replace(data))) {
    return null;
  }
  app.warn(answer.warnings);
  return answer.area;
}
