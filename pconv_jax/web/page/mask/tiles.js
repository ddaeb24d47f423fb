/**
 * Square tiles of a mask, packed to one bit per pixel: what undo keeps.
 */

export const TILE = 256;

/** Returns the numbers of the tiles that meet a rectangle inside the mask. */
export function tilesIn(mask, rect) {
  const columns = Math.ceil(mask.width / TILE);
  const numbers = [];
  for (let row = Math.floor(rect.y0 / TILE); row * TILE < rect.y1; row++) {
    for (let column = Math.floor(rect.x0 / TILE); column * TILE < rect.x1; column++) {
      numbers.push(row * columns + column);
    }
  }
  return numbers;
}

/** Returns the rectangle of a tile, clipped to the mask. */
export function tileRect(mask, number) {
  const columns = Math.ceil(mask.width / TILE);
  const x0 = (number % columns) * TILE;
  const y0 = Math.floor(number / columns) * TILE;
  return { x0, y0, x1: Math.min(mask.width, x0 + TILE), y1: Math.min(mask.height, y0 + TILE) };
}

/** Returns the pixels of a tile: 0 or 1 if all are equal, else one bit per pixel. */
export function pack(mask, number) {
  const { x0, y0, x1, y1 } = tileRect(mask, number);
  const bits = new Uint8Array(Math.ceil(((x1 - x0) * (y1 - y0)) / 8));
  let painted = 0;
  let i = 0;
  for (let y = y0; y < y1; y++) {
    const row = y * mask.width;
    for (let x = x0; x < x1; x++, i++) {
      const value = mask.data[row + x];
      painted += value;
      bits[i >> 3] |= value << (i & 7);
    }
  }
  return painted === 0 ? 0 : painted === i ? 1 : bits;
}

/** Writes the pixels of a tile that `pack` returned back into the mask. */
export function unpack(mask, number, packed) {
  const { x0, y0, x1, y1 } = tileRect(mask, number);
  if (typeof packed === "number") {
    for (let y = y0; y < y1; y++) {
      mask.setRow(y, x0, x1, packed);
    }
    return;
  }
  let i = 0;
  for (let y = y0; y < y1; y++) {
    const row = y * mask.width;
    for (let x = x0; x < x1; x++, i++) {
      const value = (packed[i >> 3] >> (i & 7)) & 1;
      mask.area += value - mask.data[row + x];
      mask.data[row + x] = value;
    }
  }
}
