/**
 * Draws a mask. The mask is kept as one small canvas per tile, and only tiles with painted pixels have one.
 */

import { clip } from "../mask/rect.js";
import { TILE, tileRect, tilesIn } from "../mask/tiles.js";

const COLOUR = [255, 38, 110]; // Red, green, blue; the style sheet makes the whole layer translucent.
const PAINTED = new Uint32Array(new Uint8Array([...COLOUR, 255]).buffer)[0];

export class MaskPicture {
  constructor(mask) {
    this.mask = mask;
    this.tiles = new Map();
    this.update(mask.all);
  }

  /** Takes over the pixels of the mask that changed inside a rectangle. */
  update(rect) {
    const inside = rect && clip(rect, this.mask.width, this.mask.height);
    for (const number of inside ? tilesIn(this.mask, inside) : []) {
      const tile = tileRect(this.mask, number);
      this.#write(number, tile, {
        x0: Math.max(tile.x0, inside.x0),
        y0: Math.max(tile.y0, inside.y0),
        x1: Math.min(tile.x1, inside.x1),
        y1: Math.min(tile.y1, inside.y1),
      });
    }
  }

  #write(number, tile, rect) {
    const width = rect.x1 - rect.x0;
    const height = rect.y1 - rect.y0;
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    let painted = 0;
    for (let y = 0, i = 0; y < height; y++) {
      const row = (rect.y0 + y) * this.mask.width + rect.x0;
      for (let x = 0; x < width; x++, i++) {
        if (this.mask.data[row + x]) {
          pixels[i] = PAINTED;
          painted++;
        }
      }
    }
    const whole = width === tile.x1 - tile.x0 && height === tile.y1 - tile.y0;
    if (whole && !painted) {
      this.tiles.delete(number);
      return;
    }
    let context = this.tiles.get(number);
    if (!context && painted) {
      context = new OffscreenCanvas(TILE, TILE).getContext("2d");
      this.tiles.set(number, context);
    }
    context?.putImageData(image, rect.x0 - tile.x0, rect.y0 - tile.y0);
  }

  /**
   * Draws the mask, or the part of it that changed.
   *
   * @param {CanvasRenderingContext2D} context of a canvas of the stage's size.
   * @param {Viewport} viewport where the photograph lies.
   * @param {?{x0: number, y0: number, x1: number, y1: number}} rect the changed pixels, or null for all.
   */
  draw(context, viewport, rect) {
    const visible = this.#visible(viewport, rect);
    const { width, height } = viewport.stage;
    context.save();
    if (rect) {
      const from = viewport.toStage({ x: rect.x0, y: rect.y0 });
      const to = viewport.toStage({ x: rect.x1, y: rect.y1 });
      const x = Math.floor(from.x) - 2;
      const y = Math.floor(from.y) - 2;
      context.beginPath();
      context.rect(x, y, Math.ceil(to.x) + 2 - x, Math.ceil(to.y) + 2 - y);
      context.clip();
    }
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = viewport.scale < 1;
    for (const number of visible) {
      const tile = this.tiles.get(number);
      if (tile) {
        this.#place(context, viewport, number, tile.canvas);
      }
    }
    context.restore();
  }

  /** Returns the numbers of the tiles to draw. */
  #visible(viewport, rect) {
    const { width, height } = viewport.stage;
    const from = viewport.toPhotograph(0, 0);
    const to = viewport.toPhotograph(width, height);
    const margin = rect ? Math.ceil(3 / viewport.scale) : 0; // Neighbours that the cleared rim touches.
    const wanted = {
      x0: Math.max(Math.floor(from.x), (rect?.x0 ?? 0) - margin),
      y0: Math.max(Math.floor(from.y), (rect?.y0 ?? 0) - margin),
      x1: Math.min(Math.ceil(to.x), (rect?.x1 ?? Infinity) + margin),
      y1: Math.min(Math.ceil(to.y), (rect?.y1 ?? Infinity) + margin),
    };
    const inside = clip(wanted, this.mask.width, this.mask.height);
    return inside ? tilesIn(this.mask, inside) : [];
  }

  /** Draws a tile. Its edges are rounded to whole pixels of the screen, so that no seam shows between tiles. */
  #place(context, viewport, number, canvas) {
    const { x0, y0 } = tileRect(this.mask, number);
    const from = viewport.toStage({ x: x0, y: y0 });
    const to = viewport.toStage({ x: x0 + TILE, y: y0 + TILE });
    const left = Math.round(from.x);
    const top = Math.round(from.y);
    const width = Math.max(1, Math.round(to.x) - left);
    const height = Math.max(1, Math.round(to.y) - top);
    context.drawImage(canvas, left, top, width, height);
  }
}
