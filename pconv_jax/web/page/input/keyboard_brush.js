/**
 * Painting without a pointer: the arrow keys move the brush, and P puts it down and lifts it.
 */

const STEP = 12; // CSS pixels per press of an arrow key.
const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class KeyboardBrush {
  constructor(app) {
    this.app = app;
    this.photo = null;
    this.point = null;
  }

  /** Moves the brush by an arrow key; with Shift by a single pixel of the photograph. Returns whether it was one. */
  move(event) {
    const direction = DIRECTIONS[event.key];
    if (!direction || event.ctrlKey || event.altKey || event.metaKey) {
      return false;
    }
    const { app } = this;
    const { viewport, mask } = app.photo;
    this.#place();
    const step = event.shiftKey ? 1 : Math.max(1, (STEP * app.stage.cssPixel) / viewport.scale);
    this.point = {
      x: Math.min(mask.width, Math.max(0, this.point.x + direction[0] * step)),
      y: Math.min(mask.height, Math.max(0, this.point.y + direction[1] * step)),
    };
    if (app.painter.active) {
      app.painter.move(this.point);
    }
    if (viewport.show(this.point)) {
      app.stage.draw();
    }
    app.showCursor(this.point);
    return true;
  }

  /** Puts the brush down, or lifts it. */
  toggle() {
    const { app } = this;
    if (app.painter.active) {
      app.painter.end();
      app.say("The brush is up.");
    } else if (app.mayPaint()) {
      this.#place();
      app.painter.begin(this.point, { erase: app.tool === "eraser", straight: false });
      app.showCursor(this.point);
      app.say("The brush is down. The arrow keys paint, and P lifts it.");
    }
  }

  /** Starts in the middle of what is visible of a photograph. */
  #place() {
    const { photo, stage } = this.app;
    if (photo !== this.photo || !this.point) {
      this.photo = photo;
      const middle = photo.viewport.toPhotograph(stage.size.width / 2, stage.size.height / 2);
      this.point = { x: Math.floor(middle.x) + 0.5, y: Math.floor(middle.y) + 0.5 };
    }
  }
}
