/**
 * Rectangles of pixels: {x0, y0, x1, y1}, where x1 and y1 lie one past the last pixel.
 */

/** Returns the smallest rectangle around two rectangles, either of which may be null. */
export function union(a, b) {
  if (!a || !b) {
    return a || b;
  }
  return {
    x0: Math.min(a.x0, b.x0),
    y0: Math.min(a.y0, b.y0),
    x1: Math.max(a.x1, b.x1),
    y1: Math.max(a.y1, b.y1),
  };
}

/** Returns the part of a rectangle that lies in an image, or null if there is none. */
export function clip(rect, width, height) {
  const x0 = Math.max(0, rect.x0);
  const y0 = Math.max(0, rect.y0);
  const x1 = Math.min(width, rect.x1);
  const y1 = Math.min(height, rect.y1);
  return x0 < x1 && y0 < y1 ? { x0, y0, x1, y1 } : null;
}

/** Returns a rectangle that is larger by a number of pixels on each side. */
export function expand(rect, margin) {
  return { x0: rect.x0 - margin, y0: rect.y0 - margin, x1: rect.x1 + margin, y1: rect.y1 + margin };
}
