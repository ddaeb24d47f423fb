/**
 * What shows where the brush will paint: a circle under the pointer, and the outline of a line or rectangle in work.
 */

export class Cursor {
  constructor(element, stage) {
    this.stage = stage;
    this.circle = element.querySelector(".brush-circle");
    this.outline = element.querySelector(".outline");
  }

  /**
   * Shows the circle around a point of the photograph.
   *
   * @param {?{x: number, y: number}} point its centre; null hides the circle.
   * @param {number} size diameter in pixels of the photograph.
   * @param {string} look "brush", "eraser" or "cross".
   */
  show(point, size, look) {
    this.circle.hidden = !point;
    if (!point) {
      return;
    }
    const { viewport } = this.stage.photo;
    const centre = viewport.toStage(point);
    const diameter = look === "cross" ? 16 : Math.max(3, this.stage.toCss(size * viewport.scale));
    this.circle.dataset.look = look;
    this.circle.style.width = this.circle.style.height = `${diameter}px`;
    const x = this.stage.toCss(centre.x) - diameter / 2;
    const y = this.stage.toCss(centre.y) - diameter / 2;
    this.circle.style.transform = `translate(${x}px, ${y}px)`;
  }

  /** Shows the outline of a line of a brush's width. */
  line(a, b, size) {
    const { viewport } = this.stage.photo;
    const width = this.stage.toCss(size * viewport.scale);
    const length = this.stage.toCss(Math.hypot(b.x - a.x, b.y - a.y) * viewport.scale) + width;
    const middle = viewport.toStage({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
    const x = this.stage.toCss(middle.x) - length / 2;
    const y = this.stage.toCss(middle.y) - width / 2;
    const angle = Math.atan2(b.y - a.y, b.x - a.x);
    this.#outline(length, width, width / 2, `translate(${x}px, ${y}px) rotate(${angle}rad)`);
  }

  /** Shows the outline of a rectangle of pixels. */
  rectangle(rect) {
    const { viewport } = this.stage.photo;
    const from = viewport.toStage({ x: rect.x0, y: rect.y0 });
    const width = this.stage.toCss((rect.x1 - rect.x0) * viewport.scale);
    const height = this.stage.toCss((rect.y1 - rect.y0) * viewport.scale);
    this.#outline(width, height, 0, `translate(${this.stage.toCss(from.x)}px, ${this.stage.toCss(from.y)}px)`);
  }

  #outline(width, height, radius, transform) {
    this.outline.hidden = false;
    Object.assign(this.outline.style, {
      width: `${width}px`,
      height: `${height}px`,
      borderRadius: `${radius}px`,
      transform,
    });
  }

  /** Hides the outline. */
  done() {
    this.outline.hidden = true;
  }
}
