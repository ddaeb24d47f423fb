/**
 * One open photograph: its painted area, its versions and what was done to it.
 */

import { changing } from "../mask/change.js";
import { Mask } from "../mask/mask.js";
import * as api from "../server/api.js";
import { known } from "../server/recovery.js";
import { Levels } from "../view/levels.js";
import { MaskPicture } from "../view/mask_picture.js";
import { Picture } from "../view/picture.js";
import { Viewport } from "../view/viewport.js";
import { History } from "./history.js";

const RIM = 8; // Pixels around a change that are drawn anew with it, so that no seam shows at any zoom.

/**
 * The original, or what one filling made of another version.
 *
 * @typedef {object} Version
 * @property {?Version} parent the version that was filled; null for the original.
 * @property {?number} remote the server's number; null if the server was started again since.
 * @property {?{png: Blob, x: number, y: number}} mask what was filled; null if this page did not paint it.
 * @property {object} options of the filling.
 * @property {number[]} changed `[x, y, width, height]`.
 */

export class Photo {
  /**
   * @param {{id: string, name: string}} summary the server's name and the file's name.
   * @param {?File} file the file, sent again if the server is started again; null if the server read it itself.
   */
  constructor({ id, name, saved = null }, file = null) {
    this.id = id;
    this.name = name;
    this.saved = saved; // Path of the result in a folder.
    this.file = file;
    this.info = null; // What the server found in the file.
    this.mask = null;
    this.opaque = false; // The painted area was transparent and becomes opaque.
    this.history = new History();
    this.versions = [{ parent: null, remote: 0, mask: null, options: null, changed: null }];
    this.version = this.versions[0];
    this.savedVersion = this.version;
    this.filling = null;
    this.loading = null;
    this.problem = ""; // Why the photograph cannot be shown.
    this.viewport = null;
    this.picture = null;
    this.maskPicture = null;
    this.redraw = () => {}; // Receives the pixels whose paint changed, or null, when the stage has to be drawn anew.
    this.lastPoint = null; // Where the last stroke ended; a straight line can start there.
  }

  get original() {
    return this.versions[0];
  }

  /** Whether there is a result that was not saved, or an area that was not filled. */
  get unsaved() {
    return this.version !== this.savedVersion || Boolean(this.mask?.area);
  }

  /** Takes what the server found in the file, and the versions that it already has. */
  describe(info) {
    this.info = info;
    this.id = info.id;
    this.mask = new Mask(info.width, info.height);
    this.viewport = new Viewport(info.width, info.height);
    const byNumber = new Map([[0, this.original]]);
    for (const { version, parent, changed, options } of info.versions) {
      const made = { parent: byNumber.get(parent), remote: version, mask: null, options, changed };
      byNumber.set(version, made);
      this.versions.push(made);
    }
    const newest = this.versions.at(-1);
    for (const version of path(newest)) {
      this.#step(version, null);
    }
    this.version = newest;
  }

  /** Loads what is drawn on the stage. */
  load() {
    this.loading ??= this.#load().finally(() => (this.loading = null));
    return this.loading;
  }

  async #load() {
    const blob = await known(this, this.original, (id, version) => api.preview(id, version));
    const picture = new Picture(await Levels.of(await createImageBitmap(blob)), this.info.transparent);
    let missing;
    while ((missing = path(this.version).find(({ patch }) => !patch))) {
      await this.#loadPatch(missing); // Meanwhile a filling may end, or `unload` may free patches.
    }
    this.picture = picture;
    this.maskPicture = new MaskPicture(this.mask);
    this.#place();
  }

  /** Frees the memory of what is drawn on the stage. */
  unload() {
    this.picture?.close();
    for (const version of this.versions) {
      version.patch?.levels.close();
      version.patch = null;
    }
    this.picture = this.maskPicture = null;
  }

  async #loadPatch(version) {
    if (!version.patch) {
      const [left, top, width, height] = version.changed;
      const x = Math.max(0, left - RIM);
      const y = Math.max(0, top - RIM);
      const rect = [x, y, Math.min(this.info.width, left + width + RIM) - x, 0];
      rect[3] = Math.min(this.info.height, top + height + RIM) - y;
      const blob = await known(this, version, (id, number) => api.preview(id, number, rect));
      version.patch = { levels: await Levels.of(await createImageBitmap(blob)), x, y };
    }
  }

  #place() {
    if (this.picture) {
      this.picture.patches = path(this.version).flatMap(({ patch }) => patch ?? []);
    }
  }

  /** Adds a version that was just filled and makes it the visible one; its area is no longer painted. */
  async add(version) {
    if (this.picture) {
      await this.#loadPatch(version);
    }
    this.versions.push(version);
    const change = changing(this.mask, this.mask.all, (mask) => mask.replace(new Uint8Array(mask.data.length)));
    this.#step(version, change);
    this.version = version;
    this.#place();
    this.redraw(this.mask.all);
  }

  /** Adds a step to the history that shows a version, and its parent when it is undone. */
  #step(version, change) {
    const move = async (to) => {
      this.redraw(change?.swap() ?? null);
      this.version = to;
      if (this.picture) {
        await Promise.all(path(to).map((part) => this.#loadPatch(part)));
        this.#place();
        this.redraw(null);
      }
    };
    this.history.push({ undo: () => move(version.parent), redo: () => move(version) });
  }
}

/** Returns the fillings that lead from the original to a version, oldest first. */
function path(version) {
  const versions = [];
  for (let v = version; v.parent; v = v.parent) {
    versions.unshift(v);
  }
  return versions;
}
