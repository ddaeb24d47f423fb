/**
 * Growing and shrinking of the painted area by a distance, as the command's `--dilate` does.
 */

import { clip, expand } from "./rect.js";

/** Returns the rectangle in which `spread` may change pixels, or null. */
export function reach(mask, radius) {
  const bounds = mask.bounds();
  return bounds && clip(expand(bounds, radius), mask.width, mask.height);
}

/**
 * Gives all pixels within a distance of pixels of a value the same value: 1 grows the painted area, 0 shrinks it.
 * Beyond the photograph's edge there is nothing, so the area does not shrink from there.
 *
 * @param {Mask} mask the mask, which is changed.
 * @param {{x0: number, y0: number, x1: number, y1: number}} rect the pixels to compute, inside the mask.
 * @param {0 | 1} value the value that spreads.
 * @param {number} radius distance in pixels between the centres of pixels.
 */
export function spread(mask, rect, value, radius) {
  const width = rect.x1 - rect.x0;
  const height = rect.y1 - rect.y0;
  const distances = columnDistances(mask, rect, value, Math.floor(radius) + 1);
  const reaches = new Int32Array(Math.floor(radius) + 2).fill(-1);
  for (let d = 0; d <= radius; d++) {
    reaches[d] = Math.floor(Math.sqrt(radius * radius - d * d));
  }
  const starts = new Int32Array(width + 1);
  for (let y = 0; y < height; y++) {
    starts.fill(0);
    for (let x = 0; x < width; x++) {
      const side = reaches[distances[y * width + x]];
      if (side >= 0) {
        starts[Math.max(0, x - side)] += 1;
        starts[Math.min(width, x + side + 1)] -= 1;
      }
    }
    const row = (rect.y0 + y) * mask.width + rect.x0;
    for (let x = 0, open = 0; x < width; x++) {
      open += starts[x];
      if (open > 0 && mask.data[row + x] !== value) {
        mask.data[row + x] = value;
        mask.area += value ? 1 : -1;
      }
    }
  }
}

/** Returns each pixel's distance to the nearest pixel of a value in its column, at most `cap`. */
function columnDistances(mask, rect, value, cap) {
  const width = rect.x1 - rect.x0;
  const height = rect.y1 - rect.y0;
  const distances = new Uint16Array(width * height);
  for (let y = 0, i = 0; y < height; y++) {
    const row = (rect.y0 + y) * mask.width + rect.x0;
    for (let x = 0; x < width; x++, i++) {
      const above = y ? distances[i - width] + 1 : cap;
      distances[i] = mask.data[row + x] === value ? 0 : Math.min(above, cap);
    }
  }
  for (let i = (height - 1) * width - 1; i >= 0; i--) {
    distances[i] = Math.min(distances[i], distances[i + width] + 1);
  }
  return distances;
}
