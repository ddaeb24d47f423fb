/**
 * A change of a mask that can be undone and redone.
 */

import { union } from "./rect.js";
import { pack, tileRect, tilesIn, unpack } from "./tiles.js";

/** Keeps the tiles of a mask as they were before they change. */
export class MaskChange {
  constructor(mask) {
    this.mask = mask;
    this.tiles = new Map();
  }

  /** Keeps the tiles that meet a rectangle; to be called before each change inside it. */
  remember(rect) {
    for (const number of rect ? tilesIn(this.mask, rect) : []) {
      if (!this.tiles.has(number)) {
        this.tiles.set(number, pack(this.mask, number));
      }
    }
  }

  /** Forgets tiles that did not change, and returns whether any did. */
  finish() {
    for (const [number, before] of this.tiles) {
      if (equal(before, pack(this.mask, number))) {
        this.tiles.delete(number);
      }
    }
    return this.tiles.size > 0;
  }

  /** Exchanges the kept tiles and those of the mask: undoes, then redoes. Returns what changed, or null. */
  swap() {
    let changed = null;
    for (const [number, other] of this.tiles) {
      this.tiles.set(number, pack(this.mask, number));
      unpack(this.mask, number, other);
      changed = union(changed, tileRect(this.mask, number));
    }
    return changed;
  }
}

function equal(a, b) {
  if (typeof a === "number" || typeof b === "number") {
    return a === b;
  }
  return a.every((value, i) => value === b[i]);
}

/** Runs `edit(mask)` as one change inside a rectangle, and returns the change, or null if nothing changed. */
export function changing(mask, rect, edit) {
  const change = new MaskChange(mask);
  change.remember(rect);
  edit(mask);
  return change.finish() ? change : null;
}
