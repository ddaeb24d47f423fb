/**
 * Fills the painted area of a photograph.
 */

import { encode } from "../mask/png.js";
import * as api from "../server/api.js";
import { known, untilEnded } from "../server/recovery.js";
import { ServerError } from "../server/connection.js";

const ATTEMPTS = 3; // Of a filling during which the server is started again.

/** What a filling in work shows to the person who waits for it. */
class Filling {
  state = "queued";
  position = null;
  progress = null;
  secondsLeft = null;
  cancelled = false;
  started = performance.now();
  #id = null;

  /** Takes over what the server reports. */
  report({ id, state, position, progress, seconds_left: secondsLeft }) {
    this.#id = id;
    Object.assign(this, { state, position, progress, secondsLeft });
    if (this.cancelled) {
      this.cancel();
    }
  }

  cancel() {
    this.cancelled = true;
    if (this.#id && this.state !== "cancelled") {
      api.cancelFilling(this.#id).catch(() => {}); // It may have ended meanwhile.
    }
  }
}

/**
 * Fills the painted area, which then is no longer painted. The photograph stays as it is if this fails.
 *
 * @param {Photo} photo the photograph; its `filling` is set meanwhile.
 * @param {object} options weights, ensemble, dilate, feather.
 * @param {() => void} progressed is called whenever `photo.filling` has changed.
 * @returns {Promise<?Version>} the new version, with the server's `warnings`, or null if the filling was cancelled.
 */
export async function fill(photo, options, progressed) {
  photo.filling = new Filling();
  progressed();
  try {
    const bounds = photo.mask.bounds();
    const mask = { png: await encode(photo.mask, bounds), x: bounds.x0, y: bounds.y0 };
    const version = { parent: photo.version, mask, options: { ...options, opaque: photo.opaque ? 1 : 0 } };
    const ended = await follow(photo, version, progressed);
    if (ended.state === "failed") {
      throw new ServerError(422, ended.error);
    }
    if (ended.state === "cancelled") {
      return null;
    }
    const { version: remote, changed, warnings, seconds } = ended.version;
    if (photo.filling.cancelled) {
      api.forget(photo.id, remote).catch(() => {}); // It had ended before the server knew that it was cancelled.
      return null;
    }
    Object.assign(version, { remote, changed, warnings, seconds });
    await photo.add(version);
    return version;
  } finally {
    photo.filling = null;
    progressed();
  }
}

/**
 * Waits for a filling that was in work when the page was loaded, and adds its version.
 *
 * @param {Photo} photo the photograph.
 * @param {object} filling the server's report on it.
 * @param {() => void} progressed is called whenever `photo.filling` has changed.
 */
export async function resume(photo, filling, progressed) {
  photo.filling = new Filling();
  try {
    const { state, base, version } = await untilEnded(filling, (report) => {
      photo.filling.report(report);
      progressed();
    });
    const parent = photo.versions.find(({ remote }) => remote === base);
    const isNew = state === "done" && photo.versions.every(({ remote }) => remote !== version.version);
    if (photo.info && parent && isNew) {
      await photo.add({
        parent,
        remote: version.version,
        mask: null,
        options: version.options,
        changed: version.changed,
      });
    }
  } finally {
    photo.filling = null;
    progressed();
  }
}

/** Has the server fill, and once more if it was started again meanwhile. Returns the filling's last state. */
async function follow(photo, version, progressed) {
  for (let attempt = 1; ; attempt++) {
    const started = await known(photo, version.parent, (id, base) =>
      api.startFilling(id, base, version.options, version.mask),
    );
    try {
      return await untilEnded(started, (state) => {
        photo.filling.report(state);
        progressed();
      });
    } catch (error) {
      if (!(error instanceof ServerError) || error.status !== 404 || attempt === ATTEMPTS) {
        throw error;
      }
      if (photo.filling.cancelled) {
        return { state: "cancelled" };
      }
    }
  }
}
