/**
 * Paints and erases: strokes of the brush, straight lines and rectangles. Each is one step of the history.
 */

import { MaskChange } from "../mask/change.js";
import { clip } from "../mask/rect.js";
import { box } from "../mask/shapes.js";

export const UNFINISHED = "Finish the stroke first: release the button, or press P to lift the brush.";
const CLICK = 4; // CSS pixels that a pointer may move in a click.

export class Painter {
  constructor(app) {
    this.app = app;
    this.stroke = null;
  }

  get active() {
    return this.stroke !== null;
  }

  /**
   * Starts a stroke.
   *
   * @param {{x: number, y: number}} point where, in pixels of the photograph; it may lie outside.
   * @param {{erase: boolean, straight: boolean}} how whether to erase, and whether to draw a straight line.
   */
  begin(point, { erase, straight }) {
    const { photo, tool, size } = this.app;
    const shape = tool === "rectangle" ? "rectangle" : straight ? "line" : "brush";
    this.stroke = { photo, shape, from: point, to: point, radius: size / 2, value: erase ? 0 : 1 };
    this.stroke.change = new MaskChange(photo.mask);
    if (shape === "brush") {
      this.#paintLine(point, point);
    }
    this.#preview();
  }

  /** Continues the stroke through a point. */
  move(point) {
    const before = this.stroke.to;
    this.stroke.to = point;
    if (this.stroke.shape === "brush") {
      this.#paintLine(before, point);
    }
    this.#preview();
  }

  /** Ends the stroke. */
  end() {
    const { stroke } = this;
    const { photo, from, to } = stroke;
    if (stroke.shape === "line") {
      const distance = this.app.stage.toCss(Math.hypot(to.x - from.x, to.y - from.y) * photo.viewport.scale);
      this.#paintLine((distance < CLICK && photo.lastPoint) || from, to);
    } else if (stroke.shape === "rectangle") {
      this.#paintRectangle(box(from, to));
    }
    photo.lastPoint = to;
    this.#finish();
    this.app.pushChange(photo, stroke.change);
  }

  /** Takes the stroke back. */
  cancel() {
    if (this.stroke) {
      this.app.stage.drawArea(this.stroke.change.swap());
      this.#finish();
      this.app.refresh();
    }
  }

  #finish() {
    this.stroke = null;
    this.app.cursor.done();
  }

  #preview() {
    const { shape, from, to, radius } = this.stroke;
    if (shape === "line") {
      this.app.cursor.line(from, to, 2 * radius);
    } else if (shape === "rectangle") {
      this.app.cursor.rectangle(box(from, to));
    }
  }

  #paintLine(a, b) {
    const { photo, change, radius, value } = this.stroke;
    const rect = photo.mask.lineBounds(a, b, radius);
    if (rect) {
      change.remember(rect);
      photo.mask.paintLine(a, b, radius, value);
      this.app.stage.drawArea(rect);
      this.app.refresh();
    }
  }

  #paintRectangle(wanted) {
    const { photo, change, value } = this.stroke;
    const rect = clip(wanted, photo.mask.width, photo.mask.height);
    if (rect) {
      change.remember(rect);
      photo.mask.paintRectangle(rect, value);
      this.app.stage.drawArea(rect);
    }
  }
}
