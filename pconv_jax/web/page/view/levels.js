/**
 * Bitmaps in several sizes, so that drawing them small neither takes long nor looks rough.
 */

const SMALLEST = 512; // Bitmaps whose longer side is at most this long get no smaller copies.

export class Levels {
  constructor(bitmaps) {
    this.bitmaps = bitmaps; // From the full size to smaller ones, each half as large.
  }

  /** Makes the smaller copies of a bitmap. */
  static async of(bitmap) {
    const bitmaps = [bitmap];
    for (let last = bitmap; Math.max(last.width, last.height) > SMALLEST; last = bitmaps.at(-1)) {
      bitmaps.push(
        await createImageBitmap(last, {
          resizeWidth: Math.ceil(last.width / 2),
          resizeHeight: Math.ceil(last.height / 2),
          resizeQuality: "medium",
        }),
      );
    }
    return new Levels(bitmaps);
  }

  get width() {
    return this.bitmaps[0].width;
  }

  get height() {
    return this.bitmaps[0].height;
  }

  /** Draws into the rectangle (x, y, width, height) of a canvas. */
  draw(context, x, y, width, height) {
    let bitmap = this.bitmaps[0];
    for (const smaller of this.bitmaps) {
      if (smaller.width >= width) {
        bitmap = smaller;
      }
    }
    context.drawImage(bitmap, x, y, width, height);
  }

  close() {
    for (const bitmap of this.bitmaps) {
      bitmap.close();
    }
  }
}
