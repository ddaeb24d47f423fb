/**
 * Draws a photograph: the original, and over it what each filling changed.
 */

export class Picture {
  /**
   * @param {Levels} original the photograph as it was opened.
   * @param {boolean} transparent whether a pattern of squares has to show through.
   */
  constructor(original, transparent) {
    this.original = original;
    this.transparent = transparent;
    this.patches = []; // Of the visible version, oldest first: {levels, x, y}.
  }

  /**
   * Draws the part of the photograph that lies on the stage.
   *
   * @param {CanvasRenderingContext2D} context of a canvas of the stage's size.
   * @param {Viewport} viewport where the photograph lies.
   * @param {number} before share of the stage's width, from the left, in which the original is shown.
   */
  draw(context, viewport, before) {
    const { width, height } = viewport.stage;
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = viewport.scale < 2;
    context.imageSmoothingQuality = "low";
    const split = Math.round(before * width);
    this.#drawPart(context, viewport, { x: split, width: width - split }, this.patches);
    this.#drawPart(context, viewport, { x: 0, width: split }, []);
  }

  #drawPart(context, viewport, part, patches) {
    if (part.width <= 0) {
      return;
    }
    context.save();
    context.beginPath();
    context.rect(part.x, 0, part.width, viewport.stage.height);
    context.clip();
    this.#place(context, viewport, { levels: this.original, x: 0, y: 0 });
    for (const patch of patches) {
      this.#place(context, viewport, patch);
    }
    context.restore();
  }

  #place(context, viewport, { levels, x, y }) {
    const from = viewport.toStage({ x, y });
    const to = viewport.toStage({ x: x + levels.width, y: y + levels.height });
    const left = Math.round(from.x);
    const top = Math.round(from.y);
    const width = Math.max(1, Math.round(to.x) - left);
    const height = Math.max(1, Math.round(to.y) - top);
    if (this.transparent) {
      context.fillStyle = checkerboard(context, viewport.stage.ratio);
      context.fillRect(left, top, width, height);
    }
    levels.draw(context, left, top, width, height);
  }

  close() {
    this.original.close();
    this.patches = [];
  }
}

let squares = null;

/** Returns the pattern of light and dark squares that stands for transparency. */
function checkerboard(context, ratio) {
  const side = Math.round(8 * ratio);
  if (squares?.width !== 2 * side) {
    squares = new OffscreenCanvas(2 * side, 2 * side);
    const pattern = squares.getContext("2d");
    pattern.fillStyle = "#ffffff";
    pattern.fillRect(0, 0, 2 * side, 2 * side);
    pattern.fillStyle = "#d0d3d8";
    pattern.fillRect(0, 0, side, side);
    pattern.fillRect(side, side, side, side);
  }
  return context.createPattern(squares, "repeat");
}
