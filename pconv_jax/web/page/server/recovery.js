/**
 * Restores what a server that was started again no longer knows: photographs, and the versions that were filled.
 */

import * as api from "./api.js";
import { ServerError } from "./connection.js";

const UNKNOWN = 404;

/**
 * Runs a request about a version of a photograph, and once more after restoring both if the server lost them.
 *
 * @param {Photo} photo the photograph.
 * @param {Version} version one of its versions.
 * @param {(id: string, version: number) => Promise} request receives the server's names of both.
 */
export async function known(photo, version, request) {
  try {
    return await request(photo.id, await remote(photo, version));
  } catch (error) {
    if (!(error instanceof ServerError) || error.status !== UNKNOWN) {
      throw error;
    }
    await restore(photo);
    return request(photo.id, await remote(photo, version));
  }
}

/** Sends a photograph to the server again. */
async function restore(photo) {
  let info = null;
  if (photo.file) {
    info = await api.upload(photo.file, photo.name);
  } else {
    const { photographs } = await api.session();
    const same = photographs.find(({ name }) => name === photo.name);
    if (!same) {
      throw new ServerError(UNKNOWN, `The server no longer has ${photo.name}. Please open it again.`);
    }
    info = await api.photograph(same.id);
  }
  photo.id = info.id;
  for (const version of photo.versions) {
    version.remote = version.parent ? null : 0;
  }
}

/** Returns the server's number of a version; one that it no longer has is filled again as it was. */
async function remote(photo, version) {
  if (version.remote === null) {
    if (!version.mask) {
      throw new ServerError(UNKNOWN, "The server was restarted and no longer has this result. Please fill it again.");
    }
    const base = await remote(photo, version.parent);
    const started = await api.startFilling(photo.id, base, version.options, version.mask);
    const ended = await untilEnded(started, () => {});
    if (ended.state !== "done") {
      throw new ServerError(UNKNOWN, ended.error ?? "The result could not be restored. Please fill it again.");
    }
    version.remote = ended.version.version;
  }
  return version.remote;
}

/** Follows a filling until it has ended; `report` receives each of its states. */
export async function untilEnded(filling, report) {
  report(filling);
  while (filling.state === "queued" || filling.state === "running") {
    filling = await api.filling(filling.id);
    report(filling);
  }
  return filling;
}
