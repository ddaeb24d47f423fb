/**
 * Shapes that a brush leaves, as rows of pixels. A pixel belongs to a shape if its centre does.
 */

// A pixel's centre is at most this far from any point of the pixel, so the thinnest brush marks every pixel it meets.
const THINNEST = Math.SQRT1_2;

/**
 * Calls `row(y, x0, x1)` for each row of pixels within a distance of a segment, the shape of a round brush that moves
 * from one point to another. Rows may lie outside the image.
 *
 * @param {{x: number, y: number}} a one end of the segment, in pixels.
 * @param {{x: number, y: number}} b its other end.
 * @param {number} radius distance in pixels.
 * @param {(y: number, x0: number, x1: number) => void} row receives the pixels x0 <= x < x1 of row y.
 */
export function capsule(a, b, radius, row) {
  const r = Math.max(radius, THINNEST);
  const corners = sides(a, b, r);
  const first = Math.ceil(Math.min(a.y, b.y) - r - 0.5);
  const last = Math.floor(Math.max(a.y, b.y) + r - 0.5);
  for (let y = first; y <= last; y++) {
    const centre = y + 0.5;
    let left = Infinity;
    let right = -Infinity;
    for (const end of [a, b]) {
      const squared = r * r - (centre - end.y) ** 2;
      if (squared >= 0) {
        left = Math.min(left, end.x - Math.sqrt(squared));
        right = Math.max(right, end.x + Math.sqrt(squared));
      }
    }
    for (let i = 0; i < corners.length; i++) {
      const p = corners[i];
      const q = corners[(i + 1) % corners.length];
      if (p.y !== q.y && centre >= Math.min(p.y, q.y) && centre <= Math.max(p.y, q.y)) {
        const x = p.x + ((centre - p.y) / (q.y - p.y)) * (q.x - p.x);
        left = Math.min(left, x);
        right = Math.max(right, x);
      }
    }
    const x0 = Math.ceil(left - 0.5);
    const x1 = Math.floor(right - 0.5) + 1;
    if (x0 < x1) {
      row(y, x0, x1);
    }
  }
}

/** Returns the corners of the rectangle along a segment, or none if the segment is a point. */
function sides(a, b, r) {
  const length = Math.hypot(b.x - a.x, b.y - a.y);
  if (!length) {
    return [];
  }
  const nx = (-(b.y - a.y) / length) * r;
  const ny = ((b.x - a.x) / length) * r;
  return [
    { x: a.x + nx, y: a.y + ny },
    { x: b.x + nx, y: b.y + ny },
    { x: b.x - nx, y: b.y - ny },
    { x: a.x - nx, y: a.y - ny },
  ];
}

/** Returns the rectangle of all pixels that the rectangle between two points meets. */
export function box(a, b) {
  return {
    x0: Math.floor(Math.min(a.x, b.x)),
    y0: Math.floor(Math.min(a.y, b.y)),
    x1: Math.floor(Math.max(a.x, b.x)) + 1,
    y1: Math.floor(Math.max(a.y, b.y)) + 1,
  };
}
