/**
 * The painted area of a photograph.
 */

import { clip, union } from "./rect.js";
import { box, capsule } from "./shapes.js";

/** One byte per pixel of the photograph: 1 where it will be filled, 0 elsewhere. */
export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height);
    this.area = 0; // Number of painted pixels.
  }

  /** Returns the rectangle of the whole photograph. */
  get all() {
    return { x0: 0, y0: 0, x1: this.width, y1: this.height };
  }

  /** Sets the pixels x0 <= x < x1 of row y, which may lie outside the photograph. */
  setRow(y, x0, x1, value) {
    if (y < 0 || y >= this.height) {
      return;
    }
    const start = y * this.width + Math.max(0, x0);
    const end = y * this.width + Math.min(this.width, x1);
    let painted = 0;
    for (let i = start; i < end; i++) {
      painted += this.data[i];
    }
    if (start < end) {
      this.data.fill(value, start, end);
      this.area += value * (end - start) - painted;
    }
  }

  /** Returns the pixels that `paintLine` would change at most, clipped to the photograph, or null. */
  lineBounds(a, b, radius) {
    const reach = Math.ceil(radius) + 1;
    const ends = union(box(a, a), box(b, b));
    return clip(
      { x0: ends.x0 - reach, y0: ends.y0 - reach, x1: ends.x1 + reach, y1: ends.y1 + reach },
      this.width,
      this.height,
    );
  }

  /** Paints (1) or erases (0) along a segment with a round brush. */
  paintLine(a, b, radius, value) {
    capsule(a, b, radius, (y, x0, x1) => this.setRow(y, x0, x1, value));
  }

  /** Paints or erases a rectangle of pixels. */
  paintRectangle(rect, value) {
    const inside = clip(rect, this.width, this.height);
    for (let y = inside?.y0 ?? 0; y < (inside?.y1 ?? 0); y++) {
      this.setRow(y, inside.x0, inside.x1, value);
    }
  }

  /** Exchanges painted and unpainted pixels. */
  invert() {
    for (let i = 0; i < this.data.length; i++) {
      this.data[i] ^= 1;
    }
    this.area = this.data.length - this.area;
  }

  /** Replaces all pixels by others of the same size. */
  replace(data) {
    this.data.set(data);
    this.count();
  }

  /** Counts the painted pixels after `data` was written to. */
  count() {
    let area = 0;
    for (let i = 0; i < this.data.length; i++) {
      area += this.data[i];
    }
    this.area = area;
  }

  /** Returns the smallest rectangle around all painted pixels, or null if there are none. */
  bounds() {
    if (!this.area) {
      return null;
    }
    const y0 = Math.floor(this.data.indexOf(1) / this.width);
    const y1 = Math.floor(this.data.lastIndexOf(1) / this.width) + 1;
    let x0 = this.width;
    let x1 = 0;
    for (let y = y0; y < y1; y++) {
      const row = this.data.subarray(y * this.width, (y + 1) * this.width);
      const first = row.indexOf(1);
      if (first >= 0) {
        x0 = Math.min(x0, first);
        x1 = Math.max(x1, row.lastIndexOf(1) + 1);
      }
    }
    return { x0, y0, x1, y1 };
  }
}
