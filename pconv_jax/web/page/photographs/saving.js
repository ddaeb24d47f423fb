/**
 * Saves and copies the result. A download never replaces a file, and its name is never the original's.
 */

import * as api from "../server/api.js";
import { ServerError } from "../server/connection.js";
import { known } from "../server/recovery.js";
import { ask } from "../panels/question.js";

const EXISTS = 409;

/** Returns a file's name without folders and extension. */
export function stem(name) {
  return name.replace(/^.*[\\/]/, "").replace(/\.[^.]*$/, "");
}

/** Hands a file to the browser's downloads. */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Saves the visible version in the chosen format: in the folder of results, or as a download. */
export async function saveResult(app) {
  const { photo } = app;
  const { version } = photo;
  const chosen = photo.format ?? photo.info.default_format;
  const { filename, format, warnings } = photo.info.formats.find((other) => other.format === chosen);
  if (app.photos.folder !== null && photo.file === null) {
    const path = await keep(photo, version, format);
    if (!path) {
      return;
    }
    photo.saved = path;
    app.say(`Saved as ${path}.`);
  } else {
    const blob = await known(photo, version, (id, number) => api.file(id, number, format));
    download(blob, filename);
    app.say(`Saved as ${filename}.`);
  }
  photo.savedVersion = version;
  if (photo.mask.area) {
    app.say("The painted area is not filled in the saved file. Press Fill, then save again.", { key: "unfilled" });
  }
  app.warn(warnings);
  app.refresh();
}

/** Saves in the folder of results and returns the path; null if the person keeps the file that is there. */
async function keep(photo, version, format) {
  const save = (overwrite) => known(photo, version, (id, number) => api.keep(id, number, format, overwrite));
  try {
    return (await save(false)).path;
  } catch (error) {
    if (!(error instanceof ServerError) || error.status !== EXISTS) {
      throw error;
    }
    return (await ask(error.message, "Replace it")) ? (await save(true)).path : null;
  }
}

/** Copies the visible version to the clipboard, as a PNG of 8 bits. */
export async function copyResult(app) {
  const { photo } = app;
  if (!navigator.clipboard?.write) {
    app.say("This browser does not let the page copy pictures. Save the result instead.");
    return;
  }
  const png = known(photo, photo.version, (id, number) => api.preview(id, number));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
  app.say("Copied to the clipboard.");
}
